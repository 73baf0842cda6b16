"""The Gaussian weight law."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from bayesnet._types import Array
from bayesnet.networks.base import Network
from bayesnet.priors.weights.located import ElementwiseLaw, Recipe, check_positive


class GaussianLaw(ElementwiseLaw):
    """`w = loc + exp(log_scale) * z`: independent Gaussian weights (GPi-G).

    Tran et al. 2022, eq. 9: the standard deviations of weights and biases of each layer are
    the parameters that matching tunes. `encode` is exact. Fields: see `ElementwiseLaw`.
    """

    def quantile(self, z: Array, leaf: int) -> Array:
        return z

    def latent(self, value: Array, leaf: int) -> Array:
        return value


@dataclass(frozen=True)
class Gaussian(Recipe):
    """Independent Gaussian weights.

    Args:
        loc: "fixed" (the network's own locations, mostly 0), "tied" (one trainable mean an
            array of parameters) or "free" (one a parameter).
        per: trainable standard deviations: one a "layer" (weights and biases apart), one an
            output "unit" (channel), one a "parameter", or one a "block" of the network (a
            residual block; weights and vectors apart; needs its "ntk" parameterisation).
        scale: the standard deviations before matching, as multiples of the network's own.
    """

    per: str = "layer"
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("scale", self.scale)

    def build(self, network: Network, in_dim: int, out_dim: int) -> GaussianLaw:
        fields, base = self.start(network, in_dim, out_dim)
        log_scale = fields["layout"].repeat(np.log(base * self.scale), self.per)
        return GaussianLaw(**fields, log_scale=jnp.asarray(log_scale), per=self.per)

    @staticmethod
    def from_params(
        params: Any, delta: float = 0.1, floor: float = 0.01, loc: str = "fixed"
    ) -> Any:
        """Means from pre-trained weights, see `Pretrained`."""
        from bayesnet.priors.weights.pretrained import Pretrained

        return Pretrained(params, delta, floor, loc)
