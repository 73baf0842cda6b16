"""Duals of any activation, by its expansion in Hermite polynomials.

With orthonormal Hermite polynomials h_j and `a_j(s) = E[phi(s z) h_j(z)]`, z ~ N(0, 1),

    E[phi(u) phi(v)] = sum_j a_j(s1) a_j(s2) rho^j          (Mehler 1866; Daniely et al. 2016, eq. 9)

for a pair of variances s1^2, s2^2 and correlation rho. The coefficients are one-dimensional
integrals a row, not two-dimensional ones an entry of the matrix. Series of smooth functions end where
nothing is left in any row. What is left of the norm `E[phi^2]` of a row, in odd and in even terms, is
one more coefficient of it: diagonals are exact, and the matrix is positive definite. It goes with the
next powers of rho or, for functions with a corner at 0, with the known tail of such a corner.
"""

from __future__ import annotations

from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from bayesnet._errors import InputError
from bayesnet._types import Array
from bayesnet.kernels.activations.base import Dual
from bayesnet.kernels.activations.corners import (
    ORDERS,
    Function,
    corner_order,
    derivative_of,
    dual_of_corner,
    squared_coefficients,
    tail_at_one,
)
from bayesnet.kernels.activations.series import BLOCK, series

# Terms at most unless said otherwise, and the most. Errors: docs/methods/infinite-width.md.
TERMS, MOST_TERMS = 1024, 4096
# Share of the norm at which series end, and below which what is left is rounding.
LEFT, ROUNDING = 1e-10, 16.0
# Panels of 16 Gauss-Legendre nodes: narrow at 0, where activations bend and most corners are, and
# beyond so narrow that 16 nodes see the waves of the last polynomial (wave number sqrt(terms)).
FIRST_EDGES, LAST_EDGE, RADIANS = (0.0, 0.02, 0.06, 0.15, 0.3, 0.5, 0.75, 1.0), 12.0, 12.0


def _half_rule(terms: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes z > 0 and weights of N(0, 1) there."""
    x, w = np.polynomial.legendre.leggauss(16)
    finest = RADIANS / terms**0.5
    edges = [0.0]
    for low, high in pairwise((*FIRST_EDGES, *np.arange(1.5, LAST_EDGE + 0.1, 0.5))):
        pieces = int(np.ceil((high - low) / finest))
        edges += list(np.linspace(low, high, pieces + 1)[1:])
    centre, half = 0.5 * (np.array(edges[1:]) + edges[:-1]), 0.5 * np.diff(edges)
    z = (centre[:, None] + half[:, None] * x).ravel()
    return z, (half[:, None] * w).ravel() * np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)


@lru_cache(maxsize=8)
def _rule(terms: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes z > 0, roots of their weights, and h_0 to h_{terms - 1} there (terms, nodes),
    orthonormal under N(0, 1), times these roots."""
    z, w = _half_rule(terms)
    root = np.sqrt(w)
    rows = [root, z * root]
    for j in range(1, terms - 1):
        rows.append((z * rows[j] - np.sqrt(j) * rows[j - 1]) / np.sqrt(j + 1.0))
    return z, root, np.stack(rows)


def _column(a: np.ndarray, like: Array, axes: int | None = None) -> Array:
    """A vector along a new leading axis of `like`."""
    return jnp.asarray(a, like.dtype).reshape((-1,) + (1,) * (like.ndim if axes is None else axes))


def _sides(phi: Function, z: np.ndarray, root: np.ndarray, v: Array) -> tuple[Array, Array]:
    """The even and odd parts of phi at nodes, times the roots of the weights: (nodes, ...)."""
    # The root has no slope at 0: a variance of 0 keeps the value phi(0), and gets the slope 0.
    sd = jnp.where(v > 0.0, jnp.sqrt(jnp.where(v > 0.0, v, 1.0)), 0.0)
    at = _column(z, v) * sd
    up, down = phi(at), phi(-at)
    # Nodes stand for both signs: the sum over them of even^2 + odd^2 is E[phi^2].
    scaled = _column(root * 0.5**0.5, v)
    return scaled * (up + down), scaled * (up - down)


def _coefficients(phi: Function, terms: int, v: Array) -> tuple[Array, Array]:
    """For variances v (...,): coefficients (terms, ...), and the norms of the even and the odd part
    of phi (2, ...)."""
    z, root, basis = _rule(terms)
    sides = _sides(phi, z, root, v)
    parts = [
        jnp.tensordot(jnp.asarray(basis[i::2] * 2.0**0.5, v.dtype), side, 1)
        for i, side in enumerate(sides)
    ]
    coefficients = jnp.stack(parts, axis=1).reshape((terms, *v.shape))
    return coefficients, jnp.stack([jnp.sum(side**2, axis=0) for side in sides])


def _norm(phi: Function, terms: int, v: Array) -> Array:
    z, root, _ = _rule(terms)
    even, odd = _sides(phi, z, root, v)
    return jnp.sum(even**2, axis=0) + jnp.sum(odd**2, axis=0)


def _least(a: Array) -> float:
    """The share of the norm at which series end, in the precision at hand."""
    return max(LEFT, 4.0 * ROUNDING * float(jnp.finfo(a.dtype).eps))


def _blocks_needed(a: Array, norms: Array) -> Array:
    """How many blocks of terms leave less than `_least` of any row's norm."""
    whole = norms[0] + norms[1]
    blocks = len(a) // BLOCK
    each = jnp.sum((a * a).reshape((blocks, BLOCK, -1)), axis=1)
    left = whole.reshape(-1) - jnp.cumsum(each, axis=0) > _least(a) * whole.reshape(-1)
    return lax.stop_gradient(jnp.minimum(1 + jnp.sum(jnp.any(left, axis=1)), blocks))


def _rest(a: Array, norms: Array, count: Array | int) -> tuple[Array, Array]:
    """The coefficients that make norms exact: what `count` terms leave of the even and odd part."""
    kept = jnp.where(_column(np.arange(len(a)), a, a.ndim - 1) < count, a * a, 0.0)
    found = []
    for i in range(2):
        rest = norms[i] - jnp.sum(kept[i::2], axis=0)
        true = rest > ROUNDING * jnp.finfo(a.dtype).eps * (norms[0] + norms[1])
        # No gradient of a root at 0, nor of rounding.
        found.append(jnp.where(true, jnp.sqrt(jnp.where(true, rest, 1.0)), 0.0))
    return found[0], found[1]


def _tail_orders(order: int | None) -> tuple[int | None, int | None]:
    """Orders of the corner functions that rule the even and the odd part of the tail."""
    if order is None:
        return None, None
    pair = (order, order + 1) if order % 2 else (order + 1, order)
    even, odd = (k if k in ORDERS else None for k in pair)
    return even, odd


def _expand(phi: Function, order: int | None, terms: int, k: Array, v1: Array, v2: Array) -> Array:
    a, norms1 = _coefficients(phi, terms, v1)
    b, norms2 = _coefficients(phi, terms, v2)
    norm = v1 * v2
    positive = norm > 0.0
    rho = jnp.where(positive, k / jnp.sqrt(jnp.where(positive, norm, 1.0)), 0.0)
    if order is None:
        blocks = jnp.maximum(_blocks_needed(a, norms1), _blocks_needed(b, norms2))
    else:  # Tails are never nothing: the same number for all rows and all parts of a matrix.
        blocks = jnp.asarray(terms // BLOCK)
    rests = list(
        zip(
            _rest(a, norms1, BLOCK * blocks),
            _rest(b, norms2, BLOCK * blocks),
            _tail_orders(order),
            strict=True,
        )
    )
    if order is None:
        total, power = series(a[:, None], b[:, None], rho, blocks)
    else:
        # The first terms of the corners' duals are taken off in the same pass.
        less = [jnp.zeros_like(c) for c in (a, b)]
        for i, (one, two, corner) in enumerate(rests):
            if corner is None:
                continue
            q = np.sqrt(squared_coefficients(corner, terms)[i::2] / tail_at_one(corner, terms))
            less[0] = less[0].at[i::2].set(-_column(q, a, a.ndim - 1) * one)
            less[1] = less[1].at[i::2].set(_column(q, b, b.ndim - 1) * two)
        total, power = series(
            jnp.stack([a, less[0]], axis=1), jnp.stack([b, less[1]], axis=1), rho, blocks
        )
    for i, (one, two, corner) in enumerate(rests):
        if corner is None:
            total = total + one * two * (power * rho if i else power)
        else:
            total = total + one * two * (dual_of_corner(corner, rho) / tail_at_one(corner, terms))
    return total


def _left_out(phi: Function, order: int | None, terms: int, v: Array) -> Array:
    """A bound of the error at variance v, as a share of `E[phi^2]` (the geometric mean of both, up to
    twice as much, where variances differ)."""
    a, norms = _coefficients(phi, terms, v)
    whole = norms[0] + norms[1]
    error = jnp.zeros_like(whole)
    for i, corner in enumerate(_tail_orders(order)):
        squares = a[i::2] ** 2
        # All terms: series that end earlier leave `early`, below.
        rest = jnp.maximum(norms[i] - jnp.sum(squares, axis=0), 0.0)
        apart = jnp.ones_like(rest)
        if corner is not None:
            # Two tails of equal sums differ by half of the sum of their differences, term by term;
            # these shrink, so that the last terms that are known bound them.
            late = slice(len(squares) // 2, None)
            model = squared_coefficients(corner, terms)[i::2] / tail_at_one(corner, terms)
            known = rest * _column(model, rest)
            total = jnp.sum(known[late], axis=0)
            difference = 0.5 * jnp.sum(jnp.abs(squares - known)[late], axis=0)
            apart = jnp.where(total > 0.0, difference / jnp.where(total > 0.0, total, 1.0), 1.0)
        error = error + rest * jnp.minimum(apart, 1.0)
    # Corners elsewhere are not at edges of panels: a rule of other panels tells.
    quadrature = jnp.abs(whole - _norm(phi, MOST_TERMS, v))
    early = _least(a) if order is None else 0.0
    return early + (error + quadrature) / jnp.where(whole > 0.0, whole, 1.0)


def check_terms(terms: Any) -> int:
    """Raises `InputError` unless `terms` is an even whole number of 16 to 4096; None means 1024."""
    if terms is None:
        return TERMS
    if isinstance(terms, bool) or int(terms) != terms or terms % 2 or not 16 <= terms <= MOST_TERMS:
        raise InputError(f"terms must be an even number from 16 to {MOST_TERMS}, got {terms!r}.")
    return int(terms)


def by_expansion(phi: Function, terms: int | None = None) -> Dual:
    """The dual of a function of arrays, element by element, written with jax.numpy.

    Accurate to 1e-6 for functions that are smooth on the scale of the units' standard deviation,
    but for a corner at 0; `missing` bounds the error, which corners elsewhere and steps make larger,
    and more `terms` smaller.
    """
    count = check_terms(terms)
    try:
        return _dual(phi, count)
    except TypeError:  # of a callable without a hash
        return _dual.__wrapped__(phi, count)


@lru_cache(maxsize=128)
def _dual(phi: Function, count: int) -> Dual:
    count += -count % BLOCK
    slope = derivative_of(phi)
    of_value, of_slope = corner_order(phi), corner_order(slope)
    return Dual(
        phi,
        partial(_expand, phi, of_value, count),
        partial(_expand, slope, of_slope, count),
        lambda v: (_left_out(phi, of_value, count, v), _left_out(slope, of_slope, count, v)),
        lambda v: (_norm(phi, count, v), _norm(slope, count, v)),
    )
