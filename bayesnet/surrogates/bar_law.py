"""Bar distributions in torch: what acquisition functions differentiate (see `bayesnet.pfn.bars`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

HALF_NORMAL_MEAN = math.sqrt(2 / math.pi)
HALF_NORMAL_VAR = 1.0 - 2 / math.pi
# Where quantiles end: 5.3 standard deviations of a half-normal tail.
EDGE = 1e-7


@dataclass(frozen=True, eq=False)
class BarLaw:
    """Histograms with half-normal tails: `bayesnet.pfn.BarDistribution` as torch tensors.

    `logits` (..., m, k); `edges` (m, k - 1), increasing; `tails` (m, 2), positive: m laws at
    each place, each with bars of its own.
    """

    logits: Tensor
    edges: Tensor
    tails: Tensor

    @cached_property
    def probs(self) -> Tensor:
        """The probabilities of the bars (..., m, k)."""
        return torch.softmax(self.logits, dim=-1)

    @cached_property
    def centres(self) -> Tensor:
        """The mean of each bar (m, k)."""
        low = self.edges[:, :1] - HALF_NORMAL_MEAN * self.tails[:, :1]
        high = self.edges[:, -1:] + HALF_NORMAL_MEAN * self.tails[:, 1:]
        return torch.cat([low, 0.5 * (self.edges[:, 1:] + self.edges[:, :-1]), high], dim=-1)

    @cached_property
    def within(self) -> Tensor:
        """The variance of each bar (m, k)."""
        tail = HALF_NORMAL_VAR * self.tails.square()
        inner = self.edges.diff(dim=-1).square() / 12
        return torch.cat([tail[:, :1], inner, tail[:, 1:]], dim=-1)

    @cached_property
    def mean(self) -> Tensor:
        """The mean (..., m)."""
        return (self.probs * self.centres).sum(-1)

    @cached_property
    def variance(self) -> Tensor:
        """The variance (..., m)."""
        distance = self.centres - self.mean.unsqueeze(-1)
        return (self.probs * (self.within + distance.square())).sum(-1)

    def quantile(self, u: Tensor) -> Tensor:
        """The values with probability `u` (s, ..., m) at or below them; differentiable in the logits."""
        k = self.logits.shape[-1]
        cumulative = self.probs.cumsum(-1)
        levels = u.movedim(0, -1).contiguous()  # (..., m, s)
        index = torch.searchsorted(cumulative.detach().contiguous(), levels).clamp_max(k - 1)
        mass = self.probs.gather(-1, index).clamp_min(torch.finfo(self.probs.dtype).tiny)
        inside = 1 - (cumulative.gather(-1, index) - levels) / mass
        inside = inside.clamp(EDGE, 1 - EDGE)
        left, right = index == 0, index == k - 1
        lower = torch.cat([self.edges[:, :1], self.edges], dim=-1).expand_as(self.logits)
        width = torch.cat([self.tails[:, :1], self.edges.diff(dim=-1), self.tails[:, 1:]], dim=-1)
        width = width.expand_as(self.logits)
        half = torch.full_like(inside, 0.5)
        below = torch.special.ndtri(torch.where(left, inside, half) / 2)
        above = -torch.special.ndtri((1 - torch.where(right, inside, half)) / 2)
        z = torch.where(left, below, torch.where(right, above, inside))
        value = lower.gather(-1, index) + width.gather(-1, index) * z
        return value.movedim(-1, 0)

    def cdf(self, y: Tensor) -> Tensor:
        """Probability at or below `y` (..., m)."""
        return 1 - self.probability_above(y)

    def probability_above(self, y: Tensor) -> Tensor:
        """`P(value > y)` for y (..., m)."""
        y = y.unsqueeze(-1)
        low, high = self.edges[:, :-1], self.edges[:, 1:]
        inner = ((high - y) / (high - low)).clamp(0.0, 1.0)
        below = (self.edges[:, :1] - y) / self.tails[:, :1]
        left = 2 * torch.special.ndtr(below.clamp_min(0.0)) - 1
        beyond = (y - self.edges[:, -1:]) / self.tails[:, 1:]
        right = 2 * torch.special.ndtr(-beyond.clamp_min(0.0))
        return (self.probs * self._parts(left, inner, right)).sum(-1)

    def expected_improvement(self, best: Tensor) -> Tensor:
        """`E[max(value - best, 0)]` for best (..., m)."""
        best = best.unsqueeze(-1)
        low, high = self.edges[:, :-1], self.edges[:, 1:]
        start = torch.maximum(torch.minimum(best, high), low)
        inner = (high - start) * (0.5 * (high + start) - best) / (high - low)
        inner = torch.where(best >= high, 0.0, inner)
        scale_left, scale_right = self.tails[:, :1], self.tails[:, 1:]
        t = ((self.edges[:, :1] - best) / scale_left).clamp_min(0.0)
        left = t * (2 * torch.special.ndtr(t) - 1) - 2 * (_density(0.0 * t) - _density(t))
        u = (best - self.edges[:, -1:]) / scale_right
        above = u.clamp_min(0.0)
        right = 2 * (_density(above) - above * torch.special.ndtr(-above)) - u.clamp_max(0.0)
        parts = self._parts(scale_left * left, inner, scale_right * right)
        return (self.probs * parts).sum(-1)

    def _parts(self, left: Tensor, inner: Tensor, right: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(left.shape[:-1], inner.shape[:-1], right.shape[:-1])
        return torch.cat([a.expand(*shape, a.shape[-1]) for a in (left, inner, right)], dim=-1)

    def select(self, outputs: list[int]) -> BarLaw:
        """The laws of some of the m values."""
        return BarLaw(self.logits[..., outputs, :], self.edges[outputs], self.tails[outputs])

    def affine(self, loc: Tensor, scale: Tensor) -> BarLaw:
        """The laws of `loc + scale * value`, loc and scale (m,), any sign but 0."""
        down = scale < 0
        size, column = scale.abs().unsqueeze(-1), down.unsqueeze(-1)
        edges = torch.where(column, -self.edges.flip(-1), self.edges) * size + loc.unsqueeze(-1)
        tails = torch.where(column, self.tails.flip(-1), self.tails) * size
        return BarLaw(torch.where(column, self.logits.flip(-1), self.logits), edges, tails)


def _density(z: Tensor) -> Tensor:
    return torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
