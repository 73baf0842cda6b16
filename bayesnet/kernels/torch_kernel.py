"""Infinite-width kernels for gpytorch: values and gradients by JAX, in float64.

Imported by `kernel.as_gpytorch()` only, so that kernels need no torch.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import MissingExtraError
from bayesnet.data import bucket_size, pad_rows
from bayesnet.kernels.propagation import check_rows, diagonal_of

try:
    import torch
    from gpytorch.constraints import Positive
    from gpytorch.kernels import Kernel
    from torch import Tensor
    from torch.autograd.function import once_differentiable
except ImportError as error:
    raise MissingExtraError("as_gpytorch() needs gpytorch: pip install bayesnet[bo].") from error


class InfiniteNetworkKernel(Kernel):
    """An `NNGP` or `NTK` as gpytorch kernel.

    Parameters: `raw_weight_variance` (1,) or (layers,) under a `Positive` constraint, and
    `raw_bias_variance` likewise (a fixed buffer where a bias variance is 0). `weight_variance` and
    `bias_variance` are their values; `to_bayesnet()` gives the kernel with the present ones.

    Inputs (..., n, d) and (..., k, d); gradients by both and by the variances, once differentiable.
    """

    has_lengthscale = False

    def __init__(self, kernel: Any) -> None:
        super().__init__()
        self.source = kernel
        for name in ("weight", "bias"):
            value = torch.from_numpy(np.array(kernel.hyper[name], np.float64, ndmin=1))
            if bool((value > 0).all()):
                raw, constraint = f"raw_{name}_variance", Positive()
                self.register_parameter(
                    raw, torch.nn.Parameter(constraint.inverse_transform(value))
                )
                self.register_constraint(raw, constraint)
            else:
                self.register_buffer(f"fixed_{name}_variance", value)

    def _variance(self, name: str) -> Tensor:
        raw = f"raw_{name}_variance"
        if hasattr(self, raw):
            return getattr(self, f"{raw}_constraint").transform(getattr(self, raw))
        return getattr(self, f"fixed_{name}_variance")

    @property
    def weight_variance(self) -> Tensor:
        """`weight_std^2`, (1,) or (layers,)."""
        return self._variance("weight")

    @property
    def bias_variance(self) -> Tensor:
        """`bias_std^2`, (1,) or (layers,)."""
        return self._variance("bias")

    def to_bayesnet(self) -> Any:
        """The `NNGP` or `NTK` with the variances as they are now."""

        def numbers(value: Tensor, like: Any) -> Any:
            array = value.detach().cpu().double().numpy()
            return float(array[0]) if np.ndim(like) == 0 else array

        hyper = self.source.hyper
        return self.source.with_variances(
            weight=numbers(self.weight_variance, hyper["weight"]),
            bias=numbers(self.bias_variance, hyper["bias"]),
        )

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **params: Any) -> Tensor:
        """The kernel (..., n, k), or its diagonal (..., n)."""
        for x, name in ((x1, "x1"), (x2, "x2")):
            check_rows(self.source.layers, tuple(x.shape[-2:]), name)
        batch = torch.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
        a = x1.expand(*batch, *x1.shape[-2:]).reshape(-1, *x1.shape[-2:])
        b = x2.expand(*batch, *x2.shape[-2:]).reshape(-1, *x2.shape[-2:])
        # gpytorch asks for a diagonal between the two sets only where these are the same.
        diag_only = diag and x1.shape == x2.shape and torch.equal(x1, x2)
        weight, bias = self.weight_variance, self.bias_variance
        shapes = tuple(np.shape(self.source.hyper[name]) for name in ("weight", "bias"))
        out = torch.stack(
            [
                _ByJax.apply(self.source.bare(), diag_only, shapes, weight, bias, p, q)
                for p, q in zip(a, b, strict=True)
            ]
        )
        if diag and not diag_only:
            out = out.diagonal(dim1=-2, dim2=-1)
        return out.reshape(*batch, *out.shape[1:])


class _ByJax(torch.autograd.Function):
    """One matrix (n, k), or diagonal (n,), and the products of its derivative."""

    @staticmethod
    def forward(ctx: Any, bare: Any, diag: bool, shapes: Any, *args: Tensor) -> Tensor:
        ctx.static, ctx.shapes = (bare, diag), shapes
        ctx.save_for_backward(*args)
        rows, columns = args[2].shape[0], args[3].shape[0]
        with jax.enable_x64(True):
            values = np.asarray(_value(bare, diag, *_arrays(args, shapes)))
        values = values[:rows] if diag else values[:rows, :columns]
        return torch.from_numpy(values.copy()).to(args[2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Any, ...]:
        args = ctx.saved_tensors
        diag = ctx.static[1]
        rows, columns = args[2].shape[0], args[3].shape[0]
        sizes = (bucket_size(rows),) if diag else (bucket_size(rows), bucket_size(columns))
        wide = np.zeros(sizes)
        given = cotangent.detach().cpu().double().numpy()
        wide[tuple(slice(0, s) for s in given.shape)] = given
        with jax.enable_x64(True):
            slopes = _pullback(*ctx.static, jnp.asarray(wide), *_arrays(args, ctx.shapes))
            slopes = [np.asarray(s) for s in slopes]
        slopes[2], slopes[3] = slopes[2][:rows], slopes[3][:columns]
        back = [
            torch.from_numpy(s.copy()).reshape(a.shape).to(a)
            for s, a in zip(slopes, args, strict=True)
        ]
        return (None, None, None, *back)


def _arrays(args: Any, shapes: Any) -> list[Any]:
    """Variances and padded inputs as float64 arrays of JAX; inside `jax.enable_x64(True)`."""
    plain = [a.detach().cpu().double().numpy() for a in args]
    variances = [v.reshape(shape) for v, shape in zip(plain[:2], shapes, strict=True)]
    rows = [pad_rows(x, bucket_size(len(x))) for x in plain[2:]]
    return [jnp.asarray(a) for a in (*variances, *rows)]


def _compute(bare: Any, diag: bool, weight: Any, bias: Any, x1: Any, x2: Any) -> Any:
    hyper = {"weight": weight, "bias": bias}
    if diag:
        return diagonal_of(bare.layers, hyper, x1, ntk=bare._which == "ntk")
    return bare.matrix(hyper, x1, x2)


_value = partial(jax.jit, static_argnums=(0, 1))(_compute)


@partial(jax.jit, static_argnums=(0, 1))
def _pullback(bare: Any, diag: bool, cotangent: Any, *args: Any) -> Any:
    return jax.vjp(partial(_compute, bare, diag), *args)[1](cotangent)


def as_gpytorch(kernel: Any) -> InfiniteNetworkKernel:
    """`kernel` (an `NNGP` or `NTK`) as gpytorch kernel whose variances can be trained."""
    return InfiniteNetworkKernel(kernel)
