"""Observation noise of a surrogate: of its likelihood, or given by the caller."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from bayesnet._errors import InputError, UnsupportedError
from bayesnet.likelihoods import GaussianLikelihood
from bayesnet.surrogates.tensors import as_tensor


def fitted_noise(fitted: Any, noise_latents: np.ndarray, draws: Tensor) -> Tensor:
    """The noise variance of each draw, in the units fitted: s x 1 ... 1 x m.

    With known row variances and no learned noise: the mean training variance.

    Args:
        fitted: the posterior (`FunctionDraws`).
        noise_latents: (s, k), the likelihood's latents of the draws.
        draws: s x batch x q x m, whose dtype, device and number of axes are taken.

    Raises `UnsupportedError` for a likelihood whose noise is not Gaussian.
    """
    if not isinstance(fitted.likelihood, GaussianLikelihood):
        raise UnsupportedError(
            f"observation_noise=True needs Gaussian noise, not {fitted.likelihood}."
        )
    s, m = draws.shape[0], draws.shape[-1]
    variance = fitted.bound.conditional(noise_latents, np.zeros((s, 1, m)), None).variance
    variance = np.ascontiguousarray(variance * fitted.data.scaling.y_scale**2)
    return as_tensor(variance, draws).reshape(s, *(1,) * (draws.dim() - 2), m)


def given_noise(noise: Tensor, draws: Tensor, outputs: tuple[int, ...] | None) -> Tensor:
    """Noise variances that the caller gives, 1 x batch x q x m.

    Args:
        noise: broadcastable to batch x q x m, in the space of transformed outcomes.
        draws: s x batch x q x m.
        outputs: the outcomes of a subset model, to which a narrower `noise` then refers.

    Raises `InputError` for negative variances or a shape that does not fit.
    """
    if not bool((noise >= 0).all()):
        raise InputError("observation_noise holds variances, which must not be negative or NaN.")
    noise, m = noise.to(draws), draws.shape[-1]
    if outputs is not None and noise.dim() and noise.shape[-1] == len(outputs) != m:
        full = noise.new_zeros(*noise.shape[:-1], m)
        full[..., list(outputs)] = noise
        noise = full
    try:
        return noise.expand(draws.shape[1:]).unsqueeze(0)
    except RuntimeError as error:
        raise InputError(
            f"observation_noise has shape {tuple(noise.shape)}, which does not broadcast to "
            f"{tuple(draws.shape[1:])} (batch x q x m)."
        ) from error
