"""The network of a classifier: the layers of a PFN, tokens of classes, logits of classes."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp

from bayesnet._errors import InputError
from bayesnet._types import Array, Bool, Float, Int, Key
from bayesnet.pfn.attention import AttentionLayer, linear, normalise
from bayesnet.pfn.transformer import PER_COLUMN, Cache, decode_rows, embed_inputs, encode_rows

# The logit of a class that a table does not have.
NEVER = -1e9


class ClassTransformer(eqx.Module):
    """Rows with classes and query inputs in, logits of the classes at the queries out.

    As `Transformer`, with a token for each class in the place of the value of y. The null token is
    told which classes a table has (`classes`); the others get no probability. A second head tells
    the share of the entropy of `log K` that the label would keep if the function were known.
    """

    embed_x: Float[Array, "c w"]
    embed_used: Float[Array, "d w"]
    embed_class: Float[Array, "k w"]
    embed_classes: Float[Array, "k w"]
    context_token: Float[Array, " w"]
    query_token: Float[Array, " w"]
    null_token: Float[Array, " w"]
    layers: tuple[AttentionLayer, ...]
    norm: Float[Array, " w"]
    head_in: Float[Array, "w h"]
    head_bias: Float[Array, " h"]
    head: Float[Array, "h o"]
    bias: Float[Array, " o"]

    @staticmethod
    def create(
        key: Key,
        *,
        max_dim: int,
        max_classes: int,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        hidden: int = 256,
    ) -> ClassTransformer:
        """Random weights. Raises `InputError` if `heads` does not divide `width`."""
        if width % heads:
            raise InputError(f"width must be a multiple of heads, got {width} and {heads}.")
        if min(max_dim, depth, width, hidden) < 1 or max_classes < 2:
            raise InputError("Sizes must be at least 1, and the classes at least 2.")
        k = jax.random.split(key, 9)
        return ClassTransformer(
            linear(k[0], max_dim * PER_COLUMN, width),
            0.1 * jax.random.normal(k[1], (max_dim, width)),
            jax.random.normal(k[2], (max_classes, width)),
            0.1 * jax.random.normal(k[3], (max_classes, width)),
            0.1 * jax.random.normal(k[4], (width,)),
            0.1 * jax.random.normal(k[8], (width,)),
            jax.random.normal(k[5], (width,)),
            tuple(
                AttentionLayer.create(q, width, hidden, heads, depth, max_dim)
                for q in jax.random.split(k[6], depth)
            ),
            jnp.ones(width),
            linear(k[7], width, hidden),
            jnp.zeros(hidden),
            jnp.zeros((hidden, max_classes + 1)),
            jnp.zeros(max_classes + 1),
        )

    @property
    def max_dim(self) -> int:
        """The largest number of columns."""
        return self.embed_used.shape[0]

    @property
    def max_classes(self) -> int:
        """K, the largest number of classes."""
        return self.embed_class.shape[0]

    def encode(
        self,
        x: Float[Array, "n d"],
        codes: Int[Array, " n"],
        mask: Bool[Array, " n"],
        used: Float[Array, " d"],
        classes: Bool[Array, " k"],
    ) -> Cache:
        """The cache of a context; arguments as of `Transformer.encode`, y being the class."""
        x = x * used
        rows = embed_inputs(x, used, self.embed_x, self.embed_used)
        # The sum of one token a class, for that is what the gradient of a lookup would do slowly.
        label = jax.nn.one_hot(codes, self.max_classes, dtype=x.dtype) @ self.embed_class
        null = self.null_token + used @ self.embed_used + classes @ self.embed_classes
        return encode_rows(self.layers, null, rows + label + self.context_token, x, mask, used)

    def decode(
        self,
        cache: Cache,
        mask: Bool[Array, " n"],
        x: Float[Array, "q d"],
        used: Float[Array, " d"],
        classes: Bool[Array, " k"],
    ) -> tuple[Float[Array, "q k"], Float[Array, " q"]]:
        """Logits of the classes, and of the share of entropy, at query inputs."""
        x = x * used
        tokens = embed_inputs(x, used, self.embed_x, self.embed_used) + self.query_token
        tokens = decode_rows(self.layers, cache, tokens, mask, x, used)
        h = jax.nn.gelu(normalise(tokens, self.norm) @ self.head_in + self.head_bias)
        out = h @ self.head + self.bias
        return jnp.where(classes, out[:, :-1], NEVER), out[:, -1]

    def __call__(
        self, x: Array, codes: Array, mask: Array, queries: Array, used: Array, classes: Array
    ) -> tuple[Float[Array, "q k"], Float[Array, " q"]]:
        """`decode` after `encode`."""
        cache = self.encode(x, codes, mask, used, classes)
        return self.decode(cache, mask, queries, used, classes)
