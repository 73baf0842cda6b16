"""The network of a PFN: a pre-norm transformer whose queries see only the cached context.

Mueller et al. (2022), section 3, with the masks resolved: context rows attend to the context,
query rows attend to the context too and to nothing else, not even to themselves. So the keys and
values of the context are computed once (`encode`) and serve any number of queries (`decode`), the
answer does not depend on the order of the context (there are no positions), and queries do not
influence each other. A learned null token belongs to every context: an empty one gives the prior.
"""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError
from bayesnet._types import Array, Bool, Float, Key
from bayesnet.pfn.attention import AttentionLayer, linear, normalise
from bayesnet.pfn.bars import Bars

# Angular frequencies of the features of an input column, whose values are of order 1: waves of
# length 8, 4, 2 and 1.
FREQUENCIES = tuple(0.25 * math.pi * 2**j for j in range(4))
PER_COLUMN = 1 + 2 * len(FREQUENCIES)

# What a context leaves behind: keys and values of every layer, and its inputs.
Cache = tuple[tuple[tuple[Array, Array], ...], Array]
# Gaussians whose mixture is the first guess of a law; heads add to the logits of its bars. A head
# that is linear in all bars would have to learn every narrow law at every place.
COMPONENTS = 4
_LOG_STD = (-7.0, 2.5)


class Transformer(eqx.Module):
    """Context rows and query inputs in, logits of bars for the target y and for the function f out.

    Tables with fewer than `max_dim` columns are padded with columns that contribute nothing, and
    the sum over columns is scaled by `sqrt(max_dim / d)`, which keeps its variance.
    """

    embed_x: Float[Array, "c w"]
    embed_used: Float[Array, "d w"]
    embed_y: Float[Array, " w"]
    context_token: Float[Array, " w"]
    query_token: Float[Array, " w"]
    null_token: Float[Array, " w"]
    layers: tuple[AttentionLayer, ...]
    norm: Float[Array, " w"]
    mixture: Float[Array, "w g"]
    mixture_bias: Float[Array, " g"]
    head_y: Float[Array, "w k"]
    bias_y: Float[Array, " k"]
    head_f: Float[Array, "w k"]
    bias_f: Float[Array, " k"]

    @staticmethod
    def create(
        key: Key,
        *,
        max_dim: int,
        bars: int,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        hidden: int = 256,
    ) -> Transformer:
        """Random weights. Raises `InputError` if `heads` does not divide `width`."""
        if width % heads:
            raise InputError(f"width must be a multiple of heads, got {width} and {heads}.")
        if min(max_dim, depth, width, hidden) < 1:
            raise InputError("max_dim, depth, width and hidden must be at least 1.")
        k = jax.random.split(key, 8)
        columns = max_dim * PER_COLUMN
        spread = jnp.linspace(-1.0, 1.0, COMPONENTS)
        return Transformer(
            linear(k[0], columns, width),
            0.1 * jax.random.normal(k[1], (max_dim, width)),
            jax.random.normal(k[2], (width,)),
            0.1 * jax.random.normal(k[3], (width,)),
            0.1 * jax.random.normal(k[4], (width,)),
            jax.random.normal(k[5], (width,)),
            tuple(
                AttentionLayer.create(q, width, hidden, heads, depth, max_dim)
                for q in jax.random.split(k[6], depth)
            ),
            jnp.ones(width),
            0.3 * linear(k[7], width, 6 * COMPONENTS),
            # Equal weights, means from -1 to 1, standard deviations of 0.5.
            jnp.tile(jnp.stack([0 * spread, spread, 0 * spread - 0.7]).reshape(-1), 2),
            jnp.zeros((width, bars)),
            jnp.zeros(bars),
            jnp.zeros((width, bars)),
            jnp.zeros(bars),
        )

    @property
    def max_dim(self) -> int:
        """The largest number of columns."""
        return self.embed_used.shape[0]

    def _inputs(self, x: Float[Array, "n d"], used: Float[Array, " d"]) -> Float[Array, "n w"]:
        return embed_inputs(x, used, self.embed_x, self.embed_used)

    def encode(
        self,
        x: Float[Array, "n d"],
        y: Float[Array, " n"],
        mask: Bool[Array, " n"],
        used: Float[Array, " d"],
    ) -> Cache:
        """The keys and values of a context, one pair a layer, and its inputs.

        `x` is padded to `max_dim` columns, of which `used` is 1 for the real ones and 0 for the
        others (`pad_columns`); rows where `mask` is false are padding. The rows of the cache are
        n + 1: the null token comes first.
        """
        x = x * used
        rows = self._inputs(x, used) + y[:, None] * self.embed_y + self.context_token
        null = self.null_token + used @ self.embed_used
        return encode_rows(self.layers, null, rows, x, mask, used)

    def decode(
        self,
        cache: Cache,
        mask: Bool[Array, " n"],
        x: Float[Array, "q d"],
        used: Float[Array, " d"],
        bars: Bars,
    ) -> tuple[Float[Array, "q k"], Float[Array, "q k"]]:
        """Logits of the bars of y and of f at query inputs, given an encoded context."""
        x = x * used
        tokens = self._inputs(x, used) + self.query_token
        h = normalise(decode_rows(self.layers, cache, tokens, mask, x, used), self.norm)
        numbers = (h @ self.mixture + self.mixture_bias).reshape(len(h), 2, 3, COMPONENTS)
        guess = mixture_logits(numbers, bars)
        return (
            guess[:, 0] + h @ self.head_y + self.bias_y,
            guess[:, 1] + h @ self.head_f + self.bias_f,
        )

    def __call__(
        self, x: Array, y: Array, mask: Array, queries: Array, used: Array, bars: Bars
    ) -> tuple[Float[Array, "q k"], Float[Array, "q k"]]:
        """`decode` after `encode`."""
        return self.decode(self.encode(x, y, mask, used), mask, queries, used, bars)


def encode_rows(
    layers: tuple[AttentionLayer, ...],
    null: Float[Array, " w"],
    rows: Float[Array, "n w"],
    x: Float[Array, "n d"],
    mask: Bool[Array, " n"],
    used: Float[Array, " d"],
) -> Cache:
    """The cache of a context from tokens of its rows at inputs `x`, after the null token."""
    tokens = jnp.concatenate([null[None], rows])
    seen = with_null(mask)
    places = jnp.concatenate([jnp.zeros((1, x.shape[1]), x.dtype), x])
    pairs = []
    for i, layer in enumerate(layers):
        pairs.append(layer.keys_values(tokens))
        if i + 1 < len(layers):  # what the last layer would make of them nobody reads
            tokens = layer.apply(tokens, places, pairs[-1], x, seen, used)
    return tuple(pairs), x


def decode_rows(
    layers: tuple[AttentionLayer, ...],
    cache: Cache,
    tokens: Float[Array, "q w"],
    mask: Bool[Array, " n"],
    x: Float[Array, "q d"],
    used: Float[Array, " d"],
) -> Float[Array, "q w"]:
    """Tokens of queries at inputs `x` after all layers; `mask` marks the rows of the cache."""
    seen = with_null(mask)
    pairs, context = cache
    for layer, pair in zip(layers, pairs, strict=True):
        tokens = layer.apply(tokens, x, pair, context, seen, used)
    return tokens


def embed_inputs(
    x: Float[Array, "n d"], used: Float[Array, " d"], embed_x: Array, embed_used: Array
) -> Float[Array, "n w"]:
    """Tokens of inputs: a linear map of every column and its waves, and of which columns are real.

    The sum over columns is scaled by `sqrt(max_dim / d)`, which keeps its variance.
    """
    angles = x[..., None] * jnp.asarray(FREQUENCIES, x.dtype)
    features = jnp.concatenate([x[..., None], jnp.sin(angles), jnp.cos(angles)], axis=-1)
    features = features * used[:, None]
    total = features.reshape(len(x), len(embed_x)) @ embed_x
    return total * jnp.sqrt(len(embed_used) / used.sum()) + used @ embed_used


def pad_columns(x: np.ndarray, max_dim: int) -> tuple[np.ndarray, np.ndarray]:
    """`x` (..., d) with columns of zeros up to `max_dim`, and which of them are real (max_dim,)."""
    d = x.shape[-1]
    padding = [(0, 0)] * (x.ndim - 1) + [(0, max_dim - d)]
    return np.pad(x, padding), (np.arange(max_dim) < d).astype(np.float32)


def with_null(mask: Bool[Array, " n"]) -> Bool[Array, " n+1"]:
    """The mask of a cache: the null token is always seen."""
    return jnp.concatenate([jnp.ones(1, bool), mask])


def mixture_logits(numbers: Float[Array, "q h 3 c"], bars: Bars) -> Float[Array, "q h k"]:
    """Log masses of bars, up to a constant, under mixtures of Gaussians.

    The mass of a bar is its width times the density at its centre of the Gaussian widened by the
    variance within the bar: smooth, and right for narrow Gaussians and for wide ones.
    """
    weight, mean, log_std = (numbers[..., i, :, None] for i in range(3))
    centre, within, width = bars.places()
    variance = jnp.exp(2 * jnp.clip(log_std, *_LOG_STD)) + within
    weight = jax.nn.log_softmax(weight, axis=-2)
    each = weight - 0.5 * (centre - mean) ** 2 / variance - 0.5 * jnp.log(variance)
    return jax.nn.logsumexp(each, axis=-2) + jnp.log(width)
