"""The sampler of function draws: which draws, kept from call to call."""

from __future__ import annotations

from typing import Any

import torch
from botorch.sampling.base import MCSampler
from botorch.sampling.get_sampler import GetSampler
from torch import Tensor

from bayesnet.surrogates.posterior import DrawsPosterior, choose_draws
from bayesnet.surrogates.tensors import normals


class DrawsSampler(MCSampler):
    """Chooses draws once and evaluates the same ones at every call.

    The choice has the shape `sample_shape` and holds for all places of a t-batch and all q
    points (one function per sample), so that restarts are compared on equal terms and pending
    points are coherent. No draw is chosen again before all were chosen. Observation noise, if
    the posterior has any, has base samples of shape `sample_shape x q x m`, kept as well and
    extended when q grows.

    Args:
        sample_shape: as for every BoTorch sampler.
        seed: fixes the choice; from torch's generator if None.
    """

    def __init__(self, sample_shape: torch.Size, seed: int | None = None) -> None:
        super().__init__(sample_shape=sample_shape, seed=seed)
        self.base_samples: Tensor | None
        self.noise_samples: Tensor | None
        self.register_buffer("noise_samples", None)
        self._num_draws = 0

    def forward(self, posterior: DrawsPosterior) -> Tensor:  # type: ignore[override]
        """Samples `sample_shape x batch x q x m`."""
        with torch.inference_mode(False):  # what is kept is asked again where derivatives are taken
            if self.base_samples is None or self._num_draws != posterior.num_draws:
                generator = torch.Generator().manual_seed(self.seed + posterior.salt)
                self.base_samples = choose_draws(self.sample_shape, posterior.num_draws, generator)
                self._num_draws = posterior.num_draws
            noise = self._noise(posterior) if posterior.noisy else None
        return posterior.rsample_from_base_samples(
            self.sample_shape, self.base_samples, noise_samples=noise
        )

    def _noise(self, posterior: DrawsPosterior) -> Tensor:
        """Standard normal base samples, point by point, so that more points keep the first, and other ones
        for each model."""
        q, m = posterior.noise_shape
        kept = self.noise_samples
        if kept is None or kept.shape[-1] != m:
            kept = torch.zeros((*self.sample_shape, 0, m), dtype=torch.float64, device="cpu")
        for j in range(kept.shape[-2], q):
            generator = torch.Generator().manual_seed(self.seed + posterior.salt + 7919 * (j + 1))
            column = normals((*self.sample_shape, 1, m), generator)
            kept = torch.cat([kept, column], dim=-2)
        self.noise_samples = kept
        return kept[..., :q, :]

    def _update_base_samples(self, posterior: Any, base_sampler: Any) -> None:
        """Draws are coherent over points by themselves: nothing to do."""


@GetSampler.register(DrawsPosterior)
def _get_sampler(
    posterior: DrawsPosterior, sample_shape: torch.Size, *, seed: int | None = None
) -> DrawsSampler:
    return DrawsSampler(sample_shape=sample_shape, seed=seed)
