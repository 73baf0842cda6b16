"""Gaussian weights whose last layer has one random variance: finite networks of a scale mixture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import UnsupportedError
from bayesnet._types import Array, Float, PyTree
from bayesnet.networks.base import Network
from bayesnet.priors.laws import LogNormal
from bayesnet.priors.variance_laws import Gamma, HalfCauchy, InverseGamma, OnStd, as_variance_law
from bayesnet.priors.weights.base import Layout
from bayesnet.priors.weights.gaussian import Gaussian, GaussianLaw
from bayesnet.priors.weights.quantiles import (
    SMALLEST_SHAPE,
    invert,
    log_gamma_quantile,
    log_half_cauchy_quantile,
)
from bayesnet.priors.weights.scale_laws import FARTHEST_ESTIMATE, MARGIN


class RandomVariance(eqx.Module):
    """`log s` of a law of variances as an increasing function of one standard normal latent.

    `kind` "lognormal": loc + exp(shape) u; "gamma": loc + G(u; a); "inverse_gamma": loc - G(-u; a);
    "half_cauchy" (of sqrt(s)): 2 (loc + H(u)). G and H are logs of quantiles at probability Phi(u),
    a = 0.501 + exp(shape).
    """

    loc: Float[Array, ""]
    shape: Float[Array, ""]
    kind: str = eqx.field(static=True)

    @staticmethod
    def of(law: Any) -> RandomVariance:
        """Raises `UnsupportedError` for a law without such a function."""
        law = as_variance_law(law)
        least = SMALLEST_SHAPE + MARGIN
        if isinstance(law, LogNormal):
            return _make("lognormal", law.loc, np.log(law.scale))
        if isinstance(law, (InverseGamma, Gamma)) and law.a > least:
            sign, kind = (1, "inverse_gamma") if isinstance(law, InverseGamma) else (-1, "gamma")
            return _make(kind, sign * np.log(law.b), np.log(law.a - least))
        if isinstance(law, OnStd) and isinstance(law.law, HalfCauchy):
            return _make("half_cauchy", np.log(law.law.scale), 0.0)
        if isinstance(law, OnStd) and isinstance(law.law, LogNormal):
            return _make("lognormal", 2 * law.law.loc, np.log(2 * law.law.scale))
        raise UnsupportedError(
            f"{law} has no transport from a normal latent: samplers of networks take bn.LogNormal, "
            f"bn.InverseGamma and bn.Gamma (a above {least}), bn.OnStd(bn.HalfCauchy(scale))."
        )

    def law(self) -> Any:
        """The law of variances that this is the transport of."""
        loc, shape = float(self.loc), float(self.shape)
        if self.kind == "lognormal":
            return LogNormal(loc, float(np.exp(shape)))
        if self.kind == "half_cauchy":
            return OnStd(HalfCauchy(float(np.exp(loc))))
        a = float(f"{SMALLEST_SHAPE + MARGIN + np.exp(shape):.6g}")
        if self.kind == "gamma":
            return Gamma(a, float(f"{np.exp(-loc):.6g}"))
        return InverseGamma(a, float(f"{np.exp(loc):.6g}"))

    def log_value(self, u: Array) -> Array:
        """log s at the latent `u`."""
        loc, shape = self.loc.astype(u.dtype), self.shape.astype(u.dtype)
        if self.kind == "lognormal":
            return loc + jnp.exp(shape) * u
        if self.kind == "half_cauchy":
            return 2.0 * (loc + log_half_cauchy_quantile(u))
        a = SMALLEST_SHAPE + MARGIN + jnp.exp(shape)
        if self.kind == "gamma":
            return loc + log_gamma_quantile(u, a)
        return loc - log_gamma_quantile(-u, a)

    def latent(self, log_value: Array) -> Array:
        """The latent of a given log s, clipped to |u| <= `FARTHEST_ESTIMATE`."""
        u = invert(self.log_value, log_value)
        return jnp.clip(u, -FARTHEST_ESTIMATE, FARTHEST_ESTIMATE)


def _make(kind: str, loc: float, shape: float) -> RandomVariance:
    return RandomVariance(jnp.asarray(loc, jnp.float32), jnp.asarray(shape, jnp.float32), kind)


class ScaledLastLayerLaw(GaussianLaw):
    """`GaussianLaw` whose leaves `last` are multiplied by sqrt(s); the last latent is that of s.

    `encode` is exact in the weights; s is estimated by their mean square.
    """

    variance: RandomVariance
    last: tuple[int, ...] = eqx.field(static=True)

    @property
    def latent_size(self) -> int:
        return self.layout.size + 1

    @property
    def scale_latents(self) -> tuple[int, ...]:
        """Which latents are those of random scales."""
        return (self.layout.size,)

    def decode(self, z: Float[Array, " p"]) -> PyTree:
        pieces, (u,) = self.layout.split_more(z, ((),))
        root = jnp.exp(0.5 * self.variance.log_value(u))
        scales = self.scales(z.dtype)
        weights = [a * scales[i] for i, a in enumerate(pieces)]
        return self.place([root * w if i in self.last else w for i, w in enumerate(weights)])

    def encode(self, params: PyTree) -> Float[Array, " p"]:
        leaves = self.deviations(params)
        scales = self.scales(leaves[0].dtype)
        standard = [a / scales[i] for i, a in enumerate(leaves)]
        own = jnp.concatenate([jnp.ravel(standard[i]) for i in self.last])
        u = self.variance.latent(jnp.log(jnp.mean(own**2) + 1e-12))
        root = jnp.exp(0.5 * self.variance.log_value(u))
        standard = [a / root if i in self.last else a for i, a in enumerate(standard)]
        return self.layout.join([*standard, u])


@dataclass(frozen=True)
class ScaledLastLayer:
    """Gaussian weights; those of the last layer (weights and biases) share one random variance s.

    As hidden layers grow, functions tend to `bn.ScaleMixture(nngp, law)` with the noise outside
    (Lee et al. 2022, theorem 3.1); `prior.infinite_width()` gives it.

    Args:
        law: of s: `bn.InverseGamma` or `bn.Gamma` (a above 0.501), `bn.LogNormal`,
            `bn.OnStd(bn.HalfCauchy(scale))`. Its numbers are trained by matching.
        weights: the Gaussian weights at s = 1.

    Raises:
        UnsupportedError: another law, or a network whose last layer is not known (its parameters
            must be a tuple of layers, as those of `bn.MLP`).
    """

    law: Any = InverseGamma(2.0, 2.0)  # noqa: RUF009 - frozen
    weights: Gaussian = Gaussian()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        RandomVariance.of(self.law)

    def build(self, network: Network, in_dim: int, out_dim: int) -> ScaledLastLayerLaw:
        base = self.weights.build(network, in_dim, out_dim)
        return ScaledLastLayerLaw(
            layout=base.layout,
            base_loc=base.base_loc,
            loc_form=base.loc_form,
            loc=base.loc,
            log_scale=base.log_scale,
            per=base.per,
            variance=RandomVariance.of(self.law),
            last=last_leaves(base.layout, network),
        )


def last_leaves(layout: Layout, network: Any) -> tuple[int, ...]:
    """The numbers of the parameter arrays of the last layer."""
    numbers = jax.tree.unflatten(layout.treedef, range(len(layout.shapes)))
    if not isinstance(numbers, (tuple, list)):
        raise UnsupportedError(
            f"Which weights of {type(network).__name__} are those of the last layer is not known: its "
            "parameters are not a tuple of layers. Use bn.MLP, or bn.kernels.NNGP(...).finite(width, d)."
        )
    return tuple(jax.tree.leaves(numbers[-1]))
