"""Power series in the correlation, cut where the coefficients say that nothing is left.

The sum of `w_j rho^j` over j below a count that is known only when the coefficients are, with
coefficients in product form, `w_j = sum_r a_jr b_jr`. Gradients are by hand: the powers are made
again, as kept they would be hundreds of matrices.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from bayesnet._types import Array

# Terms of one pass of the loop: counts are multiples of it.
BLOCK = 16


def _weights(a: Array, b: Array) -> Array:
    """`w_j` of the components' (r, ...) products."""
    # Added one by one: a reduction would not be fused with what is done with it.
    total = a[0] * b[0]
    for left, right in zip(a[1:], b[1:], strict=True):
        total = total + left * right
    return total


def _block(a: Array, i: Array) -> Array:
    return lax.dynamic_slice_in_dim(a, i * BLOCK, BLOCK)


@jax.custom_vjp
def series(a: Array, b: Array, rho: Array, blocks: Array) -> tuple[Array, Array]:
    """`sum_{j < count} sum_r a_jr b_jr rho^j` and `rho^count`, count = 16 `blocks`.

    `a` and `b` are (terms, r, ...) and their trailing axes broadcast against rho's.
    """

    def body(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        total, power = carry
        left, right = _block(a, i), _block(b, i)
        # Horner's rule inside a block: one multiplication a term less than with powers.
        inner = _weights(left[BLOCK - 1], right[BLOCK - 1])
        for j in range(BLOCK - 2, -1, -1):
            inner = inner * rho + _weights(left[j], right[j])
        return total + inner * power, power * rho**BLOCK

    start: tuple[Array, Array] = (jnp.zeros_like(rho), jnp.ones_like(rho))
    return lax.fori_loop(0, blocks, body, start)


def _forward(a: Array, b: Array, rho: Array, blocks: Array) -> tuple[Any, Any]:
    out = series(a, b, rho, blocks)
    return out, (a, b, rho, blocks, out[1])


def _backward(saved: Any, cotangents: tuple[Array, Array]) -> tuple:
    a, b, rho, blocks, last = saved
    by_total, by_power = cotangents

    def body(i: Array, carry: Any) -> Any:
        slope, power, lower, by_a, by_b = carry  # rho^j and j rho^(j-1), times by_total
        left, right = _block(a, i), _block(b, i)
        rows_a, rows_b = [], []
        for j in range(BLOCK):
            rows_a.append(_sum_to(power * right[j], left[j].shape))
            rows_b.append(_sum_to(power * left[j], right[j].shape))
            slope = slope + _weights(left[j], right[j]) * lower
            power, lower = power * rho, lower * rho + power
        return (
            slope,
            power,
            lower,
            lax.dynamic_update_slice_in_dim(by_a, jnp.stack(rows_a), i * BLOCK, 0),
            lax.dynamic_update_slice_in_dim(by_b, jnp.stack(rows_b), i * BLOCK, 0),
        )

    zero = jnp.zeros_like(rho)
    start = (zero, by_total, zero, jnp.zeros_like(a), jnp.zeros_like(b))
    slope, _, _, by_a, by_b = lax.fori_loop(0, blocks, body, start)
    some = rho != 0.0
    of_last = jnp.where(some, blocks * BLOCK * last / jnp.where(some, rho, 1.0), 0.0)
    return by_a, by_b, slope + of_last * by_power, None


series.defvjp(_forward, _backward)


def _sum_to(a: Array, shape: tuple[int, ...]) -> Array:
    """The transpose of broadcasting from `shape`, of the same number of axes."""
    extra = a.ndim - len(shape)
    a = jnp.sum(a, axis=tuple(range(extra))) if extra else a
    axes = tuple(
        i for i, (big, small) in enumerate(zip(a.shape, shape, strict=True)) if big != small
    )
    return jnp.sum(a, axis=axes, keepdims=True)
