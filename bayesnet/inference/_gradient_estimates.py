"""What a burn-in learns from gradients: their moments, the largest curvature, correlated noise."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from bayesnet._types import Array
from bayesnet.inference._stochastic import refuse

# The running averages remember at least so many steps, and at most this part of all so far, so
# that the way from the prior into the bulk is forgotten.
SHORTEST_WINDOW, LONGEST_PART = 100.0, 0.2
# Power iterations: in each of the first steps, then in one step of every so many.
FIRST_PROBES, PROBE_EVERY = 30, 10
PROBE_LENGTH = 0.03


class Moments(NamedTuple):
    """Running estimates of the gradient g: its mean, its square, and their window (p,) each."""

    mean: Array
    square: Array
    window: Array

    @staticmethod
    def start(like: Array) -> Moments:
        """As in the paper: ones."""
        one = jnp.ones_like(like)
        return Moments(one, one, one)

    def update(self, g: Array, t: Array) -> Moments:
        """After the gradient of step `t`."""
        window = jnp.clip(
            self.window * (1 - self.mean**2 / self.square) + 1,
            jnp.minimum(t + 2.0, SHORTEST_WINDOW),
            jnp.maximum(LONGEST_PART * t, SHORTEST_WINDOW),
        )
        mean = self.mean + (g - self.mean) / window
        square = self.square + (g**2 - self.square) / window
        return Moments(mean, jnp.maximum(square, 1.0), window)


class Stiffness(NamedTuple):
    """The direction (p,), of length 1, and value of the largest curvature in units of the mass."""

    direction: Array
    curvature: Array


class Correlation(NamedTuple):
    """The last gradient's direction (p,), of length 1, and the mean square of the next along it.

    In units of the mass, in which a coordinate's mean square is 1: more than 1 tells of noise
    that is correlated between coordinates, in the directions where there is most of it.
    """

    direction: Array
    square: Array

    def update(self, scaled: Array, t: Array) -> Correlation:
        """After the gradient `M^(1/2) g` of step `t`."""
        rate = 1 / jnp.minimum(t + 1.0, 2 * SHORTEST_WINDOW)
        along = jnp.dot(self.direction, scaled) ** 2
        square = self.square + rate * (along - self.square)
        return Correlation(unit(scaled), square)


def unit(a: Array) -> Array:
    """`a` at length 1."""
    return a / jnp.maximum(jnp.linalg.norm(a), jnp.finfo(a.dtype).tiny)


def power_iteration(
    force: Any, z: Array, g: Array, inverse_mass: Array, stiffness: Stiffness, t: Array
) -> Stiffness:
    """One iteration with M^(1/2) H M^(1/2), H by a difference of gradients on one minibatch.

    Not by differentiating twice, which parts in float64 islands do not offer.
    """
    root = jnp.sqrt(inverse_mass)
    towards = root * stiffness.direction
    length = jnp.linalg.norm(towards)
    change = force(z + PROBE_LENGTH / length * towards) - g
    image = root * change * (length / PROBE_LENGTH)
    size = jnp.linalg.norm(image)
    rate = jnp.where(t < FIRST_PROBES, 0.5, 0.05)
    curvature = stiffness.curvature + rate * (size - stiffness.curvature)
    found = Stiffness(image / size, curvature)
    return refuse(jnp.isfinite(size) & (size > 0), found, stiffness)
