"""Layers of images: convolutions, pooling, flattening.

Without pooling, units at one pixel only meet those at the same pixel of the other image, and moments
are (n, k, h, w); pooling needs all pairs of pixels, (n, k, h, h, w, w): (h w)^2 numbers a pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from jax import lax

from bayesnet._errors import InputError
from bayesnet._types import Array, PyTree
from bayesnet.kernels.layers import KernelLayer, Variances, check_std, weight_shapes
from bayesnet.kernels.state import Moments, Signal
from bayesnet.networks.conv import convolve
from bayesnet.networks.layers import check_whole

PADDINGS = ("same", "valid")


@dataclass(frozen=True)
class Image(KernelLayer):
    """Rows are images flattened in the order height, width, channels: the first layer of networks
    of convolutions. `K_pq(x, x') = x_p . x'_q / channels` at pixels p and q.

    Raises `InputError` for numbers that are not positive and whole, and rows of another length.
    """

    height: int
    width: int
    channels: int = 1

    def __post_init__(self) -> None:
        for name in ("height", "width", "channels"):
            object.__setattr__(self, name, check_whole(f"{name} of Image", getattr(self, name)))

    def check_columns(self, columns: int, name: str) -> None:
        """Raises `InputError` unless rows of so many numbers are such images."""
        h, w, c = self.height, self.width, self.channels
        if columns != h * w * c:
            raise InputError(
                f"Image({h}, {w}, {c}) means {h} * {w} * {c} = {h * w * c} columns, but {name} has "
                f"{columns}. Pass one flattened image a row: images.reshape(len(images), -1)."
            )

    def check(self, signal: Signal) -> Signal:
        if not signal.raw or signal.image is not None:
            raise InputError("Image(...) must be the first layer: it says how rows are images.")
        return Signal((self.height, self.width), raw=True, channels=self.channels)

    def open(self, x1: Array, x2: Array, *, full: bool, paired: bool) -> Moments:
        """The moments of the inputs themselves."""
        a, b = (self.apply((), x) for x in (x1, x2))
        axes = ("hHwW", "H", "W") if full else ("hw", "h", "w")
        space, h, w = axes

        def own(x: Array) -> Array:
            return jnp.einsum(f"nhwc,n{h}{w}c->n{space}", x, x) / self.channels

        if paired:
            return Moments(own(a), own(a), own(a), None, paired=True, full=full)
        cov = jnp.einsum(f"nhwc,k{h}{w}c->nk{space}", a, b) / self.channels
        return Moments(cov, own(a), own(b), None, full=full)

    def moments(self, moments: Moments, variances: Variances) -> Moments:
        return moments

    def shapes(self, shape: tuple[int, ...], width: int) -> tuple[PyTree, tuple[int, ...]]:
        self.check_columns(shape[0], "the input")
        return (), (self.height, self.width, self.channels)

    def apply(self, params: PyTree, h: Array) -> Array:
        return h.reshape(len(h), self.height, self.width, self.channels)


def _along(a: Array, axes: tuple[int, ...], size: int, step: Callable[[slice], slice]) -> Array:
    """The sum over `size` shifts of slices, the same along all `axes` at once."""
    total = None
    for shift in range(size):
        index = [slice(None)] * a.ndim
        for axis in axes:
            index[axis] = step(slice(shift, a.shape[axis] - size + 1 + shift))
        piece = a[tuple(index)]
        total = piece if total is None else total + piece
    return total  # type: ignore[return-value]


def window_mean(a: Array, full: bool, size: int, stride: int, padding: int) -> Array:
    """Means of moments over the windows of a convolution; pixels that meet shift together."""
    pairs = ((-4, -3), (-2, -1)) if full else ((-2,), (-1,))
    if padding:
        lead = a.ndim - (4 if full else 2)
        a = jnp.pad(a, ((0, 0),) * lead + ((padding, padding),) * (a.ndim - lead))
    for axes in pairs:
        a = _along(a, axes, size, lambda s: slice(s.start, s.stop, stride))
    return a / size**2


@dataclass(frozen=True)
class Conv(KernelLayer):
    """A convolution with `size` x `size` filters: weights N(0, weight_std^2 / (size^2 channels)).

    `K'_pq = weight_std^2 mean_d K_{p+d, q+d} + bias_std^2` over the offsets d of the filter
    (Garriga-Alonso et al. 2019, eq. 7; Novak et al. 2019, eq. 8).

    Args:
        size: pixels a side; "same" padding needs an odd one.
        padding: "same" (zeros around, (size - 1) / 2 of them), "valid" (none), or their number.
        stride: pixels from one output to the next.
    """

    size: int = 3
    padding: str | int = "same"
    stride: int = 1
    weight_std: float = 1.4
    bias_std: float = 0.3

    def __post_init__(self) -> None:
        for name in ("size", "stride"):
            object.__setattr__(self, name, check_whole(f"{name} of Conv", getattr(self, name)))
        if isinstance(self.padding, str):
            if self.padding not in PADDINGS:
                raise InputError(
                    f"padding must be one of {PADDINGS} or a number, got {self.padding!r}."
                )
            if self.padding == "same" and self.size % 2 == 0:
                raise InputError(f'padding="same" needs an odd filter size, got {self.size}.')
        else:
            object.__setattr__(self, "padding", check_whole("padding of Conv", self.padding, 0))
        object.__setattr__(self, "weight_std", check_std("weight_std", self.weight_std))
        object.__setattr__(self, "bias_std", check_std("bias_std", self.bias_std, zero=True))

    @property
    def zeros(self) -> int:
        """Pixels of zeros on each side."""
        if isinstance(self.padding, int):
            return self.padding
        return (self.size - 1) // 2 if self.padding == "same" else 0

    def _out(self, side: int) -> int:
        return (side + 2 * self.zeros - self.size) // self.stride + 1

    def check(self, signal: Signal) -> Signal:
        if signal.image is None:
            raise InputError(
                "A Conv layer takes maps: start the network with Image(height, width, channels), and "
                "put no Flatten before it."
            )
        h, w = (self._out(side) for side in signal.image)
        if min(h, w) < 1:
            raise InputError(
                f"Filters of {self.size} x {self.size} pixels do not fit maps of {signal.image[0]} x "
                f"{signal.image[1]} with {self.zeros} pixels of padding."
            )
        return Signal((h, w), gaussian=True, raw=False)

    def moments(self, moments: Moments, variances: Variances) -> Moments:
        windows = moments.linear(
            lambda a: window_mean(a, moments.full, self.size, self.stride, self.zeros)
        )
        return windows.weighted(*next(variances))

    def stds(self) -> list[tuple[float, float]]:
        return [(self.weight_std, self.bias_std)]

    def with_stds(self, stds: Iterator[tuple[float, float]]) -> Conv:
        weight_std, bias_std = next(stds)
        return replace(self, weight_std=weight_std, bias_std=bias_std)

    def shapes(self, shape: tuple[int, ...], width: int) -> tuple[PyTree, tuple[int, ...]]:
        h, w, c = shape
        filters = (self.size, self.size, c, width)
        return weight_shapes(filters, self.bias_std), (self._out(h), self._out(w), width)

    def apply(self, params: PyTree, h: Array) -> Array:
        w = params["w"]
        fan_in = w.shape[0] * w.shape[1] * w.shape[2]
        return convolve(h, w * fan_in**-0.5, self.zeros, self.stride) + params.get("b", 0.0)


@dataclass(frozen=True)
class Flatten(KernelLayer):
    """All pixels and channels as one vector; the next layer sees the mean over equal pixels."""

    def check(self, signal: Signal) -> Signal:
        if signal.image is None:
            raise InputError("Flatten() takes maps, but the units before it are vectors already.")
        return replace(signal, image=None, channels=None)

    def moments(self, moments: Moments, variances: Variances) -> Moments:
        def mean(a: Array) -> Array:
            if moments.full:
                a = jnp.einsum("...hhww->...hw", a)
            return jnp.mean(a, axis=(-2, -1))

        return replace(moments.linear(mean), full=False)

    def shapes(self, shape: tuple[int, ...], width: int) -> tuple[PyTree, tuple[int, ...]]:
        return (), (shape[0] * shape[1] * shape[2],)

    def apply(self, params: PyTree, h: Array) -> Array:
        return h.reshape(len(h), -1)


@dataclass(frozen=True)
class GlobalAveragePool(KernelLayer):
    """Means over all pixels, channel by channel: the moments are means over all pairs of pixels."""

    pools = True

    def check(self, signal: Signal) -> Signal:
        if signal.image is None:
            raise InputError("GlobalAveragePool() takes maps, but the units before it are vectors.")
        return replace(signal, image=None, channels=None)

    def moments(self, moments: Moments, variances: Variances) -> Moments:
        mean = moments.linear(lambda a: jnp.mean(a, axis=(-4, -3, -2, -1)))
        return replace(mean, full=False)

    def shapes(self, shape: tuple[int, ...], width: int) -> tuple[PyTree, tuple[int, ...]]:
        return (), (shape[2],)

    def apply(self, params: PyTree, h: Array) -> Array:
        return jnp.mean(h, axis=(1, 2))


@dataclass(frozen=True)
class AveragePool(KernelLayer):
    """Means over squares of `size` x `size` pixels; rows and columns that are left are left out."""

    size: int = 2

    pools = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", check_whole("size of AveragePool", self.size))

    def check(self, signal: Signal) -> Signal:
        if signal.image is None:
            raise InputError("AveragePool() takes maps, but the units before it are vectors.")
        h, w = (side // self.size for side in signal.image)
        if min(h, w) < 1:
            raise InputError(f"Maps of {signal.image} are smaller than the pool of {self.size}.")
        return replace(signal, image=(h, w))

    def moments(self, moments: Moments, variances: Variances) -> Moments:
        def mean(a: Array) -> Array:
            for axis in (-4, -3, -2, -1):
                a = jnp.moveaxis(a, axis, -1)
                blocks = a.shape[-1] // self.size
                a = a[..., : blocks * self.size].reshape(*a.shape[:-1], blocks, self.size)
                a = jnp.moveaxis(jnp.mean(a, axis=-1), -1, axis)
            return a

        return moments.linear(mean)

    def shapes(self, shape: tuple[int, ...], width: int) -> tuple[PyTree, tuple[int, ...]]:
        return (), (shape[0] // self.size, shape[1] // self.size, shape[2])

    def apply(self, params: PyTree, h: Array) -> Array:
        size = (1, self.size, self.size, 1)
        # A NumPy zero: with one of JAX the window sum has no derivative.
        return (
            lax.reduce_window(h, np.zeros((), h.dtype), lax.add, size, size, "VALID") / self.size**2
        )
