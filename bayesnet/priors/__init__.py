"""Priors over functions: processes, networks with weight laws, and matching one to the other."""

from bayesnet.priors.base import FunctionPrior, KernelPrior, LatentPrior
from bayesnet.priors.gaussian_process import GaussianProcess
from bayesnet.priors.laws import LogNormal, Normal
from bayesnet.priors.matching import Box, MatchResult, match_prior
from bayesnet.priors.means import LinearMean
from bayesnet.priors.network import NetworkPrior
from bayesnet.priors.statements import StatedPrior, elicit
from bayesnet.priors.sums import Sum

__all__ = [
    "Box",
    "FunctionPrior",
    "GaussianProcess",
    "KernelPrior",
    "LatentPrior",
    "LinearMean",
    "LogNormal",
    "MatchResult",
    "NetworkPrior",
    "Normal",
    "StatedPrior",
    "Sum",
    "elicit",
    "match_prior",
]
