"""A prior over networks of many architectures: depth, width, sparsity, scale, activation drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr

from bayesnet._errors import InputError, UnsupportedError
from bayesnet._types import Array, Float, Key, PyTree

# Latents that say which architecture it is, before those of the weights.
_CHOICES = 8


@dataclass(frozen=True)
class RandomNetworks:
    """Functions of perceptrons whose architecture is drawn with every function.

    As the prior of Mueller et al. (2022), section 5, over Bayesian networks: the number of hidden
    layers is uniform on 0 to `depth` (0: a linear function), the number of units log-uniform from 2
    to `width`, the activation one of tanh, ReLU, sine and step, a weight is 0 with a probability that
    is uniform on [0, `sparsity`], and the scale of all weights log-normal around the one that
    keeps the variance of the activations. Values are of order 1; nothing is matched.

    Args:
        in_dim: d, the number of columns.
        depth, width: of the largest network.
        sparsity: the highest probability of a weight to be 0.
        scale: the sd of the log of the scale of weights, around `log(gain)`.
        gain: the median scale of the first layer's weights: how much functions bend.

    Raises `InputError` for sizes below 1 and probabilities out of range.
    """

    in_dim: int = 1
    depth: int = 3
    width: int = 32
    sparsity: float = 0.6
    scale: float = 0.6
    gain: float = 1.5

    units = "scaled"

    def __post_init__(self) -> None:
        if self.in_dim < 1 or self.depth < 0 or self.width < 2:
            raise InputError(
                "RandomNetworks needs in_dim of at least 1, depth of at least 0, width of at least "
                f"2, got {self.in_dim}, {self.depth} and {self.width}."
            )
        if not (0 <= self.sparsity < 1 and self.scale >= 0 and self.gain > 0):
            raise InputError("sparsity lies in [0, 1), scale is 0 or more, gain is positive.")

    @property
    def _shapes(self) -> list[tuple[int, int]]:
        """(inputs + 1, outputs) of every layer; the row more is the bias."""
        hidden = [(self.in_dim + 1, self.width)] + [(self.width + 1, self.width)] * (self.depth - 1)
        return [*hidden[: self.depth], (self.width + 1, 1), (self.in_dim + 1, 1)]

    @property
    def latent_size(self) -> int:
        """p: the choices, and two latents a weight (its value, and whether it is there)."""
        return _CHOICES + 2 * sum(a * b for a, b in self._shapes)

    def apply(self, z: Float[Array, " p"], x: Float[Array, "n d"]) -> Float[Array, "n 1"]:
        """The function that latents stand for, at rows of x."""
        u = ndtr(z[:_CHOICES])
        depth = jnp.floor(u[0] * (self.depth + 1))
        units = jnp.exp(np.log(2.0) + u[1] * np.log((self.width + 0.999) / 2.0)).astype(int)
        kind = jnp.floor(u[2] * 4).astype(int)
        empty = self.sparsity * u[3]
        gain = self.gain * jnp.exp(self.scale * z[4])
        real = jnp.arange(self.width) < units
        *hidden, last, linear = self._weights(z[_CHOICES:], empty)
        straight = _affine(x, linear, jnp.ones(self.in_dim))
        h, seen = x, jnp.ones(self.in_dim)
        for i, weights in enumerate(hidden):
            after = jnp.where(real, _activate(gain * _affine(h, weights, seen), kind), 0.0)
            # Layers beyond the drawn depth pass on what comes.
            h = after if i == 0 else jnp.where(i < depth, after, h)
            seen = real.astype(x.dtype)
            gain = jnp.where(i == 0, 1.2 * jnp.exp(0.5 * self.scale * z[5]), gain)
        if not hidden:
            return straight
        return jnp.where(depth > 0, _affine(h, last, seen), straight)

    def _weights(self, z: Array, empty: Array) -> list[Array]:
        found, start = [], 0
        for rows, columns in self._shapes:
            size = rows * columns
            value, there = z[start : start + size], ndtr(z[start + size : start + 2 * size])
            found.append((value * (there > empty)).reshape(rows, columns))
            start += 2 * size
        return found

    def sample(self, key: Key, x: Float[Array, "n d"], num_samples: int) -> Float[Array, "s n 1"]:
        """Functions at the rows of x. Raises `InputError` for another number of columns."""
        x = jnp.asarray(x)
        if x.ndim != 2 or x.shape[1] != self.in_dim:
            raise InputError(f"x must be (n, {self.in_dim}), got {x.shape}.")
        z = jax.random.normal(key, (num_samples, self.latent_size))
        return jax.vmap(lambda a: self.apply(a, x))(z)

    def encode(self, params: PyTree) -> Any:
        """Not defined, for weights do not tell the architecture: raises `UnsupportedError`."""
        raise UnsupportedError("RandomNetworks has no latents for given weights.")


def _affine(h: Array, weights: Array, seen: Array) -> Array:
    """Weighted sums of the inputs that are `seen`, divided by the root of their number, and biases."""
    total = (h * seen) @ weights[:-1] / jnp.sqrt(jnp.maximum(seen.sum(), 1.0))
    return total + 0.7 * weights[-1]


def _activate(h: Array, kind: Array) -> Array:
    """tanh, ReLU, sine or a step, at about unit mean square."""
    options = [1.3 * jnp.tanh(h), 1.4 * jax.nn.relu(h), 1.4 * jnp.sin(h), jnp.sign(h)]
    return jnp.select([kind == i for i in range(4)], options)
