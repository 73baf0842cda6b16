"""Functions that only rise, or only fall, along a column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesnet.priors.statements.base import Seen, Statement, check_choice, check_column, some_rows

DIRECTIONS = ("increasing", "decreasing")
LINES, POINTS = 12, 21


@dataclass(frozen=True)
class Monotone(Statement):
    """Functions rise (or fall) along one column, whatever the other columns are.

    Args:
        column: its number, counted from 0, or its name in the data frame `X` of `bn.elicit`.
        direction: "increasing" or "decreasing".
        impose: "construct" (default): functions are a level that depends on the other columns
            plus the integral of a positive process along this one, monotone at every point; or
            "filter": draws of the process that violate it on a set of lines are thrown away.
    """

    column: Any = 0
    direction: str = "increasing"
    impose: str = "construct"

    def __post_init__(self) -> None:
        check_choice(self.direction, DIRECTIONS, "direction")
        check_choice(self.impose, ("construct", "filter"), "impose")

    def check(self, in_dim: int) -> None:
        check_column(self.column, in_dim, "Monotone")

    @property
    def sign(self) -> float:
        """1 for increasing, -1 for decreasing."""
        return 1.0 if self.direction == "increasing" else -1.0

    @property
    def words(self) -> str:
        return f"{self.direction} in {self.along}"

    def probes(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Lines through rows along the column, over the range of the rows."""
        starts = some_rows(rows, rng, LINES if rows.shape[1] > 1 else 1)
        along = np.linspace(rows[:, self.column].min(), rows[:, self.column].max(), POINTS)
        lines = np.repeat(starts[:, None, :], POINTS, axis=1)
        lines[:, :, self.column] = along
        return lines.reshape(-1, rows.shape[1])

    def gap(self, seen: Seen) -> np.ndarray:
        """The way a draw goes in the wrong direction along a line, for its worst line."""
        lines = seen.at_probes.reshape(len(seen.at_probes), -1, POINTS)
        wrong = np.maximum(-self.sign * np.diff(lines, axis=2), 0.0).sum(axis=2).max(axis=1)
        if seen.x.shape[1] == 1 and len(seen.x) > 1:
            ordered = seen.f[:, np.argsort(seen.x[:, 0], kind="stable")]
            wrong_at_x = np.maximum(-self.sign * np.diff(ordered, axis=1), 0.0).sum(axis=1)
            wrong = np.maximum(wrong, wrong_at_x)
        return wrong
