"""What a step of the loop has found about its own surrogate, for people to see."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bayesnet.bo.chains import ESS_LIMIT, RHAT_LIMIT, Check
from bayesnet.bo.noise import LOOP_NOISE
from bayesnet.posterior import FunctionDraws, ProcessPosterior

_log = logging.getLogger(__name__)

# The share of diverging draws from which on they are spoken of.
DIVERGENT_LIMIT = 0.1
# The default law of the noise is called too small where the noise is so many of its sds above its median.
NOISE_LIMIT = 2.0
# Attributes of a trial begin with this.
PREFIX = "surrogate:"


@dataclass(frozen=True)
class Findings:
    """The state of a surrogate after a step.

    Args:
        rhat: the worst R-hat of the function values at the tried points; None without chains.
        ess: their least effective sample size; None without chains.
        divergences: draws that diverged; None without chains.
        draws: draws in all; None without chains.
        runs: how often chains were run on, or warmed up anew, until they agreed: at most 4, and 5 more
            where they had called everything noise and were started again near the data.
        noise_std: the learned noise (the median draw), in the units of y; None where there is none.
        problems: cause ("chains", "divergences", "hyper-parameters", "noise") -> a sentence; empty if
            nothing was found.
    """

    rhat: float | None = None
    ess: float | None = None
    divergences: int | None = None
    draws: int | None = None
    runs: int = 0
    noise_std: float | None = None
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against the surrogate."""
        return not self.problems

    def attributes(self) -> dict[str, Any]:
        """Name -> value, as JSON can hold them: the attributes of a trial."""
        named = {
            "rhat": _rounded(self.rhat, 3),
            "ess": _rounded(self.ess, 1),
            "divergences": self.divergences,
            "draws": self.draws,
            "runs": None if self.rhat is None else self.runs,
            "noise_std": None if self.noise_std is None else float(f"{self.noise_std:.4g}"),
            "problems": "; ".join(self.problems.values()) or None,
        }
        return {PREFIX + name: value for name, value in named.items() if value is not None}

    def tell(self, told: frozenset[str]) -> frozenset[str]:
        """One warning in the log for each cause that is not in `told`: the causes told by then."""
        for cause, sentence in self.problems.items():
            if cause not in told:
                _log.warning(
                    "Surrogate fitted to the trials so far: %s. Said once; later trials carry it in their "
                    "attributes.",
                    sentence,
                )
        return told | set(self.problems)


def findings(
    posterior: Any, check: Check | None, runs: int, *, y_scale: float, default_noise: bool
) -> Findings:
    """What there is to say of a fitted posterior.

    `check` and `runs` are those of its chains; `default_noise` tells that its noise has the loop's law.
    """
    problems = {}
    if check is not None and check.badness > 1:
        problems["chains"] = (
            f"its chains disagree, also after {runs} further runs (R-hat {check.rhat:.2f}, "
            f"{check.ess:.0f} effective draws of the values at the tried points; at most {RHAT_LIMIT} and at "
            f"least {ESS_LIMIT:.0f} are wanted), so that proposals may be poor: try more chains and warm-up, "
            "as bn.HMC(chains=4, warmup=600), or surrogate='exact'"
        )
    if check is not None and check.divergences > DIVERGENT_LIMIT * check.draws:
        problems["divergences"] = (
            f"{check.divergences} of {check.draws} draws diverged, so that some functions are left out: raise "
            "target_acceptance, as bn.HMC(target_acceptance=0.95), or take surrogate='exact'"
        )
    hyper = getattr(posterior, "search", {}).get("problems", ())
    if hyper:
        problems["hyper-parameters"] = "; ".join(hyper)
    noise = noise_level(posterior)
    if default_noise and noise is not None and looks_noisy(posterior, y_scale):
        problems["noise"] = (
            f"the values look noisy (noise sd {noise:.3g}, {noise / y_scale:.1%} of their spread, where the loop "
            "expects 1.8 %): if they are, say so by likelihood=bn.GaussianLikelihood(), which expects more"
        )
    if check is None:
        return Findings(noise_std=noise, problems=problems)
    return Findings(check.rhat, check.ess, check.divergences, check.draws, runs, noise, problems)


def looks_noisy(posterior: Any, y_scale: float) -> bool:
    """Whether the noise lies far above the loop's small law, for a loop's scale of y in user units."""
    noise = noise_level(posterior)
    limit = y_scale * np.exp(LOOP_NOISE.loc + NOISE_LIMIT * LOOP_NOISE.scale)
    return noise is not None and bool(noise > limit)


def noise_level(posterior: Any) -> float | None:
    """The learned or known noise of one outcome in user units, the median of draws; None where there is none."""
    if isinstance(posterior, ProcessPosterior):
        return float(np.median(posterior.noise_std) * posterior.scaling.y_scale[0])
    if not isinstance(posterior, FunctionDraws):
        return None
    levels = posterior.bound.summary(posterior.split()[1])
    found = levels.get("noise_std", levels.get("scale"))
    return None if found is None else float(np.median(found) * posterior.data.scaling.y_scale[0])


def _rounded(value: float | None, digits: int) -> float | None:
    """A number that JSON can hold; none where a chain never moved."""
    return round(float(value), digits) if value is not None and np.isfinite(value) else None
