"""Where functions are compared: a box, the rows of a table, or a mix, drawn afresh every step.

Points come in triples (start, middle, end) along a segment between two drawn points, cut at a
log-uniform fraction of its length. So one set of points shows a function at many scales: its
coarse shape by all points together, its roughness by the increments within a triple. Segments
stay inside the convex hull of the inputs and need no scale of their own, in any dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError
from bayesnet._types import Array, Float, Int, Key
from bayesnet.data import as_matrix, bucket_size, pad_rows

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


class BoxPoints(eqx.Module):
    """Uniform points in a box."""

    low: Float[Array, " d"]
    high: Float[Array, " d"]

    def draw(self, key: Key, num: int) -> Float[Array, "n d"]:
        unit = jax.random.uniform(key, (num, self.low.shape[0]))
        return self.low + (self.high - self.low) * unit


class RowPoints(eqx.Module):
    """Rows of a table, padded to a size bucket; `num_rows` of them are real."""

    rows: Float[Array, "r d"]
    num_rows: Int[Array, ""]

    def draw(self, key: Key, num: int) -> Float[Array, "n d"]:
        size = self.rows.shape[0]
        if size > WITHOUT_REPLACEMENT:
            return self.rows[jax.random.randint(key, (num,), 0, self.num_rows)]
        # A random order of the real rows first; if there are fewer than `num`, go round again.
        score = jnp.where(jnp.arange(size) < self.num_rows, jax.random.uniform(key, (size,)), 2.0)
        return self.rows[jnp.argsort(score)[jnp.arange(num) % self.num_rows]]


class MixedPoints(eqx.Module):
    """Every point comes from one of several laws, each as likely as the others."""

    parts: tuple[BoxPoints | RowPoints, ...]

    def draw(self, key: Key, num: int) -> Float[Array, "n d"]:
        key_which, *keys = jax.random.split(key, len(self.parts) + 1)
        which = jax.random.randint(key_which, (num,), 0, len(self.parts))
        drawn = jnp.stack([p.draw(k, num) for p, k in zip(self.parts, keys, strict=True)])
        return drawn[which, jnp.arange(num)]


PointLaw = BoxPoints | RowPoints | MixedPoints


def as_point_law(inputs: Any, in_dim: int) -> PointLaw:
    """The law of points that `inputs` of `match_prior` stands for.

    Args:
        inputs: an array (n, d) in the prior's coordinates, a `Box`, or a tuple or list of those.
        in_dim: d, the number of inputs of the prior.

    Raises:
        InputError: another number of columns, NaN or infinity, a single distinct point.
    """
    if isinstance(inputs, (tuple, list)) and any(
        isinstance(part, Box) or np.ndim(part) == 2 or hasattr(part, "columns") for part in inputs
    ):
        parts = [as_point_law(part, in_dim) for part in inputs]
        return parts[0] if len(parts) == 1 else MixedPoints(tuple(parts))  # type: ignore[arg-type]
    if isinstance(inputs, Box):
        if inputs.in_dim != in_dim:
            raise InputError(
                f"inputs: the box has {inputs.in_dim} column(s), the prior has {in_dim} input(s). "
                "Give one bound a column: bn.Box(low=[...], high=[...])."
            )
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
    padded = pad_rows(distinct, bucket_size(len(distinct)))
    return RowPoints(jnp.asarray(padded, jnp.float32), jnp.asarray(len(distinct)))


def draw_triples(
    law: PointLaw, key: Key, num_triples: int, shortest: float
) -> Float[Array, "3k d"]:
    """Points (3k, d) in the order starts, middles, ends of `num_triples` = k segments.

    A segment runs from one drawn point towards another and is cut at a fraction of their
    distance that is log-uniform in [shortest, 1].
    """
    key_points, key_cut = jax.random.split(key)
    start, towards = jnp.split(law.draw(key_points, 2 * num_triples), 2)
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
