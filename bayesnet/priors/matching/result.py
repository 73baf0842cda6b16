"""What a match returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bayesnet._repr import brief
from bayesnet.priors.matching.points import PointLaw
from bayesnet.priors.matching.report import MatchReport, match_report
from bayesnet.priors.network import NetworkPrior


@dataclass(frozen=True, eq=False)
class MatchResult:
    """A matched prior and how the match went.

    Attributes:
        prior: the matched `NetworkPrior`.
        target: the target as it was given.
        history: arrays "loss" (one a step, in the distance's own terms), and "step" with
            "held_out", the held-out distance after so many steps.
        distance_before, distance_after: the held-out distance: the energy distance of values
            and increments in units of the target's spread, on draws and points that training
            never saw, the same whatever distance was optimised. 0 for equal laws in the mean;
            the estimate is unbiased and can be slightly negative.
        ended: "took all steps", "stopped falling" (the held-out distance did, see `patience`;
            `history["step"][-1]` says where), or what went wrong.
        attempts: the held-out distance at the end of each run (`restarts`).
        seconds: wall time without compilation.
        compile_seconds: that of tracing and compiling.
        inputs: the law of the points.
        before: the prior as it was given.
    """

    prior: NetworkPrior
    target: Any
    history: dict[str, np.ndarray]
    distance_before: float
    distance_after: float
    seconds: float
    compile_seconds: float
    inputs: PointLaw = field(repr=False)
    before: NetworkPrior = field(repr=False)
    ended: str = "took all steps"
    attempts: tuple[float, ...] = ()

    def __repr__(self) -> str:
        before, after = self.distance_before, self.distance_after
        return (
            f"MatchResult: {brief(self.prior)} matched to {brief(self.target)} in {len(self.history['loss'])} "
            f"steps ({self.ended}), distance {before:.3g} -> {after:.3g}; .report() judges it"
        )

    def report(self, *, num_draws: int = 1000, num_regions: int = 6, seed: int = 0) -> MatchReport:
        """The neutral measures of the match, overall and by region; print the result.

        A `MatchReport` (see `bayesnet.priors.matching.report`).
        """
        return match_report(self, num_draws=num_draws, num_regions=num_regions, seed=seed)
