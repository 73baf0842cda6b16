"""Networks of finite width from the description of an infinite one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from bayesnet._errors import InputError
from bayesnet._types import Array, Float, Key, PyTree
from bayesnet.kernels.images import Image
from bayesnet.kernels.serial import Serial, check_network
from bayesnet.networks.base import draw_from_base
from bayesnet.networks.layers import check_whole


@dataclass(frozen=True)
class WideNetwork:
    """A network with `width` units (channels) in every hidden layer of a description.

    Products are divided by the root of their fan-in; `base_law` has weights N(0, weight_std^2) and
    biases N(0, bias_std^2), so that its unmatched prior tends to the NNGP of the same layers.

    Args:
        layers: as for `bayesnet.kernels.NNGP`.
        width: of every hidden layer; a positive whole number.

    Parameters: a tuple with one entry a layer, those with weights being `{"w": (..., fan_in,
    fan_out), "b": (fan_out,)}` ("b" only if bias_std > 0).
    """

    layers: Serial
    width: int

    def __post_init__(self) -> None:
        check_network(self.layers)
        object.__setattr__(self, "width", check_whole("width", self.width))

    @property
    def loop_over_draws(self) -> bool:
        """Draws of convolutional networks are evaluated one after another (`networks.conv`)."""
        return isinstance(self.layers.layers[0], Image)

    def param_shapes(self, in_dim: int, out_dim: int) -> PyTree:
        *hidden, last = self.layers.layers
        body, shape = Serial(*hidden).shapes((in_dim,), self.width)
        return (*body, last.shapes(shape, out_dim)[0])

    def base_law(self, in_dim: int, out_dim: int) -> tuple[PyTree, PyTree]:
        shapes = self.param_shapes(in_dim, out_dim)
        stds = iter(self.layers.stds())

        def scale(products: PyTree) -> PyTree:
            std = dict(zip(("w", "b"), next(stds), strict=True))
            return {name: std[name] for name in products}

        scales = map_products(scale, self.layers, shapes)
        return jax.tree.map(lambda _: 0.0, shapes), scales

    def init(self, key: Key, in_dim: int, out_dim: int) -> PyTree:
        return draw_from_base(self, key, in_dim, out_dim)

    def apply(self, params: PyTree, x: Float[Array, "n d"]) -> Float[Array, "n m"]:
        return self.layers.apply(params, x)

    def features(self, params: PyTree, x: Float[Array, "n d"]) -> Float[Array, "n w"]:
        """The inputs of the last layer."""
        return Serial(*self.layers.layers[:-1]).apply(params[:-1], x)


def is_product(node: Any) -> bool:
    """Whether a node of the parameters holds the weights of one layer."""
    return isinstance(node, dict) and "w" in node


def map_products(fn: Any, layers: Serial, params: PyTree) -> PyTree:
    """`fn` on the parameters of each layer with weights, called in the order of the description."""
    # jax.tree visits dictionaries by sorted keys: "branch" before "shortcut", as `stds` does.
    products = sum(is_product(n) for n in jax.tree.leaves(params, is_leaf=is_product))
    if products != len(layers.stds()):
        raise InputError("The parameters are not those of this network.")
    return jax.tree.map(fn, params, is_leaf=is_product)
