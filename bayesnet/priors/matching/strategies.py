"""More places where functions are compared: grids, neighbourhoods of rows, weighted mixes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesnet._errors import InputError
from bayesnet._matrix import as_matrix
from bayesnet._repr import one_line
from bayesnet.priors.matching.points import (
    Box,
    MixedPoints,
    NearPoints,
    PointLaw,
    RowPoints,
    ScaledPoints,
    as_point_law,
    check_columns,
)

# A grid with more nodes than this would only be a worse way to write a box.
MOST_NODES = 100_000


@dataclass(frozen=True)
class Grid:
    """The nodes of a regular grid on a box, in one to three dimensions.

    Args:
        low, high: vectors with one bound a column (numbers: one dimension), in the coordinates
            of the prior.
        num: nodes a column, a number or one a column; at least 2.

    Increments are measured along segments between nodes. In more than three dimensions a grid
    is coarse whatever its size: use a `Box`, rows, or `Near`.

    Raises:
        InputError: bad bounds, fewer than 2 nodes a column, more than three columns, or more
            than 100,000 nodes.
    """

    low: Any
    high: Any
    num: Any = 32

    def __post_init__(self) -> None:
        box = Box(self.low, self.high)
        object.__setattr__(self, "low", box.low)
        object.__setattr__(self, "high", box.high)
        num = np.atleast_1d(np.asarray(self.num))
        whole = num.dtype.kind in "iu" and num.ndim == 1 and num.size in (1, box.in_dim)
        if not whole or (num < 2).any():
            raise InputError(
                f"Grid: num must be whole numbers of at least 2, one or one a column, got {self.num!r}."
            )
        if box.in_dim > 3:
            raise InputError(
                f"Grid: at most 3 columns, got {box.in_dim}. Use bn.Box, rows, or bn.Near there."
            )
        num = np.broadcast_to(num, (box.in_dim,))
        if np.prod(num.astype(float)) > MOST_NODES:
            raise InputError(f"Grid: more than {MOST_NODES} nodes ({num}); use a bn.Box.")
        object.__setattr__(self, "num", tuple(num.tolist()))

    def point_law(self, in_dim: int) -> PointLaw:
        check_columns(len(self.low), in_dim, "the grid")
        axes = [np.linspace(*ends) for ends in zip(self.low, self.high, self.num, strict=True)]
        nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, in_dim)
        return RowPoints.of(nodes)


@dataclass(frozen=True, eq=False)
class Near:
    """Points around rows: a row plus Gaussian noise, so that increments are local.

    In many dimensions two rows are far apart, and segments between them tell little of how a
    function changes around the data. Both ends of a segment lie around the same row; with
    `labels` around two rows of the same class, each class as likely as the others.

    Args:
        rows: an array or data frame (n, d) in the prior's coordinates.
        scale: the noise's standard deviation, a number or one a column.
        labels: (n,), of any kind.

    Raises:
        InputError: rows with NaN, a scale that is not positive, labels of another length.
    """

    rows: Any
    scale: Any
    labels: Any = None

    __repr__ = one_line

    def __post_init__(self) -> None:
        rows = as_matrix(self.rows, "Near: rows")
        scale = np.asarray(self.scale, np.float64)
        if scale.shape not in ((), (rows.shape[1],)):
            raise InputError(
                f"Near: scale must be a number or one of {rows.shape[1]} columns each, got shape "
                f"{scale.shape}."
            )
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise InputError(f"Near: scale must be positive and finite, got {self.scale!r}.")
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "scale", np.broadcast_to(scale, (rows.shape[1],)))
        if self.labels is not None:
            labels = np.asarray(self.labels)
            if labels.shape != (len(rows),):
                raise InputError(
                    f"Near: labels must have shape ({len(rows)},), got {labels.shape}."
                )
            object.__setattr__(self, "labels", labels)

    def point_law(self, in_dim: int) -> PointLaw:
        check_columns(self.rows.shape[1], in_dim, "Near")
        return NearPoints.of(self.rows, self.scale, self.labels)


@dataclass(frozen=True, eq=False)
class Mix:
    """Every point comes from one of several laws, chosen by weight (a plain tuple: equally).

    Args:
        parts: arrays, `Box`, `Grid`, `Near`, or mixes of those.
        weights: positive numbers, one a part; equal if None.

    Raises:
        InputError: no parts, or weights that are not positive, one a part.
    """

    parts: tuple[Any, ...]
    weights: tuple[float, ...] | None

    __repr__ = one_line

    def __init__(self, *parts: Any, weights: Any = None) -> None:
        if not parts:
            raise InputError("Mix: at least one part is needed.")
        if weights is not None:
            given = np.asarray(weights, np.float64)
            positive = np.isfinite(given).all() and (given > 0).all()
            if given.shape != (len(parts),) or not positive:
                raise InputError(
                    f"Mix: weights must be {len(parts)} positive numbers, got {weights!r}."
                )
            weights = tuple(given.tolist())
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "weights", weights)

    def point_law(self, in_dim: int) -> PointLaw:
        return MixedPoints.of([as_point_law(p, in_dim) for p in self.parts], self.weights)


@dataclass(frozen=True, eq=False)
class Scaled:
    """Points divided by random lengthscales, one draw of them for each set of points.

    What `bn.match_rescaled` measures on: a network that is close to a process of lengthscale 1 at
    `x / l` is, as a function of x, close to that with lengthscale l.

    Args:
        inputs: the points x: an array, `Box`, `Grid`, `Near` or mix.
        lengthscale: a `bn.LogNormal`, of one component or one a column.
    """

    inputs: Any
    lengthscale: Any

    def point_law(self, in_dim: int) -> PointLaw:
        loc = np.broadcast_to(self.lengthscale.loc, self.lengthscale.shape)
        scale = np.broadcast_to(self.lengthscale.scale, self.lengthscale.shape)
        if loc.shape not in ((), (in_dim,)):
            raise InputError(
                f"lengthscale has shape {loc.shape}; expected one component or {in_dim}."
            )
        return ScaledPoints.of(as_point_law(self.inputs, in_dim), loc, scale)
