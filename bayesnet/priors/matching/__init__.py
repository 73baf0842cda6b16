"""Matching: tune a network's weight prior until its functions look like a target process."""

from bayesnet.priors.matching.base import Distance
from bayesnet.priors.matching.critic import Critic
from bayesnet.priors.matching.energy import Energy
from bayesnet.priors.matching.family import FamilyMatch, match_family
from bayesnet.priors.matching.gap import function_distance
from bayesnet.priors.matching.match import DISTANCES, match_prior
from bayesnet.priors.matching.points import Box
from bayesnet.priors.matching.rescaling import RescaledMatch, match_rescaled
from bayesnet.priors.matching.result import MatchResult
from bayesnet.priors.matching.sliced import Sliced
from bayesnet.priors.matching.strategies import Grid, Mix, Near, Scaled

__all__ = [
    "DISTANCES",
    "Box",
    "Critic",
    "Distance",
    "Energy",
    "FamilyMatch",
    "Grid",
    "MatchResult",
    "Mix",
    "Near",
    "RescaledMatch",
    "Scaled",
    "Sliced",
    "function_distance",
    "match_family",
    "match_prior",
    "match_rescaled",
]
