"""Sliced Wasserstein distance with directions that see roughness.

Projections on random directions see the coarse shape of functions only: any direction in the
space of values is dominated by the few smooth components of the process. So the increments
f(x + h) - f(x) over lags of many scales are directions of their own, each in units of the
target's spread. Bonneel et al. 2015 (sliced Wasserstein); the increments are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from bayesnet._types import Array, Float, Key, PyTree
from bayesnet.priors.matching.base import Stateless, spread
from bayesnet.priors.matching.points import first_increments, second_increments


@dataclass(frozen=True)
class Sliced(Stateless):
    """Mean Wasserstein-1 distance of one-dimensional laws, each in units of the target's spread.

    Between two samples it is biased: not least at equal laws, but a little off, by less the more
    functions are drawn (`num_functions`). `Energy` has no such bias.

    Args:
        directions: random projections of the values at all points.
        values: weight of the projections.
        increments: weight of the first increments (all of them, no random directions).
        curvature: weight of the second differences.
    """

    directions: int = 64
    values: float = 1.0
    increments: float = 0.5
    curvature: float = 0.0

    def loss(
        self, state: PyTree, key: Key, f: Float[Array, "s 3k m"], g: Float[Array, "s 3k m"]
    ) -> Float[Array, ""]:
        num, *shape = f.shape
        directions = jax.random.normal(key, (shape[0] * shape[1], self.directions))
        total = jnp.zeros(())
        if self.values:
            project = lambda a: a.reshape(num, -1) @ directions  # noqa: E731
            total += self.values * mean_wasserstein(project(f), project(g))
        if self.increments:
            total += self.increments * _compare(first_increments, f, g)
        if self.curvature:
            total += self.curvature * _compare(second_increments, f, g)
        return total


def _compare(operator, f: Array, g: Array) -> Array:
    return mean_wasserstein(operator(f).reshape(len(f), -1), operator(g).reshape(len(g), -1))


def wasserstein(a: Float[Array, "s q"], b: Float[Array, "s q"]) -> Float[Array, " q"]:
    """Wasserstein-1 distance between the columns of two samples of equal size.

    In one dimension it is the mean distance of order statistics (Peyre & Cuturi 2019, eq. 2.30).
    """
    return jnp.mean(jnp.abs(jnp.sort(a, axis=0) - jnp.sort(b, axis=0)), axis=0)


def mean_wasserstein(f: Float[Array, "s q"], g: Float[Array, "s q"]) -> Float[Array, ""]:
    """The mean over columns of `wasserstein` in units of the target's spread."""
    unit = spread(g)
    return jnp.mean(wasserstein(f / unit, g / unit))
