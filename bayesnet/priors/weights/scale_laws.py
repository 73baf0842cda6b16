"""Laws of random scales: log sigma as an increasing function of one standard normal latent."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._types import Array, Float
from bayesnet.priors.weights.quantiles import SMALLEST_SHAPE, log_gamma_quantile

# How many scales there are for each array of parameters.
Counts = tuple[int, ...]
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

    def log_scale(self, u: Float[Array, " s"], counts: Counts) -> Float[Array, " s"]:
        """log sigma at latents `u` of all scales, `counts` of them for each array of parameters."""
        median, log_sd = (_repeat(a, counts, u) for a in (self.log_median, self.log_sd))
        return median + jnp.exp(log_sd) * u

    def latent(self, log_scale: Float[Array, " s"], counts: Counts) -> Float[Array, " s"]:
        """The latents of given scales, clipped to |u| <= `FARTHEST_ESTIMATE`."""
        median, log_sd = (_repeat(a, counts, log_scale) for a in (self.log_median, self.log_sd))
        u = (log_scale - median) / jnp.exp(log_sd)
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

    def _parameters(self, counts: Counts, like: Array) -> tuple[Array, Array]:
        """The shape a and log b of each scale."""
        excess, log_rate = (
            _repeat(a, counts, like) for a in (self.log_excess_shape, self.log_rate)
        )
        return SMALLEST_SHAPE + MARGIN + jnp.exp(excess), log_rate

    def log_scale(self, u: Float[Array, " s"], counts: Counts) -> Float[Array, " s"]:
        """log sigma at latents `u` of all scales, `counts` of them for each array of parameters."""
        shape, log_rate = self._parameters(counts, u)
        return 0.5 * (log_rate - log_gamma_quantile(-u, shape))

    def latent(self, log_scale: Float[Array, " s"], counts: Counts) -> Float[Array, " s"]:
        """The latents of given scales, clipped to |u| <= `FARTHEST_ESTIMATE`."""
        shape, log_rate = self._parameters(counts, log_scale)
        below = jax.scipy.special.gammainc(shape, jnp.exp(log_rate - 2.0 * log_scale))
        # Clipped on the side of probability where float32 still tells values apart.
        far = jax.scipy.special.ndtr(-FARTHEST_ESTIMATE)
        return -jax.scipy.special.ndtri(jnp.clip(below, far, 1.0 - far))


def _repeat(values: Array, counts: Counts, like: Array) -> Array:
    values = values.astype(like.dtype)
    if all(count == 1 for count in counts):
        return values
    return jnp.repeat(values, np.asarray(counts), total_repeat_length=sum(counts))


ScaleLaw = LogNormalScale | InverseGammaScale
SCALE_LAWS = ("lognormal", "inverse_gamma")
