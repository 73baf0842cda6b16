"""Scales of columns in any unit: moments that neither overflow nor vanish, and what a precision cannot hold."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesnet._errors import InputError

# A column is constant if its sd is below this part of its mean: some units in the last place.
ROUNDING = 1e-14
# Targets and their sds stay between these: variances in the units of y must be numbers.
LARGEST_Y, SMALLEST_Y = 1e140, 1e-140
# Coordinates beyond these cannot be squared and summed, in the precision of samplers and in float64.
FARTHEST = {np.dtype(np.float32): 1e18, np.dtype(np.float64): 1e150}
# Rounding to the precision of samplers may move a value by this part of the range of its column.
BLURRED = 0.02


def standardization(
    a: np.ndarray, weight: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (ddof 0) of each column; scale 1 where it is constant, as of `moments`."""
    loc, scale = moments(a, weight)
    return loc, np.where(is_constant(loc, scale), 1.0, scale)


def moments(a: np.ndarray, weight: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (ddof 0) of each column.

    Of a matrix (n, d), over the values that are not NaN, each row counted `weight` (n,) times;
    where none is missing, of any number of matrices (..., n, d). Columns are brought near 1 before
    they are squared, so that no unit makes them overflow or vanish. Raises `InputError` for a column
    without a value, or one whose sd is below what float64 holds.
    """
    present = ~np.isnan(a)
    unit = powers_of_two(np.where(present, a, 0.0))
    near = a / unit[..., None, :]
    if weight is None and present.all():
        loc, scale = near.mean(axis=-2), near.std(axis=-2)
    else:
        share = present * (1.0 if weight is None else weight[:, None])
        total = share.sum(axis=0)
        if not (total > 0).all():
            column = int(np.argmin(total))
            raise InputError(
                f"Column {column} has no value left: all are missing or have sample_weight 0."
            )
        known = np.where(present, near, 0.0)
        loc = (share * known).sum(axis=0) / total
        scale = np.sqrt((share * (known - loc) ** 2).sum(axis=0) / total)
    # The sum of a mean is rounded: of equal values it may differ from them by more than their unit is wide.
    low = np.where(present, near, np.inf).min(axis=-2)
    loc = np.clip(loc, low, np.where(present, near, -np.inf).max(axis=-2))
    lost = ~is_constant(loc, scale) & (scale * unit < np.finfo(np.float64).tiny)
    if lost.any():
        column = int(np.argwhere(lost)[0][-1])
        raise InputError(
            f"The values of column {column} differ by less than float64 can scale (about 1e-308): multiply it "
            "by a large number first."
        )
    return loc * unit, scale * unit


def powers_of_two(a: np.ndarray) -> np.ndarray:
    """The power of 2 just below the largest value of each column of (..., n, d); 1 for zeros.

    Dividing by it rounds nothing.
    """
    largest = np.abs(a).max(axis=-2)
    return np.where(largest > 0, np.ldexp(1.0, np.frexp(largest)[1] - 1), 1.0)


def is_constant(loc: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Whether a column of this mean and sd is constant up to rounding, and has no scale of its own.

    Relative to the values, so that the units of a column never decide.
    """
    constant: np.ndarray = scale <= ROUNDING * np.abs(loc)
    return constant


def affine_in(a: np.ndarray, loc: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """`(a - loc) / scale`, also where the difference would overflow."""
    with np.errstate(over="ignore"):
        difference = a - loc
        if np.isfinite(difference).all():
            return difference / scale
        return (0.5 * a - 0.5 * loc) / (0.5 * scale)


def check_targets(y: np.ndarray) -> None:
    """Raise `InputError` for targets too large to be squared."""
    if (np.abs(y) > LARGEST_Y).any():
        raise InputError(
            f"y holds {np.nanmax(np.abs(y)):.2g}, whose square is no number: divide y by a large number first."
        )


def check_y_scale(scale: np.ndarray) -> None:
    """Raise `InputError` for targets whose sd (..., m) is too small to be squared."""
    if (scale < SMALLEST_Y).any():
        column = int(np.argwhere(scale < SMALLEST_Y)[0][-1])
        raise InputError(
            f"Column {column} of y has an sd of {scale.min():.2g}, and variances in its units would be 0: "
            f"multiply y by a number such as {1.0 / scale.min():.0e} first."
        )


def check_near(scaled: np.ndarray, dtype: Any) -> None:
    """Raise `InputError` for coordinates (n, d) too large for distances in the precision `dtype`."""
    limit = FARTHEST.get(np.dtype(dtype), np.inf)
    far = ~(np.abs(scaled) <= limit)
    if far.any():
        row, column = np.argwhere(far)[0][-2:]
        raise InputError(
            f"X at row {row}, column {column} lies {scaled[far][0]:.2g} units of the model's coordinates from their "
            f"centre, beyond what {np.dtype(dtype).name} can square: rescale the column, or leave units='data' out."
        )


def as_single(scaled: np.ndarray) -> np.ndarray:
    """Scaled rows (n, d) as float32. Raises `InputError` for rows too far away for it."""
    check_near(scaled, np.float32)
    return scaled.astype(np.float32)


def check_range(a: np.ndarray, dtype: Any, what: str) -> np.ndarray:
    """`a`, locations or scales of columns; `InputError` where they overflow or vanish in `dtype`."""
    with np.errstate(over="ignore", under="ignore"):
        kept = a.astype(dtype)
    if (~np.isfinite(kept) | ((kept == 0) & (a != 0))).any():
        raise InputError(
            f"The units of {what} (such as {np.abs(a).max():.2g}) are beyond {np.dtype(dtype).name}: use `predict`, "
            "which computes in float64, or rescale the column."
        )
    return a


def check_kept(name: str, scaled: np.ndarray, dtype: Any) -> None:
    """Raise `InputError` for a column (n, k) that rounding to `dtype` wipes out, as it can do to user units."""
    with np.errstate(over="ignore", under="ignore"):
        moved = np.abs(scaled - scaled.astype(dtype).astype(np.float64)).max(axis=0)
    extent = np.ptp(scaled, axis=0)
    lost = (extent > ROUNDING * np.abs(scaled).max(axis=0)) & (moved > BLURRED * extent)
    if lost.any():
        column = int(np.argmax(lost))
        low, high = scaled[:, column].min(), scaled[:, column].max()
        raise InputError(
            f"Column {column} of {name} (from {low:.6g} to {high:.6g} in the model's coordinates) is lost in "
            f"{np.dtype(dtype).name}: subtract its mean and divide it by its sd, or leave units='data' out."
        )


def check_positive(name: str, values: np.ndarray | None, dtype: Any) -> None:
    """Raise `InputError` for positive numbers that become 0 or infinity in the precision `dtype`."""
    if values is None:
        return
    with np.errstate(over="ignore", under="ignore"):
        kept = values.astype(dtype)
    lost = (values > 0) & ((kept == 0) | ~np.isfinite(kept))
    if name == "sample_weight":
        lost = ~np.isfinite(kept)
    if lost.any():
        raise InputError(
            f"{name} holds {values[lost][0]:.3g} (in the model's coordinates), which {np.dtype(dtype).name} cannot hold: "
            "use numbers nearer to 1."
        )
