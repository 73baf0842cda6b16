"""Tuning the length of HMC's trajectories by how far functions move per gradient.

The latents have unit prior scale, and most of them are hardly informed by the data; after
the mass is adapted a trajectory of length pi/2 carries such a coordinate to an independent
value. During the second half of the warm-up the chain takes turns between 0.75, 1.25 and 2
times that length and records how far the *function values* moved. With D the mean
squared jump over twice the variance (one minus the lag-one autocorrelation) the effective
sample size a draw is about D / (2 - D); the length with the most of it a gradient wins.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from bayesnet._types import Array, Float

FIRST_PATH_LENGTH = float(np.pi / 2)
CANDIDATES = tuple(FIRST_PATH_LENGTH * factor for factor in (0.75, 1.25, 2.0))
# The cost of a step that is not a gradient (drawing a momentum, the accept step), in gradients.
OVERHEAD = 1.0
# The path is chosen for the worse-mixing function values, not for the average one.
QUANTILE = 0.1
# Points whose function values are watched: so many training rows, and as many just outside the
# table (rows pushed away from the centre by this factor), where functions mix slowest.
PROBE_ROWS = 8
PUSH = 1.3


def probe_points(x: Float[Array, "n d"]) -> Float[Array, "k d"]:
    """Where function values are watched, from the training rows."""
    centre = jnp.mean(x, axis=0)
    outside = centre + PUSH * (x[-PROBE_ROWS:] - centre)
    return jnp.concatenate([x[:PROBE_ROWS], outside])


class Jumps(NamedTuple):
    """Running sums over tuning steps, per candidate length k and probe quantity j."""

    squared: Float[Array, "k j"]
    cost: Float[Array, " k"]
    steps: Float[Array, " k"]
    total: Float[Array, " j"]
    total_squared: Float[Array, " j"]

    @staticmethod
    def start(probe: Float[Array, " j"]) -> Jumps:
        """Nothing recorded yet; `probe` gives the shape and type."""
        k = len(CANDIDATES)
        return Jumps(
            jnp.zeros((k, probe.shape[0]), probe.dtype),
            jnp.zeros(k, probe.dtype),
            jnp.zeros(k, probe.dtype),
            jnp.zeros_like(probe),
            jnp.zeros_like(probe),
        )

    def candidate(self, t: Array) -> Array:
        """The path length to try at step `t`."""
        return jnp.asarray(CANDIDATES, self.cost.dtype)[t % len(CANDIDATES)]

    def record(self, t: Array, before: Array, after: Array, gradients: Array) -> Jumps:
        """Add the jump from `before` to `after` under the candidate of step `t`."""
        k = t % len(CANDIDATES)
        return Jumps(
            self.squared.at[k].add((after - before) ** 2),
            self.cost.at[k].add(gradients + OVERHEAD),
            self.steps.at[k].add(1.0),
            self.total + after,
            self.total_squared + after**2,
        )

    @staticmethod
    def best(chains: list[Jumps], num_noise: int) -> float:
        """The candidate with the most effective draws a gradient over all chains.

        The last `num_noise` quantities are noise latents, the others function values.
        """
        squared, cost, steps, total, total_squared = (
            np.sum([np.asarray(leaf, np.float64) for leaf in leaves], axis=0)
            for leaves in zip(*chains, strict=True)
        )
        all_steps = steps.sum()
        if (steps < 5).any() or not np.isfinite(squared).all():
            return FIRST_PATH_LENGTH  # a warm-up too short to tell the candidates apart
        variance = total_squared / all_steps - (total / all_steps) ** 2
        moved = squared / steps[:, None] / np.maximum(2 * variance, 1e-12)
        # Jumps of more than one sd squared a side come from noise or antithetic paths.
        moved = np.minimum(moved, 1.0)
        rate = np.maximum(moved / (2 - moved), 1e-12)
        functions, noise = np.split(rate, [rate.shape[1] - num_noise], axis=1)
        effective = np.log(np.quantile(functions, QUANTILE, axis=1) / (cost / steps))
        if num_noise:
            # The noise level often mixes slowest of all: it counts as much as the functions.
            effective += np.log(noise.min(axis=1) / (cost / steps))
        return CANDIDATES[int(np.argmax(effective))]
