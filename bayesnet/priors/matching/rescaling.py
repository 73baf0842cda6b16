"""One match for all length-scales and amplitudes of a stationary process."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np

from bayesnet._errors import InputError, unknown_name
from bayesnet.priors.gaussian_process import GaussianProcess
from bayesnet.priors.laws import LogNormal
from bayesnet.priors.matching.gap import function_distance
from bayesnet.priors.matching.match import match_prior
from bayesnet.priors.matching.points import ScaledPoints, as_point_law
from bayesnet.priors.matching.result import MatchResult
from bayesnet.priors.matching.strategies import Scaled
from bayesnet.priors.network import NetworkPrior
from bayesnet.priors.rescaled import RescaledPrior

# Kernels k(|x - x'| / l), which a rescaling of the inputs takes into one another.
STATIONARY = ("rbf", "matern12", "matern32", "matern52")


@dataclass(frozen=True)
class Gap:
    """How far a rescaled prior is from the process at one quantile of the lengthscale's law.

    `distance` is as in `MatchResult`, `standard_error` over sets of points; `unmatched` is the
    distance of the prior as it was given, rescaled alike.
    """

    quantile: float
    lengthscale: tuple[float, ...]
    distance: float
    standard_error: float
    unmatched: float


@dataclass(frozen=True, eq=False)
class RescaledMatch:
    """What `match_rescaled` returns; prints the gaps as a table.

    Attributes:
        prior: the `RescaledPrior`, with lengthscale and outputscale as latents.
        match: the match of its base to the process of lengthscale and variance 1.
        gaps: how far it is from the process at some lengthscales.
    """

    prior: RescaledPrior
    match: MatchResult = field(repr=False)
    gaps: tuple[Gap, ...]

    def __str__(self) -> str:
        lines = [f"{'quantile':>9}{'lengthscale':>13}{'distance':>10}{'+-':>8}{'unmatched':>11}"]
        for g in self.gaps:
            lines.append(
                f"{g.quantile:>9.2f}{g.lengthscale[0]:>13.3g}{g.distance:>10.3f}"
                f"{g.standard_error:>8.3f}{g.unmatched:>11.3f}"
            )
        return "\n".join(lines)


def match_rescaled(
    prior: NetworkPrior,
    kernel: str,
    inputs: Any,
    *,
    lengthscale: LogNormal,
    outputscale: Any = 1.0,
    quantiles: tuple[float, ...] = (0.05, 0.5, 0.95),
    **options: Any,
) -> RescaledMatch:
    """A prior whose lengthscales and amplitude are latents, from one match.

    `prior` is matched to the process with `kernel`, lengthscale 1 and variance 1, at points
    `x / l` with x from `inputs` and l from its law, so that lengthscales count in the match as
    often as in the prior. Short ones ask most of a network: their points lie far out.

    Args:
        prior: a `bn.NetworkPrior`.
        kernel: "rbf", "matern12", "matern32" or "matern52".
        inputs: where the rescaled prior will be used, as of `bn.match_prior`.
        lengthscale: a `bn.LogNormal`, of one component or one a column.
        outputscale: a `bn.LogNormal` or a number: the variance of the functions.
        quantiles: of the lengthscale's law (of all columns together) at which the gap is measured.
        options: of `bn.match_prior`.

    Raises:
        InputError: a kernel that is not stationary, a lengthscale that is not a `bn.LogNormal`,
            quantiles outside (0, 1), and what `bn.match_prior` refuses.
    """
    if kernel not in STATIONARY:
        raise unknown_name("stationary kernel", kernel, STATIONARY)
    if not isinstance(lengthscale, LogNormal):
        raise InputError(
            f"lengthscale must be a bn.LogNormal, got {lengthscale!r}. With a fixed one use "
            f"bn.match_prior(prior, bn.GaussianProcess({kernel!r}, lengthscale), inputs)."
        )
    if any(not 0.0 < q < 1.0 for q in quantiles):
        raise InputError(f"quantiles must lie between 0 and 1, got {quantiles}.")
    if isinstance(prior, NetworkPrior):
        RescaledPrior(prior, lengthscale, outputscale)  # refuses wrong shapes before the match

    scaled = Scaled(inputs, lengthscale)
    unit = GaussianProcess(
        kernel,
        1.0,
        1.0,
        out_dim=getattr(prior, "out_dim", 1),
        units=getattr(prior, "units", "scaled"),
    )
    match = match_prior(prior, unit, scaled, **options)
    points = as_point_law(inputs, prior.in_dim)
    gaps = []
    for q in quantiles:
        value = np.exp(lengthscale.loc + np.asarray(lengthscale.scale) * NormalDist().inv_cdf(q))
        at = tuple(float(v) for v in np.broadcast_to(value, lengthscale.shape or (1,)))
        # Exactly the distance of the rescaled prior to the process with that lengthscale at x:
        # both are functions of x / l. So one program serves all lengthscales.
        fixed = ScaledPoints.of(points, np.log(value), np.zeros_like(value))
        distance, error = function_distance(match.prior, unit, fixed)
        unmatched, _ = function_distance(prior, unit, fixed)
        gaps.append(Gap(q, at, distance, error, unmatched))
    return RescaledMatch(RescaledPrior(match.prior, lengthscale, outputscale), match, tuple(gaps))
