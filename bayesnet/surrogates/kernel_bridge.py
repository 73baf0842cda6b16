"""A kernel of bayesnet as a differentiable torch function, in float64."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor

from bayesnet._errors import UnsupportedError
from bayesnet._types import Array, PyTree
from bayesnet.data import bucket_size
from bayesnet.priors.kernel_model import KernelModel
from bayesnet.priors.means import ConstantMean, LinearMean, SumMean, mean_object
from bayesnet.surrogates.tensors import as_tensor

# Shapes to which batches and points are padded, so that few programs are compiled.
SIZES = (1, 4, 16, 64, 256, 1024)


class KernelBridge:
    """The kernel and mean of a prior with fixed hyper-parameters, between torch tensors.

    Holds arrays and configuration only. Raises `UnsupportedError` for a kernel that is not JAX code.
    """

    def __init__(self, prior: Any) -> None:
        model = KernelModel(prior)
        if not model.traceable or model.free.size:
            raise UnsupportedError(
                f"A Surrogate differentiates the kernel: {type(prior).__name__} must be a "
                "bn.GaussianProcess with a kernel by name or of tinygp, or bn.kernels.NNGP."
            )
        self.covariance = model.covariance
        self.hyper = model._hyper(np.zeros(0))[0]
        self.out_dim = model.out_dim
        self._mean = mean_object(getattr(prior, "mean", 0.0))

    def __call__(self, x1: Tensor, x2: Tensor) -> Tensor:
        """The covariance (batch x a x c) at x1 (batch x a x d), x2 (batch x c x d) or (c x d)."""
        if x2.dim() == 2:
            flat = x1.reshape(-1, x1.shape[-1]).unsqueeze(0)
            out = _Kernel.apply(flat, x2.unsqueeze(0), self)
            return out.reshape(*x1.shape[:-1], x2.shape[0])
        batch = torch.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
        a, b = (
            x.expand(*batch, *x.shape[-2:]).reshape(batch.numel(), *x.shape[-2:]) for x in (x1, x2)
        )
        return _Kernel.apply(a, b, self).reshape(*batch, x1.shape[-2], x2.shape[-2])

    def mean(self, x: Tensor) -> Tensor:
        """The mean (batch x n x m) at x (batch x n x d).

        Raises `UnsupportedError` for a mean that is a function of the user's own.
        """
        return _mean(self._mean, x).unsqueeze(-1).expand(*x.shape[:-1], self.out_dim)


def _mean(mean: Any, x: Tensor) -> Tensor:
    if isinstance(mean, ConstantMean):
        return x.new_full(x.shape[:-1], mean.value)
    if isinstance(mean, LinearMean):
        slope = as_tensor(np.broadcast_to(mean.slope, (x.shape[-1],)), x)
        return x @ slope + float(mean.intercept)
    if isinstance(mean, SumMean):
        return _mean(mean.left, x) + _mean(mean.right, x)
    raise UnsupportedError(
        "A Surrogate differentiates the mean of its process: use a number or bn.LinearMean, not a "
        "function."
    )


class _Kernel(torch.autograd.Function):
    """Matrices of a batch: x1 (b, a, d), x2 (b, c, d) -> (b, a, c)."""

    @staticmethod
    def forward(ctx: Any, x1: Tensor, x2: Tensor, bridge: KernelBridge) -> Tensor:
        ctx.save_for_backward(x1, x2)
        ctx.bridge = bridge
        b, a, c = x1.shape[0], x1.shape[1], x2.shape[1]
        if 0 in (b, a, c):
            return x1.new_zeros(b, a, c)
        with jax.enable_x64(True):
            out = _matrices(bridge.covariance, bridge.hyper, *_padded(x1, x2))
            return _tensor(out)[:b, :a, :c].to(x1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by: Tensor) -> tuple[Tensor, Tensor, None]:
        x1, x2 = ctx.saved_tensors
        b, a, c = by.shape
        if 0 in by.shape:
            return torch.zeros_like(x1), torch.zeros_like(x2), None
        p1, p2 = _padded(x1, x2)
        wide = np.zeros((p1.shape[0], p1.shape[1], p2.shape[1]))
        wide[:b, :a, :c] = by.detach().cpu().numpy()
        with jax.enable_x64(True):
            g1, g2 = _gradients(ctx.bridge.covariance, ctx.bridge.hyper, p1, p2, wide)
            return _tensor(g1)[:b, :a].to(x1), _tensor(g2)[:b, :c].to(x2), None


def _padded(x1: Tensor, x2: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Both in float64, batches and rows padded with copies of real ones."""
    arrays = [np.asarray(x.detach().cpu().numpy(), np.float64) for x in (x1, x2)]
    batch = _size(arrays[0].shape[0])
    return tuple(  # type: ignore[return-value]
        np.pad(
            a, ((0, batch - a.shape[0]), (0, _size(a.shape[1]) - a.shape[1]), (0, 0)), mode="edge"
        )
        for a in arrays
    )


def _size(n: int) -> int:
    return next((size for size in SIZES if n <= size), None) or bucket_size(n)


def _tensor(array: Array) -> Tensor:
    return as_tensor(np.array(array, np.float64))


@partial(jax.jit, static_argnums=0)
def _matrices(covariance: Any, hyper: PyTree, x1: Array, x2: Array) -> Array:
    return jax.vmap(lambda a, b: covariance.matrix(hyper, a, b))(x1, x2)


@partial(jax.jit, static_argnums=0)
def _gradients(
    covariance: Any, hyper: PyTree, x1: Array, x2: Array, by: Array
) -> tuple[Array, Array]:
    def one(a: Array, b: Array, g: Array) -> Any:
        _, back = jax.vjp(lambda p, q: covariance.matrix(hyper, p, q), a, b)
        return back(g)

    return jax.vmap(one)(*(jnp.asarray(a) for a in (x1, x2, by)))
