"""Laws of positive hyper-parameters: lengthscales, variances, noise levels.

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
class LogNormal:
    """`exp(loc + scale * z)` with z standard normal (the convention of numpyro and torch).

    The median is `exp(loc)`. `loc` and `scale` are numbers, or vectors for one independent
    component an input column (ARD).
    """

    loc: Any = 0.0
    scale: Any = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "loc", _tuple_or_float(self.loc))
        object.__setattr__(self, "scale", _tuple_or_float(self.scale))
        if not np.all(np.isfinite(self.loc)):
            raise InputError(f"LogNormal: loc must be finite, got {self.loc}.")
        if not np.all(np.asarray(self.scale) > 0) or not np.all(np.isfinite(self.scale)):
            raise InputError(f"LogNormal: scale must be positive, got {self.scale}.")

    @property
    def shape(self) -> tuple[int, ...]:
        return np.broadcast_shapes(np.shape(self.loc), np.shape(self.scale))

    def transport(self, z: Float[Array, "*k"]) -> Float[Array, "*k"]:
        """The value whose latent is `z`."""
        return jnp.exp(jnp.asarray(self.loc, z.dtype) + jnp.asarray(self.scale, z.dtype) * z)

    def sample(self, key: Key, sample_shape: tuple[int, ...] = ()) -> Float[Array, ...]:
        return self.transport(jax.random.normal(key, (*sample_shape, *self.shape)))


def check_positive_law(value: Any, name: str) -> Any:
    """A hyper-parameter as it may be given: a positive number or vector, or a positive law.

    Returns a float, a tuple of floats, or the law. Raises `InputError` otherwise, also for a
    numpyro distribution whose support reaches outside the positive axis.
    """
    if hasattr(value, "sample"):
        support = getattr(value, "support", None)
        if support is not None and not _is_positive(support):
            raise InputError(
                f"The law of {name} reaches outside the positive axis (support {support}): use for "
                "example bn.LogNormal(0.0, 0.5) or a numpyro Gamma, InverseGamma or HalfCauchy."
            )
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


def _is_positive(support: Any) -> bool:
    low = getattr(support, "lower_bound", None)
    base = getattr(support, "base_constraint", None)
    if low is None and base is not None:
        return _is_positive(base)
    return low is not None and bool(np.all(np.asarray(low) >= 0))


def draw_law(value: Any, key: Key, num: int) -> Float[Array, "s ..."]:
    """`num` values of a hyper-parameter: repeated if it is fixed, drawn if it is a law."""
    if hasattr(value, "sample"):
        return jnp.asarray(value.sample(key, (num,)))
    fixed = jnp.asarray(value)
    return jnp.broadcast_to(fixed, (num, *fixed.shape))
