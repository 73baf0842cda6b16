"""Gaussian weights with random scales (GPi-H)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp

from bayesnet._errors import InputError, unknown_name
from bayesnet._types import Array, Float, PyTree
from bayesnet.networks.base import Network
from bayesnet.priors.weights.base import check_granularity
from bayesnet.priors.weights.centred import CentredLaw
from bayesnet.priors.weights.located import LocatedLaw, Recipe, check_positive
from bayesnet.priors.weights.quantiles import SMALLEST_SHAPE
from bayesnet.priors.weights.scale_laws import (
    SCALE_LAWS,
    InverseGammaScale,
    LogNormalScale,
    ScaleLaw,
)


class HierarchicalLaw(LocatedLaw):
    """`w = loc + sigma(u) * z`, one sigma a group of weights (Tran et al. 2022, eq. 10).

    Latents: z of all weights (p,), then u, one a group of `per`. `encode` estimates each
    group's sigma as the root mean square of its weights and one pseudo-weight at the median
    scale, clips its latent to |u| <= 4, and takes the z that give the weights exactly.

    Fields: `scale_law` trainable, with parameters for each array of parameters; `centred`, see
    `sampling_form`; those of `LocatedLaw`.
    """

    scale_law: ScaleLaw
    per: str = eqx.field(static=True)
    centred: float = eqx.field(static=True)

    @property
    def latent_size(self) -> int:
        return self.layout.size + self.layout.num_groups(self.per)

    @property
    def counts(self) -> tuple[int, ...]:
        """How many random scales each array of parameters has."""
        return tuple(math.prod(shape) for shape in self.layout.groups(self.per))

    def split(self, z: Float[Array, " q"]) -> tuple[list[Array], Array]:
        """The latents of each leaf's weights, and those of all scales."""
        pieces, (u,) = self.layout.split_more(z, ((self.layout.num_groups(self.per),),))
        return pieces, u

    def decode(self, z: Float[Array, " q"]) -> PyTree:
        pieces, u = self.split(z)
        scales = jnp.exp(self.scale_law.log_scale(u, self.counts))
        each = self.layout.expand(scales, self.per)
        return self.place([a * s for a, s in zip(pieces, each, strict=True)])

    def encode(self, params: PyTree) -> Float[Array, " q"]:
        leaves = self.deviations(params)
        dtype = leaves[0].dtype
        counts = self.counts
        median = self.scale_law.log_scale(jnp.zeros(sum(counts), dtype), counts)
        estimates = []
        for leaf, own in zip(leaves, self.layout.expand(median, self.per), strict=True):
            shape = own.shape or (1,) * leaf.ndim
            axes = tuple(j for j, k in enumerate(shape) if k != leaf.shape[j])
            size = leaf.size / math.prod(shape)
            squares = jnp.sum(leaf**2, axis=axes, keepdims=True) + jnp.exp(2.0 * own)
            estimates.append(0.5 * jnp.log(squares / (size + 1.0)))
        u = self.scale_law.latent(self.layout.join(estimates), counts)
        scales = self.layout.expand(jnp.exp(self.scale_law.log_scale(u, counts)), self.per)
        return self.layout.join([a / s for a, s in zip(leaves, scales, strict=True)] + [u])

    def sampling_form(self) -> CentredLaw | None:
        """The law in the latents that samplers move through, if these are not its own.

        Non-centred latents (`centred=0`) suit few data; with plenty, w is known well, sigma(u) z
        is pinned and its factors trade off along a curve. See `CentredLaw`.
        """
        return CentredLaw(self) if self.centred else None


@dataclass(frozen=True)
class Hierarchical(Recipe):
    """Gaussian weights whose scales are random: heavier tails, and functions that differ in scale.

    Args:
        loc: as for `Gaussian`.
        scale_law: "lognormal" or "inverse_gamma" (of the variance); its parameters, two an
            array of parameters, are what matching tunes.
        per: one random scale a "layer" (weights and biases apart), an output "unit", or a
            "parameter".
        scale: the median scale before matching, as a multiple of the network's own.
        spread: standard deviation of log sigma before matching ("lognormal").
        shape: the shape a before matching ("inverse_gamma"), above 0.51.
        centred: what samplers move through: False, the latents z; True, the weights
            themselves; a number between, part of the way. The prior and posterior are the same.
    """

    scale_law: str = "lognormal"
    per: str = "layer"
    scale: float = 1.0
    spread: float = 0.5
    shape: float = 3.0
    centred: bool | float = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_granularity(self.per)
        if self.scale_law not in SCALE_LAWS:
            raise unknown_name("law of the scales (scale_law=)", self.scale_law, SCALE_LAWS)
        check_positive("scale", self.scale)
        check_positive("spread", self.spread)
        check_positive("shape", self.shape, SMALLEST_SHAPE + 0.01)
        if not 0.0 <= self.centred <= 1.0:
            raise InputError(f"centred must be True, False or between, got {self.centred!r}.")

    def build(self, network: Network, in_dim: int, out_dim: int) -> HierarchicalLaw:
        fields, base = self.start(network, in_dim, out_dim)
        median = base * self.scale
        law: ScaleLaw
        if self.scale_law == "lognormal":
            law = LogNormalScale.create(median, self.spread)
        else:
            law = InverseGammaScale.create(median, self.shape)
        return HierarchicalLaw(**fields, scale_law=law, per=self.per, centred=float(self.centred))
