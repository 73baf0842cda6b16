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

    def standardised(self) -> Batch:
        """The same tasks with targets of mean 0 and sd 1 in every context, as a user's table is scaled;
        of contexts with one row or none as they are."""
        count = self.mask.sum(axis=1)
        real = self.mask / jnp.maximum(count, 1)[:, None]
        mean = jnp.sum(real * self.y, axis=1)
        std = jnp.sqrt(jnp.sum(real * (self.y - mean[:, None]) ** 2, axis=1))
        some = (count > 1) & (std > 0)
        mean, std = jnp.where(some, mean, 0.0), jnp.where(some, std, 1.0)
        return eqx.tree_at(
            lambda t: (t.y, t.f_mean, t.f_std, t.noise),
            self,
            (
                jnp.where(self.mask, (self.y - mean[:, None]) / std[:, None], 0.0),
                (self.f_mean - mean[:, None]) / std[:, None],
                self.f_std / std[:, None],
                self.noise / std,
            ),
        )
