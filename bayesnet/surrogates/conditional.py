"""A conditioned process in torch: joint laws at candidates, and exact conditioning on more points.

The nodes of a scale mixture and, where they were sampled, the hyper-parameters are a weighted
mixture of j Gaussian or Student-t processes. Everything is float64, in scaled coordinates, and
differentiable in candidates and in the points and values conditioned on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from linear_operator.utils.cholesky import psd_safe_cholesky
from torch import Tensor

from bayesnet.posterior.process import ProcessPosterior
from bayesnet.posterior.process_table import base_of, table_noise
from bayesnet.surrogates.kernel_bridge import KernelBridge
from bayesnet.surrogates.tensors import as_tensor

LOG_2PI = math.log(2.0 * math.pi)


@dataclass(frozen=True, eq=False)
class Nodes:
    """The joint law at q candidates for each node.

    `mean` (j, batch, q, m), `cov` (j, batch, m, q, q), `log_weight` (j, batch, m); `scale`
    (j, batch, m) multiplies noise that is inside; `df` or None. `sizes`: how many nodes in a row
    belong to each member (hyper-parameters, which all outputs share); one member if empty.
    """

    mean: Tensor
    cov: Tensor
    log_weight: Tensor
    scale: Tensor
    df: float | None
    sizes: tuple[int, ...] = ()

    def to(self, like: Tensor) -> Nodes:
        """In the dtype and on the device of a tensor."""
        return Nodes(
            self.mean.to(like),
            self.cov.to(like),
            self.log_weight.to(like),
            self.scale.to(like),
            self.df,
            self.sizes,
        )


@dataclass(frozen=True, eq=False)
class Conditional:
    """One member (fixed hyper-parameters) given a table.

    `x`: blocks of rows conditioned on, the first (n, d), later ones (batch, n', d); `residual`
    (batch, n, m); `root` (k, batch, m or 1, n, n): Cholesky factors, one for all nodes (k = 1) or one each;
    `solved` (k, batch, n, m); `u`, `log_weight` (j, batch, g) of log scales, g = 1 or m.
    `law`: None for a process, else the law of the scale; `outside`: where the noise is.
    """

    bridge: KernelBridge
    x: tuple[Tensor, ...]
    residual: Tensor
    root: Tensor
    solved: Tensor
    u: Tensor
    log_weight: Tensor
    law: Any
    outside: bool
    df: float | None
    rate: Tensor | None

    @staticmethod
    def members(posterior: ProcessPosterior) -> list[Conditional]:
        """One for each prior of an exact posterior."""
        out = []
        for prior, std, solution in zip(
            posterior.priors, posterior.noise_std, posterior.solutions, strict=True
        ):
            bridge = KernelBridge(base_of(prior))
            x = as_tensor(posterior.x)
            noise, y = table_noise(std, posterior.y, posterior.y_var, posterior.weight)
            residual = as_tensor(y) - bridge.mean(x)
            d = as_tensor(noise)
            columns = d.mT if not bool((d == d[:, :1]).all()) else d[:, :1].mT  # (m or 1, n)
            matrix = bridge(x, x)
            law, outside = solution.scale.law, solution.scale.noise == "outside"
            outside = outside and law is not None
            u = as_tensor(solution.u)
            gain = u.exp()[:, 0] if outside and u.shape[1] == 1 else None
            if outside and gain is None:
                # One scale an output: one factor an output and node.
                total = u.exp().mT.unsqueeze(-1).unsqueeze(-1) * matrix  # (m, j, n, n)
                total = total.transpose(0, 1) + torch.diag_embed(columns)
            elif gain is not None:
                total = gain.reshape(-1, 1, 1, 1) * matrix + torch.diag_embed(columns)
            else:
                total = (matrix + torch.diag_embed(columns)).unsqueeze(0)
            root = psd_safe_cholesky(total)
            solved = _solve(root, residual)
            df = None if solution.df is None else float(solution.df[0])
            rate = None
            if df is not None:
                rate = as_tensor(solution.u[0]).exp() * df / 2.0
            out.append(
                Conditional(
                    bridge,
                    (x,),
                    residual,
                    root,
                    solved,
                    u,
                    as_tensor(solution.log_weight),
                    law,
                    outside,
                    df,
                    rate,
                )
            )
        return out

    @property
    def outputs(self) -> int:
        """m."""
        return self.residual.shape[-1]

    def _cross(self, x: Tensor) -> Tensor:
        """(batch, q, n) with every row conditioned on."""
        parts = [self.bridge(x, rows) for rows in self.x]
        batch = torch.broadcast_shapes(*(p.shape[:-2] for p in parts))
        return torch.cat([p.expand(*batch, *p.shape[-2:]) for p in parts], dim=-1)

    def _unit(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Residual mean (k, batch, q, m), covariance (k, batch, m or 1, q, q), and whitened cross
        covariances (k, batch, m or 1, n, q); of s = 1 where all nodes share a factor."""
        cross, full = self._cross(x), self.bridge(x, x)
        dims = max(cross.dim() - 2, self.root.dim() - 4, self.solved.dim() - 3)
        cross = cross.reshape(*(1,) * (dims + 3 - cross.dim()), *cross.shape)
        root, solved = _align(self.root, 3, dims), _align(self.solved, 2, dims)
        mean, columns = cross @ solved, cross.mT.unsqueeze(-3)
        full = full.unsqueeze(-3)
        if self.outside:
            s = self.u.exp().reshape(self.u.shape[0], *(1,) * dims, -1)
            mean = s.unsqueeze(-2) * mean
            s = s.unsqueeze(-1).unsqueeze(-1)
            columns, full = s * columns, s * full
        whitened = torch.linalg.solve_triangular(root, columns, upper=False)
        return mean, full - whitened.mT @ whitened, whitened

    def at(self, x: Tensor) -> Nodes:
        """The law at candidates x (batch, q, d)."""
        mean, cov, _ = self._unit(x)
        batch, m = mean.shape[1:-2], self.outputs
        u = _expand(self.u, batch, m)
        log_weight = _expand(self.log_weight, batch, m)
        j = u.shape[0]
        scale = u.exp()
        cov = cov.expand(cov.shape[0], *batch, m, *cov.shape[-2:])
        if not self.outside:
            cov = scale.unsqueeze(-1).unsqueeze(-1) * cov
            mean = mean.expand(j, *mean.shape[1:])
        offset = self.bridge.mean(x)
        return Nodes(mean + offset, cov, log_weight, scale, self.df)

    def condition(self, x: Tensor, y: Tensor, noise: Tensor) -> tuple[Conditional, Tensor | None]:
        """Given more rows x (batch_x, n', d), values y (batch_y, n', m) and noise variances that
        broadcast to y. Factors are extended, not made anew; of s, the same nodes are reweighted.

        Returns the new member, and the log density (batch, m) that the old one gave to the rows
        (noise included; of a process only, else None)."""
        mean, cov, whitened = self._unit(x)
        residual = y - self.bridge.mean(x)
        columns = noise.expand(*noise.shape[:-2], x.shape[-2], self.outputs)
        columns = columns if not bool((columns == columns[..., :1]).all()) else columns[..., :1]
        total = cov + torch.diag_embed(columns.mT)
        corner = psd_safe_cholesky(total)
        n, more = whitened.shape[-2], corner.shape[-1]
        base = _align(self.root, 3, corner.dim() - 4)
        batch = torch.broadcast_shapes(base.shape[:-2], corner.shape[:-2], whitened.shape[:-2])
        old, lower, corner = (a.expand(*batch, *a.shape[-2:]) for a in (base, whitened.mT, corner))
        top = torch.cat([old, old.new_zeros(*batch, n, more)], dim=-1)
        root = torch.cat([top, torch.cat([lower, corner], dim=-1)], dim=-2)
        dims = max(mean.dim() - 3, residual.dim() - 2)
        left = residual - _align(mean, 2, dims)  # (k, batch, n', m)
        shape = torch.broadcast_shapes(self.residual.shape[:-2], residual.shape[:-2])
        joined = torch.cat(
            [r.expand(*shape, *r.shape[-2:]) for r in (self.residual, residual)], dim=-2
        )
        new = replace(self, x=(*self.x, x), residual=joined, root=root, solved=_solve(root, joined))
        corner = _align(corner, 3, dims)
        white = torch.linalg.solve_triangular(corner, left.mT.unsqueeze(-1), upper=False).squeeze(
            -1
        )  # (k, batch, m, n')
        squares = white.square().sum(-1)
        log_det = 2.0 * corner.diagonal(dim1=-1, dim2=-2).log().sum(-1).expand_as(squares)
        if self.law is None:
            return new, -0.5 * (squares + log_det + more * LOG_2PI)[0]
        return new._with_scale(squares, log_det, more), None

    def _with_scale(self, squares: Tensor, log_det: Tensor, more: int) -> Conditional:
        """The law of the scale after `more` rows: squares and log_det (k, batch, m), of s = 1
        where all nodes share a factor."""
        g = self.u.shape[-1]
        count = more * (self.outputs if g == 1 else 1)

        def grouped(a: Tensor) -> Tensor:
            return a.sum(-1, keepdim=True) if g == 1 else a

        if self.df is not None and self.rate is not None:
            rate = self.rate + 0.5 * grouped(squares)[0]
            df = self.df + count
            u = (2.0 * rate / df).log().unsqueeze(0)
            return replace(self, df=df, rate=rate, u=u, log_weight=torch.zeros_like(u))
        dims = squares.dim()
        u, weight = (_lift(a, dims) for a in (self.u, self.log_weight))
        squares, log_det = grouped(squares), grouped(log_det)
        if self.outside:
            terms = -0.5 * (squares + log_det + count * LOG_2PI)
        else:
            terms = -0.5 * (squares * (-u).exp() + count * (u + LOG_2PI) + log_det)
        return replace(self, u=u, log_weight=torch.log_softmax(weight + terms, dim=0))


def _solve(root: Tensor, residual: Tensor) -> Tensor:
    """`C^-1 residual`: (k, batch, n, m) from roots (k, batch, m or 1, n, n)."""
    dims = max(root.dim() - 4, residual.dim() - 2)
    target = residual.mT.unsqueeze(-1)
    target = target.reshape(*(1,) * (dims + 4 - target.dim()), *target.shape)
    return torch.cholesky_solve(target, _align(root, 3, dims)).squeeze(-1).mT


def _align(a: Tensor, tail: int, dims: int) -> Tensor:
    """(k, batch.., *tail) with `dims` batch axes: ones are put before those it has."""
    more = dims - (a.dim() - 1 - tail)
    return a.reshape(a.shape[0], *(1,) * more, *a.shape[1:])


def _lift(a: Tensor, dims: int) -> Tensor:
    """(j, batch.., g) with as many axes as `dims`."""
    return a.reshape(a.shape[0], *(1,) * (dims - a.dim()), *a.shape[1:])


def _expand(a: Tensor, batch: torch.Size, m: int) -> Tensor:
    """(j, batch.., g) as (j, batch, m)."""
    return _lift(a, len(batch) + 2).expand(a.shape[0], *batch, m)
