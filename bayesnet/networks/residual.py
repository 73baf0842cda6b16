"""The residual multilayer perceptron."""

from __future__ import annotations

from dataclasses import dataclass

from bayesnet._types import Array, Float, PyTree
from bayesnet.networks.activations import resolve_activation
from bayesnet.networks.layers import (
    Layer,
    Layered,
    check_parameterization,
    check_whole,
    weights_of,
)


@dataclass(frozen=True)
class ResidualMLP(Layered):
    """`h_0 = W x + b`, `h_l = h_{l-1} + L^{-1/2} f_l(h_{l-1})` for `depth` L blocks, and outputs
    linear in `act(h_L)`.

    A block is pre-activated (He et al. 2016): `f(h) = W2 act(W1 act(h) + b1) + b2`. The factor
    L^{-1/2} keeps the variance of prior functions bounded at any depth (Hayou et al. 2021,
    "Stable ResNet", uniform scaling).

    Args:
        width: units of every layer.
        depth: the number of blocks, each of two layers; 0 leaves one hidden layer.
        activation: a name in `bayesnet.networks.ACTIVATIONS`.
        parameterization: "ntk" multiplies N(0, 1) weights by 1/sqrt(fan_in) and those that end a
            block by L^{-1/2} too; "standard" does not, and its unmatched prior has these scales.
            Both are the same law of functions.

    Raises:
        InputError: a width or depth that is no whole number, or an unknown name.

    Parameters: `{"first": {"w", "b"}, "blocks": ({"first": {...}, "second": {...}}, ...),
    "last": {...}}` with w (fan_in, fan_out). `init` draws weights of variance 2/fan_in (rectifiers)
    or 2/(fan_in + fan_out), times the factor of the block, and biases of 0.
    """

    width: int = 50
    depth: int = 2
    activation: str = "tanh"
    parameterization: str = "ntk"

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", check_whole("width", self.width))
        object.__setattr__(self, "depth", check_whole("depth", self.depth, 0))
        resolve_activation(self.activation)
        check_parameterization(self.parameterization)

    def layers(self, in_dim: int, out_dim: int) -> PyTree:
        """The specification of every layer, in the tree of the parameters."""
        square = (self.width, self.width)
        block = {
            "first": Layer(square),
            "second": Layer(square, branch=max(self.depth, 1) ** -0.5),
        }
        return {
            "first": Layer((in_dim, self.width)),
            "blocks": (block,) * self.depth,
            "last": Layer((self.width, out_dim), linear=True),
        }

    def apply(self, params: PyTree, x: Float[Array, "n d"]) -> Float[Array, "n m"]:
        act = resolve_activation(self.activation)
        specs = self.layers(x.shape[1], params["last"]["b"].shape[0])

        def product(h: Array, layer: PyTree, spec: Layer) -> Array:
            w, b = weights_of(layer, spec, self.parameterization)
            return h @ w + b

        h = product(x, params["first"], specs["first"])
        for block, spec in zip(params["blocks"], specs["blocks"], strict=True):
            inner = product(act(h), block["first"], spec["first"])
            h = h + product(act(inner), block["second"], spec["second"])
        return product(act(h), params["last"], specs["last"])
