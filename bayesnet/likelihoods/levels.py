"""The level of the noise - a standard deviation or scale - known or learned, for each output."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError
from bayesnet._types import Array, Float
from bayesnet.data import Rows, Scaling
from bayesnet.priors.laws import LogNormal, check_positive_law

# The law of a learned noise level, as a fraction of the standard deviation of y in the table, whatever
# the units of the prior: median 0.14, 90 % between 0.026 and 0.70.
DEFAULT_NOISE = LogNormal(-2.0, 1.0)


def check_level(value: Any, name: str) -> Any:
    """None, a positive number, or a log-normal law. Raises `InputError` for anything else."""
    if value is None:
        return None
    value = check_positive_law(value, name)
    if isinstance(value, tuple):
        raise InputError(f"{name} must be one number or law, got {len(value)} values.")
    if hasattr(value, "sample") and not isinstance(value, LogNormal):
        raise InputError(f"The law of {name} must be a bn.LogNormal (a transport of a latent).")
    return value


class Level(eqx.Module):
    """`exp(log_loc + log_scale * z)` with one latent an output, or `exp(log_loc)` if known."""

    log_loc: Float[Array, " m"]
    log_scale: Float[Array, " m"] | None

    @property
    def latent_size(self) -> int:
        return 0 if self.log_scale is None else len(self.log_scale)

    def log(self, z: Float[Array, " k"]) -> Float[Array, " m"]:
        """The log level for latents `z`, in JAX."""
        return self.log_loc if self.log_scale is None else self.log_loc + self.log_scale * z

    def values(self, z: np.ndarray) -> np.ndarray:
        """The level (..., m) for latents (..., k), in NumPy's float64."""
        loc = np.asarray(self.log_loc, np.float64)
        if self.log_scale is None:
            return np.exp(np.broadcast_to(loc, (*np.shape(z)[:-1], len(loc))))
        return np.exp(loc + np.asarray(self.log_scale, np.float64) * np.asarray(z, np.float64))


def bind_level(value: Any, scaling: Scaling, rows: Rows) -> Level:
    """A level in the units of y (None: `DEFAULT_NOISE` of the spread of y), in scaled ones."""
    dtype = rows.y.dtype
    if value is None:
        return unscaled_level(DEFAULT_NOISE, np.log(scaling.relative_spread), dtype)
    return unscaled_level(value, -np.log(scaling.y_scale), dtype)


def unscaled_level(value: Any, shift: np.ndarray, dtype: Any) -> Level:
    """A number or law times `exp(shift)` (m,)."""
    if isinstance(value, LogNormal):
        loc, scale = law_of_outputs(value, len(shift))
        return Level(jnp.asarray(loc + shift, dtype), jnp.asarray(scale, dtype))
    return Level(jnp.asarray(np.log(value) + shift, dtype), None)


def law_of_outputs(law: LogNormal, m: int) -> tuple[np.ndarray, np.ndarray]:
    """`loc` and `scale` (m,) of a law given once for all outputs or once for each."""
    try:
        return np.broadcast_to(law.loc, (m,)), np.broadcast_to(law.scale, (m,))
    except ValueError as error:
        raise InputError(f"{law} is a law for {law.shape[0]} outputs, y has {m}.") from error


def mean_row_variance(rows: Rows) -> Float[Array, " m"] | None:
    """The mean known variance of the training rows, for new rows without one."""
    if rows.y_var is None:
        return None
    share = rows.share()
    return jnp.sum(share * rows.y_var, axis=0) / jnp.sum(share, axis=0)


def randomised_normal(
    residual: Float[Array, "n m"], log_std: Float[Array, ...], scores: Float[Array, "n m"]
) -> Float[Array, "n m"]:
    """Terms of Gaussian noise whose gradient moves a function towards targets with noise added.

    `residual` y - f; `scores` standard normal numbers, which times the sd are the noise. The level, where
    it is learned, is judged by the targets as they are: by those with noise added it would grow
    without end. So the two parts do not see each other's gradient.
    """
    known = jax.lax.stop_gradient(log_std)
    function = -0.5 * (residual * jnp.exp(-known) + scores) ** 2
    apart = jax.lax.stop_gradient(residual)
    return function - 0.5 * (apart * jnp.exp(-log_std)) ** 2 - log_std
