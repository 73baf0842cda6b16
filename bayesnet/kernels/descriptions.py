"""Descriptions of the infinite limit of networks that are stated elsewhere: MLP, ResidualMLP, LeNet5."""

from __future__ import annotations

from math import prod
from typing import Any

from bayesnet._errors import UnsupportedError
from bayesnet.kernels.finite import WideNetwork, map_products
from bayesnet.kernels.images import AveragePool, Conv, Flatten, Image
from bayesnet.kernels.layers import Activation, Dense, KernelLayer
from bayesnet.kernels.serial import Residual, Serial
from bayesnet.networks import MLP, LeNet5, ResidualMLP

# jax.nn.gelu, which the networks mean, is by default the tanh approximation.
_OWN_NAMES = {"gelu": "gelu_tanh"}


def description(network: Any, scales: Any, in_dim: int, out_dim: int) -> Serial:
    """The layers of a network whose hidden widths go to infinity.

    Args:
        scales: the standard deviation of each array of parameters: a pytree of numbers, shaped as
            `network.param_shapes`.

    Raises `UnsupportedError` for a network without a description.
    """
    if isinstance(network, WideNetwork):
        return _wide(network, scales)
    if isinstance(network, MLP):
        return _mlp(network, scales, in_dim, out_dim)
    if isinstance(network, ResidualMLP):
        return _residual(network, scales, in_dim, out_dim)
    if isinstance(network, LeNet5):
        return _lenet(network, scales, in_dim, out_dim)
    raise UnsupportedError(
        f"The infinite limit of {type(network).__name__} is not known: it is for bn.MLP, bn.ResidualMLP and "
        "bn.LeNet5. Describe a network of your own as bn.kernels.NNGP(bn.kernels.Serial(...))."
    )


def _activation(name: str) -> Activation:
    return Activation(_OWN_NAMES.get(name, name))


def _stds(
    network: Any, scales: Any, shape: tuple[int, ...], branch: float = 1.0
) -> tuple[float, float]:
    """(weight_std, bias_std) of one product of a network in either parameterisation."""
    ntk = network.parameterization == "ntk"
    weight = scales["w"] * (branch if ntk else prod(shape[:-1]) ** 0.5)
    return weight, scales["b"] * (branch if ntk else 1.0)


def _wide(network: WideNetwork, scales: Any) -> Serial:
    stds: list[tuple[float, float]] = []
    map_products(lambda s: stds.append((s["w"], s.get("b", 0.0))), network.layers, scales)
    return network.layers.with_stds(iter(stds))


def _mlp(network: MLP, scales: Any, in_dim: int, out_dim: int) -> Serial:
    shapes = network.param_shapes(in_dim, out_dim)
    parts: list[KernelLayer] = []
    for own, shape in zip(scales, shapes, strict=True):
        parts += [Dense(*_stds(network, own, shape["w"].shape)), _activation(network.activation)]
    return Serial(*parts[:-1])


def _residual(network: ResidualMLP, scales: Any, in_dim: int, out_dim: int) -> Serial:
    specs = network.layers(in_dim, out_dim)
    act = _activation(network.activation)

    def dense(own: Any, spec: Any) -> Dense:
        return Dense(*_stds(network, own, spec.shape, spec.branch))

    blocks = [
        Residual(act, dense(own["first"], spec["first"]), act, dense(own["second"], spec["second"]))
        for own, spec in zip(scales["blocks"], specs["blocks"], strict=True)
    ]
    first = dense(scales["first"], specs["first"])
    return Serial(first, *blocks, act, dense(scales["last"], specs["last"]))


def _lenet(network: LeNet5, scales: Any, in_dim: int, out_dim: int) -> Serial:
    specs = network.layers(in_dim, out_dim)
    act = _activation(network.activation)
    stds = [_stds(network, own, spec.shape) for own, spec in zip(scales, specs, strict=True)]
    parts: list[KernelLayer] = [Image(*network.image_shape)]
    for pair, padding in zip(stds[:2], network.paddings, strict=True):
        parts += [Conv(5, padding, 1, *pair), act, AveragePool(2)]
    parts.append(Flatten())
    for pair in stds[2:4]:
        parts += [Dense(*pair), act]
    return Serial(*parts, Dense(*stds[4]))
