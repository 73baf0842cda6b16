"""What laws of independent weights share: locations, scales, and one quantile function a weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError, unknown_name
from bayesnet._types import Array, Float, PyTree
from bayesnet.networks.base import Network
from bayesnet.priors.weights.base import BLOCK, GRANULARITIES, Layout, check_granularity

LOCATIONS = ("fixed", "tied", "free")


class LocatedLaw(eqx.Module):
    """Where the weights of a law are centred.

    Attributes:
        loc: None for the network's own locations `base_loc`; else trainable: (g,) one an array
            of parameters ("tied"), or (p,) one a parameter ("free"). With `loc_form` "fixed" it
            is (p,) too (pre-trained weights) and its gradient is stopped.
    """

    layout: Layout = eqx.field(static=True)
    base_loc: tuple[float, ...] = eqx.field(static=True)
    loc_form: str = eqx.field(static=True)
    loc: Float[Array, " k"] | None

    def locations(self) -> list[Any]:
        """The location of each leaf: numbers or arrays that broadcast against it."""
        if self.loc is None:
            return list(self.base_loc)
        if self.loc_form == "tied":
            return self.layout.expand(self.loc, "layer")
        loc = jax.lax.stop_gradient(self.loc) if self.loc_form == "fixed" else self.loc
        return self.layout.expand(loc, "parameter")

    def place(self, leaves: list[Array]) -> PyTree:
        """Parameters from their deviations from the locations."""
        placed = []
        for leaf, loc in zip(leaves, self.locations(), strict=True):
            if isinstance(loc, float):
                placed.append(leaf + loc if loc else leaf)
            else:
                placed.append(leaf + loc.astype(leaf.dtype))
        return jax.tree.unflatten(self.layout.treedef, placed)

    def deviations(self, params: PyTree) -> list[Array]:
        """The inverse of `place`."""
        leaves = jax.tree.leaves(params)
        return [leaf - loc for leaf, loc in zip(leaves, self.locations(), strict=True)]


class ElementwiseLaw(LocatedLaw):
    """`w = loc + exp(log_scale) * q(z)`, one latent a weight, q an increasing function.

    Fields: `log_scale` (g,) trainable, one a group of `per` ("layer": one an array of
    parameters; "unit": one an output unit of it; "parameter"; "block": one for the weight arrays
    of a block of the network, and one for its vectors).
    """

    log_scale: Float[Array, " g"]
    per: str = eqx.field(static=True)

    def quantile(self, z: Array, leaf: int) -> Array:
        """The standard law's quantile at probability Phi(z), for weights of one leaf."""
        raise NotImplementedError

    def latent(self, value: Array, leaf: int) -> Array:
        """The inverse of `quantile`."""
        raise NotImplementedError

    @property
    def latent_size(self) -> int:
        return self.layout.size

    def scales(self, dtype: Any) -> list[Array]:
        """The scale of each leaf, broadcasting against it."""
        return self.layout.expand(jnp.exp(self.log_scale).astype(dtype), self.per)

    def decode(self, z: Float[Array, " p"]) -> PyTree:
        pieces = self.layout.split(z)
        scales = self.scales(z.dtype)
        return self.place([self.quantile(a, i) * scales[i] for i, a in enumerate(pieces)])

    def encode(self, params: PyTree) -> Float[Array, " p"]:
        leaves = self.deviations(params)
        scales = self.scales(leaves[0].dtype)
        return self.layout.join([self.latent(a / scales[i], i) for i, a in enumerate(leaves)])


@dataclass(frozen=True)
class Recipe:
    """What all recipes share. `loc`: "fixed" (the network's own locations), "tied" (one trainable
    mean an array of parameters) or "free" (one a parameter)."""

    loc: str = "fixed"

    def __post_init__(self) -> None:
        if self.loc not in LOCATIONS:
            raise unknown_name("form of the locations (loc=)", self.loc, LOCATIONS)
        per = getattr(self, "per", None)
        if per is not None:
            check_granularity(per, (*GRANULARITIES, BLOCK))

    def start(self, network: Network, in_dim: int, out_dim: int) -> tuple[dict, np.ndarray]:
        """The fields of `LocatedLaw`, and the network's base scale of each leaf (g,)."""
        layout = Layout.of(network, in_dim, out_dim)
        loc, scale = (jax.tree.leaves(a) for a in network.base_law(in_dim, out_dim))
        base = tuple(float(a) for a in loc)
        if self.loc == "fixed":
            trained = None
        else:
            trained = jnp.asarray(
                layout.repeat(base, "layer" if self.loc == "tied" else "parameter")
            )
        fields = {"layout": layout, "base_loc": base, "loc_form": self.loc, "loc": trained}
        return fields, np.asarray(scale, np.float32)


def check_positive(what: str, value: Any, least: float = 0.0, *, inclusive: bool = False) -> None:
    """Raises `InputError` unless `value` is a finite number above (or at) `least`."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value)
    if not good or value < least or (value == least and not inclusive):
        bound = "at least" if inclusive else "above"
        raise InputError(f"{what} must be a finite number {bound} {least:g}, got {value!r}.")
