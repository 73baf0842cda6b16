"""Student-t noise: outliers cost little.

Lange, Little & Taylor 1989 ("Robust statistical modeling using the t distribution").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from scipy.special import gammaln as np_gammaln
from scipy.special import stdtr, stdtrit

from bayesnet._types import Array, Float
from bayesnet.data import Rows, Scaling
from bayesnet.likelihoods.base import LikelihoodDefaults, LocationScale, refuse_y_var, sum_outputs
from bayesnet.likelihoods.levels import Level, bind_level, check_level, unscaled_level
from bayesnet.priors.laws import LogNormal

# Of a learned df: 2 plus this, so that the noise has a variance; median 6, 90 % in (2.8, 23).
DEFAULT_EXCESS = LogNormal(float(np.log(4.0)), 1.0)
# Above this df the normalising constant comes from its expansion: the difference of two
# log-gamma functions has no digits left in float32.
LARGE_DF = 20.0
_LOG_PI = float(np.log(np.pi))


@dataclass(frozen=True)
class StudentTLikelihood(LikelihoodDefaults):
    """`y = f(x) + scale * t`, the noise t Student's with `df` degrees of freedom.

    Args:
        df: a positive number (known), a `bn.LogNormal` (learned), or None: learned, 2 plus a
            log-normal (median 6), so that the noise has a variance. One for each output.
        scale: a number (known, in the units of y), a `bn.LogNormal` (learned), or None:
            learned, log-normal relative to the standard deviation of y in the table, whatever the
            units of the prior. One for each output.

    The noise variance is `scale**2 * df / (df - 2)`, infinite for df <= 2; predictions then
    have an infinite `std` (for df <= 1 no mean: NaN), while quantiles and densities are as
    good as ever. Raises `InputError` for numbers that are not positive; takes no `y_var`.
    """

    df: Any = 4.0
    scale: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "df", check_level(self.df, "df"))
        object.__setattr__(self, "scale", check_level(self.scale, "scale"))

    def bind(self, scaling: Scaling, rows: Rows) -> BoundStudentT:
        """The noise model in scaled coordinates."""
        refuse_y_var("StudentTLikelihood", rows.y_var)
        default = self.df is None
        df = DEFAULT_EXCESS if default else self.df
        return BoundStudentT(
            bind_level(self.scale, scaling, rows),
            unscaled_level(df, np.zeros_like(scaling.y_scale), rows.y.dtype),
            jnp.asarray(2.0 if default else 0.0, rows.y.dtype),
        )


class BoundStudentT(eqx.Module):
    """Student-t noise in scaled coordinates; df is `least + excess`.

    Latents: those of the scale, then those of df.
    """

    scale: Level
    excess: Level
    least: Float[Array, ""]

    @property
    def latent_size(self) -> int:
        return self.scale.latent_size + self.excess.latent_size

    def log_prob(
        self, z: Float[Array, " k"], f: Float[Array, "n o"], rows: Rows
    ) -> Float[Array, " n"]:
        k = self.scale.latent_size
        log_scale, df = self.scale.log(z[:k]), self.least + jnp.exp(self.excess.log(z[k:]))
        distance = (rows.y - f) * jnp.exp(-log_scale)
        terms = -0.5 * (df + 1) * jnp.log1p(distance**2 / df) + _log_constant(df) - log_scale
        return sum_outputs(terms, rows)

    def conditional(self, z: np.ndarray, f: np.ndarray, y_var: np.ndarray | None) -> StudentTLaw:
        refuse_y_var("StudentTLikelihood", y_var)
        scale, df = self._values(z)
        return StudentTLaw(np.asarray(f, np.float64), scale[:, None, :], df[:, None, :])

    def _values(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        k = self.scale.latent_size
        return self.scale.values(z[..., :k]), float(self.least) + self.excess.values(z[..., k:])

    def summary(self, z: np.ndarray) -> dict[str, np.ndarray]:
        scale, df = self._values(z)
        learned = {"scale": self.scale.latent_size, "df": self.excess.latent_size}
        return {k: v for k, v in {"scale": scale, "df": df}.items() if learned[k]}


def _log_constant(df: Array) -> Array:
    """`log Gamma((df + 1) / 2) - log Gamma(df / 2) - log(pi df) / 2`, also for large df."""
    small = jnp.minimum(df, LARGE_DF)
    exact = gammaln((small + 1) / 2) - gammaln(small / 2) - 0.5 * (_LOG_PI + jnp.log(small))
    v = jnp.maximum(df, LARGE_DF)
    # Stirling's series of the ratio, DLMF 5.11.13, at df / 2.
    series = -0.5 * float(np.log(2 * np.pi)) - 1 / (4 * v) + 1 / (24 * v**3)
    return jnp.where(df <= LARGE_DF, exact, series)


@dataclass(frozen=True, eq=False)
class StudentTLaw(LocationScale):
    """Student-t laws for each draw, point and output: loc (s, n, m), the others broadcastable."""

    df: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        return np.where(self.df > 1, self.loc, np.nan)

    @property
    def variance(self) -> np.ndarray:
        excess = np.where(self.df > 2, self.df - 2, 1.0)
        variance = np.where(self.df > 2, self.scale**2 * self.df / excess, np.inf)
        return np.broadcast_to(variance, self.loc.shape)

    def log_prob(self, y: np.ndarray) -> np.ndarray:
        df = self.df
        constant = np_gammaln((df + 1) / 2) - np_gammaln(df / 2) - 0.5 * np.log(np.pi * df)
        distance = (y - self.loc) / self.scale
        return constant - np.log(self.scale) - 0.5 * (df + 1) * np.log1p(distance**2 / df)

    def cdf(self, y: np.ndarray) -> np.ndarray:
        return stdtr(self.df, (y - self.loc) / self.scale)

    def quantile(self, q: float) -> np.ndarray:
        return self.loc + self.scale * stdtrit(self.df, q)

    def sample(self, rng: np.random.Generator, draw: tuple[Any, ...]) -> np.ndarray:
        scale, df = (np.broadcast_to(a, self.loc.shape)[draw] for a in (self.scale, self.df))
        return self.loc[draw] + scale * rng.standard_t(df)
