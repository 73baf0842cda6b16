"""Mean functions of processes: constant, linear (fixed or random), any function, and their sums.

A mean draws its parameters (`draw`) and gives its values for one draw of them (`values`), as a
covariance does. User functions are called as they are, outside any jitted program.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError, unknown_name
from bayesnet._types import Array, Float, Key, PyTree
from bayesnet.priors.laws import Normal, check_law, draw_law, is_law


@runtime_checkable
class Mean(Protocol):
    """A mean function whose parameters may be random."""

    @property
    def random(self) -> bool: ...

    @property
    def hyper(self) -> PyTree:
        """The parameters as they were given, numbers and laws."""
        ...

    def draw(self, key: Key, num: int) -> PyTree:
        """Parameters of `num` independent means (leading axis `num`)."""
        ...

    def values(self, hyper: PyTree, x: Array, out_dim: int) -> Float[Array, "n m"]:
        """The mean at the rows of `x` (n, d) for one draw of the parameters."""
        ...


@dataclass(frozen=True)
class ConstantMean:
    """The same value everywhere, for every output."""

    value: float = 0.0
    random = False
    hyper = ()

    def draw(self, key: Key, num: int) -> PyTree:
        return ()

    def values(self, hyper: PyTree, x: Array, out_dim: int) -> Float[Array, "n m"]:
        return jnp.full((x.shape[0], out_dim), self.value, x.dtype)


@dataclass(frozen=True)
class LinearMean:
    """`intercept + x . slope`; with laws, every drawn function has a line of its own.

    Args:
        slope: a number (the same for every column), a vector (one a column), or a law such as
            `bn.Normal(0.0, 1.0)`; for several columns a law of vectors, one component a column.
        intercept: a number or a law of numbers.

    In the coordinates of the process. All outputs of one draw share the line.

    Raises:
        InputError: values that are not finite.
    """

    slope: Any = Normal(0.0, 1.0)  # noqa: RUF009 - frozen
    intercept: Any = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "slope", check_law(self.slope, "slope"))
        object.__setattr__(self, "intercept", check_law(self.intercept, "intercept"))
        if not is_law(self.intercept) and np.ndim(self.intercept):
            raise InputError(f"intercept must be one number or a law, got {self.intercept!r}.")

    @property
    def random(self) -> bool:
        return is_law(self.slope) or is_law(self.intercept)

    @property
    def hyper(self) -> PyTree:
        return {"slope": self.slope, "intercept": self.intercept}

    def draw(self, key: Key, num: int) -> PyTree:
        k1, k2 = jax.random.split(key)
        return {
            "slope": draw_law(self.slope, k1, num),
            "intercept": draw_law(self.intercept, k2, num),
        }

    def values(self, hyper: PyTree, x: Array, out_dim: int) -> Float[Array, "n m"]:
        slope = jnp.asarray(hyper["slope"], x.dtype)
        if slope.ndim == 1 and slope.shape[0] not in (1, x.shape[1]):
            raise InputError(
                f"The linear mean has {slope.shape[0]} slopes, the inputs have {x.shape[1]} columns."
            )
        if slope.ndim == 0 and is_law(self.slope) and x.shape[1] > 1:
            raise InputError(
                f"The linear mean has a law of one slope, the inputs have {x.shape[1]} columns: state one a "
                "column, as in bn.LinearMean(bn.Normal([0.0, 0.0], 1.0))."
            )
        line = x @ jnp.broadcast_to(slope, (x.shape[1],)) + jnp.asarray(hyper["intercept"], x.dtype)
        return jnp.broadcast_to(line[:, None], (x.shape[0], out_dim))


@dataclass(frozen=True, repr=False)
class FunctionMean:
    """Any function `x (n, d) -> (n,) or (n, m)`, NumPy or JAX."""

    function: Callable[[Any], Any]
    random = False
    hyper = ()

    def __repr__(self) -> str:
        # With an address always: what a function prints does not say what it computes.
        return f"FunctionMean({self.function!r} at 0x{id(self.function):x})"

    def draw(self, key: Key, num: int) -> PyTree:
        return ()

    def values(self, hyper: PyTree, x: Array, out_dim: int) -> Float[Array, "n m"]:
        given = np.asarray(self.function(np.asarray(x)))
        n = x.shape[0]
        if given.shape == (n,):
            given = given[:, None]
        if given.shape not in ((n, 1), (n, out_dim)):
            raise InputError(
                f"The mean function gave shape {given.shape} at {n} points; expected ({n},) or "
                f"({n}, {out_dim})."
            )
        if given.dtype.kind not in "biuf" or not np.isfinite(given).all():
            raise InputError("The mean function gave values that are not finite numbers.")
        return jnp.broadcast_to(jnp.asarray(given, x.dtype), (n, out_dim))


@dataclass(frozen=True)
class SumMean:
    """The sum of two means; their parameters are drawn independently."""

    left: Mean
    right: Mean

    @property
    def random(self) -> bool:
        return self.left.random or self.right.random

    @property
    def hyper(self) -> PyTree:
        return self.left.hyper, self.right.hyper

    def draw(self, key: Key, num: int) -> PyTree:
        k1, k2 = jax.random.split(key)
        return self.left.draw(k1, num), self.right.draw(k2, num)

    def values(self, hyper: PyTree, x: Array, out_dim: int) -> Float[Array, "n m"]:
        left = self.left.values(hyper[0], x, out_dim)
        return left + self.right.values(hyper[1], x, out_dim)


def as_mean(mean: Any) -> Any:
    """What a process keeps as its mean: a float for a constant, else a `Mean`.

    Takes a number, "linear" (one column, slope N(0, 1)), a `Mean`, or a function.
    Raises `InputError` for anything else.
    """
    if isinstance(mean, str):
        if mean != "linear":
            raise unknown_name("mean", mean, ("linear",))
        return LinearMean()
    if isinstance(mean, ConstantMean):
        mean = mean.value
    if isinstance(mean, (int, float, np.number)) or (np.ndim(mean) == 0 and hasattr(mean, "dtype")):
        if not np.isfinite(float(mean)):
            raise InputError(f"mean must be finite, got {mean!r}.")
        return float(mean)
    if isinstance(mean, Mean) and not isinstance(mean, type):
        return mean
    if callable(mean) and not isinstance(mean, type):
        return FunctionMean(mean)
    raise InputError(
        f"mean must be a number, 'linear', bn.LinearMean(...), or a function x (n, d) -> (n,) or "
        f"(n, m), got {mean!r}."
    )


def mean_object(mean: Any) -> Mean:
    """The `Mean` that a process's attribute stands for."""
    return ConstantMean(mean) if isinstance(mean, float) else mean


def add_means(left: Any, right: Any) -> Any:
    """The mean of a sum of processes: a float where both are constant."""
    if isinstance(left, float) and isinstance(right, float):
        return left + right
    for constant, other in ((left, right), (right, left)):
        if constant == 0.0 and isinstance(constant, float):
            return other
    return SumMean(mean_object(left), mean_object(right))
