"""Priors over functions: processes, networks with weight laws, and matching one to the other."""

from bayesnet.priors.amortised import AmortisedPrior
from bayesnet.priors.base import FunctionPrior, KernelPrior, LatentPrior
from bayesnet.priors.gaussian_process import GaussianProcess
from bayesnet.priors.laws import LogNormal, Normal
from bayesnet.priors.matching import (
    Box,
    FamilyMatch,
    Grid,
    MatchResult,
    Mix,
    Near,
    RescaledMatch,
    match_family,
    match_prior,
    match_rescaled,
)
from bayesnet.priors.means import LinearMean
from bayesnet.priors.network import NetworkPrior
from bayesnet.priors.rescaled import RescaledPrior
from bayesnet.priors.scale_mixture import ScaleMixture
from bayesnet.priors.statements import StatedPrior, elicit
from bayesnet.priors.sums import Sum
from bayesnet.priors.variance_laws import BurrXII, Gamma, HalfCauchy, InverseGamma, OnStd

__all__ = [
    "AmortisedPrior",
    "Box",
    "BurrXII",
    "FamilyMatch",
    "FunctionPrior",
    "Gamma",
    "GaussianProcess",
    "Grid",
    "HalfCauchy",
    "InverseGamma",
    "KernelPrior",
    "LatentPrior",
    "LinearMean",
    "LogNormal",
    "MatchResult",
    "Mix",
    "Near",
    "NetworkPrior",
    "Normal",
    "OnStd",
    "RescaledMatch",
    "RescaledPrior",
    "ScaleMixture",
    "StatedPrior",
    "Sum",
    "elicit",
    "match_family",
    "match_prior",
    "match_rescaled",
]
