"""The knobs of a training run."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import equinox as eqx
import numpy as np
import optax

from bayesnet._errors import InputError, unknown_name
from bayesnet._types import Key
from bayesnet.pfn.bars import Bars
from bayesnet.pfn.precision import PRECISIONS
from bayesnet.pfn.transformer import Transformer


@dataclass(frozen=True)
class Training:
    """The knobs of a run.

    Args:
        steps: optimiser steps.
        batch: tasks a step.
        buckets: sizes to which contexts are padded; every step has contexts of one bucket, of
            sizes down to the bucket below.
        padding: sizes to which contexts are padded instead: fewer programs to compile, for
            accelerators, on which that takes longer than the rows that are padding; the buckets if None.
        dims: numbers of columns, and `dim_weights` how often each comes; equally often if None.
        max_dim: columns that the network accepts.
        wider: for `dims` beyond it: "error", or "project" (on principal components, as
            `ClassPFN.fit` does; for classes only).
        width, depth, heads, hidden, bars: the transformer (`hidden`: of its perceptrons).
        queries: query rows of a task.
        learning_rate: the highest; linear warm-up over `warmup` steps, then a cosine to 0.
        seed: of weights and tasks.
        precision: "float32", or "bfloat16" for the large products (`bayesnet.pfn.precision`), made
            for accelerators. Weights are float32 either way.
        devices: over how many devices the tasks of a step are shared out; divides `batch`.
            Results differ by rounding between numbers of devices.

    Raises `InputError` for numbers out of range.
    """

    steps: int = 20_000
    batch: int = 32
    buckets: tuple[int, ...] = (4, 10, 20, 40, 70, 100)
    padding: tuple[int, ...] | None = None
    dims: tuple[int, ...] = (1,)
    dim_weights: tuple[float, ...] | None = None
    max_dim: int = 10
    wider: str = "error"
    width: int = 128
    depth: int = 4
    heads: int = 4
    hidden: int = 256
    bars: int = 320
    queries: int = 32
    learning_rate: float = 1e-3
    warmup: int = 500
    seed: int = 0
    precision: str = "float32"
    devices: int = 1

    def __post_init__(self) -> None:
        for name in ("buckets", "dims"):
            object.__setattr__(self, name, tuple(int(v) for v in getattr(self, name)))
        if self.padding is not None:
            object.__setattr__(self, "padding", tuple(int(v) for v in self.padding))
        weights = (1.0,) * len(self.dims) if self.dim_weights is None else self.dim_weights
        object.__setattr__(self, "dim_weights", tuple(float(w) for w in weights))
        for name in ("steps", "batch", "queries", "max_dim", "warmup"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if (
            not self.buckets
            or list(self.buckets) != sorted(set(self.buckets))
            or self.buckets[0] < 1
        ):
            raise InputError(f"buckets must be increasing sizes, got {self.buckets}.")
        if self.padding is not None and max(self.padding, default=0) != self.buckets[-1]:
            raise InputError(
                f"The largest of padding must be that of buckets, {self.buckets[-1]}, got {self.padding}."
            )
        if self.wider not in ("error", "project"):
            raise unknown_name("value of wider", self.wider, ("error", "project"))
        most = self.max_dim if self.wider == "error" else math.inf
        if not self.dims or not 1 <= min(self.dims) <= max(self.dims) <= most:
            raise InputError(
                f"dims must lie between 1 and max_dim={self.max_dim}, got {self.dims}."
            )
        if len(self.dim_weights) != len(self.dims) or min(self.dim_weights) <= 0:  # type: ignore[arg-type]
            raise InputError("dim_weights are positive numbers, one for each of dims.")
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        if self.devices < 1 or self.batch % self.devices:
            raise InputError(
                f"devices must be at least 1 and divide batch, got {self.devices} and {self.batch}."
            )
        if not 0 < self.learning_rate < 1:
            raise InputError(f"learning_rate must lie in (0, 1), got {self.learning_rate}.")

    def identity(self) -> dict[str, Any]:
        """The knobs that a checkpoint must agree with.

        Not the number of steps, for a run may be made longer or shorter on the way, nor of devices,
        for it may go on elsewhere; nor precision, padding and wider where they are as all runs once were.
        """
        knobs = asdict(self)
        for name in ("steps", "devices"):
            del knobs[name]
        if self.precision == "float32":
            del knobs["precision"]
        if self.padding is None:
            del knobs["padding"]
        if self.wider == "error":
            del knobs["wider"]
        return knobs

    def refuse_wider(self) -> None:
        """Raises `InputError` where tables of more columns than the network accepts are asked for."""
        if self.wider != "error":
            raise InputError("Only classifiers are trained on projections: leave wider='error'.")

    def draw_sizes(
        self, rng: np.random.Generator, weights: np.ndarray, least: int = 0
    ) -> tuple[int, int, np.ndarray, int]:
        """What the tables of a step are: columns, part of the prior, rows (batch,), rows with padding.

        `weights`: how often each part is chosen, of sum 1; `least`: the fewest rows of the first bucket.
        """
        often = np.asarray(self.dim_weights)
        d = self.dims[rng.choice(len(often), p=often / often.sum())]
        part = int(rng.choice(len(weights), p=weights))
        bucket = int(rng.integers(len(self.buckets)))
        low = self.buckets[bucket - 1] + 1 if bucket else least
        counts = rng.integers(low, self.buckets[bucket] + 1, size=self.batch)
        sizes = self.buckets if self.padding is None else self.padding
        return d, part, counts, min(size for size in sizes if size >= self.buckets[bucket])

    def network(self, key: Key) -> Transformer:
        """A transformer of these sizes with random weights."""
        return Transformer.create(
            key,
            max_dim=self.max_dim,
            bars=self.bars,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            hidden=self.hidden,
        )

    def optimiser(self) -> optax.GradientTransformation:
        """Adam with clipped gradients."""
        schedule = optax.warmup_cosine_decay_schedule(
            0.0, self.learning_rate, min(self.warmup, self.steps // 2), self.steps
        )
        return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b1=0.9, b2=0.98))


class State(eqx.Module):
    """What a checkpoint holds."""

    network: Any  # a `Transformer` or a `QuadratureNetwork`
    optimiser: Any
    bars: Bars
