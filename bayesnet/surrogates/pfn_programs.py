"""What the bridge of a PFN compiles: logits of bars at candidates, and their gradients.

`each_table` and `each_gradient` serve its joint laws (`pfn_joint`) too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bayesnet._types import Array
from bayesnet.pfn.posterior import decode, encode
from bayesnet.surrogates.bridge import _traced

# Tables of one program that are encoded at once.
TOGETHER = 8


def each_table(laws: Callable[..., Any], x: Array, y: Array, new: Array) -> Any:
    """`laws(x, y, new)` of every table, a few at once."""
    return jax.lax.map(lambda a: laws(*a), (x, y, new), batch_size=TOGETHER)


def each_gradient(
    laws: Callable[..., Any],
    x: Array,
    y: Array,
    new: Array,
    *by: Array,
    constant: bool = False,
) -> Any:
    """Of every table the gradients to `new` and, unless it is constant, to x and y, given those `by` the
    laws."""

    def one(item: Any) -> Any:
        x, y, new, *by = item
        if constant:
            return jax.vjp(lambda c: laws(x, y, c), new)[1](tuple(by))
        return jax.vjp(lambda c, a, b: laws(a, b, c), new, x, y)[1](tuple(by))

    return jax.lax.map(one, (x, y, new, *by), batch_size=TOGETHER)


@jax.jit
def decode_at(network: Any, bars: Any, cache: Any, mask: Any, used: Any, x: Array) -> Any:
    """Logits (m, q, k) of y and of f at candidates x (q, D), given an encoded table."""
    _traced("decode", x)
    return decode(network, bars, cache, mask, x, used)


@jax.jit
def decode_back(
    network: Any, bars: Any, cache: Any, mask: Any, used: Any, x: Array, by_y: Array, by_f: Array
) -> Array:
    """The gradient to x, given those to the logits."""
    _traced("decode_back", x)
    _, pull = jax.vjp(lambda a: decode(network, bars, cache, mask, a, used), x)
    return pull((by_y, by_f))[0]


def _table_laws(network: Any, bars: Any, mask: Any, used: Any, x: Any, y: Any, new: Any) -> Any:
    """Logits (q, m, k) of y and f at `new` (q, D), given a table."""
    found = decode(network, bars, encode(network, x, y, mask, used), mask, new, used)
    return tuple(jnp.swapaxes(a, 0, 1) for a in found)


@jax.jit
def decode_many(
    network: Any, bars: Any, x: Array, y: Array, mask: Any, used: Any, new: Array
) -> Any:
    """Logits (b, q, m, k) of y and of f at the candidates `new` (b, q, D) of each table."""
    _traced("decode_many", new)
    return each_table(partial(_table_laws, network, bars, mask, used), x, y, new)


@partial(jax.jit, static_argnames="constant")
def decode_many_back(
    network: Any,
    bars: Any,
    x: Array,
    y: Array,
    mask: Any,
    used: Any,
    new: Array,
    by_y: Array,
    by_f: Array,
    *,
    constant: bool,
) -> Any:
    """Gradients to the candidates and, unless the table is constant, to it."""
    _traced("decode_many_back", new)
    laws = partial(_table_laws, network, bars, mask, used)
    return each_gradient(laws, x, y, new, by_y, by_f, constant=constant)
