"""Hierarchical weights in the coordinates of the weights: what samplers may move through."""

from __future__ import annotations

from typing import TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp
import numpy as np

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

    def _log_ratios(self, latents: list[Array]) -> list[Array]:
        scale = self.law.scale_law.log_scale
        return [scale(u, i) - scale(jnp.zeros((), u.dtype), i) for i, u in enumerate(latents)]

    def decode(self, v: Float[Array, " q"]) -> PyTree:
        pieces, latents = self.law.split(v)
        left = 1.0 - self.law.centred
        leaves = []
        for i, (piece, r) in enumerate(zip(pieces, self._log_ratios(latents), strict=True)):
            median = self.law.scale_law.log_scale(jnp.zeros((), piece.dtype), i)
            leaves.append(piece * jnp.exp(median + left * r))
        return self.law.place(leaves)

    def encode(self, params: PyTree) -> Float[Array, " q"]:
        return self.from_latents(self.law.encode(params))

    def log_correction(self, v: Float[Array, " q"]) -> Float[Array, ""]:
        """The log prior density of `v` less that of N(0, I), up to no constant at all."""
        pieces, latents = self.law.split(v)
        total = jnp.zeros((), v.dtype)
        for piece, r in zip(pieces, self._log_ratios(latents), strict=True):
            count = piece.size / max(1, int(np.prod(r.shape)))
            moved = self.law.centred * r
            total += 0.5 * jnp.sum(piece**2 * -jnp.expm1(-2.0 * moved)) - count * jnp.sum(moved)
        return total

    def to_latents(self, v: Float[Array, " q"]) -> Float[Array, " q"]:
        """The latents z, N(0, 1) under the prior, of the latents v."""
        return self._moved(v, -self.law.centred)

    def from_latents(self, z: Float[Array, " q"]) -> Float[Array, " q"]:
        """The inverse of `to_latents`."""
        return self._moved(z, self.law.centred)

    def _moved(self, latents: Array, power: float) -> Array:
        pieces, scales = self.law.split(latents)
        ratios = self._log_ratios(scales)
        moved = [a * jnp.exp(power * r) for a, r in zip(pieces, ratios, strict=True)]
        return self.law.layout.join(moved + scales)
