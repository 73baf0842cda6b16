"""Tables in CSV files: read without pandas, with errors that name the column and the line."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bayesnet._errors import InputError, unknown_name

SEPARATORS = ",;\t"
MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}
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
    try:
        return int(digits) if str(int(digits)) == digits else None
    except ValueError:
        return None


def _parse(text: str) -> tuple[float, str]:
    if text.lower() in MISSING:
        return math.nan, "a missing value"
    try:
        value = float(text)
    except ValueError:
        return math.nan, "text"
    return value, "" if math.isfinite(value) else "an infinite value"


def read_csv(path: Path) -> Table:
    """The table in `path`: one header line, then rows separated by commas, semicolons or tabs.

    Raises `InputError` for a file that is missing, empty, not text, without rows, with repeated
    or empty names, or with rows of another length than the header.
    """
    if not path.is_file():
        raise InputError(f"No file at {path}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file in UTF-8: save it as CSV (UTF-8).") from error
    lines = text.splitlines()
    if not lines:
        raise InputError(f"{path} is empty: expected a header line with column names, then rows.")
    separator = max(SEPARATORS, key=lines[0].count)
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    try:
        rows = [([cell.strip() for cell in row], reader.line_num) for row in reader if any(row)]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}.") from error
    names = _check_header(path, rows[0][0] if rows else [])
    for row, line in rows[1:]:
        if len(row) != len(names):
            raise InputError(
                f"{path}, line {line}: {len(row)} values, but {len(names)} columns in the header."
            )
    if len(rows) < 2:
        raise InputError(f"{path} has a header but no rows.")
    return Table(path, names, tuple(tuple(r) for r, _ in rows[1:]), tuple(n for _, n in rows[1:]))


def _check_header(path: Path, header: list[str]) -> tuple[str, ...]:
    if all(_parse(name)[1] == "" for name in header):
        raise InputError(
            f"{path} starts with numbers: its first line must name the columns, as in 'age,dose,y'."
        )
    if "" in header:
        raise InputError(f"{path}: column {header.index('') + 1} has no name in the header.")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise InputError(f"{path}: the header repeats {', '.join(map(repr, repeated))}.")
    return tuple(header)


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
