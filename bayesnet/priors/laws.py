"""Laws of hyper-parameters: lengthscales, variances, noise levels, slopes of a mean.

Each is a transport of a standard normal latent, so that a sampler can treat a noise level
like a weight. Any numpyro distribution on the positive axis can be used for the
hyper-parameters of a target; as a noise law it must be one of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError
from bayesnet._types import Array, Float, Key


def _tuple_or_float(value: Any) -> Any:
    array = np.asarray(value, np.float64)
    return float(array) if array.ndim == 0 else tuple(array.tolist())


@dataclass(frozen=True)
class _OfNormal:
    """A map of a standard normal latent with a location and a scale."""

    loc: Any = 0.0
    scale: Any = 1.0

    def __post_init__(self) -> None:
        name = type(self).__name__
        object.__setattr__(self, "loc", _tuple_or_float(self.loc))
        object.__setattr__(self, "scale", _tuple_or_float(self.scale))
        if not np.all(np.isfinite(self.loc)):
            raise InputError(f"{name}: loc must be finite, got {self.loc}.")
        if not np.all(np.asarray(self.scale) > 0) or not np.all(np.isfinite(self.scale)):
            raise InputError(f"{name}: scale must be positive, got {self.scale}.")

    @property
    def shape(self) -> tuple[int, ...]:
        return np.broadcast_shapes(np.shape(self.loc), np.shape(self.scale))

    def transport(self, z: Float[Array, "*k"]) -> Float[Array, "*k"]:
        """The value whose latent is `z`."""
        return jnp.asarray(self.loc, z.dtype) + jnp.asarray(self.scale, z.dtype) * z

    def sample(self, key: Key, sample_shape: tuple[int, ...] = ()) -> Float[Array, ...]:
        return self.transport(jax.random.normal(key, (*sample_shape, *self.shape)))


@dataclass(frozen=True)
class LogNormal(_OfNormal):
    """`exp(loc + scale * z)` with z standard normal (the convention of numpyro and torch).

    The median is `exp(loc)`. `loc` and `scale` are numbers, or vectors for one independent
    component an input column (ARD).
    """

    def transport(self, z: Float[Array, "*k"]) -> Float[Array, "*k"]:
        """The value whose latent is `z`."""
        return jnp.exp(super().transport(z))


@dataclass(frozen=True)
class Normal(_OfNormal):
    """`loc + scale * z` with z standard normal: a law of slopes and intercepts, not of scales.

    `loc` and `scale` are numbers, or vectors for one independent component an input column.
    """


def is_law(value: Any) -> bool:
    """Whether a hyper-parameter is random."""
    return hasattr(value, "sample")


def check_positive_law(value: Any, name: str) -> Any:
    """A hyper-parameter as it may be given: a positive number or vector, or a positive law.

    Returns a float, a tuple of floats, or the law. Raises `InputError` otherwise, also for a
    numpyro distribution whose support reaches outside the positive axis.
    """
    if is_law(value):
        _check_positive(value, name)
        return value
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} must be a positive number, vector or law, got {value!r}."
        ) from error
    if array.ndim > 1 or array.size == 0 or not np.all(np.isfinite(array)) or np.any(array <= 0):
        raise InputError(f"{name} must be positive and finite, got {value!r}.")
    return _tuple_or_float(array)


def check_law(value: Any, name: str) -> Any:
    """A parameter that may have any sign: a finite number or vector, or a law.

    Returns a float, a tuple of floats, or the law. Raises `InputError` otherwise.
    """
    if is_law(value):
        if not isinstance(value, (Normal, LogNormal)):
            _try_sample(value, name)
        return value
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be a number, vector or law, got {value!r}.") from error
    if array.ndim > 1 or array.size == 0 or not np.all(np.isfinite(array)):
        raise InputError(f"{name} must be finite numbers, got {value!r}.")
    return _tuple_or_float(array)


def _check_positive(law: Any, name: str) -> None:
    if isinstance(law, LogNormal):
        return
    support = getattr(law, "support", None)
    advice = (
        "use for example bn.LogNormal(0.0, 0.5) or a numpyro Gamma, InverseGamma or HalfCauchy."
    )
    if isinstance(law, Normal) or (support is not None and not _is_positive(support)):
        said = "" if support is None else f" (support {support})"
        raise InputError(f"The law of {name} reaches outside the positive axis{said}: {advice}")
    drawn = _try_sample(law, name)
    if not np.all(np.isfinite(drawn)) or np.any(drawn <= 0):
        raise InputError(
            f"The law of {name} reaches outside the positive axis (drew {np.min(drawn):.3g}): {advice}"
        )


def _try_sample(law: Any, name: str) -> np.ndarray:
    """A hundred values: laws that state no support are told by what they draw."""
    try:
        drawn = np.asarray(law.sample(jax.random.key(0), (100,)), np.float64)
    except Exception as error:
        raise InputError(
            f"The law of {name} must have a method sample(key, sample_shape) such as bn.LogNormal's or "
            f"a numpyro distribution's; {type(law).__name__} failed: {error}"
        ) from error
    if drawn.ndim not in (1, 2) or len(drawn) != 100:
        raise InputError(
            f"The law of {name} must draw numbers or vectors: sample(key, (100,)) of "
            f"{type(law).__name__} gave shape {drawn.shape}."
        )
    return drawn


def _is_positive(support: Any) -> bool:
    low = getattr(support, "lower_bound", None)
    base = getattr(support, "base_constraint", None)
    if low is None and base is not None:
        return _is_positive(base)
    return low is not None and bool(np.all(np.asarray(low) >= 0))


def draw_law(value: Any, key: Key, num: int) -> Float[Array, "s ..."]:
    """`num` values of a hyper-parameter: repeated if it is fixed, drawn if it is a law."""
    if is_law(value):
        return jnp.asarray(value.sample(key, (num,)))
    fixed = jnp.asarray(value)
    return jnp.broadcast_to(fixed, (num, *fixed.shape))
