"""The horseshoe weight law: most weights near zero, a few of any size."""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._types import Array, Float, PyTree
from bayesnet.networks.base import Network
from bayesnet.priors.weights.base import check_granularity
from bayesnet.priors.weights.located import LocatedLaw, Recipe, check_positive
from bayesnet.priors.weights.quantiles import log_half_cauchy_quantile

# Local scales estimated from given weights lie within this factor of the global one.
WIDEST_ESTIMATE = 1e3


class HorseshoeLaw(LocatedLaw):
    """`w = loc + tau lambda z`, tau ~ HalfCauchy(tau0) a group, lambda ~ HalfCauchy(1) a weight.

    Carvalho, Polson & Scott 2010; with a slab c, lambda is replaced by
    lambda' = c lambda / sqrt(c^2 + tau^2 lambda^2) (Piironen & Vehtari 2017, eq. 2.8), so that
    tau lambda' < c and large weights are N(0, c^2).

    Latents: z of all weights (p,), those of lambda (p,), those of tau, one a group of `per`; two
    normal latents a weight. Half-Cauchy scales are log-space maps of normals. `encode` takes
    tau at its median tau0, lambda = |w - loc| / tau within [1e-3, 1e3], and the z that give the
    weights exactly.

    Fields: `log_global` (g,) trainable, log tau0 of each array of parameters; `log_slab` (g,)
    trainable, log c, or None; `per`; those of `LocatedLaw`.
    """

    log_global: Float[Array, " g"]
    log_slab: Float[Array, " g"] | None
    per: str = eqx.field(static=True)

    @property
    def latent_size(self) -> int:
        return 2 * self.layout.size + self.layout.num_groups(self.per)

    def _log_scale(self, leaf: int, local: Array, shared: Array) -> Array:
        """log of the weights' standard deviation from the latents of lambda and tau."""
        dtype = local.dtype
        log_tau = self.log_global[leaf].astype(dtype) + log_half_cauchy_quantile(shared)
        plain = log_tau + log_half_cauchy_quantile(local)
        if self.log_slab is None:
            return plain
        slab = self.log_slab[leaf].astype(dtype)
        return -0.5 * jnp.logaddexp(-2.0 * plain, -2.0 * slab)

    def decode(self, z: Float[Array, " q"]) -> PyTree:
        more = (*self.layout.shapes, *self.layout.groups(self.per))
        pieces, rest = self.layout.split_more(z, more)
        count = len(pieces)
        leaves = [
            pieces[i] * jnp.exp(self._log_scale(i, rest[i], rest[count + i])) for i in range(count)
        ]
        return self.place(leaves)

    def encode(self, params: PyTree) -> Float[Array, " q"]:
        pieces, locals_, shared = [], [], []
        groups = self.layout.groups(self.per)
        for i, (leaf, group) in enumerate(zip(self.deviations(params), groups, strict=True)):
            u = jnp.zeros(group, leaf.dtype)
            size = jnp.abs(leaf) / jnp.exp(self.log_global[i])
            size = jnp.clip(size, 1.0 / WIDEST_ESTIMATE, WIDEST_ESTIMATE)
            # Phi^-1(2/pi atan(s)), by the tail that float32 resolves: 1/s has the law of s.
            small = jnp.minimum(size, 1.0 / size)
            tail = jax.scipy.special.ndtri(jnp.arctan(small) * (2.0 / np.pi))
            v = jnp.where(size < 1.0, tail, -tail)
            pieces.append(leaf / jnp.exp(self._log_scale(i, v, u)))
            locals_.append(v)
            shared.append(u)
        return self.layout.join(pieces + locals_ + shared)


@dataclass(frozen=True)
class Horseshoe(Recipe):
    """Global-local shrinkage: sparse networks.

    Args:
        loc: as for `Gaussian`.
        per: one global scale tau a "layer" (weights and biases apart), an output "unit", or a
            "parameter".
        global_scale: tau0 before matching, as a multiple of the network's own scale.
        slab_scale: c, the standard deviation of weights that escape shrinkage, as a multiple of
            the network's own scale; None for the plain horseshoe, whose weights have neither
            mean nor variance, and whose posteriors are hard for any sampler.
    """

    per: str = "layer"
    global_scale: float = 1.0
    slab_scale: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_granularity(self.per)
        check_positive("global_scale", self.global_scale)
        if self.slab_scale is not None:
            check_positive("slab_scale", self.slab_scale)

    def build(self, network: Network, in_dim: int, out_dim: int) -> HorseshoeLaw:
        fields, base = self.start(network, in_dim, out_dim)
        slab = None if self.slab_scale is None else jnp.asarray(np.log(base * self.slab_scale))
        return HorseshoeLaw(
            **fields,
            log_global=jnp.asarray(np.log(base * self.global_scale)),
            log_slab=slab,
            per=self.per,
        )
