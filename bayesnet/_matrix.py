"""Arrays of any kind as a float64 matrix, with errors that say what is wrong and where."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesnet._columns import Names, names_of, order_of
from bayesnet._errors import InputError
from bayesnet._types import ArrayLike


def as_matrix(
    a: ArrayLike,
    name: str,
    *,
    columns: int | None = None,
    missing: bool = False,
    known: Names | None = None,
) -> np.ndarray:
    """`a` as a float64 matrix (n, d), or an `InputError` that says what is wrong with it.

    Accepts NumPy, JAX and torch arrays of any real dtype (half precision too), nested lists, and
    pandas or polars frames; a vector is read as one column. Columns of a frame come in the order of
    the `known` names, if there are such. NaN is an error unless `missing`, and so is what a NumPy
    mask hides; infinity always is.
    """
    names = names_of(a)
    order = order_of(a, known, name)
    a = on_host(a)
    if type(a).__module__.startswith("scipy.sparse"):
        raise InputError(f"{name} is a sparse matrix; pass a dense array ({name}.toarray()).")
    if np.ma.is_masked(a):
        a = np.ma.filled(a.astype(np.float64), np.nan)
    try:
        array = widened(np.asarray(a))
    except ValueError as error:
        raise InputError(f"{name} must be a matrix: its rows differ in length.") from error
    if np.iscomplexobj(array):
        raise InputError(f"Complex data not supported: {name} must hold real numbers.")
    try:
        matrix = _as_numbers(array)
    except (TypeError, ValueError) as error:
        fix = "Encode text, dates and categories as numbers first (for example one-hot)."
        if name == "y":
            fix = "For class labels pass likelihood=bn.CategoricalLikelihood()."
        raise InputError(
            f"{name} must hold numbers, got {_no_number(array, names)}. {fix}"
        ) from error
    if matrix.ndim == 1:
        matrix = matrix[:, None]
    if matrix.ndim != 2:
        raise InputError(f"{name} must be a matrix (rows, columns), got shape {array.shape}.")
    if matrix.shape[0] == 0 or matrix.shape[1] == 0:
        raise InputError(f"{name} has no data: 0 sample(s) or 0 feature(s) in shape {array.shape}.")
    if order is not None:
        matrix = matrix[:, order]
    bad = np.isinf(matrix) if missing else ~np.isfinite(matrix)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        what = "infinity" if missing else "NaN or infinity"
        raise InputError(
            f"{name} holds {what} (first at row {row}, column {column}). "
            "Drop or impute those rows first."
        )
    if columns is not None and matrix.shape[1] != columns:
        raise InputError(
            f"{name} has {matrix.shape[1]} features, but the model expects {columns} features "
            "(columns) as input: pass the columns that it was fitted on, in the same order."
        )
    # In one layout: sums over rows are the same to the last bit, whatever the container was.
    return np.ascontiguousarray(matrix)


def on_host(a: Any) -> Any:
    """A frame or a torch tensor as a NumPy array; anything else as it is."""
    if hasattr(a, "to_numpy"):
        return a.to_numpy()
    if hasattr(a, "detach"):
        a = a.detach().cpu()
        # NumPy has no bfloat16, and torch does not convert it.
        return (a.double() if a.is_floating_point() else a).numpy()
    if isinstance(a, (list, tuple)) and any(hasattr(row, "detach") for row in a):
        return [on_host(row) for row in a]
    return a


def as_numbers(a: ArrayLike) -> np.ndarray:
    """`a` of any shape as float64, without any check. Raises `TypeError` or `ValueError` for text."""
    return np.asarray(widened(np.asarray(on_host(a))), np.float64)


def widened(array: np.ndarray) -> np.ndarray:
    """An array of a float or integer type that NumPy does not know (bfloat16, int4, ...) as float64."""
    return array.astype(np.float64) if array.dtype.isbuiltin == 2 else array


def _no_number(array: np.ndarray, names: Any) -> str:
    """The first value that is no number, in words, with its column if that has a name."""
    values = np.atleast_1d(array)
    values = values.reshape(len(values), -1)
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        if array.dtype.kind != "O" or not _is_number(value):
            named = names is not None and len(names) == values.shape[1]
            where = f" in column {names[column]!r}" if named else ""
            return f"{array.dtype} values such as {value!r}{where}"
    return f"{array.dtype} values"


def _is_number(value: Any) -> bool:
    try:
        _as_numbers(np.array([value], object))
    except (TypeError, ValueError):
        return False
    return True


def _as_numbers(array: np.ndarray) -> np.ndarray:
    """`array` as float64; text and dates, which NumPy would convert, are refused."""
    if array.dtype.kind not in "biufO":
        raise TypeError("not numbers")
    if array.dtype.kind == "O":
        if any(isinstance(value, (str, bytes)) for value in array.ravel()):
            raise TypeError("text")
        # pandas' missing value has no conversion to float.
        array = np.asarray([np.nan if v is None or is_na(v) else v for v in array.ravel()]).reshape(
            array.shape
        )
        if array.dtype.kind not in "biufO":
            raise TypeError("not numbers")
    return array.astype(np.float64)


def is_na(value: Any) -> bool:
    """Whether a value is the missing one of pandas, whose comparisons have no truth value."""
    return type(value).__name__ in ("NAType", "NaTType")
