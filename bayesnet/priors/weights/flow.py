"""Weights by a normalizing flow (GPi-NF)."""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError
from bayesnet._types import Array, Float, PyTree
from bayesnet.networks.base import Network
from bayesnet.priors.weights.base import Layout, check_granularity
from bayesnet.priors.weights.located import LocatedLaw, Recipe, check_positive

# Couplings change log scales by at most this, so that no latents overflow.
LARGEST_LOG_SCALE = 3.0
# Steps of an optimiser that moves every parameter alike (Adam), relative to those in log scales:
# a conditioner sums many parameters, and a skewness of all weights of an array adds up. With 0.1, 400
# steps left a flow in 13 dimensions further from its target than Gaussian weights.
RATE = 0.02


class Coupling(eqx.Module):
    """An invertible map of all latents: groups are scaled and shifted by what a few latents say.

    `z_j -> z_j exp(s_g) + t_g` for every latent j of group g that is not a pilot, and
    `(s, t) = W2 tanh(W1 z_pilots + b1) + b2`, s bounded, with parameters that
    are `RATE` times the fields. Pilots pass unchanged, so that it is inverted in
    closed form (Dinh, Sohl-Dickstein & Bengio 2017, eq. 7-8, with an unequal split).

    Fields: `pilots`, positions (k,) in the flat latents, static; `w1` (k, h), `b1` (h,),
    `w2` (h, 2g), `b2` (2g,).
    """

    w1: Float[Array, "k h"]
    b1: Float[Array, " h"]
    w2: Float[Array, "h two_g"]
    b2: Float[Array, " two_g"]
    pilots: tuple[int, ...] = eqx.field(static=True)

    @staticmethod
    def identity(rng: np.random.Generator, pilots: np.ndarray, width: int, groups: int) -> Coupling:
        """A coupling that changes nothing yet: random features, zero output."""
        w1 = rng.normal(size=(len(pilots), width)) * 2.0 * len(pilots) ** -0.5
        return Coupling(
            w1=jnp.asarray(w1 / RATE, jnp.float32),
            b1=jnp.asarray(rng.normal(size=width) / RATE, jnp.float32),
            w2=jnp.zeros((width, 2 * groups), jnp.float32),
            b2=jnp.zeros(2 * groups, jnp.float32),
            pilots=tuple(int(i) for i in pilots),
        )

    def forward(self, z: Array, layout: Layout, per: str) -> Array:
        """(p,) to (p,)."""
        moved = [
            jnp.where(mask, a, a * jnp.exp(s) + t)
            for a, (s, t, mask) in zip(layout.split(z), self._parts(z, layout, per), strict=True)
        ]
        return layout.join(moved)

    def inverse(self, z: Array, layout: Layout, per: str) -> Array:
        """The inverse of `forward`."""
        moved = [
            jnp.where(mask, a, (a - t) * jnp.exp(-s))
            for a, (s, t, mask) in zip(layout.split(z), self._parts(z, layout, per), strict=True)
        ]
        return layout.join(moved)

    def _parts(self, z: Array, layout: Layout, per: str) -> list[tuple[Array, Array, np.ndarray]]:
        """Of each leaf: log scales, shifts, and which latents are pilots."""
        w1, b1, w2, b2 = (RATE * a.astype(z.dtype) for a in (self.w1, self.b1, self.w2, self.b2))
        features = jnp.tanh(z[np.asarray(self.pilots)] @ w1 + b1)
        scales, shifts = jnp.split(features @ w2 + b2, 2)
        scales = LARGEST_LOG_SCALE * jnp.tanh(scales / LARGEST_LOG_SCALE)
        mask = np.zeros(layout.size, bool)
        mask[list(self.pilots)] = True
        cuts = np.cumsum(layout.sizes)[:-1]
        masks = [m.reshape(s) for m, s in zip(np.split(mask, cuts), layout.shapes, strict=True)]
        return list(zip(layout.expand(scales, per), layout.expand(shifts, per), masks, strict=True))


class FlowLaw(LocatedLaw):
    """`w = loc + exp(log_scale) * sinh(exp(log_tail) * asinh(c(z)) + RATE skew)`, c a chain of couplings.

    The couplings make weights dependent: scales and means of all units or layers vary together,
    in whatever way a small network of a few latents says (common random scales as in GPi-H, several
    modes, mixtures of regimes). The sinh-arcsinh map (Jones & Pewsey 2009) gives the weights
    of each array skewness and tails: as `|z|^exp(log_tail)` far out. Weights of one group are
    exchangeable given the pilots: the flow does not correlate single weights with each other.
    It costs a few operations a weight; `encode` is exact.

    Before matching it is the Gaussian law. Fields: `log_scale`, `log_tail`, `skew` (g,), one an
    array of parameters; `couplings`; `per`, the groups that couplings move; those of
    `LocatedLaw`.
    """

    log_scale: Float[Array, " g"]
    log_tail: Float[Array, " g"]
    skew: Float[Array, " g"]
    couplings: tuple[Coupling, ...]
    per: str = eqx.field(static=True)

    @property
    def latent_size(self) -> int:
        return self.layout.size

    def decode(self, z: Float[Array, " p"]) -> PyTree:
        for coupling in self.couplings:
            z = coupling.forward(z, self.layout, self.per)
        scale, tail = (
            jnp.exp(self.log_scale).astype(z.dtype),
            jnp.exp(self.log_tail).astype(z.dtype),
        )
        skew = RATE * self.skew.astype(z.dtype)
        return self.place(
            [
                jnp.sinh(tail[i] * jnp.arcsinh(a) + skew[i]) * scale[i]
                for i, a in enumerate(self.layout.split(z))
            ]
        )

    def encode(self, params: PyTree) -> Float[Array, " p"]:
        scale, tail = jnp.exp(self.log_scale), jnp.exp(self.log_tail)
        z = self.layout.join(
            [
                jnp.sinh((jnp.arcsinh(a / scale[i]) - RATE * self.skew[i]) / tail[i])
                for i, a in enumerate(self.deviations(params))
            ]
        )
        for coupling in reversed(self.couplings):
            z = coupling.inverse(z, self.layout, self.per)
        return z


@dataclass(frozen=True)
class Flow(Recipe):
    """A normalizing flow: weights that are dependent and not Gaussian, as matching wants them.

    Args:
        loc: as for `Gaussian`.
        per: what couplings scale and shift as one: a "layer" (weights and biases apart), an
            output "unit", or a "parameter" (many parameters: for small networks).
        scale: the standard deviations before matching, as multiples of the network's own.
        couplings: how many, each with pilots of its own; 0 for independent weights.
        pilots: latents that steer a coupling (fewer in networks with under 2 * pilots weights).
        width: hidden units of each conditioner.
        seed: of the conditioners' first weights.
    """

    per: str = "unit"
    scale: float = 1.0
    couplings: int = 2
    pilots: int = 8
    width: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_granularity(self.per)
        check_positive("scale", self.scale)
        for name, least in (("couplings", 0), ("pilots", 1), ("width", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(
                    f"{name} must be a whole number of at least {least}, got {value!r}."
                )

    def build(self, network: Network, in_dim: int, out_dim: int) -> FlowLaw:
        fields, base = self.start(network, in_dim, out_dim)
        layout = fields["layout"]
        rng = np.random.default_rng(self.seed)
        pilots = min(self.pilots, layout.size // 2)
        # Spread over all layers; of several couplings, each has others.
        order = rng.permutation(layout.size)
        chosen = [
            np.sort(np.roll(order, -k * pilots)[:pilots])
            for k in range(self.couplings if pilots else 0)
        ]
        groups = layout.num_groups(self.per)
        zeros = jnp.zeros(len(base), jnp.float32)
        return FlowLaw(
            **fields,
            log_scale=jnp.asarray(np.log(base * self.scale)),
            log_tail=zeros,
            skew=zeros,
            couplings=tuple(Coupling.identity(rng, p, self.width, groups) for p in chosen),
            per=self.per,
        )
