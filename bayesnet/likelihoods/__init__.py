"""Likelihoods: the law of the targets given the function."""

from bayesnet.likelihoods.base import BoundLikelihood, Conditional, Likelihood
from bayesnet.likelihoods.gaussian import BoundGaussian, GaussianLikelihood

__all__ = ["BoundGaussian", "BoundLikelihood", "Conditional", "GaussianLikelihood", "Likelihood"]
