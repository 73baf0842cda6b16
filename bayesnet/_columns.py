"""Names of columns: read off a frame when a model is fitted, and matched by every later frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from bayesnet._errors import InputError

# What a column may be called; anything else (a date, an enumeration) goes by its text.
Name: TypeAlias = "str | int | float | bool | tuple[Name, ...]"
Names: TypeAlias = tuple[Name, ...]


class NamedRows:
    """A matrix (n, d) with a name for each column: the least that counts as a data frame here."""

    def __init__(self, matrix: np.ndarray, columns: Sequence[Any]) -> None:
        self.matrix, self.columns = matrix, list(columns)
        self.shape = matrix.shape

    def __len__(self) -> int:
        return len(self.matrix)

    def to_numpy(self) -> np.ndarray:
        """The matrix."""
        return self.matrix


def names_of(a: Any) -> Names | None:
    """The names of the columns of a data frame (pandas, polars, pyarrow, ...); None of anything else."""
    found = getattr(a, "column_names", None)  # pyarrow, whose `columns` are the data
    if found is None:
        found = getattr(a, "columns", None)
    if found is None or callable(found) or isinstance(found, (str, int)):
        return None
    names = tuple(_plain(name) for name in found)
    shape = getattr(a, "shape", None)
    return names if not shape or len(names) == shape[-1] else None


def names_at_fit(a: Any, what: str) -> Names | None:
    """`names_of`, for a table that is to be remembered by them.

    Raises `InputError` if two columns have the same name.
    """
    names = names_of(a)
    if names is not None and len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(
            f"{what} has several columns named {twice!r}: give each column a name of its own, or pass an "
            "array."
        )
    return names


def order_of(a: Any, known: Names | None, what: str) -> list[int] | None:
    """Where in the frame `a` the columns `known` stand, or None to take `a` as it is.

    As it is: an array, a frame in the known order, or where no names are known.
    Raises `InputError` that names missing, unknown and repeated columns.
    """
    return None if known is None else order_between(names_of(a), known, what)


def order_between(names: Names | None, known: Names | None, what: str) -> list[int] | None:
    """Where in `names` the `known` ones stand; None if they agree already or either is not known.

    Raises `InputError` that names missing, unknown and repeated columns.
    """
    if known is None or names is None or names == known:
        return None
    missing = [n for n in known if n not in names]
    unknown = [n for n in names if n not in known]
    twice = sorted({n for n in names if names.count(n) > 1}, key=str)
    told = [
        f"{word} {', '.join(map(repr, found))}"
        for word, found in (("missing", missing), ("unknown", unknown), ("repeated", twice))
        if found
    ]
    if told:
        raise InputError(
            f"{what} has other columns than the table before it: {'; '.join(told)}. Expected "
            f"{', '.join(map(repr, known))}, in any order. An array (such as frame.to_numpy()) is taken in "
            "the order that it has."
        )
    return [names.index(n) for n in known]


def column_number(column: Any, names: Names | None, what: str) -> Any:
    """The number, counted from 0, of the column that is called `column`; a number passes through.

    Raises `InputError` for a name that is not there, or where columns have no names.
    """
    if not isinstance(column, str):
        return column
    if names is None:
        raise InputError(
            f"{what}: {column!r} is the name of a column, and X has no names: pass X as a data frame, or "
            "the number of the column, counted from 0."
        )
    if column not in names:
        raise InputError(f"{what}: X has no column {column!r}, only {', '.join(map(repr, names))}.")
    return names.index(column)


def _plain(name: Any) -> Name:
    if isinstance(name, np.generic):
        name = name.item()
    if isinstance(name, (tuple, list)):
        return tuple(_plain(part) for part in name)
    if isinstance(name, (str, int, float, bool)) and name == name:
        return name
    return str(name)


def names_in(posterior: Any) -> Names | None:
    """The names of columns that a posterior was fitted on, if it knows any."""
    scaling = getattr(posterior, "scaling", None)
    if scaling is None:
        scaling = getattr(getattr(posterior, "data", None), "scaling", None)
    return getattr(scaling if scaling is not None else posterior, "names", None)
