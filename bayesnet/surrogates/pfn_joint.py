"""Joint laws of a PFN that is a quadrature: covariances of its mixture of processes, for torch.

Where the network conditions Gaussian processes, nothing has to be looked ahead for (`look_ahead`):
the covariance between candidates is at hand, and differentiable in them and in rows that were added.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor

from bayesnet._types import Array
from bayesnet.surrogates.bridge import _traced
from bayesnet.surrogates.look_ahead import MOST
from bayesnet.surrogates.pfn_bridge import (
    PFNBridge,
    fill,
    wide_enough,
)
from bayesnet.surrogates.pfn_programs import TOGETHER, each_gradient, each_table


def process_correlations(
    bridge: PFNBridge, x: Tensor, more: tuple[Tensor, Tensor] | None = None, *, noisy: bool
) -> Tensor:
    """Correlations (b, m, q, q) between the points of each t-batch place; the lower triangle is filled.

    Those of the mixture of Gaussian processes that the network conditions on each table, of the
    function or (`noisy`) of new observations.

    Args:
        x: (b, q, d) scaled points. more: the rows of each context beside the table, (b, r, d) and
            (b, r, m), or None.
    """
    b, q, d = x.shape
    if more is None:
        m = bridge.y.shape[1]
        more = x.new_zeros(b, 0, d), x.new_zeros(b, 0, m)
    covariance, noise = _Covariance.apply(*more, x, bridge)
    variance = torch.diagonal(covariance, dim1=-2, dim2=-1).clamp_min(1e-12)
    if noisy:
        variance = variance + noise.unsqueeze(-1)
    sd = variance.sqrt()
    found = covariance / (sd.unsqueeze(-1) * sd.unsqueeze(-2))
    lower = torch.tril(found.clamp(-MOST, MOST), -1)
    return lower + torch.eye(q, dtype=lower.dtype, device=lower.device)


class _Covariance(torch.autograd.Function):
    """Covariances of f (b, m, q, q) and noise variances (b, m), given the table and more rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, targets: Tensor, x: Tensor, bridge: PFNBridge) -> Any:
        ctx.save_for_backward(rows, targets, x)
        ctx.bridge, q = bridge, x.shape[1]
        if rows.shape[1]:
            covariance, noise = bridge.each_table(rows, targets, x, _given)
        else:
            covariance, noise = _own_table(bridge, x, _at)
        return covariance[:, :, :q, :q], noise

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by: Tensor, by_noise: Tensor) -> Any:
        rows, targets, x = ctx.saved_tensors
        bridge, q = ctx.bridge, x.shape[1]
        square = bridge._numpy(by)
        for axis in (2, 3):
            square = fill(square, wide_enough(q), axis=axis, zero=True)
        weights = [square, bridge._numpy(by_noise)]
        if rows.shape[1]:
            return (*bridge.gradients(rows, targets, x, _given_back, weights), None)
        (to_x,) = _own_table(bridge, x, _at_back, weights)
        return torch.zeros_like(rows), torch.zeros_like(targets), to_x[:, :q, : x.shape[2]], None


def _own_table(
    bridge: PFNBridge, x: Tensor, program: Any, weights: Sequence[np.ndarray] = ()
) -> tuple[Tensor, ...]:
    """What `program` makes of the table, which is conditioned already, at the candidates of each place."""

    def call(at: slice, block: Array, *w: Array) -> Any:
        network, _, cache, mask, used = bridge._arrays()
        return program(network, cache, mask, used, block, *w)

    return bridge.each_place(x, call, weights)


def _of_table(network: Any, cache: Any, mask: Any, used: Any, x: Any) -> Any:
    """Covariances (m, q, q) and noises (m,) of every output."""
    return jax.vmap(lambda c: network.covariance(c, mask, x, used))(cache)


def _of_new_table(network: Any, mask: Any, used: Any, x: Any, y: Any, new: Any) -> Any:
    def one(column: Any) -> Any:
        return network.covariance(network.encode(x, column, mask, used), mask, new, used)

    return jax.vmap(one)(y)


@jax.jit
def _at(network: Any, cache: Any, mask: Any, used: Any, x: Array) -> Any:
    _traced("joint", x)
    of = partial(_of_table, network, cache, mask, used)
    return jax.lax.map(of, x, batch_size=TOGETHER)


@jax.jit
def _at_back(
    network: Any, cache: Any, mask: Any, used: Any, x: Array, by: Array, by_noise: Array
) -> Any:
    _traced("joint_back", x)

    def one(item: Any) -> Any:
        x, *by = item
        return jax.vjp(partial(_of_table, network, cache, mask, used), x)[1](tuple(by))

    return jax.lax.map(one, (x, by, by_noise), batch_size=TOGETHER)


@jax.jit
def _given(network: Any, bars: Any, x: Array, y: Array, mask: Any, used: Any, new: Array) -> Any:
    _traced("joint_given", new)
    return each_table(partial(_of_new_table, network, mask, used), x, y, new)


@jax.jit
def _given_back(
    network: Any,
    bars: Any,
    x: Array,
    y: Array,
    mask: Any,
    used: Any,
    new: Array,
    by: Array,
    by_noise: Array,
) -> Any:
    _traced("joint_given_back", new)
    of = partial(_of_new_table, network, mask, used)
    return each_gradient(of, x, y, new, by, by_noise)
