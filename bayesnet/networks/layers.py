"""Layers as specifications: shapes, prior scales, starts and gains of weights, said once.

A network states each of its products as a `Layer`; from these follow `param_shapes`, `base_law` and
`init` in either parameterisation, so that both are the same law of functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp

from bayesnet._errors import InputError, unknown_name
from bayesnet._types import Array, Key, PyTree
from bayesnet.networks.mlp import PARAMETERIZATIONS

# Activations that let about half of the second moment through (He et al. 2015).
RECTIFIERS = ("relu", "leaky_relu", "elu", "gelu", "silu", "swish")


@dataclass(frozen=True)
class Layer:
    """One product with weights of shape (..., inputs, outputs), and its bias.

    Args:
        shape: of the weights; the last axis runs over outputs, the product of the others is
            the fan-in.
        branch: the factor of the residual branch that ends with this layer, else 1.
        bias: whether there is a bias, (outputs,).
        linear: whether its outputs are the network's, so that no activation follows.
    """

    shape: tuple[int, ...]
    branch: float = 1.0
    bias: bool = True
    linear: bool = False

    @property
    def gain(self) -> float:
        """What N(0, 1) weights are multiplied by in the "ntk" parameterisation."""
        return self.branch * prod(self.shape[:-1]) ** -0.5

    def start(self, activation: str) -> float:
        """The sd of the usual start: He et al. (2015), or Glorot & Bengio (2010) for activations
        that are odd; 1/sqrt(fan_in) for outputs. Times the factor of the branch."""
        fan_in = prod(self.shape[:-1])
        fan_out = prod(self.shape[:-2]) * self.shape[-1]
        if self.linear:
            return self.branch * fan_in**-0.5
        if activation in RECTIFIERS:
            return self.branch * (2.0 / fan_in) ** 0.5
        return self.branch * (2.0 / (fan_in + fan_out)) ** 0.5


@dataclass(frozen=True)
class Norm:
    """The gain and the bias of a normalisation over `channels`."""

    channels: int


def is_spec(node: Any) -> bool:
    """Whether a node of a network's specification is a layer or a normalisation."""
    return isinstance(node, (Layer, Norm))


def check_parameterization(name: Any) -> None:
    """Raises `InputError` for an unknown parameterisation."""
    if name not in PARAMETERIZATIONS:
        raise unknown_name("parameterization", name, PARAMETERIZATIONS)


def check_whole(what: str, value: Any, least: int = 1) -> int:
    """`value` as an integer; raises `InputError` unless it is a whole number of at least `least`."""
    number = isinstance(value, (int, float)) or hasattr(value, "__index__")
    if isinstance(value, bool) or not number or int(value) != value or value < least:
        raise InputError(f"{what} must be a whole number of at least {least}, got {value!r}.")
    return int(value)


def _map(leaf: Any, specs: PyTree) -> PyTree:
    return jax.tree.map(leaf, specs, is_leaf=is_spec)


def shapes_of(specs: PyTree) -> PyTree:
    """The shapes of all parameters."""

    def leaf(spec: Layer | Norm) -> PyTree:
        if isinstance(spec, Norm):
            size = jax.ShapeDtypeStruct((spec.channels,), jnp.float32)
            return {"gain": size, "bias": size}
        shapes = {"w": jax.ShapeDtypeStruct(spec.shape, jnp.float32)}
        if spec.bias:
            shapes["b"] = jax.ShapeDtypeStruct(spec.shape[-1:], jnp.float32)
        return shapes

    return _map(leaf, specs)


def base_law_of(specs: PyTree, parameterization: str) -> tuple[PyTree, PyTree]:
    """Locations and scales: gains of normalisations N(1, 1), all else N(0, 1) times its gain."""
    ntk = parameterization == "ntk"

    def loc(spec: Layer | Norm) -> PyTree:
        if isinstance(spec, Norm):
            return {"gain": 1.0, "bias": 0.0}
        return {"w": 0.0, "b": 0.0} if spec.bias else {"w": 0.0}

    def scale(spec: Layer | Norm) -> PyTree:
        if isinstance(spec, Norm):
            return {"gain": 1.0, "bias": 1.0}
        scales = {"w": 1.0 if ntk else spec.gain}
        if spec.bias:
            scales["b"] = 1.0 if ntk else spec.branch
        return scales

    return _map(loc, specs), _map(scale, specs)


def start_of(specs: PyTree, key: Key, activation: str, parameterization: str) -> PyTree:
    """The usual start of optimisers: weights by `Layer.start`, biases 0, gains 1. Both
    parameterisations start at the same functions."""
    nodes, tree = jax.tree.flatten(specs, is_leaf=is_spec)

    def leaf(spec: Layer | Norm, key: Key) -> PyTree:
        if isinstance(spec, Norm):
            return {"gain": jnp.ones(spec.channels), "bias": jnp.zeros(spec.channels)}
        unit = spec.gain if parameterization == "ntk" else 1.0
        sd = spec.start(activation) / unit
        start = {"w": sd * jax.random.normal(key, spec.shape)}
        if spec.bias:
            start["b"] = jnp.zeros(spec.shape[-1])
        return start

    keys = jax.random.split(key, len(nodes))
    return jax.tree.unflatten(tree, [leaf(s, k) for s, k in zip(nodes, keys, strict=True)])


def weights_of(params: PyTree, spec: Layer, parameterization: str) -> tuple[Array, Array | float]:
    """The weights and the bias of a layer as they enter its product."""
    # The factor goes on the (small) weights, not on the (large) activations.
    ntk = parameterization == "ntk"
    w = params["w"] * spec.gain if ntk else params["w"]
    if not spec.bias:
        return w, 0.0
    return w, params["b"] * spec.branch if ntk and spec.branch != 1.0 else params["b"]


class Layered:
    """What a network that states its products as `layers` need not say again."""

    activation: str
    parameterization: str

    def layers(self, in_dim: int, out_dim: int) -> PyTree:
        """The specification of every layer."""
        raise NotImplementedError

    def param_shapes(self, in_dim: int, out_dim: int) -> PyTree:
        return shapes_of(self.layers(in_dim, out_dim))

    def base_law(self, in_dim: int, out_dim: int) -> tuple[PyTree, PyTree]:
        return base_law_of(self.layers(in_dim, out_dim), self.parameterization)

    def init(self, key: Key, in_dim: int, out_dim: int) -> PyTree:
        specs = self.layers(in_dim, out_dim)
        return start_of(specs, key, self.activation, self.parameterization)
