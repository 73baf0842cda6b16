"""The joint posterior of a PFN for BoTorch: bars at every point, joined by a Gaussian copula."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from botorch.acquisition.objective import ScalarizedPosteriorTransform
from botorch.posteriors import Posterior
from botorch.sampling.get_sampler import GetSampler
from torch import Tensor

from bayesnet._errors import InputError, UnsupportedError
from bayesnet.pfn.prediction import MOST_JOINT
from bayesnet.surrogates.bar_law import BarLaw
from bayesnet.surrogates.outcomes import OutcomeMap
from bayesnet.surrogates.sobol_sampler import SobolSampler
from bayesnet.surrogates.tensors import as_tensor, normals

# What is left to every point when the others are known: correlations of a PFN need not fit together.
SLACK = 1e-4


class BarPosterior(Posterior):
    """Bar distributions at q points, jointly a Gaussian copula; shapes batch x q x m outside.

    A sample is `quantile(Phi(L z))` with normals z and `L L'` the correlations: each value has exactly
    the law that the PFN tells of its point, the same z give the same sample, and samples are
    differentiable in X.

    Args:
        law: the laws, logits (batch, q, m, k), in the model's outcome space.
        correlations: gives the correlations (batch, m, q, q), lower triangle, when called.
        outcome: the map to the caller's outcomes.
        noise_var: known variances of Gaussian noise to add, batch x q x m, in the model's outcome
            space; None for none.
        salt: tells this posterior from those of other models, whose samplers have the same seed.
    """

    def __init__(
        self,
        law: BarLaw,
        correlations: Callable[[], Tensor],
        outcome: OutcomeMap | None = None,
        noise_var: Tensor | None = None,
        dtype: torch.dtype = torch.float64,
        salt: int = 0,
    ) -> None:
        self.law = law
        self.salt = salt
        self._correlations = correlations
        self.outcome = OutcomeMap() if outcome is None else outcome
        self.noise_var = noise_var
        self._dtype = dtype

    @property
    def inner_shape(self) -> torch.Size:
        """batch x q x m before outcomes are selected or combined."""
        return self.law.logits.shape[:-1]

    @property
    def device(self) -> torch.device:
        """The torch device."""
        return self.law.logits.device

    @property
    def dtype(self) -> torch.dtype:
        """The torch dtype of samples and moments."""
        return self._dtype

    @property
    def batch_shape(self) -> torch.Size:
        """The t-batch shape."""
        return self.inner_shape[:-2]

    @property
    def base_sample_shape(self) -> torch.Size:
        """One axis: normals for q x m values, and as many for given noise."""
        q, m = self.inner_shape[-2:]
        return torch.Size([q * m * (1 if self.noise_var is None else 2)])

    @property
    def batch_range(self) -> tuple[int, int]:
        """Base samples are the same for all t-batches: they have no batch axes."""
        return (0, 0)

    def _extended_shape(self, sample_shape: torch.Size = torch.Size()) -> torch.Size:  # noqa: B008
        return torch.Size(sample_shape) + self.mean.shape

    @cached_property
    def root(self) -> Tensor:
        """The factor L of the correlations (batch, m, q, q).

        Raises `InputError` for more than 256 points: two tables are encoded for each.
        """
        q = self.inner_shape[-2]
        if q > MOST_JOINT:
            raise InputError(
                f"Joint samples are made at most at {MOST_JOINT} points, got q = {q}: put points into the "
                "t-batch (X.unsqueeze(-2)) if their joint law does not matter."
            )
        return correlation_root(self._correlations())

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        law, outcome = self.law, self.outcome
        extra: Any = 0.0 if self.noise_var is None else self.noise_var
        plain = OutcomeMap(outcome.untransform, outcome.inputs, outcome.outputs)
        if outcome.affine:
            mean, variance = plain.noise_moments(law.mean, law.variance + extra)
        else:
            # A bar is narrow: within it the curved map is that of a normal law of its variance.
            values = law.centres.mT.reshape(
                -1, *(1,) * (len(self.inner_shape) - 1), law.centres.shape[0]
            )
            spread = law.within.mT.reshape(values.shape) + extra
            shape = torch.Size((values.shape[0], *self.inner_shape))
            means, variances = plain.noise_moments(values.expand(shape), spread.expand(shape))
            weight = plain.select(law.probs.movedim(-1, 0))
            mean = (weight * means).sum(0)
            variance = (weight * (variances + (means - mean).square())).sum(0)
        if outcome.transform is None:
            return mean.to(self.dtype), variance.to(self.dtype)
        if not isinstance(outcome.transform, ScalarizedPosteriorTransform):
            raise UnsupportedError(
                f"Moments under {type(outcome.transform).__name__}: only ScalarizedPosteriorTransform is "
                "known. Use samples."
            )
        weights = as_tensor(outcome.transform.weights, variance)
        combined = outcome.transform.evaluate(mean.to(weights), X=outcome.inputs).unsqueeze(-1)
        total = (variance @ weights.square()).unsqueeze(-1)
        return combined.to(self.dtype), total.to(self.dtype)

    @property
    def mean(self) -> Tensor:
        """The mean, batch x q x m."""
        return self._moments[0]

    @property
    def variance(self) -> Tensor:
        """The variance, batch x q x m."""
        return self._moments[1]

    def rsample(self, sample_shape: torch.Size | None = None) -> Tensor:
        """Samples `sample_shape x batch x q x m`, from torch's generator."""
        shape = torch.Size([1]) if sample_shape is None else torch.Size(sample_shape)
        base = normals((*shape, *self.batch_shape, *self.base_sample_shape))
        return self.rsample_from_base_samples(shape, base)

    def rsample_from_base_samples(
        self, sample_shape: torch.Size, base_samples: Tensor, **kwargs: Any
    ) -> Tensor:
        """Samples from normals `sample_shape x (batch or nothing) x base_sample_shape`."""
        q, m = self.inner_shape[-2:]
        count, dims = torch.Size(sample_shape).numel(), len(self.batch_shape)
        base = base_samples.to(device=self.device, dtype=torch.float64)
        lead = base.shape[len(sample_shape) : -1] or (1,) * dims
        z = base[..., : q * m].reshape(count, *lead, q, m)
        joint = z
        if q > 1:
            joint = (self.root @ z.mT.unsqueeze(-1)).squeeze(-1).mT
        joint = joint.expand(count, *self.inner_shape)
        value = self.law.quantile(torch.special.ndtr(joint))
        if self.noise_var is not None:
            other = base[..., q * m :].reshape(count, *lead, q, m)
            value = value + self.noise_var.sqrt() * other
        value = value.reshape(*sample_shape, *self.inner_shape)
        return self.outcome(value.to(self.dtype))

    def quantile(self, value: Tensor) -> Tensor:
        """Marginal quantiles at levels `value`: `value.shape x batch x q x m`, differentiable.

        Outcome transforms are taken as increasing. Raises `InputError` for levels outside (0, 1) and
        `UnsupportedError` with given noise or a posterior transform.
        """
        levels = as_tensor(value, self.law.logits)
        if not bool(((levels > 0) & (levels < 1)).all()):
            raise InputError(f"Quantile levels must lie strictly between 0 and 1, got {value}.")
        if self.noise_var is not None or self.outcome.transform is not None:
            raise UnsupportedError(
                "Quantiles with given noise variances or a posterior transform: use samples."
            )
        flat = levels.reshape(-1, *(1,) * len(self.inner_shape))
        out = self.law.quantile(flat.expand(levels.numel(), *self.inner_shape))
        out = self.outcome.outcomes(out.to(self.dtype))
        return out.reshape(*levels.shape, *out.shape[1:])


def correlation_root(correlations: Tensor) -> Tensor:
    """Lower triangular L (..., q, q) with unit rows and `L L'` the correlations, where these are such.

    Cholesky's rows, one after the other; a row that leaves its point less than `SLACK` of variance of its
    own is shortened, so that any numbers give correlations. Reads the lower triangle.
    """
    q = correlations.shape[-1]
    one = correlations.new_ones(*correlations.shape[:-2], 1)
    rows = [torch.cat([one, correlations.new_zeros(*one.shape[:-1], q - 1)], dim=-1)]
    for i in range(1, q):
        above = torch.stack(rows, dim=-2)[..., :i]
        right = correlations[..., i, :i].unsqueeze(-1)
        row = torch.linalg.solve_triangular(above, right, upper=False).squeeze(-1)
        length = row.square().sum(-1, keepdim=True)
        row = row * ((1 - SLACK) / length.clamp_min(1 - SLACK)).sqrt()
        own = (1 - row.square().sum(-1, keepdim=True)).sqrt()
        rows.append(torch.cat([row, own, row.new_zeros(*own.shape[:-1], q - i - 1)], dim=-1))
    return torch.stack(rows, dim=-2)


@GetSampler.register(BarPosterior)
def _get_sampler(
    posterior: BarPosterior, sample_shape: torch.Size, *, seed: int | None = None
) -> SobolSampler:
    return SobolSampler(sample_shape=sample_shape, seed=seed, salt=posterior.salt)
