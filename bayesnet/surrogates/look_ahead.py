"""The correlations that a PFN implies between points, by looking one observation ahead."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bayesnet.surrogates.bar_law import BarLaw
from bayesnet.surrogates.pfn_bridge import PFNBridge
from bayesnet.surrogates.tensors import as_tensor

# Correlations are kept this far below 1.
MOST = 0.9999


def correlations(
    bridge: PFNBridge,
    x: Tensor,
    law_y: BarLaw,
    law_f: BarLaw,
    more: tuple[Tensor, Tensor] | None = None,
    *,
    noisy: bool,
) -> Tensor:
    """Correlations (b, m, q, q) between the points of each t-batch place; the lower triangle is filled.

    If an observation at point i were one predictive sd above or below its mean, the mean of f at a
    later point j would move by half of the difference d_ij, and `cov(f_i, f_j) = d_ij sd(y_i)`,
    exact where all is Gaussian (as in `bayesnet.pfn.joint`, where both orders of i and j are averaged;
    here i comes before j, which halves the work and lets points that all t-batches share be
    looked ahead from once). Differentiable in x and in the rows of `more`, but not in points that are
    rows of the table (baselines of acquisition functions), which are taken as constants.

    Args:
        x: (b, q, d) scaled points. law_y, law_f: the laws there, logits (b, q, m, k), scaled.
        more: the rows of each context beside the table, (b, r, d) and (b, r, m), or None.
        noisy: of new observations (else of the function).
    """
    b, q, _ = x.shape
    mean_y, sd_y, sd_f = law_y.mean, law_y.variance.sqrt(), law_f.variance.clamp_min(1e-12).sqrt()
    ahead = torch.stack([mean_y + sd_y, mean_y - sd_y])  # (2, b, q, m)
    early = list(range(q - 1))
    fixed = [i for i in early if more is None and _shared(bridge, x, i)]
    free = [i for i in early if i not in fixed]
    parts: dict[int, Tensor] = {}
    if fixed:
        rows = x[0, fixed].detach().repeat(2, 1).unsqueeze(1)  # (2 p, 1, d)
        values = ahead[:, 0, fixed].detach().reshape(len(rows), 1, -1)
        # Points that all places share are looked at once, the others in every place.
        other = [j for j in range(q) if j not in fixed]
        points = torch.cat([x[0, fixed].detach(), x[:, other].reshape(b * len(other), -1)])
        means = _means(
            bridge, law_f, rows, values, points.expand(len(rows), -1, -1), constant=True
        ).reshape(2, len(fixed), len(points), -1)
        change = 0.5 * (means[0] - means[1])
        once, each = change[:, : len(fixed)], change[:, len(fixed) :]
        once = once.unsqueeze(1).expand(-1, b, -1, -1)
        each = each.reshape(len(fixed), b, len(other), -1)
        back = np.argsort(fixed + other).tolist()
        for k, i in enumerate(fixed):
            parts[i] = torch.cat([once[k], each[k]], dim=1)[:, back]
    if free:
        p = len(free)
        rows = x[:, free].reshape(1, b * p, 1, -1).expand(2, -1, -1, -1).reshape(2 * b * p, 1, -1)
        values = ahead[:, :, free].reshape(2 * b * p, 1, -1)
        if more is not None:
            old = [a.repeat_interleave(p, 0).repeat(2, 1, 1) for a in more]
            rows, values = torch.cat([old[0], rows], 1), torch.cat([old[1], values], 1)
        points = x.repeat_interleave(p, 0).repeat(2, 1, 1)
        means = _means(bridge, law_f, rows, values, points).reshape(2, b, p, q, -1)
        for k, i in enumerate(free):
            parts[i] = 0.5 * (means[0, :, k] - means[1, :, k])
    moved = torch.stack([parts[i] for i in early], dim=1)  # (b, q - 1, q, m)
    covariance = moved * sd_y[:, :-1].unsqueeze(2)
    sd = sd_y if noisy else sd_f
    found = covariance / (sd[:, :-1].unsqueeze(2) * sd.unsqueeze(1))
    found = found.clamp(-MOST, MOST).permute(0, 3, 2, 1)  # (b, m, j, i)
    lower = torch.tril(torch.cat([found, found.new_zeros(*found.shape[:-1], 1)], dim=-1), -1)
    return lower + torch.eye(q, dtype=lower.dtype, device=lower.device)


def _shared(bridge: PFNBridge, x: Tensor, i: int) -> bool:
    """Whether point i is the same in every t-batch place, and nothing is to be differentiated there."""
    point = x[0, i].detach()
    if not bool((x[:, i] == point).all()):
        return False
    if not x.requires_grad:
        return True
    table = as_tensor(bridge.x, point)
    return bool(((table - point).abs() < 1e-6).all(dim=-1).any())


def _means(
    bridge: PFNBridge, law: BarLaw, rows: Tensor, values: Tensor, points: Tensor, **kwargs: bool
) -> Tensor:
    """The mean of f (b, q, m) at points, given tables with more rows."""
    _, logits = bridge.given(rows, values, points, **kwargs)
    return BarLaw(logits.double(), law.edges, law.tails).mean
