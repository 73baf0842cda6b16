"""Laws of a random variance on the positive axis: inverse gamma, gamma, Burr XII, half-Cauchy.

Each knows the density of the *logarithm* of its value, in which tails are no trouble, and how
fast its right tail falls (`tail`: P(v > t) ~ t^-tail), on which moments depend. They can stand
wherever a positive law can; `ScaleMixture` integrates over them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import gammaln

from bayesnet._errors import InputError
from bayesnet._types import Array, Float, Key
from bayesnet.priors.laws import LogNormal, check_positive_law, is_law

# Beyond this slope a log density in log(v) is taken to fall faster than any power of v.
STEEPEST_POWER = 50.0
# Draws are made in logarithms and kept inside the range of float32.
LARGEST_LOG = 80.0
# Points at which a numpyro density is evaluated at once.
PADDED = 2100
# The parameter of a numpyro law that is its tail.
TAILS = {"InverseGamma": "concentration", "Pareto": "alpha"}


def _positive(law: Any, *names: str) -> None:
    for name in names:
        value = getattr(law, name)
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{type(law).__name__}: {name} must be a positive number, got {value!r}."
            ) from error
        if not (np.isfinite(number) and number > 0):
            raise InputError(f"{type(law).__name__}: {name} must be positive, got {value!r}.")
        object.__setattr__(law, name, number)


def _from_log(log_value: Array) -> Array:
    return jnp.exp(jnp.clip(log_value, -LARGEST_LOG, LARGEST_LOG))


def _softplus(t: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, t)


@dataclass(frozen=True)
class InverseGamma:
    """`b / v ~ Gamma(a, 1)`: density `b^a / Gamma(a) v^(-a-1) exp(-b / v)`; mean b / (a - 1).

    Args:
        a: shape; a function of this variance is Student-t with 2a degrees of freedom.
        b: the scale of v.

    Raises `InputError` unless both are positive numbers.
    """

    a: float = 2.0
    b: float = 2.0
    shape = ()

    def __post_init__(self) -> None:
        _positive(self, "a", "b")

    @property
    def tail(self) -> float:
        return self.a

    def log_density(self, u: np.ndarray) -> np.ndarray:
        """The log density of log v at `u`."""
        return self.a * np.log(self.b) - gammaln(self.a) - self.a * u - self.b * np.exp(-u)

    def sample(self, key: Key, sample_shape: tuple[int, ...] = ()) -> Float[Array, ...]:
        return _from_log(jnp.log(self.b) - jax.random.loggamma(key, self.a, sample_shape))


@dataclass(frozen=True)
class Gamma:
    """Density `b^a / Gamma(a) v^(a-1) exp(-b v)`; mean a / b.

    Args:
        a: the shape.
        b: the rate.

    Raises `InputError` unless both are positive numbers.
    """

    a: float = 2.0
    b: float = 2.0
    shape = ()
    tail = float("inf")

    def __post_init__(self) -> None:
        _positive(self, "a", "b")

    def log_density(self, u: np.ndarray) -> np.ndarray:
        """The log density of log v at `u`."""
        return self.a * np.log(self.b) - gammaln(self.a) + self.a * u - self.b * np.exp(u)

    def sample(self, key: Key, sample_shape: tuple[int, ...] = ()) -> Float[Array, ...]:
        return _from_log(jax.random.loggamma(key, self.a, sample_shape) - jnp.log(self.b))


@dataclass(frozen=True)
class BurrXII:
    """`P(v > t) = (1 + (t / scale)^c)^-d`: a power at zero, another (c d) far out (Burr 1942).

    Args:
        c, d: shapes; scale: the unit of v.

    Raises `InputError` unless all are positive numbers.
    """

    c: float = 2.0
    d: float = 1.0
    scale: float = 1.0
    shape = ()

    def __post_init__(self) -> None:
        _positive(self, "c", "d", "scale")

    @property
    def tail(self) -> float:
        return self.c * self.d

    def log_density(self, u: np.ndarray) -> np.ndarray:
        """The log density of log v at `u`."""
        t = self.c * (u - np.log(self.scale))
        return np.log(self.c * self.d) + t - (self.d + 1.0) * _softplus(t)

    def sample(self, key: Key, sample_shape: tuple[int, ...] = ()) -> Float[Array, ...]:
        # P(v > t) = exp(-e) with e standard exponential: log(exp(e / d) - 1) without overflow.
        e = jax.random.exponential(key, sample_shape) / self.d
        log_odds = e + jnp.log(-jnp.expm1(-jnp.maximum(e, 1e-30)))
        return _from_log(jnp.log(self.scale) + log_odds / self.c)


@dataclass(frozen=True)
class HalfCauchy:
    """The absolute value of a Cauchy variable of scale `scale`: `|z1 / z2|` of two normals.

    Raises `InputError` unless `scale` is a positive number.
    """

    scale: float = 1.0
    shape = ()
    tail = 1.0

    def __post_init__(self) -> None:
        _positive(self, "scale")

    def log_density(self, u: np.ndarray) -> np.ndarray:
        """The log density of log v at `u`."""
        t = u - np.log(self.scale)
        return np.log(2.0 / np.pi) + t - _softplus(2.0 * t)

    def sample(self, key: Key, sample_shape: tuple[int, ...] = ()) -> Float[Array, ...]:
        top, bottom = jnp.abs(jax.random.normal(key, (2, *sample_shape)))
        return _from_log(jnp.log(self.scale) + jnp.log(top) - jnp.log(bottom))


@dataclass(frozen=True)
class OnStd:
    """The law of a variance whose square root has the law `law`, as in `OnStd(HalfCauchy(1.0))`.

    Raises `InputError` unless `law` is a positive law of one number.
    """

    law: Any
    shape = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "law", as_variance_law(self.law))

    @property
    def tail(self) -> float:
        return tail_of(self.law) / 2.0

    def log_density(self, u: np.ndarray) -> np.ndarray:
        """The log density of log v at `u`."""
        return log_density_of(self.law, u / 2.0) - np.log(2.0)

    def sample(self, key: Key, sample_shape: tuple[int, ...] = ()) -> Float[Array, ...]:
        return jnp.asarray(self.law.sample(key, sample_shape)) ** 2


@dataclass(frozen=True)
class NumpyroLaw:
    """A numpyro distribution of one positive number, kept by its name and numbers (savable)."""

    name: str
    parameters: tuple[tuple[str, float], ...]
    shape = ()

    @property
    def distribution(self) -> Any:
        """The numpyro distribution."""
        import numpyro.distributions as dist

        return getattr(dist, self.name)(**dict(self.parameters))

    @property
    def tail(self) -> float:
        """Of known laws as it is; of others from the slope of the log density far out: numpyro states none."""
        known = dict(self.parameters)
        if self.name in TAILS:
            return known[TAILS[self.name]]
        if self.name == "HalfCauchy":
            return 1.0
        u = np.array([40.0, 60.0])
        low, high = self.log_density(u)
        if not (np.isfinite(low) and np.isfinite(high)):
            return float("inf")
        slope = -(high - low) / 20.0
        return float("inf") if slope > STEEPEST_POWER else float(slope)

    def log_density(self, u: np.ndarray) -> np.ndarray:
        """The log density of log v at `u`."""
        points = np.asarray(u, np.float64)
        # One length for all calls: JAX compiles every operation anew for each.
        padded = np.resize(np.append(points.ravel(), 0.0), max(PADDED, points.size))
        with jax.enable_x64(True):
            value = self.distribution.log_prob(jnp.exp(jnp.asarray(padded)))
            value = np.asarray(value, np.float64)[: points.size].reshape(points.shape)
        return np.where(np.isnan(value), -np.inf, value) + u

    def sample(self, key: Key, sample_shape: tuple[int, ...] = ()) -> Float[Array, ...]:
        return self.distribution.sample(key, sample_shape)


@dataclass(frozen=True)
class PointMass:
    """The law of a scale that is known: a process whose covariance is multiplied by `value`.

    Raises `InputError` unless it is a positive number.
    """

    value: float = 1.0
    shape = ()
    tail = float("inf")

    def __post_init__(self) -> None:
        _positive(self, "value")

    def sample(self, key: Key, sample_shape: tuple[int, ...] = ()) -> Float[Array, ...]:
        return jnp.full(sample_shape, self.value)


OWN = (InverseGamma, Gamma, BurrXII, HalfCauchy, OnStd, NumpyroLaw, PointMass)


def as_variance_law(value: Any) -> Any:
    """A law of one positive number in a form that has a density and can be saved.

    Takes a positive number (a `PointMass`), the laws of this module, `bn.LogNormal`, a numpyro
    distribution on the positive axis, or an object with `sample(key, shape)` and `log_density(u)`
    (of the logarithm). Raises `InputError` for anything else.
    """
    if isinstance(value, OWN):
        return value
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
        return PointMass(float(value))
    if not is_law(value) or isinstance(value, type):
        raise InputError(
            "The law of a scale must be for example bn.InverseGamma(2.0, 2.0), bn.LogNormal(0.0, 1.0), "
            f"bn.OnStd(bn.HalfCauchy(1.0)) or a numpyro distribution, got {value!r}."
        )
    if isinstance(value, LogNormal):
        if value.shape:
            raise InputError(f"The law of a scale must be of one number, got {value}.")
        return value
    check_positive_law(value, "the scale")
    if type(value).__module__.startswith("numpyro.distributions"):
        return _from_numpyro(value)
    if not hasattr(value, "log_density"):
        raise InputError(
            f"The law {type(value).__name__} has no density: give it a method log_density(u), the log "
            "density of the logarithm of its value, or use a numpyro distribution."
        )
    return value


def _from_numpyro(value: Any) -> NumpyroLaw:
    if tuple(value.batch_shape) or tuple(value.event_shape):
        raise InputError(f"The law of a scale must be of one number, got {value}.")
    parameters = tuple((name, float(getattr(value, name))) for name in value.arg_constraints)
    law = NumpyroLaw(type(value).__name__, parameters)
    probe = np.array([-1.0, 0.0, 1.0])
    try:
        same = np.allclose(
            law.log_density(probe), np.asarray(value.log_prob(jnp.exp(probe))) + probe, atol=1e-3
        )
    except Exception as error:
        raise InputError(
            f"The numpyro law {type(value).__name__} cannot be stated by its numbers "
            f"{dict(parameters)}: {error}"
        ) from error
    if not same:
        raise InputError(
            f"The numpyro law {type(value).__name__} has more to it than its numbers "
            f"{dict(parameters)}: give an object with sample(key, shape) and log_density(u) instead."
        )
    return law


def log_density_of(law: Any, u: np.ndarray) -> np.ndarray:
    """The log density of the logarithm of a value of `law` at `u`, in float64."""
    if isinstance(law, LogNormal):
        z = (u - law.loc) / law.scale
        return -0.5 * z**2 - np.log(law.scale) - 0.5 * np.log(2.0 * np.pi)
    return np.asarray(law.log_density(np.asarray(u, np.float64)), np.float64)


def tail_of(law: Any) -> float:
    """How fast the right tail falls, `P(v > t) ~ t^-tail`; infinity if faster than any power."""
    if isinstance(law, LogNormal):
        return float("inf")
    if hasattr(law, "tail"):
        return float(law.tail)
    low, high = log_density_of(law, np.array([40.0, 60.0]))
    slope = -(high - low) / 20.0
    return float(slope) if np.isfinite(slope) and slope < STEEPEST_POWER else float("inf")
