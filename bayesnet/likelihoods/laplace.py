"""Laplace (double exponential) noise: the likelihood of absolute errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from bayesnet._types import Array, Float
from bayesnet.data import Rows, Scaling
from bayesnet.likelihoods.base import LikelihoodDefaults, LocationScale, refuse_y_var, sum_outputs
from bayesnet.likelihoods.levels import Level, bind_level, check_level

_LOG_2 = float(np.log(2.0))


@dataclass(frozen=True)
class LaplaceLikelihood(LikelihoodDefaults):
    """`p(y | f) = exp(-|y - f| / b) / (2 b)`: a median, not a mean, is what f tells.

    Args:
        scale: b, a number (known, in the units of y), a `bn.LogNormal` (learned), or None:
            learned, log-normal relative to the standard deviation of y in the table, whatever the
            units of the prior. One for each output. The noise sd is sqrt(2) b.

    Raises `InputError` for a scale that is not positive; takes no `y_var`.
    """

    scale: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", check_level(self.scale, "scale"))

    def bind(self, scaling: Scaling, rows: Rows) -> BoundLaplace:
        """The noise model in scaled coordinates."""
        refuse_y_var("LaplaceLikelihood", rows.y_var)
        return BoundLaplace(bind_level(self.scale, scaling, rows))


class BoundLaplace(eqx.Module):
    """Laplace noise in scaled coordinates; its latents are those of the scale."""

    scale: Level

    @property
    def latent_size(self) -> int:
        return self.scale.latent_size

    def log_prob(
        self, z: Float[Array, " k"], f: Float[Array, "n o"], rows: Rows
    ) -> Float[Array, " n"]:
        log_b = self.scale.log(z)
        return sum_outputs(-jnp.abs(rows.y - f) * jnp.exp(-log_b) - log_b - _LOG_2, rows)

    def conditional(self, z: np.ndarray, f: np.ndarray, y_var: np.ndarray | None) -> LaplaceLaw:
        refuse_y_var("LaplaceLikelihood", y_var)
        return LaplaceLaw(np.asarray(f, np.float64), self.scale.values(z)[:, None, :])

    def summary(self, z: np.ndarray) -> dict[str, np.ndarray]:
        return {"scale": self.scale.values(z)} if self.latent_size else {}


@dataclass(frozen=True, eq=False)
class LaplaceLaw(LocationScale):
    """Laplace laws for each draw, point and output: loc (s, n, m), scale broadcastable."""

    @property
    def variance(self) -> np.ndarray:
        return np.broadcast_to(2 * self.scale**2, self.loc.shape)

    def log_prob(self, y: np.ndarray) -> np.ndarray:
        return -np.abs(y - self.loc) / self.scale - np.log(self.scale) - _LOG_2

    def cdf(self, y: np.ndarray) -> np.ndarray:
        distance = (y - self.loc) / self.scale
        tail = 0.5 * np.exp(-np.abs(distance))
        return np.where(distance < 0, tail, 1 - tail)

    def quantile(self, q: float) -> np.ndarray:
        return self.loc - self.scale * np.sign(q - 0.5) * np.log(2 * min(q, 1 - q))

    def sample(self, rng: np.random.Generator, draw: tuple[Any, ...]) -> np.ndarray:
        scale = np.broadcast_to(self.scale, self.loc.shape)[draw]
        return self.loc[draw] + scale * rng.laplace(size=scale.shape)
