"""Numbers as people write them in tables and options; more than Python's `float` takes is text."""

from __future__ import annotations

import re

# `float` and `int` take 2020_01 (a month, an id) and digits of every script for numbers too.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)


def as_float(text: str) -> float | None:
    """The number that `text` is, with a decimal point, an exponent or "inf"; None if it is none."""
    is_number = _NUMBER.fullmatch(text) or _INFINITE.fullmatch(text)
    return float(text) if is_number else None


def as_whole(text: str) -> int | None:
    """The whole number that `text` is, or None."""
    # Digits without end are no number of anything (and more than 4300 of them an error of Python).
    return int(text) if len(text) < 100 and _WHOLE.fullmatch(text) else None
