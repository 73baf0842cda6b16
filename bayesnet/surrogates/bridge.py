"""The differentiable bridge from torch to JAX.

For one draw and one point a network gives one number per output, so a single compiled program
can return the values and their input gradients together, and the backward pass of torch is a
contraction: no second JAX program, no residuals kept between the two passes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor

from bayesnet import devices
from bayesnet._types import Array, Float

# Points (t-batch times q) are padded to one of these counts, so that an optimizer whose batch
# shrinks as restarts converge meets five shapes; more points are cut into blocks of the last.
BUCKETS = (1, 16, 64, 256, 1024)

_TRACES: ContextVar[Counter[tuple[str, int, str]] | None] = ContextVar("traces", default=None)


@contextmanager
def count_traces() -> Iterator[Counter[tuple[str, int, str]]]:
    """Count how often each program of the bridge is traced inside the `with` block.

    Yields a counter of (program, bucket, dtype): a program that is already compiled is absent.
    """
    counter: Counter[tuple[str, int, str]] = Counter()
    token = _TRACES.set(counter)
    try:
        yield counter
    finally:
        _TRACES.reset(token)


def bucket(n: int) -> int:
    """The number of points that `n` points are padded to; at most the largest bucket."""
    return next((size for size in BUCKETS if n <= size), BUCKETS[-1])


def _traced(program: str, x: Array) -> None:
    """Runs while JAX traces, and only then."""
    counter = _TRACES.get()
    if counter is not None:
        counter[program, x.shape[0], str(x.dtype)] += 1


@eqx.filter_jit
def _values(prior: Any, z: Float[Array, "s p"], x: Float[Array, "n d"]) -> Float[Array, "s n m"]:
    _traced("values", x)
    return jax.lax.map(lambda zi: prior.apply(zi, x), z)


@eqx.filter_jit
def _values_and_gradients(
    prior: Any, z: Float[Array, "s p"], x: Float[Array, "n d"]
) -> tuple[Float[Array, "s n m"], Float[Array, "m s n d"]]:
    """Values, and for each output the gradient to its own point (rows do not interact)."""
    _traced("values_and_gradients", x)

    def one(zi: Array) -> tuple[Array, Array]:
        f, pullback = jax.vjp(lambda inputs: prior.apply(zi, inputs), x)
        outputs = [jnp.zeros_like(f).at[:, j].set(1.0) for j in range(f.shape[1])]
        return f, jnp.stack([pullback(cotangent)[0] for cotangent in outputs])

    values, gradients = jax.lax.map(one, z)
    return values, jnp.moveaxis(gradients, 1, 0)


class Bridge:
    """Fixed function draws of a latent prior as a differentiable torch function.

    Args:
        prior: a latent prior (`apply(z, x)`, rows of x independent of each other).
        latents: (s, p) latents of the draws.
        dtype: torch.float32 or torch.float64, in which the network runs.
        device: where JAX runs it: "auto", "cpu", "gpu", "gpu:1", or a device.

    Calling it maps scaled inputs (n, d) to scaled values (s, n, m), in the dtype and on the
    device of the inputs. Holds arrays and configuration only: compiled programs belong to
    JAX's own cache, so copies and pickles share them.
    """

    def __init__(
        self,
        prior: Any,
        latents: np.ndarray,
        *,
        dtype: torch.dtype = torch.float32,
        device: Any = "auto",
    ) -> None:
        self.prior = prior
        self.latents = np.asarray(latents)
        self.dtype = dtype
        self.device = device

    def __call__(self, x: Tensor) -> Tensor:
        """Values (s, n, m) at `x` (n, d); differentiable in `x` once."""
        if x.requires_grad and torch.is_grad_enabled():
            return _Evaluate.apply(x, self)
        return self.evaluate(x, gradients=False)[0]

    def evaluate(self, x: Tensor, *, gradients: bool) -> tuple[Tensor, Tensor | None]:
        """Values (s, n, m) and, if asked for, gradients (m, s, n, d)."""
        points = x.detach().to("cpu", self.dtype).numpy()
        program = _values_and_gradients if gradients else _values
        size = BUCKETS[-1]
        with devices.using(self.device), jax.enable_x64(self.dtype == torch.float64):
            z = jnp.asarray(self.latents, points.dtype)
            blocks = [
                self._block(program, z, points[start : start + size])
                for start in range(0, max(len(points), 1), size)
            ]
        values = torch.cat([v for v, _ in blocks], dim=-2) if len(blocks) > 1 else blocks[0][0]
        if not gradients:
            return values.to(x), None
        slopes = torch.cat([g for _, g in blocks], dim=-2) if len(blocks) > 1 else blocks[0][1]
        return values.to(x), slopes.to(x)

    def _block(self, program: Any, z: Any, points: np.ndarray) -> tuple[Tensor, Any]:
        n = len(points)
        padding = bucket(n) - n
        if padding:
            # Copies of a real row: a pad is never where the network was not meant to be.
            points = np.concatenate([points, np.repeat(points[:1], padding, axis=0)])
        out = program(self.prior, z, jnp.asarray(points))
        if isinstance(out, tuple):
            return _to_torch(out[0])[:, :n], _to_torch(out[1])[:, :, :n]
        return _to_torch(out)[:, :n], None


class _Evaluate(torch.autograd.Function):
    """Forward: one program for values and gradients. Backward: a contraction with the latter."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bridge: Bridge) -> Tensor:
        values, gradients = bridge.evaluate(x, gradients=True)
        ctx.save_for_backward(gradients)
        return values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        (gradients,) = ctx.saved_tensors
        return torch.einsum("snm,msnd->nd", cotangent, gradients), None


def _to_torch(array: Any) -> Tensor:
    """A JAX array as a CPU tensor; without a copy where it lives on the CPU already."""
    return torch.from_dlpack(jax.device_get(array) if array.device.platform != "cpu" else array)
