"""From model outcomes to what the caller asked for: untransform, select, posterior transform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from botorch.acquisition.objective import (
    ExpectationPosteriorTransform,
    PosteriorTransform,
    ScalarizedPosteriorTransform,
)
from torch import Tensor

from bayesnet._errors import UnsupportedError
from bayesnet.surrogates.tensors import as_tensor

# Gauss-Hermite nodes for the moments of noise behind a curved outcome transform (log, power).
NODES = 20


@dataclass(frozen=True, eq=False)
class OutcomeMap:
    """The map from outcomes in the model's space to the posterior's outcomes.

    `untransform`: a BoTorch outcome transform in eval mode, or None; `inputs` (batch x q x d)
    the transformed inputs, which some transforms look at; `outputs` the indices to keep, after
    the untransform; `transform` a posterior transform, or None. Tensors have leading axes
    (draws or samples) x batch, and q x m last.
    """

    untransform: Any = None
    inputs: Tensor | None = None
    outputs: tuple[int, ...] | None = None
    transform: PosteriorTransform | None = None

    @property
    def affine(self) -> bool:
        """Whether normal noise stays normal: no untransform, or a linear one (Standardize)."""
        return self.untransform is None or bool(self.untransform._is_linear)

    def outcomes(self, y: Tensor) -> Tensor:
        """Untransformed outcomes, kept outputs only, before any posterior transform."""
        if self.untransform is not None:
            y, _ = self.untransform.untransform(y, X=self.inputs)
        return self.select(y)

    def select(self, y: Tensor) -> Tensor:
        """The kept outputs of (..., m)."""
        return y if self.outputs is None else y[..., list(self.outputs)]

    def __call__(self, y: Tensor) -> Tensor:
        """Everything, on draws without noise or on noisy samples alike."""
        return self._posterior_transform(self.outcomes(y))

    def noise_moments(self, y: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance over independent noise N(0, `variance`) added to each entry of y.

        Exact for linear outcome transforms, by Gauss-Hermite quadrature for others.

        Raises `UnsupportedError` for a posterior transform that is not a known affine one.
        """
        mean, spread = self._outcome_moments(y, variance)
        if self.transform is None:
            return mean, spread
        if isinstance(self.transform, ScalarizedPosteriorTransform):
            squared = as_tensor(self.transform.weights, spread) ** 2
            return self._posterior_transform(mean), (spread @ squared).unsqueeze(-1)
        if isinstance(self.transform, ExpectationPosteriorTransform):
            n_w, m = self.transform.n_w, spread.shape[-1]
            blocks = spread.reshape(*spread.shape[:-2], -1, n_w, m)
            weights = self.transform.weights.to(spread)
            return self._posterior_transform(mean), (blocks * weights**2).sum(dim=-2)
        raise UnsupportedError(
            f"Moments with observation noise under {type(self.transform).__name__}: only "
            "ScalarizedPosteriorTransform and ExpectationPosteriorTransform are known to be "
            "affine. Sample the noisy posterior instead, or leave the noise out."
        )

    def _outcome_moments(self, y: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        variance = variance.expand_as(y)
        if self.untransform is None:
            return self.select(y), self.select(variance)
        if self.affine:
            mean, spread = self.untransform.untransform(y, variance, X=self.inputs)
            return self.select(mean), self.select(spread)
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        weights = weights / weights.sum()
        std = variance.sqrt()
        at_nodes = torch.stack([self.outcomes(y + std * float(t)) for t in nodes])
        w = as_tensor(weights, at_nodes).reshape(-1, *(1,) * y.dim())
        mean = (w * at_nodes).sum(dim=0)
        return mean, (w * (at_nodes - mean) ** 2).sum(dim=0)

    def _posterior_transform(self, y: Tensor) -> Tensor:
        if self.transform is None:
            return y
        out = self.transform.evaluate(y.contiguous(), X=self.inputs)
        # A scalarization drops the output axis; a posterior always has one.
        return out.unsqueeze(-1) if getattr(self.transform, "scalarize", False) else out
