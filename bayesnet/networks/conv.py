"""Convolutions and pooling over images, and the shapes of images."""

from __future__ import annotations

from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from bayesnet._errors import InputError
from bayesnet._types import Array, Float
from bayesnet.networks.layers import check_whole

ImageShape = tuple[int, int, int]


def check_image_shape(image_shape: Any, smallest: int) -> ImageShape:
    """(height, width, channels) from itself or from (height, width).

    Raises `InputError` for anything else, or sides below `smallest`.
    """
    try:
        shape = tuple(image_shape)
    except TypeError:
        shape = ()
    if len(shape) not in (2, 3):
        raise InputError(
            "image_shape must be (height, width) or (height, width, channels), for example "
            f"(28, 28), got {image_shape!r}."
        )
    h, w, c = (check_whole("Every number of image_shape", a) for a in (*shape, 1)[:3])
    if min(h, w) < smallest:
        raise InputError(
            f"Images of {h} x {w} pixels are too small for this network: it halves them twice and "
            f"needs at least {smallest} pixels a side. Use bn.MLP or bn.ResidualMLP."
        )
    return h, w, c


def check_pixels(image_shape: ImageShape, in_dim: int) -> None:
    """Raises `InputError` unless rows of `in_dim` numbers are images of that shape."""
    if prod(image_shape) != in_dim:
        h, w, c = image_shape
        raise InputError(
            f"image_shape {image_shape} means {h} * {w} * {c} = {prod(image_shape)} columns, but the "
            f"inputs have {in_dim}. Pass one flattened image a row, in the order height, width, "
            "channels: images.reshape(len(images), -1)."
        )


def convolve(
    x: Float[Array, "n h w c"], kernel: Array, padding: int = 0, stride: int = 1
) -> Float[Array, "n i j o"]:
    """The cross-correlation of images with `kernel` (side, side, c, o), zeros outside."""
    # Patches and one matrix product. Value and gradient of the two convolutions of LeNet-5 on two
    # CPU cores, milliseconds (XLA's lax.conv_general_dilated in brackets): one set of weights 0.8
    # (2.6) for 64 images of 8 x 8, 5.6 (20) for 512, 5.8 (11) for 64 of 28 x 28. In a loop over
    # weight draws, where XLA takes its slow path: 0.7 (4.8), 6.3 (44), 6.2 (85); with draws
    # batched by vmap 1.8 (1.1), 18 (17), 24 (32). Loops over draws with patches are best.
    # Shifts along columns, then rows: 2 side slices instead of side^2 compile PreResNet20's
    # gradient in 7 s instead of 12, and LeNet-5's runs in half the time.
    side, _, c, out = kernel.shape
    if padding:
        x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    h, w = (size - side + 1 for size in x.shape[1:3])
    x = jnp.concatenate([x[:, :, j : j + w : stride] for j in range(side)], axis=-1)
    x = jnp.concatenate([x[:, i : i + h : stride] for i in range(side)], axis=-1)
    return x @ kernel.reshape(side * side * c, out)


def average_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n i j c"]:
    """Means over squares of 2 x 2 pixels; an odd last row or column is left out."""
    # A window sum took 0.6 to 1.0 times as long as reshaping and averaging, gradient included.
    window = (1, 2, 2, 1)
    return lax.reduce_window(x, np.zeros((), x.dtype), lax.add, window, window, "VALID") / 4.0
