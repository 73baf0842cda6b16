"""Laws of random scales: log sigma as an increasing function of one standard normal latent."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._types import Array, Float
from bayesnet.priors.weights.quantiles import SMALLEST_SHAPE, log_gamma_quantile

# Latents of scales estimated from given weights stay where the prior has mass.
FARTHEST_ESTIMATE = 4.0
# A trained shape stays above the smallest that the quantile covers.
MARGIN = 1e-3


class LogNormalScale(eqx.Module):
    """`log sigma = log_median + exp(log_sd) u`. Both fields (g,), one an array of parameters."""

    log_median: Float[Array, " g"]
    log_sd: Float[Array, " g"]

    @staticmethod
    def create(median: np.ndarray, spread: float) -> LogNormalScale:
        """`median` (g,); `spread` is the standard deviation of log sigma."""
        sd = np.full(len(median), np.log(spread), np.float32)
        return LogNormalScale(jnp.asarray(np.log(median), jnp.float32), jnp.asarray(sd))

    def log_scale(self, u: Array, leaf: int) -> Array:
        """log sigma at latents `u`."""
        return (
            self.log_median[leaf].astype(u.dtype) + jnp.exp(self.log_sd[leaf]).astype(u.dtype) * u
        )

    def latent(self, log_scale: Array, leaf: int) -> Array:
        """The latents of given scales, clipped to |u| <= `FARTHEST_ESTIMATE`."""
        u = (log_scale - self.log_median[leaf]) / jnp.exp(self.log_sd[leaf])
        return jnp.clip(u, -FARTHEST_ESTIMATE, FARTHEST_ESTIMATE)


class InverseGammaScale(eqx.Module):
    """`sigma^2 ~ InverseGamma(a, b)`: `log sigma = (log b - log G(-u; a)) / 2`.

    G is the quantile of Gamma(a, 1) at probability Phi(-u), accurate to 2e-5 in |u| <= 8.
    Weights of variance sigma^2 are then Student-t with 2a degrees of freedom and scale
    sqrt(b / a), dependent within a group (Tran et al. 2022, eq. 10).

    Fields, (g,), one an array of parameters: `log_excess_shape`, a = 0.501 + exp(.); `log_rate`,
    b = exp(.).
    """

    log_excess_shape: Float[Array, " g"]
    log_rate: Float[Array, " g"]

    @staticmethod
    def create(median: np.ndarray, shape: float) -> InverseGammaScale:
        """`median` (g,) of sigma, `shape` a of sigma^2."""
        excess = np.full(len(median), np.log(shape - SMALLEST_SHAPE - MARGIN), np.float32)
        middle = float(log_gamma_quantile(jnp.zeros(()), float(shape)))
        rate = 2.0 * np.log(median) + middle
        return InverseGammaScale(jnp.asarray(excess), jnp.asarray(rate, jnp.float32))

    def shape(self, leaf: int, dtype: Any) -> Array:
        """The shape a of one leaf."""
        return SMALLEST_SHAPE + MARGIN + jnp.exp(self.log_excess_shape[leaf]).astype(dtype)

    def log_scale(self, u: Array, leaf: int) -> Array:
        """log sigma at latents `u`."""
        quantile = log_gamma_quantile(-u, self.shape(leaf, u.dtype))
        return 0.5 * (self.log_rate[leaf].astype(u.dtype) - quantile)

    def latent(self, log_scale: Array, leaf: int) -> Array:
        """The latents of given scales, clipped to |u| <= `FARTHEST_ESTIMATE`."""
        value = jnp.exp(self.log_rate[leaf] - 2.0 * log_scale)
        below = jax.scipy.special.gammainc(self.shape(leaf, value.dtype), value)
        # Clipped on the side of probability where float32 still tells values apart.
        far = jax.scipy.special.ndtr(-FARTHEST_ESTIMATE)
        return -jax.scipy.special.ndtri(jnp.clip(below, far, 1.0 - far))


ScaleLaw = LogNormalScale | InverseGammaScale
SCALE_LAWS = ("lognormal", "inverse_gamma")
