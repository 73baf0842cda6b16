"""The linear algebra of a quadrature: Gaussian processes at many nodes, conditioned on one table.

Everything is a product of matrices; functions are of one node, or of all nodes where that is quicker.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bayesnet._types import Array, Float
from bayesnet.priors.covariance import Named

# Added to the variance of the noise, relative to that of the function, as in the training tasks.
_JITTER = 1e-7
# The least variance of the function at a query, relative to its prior variance: float32 tells no less.
_LEAST_VARIANCE = 1e-6
# Rows of a block of the factorisation, and of what is multiplied by a factor at queries.
BLOCK, QUERY_BLOCK = 20, 25


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

    By blocks of rows, and in these row by row, in products of matrices alone: LAPACK beside other
    work of a program can dead-lock XLA on CPU (seen here with two threads), and gains next to
    nothing on matrices as small as these. With R of the rows before, the next block of L is
    K_21 R', that of R is R_22 [-L_21 R, I], R_22 that of K_22 - L_21 L_21'.
    """
    n = len(gram)
    root = _by_rows(gram[:BLOCK, :BLOCK])
    for start in range(BLOCK, n, BLOCK):
        end = min(start + BLOCK, n)
        below = gram[start:end, :start] @ root.T
        own = _by_rows(gram[start:end, start:end] - below @ below.T)
        top = jnp.concatenate([root, jnp.zeros((start, end - start), gram.dtype)], axis=1)
        root = jnp.concatenate([top, jnp.concatenate([-own @ (below @ root), own], axis=1)])
    return root


def _by_rows(gram: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """`inverse_root` of a small matrix."""

    def step(root: Array, own: Array) -> tuple[Array, None]:
        # `own` marks the row: no index, whose integer type would depend on the scope.
        row = own @ gram
        below = root @ row  # 0 from the row on
        scale = jax.lax.rsqrt(row @ own - below @ below)
        return root + own[:, None] * (scale * (own - below @ root)), None

    eye = jnp.eye(len(gram), dtype=gram.dtype)
    found: Array = jax.lax.scan(step, jnp.zeros_like(gram), eye)[0]
    return found


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
    evidence, solved, root = solved_of(total, y)
    return evidence, (solved, root)


def _evidence_backward(kept: tuple[Array, Array], by: Array) -> tuple[Array, Array]:
    # d log p = (a a' - K^-1) / 2 with a = K^-1 y (Rasmussen & Williams 2006, 5.9): one product of matrices.
    solved, root = kept
    return 0.5 * by * (jnp.outer(solved, solved) - root.T @ root), -by * solved


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
        return solved @ cross, jnp.maximum(left, _LEAST_VARIANCE * prior)

    return law
