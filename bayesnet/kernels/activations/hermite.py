"""Duals of any activation, by its expansion in Hermite polynomials.

With orthonormal Hermite polynomials h_j and `a_j(s) = E[phi(s z) h_j(z)]`, z ~ N(0, 1),

    E[phi(u) phi(v)] = sum_j a_j(s1) a_j(s2) rho^j          (Mehler 1866; Daniely et al. 2016, eq. 9)

for a pair of variances s1^2, s2^2 and correlation rho. The coefficients are one-dimensional
integrals a row, not two-dimensional ones an entry of the matrix. What the first `terms` leave
out at rho = 1 and -1 is known exactly by the same quadrature; the odd and the even part of it are
put on the next powers of rho, so that diagonals are exact and the matrix stays positive definite.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bayesnet._errors import InputError
from bayesnet._types import Array
from bayesnet.kernels.activations.base import Dual

Function = Callable[[Array], Array]

# Terms unless said otherwise, and the most. Relative errors: docs/methods/infinite-width.md.
TERMS, MOST_TERMS, UNROLL = 256, 4096, 8
# Panels of 16 Gauss-Legendre nodes: narrow at 0, where activations bend and most corners are, and
# beyond so narrow that 16 nodes see the waves of the last polynomial (wave number sqrt(terms)).
FIRST_EDGES, LAST_EDGE = (0.0, 0.02, 0.06, 0.15, 0.3, 0.5, 0.75, 1.0), 12.0


def _half_rule(terms: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes z > 0 and weights of N(0, 1) there."""
    x, w = np.polynomial.legendre.leggauss(16)
    finest = 8.0 / terms**0.5
    edges = [0.0]
    for low, high in pairwise((*FIRST_EDGES, *np.arange(1.5, LAST_EDGE + 0.1, 0.5))):
        pieces = int(np.ceil((high - low) / finest))
        edges += list(np.linspace(low, high, pieces + 1)[1:])
    centre, half = 0.5 * (np.array(edges[1:]) + edges[:-1]), 0.5 * np.diff(edges)
    z = (centre[:, None] + half[:, None] * x).ravel()
    return z, (half[:, None] * w).ravel() * np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)


def _polynomials(z: np.ndarray, terms: int) -> np.ndarray:
    """h_0 to h_{terms - 1} at z, orthonormal under N(0, 1)."""
    rows = [np.ones_like(z), z]
    for j in range(1, terms - 1):
        rows.append((z * rows[j] - np.sqrt(j) * rows[j - 1]) / np.sqrt(j + 1.0))
    return np.stack(rows)


def _parts(phi: Function, terms: int, v: Array) -> tuple[Array, Array, Array]:
    """For variances v (...,): coefficients (terms, ...), and the even and odd parts of phi at the
    nodes z > 0, times the roots of the weights (nodes, ...)."""
    z, w = _half_rule(terms)
    # The root has no slope at 0: a variance of 0 keeps the value phi(0), and gets the slope 0.
    sd = jnp.where(v > 0.0, jnp.sqrt(jnp.where(v > 0.0, v, 1.0)), 0.0)
    at = jnp.asarray(z, v.dtype).reshape((-1,) + (1,) * v.ndim) * sd
    up, down = phi(at), phi(-at)
    root = jnp.asarray(np.sqrt(w), v.dtype).reshape((-1,) + (1,) * v.ndim)
    # Nodes stand for both signs: the sum over them of even^2 + odd^2 is E[phi^2].
    even, odd = (root * 0.5**0.5 * part for part in (up + down, up - down))
    basis = jnp.asarray(_polynomials(z, terms) * np.sqrt(w) * 2.0**0.5, v.dtype)
    coefficients = jnp.zeros((terms, *v.shape), v.dtype)
    coefficients = coefficients.at[0::2].set(jnp.tensordot(basis[0::2], even, 1))
    return coefficients.at[1::2].set(jnp.tensordot(basis[1::2], odd, 1)), even, odd


def _gram(a: Array, b: Array) -> Array:
    """The sum over the leading axis of the products of two arrays that broadcast."""
    axes = range(1, a.ndim)
    left, right = ([0] + [i for i in axes if c.shape[i] > 1] for c in (a, b))
    both = sorted((set(left) | set(right)) - {0})
    shape = jnp.broadcast_shapes(a.shape[1:], b.shape[1:])
    squeezed = (c.reshape([n for i, n in enumerate(c.shape) if i == 0 or n > 1]) for c in (a, b))
    a, b = squeezed
    return jnp.einsum(a, left, b, right, both).reshape(shape)


@jax.custom_vjp
def _series(a: Array, b: Array, rho: Array) -> Array:
    """`sum_j a_j b_j rho^j`; a_j and b_j (leading axis) broadcast against rho."""

    def step(carry: tuple[Array, Array], terms: tuple[Array, Array]) -> tuple:
        total, power = carry
        return (total + terms[0] * terms[1] * power, power * rho), None

    start = (jnp.zeros_like(rho), jnp.ones_like(rho))
    return lax.scan(step, start, (a, b), unroll=UNROLL)[0][0]


def _series_forward(a: Array, b: Array, rho: Array) -> tuple[Array, Any]:
    return _series(a, b, rho), (a, b, rho)


def _series_backward(saved: Any, cotangent: Array) -> tuple[Array, Array, Array]:
    # The powers are made again: kept, they would be 256 matrices.
    a, b, rho = saved

    def step(carry: Any, terms: tuple[Array, Array]) -> tuple[Any, Any]:
        total, power, lower = carry  # rho^j and j rho^(j-1)
        weighted = cotangent * power
        slopes = tuple(
            _sum_to(weighted * other, own.shape)
            for own, other in zip(terms, terms[::-1], strict=True)
        )
        total = total + terms[0] * terms[1] * lower
        return (total, power * rho, lower * rho + power), slopes

    start = (jnp.zeros_like(rho), jnp.ones_like(rho), jnp.zeros_like(rho))
    (total, _, _), sums = lax.scan(step, start, (a, b), unroll=UNROLL)
    return *sums, total * cotangent


_series.defvjp(_series_forward, _series_backward)


def _sum_to(a: Array, shape: tuple[int, ...]) -> Array:
    """The transpose of broadcasting from `shape`, of the same number of axes."""
    axes = tuple(
        i for i, (big, small) in enumerate(zip(a.shape, shape, strict=True)) if big != small
    )
    return jnp.sum(a, axis=axes, keepdims=True)


def _expand(phi: Function, terms: int, k: Array, v1: Array, v2: Array) -> Array:
    a, even1, odd1 = _parts(phi, terms, v1)
    b, even2, odd2 = _parts(phi, terms, v2)
    norm = v1 * v2
    positive = norm > 0.0
    rho = jnp.where(positive, k / jnp.sqrt(jnp.where(positive, norm, 1.0)), 0.0)
    rest_even = _gram(even1, even2) - _gram(a[0::2], b[0::2])
    rest_odd = _gram(odd1, odd2) - _gram(a[1::2], b[1::2])
    return _series(a, b, rho) + rho**terms * (rest_even + rho * rest_odd)


def _norm(phi: Function, terms: int, v: Array) -> Array:
    _, even, odd = _parts(phi, terms, v)
    return jnp.sum(even**2, 0) + jnp.sum(odd**2, 0)


def _share_left_out(phi: Function, terms: int, v: Array) -> Array:
    a, even, odd = _parts(phi, terms, v)
    whole = jnp.sum(even**2, 0) + jnp.sum(odd**2, 0)
    return jnp.maximum(1.0 - jnp.sum(a**2, 0) / jnp.where(whole > 0.0, whole, 1.0), 0.0)


def check_terms(terms: Any) -> int:
    """Raises `InputError` unless `terms` is an even whole number of 16 to 4096; None means 256."""
    if terms is None:
        return TERMS
    if isinstance(terms, bool) or int(terms) != terms or terms % 2 or not 16 <= terms <= MOST_TERMS:
        raise InputError(f"terms must be an even number from 16 to {MOST_TERMS}, got {terms!r}.")
    return int(terms)


def by_expansion(phi: Function, terms: int | None = None) -> Dual:
    """The dual of a function of arrays, element by element, written with jax.numpy.

    Accurate to 1e-6 for functions that are smooth on the scale of the units' standard deviation;
    `missing` bounds the error, which corners and steps make larger, and more `terms` smaller.
    """
    count = check_terms(terms)

    def derivative(u: Array) -> Array:
        return jax.jvp(phi, (u,), (jnp.ones_like(u),))[1]

    def each(fn: Callable[..., Array]) -> Callable[[Array], tuple[Array, Array]]:
        return lambda v: (fn(phi, count, v), fn(derivative, count, v))

    return Dual(
        phi,
        partial(_expand, phi, count),
        partial(_expand, derivative, count),
        each(_share_left_out),
        each(_norm),
    )
