"""The joint posterior of a scale mixture for BoTorch: Student-t, or a mixture of Gaussians."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
import torch
from botorch.acquisition.objective import ExpectationPosteriorTransform
from botorch.posteriors import Posterior
from botorch.sampling.get_sampler import GetSampler
from linear_operator.utils.cholesky import psd_safe_cholesky
from scipy.special import chdtri
from torch import Tensor

from bayesnet._errors import UnsupportedError
from bayesnet.surrogates.conditional import Nodes
from bayesnet.surrogates.outcomes import OutcomeMap
from bayesnet.surrogates.sobol_sampler import SobolSampler
from bayesnet.surrogates.tensors import as_tensor, normals

# Draws behind base samples are kept off probability 0 and 1.
EDGE = 1e-12
# Added to the diagonal of covariances, relative to its mean.
LIFT = 1e-9


class ScaleMixturePosterior(Posterior):
    """A weighted mixture of j Gaussian or Student-t laws over q points; shapes batch x q x m outside.

    Args:
        nodes: means (j, batch, q, m) and covariances (j, batch, m, q, q) in the model's outcome space,
            noise included if there is any; degrees of freedom or None.
        shared: one scale for all outputs (else one each).
        outcome: the map to the caller's outcomes.
        salt: tells this posterior from those of other models, whose samplers have the same seed.
    """

    def __init__(
        self, nodes: Nodes, shared: bool, outcome: OutcomeMap | None = None, salt: int = 0
    ) -> None:
        self.nodes = nodes
        self.salt = salt
        self.shared = shared
        self._outcome = OutcomeMap() if outcome is None else outcome

    @property
    def df(self) -> float | None:
        """The degrees of freedom of a Student-t posterior; None for a mixture of Gaussians."""
        return self.nodes.df

    @property
    def outcome(self) -> OutcomeMap:
        """The map to the caller's outcomes."""
        return self._outcome

    @property
    def inner_shape(self) -> torch.Size:
        """batch x q x m before outcomes are selected or combined."""
        return self.nodes.mean.shape[1:]

    @property
    def device(self) -> torch.device:
        """The torch device."""
        return self.nodes.mean.device

    @property
    def dtype(self) -> torch.dtype:
        """The torch dtype."""
        return self.nodes.mean.dtype

    @property
    def batch_shape(self) -> torch.Size:
        """The t-batch shape."""
        return self.inner_shape[:-2]

    @property
    def base_sample_shape(self) -> torch.Size:
        """Normals for q x m values, then one coordinate for each random thing: the last axis.

        What is chosen apart from each other has coordinates of its own: the member, the node, and the
        chi-square variable of Student-t laws."""
        q, m = self.inner_shape[-2:]
        return torch.Size([q * m + sum(self._choices)])

    @property
    def _choices(self) -> tuple[int, int, int]:
        """Coordinates for the member, for nodes, and for chi-square variables."""
        groups = 1 if self.shared else self.inner_shape[-1]
        several = self.nodes.mean.shape[0] > 1
        sizes = self.nodes.sizes
        # A shared node is chosen together with its member.
        apart = not self.shared and len(sizes) > 1
        nodes = several and (not apart or max(sizes) > 1)
        return int(apart), groups * nodes, groups * (self.nodes.df is not None)

    @property
    def batch_range(self) -> tuple[int, int]:
        """Base samples are the same for all t-batches: they have no batch axes."""
        return (0, 0)

    def _extended_shape(self, sample_shape: torch.Size = torch.Size()) -> torch.Size:  # noqa: B008
        return torch.Size(sample_shape) + self.mean.shape

    @cached_property
    def _root(self) -> Tensor:
        """Cholesky factors (j, batch, m, q, q)."""
        cov = self.nodes.cov
        # Points that coincide, or repeat rows without noise, have a singular covariance.
        level = cov.detach().diagonal(dim1=-1, dim2=-2).mean(-1, keepdim=True).clamp_min(1e-300)
        # At a level of 1: what is added where it fails is in no units.
        unit = cov / level.unsqueeze(-1)
        unit = unit + LIFT * torch.eye(unit.shape[-1], dtype=unit.dtype, device=unit.device)
        return psd_safe_cholesky(unit) * level.sqrt().unsqueeze(-1)

    @property
    def _inflation(self) -> float:
        df = self.nodes.df
        if df is None:
            return 1.0
        return df / (df - 2.0) if df > 2 else math.inf

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        nodes = self.nodes
        spread = nodes.cov.diagonal(dim1=-1, dim2=-2).mT.clamp_min(0.0)
        if nodes.df is not None and not self._outcome.affine:
            raise UnsupportedError(
                "A Student-t posterior has no moments behind a curved outcome transform: use samples, or "
                "bn.LogNormal as the law of the scale."
            )
        mean, variance = self._outcome.noise_moments(nodes.mean, spread * self._inflation)
        if isinstance(self._outcome.transform, ExpectationPosteriorTransform):
            variance = self._of_means(self._outcome.transform) * self._inflation
        weight = nodes.log_weight.exp().unsqueeze(-2)  # (j, batch, 1, m)
        if self.shared:
            weight = weight[..., :1]
        elif self._outcome.transform is not None:
            raise UnsupportedError(
                "Moments of a combination of outputs, each with a scale of its own, are not available: use "
                "samples."
            )
        else:
            weight = self._outcome.select(weight)
        total = (weight * mean).sum(0)
        return total, (weight * (variance + (mean - total) ** 2)).sum(0)

    def _of_means(self, transform: ExpectationPosteriorTransform) -> Tensor:
        """Variances (j, batch, q, m) of weighted means of n_w rows each, which depend on each other."""
        outcome = self._outcome
        if not outcome.affine:
            raise UnsupportedError(
                "Variances of means of points behind a curved outcome transform are not available: use samples."
            )
        plain = OutcomeMap(outcome.untransform, outcome.inputs, outcome.outputs)
        # What a linear outcome transform multiplies variances by, (j, batch, n, m).
        _, gain = plain.noise_moments(self.nodes.mean, torch.ones_like(self.nodes.mean))
        root = gain.sqrt()
        cov = plain.select(self.nodes.cov.movedim(-3, -1)) * root.unsqueeze(-2) * root.unsqueeze(-3)
        n_w, m = transform.n_w, root.shape[-1]
        q = root.shape[-2] // n_w
        blocks = cov.reshape(*cov.shape[:-3], q, n_w, q, n_w, m).diagonal(dim1=-5, dim2=-3)
        weight = transform.weights.to(cov).expand(n_w, m)
        return torch.einsum("...abmq,am,bm->...qm", blocks, weight, weight)

    @property
    def mean(self) -> Tensor:
        """The mean, batch x q x m."""
        return self._moments[0]

    @property
    def variance(self) -> Tensor:
        """The variance, batch x q x m; infinite for two degrees of freedom or fewer."""
        return self._moments[1]

    def rsample(self, sample_shape: torch.Size | None = None) -> Tensor:
        """Samples `sample_shape x batch x q x m`, from torch's generator."""
        shape = torch.Size([1]) if sample_shape is None else torch.Size(sample_shape)
        batch = self.batch_shape
        base = normals((*shape, *batch, *self.base_sample_shape))
        return self.rsample_from_base_samples(shape, base)

    def rsample_from_base_samples(
        self, sample_shape: torch.Size, base_samples: Tensor, **kwargs: Any
    ) -> Tensor:
        """Samples from normals `sample_shape x (batch or nothing) x (q m + scales)`; differentiable in
        the mean and covariance."""
        q, m = self.inner_shape[-2:]
        dims = len(self.batch_shape)
        base = base_samples.to(device=self.device, dtype=torch.float64)
        if base.dim() == len(sample_shape) + 1:
            base = base.reshape(*sample_shape, *(1,) * dims, base.shape[-1])
        z = base[..., : q * m].reshape(*base.shape[:-1], q, m)
        level = torch.special.ndtr(base[..., q * m :]).clamp(EDGE, 1.0 - EDGE)
        by_member, by_node, by_chi = level.split(list(self._choices), dim=-1)  # (.., 1 or m) each
        index = self._pick(by_member, by_node, len(sample_shape))  # sample x batch x (1 or m)
        shape = torch.Size((*sample_shape, *self.inner_shape))
        out = torch.zeros(shape, dtype=torch.float64, device=self.device)
        stretch: Any = 1.0
        if self.nodes.df is not None:
            chi = chdtri(self.nodes.df, by_chi.detach().cpu().numpy())
            stretch = (self.nodes.df / as_tensor(chi, level)).sqrt()
            stretch = stretch.unsqueeze(-2)
        moved = z.to(self.dtype).mT.unsqueeze(-1)  # (.., m, q, 1)
        for k in torch.unique(index).tolist():
            draw = (self._root[k] @ moved).squeeze(-1).mT * stretch
            value = self.nodes.mean[k] + draw
            out = torch.where((index == k).unsqueeze(-2), value, out)
        return self._outcome(out.to(self.dtype))

    def _pick(self, by_member: Tensor, by_node: Tensor, samples: int) -> Tensor:
        """The node of each sample by inversion: sample x batch x (1 or m)."""
        weight = self.nodes.log_weight.detach().exp()
        weight = weight[..., :1] if self.shared else weight
        weight = weight.reshape(weight.shape[0], *(1,) * samples, *weight.shape[1:])
        sizes = self.nodes.sizes
        if not by_member.shape[-1]:
            return _inverse(weight, by_node)
        parts = weight.split(list(sizes))
        # All outputs have the same members, with the same shares.
        shares = torch.stack([p.sum(0) for p in parts])[..., :1]
        member = _inverse(shares, by_member)
        own = [_inverse(p, by_node) if len(p) > 1 else torch.zeros_like(member) for p in parts]
        starts = np.cumsum([0, *sizes])
        index = torch.zeros_like(member)
        for i, node in enumerate(own):
            index = torch.where(member == i, node + int(starts[i]), index)
        return index


def _inverse(weight: Tensor, level: Tensor) -> Tensor:
    """Which of the weights (j, ...) a level between 0 and 1 falls into; zeros without levels."""
    if len(weight) == 1 or not level.shape[-1]:
        return torch.zeros(weight.shape[1:], dtype=torch.long, device=weight.device)
    edges = weight.cumsum(0)
    index = (level.unsqueeze(0) > edges / edges[-1:]).sum(0)
    return index.clamp_max(len(weight) - 1)


@GetSampler.register(ScaleMixturePosterior)
def _get_sampler(
    posterior: ScaleMixturePosterior, sample_shape: torch.Size, *, seed: int | None = None
) -> SobolSampler:
    return SobolSampler(sample_shape=sample_shape, seed=seed, salt=posterior.salt)
