"""BoTorch surrogates: posteriors of bayesnet behind BoTorch's `Model` interface.

Needs torch and botorch (`pip install bayesnet[bo]`).
"""

from __future__ import annotations

from bayesnet._errors import MissingExtraError

try:
    import botorch as _botorch  # noqa: F401
except ImportError as error:
    raise MissingExtraError(
        "bayesnet.surrogates needs torch, gpytorch and botorch. Install them with: "
        "pip install bayesnet[bo]"
    ) from error

from bayesnet.surrogates.bar_improvement import (
    BarExpectedImprovement,
    BarProbabilityOfImprovement,
)
from bayesnet.surrogates.bar_posterior import BarPosterior
from bayesnet.surrogates.bridge import Bridge, count_traces
from bayesnet.surrogates.expected_improvement import StudentTExpectedImprovement
from bayesnet.surrogates.independent import IndependentSurrogate
from bayesnet.surrogates.mixture_posterior import ScaleMixturePosterior
from bayesnet.surrogates.model import Surrogate
from bayesnet.surrogates.pfn_model import PFNSurrogate
from bayesnet.surrogates.posterior import DrawsPosterior
from bayesnet.surrogates.process import ProcessSurrogate
from bayesnet.surrogates.sampler import DrawsSampler

__all__ = [
    "BarExpectedImprovement",
    "BarPosterior",
    "BarProbabilityOfImprovement",
    "Bridge",
    "DrawsPosterior",
    "DrawsSampler",
    "IndependentSurrogate",
    "PFNSurrogate",
    "ProcessSurrogate",
    "ScaleMixturePosterior",
    "StudentTExpectedImprovement",
    "Surrogate",
    "count_traces",
]
