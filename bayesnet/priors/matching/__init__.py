"""Matching: tune a network's weight prior until its functions look like a target process."""

from bayesnet.priors.matching.base import Distance
from bayesnet.priors.matching.critic import Critic
from bayesnet.priors.matching.energy import Energy
from bayesnet.priors.matching.match import DISTANCES, match_prior
from bayesnet.priors.matching.points import Box
from bayesnet.priors.matching.result import MatchResult
from bayesnet.priors.matching.sliced import Sliced

__all__ = [
    "DISTANCES",
    "Box",
    "Critic",
    "Distance",
    "Energy",
    "MatchResult",
    "Sliced",
    "match_prior",
]
