"""The pre-activation residual network of 20 layers."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp

from bayesnet._types import Array, Float, PyTree
from bayesnet.networks.activations import resolve_activation
from bayesnet.networks.conv import check_image_shape, check_pixels, convolve
from bayesnet.networks.layers import (
    Layer,
    Layered,
    Norm,
    check_parameterization,
    check_whole,
    weights_of,
)
from bayesnet.networks.normalization import resolve_normalization

STAGES, BLOCKS = 3, 3
BRANCH = (STAGES * BLOCKS) ** -0.5


@dataclass(frozen=True)
class PreResNet20(Layered):
    """The pre-activation residual network with 20 layers for small images (He et al. 2016b).

    A 3 x 3 convolution to `width` maps; three stages of three blocks at `width`, `2 width`,
    `4 width` maps, the second and third stage starting with stride 2 (and a 1 x 1 convolution
    of the normalised maps as their shortcut); normalisation, activation, means over all
    pixels, and a linear layer. A block adds `9^{-1/2} conv(act(norm(conv(act(norm(h))))))`: the
    factor keeps the variance of what is summed bounded (Hayou et al. 2021).

    Args:
        image_shape: (height, width) or (height, width, channels); rows of x are images flattened in
            that order. At least 4 x 4 pixels ("filter_response": 5 x 5).
        width: maps of the first stage.
        activation: a name in `bayesnet.networks.ACTIVATIONS`.
        parameterization: "ntk" multiplies N(0, 1) weights by 1/sqrt(fan_in) and the factor of the
            branch; "standard" does not, and its unmatched prior has these scales. Both are the
            same law of functions.
        normalization: "layer" or "filter_response", see `bayesnet.networks.normalization`. There
            is no batch normalisation: outputs would depend on the other rows of a batch.

    Raises:
        InputError: an image shape that is none or too small, unknown names, a width that is
            not a whole number; when parameters are made, rows of another length.

    Parameters, grouped by block: `{"stem": {"w"}, "stages": (stage of 3 blocks, ...), "head":
    {"norm", "linear"}}`, a block being `{"norm1", "conv1", "norm2", "conv2"}` and "shortcut" where
    the shape changes. 272,282 numbers for 32 x 32 x 3 images and 10 outputs. `init` draws weights of
    variance 2/fan_in (rectifiers), times the square of the branch's factor, gains 1 and biases 0.
    """

    image_shape: tuple[int, ...] = (32, 32, 3)
    width: int = 16
    activation: str = "relu"
    parameterization: str = "ntk"
    normalization: str = "layer"

    def __post_init__(self) -> None:
        resolve_activation(self.activation)
        check_parameterization(self.parameterization)
        resolve_normalization(self.normalization)
        # One pixel a map has no mean square but its own: filter response would keep signs only.
        smallest = 5 if self.normalization == "filter_response" else 4
        shape = check_image_shape(self.image_shape, smallest)
        object.__setattr__(self, "image_shape", shape)
        object.__setattr__(self, "width", check_whole("width", self.width))

    @property
    def loop_over_draws(self) -> bool:
        """Weight draws are evaluated one after another: batches of them are slower (`conv`)."""
        return True

    def layers(self, in_dim: int, out_dim: int) -> PyTree:
        """The specification of every layer, in the tree of the parameters.

        Raises `InputError` for another number of columns.
        """
        h, w, channels = self.image_shape  # type: ignore[misc]
        check_pixels((h, w, channels), in_dim)
        stages = []
        before = self.width
        for stage in range(STAGES):
            maps = self.width * 2**stage
            blocks = []
            for _ in range(BLOCKS):
                block = {
                    "norm1": Norm(before),
                    "conv1": Layer((3, 3, before, maps), bias=False),
                    "norm2": Norm(maps),
                    "conv2": Layer((3, 3, maps, maps), branch=BRANCH, bias=False),
                }
                if before != maps:
                    block["shortcut"] = Layer((1, 1, before, maps), bias=False)
                blocks.append(block)
                before = maps
            stages.append(tuple(blocks))
        return {
            "stem": Layer((3, 3, channels, self.width), bias=False),
            "stages": tuple(stages),
            "head": {"norm": Norm(before), "linear": Layer((before, out_dim), linear=True)},
        }

    def apply(self, params: PyTree, x: Float[Array, "n d"]) -> Float[Array, "n m"]:
        act = resolve_activation(self.activation)
        normalize = resolve_normalization(self.normalization)
        specs = self.layers(x.shape[1], params["head"]["linear"]["b"].shape[0])

        def active(h: Array, norm: PyTree) -> Array:
            return act(normalize(h) * norm["gain"] + norm["bias"])

        def conv(h: Array, layer: PyTree, spec: Layer, stride: int = 1) -> Array:
            w, _ = weights_of(layer, spec, self.parameterization)
            return convolve(h, w, padding=w.shape[0] // 2, stride=stride)

        h = conv(x.reshape(len(x), *self.image_shape), params["stem"], specs["stem"])
        for stage, stage_specs in zip(params["stages"], specs["stages"], strict=True):
            for block, spec in zip(stage, stage_specs, strict=True):
                stride = 2 if "shortcut" in block else 1
                a = active(h, block["norm1"])
                if stride == 2:
                    h = conv(a, block["shortcut"], spec["shortcut"], stride)
                a = active(conv(a, block["conv1"], spec["conv1"], stride), block["norm2"])
                h = h + conv(a, block["conv2"], spec["conv2"])
        h = jnp.mean(active(h, params["head"]["norm"]), axis=(1, 2))
        w, b = weights_of(params["head"]["linear"], specs["head"]["linear"], self.parameterization)
        return h @ w + b
