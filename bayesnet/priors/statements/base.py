"""What every statement about functions offers: how it is checked, measured and put in words."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesnet._columns import Names, column_number
from bayesnet._errors import InputError, unknown_name

# A draw counts as satisfying a statement if it misses it by at most this fraction of the sd of the
# process: kernels are factorised with a jitter of 1e-6 of the variance, 1e-3 of the sd.
SLACK = 1e-2
# How many of the user's rows a statement is checked at.
REFERENCE_ROWS = 32


@dataclass(frozen=True)
class Seen:
    """Draws as a statement sees them, in the user's units: `f` (s, n) at `x` (n, d), and the same
    draws `at_probes` (s, k) at the statement's own points `probes` (k, d)."""

    x: np.ndarray
    f: np.ndarray
    probes: np.ndarray
    at_probes: np.ndarray


class Statement:
    """A property of functions in the units of the user's data. Subclasses are frozen dataclasses.

    To write one of your own, see `Satisfies`, or subclass this and give `words`, `probes`, `gap`.
    One that has a field `column` may be given the name of a column instead of its number.
    """

    _name: str | None = None

    def resolved(self, names: Names | None) -> Statement:
        """This statement with the number of a column that it calls by name.

        `names`: of the columns, if the inputs are a data frame. Raises `InputError` for a name that is not
        there.
        """
        column = getattr(self, "column", None)
        if not isinstance(column, str):
            return self
        number = column_number(column, names, type(self).__name__)
        found = dataclasses.replace(self, column=number)  # type: ignore[type-var]
        object.__setattr__(found, "_name", column)
        return found

    @property
    def along(self) -> str:
        """The column in words: by its name if it was called so."""
        return f"column {self._name or getattr(self, 'column', '')}"

    def check(self, in_dim: int) -> None:
        """Raise `InputError` if the statement cannot be made about `in_dim` inputs."""

    @property
    def words(self) -> str:
        """The statement as one line of text."""
        raise NotImplementedError

    def probes(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Points (k, d) at which functions are looked at, made from rows (n, d) of the inputs."""
        return np.zeros((0, rows.shape[1]))

    def gap(self, seen: Seen) -> np.ndarray | None:
        """By how much each draw misses the statement, in the units of y (s,).

        None for statements about the law of draws, not about each of them.
        """
        return None

    def log_accept(self, seen: Seen, slack: float) -> np.ndarray:
        """The log probability (s,) at which a filter keeps each draw."""
        gap = self.gap(seen)
        return np.zeros(len(seen.f)) if gap is None else np.where(gap <= slack, 0.0, -np.inf)

    def note(self, seen: Seen) -> str:
        """What else a report says about the draws."""
        return ""


def check_column(column: Any, in_dim: int, name: str) -> None:
    """Raise `InputError` unless `column` counts one of `in_dim` columns."""
    whole = isinstance(column, (int, np.integer)) and not isinstance(column, bool)
    if not whole or not 0 <= column < in_dim:
        raise InputError(
            f"{name}: column must be one of 0 to {in_dim - 1} (the inputs have {in_dim} column(s)), "
            f"got {column!r}."
        )


def check_choice(value: Any, choices: tuple[str, ...], kind: str) -> None:
    """Raise `InputError` unless `value` is one of `choices`."""
    if value not in choices:
        raise unknown_name(kind, value, choices)


def finite(value: Any, name: str) -> float:
    """`value` as a finite number, or an `InputError`."""
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be a number, got {value!r}.") from error
    if not np.isfinite(number):
        raise InputError(f"{name} must be finite, got {value!r}.")
    return number


def positive(value: Any, name: str) -> float:
    """`value` as a positive finite number, or an `InputError`."""
    number = finite(value, name)
    if number <= 0:
        raise InputError(f"{name} must be positive, got {value!r}.")
    return number


def some_rows(rows: np.ndarray, rng: np.random.Generator, most: int) -> np.ndarray:
    """Up to `most` of the rows."""
    if len(rows) <= most:
        return rows
    return rows[rng.choice(len(rows), most, replace=False)]
