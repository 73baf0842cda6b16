"""Duals of any activation, by its expansion in Hermite polynomials.

With orthonormal Hermite polynomials h_j and `a_j(s) = E[phi(s z) h_j(z)]`, z ~ N(0, 1),

    E[phi(u) phi(v)] = sum_j a_j(s1) a_j(s2) rho^j          (Mehler 1866; Daniely et al. 2016, eq. 9)

for a pair of variances s1^2, s2^2 and correlation rho. The coefficients are one-dimensional
integrals a row, not two-dimensional ones an entry of the matrix. What the terms up to `TERMS` leave
out at rho = 1 and -1 is known exactly by the same quadrature; the odd and the even part of it are
put on the next powers of rho, so that diagonals are exact and the matrix stays positive definite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bayesnet._types import Array
from bayesnet.kernels.activations.base import Dual

# Relative errors of tanh: see the tests and docs/methods/infinite-width.md.
TERMS, UNROLL = 256, 8
# Panels of 16 Gauss-Legendre nodes: narrow at 0, where activations bend and most corners are.
EDGES = (0.0, 0.02, 0.06, 0.15, 0.3, 0.5, 0.75, 1.0, *np.arange(1.5, 12.1, 0.5))


def _half_rule() -> tuple[np.ndarray, np.ndarray]:
    """Nodes z > 0 and weights of N(0, 1) there."""
    x, w = np.polynomial.legendre.leggauss(16)
    edges = np.array(EDGES)
    centre, half = 0.5 * (edges[1:] + edges[:-1]), 0.5 * np.diff(edges)
    z = (centre[:, None] + half[:, None] * x).ravel()
    return z, (half[:, None] * w).ravel() * np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)


def _polynomials(z: np.ndarray) -> np.ndarray:
    """h_0 to h_{TERMS - 1} at z, orthonormal under N(0, 1)."""
    rows = [np.ones_like(z), z]
    for j in range(1, TERMS - 1):
        rows.append((z * rows[j] - np.sqrt(j) * rows[j - 1]) / np.sqrt(j + 1.0))
    return np.stack(rows)


def _parts(phi: Callable[[Array], Array], v: Array) -> tuple[Array, Array, Array]:
    """For variances v (...,): coefficients (TERMS, ...), and the even and odd parts of phi at the
    nodes z > 0, times the roots of the weights (nodes, ...)."""
    z, w = _half_rule()
    # The root has no slope at 0: a variance of 0 keeps the value phi(0), and gets the slope 0.
    sd = jnp.where(v > 0.0, jnp.sqrt(jnp.where(v > 0.0, v, 1.0)), 0.0)
    at = jnp.asarray(z, v.dtype).reshape((-1,) + (1,) * v.ndim) * sd
    up, down = phi(at), phi(-at)
    root = jnp.asarray(np.sqrt(w), v.dtype).reshape((-1,) + (1,) * v.ndim)
    # Both halves of the axis are in `root` twice: sum over nodes of even^2 + odd^2 is E[phi^2].
    even, odd = (root * 0.5**0.5 * part for part in (up + down, up - down))
    basis = jnp.asarray(_polynomials(z) * np.sqrt(w) * 2.0**0.5, v.dtype)
    coefficients = jnp.zeros((TERMS, *v.shape), v.dtype)
    coefficients = coefficients.at[0::2].set(jnp.tensordot(basis[0::2], even, 1))
    return coefficients.at[1::2].set(jnp.tensordot(basis[1::2], odd, 1)), even, odd


def _gram(a: Array, b: Array, like: Array) -> Array:
    """The sum over the leading axis of products of what broadcasts to `like`."""
    # Outer products of rows are a matrix product; of paired rows a sum.
    if a.ndim == 3 and a.shape[2] == 1 and b.shape[1] == 1:
        return a[:, :, 0].T @ b[:, 0, :]
    return jnp.sum(a * b, axis=0)


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


def _expand(phi: Callable[[Array], Array], k: Array, v1: Array, v2: Array) -> Array:
    a, even1, odd1 = _parts(phi, v1)
    b, even2, odd2 = _parts(phi, v2)
    norm = v1 * v2
    positive = norm > 0.0
    rho = jnp.where(positive, k / jnp.sqrt(jnp.where(positive, norm, 1.0)), 0.0)

    total = _series(a, b, rho)
    power = rho**TERMS
    rest_even = _gram(even1, even2, k) - _gram(a[0::2], b[0::2], k)
    rest_odd = _gram(odd1, odd2, k) - _gram(a[1::2], b[1::2], k)
    return total + power * (rest_even + rho * rest_odd)


def _norm(phi: Callable[[Array], Array], v: Array) -> Array:
    _, even, odd = _parts(phi, v)
    return jnp.sum(even**2, 0) + jnp.sum(odd**2, 0)


def _share_left_out(phi: Callable[[Array], Array], v: Array) -> Array:
    a, even, odd = _parts(phi, v)
    whole = jnp.sum(even**2, 0) + jnp.sum(odd**2, 0)
    return jnp.maximum(1.0 - jnp.sum(a**2, 0) / jnp.where(whole > 0.0, whole, 1.0), 0.0)


def by_expansion(phi: Callable[[Array], Array]) -> Dual:
    """The dual of a function of arrays, element by element, written with jax.numpy.

    Accurate to 1e-6 for functions that are smooth on the scale of the units' standard deviation;
    `missing` bounds the error, which corners and steps make larger.
    """

    def derivative(u: Array) -> Array:
        return jax.jvp(phi, (u,), (jnp.ones_like(u),))[1]

    def missing(v: Array) -> tuple[Array, Array]:
        return _share_left_out(phi, v), _share_left_out(derivative, v)

    return Dual(
        phi,
        lambda k, v1, v2: _expand(phi, k, v1, v2),
        lambda k, v1, v2: _expand(derivative, k, v1, v2),
        missing,
        lambda v: (_norm(phi, v), _norm(derivative, v)),
    )
