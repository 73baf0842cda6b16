"""Uniform draws that depend on the seed, the number of the trial and the name of the parameter alone."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from bayesnet._errors import InputError
from bayesnet.bo.space import Space


def state_of(seed: int | None) -> int:
    """A number that stands for a seed, a random one for None. Raises `InputError` below 0."""
    if seed is not None and seed < 0:
        raise InputError(f"seed must be 0 or more, or None, got {seed}.")
    return int(np.random.SeedSequence(seed).generate_state(1)[0])


def uniform(state: int, number: int, name: str, dist: BaseDistribution) -> Any:
    """The draw of parameter `name` for trial `number`."""
    space = Space({name: dist})
    rng = np.random.default_rng([state, number, zlib.crc32(name.encode())])
    return space.decode(rng.uniform(size=space.columns))[name]


class NumberedRandomSampler(RandomSampler):
    """Random search that workers and restarts share: no two trials have the same draws.

    Optuna's own, with a seed, begins anew in every process, with the same points.

    Args:
        seed: random if None. Raises `InputError` below 0.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._state = state_of(seed)
        super().__init__(seed)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """A uniform draw."""
        return uniform(self._state, trial.number, param_name, param_distribution)
