"""The conditioned model in latent coordinates: what every sampler sees."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp

from bayesnet._types import Array, Float
from bayesnet.data import Rows


class LatentModel(eqx.Module):
    """`log p(z | data) = -|z|^2 / 2 + sum_rows log p(y | f(T(z), x), noise(z)) + const`.

    `z` is one flat vector: the latents of the prior, then those of the likelihood, each
    N(0, 1) a priori (DESIGN: latent coordinates). A pytree, so that a new table or a new
    match of the same shapes runs the same compiled program.
    """

    prior: Any
    likelihood: Any
    rows: Rows

    @property
    def size(self) -> int:
        """p + k, the length of `z`."""
        return self.prior.latent_size + self.likelihood.latent_size

    def split(self, z: Float[Array, "... p"]) -> tuple[Array, Array]:
        """The latents of the prior and of the likelihood."""
        p = self.prior.latent_size
        return z[..., :p], z[..., p:]

    def log_likelihood_rows(
        self, z: Float[Array, " p"], scores: Float[Array, "n m"] | None = None
    ) -> Float[Array, " n"]:
        """Log density of each row's observed targets, times its weight; 0 on padded rows.

        With `scores` (standard normal) what randomises the targets, see `BoundLikelihood`; then only
        the gradient means anything.
        """
        z_prior, z_noise = self.split(z)
        f = self.prior.apply(z_prior, self.rows.x)
        weight = self.rows.weight
        if scores is None:
            terms = self.likelihood.log_prob(z_noise, f, self.rows)
        else:
            if weight is not None:
                # A row that counts w times tells as much as one with a w-th of the variance.
                scores = scores * jnp.where(weight > 0, weight, 1.0)[:, None] ** -0.5
            terms = self.likelihood.randomised_log_prob(z_noise, f, self.rows, scores)
        if weight is not None:
            # A row of weight 0 is absent, whatever its density.
            terms = jnp.where(weight > 0, weight * terms, 0.0)
        return jnp.where(self.rows.mask, terms, 0.0)

    def log_likelihood(self, z: Float[Array, " p"]) -> Float[Array, ""]:
        """The sum over true rows."""
        return jnp.sum(self.log_likelihood_rows(z))

    def log_prior(self, z: Float[Array, " p"]) -> Float[Array, ""]:
        """-|z|^2 / 2, and what a prior in other latents adds (`NetworkPrior.sampling_form`)."""
        value = -0.5 * jnp.sum(z * z)
        if hasattr(self.prior, "log_correction"):
            value += self.prior.log_correction(self.split(z)[0])
        return value

    def log_density(self, z: Float[Array, " p"]) -> Float[Array, ""]:
        """The unnormalised log posterior density of the latents."""
        return self.log_likelihood(z) + self.log_prior(z)
