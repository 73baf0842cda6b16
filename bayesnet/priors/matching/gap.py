"""How far a latent prior is from a process, outside of any training."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from bayesnet._types import Key, as_key
from bayesnet.priors.matching.points import as_point_law
from bayesnet.priors.matching.target import check_target, draw_target
from bayesnet.priors.matching.training import HELD_OUT_FUNCTIONS, draw_points, held_out


def function_distance(
    prior: Any,
    target: Any,
    inputs: Any,
    *,
    num_points: int = 64,
    num_sets: int = 16,
    seed: int | Key = 0,
) -> tuple[float, float]:
    """The held-out distance of `MatchResult` between a prior and a target, and its standard error.

    The energy distance of values and increments in units of the target's spread, 0 in the mean for
    equal laws, averaged over `num_sets` sets of `num_points` points with 256 functions a side.

    Args:
        prior: a `bn.NetworkPrior`, `bn.RescaledPrior` or other transport of latents.
        target, inputs: as of `bn.match_prior`.

    Raises:
        InputError: inputs or target that do not fit the prior.
    """
    law = as_point_law(inputs, prior.in_dim)
    keys = jax.random.split(as_key(seed), 4)
    xs = draw_points(law, keys[0], num_sets, max(2, round(num_points / 3)))
    check_target(prior, target, keys[1], xs[0])
    gs = jax.block_until_ready(draw_target(target, keys[2], xs, HELD_OUT_FUNCTIONS))
    by_set = np.asarray(held_out(prior, keys[3], xs, gs), np.float64)
    return float(by_set.mean()), float(by_set.std(ddof=1) / num_sets**0.5)
