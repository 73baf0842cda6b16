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
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor

from bayesnet import devices
from bayesnet._types import Array, Float

# Points (t-batch times q) are evaluated in blocks of these sizes, so that an optimizer whose
# batch shrinks as restarts converge meets five shapes of each program and no more.
BUCKETS = (1, 16, 64, 256, 1024)
# What one more block costs, in points: padding to the next bucket may be cheaper than two blocks.
BLOCK_COST = 24
# Draws times points times latents from which threads pay for their start (about 5 ms of work),
# and the fewest draws of a share.
WORK_FOR_THREADS, SMALLEST_SHARE = 2e7, 16

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


def block_sizes(n: int) -> list[int]:
    """Buckets whose sum holds `n` points at the least cost: 80 is 64 + 16, and 40 is 64."""
    above = next((size for size in BUCKETS if n <= size), None)
    if above == n:
        return [n]
    below = max((size for size in BUCKETS if size < n), default=None)
    if below is None:
        return [BUCKETS[0]]
    count = n // below
    split = [below] * count + (block_sizes(n - count * below) if n > count * below else [])
    if above is None or sum(split) + BLOCK_COST * (len(split) - 1) < above:
        return split
    return [above]


def _traced(program: str, x: Array) -> None:
    """Runs while JAX traces, and only then."""
    counter = _TRACES.get()
    if counter is not None:
        counter[program, x.shape[0], str(x.dtype)] += 1


# Networks are small and draws are many: XLA's own threads hand over too often to help (17 ms on
# one thread, 25 ms on two, for 128 draws of 6-128-128-128-1 at 80 points), so each program runs
# on one thread and the bridge runs shares of the draws beside each other.
_jit = partial(jax.jit, compiler_options={"xla_cpu_multi_thread_eigen": False})


@_jit
def _values(prior: Any, z: Float[Array, "s p"], x: Float[Array, "n d"]) -> Float[Array, "s n m"]:
    _traced("values", x)
    return jax.lax.map(lambda zi: prior.apply(zi, x), z)


@_jit
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
        self._forget()

    def _forget(self) -> None:
        """Drop what is tied to this process: shares of the latents on the device."""
        self._shares: dict[int, list[Any]] = {}
        self._compiled: set[tuple[bool, int]] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shares": {}, "_compiled": set()}

    def __call__(self, x: Tensor) -> Tensor:
        """Values (s, n, m) at `x` (n, d); differentiable in `x` once."""
        if x.requires_grad and torch.is_grad_enabled():
            return _Evaluate.apply(x, self)
        return self.evaluate(x, gradients=False)[0]

    def evaluate(self, x: Tensor, *, gradients: bool) -> tuple[Tensor, Tensor | None]:
        """Values (s, n, m) and, if asked for, gradients (m, s, n, d)."""
        points = x.detach().to("cpu", self.dtype).numpy()
        pieces, start = [], 0
        with devices.using(self.device), jax.enable_x64(self.dtype == torch.float64):
            for size in block_sizes(max(len(points), 1)):
                rows = points[start : start + size]
                pieces.append(self._block(rows, size, gradients))
                start += size
        values = _join([v for v, _ in pieces]).to(x)
        return values, _join([g for _, g in pieces]).to(x) if gradients else None

    def _block(self, points: np.ndarray, size: int, gradients: bool) -> tuple[Tensor, Any]:
        """One bucket of points through every share of the draws."""
        n = len(points)
        if n < size:
            # Copies of a real row: a pad is never where the network was not meant to be.
            fill = points[:1] if n else np.zeros((1, points.shape[1]), points.dtype)
            points = np.concatenate([points, np.repeat(fill, size - n, axis=0)])
        x = jnp.asarray(points)
        program = _values_and_gradients if gradients else _values

        def run(z: Any) -> Any:
            return jax.block_until_ready(program(self.prior, z, x))

        shares = self._latent_shares(size)
        if (gradients, size) in self._compiled:
            results = devices.run_side_by_side(run, shares)
        else:
            # The first share alone: threads that start together would each trace the program.
            results = [run(shares[0]), *devices.run_side_by_side(run, shares[1:])]
            self._compiled.add((gradients, size))
        if not gradients:
            return torch.cat([_to_torch(v)[:, :n] for v in results]), None
        values = torch.cat([_to_torch(v)[:, :n] for v, _ in results])
        return values, torch.cat([_to_torch(g)[:, :, :n] for _, g in results], dim=1)

    def _latent_shares(self, points: int) -> list[Any]:
        """The latents on the device: whole, or in equal shares, one for each core of a CPU."""
        count, draws = 1, len(self.latents)
        worth = self.latents.size * points >= WORK_FOR_THREADS
        if worth and devices.current_platform() == "cpu":
            most = min(devices.cpu_count(), max(1, draws // SMALLEST_SHARE))
            count = max(k for k in range(1, most + 1) if draws % k == 0)
        if count not in self._shares:
            dtype = np.float64 if self.dtype == torch.float64 else np.float32
            parts = np.split(self.latents.astype(dtype), count)
            self._shares[count] = [jnp.asarray(part) for part in parts]
        return self._shares[count]


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


def _join(blocks: list[Tensor]) -> Tensor:
    """Blocks of points put end to end along the points' axis."""
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=-2)
