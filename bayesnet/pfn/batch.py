"""A batch of training tasks."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp

from bayesnet._types import Array, Bool, Float


class Batch(eqx.Module):
    """`b` tasks with contexts padded to n rows and inputs to d columns.

    `mask` marks the real rows of a context, `used` (d,) the real columns. `f_mean` and `f_std`:
    the law of f at the queries; `noise` (b,): the sd of y around f. All in scaled coordinates.
    `relevant`: the columns that f depends on, before padding; `hyper`: the hyper-parameters of a
    process, else None. `y_drawn` (b, q): targets that a model drew, where it tells no law of them.
    """

    x: Float[Array, "b n d"]
    y: Float[Array, "b n"]
    mask: Bool[Array, "b n"]
    queries: Float[Array, "b q d"]
    used: Float[Array, " d"]
    f_mean: Float[Array, "b q"]
    f_std: Float[Array, "b q"]
    noise: Float[Array, " b"]
    relevant: Bool[Array, "b d"]
    hyper: Any = None
    y_drawn: Float[Array, "b q"] | None = None

    @property
    def y_mean(self) -> Float[Array, "b q"]:
        """The mean of a new observation at the queries; itself where it was drawn."""
        return self.f_mean if self.y_drawn is None else self.y_drawn

    @property
    def y_std(self) -> Float[Array, "b q"]:
        """The sd of a new observation at the queries; 0 where it was drawn."""
        if self.y_drawn is not None:
            return jnp.zeros_like(self.y_drawn)
        return jnp.sqrt(self.f_std**2 + self.noise[:, None] ** 2)

    def rows(self, n: int) -> Batch:
        """The same tasks with contexts cut to their first `n` rows, which must hold them all."""
        return eqx.tree_at(
            lambda t: (t.x, t.y, t.mask), self, (self.x[:, :n], self.y[:, :n], self.mask[:, :n])
        )
