"""The table, the noise and the memory of exact inference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bayesnet._errors import InputError
from bayesnet.data import Data

# Matrices of n x n float64 that are alive at once: kernel, sum, factor and a copy for LAPACK; more
# with eigenvectors, and for gradients.
COPIES, COPIES_EIGEN, COPIES_LEARNING = 4.0, 3.0, 4.0


@dataclass(frozen=True, eq=False)
class Table:
    """The true rows in float64 scaled coordinates; NaN in y is missing."""

    x: np.ndarray
    y: np.ndarray
    y_var: np.ndarray | None
    weight: np.ndarray | None


def table_of(data: Data) -> Table:
    """The rows of `data` without padding."""
    n = data.num_rows

    def rows(a: Any) -> np.ndarray | None:
        return None if a is None else np.asarray(a, np.float64)[:n]

    x, y = np.asarray(data.x, np.float64), np.asarray(data.y, np.float64)
    return Table(x, y, rows(data.rows.y_var), rows(data.rows.weight))


def some_rows(table: Table, count: int, seed: int) -> Table:
    """`count` random rows, or the table itself if it has no more."""
    n = len(table.x)
    if n <= count:
        return table
    picked = np.sort(np.random.default_rng(seed).choice(n, count, replace=False))

    def of(a: np.ndarray | None) -> np.ndarray | None:
        return None if a is None else a[picked]

    return Table(table.x[picked], table.y[picked], of(table.y_var), of(table.weight))


@dataclass(frozen=True, eq=False)
class NoiseLaw:
    """The noise levels `exp(loc + scale z)` (m,) of latents z, N(0, 1) each; `loc` None: no level."""

    loc: np.ndarray | None
    scale: np.ndarray | None
    outputs: int

    @property
    def size(self) -> int:
        """How many levels are learned."""
        return 0 if self.scale is None else len(self.scale)

    def std(self, z: np.ndarray) -> np.ndarray:
        """The levels (m,)."""
        if self.loc is None:
            return np.zeros(self.outputs)
        return np.exp(self.loc if self.scale is None else self.loc + self.scale * z)


def noise_law(likelihood: Any, data: Data) -> NoiseLaw:
    """The levels of a Gaussian likelihood in scaled coordinates."""
    with jax.enable_x64(True):
        bound = likelihood.bind(data.scaling, data.rows)
        loc = None if bound.log_loc is None else np.asarray(bound.log_loc, np.float64)
        scale = np.asarray(bound.log_scale, np.float64) if bound.learned else None
    return NoiseLaw(loc, scale, data.out_dim)


def available_gib() -> float:
    """Memory that is free now; infinity where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable"):
                return float(line.split()[1]) / 2**20
    except OSError:
        pass
    return float("inf")


def check_memory(n: int, *, learning: bool, limit: float | None, eigen: bool) -> None:
    """Raise `InputError`, before anything is tried, if n x n matrices do not fit."""
    copies = COPIES + COPIES_EIGEN * eigen + COPIES_LEARNING * learning
    needed = copies * 8.0 * n**2 / 2**30
    available = available_gib() if limit is None else limit
    if needed > available:
        raise InputError(
            f"Exact inference on {n} rows needs about {needed:.1f} GiB ({copies:.0f} matrices of {n} x {n}), and "
            f"{available:.1f} GiB are free. Take fewer rows (about {int(n * np.sqrt(available / needed))} fit), "
            "bn.Exact(solver='cg'), or a network: bn.fit(prior, X, y, inference='sghmc')."
        )
