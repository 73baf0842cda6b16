"""The linear algebra of a quadrature: Gaussian processes at many nodes, conditioned on one table.

Everything is a product of matrices; functions are of one node, or of all nodes where that is quicker.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from bayesnet._types import Array, Float
from bayesnet.priors.covariance import Named

# Added to the variance of the noise, relative to that of the function, as in the training tasks.
_JITTER = 1e-7
# The least variance of the function at a query, relative to its prior variance, in float32 and in
# float64: no less is told.
_LEAST_VARIANCE = {4: 1e-6, 8: 1e-9}
# Rows of matrices that are factorised row by row, and of those that are inverted by their factor;
# rows of a block of what is multiplied by a factor at queries.
SMALL, MIDDLE, QUERY_BLOCK = 7, 13, 25


def _matern52(square: Array) -> Array:
    r = jnp.sqrt(5 * square)
    return (1 + r + r**2 / 3) * jnp.exp(-r)


# Stationary kernels as functions of the squared distance in lengthscales.
RADIAL = {"rbf": lambda square: jnp.exp(-0.5 * square), "matern52": _matern52}


def matrix(
    kernel: Any, hyper: Any, x1: Float[Array, "n d"], x2: Float[Array, "k d"]
) -> Float[Array, "n k"]:
    """The covariance; of stationary kernels in float64 by |a|^2 + |b|^2 - 2ab.

    That has gradients six times faster than differences of all pairs; in float32, where it loses digits,
    differences are added up column after column, which is one loop over pairs.
    """
    if not (isinstance(kernel, Named) and kernel.name in RADIAL and kernel.columns is None):
        found: Array = kernel.matrix(hyper, x1, x2)
        return found
    a, b = x1 / hyper["lengthscale"], x2 / hyper["lengthscale"]
    if x1.dtype == jnp.float64:
        square = jnp.sum(a**2, axis=1)[:, None] + jnp.sum(b**2, axis=1) - 2 * a @ b.T
    else:
        square = sum((a[:, j, None] - b[:, j]) ** 2 for j in range(a.shape[1]))
    return hyper["outputscale"] * RADIAL[kernel.name](jnp.maximum(square, 1e-30))


@jax.custom_vjp
def inverse_root(gram: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """R = L^-1 with L L' = gram, lower triangular; NaN where gram is not positive definite.

    By halves, down to a few rows, in products of matrices alone: LAPACK beside other work of a
    program can dead-lock XLA on CPU (seen here with two threads). With R_1 of the first half and
    L_21 = K_21 R_1', the second half has R_2 of K_22 - L_21 L_21' and R_21 = -R_2 L_21 R_1.
    """
    if len(gram) <= SMALL:
        found: Array = _by_rows(gram)
        return found
    k = (len(gram) + 1) // 2
    first = inverse_root(gram[:k, :k])
    below = gram[k:, :k] @ first.T
    second = inverse_root(gram[k:, k:] - below @ below.T)
    return _joined(first, jnp.zeros_like(below.T), -second @ (below @ first), second)


@custom_vmap
def _by_rows(grams: Float[Array, "*b n n"]) -> Float[Array, "*b n n"]:
    """`inverse_root` of small matrices, row by row; over the matrices each number is a vector, which
    is why vmapped axes are gathered instead of left to JAX."""
    n = grams.shape[-1]
    flat = jnp.moveaxis(grams.reshape(-1, n, n), 0, -1)

    def step(root: Array, own: Array) -> tuple[Array, None]:
        # `own` marks the row: no index, whose integer type would depend on the scope.
        row = jnp.tensordot(own, flat, 1)
        below = jnp.sum(root * row, axis=1)  # 0 from the row on
        scale = jax.lax.rsqrt(own @ row - jnp.sum(below**2, axis=0))
        new = scale * (own[:, None] - jnp.sum(below[:, None] * root, axis=0))
        return root + own[:, None, None] * new, None

    eye = jnp.eye(n, dtype=grams.dtype)
    root: Array = jax.lax.scan(step, jnp.zeros_like(flat), eye)[0]
    return jnp.moveaxis(root, -1, 0).reshape(grams.shape)


@_by_rows.def_vmap
def _by_rows_vmapped(size: int, batched: list[bool], grams: Array) -> tuple[Array, bool]:
    return _by_rows(grams), True


def _joined(a: Array, b: Array, c: Array, d: Array) -> Array:
    """The matrix [[a, b], [c, d]]."""
    top, bottom = jnp.concatenate([a, b], axis=1), jnp.concatenate([c, d], axis=1)
    return jnp.concatenate([top, bottom])


def _inverse_root_forward(gram: Array) -> tuple[Array, Array]:
    root = inverse_root(gram)
    return root, root


def _inverse_root_backward(root: Array, by: Array) -> tuple[Array]:
    # dR = -low(R dK R') R, low() being the lower half with half of the diagonal (Murray 2016, 3.1).
    inner = jnp.tril(by @ root.T)
    inner = inner - 0.5 * jnp.diag(jnp.diagonal(inner))
    slope = -root.T @ inner @ root
    return (0.5 * (slope + slope.T),)


inverse_root.defvjp(_inverse_root_forward, _inverse_root_backward)


@jax.custom_vjp
def inverse(gram: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The inverse of a positive definite matrix, by halves: half the work of `inverse_root` squared."""
    if len(gram) <= MIDDLE:
        root = inverse_root(gram)
        return root.T @ root
    k = (len(gram) + 1) // 2
    first = inverse(gram[:k, :k])
    cross = gram[k:, :k] @ first
    second = inverse(gram[k:, k:] - cross @ gram[:k, k:])
    below = -second @ cross
    return _joined(first - cross.T @ below, below.T, below, second)


def _inverse_forward(gram: Array) -> tuple[Array, Array]:
    found = inverse(gram)
    return found, found


def _inverse_backward(found: Array, by: Array) -> tuple[Array]:
    return (-0.5 * found @ (by + by.T) @ found,)


inverse.defvjp(_inverse_forward, _inverse_backward)


def totals(kernels: Any, hyper: Any, x: Array, mask: Array) -> Float[Array, "p n r r"]:
    """The covariances of observations at rows, at every node; padded rows are independent, of
    unit variance. Of all kinds of processes together: what is small is solved in few, large batches."""

    def total(kernel: Any, values: Any, noise: Array) -> Array:
        gram = matrix(kernel, values, x, x) * (mask[:, None] & mask)
        variance = jnp.diagonal(gram).max()
        ridge = noise**2 + _JITTER * jnp.where(variance > 0, variance, 1.0)
        return gram + jnp.diag(jnp.where(mask, ridge, 1.0))

    return jnp.stack(
        [jax.vmap(partial(total, k))(*pair) for k, pair in zip(kernels, hyper, strict=True)]
    )


def at_every(solve: Any, totals: Array, y: Array, mask: Array) -> Any:
    """What `solve` makes of every covariance, leading axes (p, n), and of the targets."""
    return jax.vmap(jax.vmap(lambda total: solve(total, jnp.where(mask, y, 0.0))))(totals)


@jax.custom_vjp
def evidence_of(total: Float[Array, "n n"], y: Float[Array, " n"]) -> Float[Array, ""]:
    """Log evidence up to a constant of a table at one node."""
    return solved_of(total, y)[0]


def _evidence_forward(total: Array, y: Array) -> tuple[Array, tuple[Array, Array]]:
    # The value is left out of programs that ask for slopes alone; what these need has no root.
    inverted = inverse(total)
    return evidence_of(total, y), (inverted @ y, inverted)


def _evidence_backward(kept: tuple[Array, Array], by: Array) -> tuple[Array, Array]:
    # d log p = (a a' - K^-1) / 2 with a = K^-1 y (Rasmussen & Williams 2006, 5.9): one product of matrices.
    solved, inverted = kept
    return 0.5 * by * (jnp.outer(solved, solved) - inverted), -by * solved


evidence_of.defvjp(_evidence_forward, _evidence_backward)


def solved_of(total: Array, y: Array) -> tuple[Array, Array, Array]:
    """Log evidence up to a constant, K^-1 y and L^-1 of a table at one node (K = L L')."""
    root = inverse_root(total)
    e = root @ y
    return -0.5 * e @ e + jnp.sum(jnp.log(jnp.diagonal(root))), root.T @ e, root


def slopes(density: Any) -> Any:
    """The derivatives of `density(z, odds, *table)`, summed over nodes, in its first two arguments."""

    def at(z: Array, odds: Array, *table: Any) -> tuple[Array, Array]:
        value, pull = jax.vjp(lambda z, odds: density(z, odds, *table), z, odds)
        found: tuple[Array, Array] = pull(jnp.ones_like(value))
        return found

    return at


def joint_at(kernel: Any) -> Any:
    """Mean and covariance of the function between queries, at one node."""

    def joint(hyper: Any, solved: Array, root: Array, rows: Array, mask: Array, x: Array) -> Any:
        cross = matrix(kernel, hyper, rows, x) * mask[:, None]
        half = root @ cross
        return solved @ cross, matrix(kernel, hyper, x, x) - half.T @ half

    return joint


def explained(root: Float[Array, "n n"], cross: Float[Array, "n q"]) -> Float[Array, " q"]:
    """Column sums of (root cross)^2, block after block of rows: half of a root is zeros."""
    ends = range(QUERY_BLOCK, len(root) + QUERY_BLOCK, QUERY_BLOCK)
    parts = [jnp.sum((root[e - QUERY_BLOCK : e, :e] @ cross[:e]) ** 2, axis=0) for e in ends]
    return sum(parts[1:], parts[0])


def law_at(kernel: Any) -> Any:
    """Mean and variance of the function at queries (q,), at one node."""

    def law(hyper: Any, solved: Array, root: Array, rows: Array, mask: Array, x: Array) -> Any:
        cross = matrix(kernel, hyper, rows, x) * mask[:, None]
        prior = jax.vmap(lambda q: kernel.matrix(hyper, q[None], q[None])[0, 0])(x)
        left = prior - explained(root, cross)
        return solved @ cross, jnp.maximum(left, _LEAST_VARIANCE[left.dtype.itemsize] * prior)

    return law
