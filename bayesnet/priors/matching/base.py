"""The protocol of a distance between two sets of functions, and what they share."""

from __future__ import annotations

from typing import Protocol

import jax.numpy as jnp

from bayesnet._types import Array, Float, Key, PyTree

# Spreads below this fraction of the largest are taken as that: a direction along which the
# target hardly moves must not outweigh all others.
SMALLEST_SPREAD = 1e-3


class Distance(Protocol):
    """A distance between draws of the prior and of the target: a frozen dataclass of knobs.

    Functions come as values at triples of points (see `points`): (s, 3k, m).
    """

    def start(self, key: Key, num_values: int) -> PyTree:
        """State that is carried from step to step (a critic), for functions of `num_values`."""
        ...

    def adapt(
        self, state: PyTree, key: Key, f: Float[Array, "s 3k m"], g: Float[Array, "s 3k m"]
    ) -> PyTree:
        """The state after it has seen this step's draws (no gradient flows through it)."""
        ...

    def loss(
        self, state: PyTree, key: Key, f: Float[Array, "s 3k m"], g: Float[Array, "s 3k m"]
    ) -> Float[Array, ""]:
        """How far the draws `f` of the prior are from the draws `g` of the target."""
        ...


class Stateless:
    """The part of a `Distance` that carries nothing from step to step."""

    def start(self, key: Key, num_values: int) -> PyTree:
        return ()

    def adapt(self, state: PyTree, key: Key, f: Array, g: Array) -> PyTree:
        return state


def spread(g: Float[Array, "s q"]) -> Float[Array, " q"]:
    """The standard deviation of each column over the draws, kept away from zero."""
    sd = jnp.std(g, axis=0)
    return jnp.maximum(sd, SMALLEST_SPREAD * jnp.max(sd) + 1e-12)
