"""The two settings of the matching benchmark, shared by both sides."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Setting:
    """A network, an RBF target of unit variance, and where functions are compared."""

    name: str
    hidden: tuple[int, ...]
    in_dim: int
    lengthscale: float

    @cached_property
    def rows(self) -> np.ndarray | None:
        """The table (450, d) of the many-dimensional setting: correlated columns, standardised.

        Made up, from four factors and noise, so that the benchmark needs no data file.
        """
        if self.in_dim == 1:
            return None
        rng = np.random.default_rng(13)
        rows = rng.normal(size=(450, 4)) @ rng.normal(size=(4, self.in_dim))
        rows += rng.normal(size=rows.shape)
        return (rows - rows.mean(0)) / rows.std(0)

    def draw_points(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """`num` points (n, d): uniform on [-3, 3] and in order, or rows of the table.

        In order, so that the critic finds neighbours in neighbouring entries; the reference came
        out the same without (seed 0: log scales within 0.02).
        """
        if self.rows is None:
            return np.sort(rng.uniform(-3.0, 3.0, size=(num, 1)), axis=0)
        return self.rows[rng.choice(len(self.rows), num, replace=False)]


SETTINGS = {
    "1d": Setting("1d", (50, 50), 1, 1.0),
    "13d": Setting("13d", (100,), 13, (2.0 * 13.0) ** 0.5),
}


def provenance() -> dict:
    """The commit and the processor that a number comes from."""
    here = Path(__file__).parent
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True
    ).stdout.strip()
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [s for s in cpuinfo.read_text().splitlines() if s.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    return {"commit": commit, "device": model, "threads": 1}
