"""Likelihoods: the law of the targets given the function."""

from __future__ import annotations

from typing import Any

from bayesnet._errors import InputError, unknown_name
from bayesnet.likelihoods.base import BoundLikelihood, Conditional, Likelihood
from bayesnet.likelihoods.bernoulli import BernoulliLikelihood
from bayesnet.likelihoods.categorical import CategoricalLikelihood
from bayesnet.likelihoods.gaussian import BoundGaussian, GaussianLikelihood
from bayesnet.likelihoods.heteroscedastic import HeteroscedasticLikelihood
from bayesnet.likelihoods.label_noise import LogitNormal
from bayesnet.likelihoods.laplace import LaplaceLikelihood
from bayesnet.likelihoods.poisson import PoissonLikelihood
from bayesnet.likelihoods.student_t import StudentTLikelihood

# Names that stand for a likelihood with its default settings.
LIKELIHOODS = {
    "gaussian": GaussianLikelihood,
    "heteroscedastic": HeteroscedasticLikelihood,
    "student_t": StudentTLikelihood,
    "laplace": LaplaceLikelihood,
    "bernoulli": BernoulliLikelihood,
    "categorical": CategoricalLikelihood,
    "poisson": PoissonLikelihood,
}


def resolve_likelihood(likelihood: Any) -> Any:
    """A likelihood from a likelihood, a name of `LIKELIHOODS`, or None (Gaussian noise)."""
    if likelihood is None:
        return GaussianLikelihood()
    if isinstance(likelihood, str):
        if likelihood not in LIKELIHOODS:
            raise unknown_name("likelihood", likelihood, LIKELIHOODS)
        return LIKELIHOODS[likelihood]()
    if isinstance(likelihood, type) or not isinstance(likelihood, Likelihood):
        raise InputError(
            "likelihood must be a likelihood such as bn.GaussianLikelihood(), or one of the names "
            f"{', '.join(LIKELIHOODS)}; got {likelihood!r}."
        )
    return likelihood


__all__ = [
    "LIKELIHOODS",
    "BernoulliLikelihood",
    "BoundGaussian",
    "BoundLikelihood",
    "CategoricalLikelihood",
    "Conditional",
    "GaussianLikelihood",
    "HeteroscedasticLikelihood",
    "LaplaceLikelihood",
    "Likelihood",
    "LogitNormal",
    "PoissonLikelihood",
    "StudentTLikelihood",
    "resolve_likelihood",
]
