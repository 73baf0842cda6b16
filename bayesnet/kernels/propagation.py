"""From inputs and variances to kernel matrices: the recursion over a description."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from bayesnet._errors import InputError
from bayesnet._types import Array
from bayesnet.kernels.layers import Activation, KernelLayer, Variances
from bayesnet.kernels.serial import Residual, Serial
from bayesnet.kernels.state import Moments, Signal


def check_rows(layers: Serial, shape: tuple[int, ...], name: str) -> None:
    """Raises `InputError` unless inputs of that shape are rows that the network takes."""
    if len(shape) != 2:
        raise InputError(f"{name} must be a matrix (rows, columns), got shape {shape}.")
    first = layers.layers[0]
    if hasattr(first, "check_columns"):
        first.check_columns(shape[1], name)


def variances_of(layers: Serial, hyper: Any) -> Variances:
    """The variances (weight, bias) of every layer with weights, in order."""
    count = len(layers.stds())
    weight, bias = (jnp.broadcast_to(jnp.asarray(hyper[k]), (count,)) for k in ("weight", "bias"))
    return iter([(weight[i], bias[i]) for i in range(count)])


def _run(layers: Serial, hyper: Any, start: Moments) -> Moments:
    return layers.moments(replace(start, full=layers.pools), variances_of(layers, hyper))


def matrices(
    layers: Serial, hyper: Any, x1: Array, x2: Array, *, ntk: bool
) -> tuple[Array, Array | None]:
    """The NNGP matrix (n, k) and the NTK matrix (or None), in the dtype of the inputs."""
    d = x1.shape[1]
    cov = x1 @ x2.T / d
    left, right = (jnp.sum(x * x, axis=1) / d for x in (x1, x2))
    if hasattr(layers.layers[0], "open"):
        start = layers.layers[0].open(x1, x2, full=layers.pools, paired=False)
    else:
        start = Moments(cov, left, right, None)
    if ntk:
        start = replace(start, ntk=jnp.zeros_like(start.cov))
    end = _run(layers, hyper, start)
    return end.cov, end.ntk


def _own(layers: Serial, x: Array, *, ntk: bool) -> Moments:
    if hasattr(layers.layers[0], "open"):
        start = layers.layers[0].open(x, x, full=layers.pools, paired=True)
    else:
        own = jnp.sum(x * x, axis=1) / x.shape[1]
        start = Moments(own, own, own, None, paired=True)
    return replace(start, ntk=jnp.zeros_like(start.cov)) if ntk else start


def diagonal_of(layers: Serial, hyper: Any, x: Array, *, ntk: bool) -> Array:
    """The kernel (n,) of each row with itself."""
    end = _run(layers, hyper, _own(layers, x, ntk=ntk))
    return end.cov if end.ntk is None else end.ntk


def left_out_of(layers: Serial, hyper: Any, x: Array, *, ntk: bool) -> Array:
    """The largest share (n,) of a second moment that expansions leave out at any layer."""
    start = replace(_own(layers, x, ntk=ntk), left_out=jnp.zeros(len(x), x.dtype))
    left_out = _run(layers, hyper, start).left_out
    assert left_out is not None
    return left_out


def all_layers(layers: Any) -> Iterator[KernelLayer]:
    """Every layer of a description, those inside of others too."""
    for layer in layers:
        yield layer
        yield from all_layers(getattr(layer, "layers", ()))
        yield from all_layers(getattr(getattr(layer, "shortcut", None), "layers", ()))


def expands(layers: Serial) -> bool:
    """Whether an activation has no closed form."""
    return any(
        isinstance(layer, Activation) and layer.dual().missing is not None
        for layer in all_layers(layers.layers)
    )


def numbers_per_pair(layers: Serial) -> int:
    """The largest number of moments that a pair of rows has at any layer."""
    most = 1

    def look(parts: Any, signal: Signal) -> Signal:
        nonlocal most
        for layer in parts:
            if isinstance(layer, (Residual, Serial)):
                look(layer.layers, signal)
            signal = layer.check(signal)
            if signal.image is not None:
                pixels = signal.image[0] * signal.image[1]
                most = max(most, pixels**2 if layers.pools else pixels)
        return signal

    look(layers.layers, Signal())
    return most
