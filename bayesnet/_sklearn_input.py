"""Tables of the scikit-learn estimators, checked; loaded with them only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from bayesnet._errors import InputError


def validated(estimator: Any, X: Any, *y: Any, **settings: Any) -> Any:
    """`validate_data` of scikit-learn as float64, text being refused.

    (scikit-learn converts text to numbers where it can, "2020_01" to 202001.) Raises `ValueError` for what
    is no table of numbers.
    """
    refuse_text(estimator, X)
    return validate_data(estimator, X, *y, dtype=np.float64, **settings)


def refuse_text(estimator: Any, X: Any) -> None:
    """Raise `InputError` if a column of X holds text, with the way out."""
    found = {name: text for name, text in _texts(X) if text is not None}
    if not found:
        return
    names = list(found)
    shown = ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
    columns = f"column {shown} holds" if len(names) == 1 else f"columns {shown} hold"
    raise InputError(
        f"{type(estimator).__name__} takes numbers, but {columns} text, such as {found[names[0]]!r}. Encode it in "
        "a pipeline: make_pipeline(make_column_transformer((OneHotEncoder(sparse_output=False), "
        f"{names[:5]!r}), remainder='passthrough'), {type(estimator).__name__}()) of scikit-learn."
    )


def _texts(X: Any) -> Iterator[tuple[Any, str | None]]:
    """Each column that may hold text, by name or number, with the first text in it or None."""
    if hasattr(X, "columns") and hasattr(X, "__getitem__"):
        for name in X.columns:
            column = np.asarray(X[name])
            if column.ndim == 1:  # else names are repeated
                yield name, _first_text(column)
    elif isinstance(X, (np.ndarray, list, tuple)):
        # Of lists every value as it is: NumPy would make text of the numbers beside a text.
        matrix = X if isinstance(X, np.ndarray) else np.asarray(X, object)
        if matrix.ndim == 2 and matrix.dtype.kind in "OUS":
            for j, column in enumerate(matrix.T):
                yield j, _first_text(column)


def _first_text(column: np.ndarray) -> str | None:
    if column.dtype.kind not in "OUS":
        return None
    return next((str(value) for value in column if isinstance(value, (str, bytes))), None)
