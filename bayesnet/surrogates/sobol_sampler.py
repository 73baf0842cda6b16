"""The sampler of joint laws in closed form: quasi-random normals, kept from call to call."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from botorch.sampling.base import MCSampler
from scipy.special import ndtri
from scipy.stats import qmc
from torch import Tensor

from bayesnet.surrogates.tensors import as_tensor, permutation


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
            # What is kept is asked again where derivatives are taken.
            with torch.inference_mode(False):
                drawn = sobol_normals(self.sample_shape.numel(), size, self.seed)
                if self.salt is not None:
                    generator = torch.Generator().manual_seed(self.seed + self.salt)
                    drawn = drawn[permutation(len(drawn), generator)]
                self.base_samples = kept = drawn.reshape(*self.sample_shape, size)
        return posterior.rsample_from_base_samples(self.sample_shape, kept)

    def _update_base_samples(self, posterior: Any, base_sampler: Any) -> None:
        """Base samples do not depend on the training points: nothing to do."""


def sobol_normals(n: int, size: int, seed: int) -> Tensor:
    """`n` points (n, size) of a scrambled Sobol sequence as standard normals in float64.

    torch's own engine computes its first point in the default dtype, and in float16 it is not a number.
    """
    if size == 0 or n == 0:
        return as_tensor(np.zeros((n, size)))
    engine = qmc.Sobol(size, scramble=True, seed=np.random.default_rng(seed % 2**63))
    points = engine.random_base2(int(np.ceil(np.log2(n))))[:n]
    # Off 0 and 1, whose quantiles are infinite.
    inside = 0.5 + (1.0 - np.finfo(np.float64).eps) * (points - 0.5)
    return as_tensor(ndtri(inside))
