"""The Gaussian weight law with one trainable scale per weight array and per bias vector."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._types import Array, Float, PyTree
from bayesnet.networks.base import Network
from bayesnet.priors.weights.base import Layout


class Gaussian(eqx.Module):
    """`w = loc + exp(log_scale) * z`: independent, a scale per layer (GPi-G).

    Tran et al. 2022, eq. 9: the standard deviations of weights and biases of each layer are
    the parameters that matching tunes; the locations stay at the network's own.

    Fields: `log_scale` (g,) trainable, one per leaf of the parameters; `loc` (g,) fixed.
    """

    log_scale: Float[Array, " g"]
    loc: tuple[float, ...] = eqx.field(static=True)
    layout: Layout = eqx.field(static=True)

    @staticmethod
    def create(network: Network, in_dim: int, out_dim: int) -> Gaussian:
        """The law at the network's base scales, before any matching."""
        loc, scale = network.base_law(in_dim, out_dim)
        log_scale = np.log(np.asarray(jax.tree.leaves(scale), np.float32))
        return Gaussian(
            log_scale=jnp.asarray(log_scale),
            loc=tuple(float(a) for a in jax.tree.leaves(loc)),
            layout=Layout(network.param_shapes(in_dim, out_dim)),
        )

    @property
    def latent_size(self) -> int:
        return self.layout.size

    def decode(self, z: Float[Array, " p"]) -> PyTree:
        scale = jnp.exp(self.log_scale).astype(z.dtype)
        leaves = [
            piece * scale[i] + self.loc[i] if self.loc[i] else piece * scale[i]
            for i, piece in enumerate(self.layout.split(z))
        ]
        return jax.tree.unflatten(self.layout.treedef, leaves)

    def encode(self, params: PyTree) -> Float[Array, " p"]:
        scale = jnp.exp(self.log_scale)
        return self.layout.join(
            [(leaf - self.loc[i]) / scale[i] for i, leaf in enumerate(jax.tree.leaves(params))]
        )
