"""Gaussian noise whose level depends on the inputs: the network's second head.

Nix & Weigend 1994 (eq. 4): the network gives the mean and the log noise level of each target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError
from bayesnet._types import Array, Float
from bayesnet.data import Rows, Scaling
from bayesnet.likelihoods.base import LikelihoodDefaults, sum_outputs
from bayesnet.likelihoods.gaussian import Normal
from bayesnet.likelihoods.levels import (
    DEFAULT_NOISE,
    check_level,
    law_of_outputs,
    mean_row_variance,
    randomised_normal,
)
from bayesnet.priors.laws import LogNormal

_LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True)
class HeteroscedasticLikelihood(LikelihoodDefaults):
    """`y = f(x) + s(x) * noise`, the noise standard normal, both f and log s functions.

    The network has 2 m outputs for m targets: the means f, then the functions g with
    `log s = loc + scale * g`. Where the prior of g has mean 0 and variance 1 (the default
    target has about that), the noise level at any x follows `noise_std`.

    Args:
        noise_std: a `bn.LogNormal(loc, scale)`, in the units of y; None: log-normal relative to
            the standard deviation of y in the table, the law of `bn.GaussianLikelihood`.

    With `y_var` the variances add. Raises `InputError` for a `noise_std` that is not a law.
    """

    noise_std: Any = None
    row_variances: ClassVar[bool] = True

    def __post_init__(self) -> None:
        law = check_level(self.noise_std, "noise_std")
        if law is not None and not isinstance(law, LogNormal):
            raise InputError(
                "noise_std of a noise that depends on x must be a law such as bn.LogNormal(-1.0, "
                f"1.0), or None, got {law!r}. For one known level use bn.GaussianLikelihood."
            )

    def num_outputs(self, columns: int) -> int:
        """A mean and a noise level for each column of y."""
        return 2 * columns

    def _law(self, scaling: Scaling) -> tuple[np.ndarray, np.ndarray]:
        """`loc` and `scale` (m,) of the log noise level in the user's units."""
        m = len(scaling.y_scale)
        if self.noise_std is None:
            loc = DEFAULT_NOISE.loc + np.log(scaling.relative_spread * scaling.y_scale)
            return loc, np.full(m, DEFAULT_NOISE.scale)
        return law_of_outputs(self.noise_std, m)

    def output_units(self, scaling: Scaling) -> tuple[np.ndarray, np.ndarray]:
        """Means in the units of y, then log noise levels."""
        loc, scale = self._law(scaling)
        return np.concatenate([scaling.y_loc, loc]), np.concatenate([scaling.y_scale, scale])

    def bind(self, scaling: Scaling, rows: Rows) -> BoundHeteroscedastic:
        """The noise model in scaled coordinates."""
        loc, scale = self._law(scaling)
        dtype = rows.y.dtype
        return BoundHeteroscedastic(
            jnp.asarray(loc - np.log(scaling.y_scale), dtype),
            jnp.asarray(scale, dtype),
            mean_row_variance(rows),
        )


class BoundHeteroscedastic(eqx.Module):
    """In scaled coordinates: outputs `f, g` (n, 2 m), log sd `log_loc + log_scale * g`."""

    log_loc: Float[Array, " m"]
    log_scale: Float[Array, " m"]
    row_var: Float[Array, " m"] | None

    @property
    def latent_size(self) -> int:
        return 0

    def log_prob(
        self, z: Float[Array, " k"], f: Float[Array, "n o"], rows: Rows
    ) -> Float[Array, " n"]:
        residual, log_std = self._residual_and_log_std(f, rows)
        terms = -0.5 * (residual * jnp.exp(-log_std)) ** 2 - log_std - 0.5 * _LOG_2PI
        return sum_outputs(terms, rows)

    def randomised_log_prob(
        self, z: Float[Array, " k"], f: Float[Array, "n o"], rows: Rows, scores: Float[Array, "n m"]
    ) -> Float[Array, " n"]:
        return sum_outputs(randomised_normal(*self._residual_and_log_std(f, rows), scores), rows)

    def _residual_and_log_std(self, f: Float[Array, "n o"], rows: Rows) -> tuple[Array, Array]:
        m = len(self.log_loc)
        log_std = self.log_loc + self.log_scale * f[:, m:]
        if rows.y_var is not None:
            log_std = 0.5 * jnp.logaddexp(2 * log_std, jnp.log(rows.y_var))
        return rows.y - f[:, :m], log_std

    def conditional(self, z: np.ndarray, f: np.ndarray, y_var: np.ndarray | None) -> Normal:
        m = len(self.log_loc)
        f = np.asarray(f, np.float64)
        log_loc, log_scale = (np.asarray(a, np.float64) for a in (self.log_loc, self.log_scale))
        variance = np.exp(2 * (log_loc + log_scale * f[..., m:]))
        if y_var is not None:
            variance = variance + y_var
        elif self.row_var is not None:
            variance = variance + np.asarray(self.row_var, np.float64)
        return Normal(f[..., :m], np.sqrt(variance))

    def summary(self, z: np.ndarray) -> dict[str, np.ndarray]:
        return {}
