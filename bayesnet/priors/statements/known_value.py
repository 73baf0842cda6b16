"""Functions whose value at a point is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bayesnet._columns import Names, column_number
from bayesnet._errors import InputError
from bayesnet.priors.statements.base import Seen, Statement, finite


@dataclass(frozen=True)
class KnownValue(Statement):
    """The function is `y` at `x`, up to a normal error of sd `tolerance`, in the user's units.

    Args:
        x: one row: a vector with one number a column, or a number for one column; or a dictionary
            from names of columns to numbers, where the inputs are a data frame.
        y: the value there.
        tolerance: 0 (the default) is exactly. A process without a kernel, whose draws can only be
            filtered, needs a tolerance: draws are kept with probability
            `exp(-(f(x) - y)^2 / (2 tolerance^2))`, which conditions them exactly.
    """

    x: Any
    y: float
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "y", finite(self.y, "KnownValue: y"))
        tolerance = finite(self.tolerance, "KnownValue: tolerance")
        if tolerance < 0:
            raise InputError(f"KnownValue: tolerance must not be negative, got {tolerance}.")
        object.__setattr__(self, "tolerance", tolerance)
        if not isinstance(self.x, dict):
            self._check_row()

    def _check_row(self) -> None:
        try:
            row = np.atleast_1d(np.asarray(self.x, np.float64))
        except (TypeError, ValueError) as error:
            raise InputError(f"KnownValue: x must be numbers, got {self.x!r}.") from error
        if row.ndim != 1 or not np.isfinite(row).all():
            raise InputError(f"KnownValue: x must be one row of finite numbers, got {self.x!r}.")
        object.__setattr__(self, "x", tuple(row.tolist()))

    def resolved(self, names: Names | None) -> KnownValue:
        """This value at the row whose numbers stand in the order of the columns."""
        if not isinstance(self.x, dict):
            return self
        for name in self.x:
            column_number(name, names, "KnownValue")
        missing = [n for n in names or () if n not in self.x]
        if missing:
            raise InputError(f"KnownValue: x has no value for {', '.join(map(repr, missing))}.")
        return replace(self, x=[self.x[n] for n in names or ()])

    def check(self, in_dim: int) -> None:
        if len(self.x) != in_dim:
            raise InputError(
                f"KnownValue: x has {len(self.x)} number(s), the inputs have {in_dim} column(s)."
            )

    @property
    def words(self) -> str:
        at = ", ".join(f"{v:g}" for v in self.x)
        return f"f({at}) = {self.y:g}" + (f" +- {self.tolerance:g}" if self.tolerance else "")

    def probes(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.asarray([self.x])

    def gap(self, seen: Seen) -> np.ndarray:
        """How far the value at the point lies from the known one, beyond two tolerances."""
        return np.maximum(np.abs(seen.at_probes[:, 0] - self.y) - 2.0 * self.tolerance, 0.0)

    def log_accept(self, seen: Seen, slack: float) -> np.ndarray:
        return -0.5 * ((seen.at_probes[:, 0] - self.y) / self.tolerance) ** 2

    def note(self, seen: Seen) -> str:
        return f"value {seen.at_probes[:, 0].mean():.4g}, sd {seen.at_probes[:, 0].std():.2g}"
