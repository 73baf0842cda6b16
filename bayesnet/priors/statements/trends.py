"""A mean that is a level and a line along some columns, fixed or random but of known sign."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from bayesnet._types import Array, Float, Key, PyTree
from bayesnet.priors.laws import draw_law, is_law


@dataclass(frozen=True)
class TrendMean:
    """`level + sum_j sign_j slope_j x_j` with slopes that are numbers or positive laws."""

    level: float
    columns: tuple[int, ...]
    signs: tuple[float, ...]
    slopes: tuple[Any, ...]

    @property
    def random(self) -> bool:
        return any(is_law(s) for s in self.slopes)

    @property
    def hyper(self) -> PyTree:
        # Boxed: a tuple of plain numbers would be read as one vector.
        return [[s] for s in self.slopes]

    def draw(self, key: Key, num: int) -> PyTree:
        keys = jax.random.split(key, max(1, len(self.slopes)))
        return [[draw_law(s, k, num)] for s, k in zip(self.slopes, keys, strict=False)]

    def values(self, hyper: PyTree, x: Array, out_dim: int) -> Float[Array, "n m"]:
        line = jnp.full(x.shape[0], self.level, x.dtype)
        for (slope,), column, sign in zip(hyper, self.columns, self.signs, strict=True):
            line = line + sign * jnp.asarray(slope, x.dtype) * x[:, column]
        return jnp.broadcast_to(line[:, None], (x.shape[0], out_dim))
