"""Whether statements can be made together: contradictions are found before anything is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bayesnet._errors import InputError
from bayesnet.priors.covariance import STATIONARY
from bayesnet.priors.network import UNITS
from bayesnet.priors.statements.base import Statement
from bayesnet.priors.statements.bounded import Bounded
from bayesnet.priors.statements.known_value import KnownValue
from bayesnet.priors.statements.monotone import Monotone
from bayesnet.priors.statements.periodic import Periodic
from bayesnet.priors.statements.varies import Varies


def check_statements(
    statements: Sequence[Any], d: int, base: Any, kernel: str, units: str, max_tries: int
) -> None:
    """Raise `InputError` for arguments of `elicit` that contradict each other."""
    if not statements:
        raise InputError("State something: for example bn.statements.Varies(over=20.0).")
    for statement in statements:
        if not isinstance(statement, Statement):
            raise InputError(
                f"Expected statements such as bn.statements.Positive(), got {statement!r}."
            )
        statement.check(d)
    if units not in UNITS:
        raise InputError(f"units must be one of {UNITS}, got {units!r}.")
    if kernel not in STATIONARY:
        raise InputError(f"kernel must be one of {', '.join(STATIONARY)}, got {kernel!r}.")
    if int(max_tries) != max_tries or max_tries < 1:
        raise InputError(f"max_tries must be a positive whole number, got {max_tries!r}.")
    for kind in (Varies, Monotone, Periodic):
        columns = [s.column for s in statements if isinstance(s, kind)]
        for column in set(columns):
            if columns.count(column) > 1:
                raise InputError(f"Column {column} has two {kind.__name__} statements: merge them.")
    repeats = {s.column for s in statements if isinstance(s, Periodic)}
    for s in statements:
        if isinstance(s, Monotone) and s.column in repeats:
            raise InputError(f"Functions cannot be monotone and periodic in column {s.column}.")
        if isinstance(s, Varies) and s.trend is not None and s.column in repeats:
            raise InputError(
                f"With a trend in column {s.column} functions do not repeat there: drop one, or add a "
                "process with the trend to the prior."
            )
    for s in statements:
        for other in statements:
            if isinstance(s, Monotone) and isinstance(other, Varies) and s.column == other.column:
                if other.rising * s.sign < 0:
                    raise InputError(f"'{s.words}' contradicts '{other.words}'.")
                if s.impose == "construct" and other.trend == 0.0:
                    raise InputError(f"'{s.words}' contradicts a slope of 0.")
    if base is not None:
        if not hasattr(base, "sample") or isinstance(base, type):
            raise InputError(f"base must have sample(key, x, num_samples), got {base!r}.")
        for s in statements:
            if isinstance(s, (Varies, Periodic)):
                raise InputError(
                    f"'{s.words}' is a property of the kernel, and base has its own: state it there, or "
                    "leave base out."
                )
    _check_values(statements)


def _check_values(statements: Sequence[Any]) -> None:
    low, high = bounds_of(statements)
    if not low < high:
        raise InputError(f"The bounds contradict each other: low {low:g}, high {high:g}.")
    for s in statements:
        if isinstance(s, KnownValue) and not low < s.y < high:
            raise InputError(f"'{s.words}' lies outside the bounds {low:g} and {high:g}.")
        if isinstance(s, Varies) and s.around is not None and not low < s.around < high:
            raise InputError(f"'{s.words}' lies outside the bounds {low:g} and {high:g}.")
    for name in ("amplitude", "around"):
        stated = [getattr(s, name) for s in statements if isinstance(s, Varies)]
        different = {value for value in stated if value is not None}
        if len(different) > 1:
            raise InputError(
                f"Several values of {name} are stated ({sorted(different)}): the columns share one."
            )


def bounds_of(statements: Sequence[Any]) -> tuple[float, float]:
    """The bounds that all statements leave."""
    bounded = [s for s in statements if isinstance(s, Bounded)]
    low = max([s.low for s in bounded], default=-np.inf)
    return low, min([s.high for s in bounded], default=np.inf)
