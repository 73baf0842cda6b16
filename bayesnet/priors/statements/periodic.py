"""Functions that repeat along a column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesnet.priors.statements.base import (
    REFERENCE_ROWS,
    Seen,
    Statement,
    check_column,
    positive,
    some_rows,
)


@dataclass(frozen=True)
class Periodic(Statement):
    """Functions repeat after `period` (in the units of the column): a property of the kernel.

    Args:
        period: in the units of the column.
        column: its number, counted from 0, or its name in the data frame `X` of `bn.elicit`.

    With `Varies(over, column)` on the same column, `over` is the lengthscale within a period.
    """

    period: float
    column: Any = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "period", positive(self.period, "Periodic: period"))

    def check(self, in_dim: int) -> None:
        check_column(self.column, in_dim, "Periodic")

    @property
    def words(self) -> str:
        return f"repeats every {self.period:g} in {self.along}"

    def probes(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Rows, and the same one period on."""
        start = some_rows(rows, rng, REFERENCE_ROWS)
        shifted = start.copy()
        shifted[:, self.column] += self.period
        return np.concatenate([start, shifted])

    def gap(self, seen: Seen) -> np.ndarray:
        """The largest change over one period."""
        start, shifted = np.split(seen.at_probes, 2, axis=1)
        return np.abs(shifted - start).max(axis=1)
