"""Search spaces: named parameters as points of the unit box, and back.

Every parameter has one or more columns in [0, 1]. Floats are scaled by their bounds (their
logarithms where the distribution is logarithmic); integers and stepped floats lie at the middle of
equal shares of the interval, so that rounding a uniform point gives every value the same chance;
categoricals have one column a choice (one-hot). A distribution with a single value has no column.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from bayesnet._errors import InputError

_EXAMPLE = "{'lr': (1e-4, 1.0), 'layers': (1, 4), 'activation': ['tanh', 'relu']}"


@dataclass(frozen=True, eq=False)
class Space:
    """An ordered set of named distributions; see `Space.of` for what a user may write."""

    distributions: dict[str, BaseDistribution]

    @staticmethod
    def of(space: Any) -> Space:
        """The space that a user's dictionary describes.

        Args:
            space: name -> `(low, high)`, a list of choices, or an Optuna distribution (log, step).
                Two integers stay integers: `(20, 90)` are whole numbers, `(20.0, 90.0)` real ones.
                A `Space` passes through.

        Raises `InputError` for an empty space, low >= high, bounds that are not finite numbers,
        repeated choices, or a value that is none of these.
        """
        if isinstance(space, Space):
            return space
        if not isinstance(space, Mapping):
            raise InputError(f"space must be a dictionary such as {_EXAMPLE}, got {space!r}.")
        if not space:
            raise InputError(f"The space is empty: name at least one parameter, as in {_EXAMPLE}.")
        for name in space:
            if not isinstance(name, str) or not name:
                raise InputError(f"Parameter names must be non-empty strings, got {name!r}.")
        made = Space({name: distribution(name, spec) for name, spec in space.items()})
        if not made.columns:
            raise InputError("Every parameter of the space has a single value: nothing to choose.")
        return made

    @cached_property
    def _slices(self) -> dict[str, slice]:
        slices, start = {}, 0
        for name, dist in self.distributions.items():
            width = _width(dist)
            slices[name] = slice(start, start + width)
            start += width
        return slices

    @property
    def columns(self) -> int:
        """D, the number of columns of an encoded point."""
        return sum(_width(dist) for dist in self.distributions.values())

    @property
    def bounds(self) -> np.ndarray:
        """The unit box, (2, D)."""
        return np.stack([np.zeros(self.columns), np.ones(self.columns)])

    @cached_property
    def discrete(self) -> np.ndarray:
        """(D,) booleans: which columns only some values of [0, 1] stand for a parameter."""
        flags = np.zeros(self.columns, bool)
        for name, dist in self.distributions.items():
            flags[self._slices[name]] = not _is_continuous(dist)
        return flags

    def describe(self) -> str:
        """One line: each parameter, what numbers or choices it takes, and its range."""
        named = [f"{name} ({_in_words(dist)})" for name, dist in self.distributions.items()]
        return f"Searched are {', '.join(named)}."

    def encode(self, params: Mapping[str, Any]) -> np.ndarray:
        """The point (D,) of a full set of parameters (values outside their bounds are clipped)."""
        parts = [_encode(dist, params[name]) for name, dist in self.distributions.items()]
        return np.concatenate(parts) if parts else np.zeros(0)

    def decode(self, point: np.ndarray) -> dict[str, Any]:
        """The parameters nearest to a point (D,), as Python floats, ints and choices."""
        return {
            name: _decode(dist, point[self._slices[name]])
            for name, dist in self.distributions.items()
        }

    def project(self, points: np.ndarray) -> np.ndarray:
        """The nearest points (n, D) that stand for parameters."""
        points = np.asarray(points, np.float64)
        out = np.clip(points, 0.0, 1.0)
        for name, dist in self.distributions.items():
            if not _is_continuous(dist):
                part = self._slices[name]
                out[:, part] = [_encode(dist, _decode(dist, row)) for row in points[:, part]]
        return out

    def neighbours(self, point: np.ndarray, spread: int = 2) -> np.ndarray:
        """Points (k, D) that differ from a legal one in a single discrete parameter.

        Every other choice of a categorical; for integers and stepped floats the values up to
        `spread` steps away and the two ends of the range.
        """
        found = []
        for name, dist in self.distributions.items():
            part = self._slices[name]
            if _is_continuous(dist) or _width(dist) == 0:
                continue
            now = _decode(dist, point[part])
            for value in _other_values(dist, now, spread):
                other = point.copy()
                other[part] = _encode(dist, value)
                found.append(other)
        return np.stack(found) if found else np.zeros((0, self.columns))


def distribution(name: str, spec: Any) -> BaseDistribution:
    """The Optuna distribution of one entry of a space."""
    if isinstance(spec, BaseDistribution):
        if not isinstance(spec, (FloatDistribution, IntDistribution, CategoricalDistribution)):
            raise InputError(f"Parameter {name!r}: {type(spec).__name__} is not supported.")
        if isinstance(spec, CategoricalDistribution):
            return _choices(name, list(spec.choices))
        if not (math.isfinite(spec.low) and math.isfinite(spec.high)):
            raise InputError(
                f"Parameter {name!r}: bounds must be finite, got {(spec.low, spec.high)}."
            )
        return spec
    if isinstance(spec, list):
        return _choices(name, spec)
    if isinstance(spec, tuple) and len(spec) == 2 and all(_is_number(v) for v in spec):
        low, high = spec
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InputError(f"Parameter {name!r}: bounds must be finite, got {spec}.")
        if low >= high:
            raise InputError(f"Parameter {name!r}: low must be below high, got {spec}.")
        if all(isinstance(v, numbers.Integral) for v in spec):
            return IntDistribution(int(low), int(high))
        return FloatDistribution(float(low), float(high))
    raise InputError(
        f"Parameter {name!r}: expected (low, high) with two numbers, a list of choices, or an "
        f"Optuna distribution, got {spec!r}."
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))


def _choices(name: str, choices: list[Any]) -> CategoricalDistribution:
    if not choices:
        raise InputError(f"Parameter {name!r}: the list of choices is empty.")
    plain = [c.item() if isinstance(c, np.generic) else c for c in choices]
    for choice in plain:
        if not (choice is None or isinstance(choice, (bool, int, float, str))):
            raise InputError(
                f"Parameter {name!r}: choices must be None, bool, int, float or str (so that they "
                f"can be stored), got {choice!r}. Use names and look the objects up."
            )
    # Optuna tells choices apart by ==, as a set does.
    if len(set(plain)) < len(plain):
        raise InputError(
            f"Parameter {name!r}: the choices repeat themselves: {choices} (1, 1.0 and True are equal)."
        )
    return CategoricalDistribution(plain)


def _in_words(dist: Any) -> str:
    if isinstance(dist, CategoricalDistribution):
        shown = ", ".join(map(str, dist.choices[:5])) + (", ..." if len(dist.choices) > 5 else "")
        return f"choices: {shown}"
    kind = "whole numbers" if isinstance(dist, IntDistribution) else "real"
    step = f", step {dist.step}" if dist.step not in (None, 1) else ""
    return f"{kind}, {dist.low} to {dist.high}{', log scale' if dist.log else ''}{step}"


def _width(dist: BaseDistribution) -> int:
    if dist.single():
        return 0
    return len(dist.choices) if isinstance(dist, CategoricalDistribution) else 1


def _is_continuous(dist: BaseDistribution) -> bool:
    return isinstance(dist, FloatDistribution) and dist.step is None


def _log_ends(dist: Any) -> tuple[float, float]:
    """The ends of the interval on the log scale; half a step wider for integers."""
    if isinstance(dist, IntDistribution):
        return math.log(dist.low - 0.5), math.log(dist.high + 0.5)
    return math.log(dist.low), math.log(dist.high)


def _steps(dist: Any) -> int:
    """How many values a stepped distribution has."""
    return round((dist.high - dist.low) / dist.step) + 1


def _encode(dist: Any, value: Any) -> np.ndarray:
    if dist.single():
        return np.zeros(0)
    if isinstance(dist, CategoricalDistribution):
        return np.eye(len(dist.choices))[int(dist.to_internal_repr(value))]
    value = float(value)
    if dist.log:
        low, high = _log_ends(dist)
        unit = (math.log(max(value, dist.low)) - low) / (high - low)
    elif _is_continuous(dist):
        # Halves, because high - low overflows for the widest floats.
        unit = (value / 2 - dist.low / 2) / (dist.high / 2 - dist.low / 2)
    else:
        unit = (round((value - dist.low) / dist.step) + 0.5) / _steps(dist)
    return np.array([min(max(unit, 0.0), 1.0)])


def _decode(dist: Any, unit: np.ndarray) -> Any:
    if isinstance(dist, CategoricalDistribution):
        return dist.choices[int(np.argmax(unit)) if len(unit) else 0]
    if dist.single():
        return dist.low
    u = min(max(float(unit[0]), 0.0), 1.0)
    if dist.log:
        low, high = _log_ends(dist)
        value = math.exp(low + u * (high - low))
        if isinstance(dist, IntDistribution):
            value = round(value)
        return min(max(value, dist.low), dist.high)
    if _is_continuous(dist):
        return min(max(dist.low * (1 - u) + dist.high * u, dist.low), dist.high)
    value = dist.low + min(int(u * _steps(dist)), _steps(dist) - 1) * dist.step
    return min(value, dist.high)


def _other_values(dist: Any, now: Any, spread: int) -> list[Any]:
    if isinstance(dist, CategoricalDistribution):
        here = int(dist.to_internal_repr(now))
        return [choice for i, choice in enumerate(dist.choices) if i != here]
    step = dist.step
    values = {dist.low, dist.high}
    values |= {now + k * step for k in range(-spread, spread + 1)}
    if dist.log and isinstance(dist, IntDistribution):
        values |= {round(now * factor) for factor in (0.5, 0.8, 1.25, 2.0)}
    return sorted(v for v in values if dist.low <= v <= dist.high and abs(v - now) > step / 2)
