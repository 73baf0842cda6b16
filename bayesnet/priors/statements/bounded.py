"""Functions that stay between bounds, or positive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayesnet._errors import InputError
from bayesnet.priors.statements.base import (
    REFERENCE_ROWS,
    Seen,
    Statement,
    check_choice,
    finite,
    some_rows,
)

IMPOSE = ("transform", "filter")


@dataclass(frozen=True)
class Bounded(Statement):
    """Function values stay between `low` and `high`, in the units of y.

    Args:
        low, high: one may be infinite.
        impose: "transform" (default): draws pass through a smooth clip, the identity well inside
            the bounds, so that every value of every function obeys; or "filter": draws that
            leave the bounds at the points asked for, or at a set of rows, are thrown away.
    """

    low: float = -np.inf
    high: float = np.inf
    impose: str = "transform"

    def __post_init__(self) -> None:
        check_choice(self.impose, IMPOSE, "impose")
        low, high = (
            value if np.ndim(value) == 0 and np.isinf(value) else finite(value, "Bounded: a bound")
            for value in (self.low, self.high)
        )
        if not low < high or (np.isinf(low) and np.isinf(high)):
            raise InputError(
                f"Bounded: expected low < high, one of them finite, got {self.low!r} and {self.high!r}."
            )
        object.__setattr__(self, "low", float(low))
        object.__setattr__(self, "high", float(high))

    @property
    def words(self) -> str:
        return f"between {self.low:g} and {self.high:g}"

    def probes(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return some_rows(rows, rng, REFERENCE_ROWS)

    def gap(self, seen: Seen) -> np.ndarray:
        """How far the worst value lies outside."""
        values = np.concatenate([seen.f, seen.at_probes], axis=1)
        return np.maximum(self.low - values, values - self.high).clip(0.0).max(axis=1)

    def log_accept(self, seen: Seen, slack: float) -> np.ndarray:
        return np.where(self.gap(seen) <= 0.0, 0.0, -np.inf)


@dataclass(frozen=True)
class Positive(Bounded):
    """Function values are positive: `Bounded(0, inf)`."""

    low: float = 0.0

    def __post_init__(self) -> None:
        if self.low != 0.0 or self.high != np.inf:
            raise InputError("Positive takes no bounds: use Bounded(low, high).")
        super().__post_init__()

    @property
    def words(self) -> str:
        return "positive"
