"""Inputs as those of real tables: columns that go together, and columns of few values."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp

from bayesnet._errors import InputError
from bayesnet._types import Array, Key
from bayesnet.pfn.inputs import WARP, InputLaw, MixedInputs
from bayesnet.pfn.warps import warped


@dataclass(frozen=True)
class CorrelatedInputs:
    """Independent columns of another law, some of them mixed with each other or rounded.

    Args:
        base: the law of the columns before they are mixed; `warped` of a `MixedInputs` is of the
            columns after.
        correlated: the probability that the columns of a task are mixed. x becomes
            `sqrt(1 - r) x + sqrt(r) x A`, A a random matrix of random rank, r uniform.
        rounded: the probability that a column is rounded, to steps of 0.5 to 1.5 sd.

    Raises `InputError` for probabilities out of range.
    """

    base: InputLaw = field(default_factory=MixedInputs)
    correlated: float = 0.6
    rounded: float = 0.15

    def __post_init__(self) -> None:
        if not (0 <= self.correlated <= 1 and 0 <= self.rounded <= 1):
            raise InputError("correlated and rounded are probabilities.")

    def draw(self, key: Key, size: int, rows: int, queries: int, d: int) -> tuple[Array, Array]:
        """See `InputLaw`."""
        k_base, k_mix = jax.random.split(key)
        x, seen = self.base.draw(k_base, size, rows, queries, d)
        relevant = (seen != 0).any(axis=1, keepdims=True)
        x = _mixed(self.correlated, self.rounded, k_mix, x)
        seen = x * relevant
        # Columns are warped as they are in the end, not as they were before they were mixed.
        chance = getattr(self.base, "warped", 0.0)
        if chance:
            seen = warped(chance, jax.random.fold_in(k_mix, WARP), seen)
        return x, seen


@partial(jax.jit, static_argnums=(0, 1))
def _mixed(correlated: float, rounded: float, key: Key, x: Array) -> Array:
    k = jax.random.split(key, 7)
    b, _, d = x.shape
    rank = jax.random.randint(k[0], (b, 1), 1, d + 1)
    left = jax.random.normal(k[1], (b, d, d)) * (jnp.arange(d) < rank)[:, None]
    mix = left @ jax.random.normal(k[2], (b, d, d))
    # Columns of the mixed part have variance 1 where those of x have.
    mix = mix / jnp.maximum(jnp.sqrt((mix**2).sum(axis=1, keepdims=True)), 1e-6)
    r = jax.random.uniform(k[3], (b, 1, 1)) * (jax.random.uniform(k[4], (b, 1, 1)) < correlated)
    x = jnp.sqrt(1 - r) * x + jnp.sqrt(r) * (x @ mix)
    step = jax.random.uniform(k[5], (b, 1, d), minval=0.5, maxval=1.5)
    few = jax.random.uniform(k[6], (b, 1, d)) < rounded
    return jnp.where(few, step * jnp.round(x / step), x)
