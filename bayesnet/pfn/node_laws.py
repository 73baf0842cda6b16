"""What nodes of a quadrature stand for: hyper-parameters, and the densities that weigh them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._types import Array, Float
from bayesnet.pfn.hyper_map import HyperMap
from bayesnet.pfn.proposal import ProposedLaw

# Gates of columns: how soft the choice between effect and none is, and the least of them.
_SOFT, _LEAST = 0.3, 1e-6
_HALF_LOG_2PI = 0.9189385332046727


@dataclass(frozen=True, eq=False)
class NodeLaws:
    """The prior of nodes, by kind of process (p), and the density of what a reader proposes.

    `shares` of the kinds; `unused`: how probable a column without effect is. Nodes are latents
    z (p, n, k) and gates (p, n, d) of columns; `used` (D,) marks the columns of a table, d is their number.
    """

    hyper: HyperMap
    shares: tuple[float, ...]
    unused: float

    def gates(self, odds: Float[Array, "p n d"], d: Array) -> Float[Array, "p n d"]:
        """How much of an effect columns have, in (0, 1], for log odds of having one."""
        if self.unused == 0:
            return jnp.ones_like(odds)
        # The only column of a table has an effect.
        return jnp.where(d > 1, jnp.maximum(jax.nn.sigmoid(odds / _SOFT), _LEAST), 1.0)

    def proposed(
        self, law: ProposedLaw, std: Array, z: Array, gates: Array, used: Array
    ) -> Float[Array, "p n"]:
        """Log density of nodes under the reader's law, with sds `std` in the place of its own."""
        d = used.sum().astype(int)
        counts = self._counts(d, gates)
        e = (z[:, :, None] - law.mean) / std
        normal = -0.5 * e**2 - jnp.log(std) - _HALF_LOG_2PI
        each = jnp.sum(counts[:, :, None] * normal, axis=-1)
        found = jax.nn.logsumexp(law.log_weight + law.log_part.T[:, None] + each, axis=-1)
        if self.unused > 0:
            on, off = jax.nn.log_sigmoid(law.relevance), jax.nn.log_sigmoid(-law.relevance)
            columns = jnp.sum(used * (gates * on + (1 - gates) * off), axis=-1)
            found = found + jnp.where(d > 1, columns, 0.0)
        return found

    def prior(self, z: Array, gates: Array, used: Array) -> Float[Array, "p n"]:
        """Log prior density of nodes."""
        d = used.sum().astype(int)
        normal = -0.5 * z**2 - _HALF_LOG_2PI
        found = jnp.log(jnp.asarray(self.shares, z.dtype))[:, None]
        found = found + jnp.sum(self._counts(d, gates) * normal, axis=-1)
        if self.unused > 0:
            columns = gates * np.log1p(-self.unused) + (1 - gates) * np.log(self.unused)
            found = found + jnp.where(d > 1, jnp.sum(used * columns, axis=-1), 0.0)
        return found

    def hypers(self, z: Array, gates: Array, d: Array, columns: int) -> list[tuple[Any, Array]]:
        """Hyper-parameters and noises of every kind at its nodes, for inputs of so many columns."""

        def of(kind: int) -> tuple[Any, Array]:
            at = jax.vmap(lambda z, g: self.hyper.hyper(kind, d, z, g, columns))
            found: tuple[Any, Array] = at(z[kind], gates[kind])
            return found

        return [of(kind) for kind in range(len(z))]

    def _counts(self, d: Array, gates: Array) -> Float[Array, "p n k"]:
        return jnp.stack([self.hyper.counts(kind, d, g) for kind, g in enumerate(gates)])
