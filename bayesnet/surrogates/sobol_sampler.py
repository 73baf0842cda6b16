"""The sampler of joint laws in closed form: quasi-random normals, kept from call to call."""

from __future__ import annotations

from typing import Any

import torch
from botorch.sampling.base import MCSampler
from botorch.utils.sampling import draw_sobol_normal_samples
from torch import Tensor


class SobolSampler(MCSampler):
    """Quasi-random base samples for a posterior whose `base_sample_shape` is one axis.

    The same for all t-batches and all calls with the same number of points. Samplers of several
    models with one seed would have sequences that follow each other, and so would other scramblings
    of the sequence, which keep its leading bits: `salt`, a number of the model, fixes an order of its own.
    """

    def __init__(
        self, sample_shape: torch.Size, seed: int | None = None, salt: int | None = None
    ) -> None:
        super().__init__(sample_shape=sample_shape, seed=seed)
        self.salt = salt
        self.base_samples: Tensor | None

    def forward(self, posterior: Any) -> Tensor:
        """Samples `sample_shape x batch x q x m`."""
        size = posterior.base_sample_shape[0]
        kept = self.base_samples
        if kept is None or kept.shape[-1] != size:
            drawn = draw_sobol_normal_samples(
                d=size, n=self.sample_shape.numel(), dtype=torch.float64, seed=self.seed
            )
            if self.salt is not None:
                generator = torch.Generator().manual_seed(self.seed + self.salt)
                drawn = drawn[torch.randperm(len(drawn), generator=generator)]
            self.base_samples = kept = drawn.reshape(*self.sample_shape, size)
        return posterior.rsample_from_base_samples(self.sample_shape, kept)

    def _update_base_samples(self, posterior: Any, base_sampler: Any) -> None:
        """Base samples do not depend on the training points: nothing to do."""
