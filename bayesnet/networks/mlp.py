"""The multilayer perceptron."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import jax
import jax.numpy as jnp

from bayesnet._errors import InputError, unknown_name
from bayesnet._types import Array, Float, Key, PyTree
from bayesnet.networks.activations import resolve_activation
from bayesnet.networks.base import draw_from_base

PARAMETERIZATIONS = ("ntk", "standard")


@dataclass(frozen=True)
class MLP:
    """A fully connected network `d -> hidden -> m`, linear in its last layer.

    Args:
        hidden: widths of the hidden layers, in order; `()` is a linear model.
        activation: a name in `bayesnet.networks.ACTIVATIONS`.
        parameterization: "ntk" divides every product by sqrt(fan_in), so that N(0, 1) weights
            give functions of order one at any width (Jacot et al. 2018, eq. 2; also the
            parameterisation of Tran et al. 2022, eq. 2); "standard" does not, and its
            unmatched prior has weights N(0, 1/fan_in).

    Raises:
        InputError: a width that is not a positive integer, or an unknown name.

    Parameters are a tuple of layers `{"w": (fan_in, fan_out), "b": (fan_out,)}`.
    """

    hidden: tuple[int, ...] = (50, 50)
    activation: str = "tanh"
    parameterization: str = "ntk"

    def __post_init__(self) -> None:
        hidden = (self.hidden,) if isinstance(self.hidden, int) else tuple(self.hidden)
        if any(int(width) != width or width < 1 for width in hidden):
            raise InputError(f"hidden must hold positive integers, got {self.hidden!r}.")
        object.__setattr__(self, "hidden", tuple(int(width) for width in hidden))
        resolve_activation(self.activation)
        if self.parameterization not in PARAMETERIZATIONS:
            raise unknown_name("parameterization", self.parameterization, PARAMETERIZATIONS)

    def param_shapes(self, in_dim: int, out_dim: int) -> PyTree:
        sizes = (in_dim, *self.hidden, out_dim)
        return tuple(
            {
                "w": jax.ShapeDtypeStruct((a, b), jnp.float32),
                "b": jax.ShapeDtypeStruct((b,), jnp.float32),
            }
            for a, b in pairwise(sizes)
        )

    def base_law(self, in_dim: int, out_dim: int) -> tuple[PyTree, PyTree]:
        shapes = self.param_shapes(in_dim, out_dim)
        ntk = self.parameterization == "ntk"
        loc = tuple({"w": 0.0, "b": 0.0} for _ in shapes)
        scale = tuple({"w": 1.0 if ntk else s["w"].shape[0] ** -0.5, "b": 1.0} for s in shapes)
        return loc, scale

    def init(self, key: Key, in_dim: int, out_dim: int) -> PyTree:
        return draw_from_base(self, key, in_dim, out_dim)

    def apply(self, params: PyTree, x: Float[Array, "n d"]) -> Float[Array, "n m"]:
        act = resolve_activation(self.activation)
        ntk = self.parameterization == "ntk"
        for i, layer in enumerate(params):
            w, b = layer["w"], layer["b"]
            # The factor goes on the (small) weights, not on the (large) activations.
            x = x @ (w * w.shape[0] ** -0.5 if ntk else w) + b
            if i < len(params) - 1:
                x = act(x)
        return x
