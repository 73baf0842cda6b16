"""A statement of the user's own, as a test of drawn functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bayesnet._columns import Names, names_of
from bayesnet._errors import InputError
from bayesnet._matrix import as_matrix
from bayesnet.priors.statements.base import REFERENCE_ROWS, Seen, Statement, some_rows


@dataclass(frozen=True)
class Satisfies(Statement):
    """Only functions that pass a test are kept: draws are filtered.

    Args:
        test: `(x (n, d), f (s, n)) -> bool (s,)`, in the user's units: which of `s` functions, given
            by their values at `x`, obey.
        description: the statement in words, for reports and errors.
        points: rows (n, d) at which functions are tested; rows of X if None.
    """

    test: Callable[[np.ndarray, np.ndarray], Any]
    description: str = "passes the test"
    points: Any = None

    def __post_init__(self) -> None:
        if not callable(self.test):
            raise InputError(
                f"Satisfies: test must be a function (x, f) -> bool, got {self.test!r}."
            )

    def resolved(self, names: Names | None) -> Satisfies:
        """This test, at points in the order of the columns."""
        if self.points is None or names_of(self.points) is None:
            return self
        return replace(self, points=as_matrix(self.points, "Satisfies: points", known=names))

    def check(self, in_dim: int) -> None:
        if self.points is not None and (
            np.ndim(self.points) != 2 or np.shape(self.points)[1] != in_dim
        ):
            raise InputError(
                f"Satisfies: points must have shape (n, {in_dim}), got {np.shape(self.points)}."
            )

    @property
    def words(self) -> str:
        return self.description

    def probes(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.points is not None:
            return np.asarray(self.points, np.float64)
        return some_rows(rows, rng, REFERENCE_ROWS)

    def gap(self, seen: Seen) -> np.ndarray:
        """0 for functions that pass, infinity for the others."""
        values = seen.at_probes
        passed = np.asarray(self.test(seen.probes, values))
        if passed.shape != (len(values),) or passed.dtype != bool:
            raise InputError(
                f"Satisfies: test must give {len(values)} booleans, one a function; it gave "
                f"{passed.dtype} of shape {passed.shape}."
            )
        return np.where(passed, 0.0, np.inf)
