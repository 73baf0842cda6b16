"""A table ready for inference: validated, scaled, and padded to a size bucket.

`Data` holds the training rows in the prior's coordinates (`Rows`, a pytree); `Scaling` is the map between
those coordinates and the units of the user. Validation happens here, before any compute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError
from bayesnet._types import Array, ArrayLike, Bool, Float

# Sizes to which rows are padded, so that a growing table (Bayesian optimization) meets a
# handful of shapes and not one compilation per row. Above the last one: multiples of it.
BUCKETS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


def bucket_size(n: int) -> int:
    """The smallest bucket that holds `n` rows."""
    for size in BUCKETS:
        if n <= size:
            return size
    return -(-n // BUCKETS[-1]) * BUCKETS[-1]


def pad_rows(a: np.ndarray, size: int) -> np.ndarray:
    """Pad axis 0 to `size` rows with copies of the first row (a real one: no NaN, no zero)."""
    if len(a) == size:
        return a
    return np.concatenate([a, np.repeat(a[:1], size - len(a), axis=0)])


def as_matrix(a: ArrayLike, name: str, *, columns: int | None = None) -> np.ndarray:
    """`a` as a float64 matrix (n, d), or an `InputError` that says what is wrong with it.

    Accepts NumPy, JAX and torch arrays, nested lists, and pandas or polars frames; a vector
    is read as one column.
    """
    if hasattr(a, "to_numpy"):
        a = a.to_numpy()
    elif hasattr(a, "detach"):
        a = a.detach().cpu().numpy()
    if type(a).__module__.startswith("scipy.sparse"):
        raise InputError(f"{name} is a sparse matrix; pass a dense array ({name}.toarray()).")
    try:
        array = np.asarray(a)
    except ValueError as error:
        raise InputError(f"{name} must be a matrix: its rows differ in length.") from error
    if np.iscomplexobj(array):
        raise InputError(f"Complex data not supported: {name} must hold real numbers.")
    try:
        matrix = _as_numbers(array)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} must hold numbers, got {array.dtype} values such as {array.ravel()[:1]}. "
            "Encode text, dates and categories as numbers first (for example one-hot)."
        ) from error
    if matrix.ndim == 1:
        matrix = matrix[:, None]
    if matrix.ndim != 2:
        raise InputError(f"{name} must be a matrix (rows, columns), got shape {array.shape}.")
    if matrix.shape[0] == 0 or matrix.shape[1] == 0:
        raise InputError(f"{name} has no data: 0 sample(s) or 0 feature(s) in shape {array.shape}.")
    if not np.isfinite(matrix).all():
        row, column = np.argwhere(~np.isfinite(matrix))[0]
        raise InputError(
            f"{name} holds NaN or infinity (first at row {row}, column {column}). "
            "Drop or impute those rows first."
        )
    if columns is not None and matrix.shape[1] != columns:
        raise InputError(
            f"{name} has {matrix.shape[1]} features, but the model expects {columns} features "
            "(columns) as input: pass the columns that it was fitted on, in the same order."
        )
    return matrix


def _as_numbers(array: np.ndarray) -> np.ndarray:
    """`array` as float64; text and dates, which NumPy would convert, are refused."""
    if array.dtype.kind not in "biufO":
        raise TypeError("not numbers")
    if array.dtype.kind == "O":
        if any(isinstance(value, (str, bytes)) for value in array.ravel()):
            raise TypeError("text")
        # pandas' missing value has no conversion to float.
        array = np.asarray(
            [np.nan if v is None or _is_na(v) else v for v in array.ravel()]
        ).reshape(array.shape)
        if array.dtype.kind not in "biufO":
            raise TypeError("not numbers")
    return array.astype(np.float64)


def _is_na(value: Any) -> bool:
    return type(value).__name__ in ("NAType", "NaTType")


@dataclass(frozen=True, eq=False)
class Scaling:
    """The affine map between user units and the prior's coordinates, per column.

    `scaled = (user - loc) / scale`. Arrays are float64: `x_loc`, `x_scale` (d,) and
    `y_loc`, `y_scale` (m,).
    """

    x_loc: np.ndarray
    x_scale: np.ndarray
    y_loc: np.ndarray
    y_scale: np.ndarray

    @staticmethod
    def from_data(x: np.ndarray, y: np.ndarray, *, scale_y: bool = True) -> Scaling:
        """Standardise every column to mean 0 and sd 1; a constant column is only centred."""
        y_loc, y_scale = standardization(y) if scale_y else identity(y.shape[1])
        return Scaling(*standardization(x), y_loc, y_scale)

    @staticmethod
    def identity(in_dim: int, out_dim: int) -> Scaling:
        """No scaling: the prior is stated in the units of the data."""
        return Scaling(*identity(in_dim), *identity(out_dim))

    @staticmethod
    def from_bounds(bounds: np.ndarray, y_loc: np.ndarray, y_scale: np.ndarray) -> Scaling:
        """Scale inputs so that a uniform law on the box `bounds` (2, d) has mean 0 and sd 1."""
        low, high = np.asarray(bounds, np.float64)
        return Scaling((low + high) / 2, (high - low) / np.sqrt(12.0), y_loc, y_scale)

    def x_in(self, x: np.ndarray) -> np.ndarray:
        """User units (n, d) to scaled coordinates (n, d)."""
        return (x - self.x_loc) / self.x_scale

    def y_in(self, y: np.ndarray) -> np.ndarray:
        """User units (n, m) to scaled coordinates (n, m)."""
        return (y - self.y_loc) / self.y_scale

    def y_out(self, y: Any) -> Any:
        """Scaled coordinates (..., m) to user units."""
        return y * self.y_scale + self.y_loc


def identity(columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Location 0 and scale 1 for each column."""
    return np.zeros(columns), np.ones(columns)


def standardization(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (ddof 0) of each column; scale 1 where it is constant."""
    loc = a.mean(axis=0)
    scale = a.std(axis=0)
    # A column that is constant up to rounding has no scale of its own. Relative to the values,
    # so that the units of a column never decide.
    constant = scale <= 1e-12 * np.abs(loc)
    return loc, np.where(constant, 1.0, scale)


def standardize(x: ArrayLike) -> np.ndarray:
    """Columns of `x` (n, d) at mean 0 and sd 1: the coordinates in which priors live."""
    matrix = as_matrix(x, "x")
    loc, scale = standardization(matrix)
    return (matrix - loc) / scale


class Rows(eqx.Module):
    """Training rows in scaled coordinates, padded to a bucket: a pytree for jitted programs.

    Padded rows copy a real row and are switched off by `mask`, so that every likelihood
    stays finite on them. `y_var` is per-row known noise variance in scaled units, or None.
    """

    x: Float[Array, "n d"]
    y: Float[Array, "n m"]
    mask: Bool[Array, " n"]
    y_var: Float[Array, "n m"] | None = None


@dataclass(frozen=True, eq=False)
class Data:
    """A validated table: padded rows in the prior's coordinates and the map to user units."""

    rows: Rows
    scaling: Scaling
    num_rows: int

    @property
    def in_dim(self) -> int:
        """d, the number of input columns."""
        return self.rows.x.shape[1]

    @property
    def out_dim(self) -> int:
        """m, the number of target columns."""
        return self.rows.y.shape[1]

    @property
    def x(self) -> np.ndarray:
        """The true rows of the inputs (n, d), scaled, without padding."""
        return np.asarray(self.rows.x)[: self.num_rows]

    @property
    def y(self) -> np.ndarray:
        """The true rows of the targets (n, m), scaled, without padding."""
        return np.asarray(self.rows.y)[: self.num_rows]


def check_table(
    x: ArrayLike, y: ArrayLike, y_var: ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Validated float64 matrices X (n, d), y (n, m) and y_var (n, m) or None, in user units."""
    x_matrix = as_matrix(x, "X")
    y_matrix = as_matrix(y, "y")
    if len(x_matrix) != len(y_matrix):
        raise InputError(
            f"X has {len(x_matrix)} rows but y has {len(y_matrix)}: one target per row is needed."
        )
    if y_var is None:
        return x_matrix, y_matrix, None
    variance = as_matrix(y_var, "y_var")
    if variance.shape != y_matrix.shape:
        raise InputError(
            f"y_var has shape {variance.shape}, y has {y_matrix.shape}: they must agree."
        )
    if (variance <= 0).any():
        raise InputError("y_var holds variances, which must be positive (units of y, squared).")
    return x_matrix, y_matrix, variance


def make_data(
    x: np.ndarray,
    y: np.ndarray,
    y_var: np.ndarray | None,
    scaling: Scaling,
    *,
    pad: bool = True,
    dtype: Any = jnp.float32,
) -> Data:
    """`Data` in scaled coordinates from validated matrices in user units."""
    n = len(x)
    size = bucket_size(n) if pad else n
    variance = None
    if y_var is not None:
        variance = jnp.asarray(pad_rows(y_var / scaling.y_scale**2, size), dtype)
    rows = Rows(
        x=jnp.asarray(pad_rows(scaling.x_in(x), size), dtype),
        y=jnp.asarray(pad_rows(scaling.y_in(y), size), dtype),
        mask=jnp.arange(size) < n,
        y_var=variance,
    )
    return Data(rows, scaling, n)
