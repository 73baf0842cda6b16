"""LeNet-5."""

from __future__ import annotations

from dataclasses import dataclass

from bayesnet._types import Array, Float, PyTree
from bayesnet.networks.activations import resolve_activation
from bayesnet.networks.conv import average_pool, check_image_shape, check_pixels, convolve
from bayesnet.networks.layers import (
    Layer,
    Layered,
    check_parameterization,
    weights_of,
)

SMALLEST = 4


@dataclass(frozen=True)
class LeNet5(Layered):
    """LeNet-5 (LeCun et al. 1998) with all connections: 6 and 16 maps of 5 x 5 kernels, each
    followed by the activation and means over 2 x 2 pixels, then 120, 84 and m units.

    Args:
        image_shape: (height, width) or (height, width, channels); rows of x are images flattened in
            that order. At least 4 x 4 pixels.
        activation: a name in `bayesnet.networks.ACTIVATIONS`.
        parameterization: "ntk" multiplies N(0, 1) weights by 1/sqrt(fan_in), the fan-in of a
            convolution being 25 times its input channels; "standard" does not, and its unmatched
            prior has these scales. Both are the same law of functions.

    Raises:
        InputError: an image shape that is none or too small, an unknown name; when parameters
            are made, rows whose length is not height * width * channels.

    28 x 28 images are padded to the 32 x 32 of the paper (61,706 parameters for 10 outputs). A
    convolution of a map below 8 x 8 pads it by 2, so that small images keep pixels to pool.

    Parameters: a tuple of five layers `{"w", "b"}`, w (5, 5, channels, maps) or (fan_in, fan_out).
    `init` draws weights of variance 2/(fan_in + fan_out) (2/fan_in for rectifiers), biases 0.
    """

    image_shape: tuple[int, ...] = (28, 28, 1)
    activation: str = "tanh"
    parameterization: str = "ntk"

    def __post_init__(self) -> None:
        shape = check_image_shape(self.image_shape, SMALLEST)
        object.__setattr__(self, "image_shape", shape)
        resolve_activation(self.activation)
        check_parameterization(self.parameterization)

    @property
    def loop_over_draws(self) -> bool:
        """Weight draws are evaluated one after another: batches of them are slower (`conv`)."""
        return True

    @property
    def paddings(self) -> tuple[int, int]:
        """Zeros around the image and around the pooled maps."""
        side = min(self.image_shape[:2])
        first = 0 if side >= 32 else 2
        pooled = (side + 2 * first - 4) // 2
        return first, 0 if pooled >= 8 else 2

    def layers(self, in_dim: int, out_dim: int) -> tuple[Layer, ...]:
        """The specification of every layer. Raises `InputError` for another number of columns."""
        h, w, c = self.image_shape  # type: ignore[misc]
        check_pixels((h, w, c), in_dim)
        for padding in self.paddings:
            h, w = ((side + 2 * padding - 4) // 2 for side in (h, w))
        return (
            Layer((5, 5, c, 6)),
            Layer((5, 5, 6, 16)),
            Layer((h * w * 16, 120)),
            Layer((120, 84)),
            Layer((84, out_dim), linear=True),
        )

    def apply(self, params: PyTree, x: Float[Array, "n d"]) -> Float[Array, "n m"]:
        act = resolve_activation(self.activation)
        specs = self.layers(x.shape[1], params[-1]["b"].shape[0])
        ready = [
            weights_of(layer, spec, self.parameterization)
            for layer, spec in zip(params, specs, strict=True)
        ]
        h = x.reshape(len(x), *self.image_shape)
        for (w, b), padding in zip(ready[:2], self.paddings, strict=True):
            h = average_pool(act(convolve(h, w, padding) + b))
        h = h.reshape(len(x), -1)
        for w, b in ready[2:4]:
            h = act(h @ w + b)
        w, b = ready[4]
        return h @ w + b
