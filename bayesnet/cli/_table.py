"""Tables in CSV files: read without pandas, with errors that name the column and the line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bayesnet._errors import InputError, unknown_name
from bayesnet.cli._console import say
from bayesnet.cli._csv import read_rows
from bayesnet.cli._numbers import as_float, as_whole

# What other programs write for a missing value, in small letters.
MISSING = {"", "na", "n/a", "#n/a", "<na>", "nan", "-nan", "null", "none", "?"}
# A class may well be called "none".
NO_LABEL = MISSING - {"none"}


@dataclass(frozen=True)
class Table:
    """The text of a CSV file: its header, and cells (n, columns) that are not parsed yet."""

    path: Path
    names: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]

    def numbers(self, columns: Sequence[str], fix: str) -> np.ndarray:
        """The given columns as float64 (n, k).

        Numbers have a decimal point and ASCII digits; "2020_01" is text, "NA" and "nan" are missing.
        Raises `InputError` for text, missing and infinite values: every bad column at once,
        each with its first bad line, then `fix`, which says what to do.
        """
        found = [self.names.index(name) for name in columns]
        out = np.empty((len(self.cells), len(found)))
        problems = []
        for k, j in enumerate(found):
            bad = []
            for i, row in enumerate(self.cells):
                out[i, k], problem = _parse(row[j])
                if problem:
                    bad.append((self.lines[i], row[j], problem))
            if bad:
                line, text, problem = bad[0]
                shown = f" ({text!r})" if text else ""
                count = f", {len(bad)} such rows" if len(bad) > 1 else ""
                problems.append(f"  column {columns[k]!r}: {problem}{shown} on line {line}{count}")
        if problems:
            raise InputError("\n".join([f"{self.path} cannot be used as it is:", *problems, fix]))
        return out

    def labels(self, column: str, fix: str, *, text: bool = False) -> np.ndarray:
        """The class labels (n,) of a column: whole numbers if all are (unless `text`), else text.

        Numbers are written as such: "007" is text. Raises `InputError` for missing labels.
        """
        j = self.names.index(column)
        cells = [row[j] for row in self.cells]
        bad = [
            line for cell, line in zip(cells, self.lines, strict=True) if cell.lower() in NO_LABEL
        ]
        if bad:
            count = f", {len(bad)} such rows" if len(bad) > 1 else ""
            raise InputError(
                f"{self.path} cannot be used as it is:\n  column {column!r}: a missing label on line "
                f"{bad[0]}{count}\n{fix}"
            )
        if text:
            return np.array(cells)
        numbers = [_whole(cell) for cell in cells]
        return np.array(cells if None in numbers else numbers)

    def with_all(self, columns: Sequence[str], *, labels: bool = False) -> np.ndarray:
        """Which rows (n,) have a value in each of the columns."""
        found, missing = [self.names.index(c) for c in columns], NO_LABEL if labels else MISSING
        return np.array([all(row[j].lower() not in missing for j in found) for row in self.cells])

    def only(self, rows: np.ndarray) -> Table:
        """The table of some of its rows (n,), True for those that stay."""
        kept = np.flatnonzero(rows)
        cells, lines = tuple(self.cells[i] for i in kept), tuple(self.lines[i] for i in kept)
        return replace(self, cells=cells, lines=lines)


def _whole(text: str) -> int | None:
    """A whole number as it is usually written, also as "1.0" (pandas, of a column with gaps)."""
    digits = text.removesuffix(".0")
    number = as_whole(digits)
    return number if number is not None and str(number) == digits and abs(number) < 2**63 else None


def _parse(text: str) -> tuple[float, str]:
    if text.lower() in MISSING:
        return math.nan, "a missing value"
    value = as_float(text)
    if value is None:
        comma = text.count(",") == 1 and as_float(text.replace(",", ".")) is not None
        return (
            math.nan,
            "a comma in a number (write a decimal point, and nothing between thousands)"
            if comma
            else "text",
        )
    return value, "" if math.isfinite(value) else "an infinite value"


def read_csv(path: Path) -> Table:
    """The table in `path`: one header line, then rows separated by commas, semicolons or tabs.

    Cells in quotes may hold separators, line breaks and doubled quotes. A row of blank cells is a
    row (of missing values); lines without anything are left out, which is said on stderr.

    Raises `InputError` for a file that is missing, empty, not text, without rows, with repeated
    or empty names, or with rows of another length than the header.
    """
    rows, blank = read_rows(path)
    names = _check_header(path, rows[0].cells)
    for row in rows[1:]:
        if len(row.cells) != len(names):
            raise InputError(
                f"{path}, line {row.line}: {len(row.cells)} values, but {len(names)} columns in the "
                "header."
            )
    if len(rows) < 2:
        raise InputError(f"{path} has a header but no rows.")
    if blank:
        shown = ", ".join(map(str, blank[:5])) + (", ..." if len(blank) > 5 else "")
        say(f"{path}: blank lines are left out ({shown}).")
    return Table(path, names, tuple(r.cells for r in rows[1:]), tuple(r.line for r in rows[1:]))


def _check_header(path: Path, header: tuple[str, ...]) -> tuple[str, ...]:
    if all(_parse(name)[1] == "" for name in header):
        raise InputError(
            f"{path} starts with numbers: its first line must name the columns, as in 'age,dose,y'."
        )
    if "" in header:
        raise InputError(f"{path}: column {header.index('') + 1} has no name in the header.")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise InputError(f"{path}: the header repeats {', '.join(map(repr, repeated))}.")
    return header


def split_columns(
    table: Table, targets: Sequence[str], drop: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the input columns and of the targets; `InputError` for unknown ones."""
    for kind, names in (("target column", targets), ("column to drop", drop)):
        for name in names:
            if name not in table.names:
                raise unknown_name(kind, name, table.names)
    both = [name for name in targets if name in drop]
    if both:
        raise InputError(f"{', '.join(both)} cannot be both a target and a column to drop.")
    inputs = tuple(n for n in table.names if n not in targets and n not in drop)
    if not inputs:
        raise InputError(f"{table.path} has no input columns besides the target.")
    return inputs, tuple(dict.fromkeys(targets))


def match_columns(table: Table, expected: Sequence[str], optional: Sequence[str]) -> None:
    """Raise `InputError` unless `table` has the `expected` columns and at most `optional` more."""
    missing = [name for name in expected if name not in table.names]
    extra = [name for name in table.names if name not in expected and name not in optional]
    if missing:
        also = f" It has instead: {', '.join(extra)}." if extra else ""
        raise InputError(
            f"{table.path} lacks columns that the model was fitted on: {', '.join(missing)}.{also}"
        )
    if extra:
        raise InputError(
            f"{table.path} has columns that the model does not know: {', '.join(extra)}. "
            "Remove them, or pass --ignore-extra."
        )
