"""A table ready for inference: validated, scaled, and padded to a size bucket.

`Data` holds the training rows in the prior's coordinates (`Rows`, a pytree); `Scaling` is the map between
those coordinates and the units of the user. Validation happens here, before any compute.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from bayesnet._columns import Names
from bayesnet._errors import InputError
from bayesnet._matrix import as_matrix
from bayesnet._repr import one_line
from bayesnet._scales import (
    affine_in,
    check_kept,
    check_near,
    check_positive,
    check_targets,
    check_y_scale,
    is_constant,
    moments,
    standardization,
)
from bayesnet._types import Array, ArrayLike, Bool, Float, OnHost

# For users; the other names serve the rooms of the library.
__all__ = ["Scaling", "standardize"]

# What is said of targets that tell no scale.
NO_SCALE = (
    "y is constant in the table, which says nothing of its scale: it is only centred, and functions and noise "
    "of the prior have its own units. Rescale y yourself if these are far from 1, or look whether y is the "
    "column you meant."
)
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


@dataclass(frozen=True, eq=False)
class Scaling:
    """The affine map between user units and the prior's coordinates, per column.

    `scaled = (user - loc) / scale`. Arrays are float64: `x_loc`, `x_scale` (d,) and
    `y_loc`, `y_scale` (m,). `y_spread` (m,) is the standard deviation of y in the table, in the
    units of y, to which the default laws of a learned noise level refer; None: it is `y_scale`.
    `names` are those of the d columns, if the table was a data frame: every later frame is put in
    their order.
    """

    x_loc: np.ndarray
    x_scale: np.ndarray
    y_loc: np.ndarray
    y_scale: np.ndarray
    y_spread: np.ndarray | None = None
    names: Names | None = None

    __repr__ = one_line

    @staticmethod
    def from_data(
        x: np.ndarray, y: np.ndarray, *, scale_y: bool = True, weight: np.ndarray | None = None
    ) -> Scaling:
        """Standardise every column to mean 0 and sd 1; a constant column is only centred.

        Missing targets (NaN) count for nothing, and each row as often as its `weight` (n,) says.
        """
        y_loc, y_scale = standardization(y, weight) if scale_y else identity(y.shape[1])
        check_y_scale(y_scale)
        return Scaling(*standardization(x, weight), y_loc, y_scale)

    @staticmethod
    def identity(in_dim: int, out_dim: int) -> Scaling:
        """No scaling: the prior is stated in the units of the data."""
        return Scaling(*identity(in_dim), *identity(out_dim))

    @staticmethod
    def from_bounds(
        bounds: np.ndarray,
        y_loc: np.ndarray,
        y_scale: np.ndarray,
        y_spread: np.ndarray | None = None,
    ) -> Scaling:
        """Scale inputs so that a uniform law on the box `bounds` (2, d) has mean 0 and sd 1."""
        low, high = np.asarray(bounds, np.float64)
        return Scaling(
            low / 2 + high / 2, (high / 2 - low / 2) / np.sqrt(3.0), y_loc, y_scale, y_spread
        )

    @property
    def relative_spread(self) -> np.ndarray:
        """The standard deviation of y in scaled coordinates (m,): 1 where the table was standardised."""
        if self.y_spread is None:
            return np.ones_like(self.y_scale)
        return self.y_spread / self.y_scale

    def with_spread(self, y: np.ndarray, weight: np.ndarray | None = None) -> Scaling:
        """The same map, knowing the spread of targets `y` (n, m); one that knows it already is kept.

        A column of y that is constant has no spread, and gets `y_scale`.
        """
        if self.y_spread is not None:
            return self
        loc, spread = moments(y, weight)
        return replace(self, y_spread=np.where(is_constant(loc, spread), self.y_scale, spread))

    def matrix(self, x: ArrayLike, what: str = "X") -> np.ndarray:
        """Rows of any kind as a float64 matrix (n, d) in user units, columns in the order of the table.

        Raises `InputError` for missing or unknown columns of a frame, another number of columns, NaN.
        """
        return as_matrix(x, what, columns=len(self.x_loc), known=self.names)

    def x_in(self, x: np.ndarray) -> np.ndarray:
        """User units (n, d) to scaled coordinates (n, d).

        Raises `InputError` for rows so far away that their distance is not a number.
        """
        scaled = affine_in(x, self.x_loc, self.x_scale)
        check_near(scaled, np.float64)
        return scaled

    def y_in(self, y: np.ndarray) -> np.ndarray:
        """User units (n, m) to scaled coordinates (n, m)."""
        return affine_in(y, self.y_loc, self.y_scale)

    def y_out(self, y: Any) -> Any:
        """Scaled coordinates (..., m) to user units."""
        return y * self.y_scale + self.y_loc


def identity(columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Location 0 and scale 1 for each column."""
    return np.zeros(columns), np.ones(columns)


def tells_no_scale(y: np.ndarray, weight: np.ndarray | None = None) -> bool:
    """Whether a column of targets (n, m), NaN where missing, is constant where rows count."""
    return bool(is_constant(*moments(y, weight)).any())


def standardize(x: ArrayLike) -> np.ndarray:
    """Columns of `x` (n, d) at mean 0 and sd 1: the coordinates in which priors live."""
    matrix = as_matrix(x, "x")
    return affine_in(matrix, *standardization(matrix))


class Rows(eqx.Module):
    """Training rows in scaled coordinates, padded to a bucket: a pytree for jitted programs.

    Padded rows copy a real row and are switched off by `mask`, so that every likelihood
    stays finite on them. `y_var` is per-row known noise variance in scaled units, or None.
    `weight` multiplies each row's log likelihood; `observed` tells the targets that were
    measured from missing ones (whose `y` is 0); None stands for ones.
    """

    x: Float[OnHost, "n d"]
    y: Float[OnHost, "n m"]
    mask: Bool[OnHost, " n"]
    y_var: Float[OnHost, "n m"] | None = None
    weight: Float[OnHost, " n"] | None = None
    observed: Bool[OnHost, "n m"] | None = None

    def share(self) -> Float[Array, "n m"]:
        """How often each target counts: 0 for padding and missing ones, else its row's weight."""
        counts = jnp.broadcast_to(self.mask[:, None], self.y.shape)
        if self.observed is not None:
            counts = counts & self.observed
        weight = 1.0 if self.weight is None else self.weight[:, None]
        return jnp.where(counts, weight, 0.0).astype(self.y.dtype)


@dataclass(frozen=True, eq=False)
class Data:
    """A validated table: padded rows in the prior's coordinates and the map to user units."""

    rows: Rows
    scaling: Scaling
    num_rows: int

    __repr__ = one_line

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
        """The true rows of the targets (n, m), scaled, without padding; NaN where missing."""
        y = np.asarray(self.rows.y)
        if self.rows.observed is not None:
            y = np.where(np.asarray(self.rows.observed), y, np.nan)
        return y[: self.num_rows]


def check_table(
    x: ArrayLike,
    y: ArrayLike,
    y_var: ArrayLike | None = None,
    *,
    missing: bool = False,
    known: Names | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Validated float64 matrices X (n, d), y (n, m) and y_var (n, m) or None, in user units.

    With `missing` some targets may be NaN, though not a whole column of them. A frame X is put in
    the order of the `known` names of columns, if there are such.
    """
    x_matrix = as_matrix(x, "X", known=known)
    y_matrix = as_matrix(y, "y", missing=missing)
    if len(x_matrix) != len(y_matrix):
        raise InputError(
            f"X has {len(x_matrix)} rows but y has {len(y_matrix)}: one target per row is needed."
        )
    absent = np.isnan(y_matrix)
    check_targets(y_matrix)
    if absent.all(axis=0).any():
        column = int(np.argmax(absent.all(axis=0)))
        raise InputError(f"Column {column} of y has no observed value: leave it out.")
    if y_var is None:
        return x_matrix, y_matrix, None
    variance = as_matrix(y_var, "y_var", missing=missing)
    if variance.shape != y_matrix.shape:
        raise InputError(
            f"y_var has shape {variance.shape}, y has {y_matrix.shape}: they must agree."
        )
    # Nothing is read where there is no target.
    variance = np.where(absent, 1.0, variance)
    if not (variance > 0).all():
        raise InputError("y_var holds variances, which must be positive (units of y, squared).")
    return x_matrix, y_matrix, variance


def check_weight(weight: ArrayLike | None, num_rows: int) -> np.ndarray | None:
    """Validated row weights (n,), or None. Raises `InputError` unless finite and not negative."""
    if weight is None:
        return None
    column = as_matrix(weight, "sample_weight")
    if column.shape != (num_rows, 1):
        raise InputError(
            f"sample_weight must hold one number a row, shape ({num_rows},), got {np.shape(weight)}."
        )
    if (column < 0).any():
        raise InputError("sample_weight must not be negative: 0 leaves a row out.")
    if not column.any():
        raise InputError("sample_weight is zero for all rows: nothing is left to fit.")
    return column[:, 0]


def make_data(
    x: np.ndarray,
    y: np.ndarray,
    y_var: np.ndarray | None,
    scaling: Scaling,
    *,
    weight: np.ndarray | None = None,
    pad: bool = True,
    host: bool = False,
    dtype: Any = jnp.float32,
) -> Data:
    """`Data` in scaled coordinates from validated matrices in user units; NaN in y is missing.

    With `host` the arrays stay NumPy's: a PFN reads a table in less time than JAX takes to make them
    its own.
    """
    n = len(x)
    size = bucket_size(n) if pad else n
    own: Any = np.asarray if host else jnp.asarray

    def padded(a: np.ndarray | None, kind: Any = dtype) -> Any:
        return None if a is None else own(pad_rows(a, size).astype(kind))

    absent = np.isnan(y)
    x_scaled, y_scaled = scaling.x_in(x), np.where(absent, 0.0, scaling.y_in(y))
    variance = None if y_var is None else y_var / scaling.y_scale**2
    check_near(x_scaled, dtype)
    for name, a in (("X", x_scaled), ("y", y_scaled)):
        check_kept(name, a, dtype)
    check_positive("y_var", variance, dtype)
    check_positive("sample_weight", weight, dtype)
    rows = Rows(
        x=padded(x_scaled),
        y=padded(y_scaled),
        mask=own(np.arange(size) < n),
        y_var=padded(variance),
        weight=padded(weight),
        observed=padded(~absent if absent.any() else None, bool),
    )
    return Data(rows, scaling, n)
