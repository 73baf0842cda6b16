"""Gaussian observation noise: known, learned, or known row by row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtr, ndtri

from bayesnet._types import Array, Float
from bayesnet.data import Rows, Scaling
from bayesnet.likelihoods.base import LikelihoodDefaults, LocationScale, sum_outputs
from bayesnet.likelihoods.levels import (
    DEFAULT_NOISE,
    check_level,
    mean_row_variance,
    randomised_normal,
)
from bayesnet.priors.laws import LogNormal

_LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True)
class GaussianLikelihood(LikelihoodDefaults):
    """`y = f(x) + noise`, the noise Gaussian and independent between rows and outputs.

    Args:
        noise_std: a number (known, in the units of y), a law (learned, in the units of y), or
            None: learned under a log-normal law relative to the standard deviation of y in the
            table, whatever the units of the prior (median 0.14 of it) - or, where per-row
            variances `y_var` are given to `fit`, just those.

    With both `noise_std` and `y_var` the variances add. Learned noise has one level for each
    output. Raises `InputError` for a number that is not positive.
    """

    noise_std: Any = None
    row_variances: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise_std", check_level(self.noise_std, "noise_std"))

    def bind(self, scaling: Scaling, rows: Rows) -> BoundGaussian:
        """The noise model in scaled coordinates."""
        m = rows.y.shape[1]
        dtype = rows.y.dtype
        law = self.noise_std
        row_mean = mean_row_variance(rows)
        if law is None and row_mean is not None:
            return BoundGaussian(None, None, row_mean, learned=False)
        shift = np.log(scaling.y_scale)
        if law is None:
            law, shift = DEFAULT_NOISE, -np.log(scaling.relative_spread)
        if isinstance(law, LogNormal):
            loc = jnp.asarray(law.loc - shift, dtype)
            return BoundGaussian(loc, jnp.full(m, law.scale, dtype), row_mean, learned=True)
        loc = jnp.asarray(np.log(law) - shift, dtype)
        return BoundGaussian(loc, None, row_mean, learned=False)


class BoundGaussian(eqx.Module):
    """Gaussian noise in scaled coordinates.

    `log_loc`, `log_scale` (m,): the noise level is `exp(log_loc + log_scale * z)` if learned,
    `exp(log_loc)` if known, none if `log_loc` is None (then rows bring their own variances).
    `row_var` (m,): the mean variance of the training rows, used for new rows without one.
    """

    log_loc: Float[Array, " m"] | None
    log_scale: Float[Array, " m"] | None
    row_var: Float[Array, " m"] | None
    learned: bool = eqx.field(static=True)

    @property
    def latent_size(self) -> int:
        return len(self.log_loc) if self.learned and self.log_loc is not None else 0

    def _log_std(self, z: Any, xp: Any) -> Any:
        if self.learned:
            return xp.asarray(self.log_loc) + xp.asarray(self.log_scale) * z
        return xp.asarray(self.log_loc)

    def log_prob(
        self, z: Float[Array, " k"], f: Float[Array, "n m"], rows: Rows
    ) -> Float[Array, " n"]:
        residual = rows.y - f
        if rows.y_var is None:
            log_std = self._log_std(z, jnp)
            terms = -0.5 * (residual * jnp.exp(-log_std)) ** 2 - log_std - 0.5 * _LOG_2PI
        else:
            variance = self._variance(z, rows.y_var)
            terms = -0.5 * residual**2 / variance - 0.5 * jnp.log(variance) - 0.5 * _LOG_2PI
        return sum_outputs(terms, rows)

    def randomised_log_prob(
        self, z: Float[Array, " k"], f: Float[Array, "n m"], rows: Rows, scores: Float[Array, "n m"]
    ) -> Float[Array, " n"]:
        if rows.y_var is None:
            log_std = self._log_std(z, jnp)
        else:
            log_std = 0.5 * jnp.log(self._variance(z, rows.y_var))
        return sum_outputs(randomised_normal(rows.y - f, log_std, scores), rows)

    def _variance(self, z: Array, y_var: Array) -> Array:
        """The variances of rows with variances of their own."""
        return y_var if self.log_loc is None else y_var + jnp.exp(2 * self._log_std(z, jnp))

    def conditional(self, z: np.ndarray, f: np.ndarray, y_var: np.ndarray | None) -> Normal:
        f = np.asarray(f, np.float64)
        variance = np.zeros((1, 1, f.shape[-1]))
        if self.log_loc is not None:
            log_std = np.asarray(self._log_std(np.asarray(z, np.float64), np), np.float64)
            variance = np.exp(2 * np.broadcast_to(log_std, (f.shape[0], f.shape[-1])))[:, None, :]
        if y_var is not None:
            variance = variance + y_var
        elif self.row_var is not None:
            variance = variance + np.asarray(self.row_var, np.float64)
        return Normal(f, np.sqrt(variance))

    def summary(self, z: np.ndarray) -> dict[str, np.ndarray]:
        if not self.learned:
            return {}
        return {"noise_std": np.exp(np.asarray(self._log_std(np.asarray(z, np.float64), np)))}


@dataclass(frozen=True, eq=False)
class Normal(LocationScale):
    """`N(loc, scale^2)` for each draw, point and output: loc (s, n, m), scale broadcastable."""

    @property
    def variance(self) -> np.ndarray:
        return np.broadcast_to(self.scale**2, self.loc.shape)

    def log_prob(self, y: np.ndarray) -> np.ndarray:
        return -0.5 * ((y - self.loc) / self.scale) ** 2 - np.log(self.scale) - 0.5 * _LOG_2PI

    def cdf(self, y: np.ndarray) -> np.ndarray:
        return ndtr((y - self.loc) / self.scale)

    def quantile(self, q: float) -> np.ndarray:
        return self.loc + self.scale * ndtri(q)

    def sample(self, rng: np.random.Generator, draw: tuple[Any, ...]) -> np.ndarray:
        scale = np.broadcast_to(self.scale, self.loc.shape)[draw]
        return self.loc[draw] + scale * rng.standard_normal(scale.shape)
