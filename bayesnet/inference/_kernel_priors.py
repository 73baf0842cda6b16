"""Checks that methods for kernel priors share."""

from __future__ import annotations

from typing import Any

from bayesnet._errors import InputError, UnsupportedError
from bayesnet.inference.exact import _random_amplitude
from bayesnet.posterior.process_table import base_of
from bayesnet.priors import LatentPrior
from bayesnet.priors.scale_mixture import ScaleMixture


def is_kernel_prior(prior: Any) -> bool:
    """Whether a prior, or the base of a mixture, has a kernel and draws."""
    base = base_of(prior)
    return (
        not isinstance(prior, LatentPrior) and hasattr(base, "kernel") and hasattr(base, "sample")
    )


def choose_kernel_prior(method: str, prior: Any, target: Any) -> Any:
    """The prior or the target, whichever is given. Raises `InputError` for both."""
    if prior is not None and target is not None:
        raise InputError(f"{method} conditions the process itself: give the prior or the target.")
    return target if prior is None else prior


def check_kernel_prior(method: str, prior: Any, *, learn_variances: bool) -> None:
    """Raise `UnsupportedError` for priors without a kernel, `InputError` for an amplitude twice."""
    if isinstance(prior, LatentPrior):
        raise UnsupportedError(
            f"{method} conditions kernel priors, got {type(prior).__name__}: take its limit, "
            "prior.infinite_width(), or condition the network with bn.HMC()."
        )
    if not is_kernel_prior(prior):
        raise UnsupportedError(
            f"{method} conditions priors with a kernel(x1, x2), such as bn.GaussianProcess, got "
            f"{type(prior).__name__}."
        )
    if not isinstance(prior, ScaleMixture):
        return
    if learn_variances or _random_amplitude(getattr(prior.base, "covariance", None)):
        raise InputError(
            "The scale of the mixture and the outputscale (or the variances of an infinite network) are both "
            "the amplitude, and data do not tell them apart: state the second as numbers."
        )
