"""One line for an object: what it is, what it was fitted to, whether to trust it. Never pages of arrays."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

# Longer texts of a field are cut.
LONGEST = 60
# So many members of a tuple, or numbers of an array, are shown.
MOST = 4


def one_line(self: Any) -> str:
    """`__repr__` of a dataclass: its fields in one line, arrays by their type and shape."""
    shown = (f for f in dataclasses.fields(self) if f.repr)
    given = (f"{f.name}={brief(getattr(self, f.name, None))}" for f in shown)
    return f"{type(self).__name__}({', '.join(given)})"


def brief(value: Any) -> str:
    """A value in a few words, without line breaks."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        if np.size(value) <= MOST:
            return str(np.asarray(value).tolist())
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, (tuple, list)) and len(value) > MOST:
        first = ", ".join(map(brief, value[:2]))
        return f"({first}, ... {len(value)} in all)"
    if isinstance(value, tuple):
        return f"({', '.join(map(brief, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, dict):
        return f"{{{', '.join(map(str, value))}}}"
    text = " ".join(repr(value).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."


def fitted_to(posterior: Any, what: str, table: tuple[int, int, int], trust: str) -> str:
    """The line of a posterior: `what` it is, the table's rows, columns and targets, whether to trust it."""
    rows, columns, targets = table
    size = f"{_count(rows, 'row')} of {_count(columns, 'column')}, {_count(targets, 'target')}"
    return f"{type(posterior).__name__}: {what}, fitted to {size}; {trust}"


def method_name(method: Any) -> str:
    """The name of a method's class."""
    return "an unknown method" if method is None else type(method).__name__


def judged(problems: Any, ask: str = ".diagnostics()") -> str:
    """Whether to trust a posterior whose `problems` are known."""
    known = tuple(problems)
    if known:
        more = f" (and {len(known) - 1} more)" if len(known) > 1 else ""
        return f"do not rely on it yet: {brief(known[0])[1:-1]}{more}; {ask} says all"
    return f"whether to trust it says {ask}"


def typicality(posterior: Any) -> str:
    """Whether a table is like those that weights were trained on, if that has been computed."""
    limit, known = posterior.pfn.card.get("surprise_limit"), vars(posterior).get("surprise")
    if limit is None or known is None or not np.isfinite(known):
        return "whether the table is like those of its training says .surprise"
    word = "unlike" if known > limit else "like"
    return f"the table is {word} those of its training (surprise {known:.2f}, limit {limit:.2f})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
