"""The Laplace (double exponential) weight law."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from bayesnet._types import Array
from bayesnet.networks.base import Network
from bayesnet.priors.weights.located import ElementwiseLaw, Recipe, check_positive
from bayesnet.priors.weights.quantiles import invert, laplace_quantile


class LaplaceLaw(ElementwiseLaw):
    """Independent weights with density exp(-|w - loc| / b) / 2b, b = exp(log_scale).

    One latent a weight, through the quantile function in log space; `encode` is exact up to
    rounding. Fields: see `ElementwiseLaw`.
    """

    def quantile(self, z: Array, leaf: int) -> Array:
        return laplace_quantile(z)

    def latent(self, value: Array, leaf: int) -> Array:
        return invert(laplace_quantile, value)


@dataclass(frozen=True)
class Laplace(Recipe):
    """Independent Laplace weights: sparser than Gaussian ones, with exponential tails.

    Args:
        loc, per: as for `Gaussian`.
        scale: the standard deviations before matching, as multiples of the network's own (the
            law's b is the standard deviation divided by sqrt(2)).
    """

    per: str = "layer"
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("scale", self.scale)

    def build(self, network: Network, in_dim: int, out_dim: int) -> LaplaceLaw:
        fields, base = self.start(network, in_dim, out_dim)
        log_scale = fields["layout"].repeat(np.log(base * self.scale / np.sqrt(2.0)), self.per)
        return LaplaceLaw(**fields, log_scale=jnp.asarray(log_scale), per=self.per)
