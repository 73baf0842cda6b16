"""Statements about functions in the units of the data, and `elicit`, which makes them a prior."""

from bayesnet.priors.statements.base import Seen, Statement
from bayesnet.priors.statements.bounded import Bounded, Positive
from bayesnet.priors.statements.build import elicit
from bayesnet.priors.statements.known_value import KnownValue
from bayesnet.priors.statements.monotone import Monotone
from bayesnet.priors.statements.periodic import Periodic
from bayesnet.priors.statements.report import StatementReport
from bayesnet.priors.statements.satisfies import Satisfies
from bayesnet.priors.statements.stated import StatedPrior
from bayesnet.priors.statements.varies import Varies

__all__ = [
    "Bounded",
    "KnownValue",
    "Monotone",
    "Periodic",
    "Positive",
    "Satisfies",
    "Seen",
    "StatedPrior",
    "Statement",
    "StatementReport",
    "Varies",
    "elicit",
]
