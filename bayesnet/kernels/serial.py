"""Layers one after another, and residual sums of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from bayesnet._errors import InputError
from bayesnet._types import Array, PyTree
from bayesnet.kernels.images import Image
from bayesnet.kernels.layers import Dense, KernelLayer, Variances, check_std
from bayesnet.kernels.state import Moments, Signal


def _as_layers(layers: Any, own: str) -> tuple[KernelLayer, ...]:
    # A Serial inside is its layers, so that the first layer of a network is seen.
    nested = [part.layers if isinstance(part, Serial) else (part,) for part in layers]
    layers = tuple(layer for part in nested for layer in part)
    for layer in layers:
        if isinstance(layer, type) and issubclass(layer, KernelLayer):
            raise InputError(f"Pass a layer, not its class: {layer.__name__}().")
        if not isinstance(layer, KernelLayer):
            raise InputError(
                f"{own} holds layers of bayesnet.kernels (Dense, Conv, Activation, ...), got "
                f"{layer!r}."
            )
    return layers


class _Chain(KernelLayer):
    """What sequences share."""

    layers: tuple[KernelLayer, ...]

    def stds(self) -> list[tuple[float, float]]:
        return [pair for layer in self.layers for pair in layer.stds()]

    @property
    def pools(self) -> bool:  # type: ignore[override]
        return any(layer.pools for layer in self.layers)


def _check(layers: tuple[KernelLayer, ...], signal: Signal) -> Signal:
    for layer in layers:
        signal = layer.check(signal)
    return signal


def _moments(layers: Any, moments: Moments, variances: Variances) -> Moments:
    for layer in layers:
        moments = layer.moments(moments, variances)
    return moments


def _shapes(layers: Any, shape: tuple[int, ...], width: int) -> tuple[PyTree, tuple[int, ...]]:
    params = []
    for layer in layers:
        own, shape = layer.shapes(shape, width)
        params.append(own)
    return tuple(params), shape


def _apply(layers: Any, params: PyTree, h: Array) -> Array:
    for layer, own in zip(layers, params, strict=True):
        h = layer.apply(own, h)
    return h


@dataclass(frozen=True, init=False)
class Serial(_Chain):
    """Layers one after another: `Serial(Dense(), Activation("relu"), Dense())`.

    Raises `InputError` for what is no layer. As a whole network it must end with a `Dense`.
    """

    layers: tuple[KernelLayer, ...]

    def __init__(self, *parts: KernelLayer, layers: Any = ()) -> None:
        # By keyword for dataclasses.replace and for loading.
        object.__setattr__(self, "layers", _as_layers(parts or layers, "Serial"))

    def check(self, signal: Signal) -> Signal:
        return _check(self.layers, signal)

    def moments(self, moments: Moments, variances: Variances) -> Moments:
        return _moments(self.layers, moments, variances)

    def with_stds(self, stds: Iterator[tuple[float, float]]) -> Serial:
        return Serial(*[layer.with_stds(stds) for layer in self.layers])

    def shapes(self, shape: tuple[int, ...], width: int) -> tuple[PyTree, tuple[int, ...]]:
        return _shapes(self.layers, shape, width)

    def apply(self, params: PyTree, h: Array) -> Array:
        return _apply(self.layers, params, h)


@dataclass(frozen=True, init=False)
class Residual(_Chain):
    """The residual sum `shortcut(h) + scale * branch(h)`.

    Args:
        parts: the layers of the branch; the last must have weights (Dense or Conv), so that the two
            sides are uncorrelated and their moments add.
        shortcut: layers of the other side, as a `Serial`; the identity if None.
        scale: the factor of the branch, for example depth^-0.5 (Hayou et al. 2021).

    Raises:
        InputError: a branch that does not end with weights, sides of different shapes, a
            shortcut that is the inputs themselves.
    """

    layers: tuple[KernelLayer, ...]
    shortcut: Serial | None
    scale: float

    def __init__(
        self,
        *parts: KernelLayer,
        shortcut: Serial | None = None,
        scale: float = 1.0,
        layers: Any = (),
    ) -> None:
        layers = _as_layers(parts or layers, "Residual")
        if not layers or not layers[-1].stds():
            raise InputError("The branch of a Residual must end with a Dense or Conv layer.")
        if shortcut is not None and not isinstance(shortcut, Serial):
            raise InputError(f"shortcut must be a Serial(...) or None, got {shortcut!r}.")
        inside = (*layers, *(() if shortcut is None else shortcut.layers))
        if any(isinstance(layer, Image) for layer in inside):
            raise InputError("Image(...) belongs before a Residual, as first layer of the network.")
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "shortcut", shortcut)
        object.__setattr__(self, "scale", check_std("scale", scale))

    @property
    def pools(self) -> bool:  # type: ignore[override]
        return super().pools or (self.shortcut is not None and self.shortcut.pools)

    def stds(self) -> list[tuple[float, float]]:
        return super().stds() + ([] if self.shortcut is None else self.shortcut.stds())

    def check(self, signal: Signal) -> Signal:
        branch = _check(self.layers, signal)
        other = signal if self.shortcut is None else self.shortcut.check(signal)
        if other.raw:
            raise InputError(
                "A Residual cannot add the inputs themselves to units of a wide layer: put a Dense or "
                "Conv layer before it, or one in its shortcut."
            )
        if branch.image != other.image:
            raise InputError(
                f"The sides of a Residual differ: the branch gives maps of {branch.image}, the "
                f"shortcut of {other.image} (None: vectors). Use the same strides and padding."
            )
        return replace(branch, gaussian=branch.gaussian and other.gaussian)

    def moments(self, moments: Moments, variances: Variances) -> Moments:
        # A Python number, not an array: its square must not be rounded to float32.
        factor = self.scale**2
        branch = _moments(self.layers, moments, variances).linear(lambda a: factor * a)
        other = moments if self.shortcut is None else self.shortcut.moments(moments, variances)
        return branch.plus(other)

    def with_stds(self, stds: Iterator[tuple[float, float]]) -> Residual:
        layers = [layer.with_stds(stds) for layer in self.layers]
        shortcut = None if self.shortcut is None else self.shortcut.with_stds(stds)
        return Residual(*layers, shortcut=shortcut, scale=self.scale)

    def shapes(self, shape: tuple[int, ...], width: int) -> tuple[PyTree, tuple[int, ...]]:
        params, out = _shapes(self.layers, shape, width)
        side = () if self.shortcut is None else self.shortcut.shapes(shape, width)[0]
        return {"branch": params, "shortcut": side}, out

    def apply(self, params: PyTree, h: Array) -> Array:
        other = h if self.shortcut is None else self.shortcut.apply(params["shortcut"], h)
        return other + self.scale * _apply(self.layers, params["branch"], h)


def check_network(network: Serial) -> Signal:
    """The output of a whole network. Raises `InputError` for one that has no Gaussian limit."""
    if not isinstance(network, Serial):
        raise InputError(
            f"Describe a network as Serial(Dense(), Activation('relu'), Dense()), got {network!r}."
        )
    if not network.layers or not isinstance(network.layers[-1], Dense):
        raise InputError("A network ends with a Dense layer, whose units are its outputs.")
    return network.check(Signal())


def dense_network(depth: int, activation: Any, parameter: float | None = None) -> Serial:
    """`depth` hidden layers with an activation each, and a linear layer."""
    from bayesnet.kernels.layers import Activation

    hidden = (Dense(), Activation(activation, parameter)) * depth
    return Serial(*hidden, Dense())
