"""A PFN between torch tensors: bars at candidates, differentiable in candidates and in new rows.

Two programs: `at` decodes candidates against the keys and values of the table, encoded once;
`given` encodes a batch of tables, each with rows of its own appended, and decodes the
candidates of each. Forward and backward are programs of their own, the backward one runs the
forward one again: laws have hundreds of bars, too many for their derivatives to be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor

from bayesnet import devices
from bayesnet._types import Array
from bayesnet.pfn.context import pad_context
from bayesnet.pfn.posterior import PFNPosterior, encode
from bayesnet.pfn.quadrature import QuadratureNetwork
from bayesnet.pfn.transformer import pad_columns
from bayesnet.surrogates.bridge import block_sizes
from bayesnet.surrogates.pfn_programs import (
    decode_at,
    decode_back,
    decode_many,
    decode_many_back,
)
from bayesnet.surrogates.tensors import as_tensor

# How many tables one call of a program takes.
TABLES = (8, 64)
# Numbers of candidates of each table, above the last one multiples of it: few, as every pair of
# sizes is a program that takes seconds to compile.
CANDIDATES = (4, 32, 256, 2048)


def table_blocks(n: int) -> list[int]:
    """Sizes from `TABLES` that hold `n` tables: whole 64s, and the rest in eights or one more."""
    few, many = TABLES
    whole, rest = divmod(max(n, 1), many)
    more = [many] if rest > many // 2 else [few] * -(-rest // few)
    return [many] * whole + more


def wide_enough(n: int) -> int:
    """The number of candidates to which n are padded."""
    last = CANDIDATES[-1]
    return next((size for size in CANDIDATES if n <= size), -(-n // last) * last)


class PFNBridge:
    """The table of a posterior, in the dtype in which its network runs.

    Args:
        posterior: the conditioned PFN; its rows are those to which others are appended.
        dtype: torch.float32 or torch.float64.
        device: where JAX runs it: "auto", "cpu", "gpu", "gpu:1", or a device.

    Holds arrays and configuration only: compiled programs belong to JAX's own cache, so copies and
    pickles share them.
    """

    def __init__(
        self, posterior: PFNPosterior, *, dtype: torch.dtype = torch.float64, device: Any = "auto"
    ) -> None:
        self.pfn, self.network = posterior.pfn, posterior.network
        self.x, self.y = posterior.data.x, posterior.data.y
        # Processes are linear algebra in float64, whatever is asked of the answer.
        self.dtype = torch.float64 if isinstance(self.network, QuadratureNetwork) else dtype
        self.device = device
        self._ready: tuple[Any, ...] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without what lies on the device: encoded tables."""
        return {**self.__dict__, "_ready": None}

    @property
    def num_rows(self) -> int:
        """n, the rows of the table."""
        return len(self.x)

    def at(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the bars of y and of f at scaled candidates x (n, d): (n, m, k) each."""
        return _At.apply(x, self)

    def given(
        self, rows: Tensor, targets: Tensor, x: Tensor, *, constant: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The same for b tables, each with rows of its own: (b, q, m, k) each.

        Args:
            rows: (b, r, d) and targets (b, r, m), scaled: appended to the table.
            x: (b, q, d) candidates of each.
            constant: take rows and targets as constants: no derivatives in them.
        """
        if constant:
            rows, targets = rows.detach(), targets.detach()
        return _Given.apply(rows, targets, x, self)

    # --- what the programs are called with -----------------------------------------------------

    def _arrays(self) -> tuple[Any, ...]:
        """Network, bars, encoded table, mask and columns used; made once a process."""
        if self._ready is None:
            cast = partial(_cast, dtype=self._jax_dtype)
            network, bars = cast(self.network), cast(self.pfn.bars)
            x, y, mask, used = pad_context(self.pfn, self.x, self.y)
            x, y, used = cast((x, y, used))
            self._ready = network, bars, encode(network, x, y, mask, used), mask, used
        return self._ready

    @property
    def _jax_dtype(self) -> Any:
        return np.float64 if self.dtype == torch.float64 else np.float32

    def _scope(self) -> Any:
        return jax.enable_x64(self.dtype == torch.float64)

    def _numpy(self, a: Tensor) -> np.ndarray:
        return a.detach().to("cpu", self.dtype).numpy()

    def _columns(self, x: np.ndarray) -> np.ndarray:
        return pad_columns(x, self.pfn.max_dim)[0]

    def _each_block(
        self, x: np.ndarray, sizes: list[int], run: Callable[[slice, Array], Any]
    ) -> list[Any]:
        """`run(rows, block of x padded to a size)` over all rows of x."""
        out, start = [], 0
        with devices.using(self.device), self._scope():
            for size in sizes:
                at = slice(start, min(start + size, len(x)))
                out.append(run(at, jnp.asarray(fill(x[at], size))))
                start += size
        return out

    def _at(self, x: Tensor) -> tuple[Tensor, Tensor]:
        def run(at: slice, block: Array) -> Any:
            network, bars, cache, mask, used = self._arrays()
            found = decode_at(network, bars, cache, mask, used, block)
            return [np.swapaxes(np.asarray(a), 0, 1)[: at.stop - at.start] for a in found]

        y, f = self._by_points(x, run)
        return y, f

    def _at_back(self, x: Tensor, by: tuple[Tensor, Tensor]) -> Tensor:
        weights = [np.swapaxes(self._numpy(b), 0, 1) for b in by]

        def run(at: slice, block: Array) -> Any:
            network, bars, cache, mask, used = self._arrays()
            w = [jnp.asarray(fill(b[:, at], block.shape[0], axis=1, zero=True)) for b in weights]
            found = decode_back(network, bars, cache, mask, used, block, *w)
            return [np.asarray(found)[: at.stop - at.start, : x.shape[1]]]

        return self._by_points(x, run)[0]

    def _by_points(self, x: Tensor, run: Callable[[slice, Array], Any]) -> tuple[Tensor, ...]:
        sizes = block_sizes(max(len(x), 1))
        return joined(self._each_block(self._columns(self._numpy(x)), sizes, run), x)

    def _tables(
        self, rows: np.ndarray, targets: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Any]:
        """The tables with their new rows: x (b, s, D), y (b, m, s), mask (s,), columns used."""
        (b, r), n = rows.shape[:2], self.num_rows
        x, y, _, used = (np.asarray(a) for a in pad_context(self.pfn, self.x, self.y, extra=r))
        x = np.repeat(x[None].astype(rows.dtype), b, axis=0)
        y = np.repeat(y[None].astype(rows.dtype), b, axis=0)
        x[:, n : n + r] = self._columns(rows)
        y[:, :, n : n + r] = np.swapaxes(targets, 1, 2)
        return x, y, np.arange(x.shape[1]) < n + r, jnp.asarray(used, rows.dtype)

    def _given(
        self,
        rows: Tensor,
        targets: Tensor,
        x: Tensor,
        by: tuple[Tensor, Tensor] | None = None,
        constant: bool = False,
    ) -> Any:
        """Logits, or with cotangents `by` of them the gradients to rows, targets and x."""
        q = x.shape[1]
        if by is None:
            return [a[:, :q] for a in self.each_table(rows, targets, x, decode_many)]
        program = partial(decode_many_back, constant=constant)
        weights = [fill(self._numpy(b), wide_enough(q), axis=1, zero=True) for b in by]
        return self.gradients(rows, targets, x, program, weights)

    def each_table(
        self,
        rows: Tensor,
        targets: Tensor,
        x: Tensor,
        program: Callable[..., Any],
        weights: Sequence[np.ndarray] = (),
    ) -> tuple[Tensor, ...]:
        """What `program` makes of every table with its new rows, block after block.

        It is called with the network, bars, x, y, mask and columns used of the tables, their candidates, of
        which there are `wide_enough(q)`, and `weights`, of every table its own.
        """
        with self._scope():
            tables, values, mask, used = self._tables(self._numpy(rows), self._numpy(targets))

        def call(at: slice, block: Array, *w: Array) -> Any:
            network, bars = self._arrays()[:2]
            context = (jnp.asarray(fill(a[at], len(block))) for a in (tables, values))
            return program(network, bars, *context, mask, used, block, *w)

        return self.each_place(x, call, weights)

    def each_place(
        self, x: Tensor, call: Callable[..., Any], weights: Sequence[np.ndarray] = ()
    ) -> tuple[Tensor, ...]:
        """What `call(places, candidates, *weights)` gives, block after block of the places x (b, q, d)."""
        queries = fill(self._columns(self._numpy(x)), wide_enough(x.shape[1]), axis=1)

        def run(at: slice, block: Array) -> Any:
            w = (jnp.asarray(fill(b[at], len(block), zero=True)) for b in weights)
            return [np.asarray(a)[: at.stop - at.start] for a in call(at, block, *w)]

        return joined(self._each_block(queries, table_blocks(len(queries)), run), x)

    def gradients(
        self,
        rows: Tensor,
        targets: Tensor,
        x: Tensor,
        program: Callable[..., Any],
        weights: Sequence[np.ndarray],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Those to rows, targets and x, where `program` gives the gradients to candidates and, unless the
        tables are constant, to their x and y."""
        (_, r, d), q, n = rows.shape, x.shape[1], self.num_rows
        to_x, *others = self.each_table(rows, targets, x, program, weights)
        if not others:
            return torch.zeros_like(rows), torch.zeros_like(targets), to_x[:, :q, :d]
        to_rows, to_targets = others
        new = to_targets[:, :, n : n + r].transpose(1, 2)
        return to_rows[:, n : n + r, :d], new, to_x[:, :q, :d]


class _At(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bridge: PFNBridge) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x)
        ctx.bridge = bridge
        y, f = bridge._at(x)
        return y, f

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *by: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return ctx.bridge._at_back(x, by), None


class _Given(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, targets: Tensor, x: Tensor, bridge: PFNBridge
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(rows, targets, x)
        ctx.bridge = bridge
        y, f = bridge._given(rows, targets, x)
        return y, f

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *by: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        constant = not any(ctx.needs_input_grad[:2])
        return (*ctx.bridge._given(*ctx.saved_tensors, by, constant), None)


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(
        lambda a: jnp.asarray(np.asarray(a), dtype) if eqx.is_inexact_array(a) else a, tree
    )


def fill(a: np.ndarray, size: int, *, axis: int = 0, zero: bool = False) -> np.ndarray:
    """`a` with copies of its last place (or zeros) up to `size` along an axis."""
    n = a.shape[axis]
    if n == size:
        return a
    if n == 0:
        shape = (*a.shape[:axis], size, *a.shape[axis + 1 :])
        return np.zeros(shape, a.dtype)
    padding = [(0, 0)] * a.ndim
    padding[axis] = (0, size - n)
    return np.pad(a, padding, mode="constant" if zero else "edge")


def joined(blocks: list[list[np.ndarray]], like: Tensor) -> tuple[Tensor, ...]:
    """Blocks put end to end, as tensors on the device of `like`, in its dtype."""
    parts = (np.concatenate(p) for p in zip(*blocks, strict=True))
    return tuple(as_tensor(p, like) for p in parts)
