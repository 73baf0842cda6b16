"""Where functions are compared: a box, the rows of a table, or a mix, drawn afresh every step.

Points come in triples (start, middle, end) along a segment between two drawn points, cut at a
log-uniform fraction of its length. So one set of points shows a function at many scales: its
coarse shape by all points together, its roughness by the increments within a triple. Segments
stay inside the convex hull of the inputs and need no scale of their own, in any dimension.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError
from bayesnet._matrix import as_matrix
from bayesnet._types import Array, Float, Int, Key
from bayesnet.data import bucket_size, pad_rows

# Up to this many rows a set of points is drawn without replacement; above it, where two equal
# rows in one set are rare, with replacement (sorting a long table every step would cost more
# than the step).
WITHOUT_REPLACEMENT = 1024


@dataclass(frozen=True)
class Box:
    """Points uniform in the box `low <= x <= high`, in the coordinates of the prior.

    Args:
        low, high: vectors with one bound a column (a number is a box in one dimension).

    Raises:
        InputError: bounds of different lengths, not finite, or not in order.
    """

    low: Any
    high: Any

    def __post_init__(self) -> None:
        low, high = (np.atleast_1d(np.asarray(a, np.float64)) for a in (self.low, self.high))
        if low.ndim != 1 or low.shape != high.shape:
            raise InputError(
                f"Box: low and high must be vectors of one length, got shapes {low.shape} and "
                f"{high.shape}."
            )
        if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
            raise InputError(
                f"Box: finite bounds with low < high are needed, got {low} and {high}."
            )
        # Tuples, so that a box can be compared and hashed (matches are cached by their box).
        object.__setattr__(self, "low", tuple(low.tolist()))
        object.__setattr__(self, "high", tuple(high.tolist()))

    @property
    def in_dim(self) -> int:
        return len(self.low)


class PointLaw(eqx.Module):
    """A law of points, and of the two ends of the segments that increments are taken along."""

    @abstractmethod
    def draw(self, key: Key, num: int) -> Float[Array, "n d"]:
        """Points."""

    def draw_ends(self, key: Key, num: int) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
        """Where segments start, and the points that they run towards: any two points here."""
        start, towards = jnp.split(self.draw(key, 2 * num), 2)
        return start, towards

    @abstractmethod
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """A box (low, high), (d,) each, that holds nearly all of the points."""


class BoxPoints(PointLaw):
    """Uniform points in a box."""

    low: Float[Array, " d"]
    high: Float[Array, " d"]

    def draw(self, key: Key, num: int) -> Float[Array, "n d"]:
        unit = jax.random.uniform(key, (num, self.low.shape[0]))
        return self.low + (self.high - self.low) * unit

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(self.low), np.asarray(self.high)


class RowPoints(PointLaw):
    """Rows of a table, padded to a size bucket; `num_rows` of them are real."""

    rows: Float[Array, "r d"]
    num_rows: Int[Array, ""]

    @staticmethod
    def of(rows: np.ndarray) -> RowPoints:
        padded = pad_rows(rows, bucket_size(len(rows)))
        return RowPoints(jnp.asarray(padded, jnp.float32), jnp.asarray(len(rows)))

    def draw(self, key: Key, num: int) -> Float[Array, "n d"]:
        size = self.rows.shape[0]
        if size > WITHOUT_REPLACEMENT:
            return self.rows[jax.random.randint(key, (num,), 0, self.num_rows)]
        # A random order of the real rows first; if there are fewer than `num`, go round again.
        score = jnp.where(jnp.arange(size) < self.num_rows, jax.random.uniform(key, (size,)), 2.0)
        return self.rows[jnp.argsort(score)[jnp.arange(num) % self.num_rows]]

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        rows = np.asarray(self.rows)
        return rows.min(0), rows.max(0)


class NearPoints(PointLaw):
    """Rows plus Gaussian noise; a segment stays around one row, or within one class.

    Rows are sorted by class; class k has the rows `first[k] <= i < first[k] + count[k]`. Without
    classes each row is a class of its own.
    """

    rows: Float[Array, "r d"]
    first: Int[Array, " k"]
    count: Int[Array, " k"]
    num_classes: Int[Array, ""]
    scale: Float[Array, " d"]

    @staticmethod
    def of(rows: np.ndarray, scale: np.ndarray, labels: np.ndarray | None) -> NearPoints:
        if labels is None:
            first, count = np.arange(len(rows)), np.ones(len(rows), int)
        else:
            rows = rows[np.argsort(labels, kind="stable")]
            _, first, count = np.unique(np.sort(labels), return_index=True, return_counts=True)
        padded = pad_rows(rows, bucket_size(len(rows)))
        short = bucket_size(len(first)) - len(first)
        return NearPoints(
            jnp.asarray(padded, jnp.float32),
            jnp.asarray(np.pad(first, (0, short))),
            jnp.asarray(np.pad(count, (0, short), constant_values=1)),
            jnp.asarray(len(first)),
            jnp.asarray(scale, jnp.float32),
        )

    def draw(self, key: Key, num: int) -> Float[Array, "n d"]:
        return self.draw_ends(key, num)[0]

    def draw_ends(self, key: Key, num: int) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
        key_class, key_row, key_noise = jax.random.split(key, 3)
        which = jax.random.randint(key_class, (num,), 0, self.num_classes)
        own = jax.random.randint(key_row, (2, num), 0, self.count[which])
        noise = jax.random.normal(key_noise, (2, num, self.rows.shape[1]))
        start, towards = self.rows[self.first[which] + own] + self.scale * noise
        return start, towards

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        rows, scale = np.asarray(self.rows), np.asarray(self.scale)
        return rows.min(0) - 2 * scale, rows.max(0) + 2 * scale


class MixedPoints(PointLaw):
    """Every point comes from one of several laws, chosen by weight."""

    parts: tuple[PointLaw, ...]
    log_weights: Float[Array, " k"]

    @staticmethod
    def of(parts: list[PointLaw], weights: Any = None) -> PointLaw:
        if len(parts) == 1:
            return parts[0]
        weights = np.ones(len(parts)) if weights is None else np.asarray(weights)
        return MixedPoints(tuple(parts), jnp.asarray(np.log(weights), jnp.float32))

    def draw(self, key: Key, num: int) -> Float[Array, "n d"]:
        key_which, *keys = jax.random.split(key, len(self.parts) + 1)
        which = jax.random.categorical(key_which, self.log_weights, shape=(num,))
        drawn = jnp.stack([p.draw(k, num) for p, k in zip(self.parts, keys, strict=True)])
        return drawn[which, jnp.arange(num)]

    def draw_ends(self, key: Key, num: int) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
        """Segments that start in a local part stay there; others run towards any part."""
        key_which, key_towards, *keys = jax.random.split(key, len(self.parts) + 2)
        which = jax.random.categorical(key_which, self.log_weights, shape=(num,))
        anywhere = self.draw(key_towards, num)
        ends = [p.draw_ends(k, num) for p, k in zip(self.parts, keys, strict=True)]
        starts = jnp.stack([start for start, _ in ends])
        towards = jnp.stack(
            [
                t if isinstance(p, NearPoints) else anywhere
                for p, (_, t) in zip(self.parts, ends, strict=True)
            ]
        )
        return starts[which, jnp.arange(num)], towards[which, jnp.arange(num)]

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        lows, highs = zip(*(part.bounds() for part in self.parts), strict=True)
        return np.min(lows, axis=0), np.max(highs, axis=0)


class ScaledPoints(PointLaw):
    """Points of another law divided by log-normal lengthscales, the same for one set of points."""

    points: PointLaw
    loc: Float[Array, "*d"]
    scale: Float[Array, "*d"]

    @staticmethod
    def of(points: PointLaw, loc: np.ndarray, scale: np.ndarray) -> ScaledPoints:
        return ScaledPoints(points, jnp.asarray(loc, jnp.float32), jnp.asarray(scale, jnp.float32))

    def draw(self, key: Key, num: int) -> Float[Array, "n d"]:
        return self.points.draw(key, num) / self._lengthscale(key)

    def draw_ends(self, key: Key, num: int) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
        start, towards = self.points.draw_ends(key, num)
        lengthscale = self._lengthscale(key)
        return start / lengthscale, towards / lengthscale

    def _lengthscale(self, key: Key) -> Array:
        z = jax.random.normal(jax.random.fold_in(key, 1), self.loc.shape)
        return jnp.exp(self.loc + self.scale * z)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """At the median lengthscales."""
        low, high = self.points.bounds()
        return low / np.exp(np.asarray(self.loc)), high / np.exp(np.asarray(self.loc))


def as_point_law(inputs: Any, in_dim: int) -> PointLaw:
    """The law of points that `inputs` of `match_prior` stands for.

    Args:
        inputs: an array (n, d) in the prior's coordinates, a `Box`, an object with
            `point_law(in_dim)` (see `strategies`), a `PointLaw`, or a tuple or list of those.
        in_dim: d, the number of inputs of the prior.

    Raises:
        InputError: another number of columns, NaN or infinity, a single distinct point.
    """
    if isinstance(inputs, (tuple, list)) and any(
        hasattr(part, "point_law")
        or isinstance(part, Box)
        or hasattr(part, "columns")
        or np.ndim(part) == 2
        for part in inputs
    ):
        return MixedPoints.of([as_point_law(part, in_dim) for part in inputs])
    if isinstance(inputs, PointLaw):
        return inputs
    if hasattr(inputs, "point_law"):
        return inputs.point_law(in_dim)
    if isinstance(inputs, Box):
        check_columns(inputs.in_dim, in_dim, "the box")
        return BoxPoints(
            jnp.asarray(inputs.low, jnp.float32), jnp.asarray(inputs.high, jnp.float32)
        )
    rows = as_matrix(inputs, "inputs")
    if rows.shape[1] != in_dim:
        raise InputError(
            f"inputs has {rows.shape[1]} column(s), the prior has {in_dim} input(s): pass an array "
            f"(n, {in_dim}) in the prior's coordinates, for example bn.standardize(X)."
        )
    distinct = np.unique(rows.astype(np.float32), axis=0)
    if len(distinct) == 1:
        raise InputError(
            f"inputs holds a single distinct point (from {len(rows)} row(s)): functions cannot be "
            "compared at one point only. Pass more rows, or a bn.Box(low, high)."
        )
    # Equal rows would be equal points of one set, which tell nothing twice.
    return RowPoints.of(distinct)


def check_columns(columns: int, in_dim: int, what: str) -> None:
    """Raise `InputError` unless points of `columns` columns are inputs of the prior."""
    if columns != in_dim:
        raise InputError(
            f"inputs: {what} has {columns} column(s), the prior has {in_dim} input(s). Give one bound "
            "(or value) a column, for example bn.Box(low=[...], high=[...])."
        )


def draw_triples(
    law: PointLaw, key: Key, num_triples: int, shortest: float
) -> Float[Array, "3k d"]:
    """Points (3k, d) in the order starts, middles, ends of `num_triples` = k segments.

    A segment runs from one drawn point towards another and is cut at a fraction of their
    distance that is log-uniform in [shortest, 1].
    """
    key_points, key_cut = jax.random.split(key)
    start, towards = law.draw_ends(key_points, num_triples)
    log_cut = jax.random.uniform(key_cut, (num_triples, 1), minval=np.log(shortest), maxval=0.0)
    step = jnp.exp(log_cut) * (towards - start)
    return jnp.concatenate([start, start + 0.5 * step, start + step])


def first_increments(values: Float[Array, "s 3k m"]) -> Float[Array, "s 2k m"]:
    """Changes of functions within each triple: over half of the segment, and over all of it."""
    start, middle, end = jnp.split(values, 3, axis=1)
    return jnp.concatenate([middle - start, end - start], axis=1)


def second_increments(values: Float[Array, "s 3k m"]) -> Float[Array, "s k m"]:
    """Second differences of functions at the middle of each triple."""
    start, middle, end = jnp.split(values, 3, axis=1)
    return start - 2.0 * middle + end
