"""The rows of a CSV file, as RFC 4180 has them, whatever it is separated by."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bayesnet._errors import InputError
from bayesnet.cli._numbers import as_float

SEPARATORS = ",;\t"
# So many rows tell the separator.
SAMPLE = 200


@dataclass(frozen=True)
class Row:
    """The cells of one row, and the line of the file on which it begins."""

    cells: tuple[str, ...]
    line: int


def read_rows(path: Path) -> tuple[list[Row], list[int]]:
    """The rows of `path`, the header first, and the numbers of the blank lines that are no row.

    Cells are stripped of blanks. In a file of one column, a blank line between rows is a row whose
    cell is blank. Raises `InputError` for a file that is missing, empty, not text, or not CSV.
    """
    if not path.is_file():
        raise InputError(f"No file at {path}.")
    try:
        # Line breaks stay as they are: those inside quotes belong to the cell.
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(file)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file in UTF-8: save it as CSV (UTF-8).") from error
    if not any(line.strip() for line in lines):
        raise InputError(f"{path} is empty: expected a header line with column names, then rows.")
    rows = list(_parsed(path, lines, _separator(lines)))
    if len(next(row for row in rows if row.cells).cells) == 1:
        last = max(i for i, row in enumerate(rows) if row.cells)
        first = next(i for i, row in enumerate(rows) if row.cells)
        rows[first:last] = [row if row.cells else Row(("",), row.line) for row in rows[first:last]]
    return [row for row in rows if row.cells], [row.line for row in rows if not row.cells]


def _parsed(path: Path, lines: list[str], separator: str) -> Iterator[Row]:
    """The rows of the file; one without cells is a blank line."""
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    line = 1
    try:
        for row in reader:
            # A blank in quotes, or between separators, is a cell; blanks alone are none.
            is_blank = len(row) < 2 and not "".join(lines[line - 1 : reader.line_num]).strip()
            yield Row(() if is_blank else tuple(cell.strip() for cell in row), line)
            line = reader.line_num + 1
    except csv.Error as error:
        hint = " A quote that opens a cell must close it, and quotes inside are doubled."
        raise InputError(
            f"{path}, in the row that begins on line {line}: {error}.{hint}"
        ) from error


def _separator(lines: list[str]) -> str:
    """The separator under which the rows agree best in their length, and hold the most numbers."""
    return max(SEPARATORS, key=lambda separator: _agreement(lines, separator))


def _agreement(lines: list[str], separator: str) -> tuple[float, ...]:
    rows = []
    with suppress(InputError):  # what could be read before tells enough
        for row in islice(_parsed(Path(), lines, separator), SAMPLE + 1):
            if any(row.cells):
                rows.append(row.cells)
    if not rows:
        return (-1.0,)
    header, *others = rows
    width = len(header)
    agree = [row for row in others if len(row) == width]
    if width == 1:
        # Also a file of several columns has one under a separator that does not occur.
        return (0.0, float(len(agree) == len(others)), 0.0, 1.0)
    if others and not agree and max(map(len, others)) > 1:
        # All rows have another length than the header: to be told so, and not read as one column.
        return (0.0, 1.0, 0.0, float(width))
    numbers = sum(_looks_like_number(cell, separator) for row in agree for cell in row)
    share = numbers / max(1, sum(map(len, agree)))
    return (float(len(agree)), float(not others), share, float(width))


def _looks_like_number(cell: str, separator: str) -> bool:
    decimal = cell if separator == "," else cell.replace(",", ".", 1)
    return as_float(decimal) is not None
