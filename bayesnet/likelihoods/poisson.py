"""Counts: the network's output is the log of their rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from scipy.special import gammaln as np_gammaln
from scipy.special import pdtr, xlogy
from scipy.stats import poisson

from bayesnet._errors import InputError
from bayesnet._matrix import as_matrix
from bayesnet._types import Array, ArrayLike, Float
from bayesnet.data import Rows, Scaling
from bayesnet.likelihoods.base import LikelihoodDefaults, refuse_y_var, sum_outputs
from bayesnet.priors.laws import check_positive_law

# Above this count log(y!) comes from Stirling's series, which float32 can subtract from.
LARGE_COUNT = 10.0
# float32 counts in ones up to here.
MOST = 2**24
# Rates from which NumPy cannot draw: there the law is normal to all digits.
HUGE_RATE = 1e15


@dataclass(frozen=True)
class PoissonLikelihood(LikelihoodDefaults):
    """`y ~ Poisson(rate * exp(f))`: f is the log rate, relative to `rate`; y is not scaled.

    Args:
        rate: a positive number, the rate where f = 0. Functions of the prior lie around 0 with
            sd about 1, so for counts far from 1 state what is typical.

    y holds whole numbers, not negative, n or n x m (one output each). `mean` of predictions is
    the rate, quantiles are whole numbers. Raises `InputError` for other targets.
    """

    rate: Any = 1.0
    scales_targets: ClassVar[bool] = False

    def __post_init__(self) -> None:
        rate = check_positive_law(self.rate, "rate")
        if not isinstance(rate, float):
            raise InputError(f"rate must be one positive number, got {self.rate!r}.")
        object.__setattr__(self, "rate", rate)

    def encode(
        self, y: ArrayLike, *, missing: bool = False
    ) -> tuple[PoissonLikelihood, np.ndarray]:
        """The counts as a float64 matrix (n, m)."""
        counts = as_matrix(y, "y", missing=missing)
        bad = (counts < 0) | (counts != np.round(counts)) & ~np.isnan(counts)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise InputError(
                "A PoissonLikelihood is for counts (0, 1, 2, ...), but y holds "
                f"{counts[row, column]:g} at row {row}, column {column}."
            )
        if (counts > MOST).any():
            raise InputError(
                f"y holds counts above {MOST}: for such large ones use bn.GaussianLikelihood, on "
                "y or its logarithm."
            )
        return self, counts

    def output_units(self, scaling: Scaling) -> tuple[np.ndarray, np.ndarray]:
        """Log rates."""
        return np.log(self.rate) + scaling.y_loc, scaling.y_scale

    def bind(self, scaling: Scaling, rows: Rows) -> BoundPoisson:
        """The law of the counts; nothing is scaled."""
        refuse_y_var("PoissonLikelihood", rows.y_var)
        return BoundPoisson(jnp.asarray(np.log(self.rate), rows.y.dtype))


class BoundPoisson(eqx.Module):
    """Counts `y` (n, m) with log rates `log_rate + f`; no latents."""

    log_rate: Float[Array, ""]

    @property
    def latent_size(self) -> int:
        return 0

    def log_prob(
        self, z: Float[Array, " k"], f: Float[Array, "n o"], rows: Rows
    ) -> Float[Array, " n"]:
        log_rate, y = self.log_rate + f, rows.y
        # Relative to the best rate, log y: differences of large numbers would lose all digits.
        count = jnp.where(y > 0, y, 1.0)
        excess = log_rate - jnp.log(count)
        positive = count * (excess - jnp.expm1(excess)) + _log_peak(count)
        return sum_outputs(jnp.where(y > 0, positive, -jnp.exp(log_rate)), rows)

    def conditional(self, z: np.ndarray, f: np.ndarray, y_var: np.ndarray | None) -> PoissonLaw:
        refuse_y_var("PoissonLikelihood", y_var)
        return PoissonLaw(np.exp(float(self.log_rate) + np.asarray(f, np.float64)))

    def summary(self, z: np.ndarray) -> dict[str, np.ndarray]:
        return {}


def _log_peak(y: Array) -> Array:
    """`y log y - y - log y!`, the log density of `y` at rate `y`, for y >= 1."""
    small = jnp.minimum(y, LARGE_COUNT)
    exact = small * jnp.log(small) - small - gammaln(small + 1)
    v = jnp.maximum(y, LARGE_COUNT)
    series = -0.5 * jnp.log(2 * jnp.pi * v) - 1 / (12 * v) + 1 / (360 * v**3)
    return jnp.where(y <= LARGE_COUNT, exact, series)


@dataclass(frozen=True, eq=False)
class PoissonLaw:
    """Poisson laws for each draw, point and output: rate (s, n, m)."""

    rate: np.ndarray
    discrete: ClassVar[bool] = True

    def affine(self, loc: np.ndarray, scale: np.ndarray) -> PoissonLaw:
        """Counts have no other units: raises `InputError` for any but the identity."""
        if np.any(np.asarray(loc) != 0) or np.any(np.asarray(scale) != 1):
            raise InputError("Counts cannot be scaled: leave y as it is.")
        return self

    @property
    def location(self) -> np.ndarray:
        return self.rate

    @property
    def mean(self) -> np.ndarray:
        return self.rate

    @property
    def variance(self) -> np.ndarray:
        return self.rate

    def log_prob(self, y: np.ndarray) -> np.ndarray:
        count = np.where((y >= 0) & (y == np.floor(y)), y, 0.0)
        density = xlogy(count, self.rate) - self.rate - np_gammaln(count + 1)
        return np.where(count == y, density, -np.inf)

    def cdf(self, y: np.ndarray) -> np.ndarray:
        y = np.broadcast_to(y, np.broadcast_shapes(np.shape(y), self.rate.shape))
        return np.where(y < 0, 0.0, pdtr(np.maximum(np.floor(y), 0.0), self.rate))

    def quantile(self, q: float) -> np.ndarray:
        return poisson.ppf(q, self.rate)

    def sample(self, rng: np.random.Generator, draw: tuple[Any, ...]) -> np.ndarray:
        rate = self.rate[draw]
        huge = rate > HUGE_RATE
        counts = rng.poisson(np.where(huge, 1.0, rate)).astype(np.float64)
        if huge.any():
            normal = np.round(rate + np.sqrt(rate) * rng.standard_normal(rate.shape))
            counts = np.where(huge, normal, counts)
        return counts
