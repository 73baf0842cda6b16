"""How far, how much and where to functions vary along a column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesnet._errors import InputError
from bayesnet.priors.statements.base import (
    REFERENCE_ROWS,
    Seen,
    Statement,
    check_column,
    finite,
    positive,
    some_rows,
)


@dataclass(frozen=True)
class Varies(Statement):
    """ "Varies over 20 degrees, amplitude about 3 around 12, linear trend up."

    Args:
        over: the lengthscale along `column`, in its units: values this far apart are correlated
            by about one half (0.52 for Matern-5/2, 0.61 for "rbf").
        column: its number, counted from 0, or its name in the data frame `X` of `bn.elicit`.
        amplitude: the sd of function values about their mean and trend, in the units of y. State it
            for one column; the other columns share it.
        trend: "up", "down" (a random slope: the rise over the range of the column has median
            2 amplitudes, log-sd 0.5), a number (the slope: units of y a unit of the column), or None.
        around: the mean level, in the units of y.
        spread: how vague `over` and `amplitude` are: the sd of their logarithms; every drawn function
            has its own. 0 is exactly.

    A property of the kernel and the mean: it holds for the law of draws, not for each.
    """

    over: float
    column: Any = 0
    amplitude: float | None = None
    trend: Any = None
    around: float | None = None
    spread: float = 0.25

    def __post_init__(self) -> None:
        object.__setattr__(self, "over", positive(self.over, "Varies: over"))
        if self.amplitude is not None:
            object.__setattr__(self, "amplitude", positive(self.amplitude, "Varies: amplitude"))
        if self.around is not None:
            object.__setattr__(self, "around", finite(self.around, "Varies: around"))
        if finite(self.spread, "Varies: spread") < 0:
            raise InputError(f"Varies: spread must not be negative, got {self.spread}.")
        if isinstance(self.trend, str):
            if self.trend not in ("up", "down"):
                raise InputError(
                    f"Varies: trend must be 'up', 'down' or a slope, got {self.trend!r}."
                )
        elif self.trend is not None:
            object.__setattr__(self, "trend", finite(self.trend, "Varies: trend"))

    def check(self, in_dim: int) -> None:
        check_column(self.column, in_dim, "Varies")

    @property
    def rising(self) -> float:
        """The sign of the trend: 1, -1, or 0 without one."""
        if isinstance(self.trend, str):
            return 1.0 if self.trend == "up" else -1.0
        return float(np.sign(self.trend or 0.0))

    @property
    def words(self) -> str:
        parts = [f"varies over {self.over:g} in {self.along}"]
        if self.amplitude is not None:
            parts.append(f"amplitude about {self.amplitude:g}")
        if self.around is not None:
            parts.append(f"around {self.around:g}")
        if self.trend is not None:
            parts.append(
                f"trend {self.trend}" if isinstance(self.trend, str) else f"slope {self.trend:g}"
            )
        return ", ".join(parts)

    def probes(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Rows, and the same shifted by `over`."""
        start = some_rows(rows, rng, REFERENCE_ROWS)
        shifted = start.copy()
        shifted[:, self.column] += self.over
        return np.concatenate([start, shifted])

    def slopes(self, x: np.ndarray, f: np.ndarray) -> np.ndarray:
        """The least-squares slope of each draw along the column (units of y a unit of it)."""
        design = np.column_stack([np.ones(len(x)), x])
        return np.linalg.lstsq(design, f.T, rcond=None)[0][1 + self.column]

    def gap(self, seen: Seen) -> np.ndarray | None:
        """With trend "up" or "down", the fall against it over the range of the column."""
        if not isinstance(self.trend, str):
            return None
        wrong = np.maximum(-self.rising * self.slopes(seen.x, seen.f), 0.0)
        return wrong * float(np.ptp(seen.x[:, self.column]))

    def note(self, seen: Seen) -> str:
        f, at_probes = seen.f - seen.f.mean(axis=0), seen.at_probes - seen.at_probes.mean(axis=0)
        text, about = "", ""
        if self.trend is not None:
            text = f", mean slope {self.slopes(seen.x, seen.f).mean():.3g}"
        if isinstance(self.trend, str):
            # A random slope is told from the rest of a draw by its own straight line only.
            slope, middle = self.slopes(seen.x, f)[:, None], seen.x[:, self.column].mean()
            f = f - slope * (seen.x[:, self.column] - middle)
            at_probes = at_probes - slope * (seen.probes[:, self.column] - middle)
            about = " about each draw's line"
        start, shifted = np.split(at_probes, 2, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            both = (start * shifted).mean() / np.sqrt((start**2).mean() * (shifted**2).mean())
        sd = np.sqrt((f**2).mean())
        return f"sd{about} {sd:.3g}, correlation over {self.over:g}: {both:.2f}{text}"
