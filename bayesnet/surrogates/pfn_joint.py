"""Joint laws of a PFN that is a quadrature: covariances of its mixture of processes, for torch.

Where the network conditions Gaussian processes, nothing has to be looked ahead for (`look_ahead`):
the covariance between candidates is at hand, and differentiable in them and in rows that were added.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor

from bayesnet._types import Array
from bayesnet.surrogates.bridge import _traced
from bayesnet.surrogates.look_ahead import MOST
from bayesnet.surrogates.pfn_bridge import (
    TOGETHER,
    PFNBridge,
    fill,
    joined,
    table_blocks,
    wide_enough,
)


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
    return lower + torch.eye(q).to(lower)


class _Covariance(torch.autograd.Function):
    """Covariances of f (b, m, q, q) and noise variances (b, m), given the table and more rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, targets: Tensor, x: Tensor, bridge: PFNBridge) -> Any:
        ctx.save_for_backward(rows, targets, x)
        ctx.bridge = bridge
        return _run(bridge, rows, targets, x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *by: Tensor) -> Any:
        rows, targets, x = ctx.saved_tensors
        return (*_run(ctx.bridge, rows, targets, x, by), None)


def _run(
    bridge: PFNBridge,
    rows: Tensor,
    targets: Tensor,
    x: Tensor,
    by: tuple[Tensor, ...] | None = None,
) -> Any:
    """What `_Covariance` gives, or with cotangents `by` the gradients to rows, targets and x."""
    q, d, n, r = x.shape[1], x.shape[2], bridge.num_rows, rows.shape[1]
    wide = wide_enough(q)
    queries = fill(bridge._columns(bridge._numpy(x)), wide, axis=1)
    weights = [] if by is None else [bridge._numpy(a) for a in by]
    if by is not None:
        square = fill(fill(weights[0], wide, axis=2, zero=True), wide, axis=3, zero=True)
        weights = [square, weights[1]]
    if r:
        with bridge._scope():
            tables, values, mask, used = bridge._tables(bridge._numpy(rows), bridge._numpy(targets))

    def run(at: slice, block: Array) -> Any:
        network, _, cache, own_mask, own_used = bridge._arrays()
        size, count = block.shape[0], at.stop - at.start
        w = [jnp.asarray(fill(a[at], size, zero=True)) for a in weights]
        if not r:
            known: Any = (network, cache, own_mask, own_used, block)
            if not w:
                covariance, noise = (np.asarray(a)[:count] for a in _at(*known))
                return [covariance[:, :, :q, :q], noise]
            to_x = np.asarray(_at_back(*known, *w))[:count, :q, :d]
            return [np.zeros((count, 0, d)), np.zeros((count, 0, targets.shape[2])), to_x]
        context = jnp.asarray(fill(tables[at], size)), jnp.asarray(fill(values[at], size))
        fixed = network, *context, mask, used, block
        if not w:
            covariance, noise = (np.asarray(a)[:count] for a in _given(*fixed))
            return [covariance[:, :, :q, :q], noise]
        to_x, to_rows, to_targets = (np.asarray(a)[:count] for a in _given_back(*fixed, *w))
        new = np.swapaxes(to_targets[:, :, n : n + r], 1, 2)
        return [to_rows[:, n : n + r, :d], new, to_x[:, :q, :d]]

    return joined(bridge._each_block(queries, table_blocks(len(queries)), run), x)


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
        return jax.vjp(partial(_of_table, network, cache, mask, used), x)[1](tuple(by))[0]

    return jax.lax.map(one, (x, by, by_noise), batch_size=TOGETHER)


@jax.jit
def _given(network: Any, x: Array, y: Array, mask: Any, used: Any, new: Array) -> Any:
    _traced("joint_given", new)
    of = partial(_of_new_table, network, mask, used)
    return jax.lax.map(lambda a: of(*a), (x, y, new), batch_size=TOGETHER)


@jax.jit
def _given_back(
    network: Any,
    x: Array,
    y: Array,
    mask: Any,
    used: Any,
    new: Array,
    by: Array,
    by_noise: Array,
) -> Any:
    _traced("joint_given_back", new)

    def one(item: Any) -> Any:
        x, y, new, *by = item
        of = partial(_of_new_table, network, mask, used)
        return jax.vjp(lambda c, a, b: of(a, b, c), new, x, y)[1](tuple(by))

    return jax.lax.map(one, (x, y, new, by, by_noise), batch_size=TOGETHER)
