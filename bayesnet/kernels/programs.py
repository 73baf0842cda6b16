"""The compiled programs of kernels: kept by the structure (`kernel.bare()`), variances are arguments."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bayesnet._types import Array, Key
from bayesnet.devices import float64_island
from bayesnet.kernels.propagation import diagonal_of, left_out_of, matrices

# Added to the diagonal, relative to its mean, before draws are made (as GaussianProcess does).
JITTER = 1e-6


@partial(jax.jit, static_argnums=0)
def matrix_program(kernel: Any, hyper: Any, x1: Array, x2: Array) -> Array:
    """The kernel (n, k)."""
    return float64_island(kernel.matrix)(hyper, x1, x2)


@partial(jax.jit, static_argnums=0)
def both_program(kernel: Any, hyper: Any, x1: Array, x2: Array) -> tuple[Array, Array]:
    """NNGP and NTK (n, k)."""

    def compute(hyper: Any, x1: Array, x2: Array) -> Any:
        return matrices(kernel.layers, hyper, x1, x2, ntk=True)

    return float64_island(compute)(hyper, x1, x2)


@partial(jax.jit, static_argnums=0)
def diagonal_program(kernel: Any, hyper: Any, x: Array) -> Array:
    """The kernel (n,) of rows with themselves."""

    def compute(hyper: Any, x: Array) -> Array:
        return diagonal_of(kernel.layers, hyper, x, ntk=kernel._which == "ntk")

    return float64_island(compute)(hyper, x)


@partial(jax.jit, static_argnums=0)
def left_out_program(kernel: Any, hyper: Any, x: Array) -> Array:
    """Bounds (n,) of the error of expansions."""

    def compute(hyper: Any, x: Array) -> Array:
        return left_out_of(kernel.layers, hyper, x, ntk=kernel._which == "ntk")

    return float64_island(compute)(hyper, x)


@partial(jax.jit, static_argnums=(0, 1))
def draw_program(kernel: Any, num: int, hyper: Any, key: Key, x: Array) -> Array:
    """Draws (num, n): a program of its own, see `gaussian_process._draw_traced`."""
    noise = jax.random.normal(key, (num, len(x)))

    def draw(hyper: Any, x: Array, noise: Array) -> Array:
        matrix = kernel.matrix(hyper, x, x)
        level = JITTER * jnp.trace(matrix) / len(x)
        return noise @ jnp.linalg.cholesky(matrix + level * jnp.eye(len(x), dtype=x.dtype)).T

    return float64_island(draw)(hyper, x, noise)
