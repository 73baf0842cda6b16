"""Hierarchical weights in the coordinates of the weights: what samplers may move through."""

from __future__ import annotations

from typing import TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp

from bayesnet._types import Array, Float, PyTree

if TYPE_CHECKING:
    from bayesnet.priors.weights.hierarchical import HierarchicalLaw


class CentredLaw(eqx.Module):
    """A hierarchical law in latents `v = r(u)^c z` with `r(u) = sigma(u) / sigma(0)`.

    c = 1 is the centred form, in which v is the weight in units of its median scale and u acts
    on its prior only; 0 < c < 1 lies between (Papaspiliopoulos, Roberts & Skoeld 2007). Latents v
    are not N(0, 1): their log density is -|v|^2 / 2 - |u|^2 / 2 + `log_correction`, which
    restores the prior exactly. It is for samplers only; draws and posteriors are kept in z.
    """

    law: HierarchicalLaw

    @property
    def latent_size(self) -> int:
        return self.law.latent_size

    def _scales(self, u: Array) -> tuple[Array, Array]:
        """log sigma(0) and log r(u) of all scales."""
        counts = self.law.counts
        median = self.law.scale_law.log_scale(jnp.zeros_like(u), counts)
        return median, self.law.scale_law.log_scale(u, counts) - median

    def _expand(self, values: Array) -> list[Array]:
        return self.law.layout.expand(values, self.law.per)

    def decode(self, v: Float[Array, " q"]) -> PyTree:
        pieces, u = self.law.split(v)
        median, log_ratio = self._scales(u)
        scales = self._expand(jnp.exp(median + (1.0 - self.law.centred) * log_ratio))
        return self.law.place([a * s for a, s in zip(pieces, scales, strict=True)])

    def encode(self, params: PyTree) -> Float[Array, " q"]:
        return self.from_latents(self.law.encode(params))

    def log_correction(self, v: Float[Array, " q"]) -> Float[Array, ""]:
        """The log prior density of `v` less that of N(0, I)."""
        pieces, u = self.law.split(v)
        moved = self.law.centred * self._scales(u)[1]
        total = jnp.zeros((), v.dtype)
        for piece, r in zip(pieces, self._expand(moved), strict=True):
            weights = piece.size / r.size  # that share each of these scales
            total += 0.5 * jnp.sum(piece**2 * -jnp.expm1(-2.0 * r)) - weights * jnp.sum(r)
        return total

    def to_latents(self, v: Float[Array, " q"]) -> Float[Array, " q"]:
        """The latents z, N(0, 1) under the prior, of the latents v."""
        return self._moved(v, -self.law.centred)

    def from_latents(self, z: Float[Array, " q"]) -> Float[Array, " q"]:
        """The inverse of `to_latents`."""
        return self._moved(z, self.law.centred)

    def _moved(self, latents: Array, power: float) -> Array:
        pieces, u = self.law.split(latents)
        factors = self._expand(jnp.exp(power * self._scales(u)[1]))
        moved = [a * f for a, f in zip(pieces, factors, strict=True)]
        return self.law.layout.join([*moved, u])
