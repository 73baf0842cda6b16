"""One layer of the transformers: attention by content and by distance, and a perceptron."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from bayesnet._types import Array, Bool, Float, Key
from bayesnet.pfn.precision import alike, product

# Where heads start to look: sums over columns of squared distances are multiplied by these, which
# are 1/(2 l^2) for lengthscales l of 2.2, 1, 0.5 and 0.25.
_REACH = (0.1, 0.5, 2.0, 8.0)
# The matrices of a layer that training may round to bfloat16.
IN_BFLOAT16 = ("query", "key", "value", "out", "mlp_in", "mlp_out")


class AttentionLayer(eqx.Module):
    """Attention to the context and a two-layer perceptron, both pre-normalised and residual.

    From the scores of a head its squared distance to the row is subtracted, every column by a
    weight that the token itself chooses (`reach`): a kernel smoother with lengthscales that are
    read off the table. The null token is at no distance from anything.
    """

    norm_attention: Float[Array, " w"]
    norm_mlp: Float[Array, " w"]
    query: Float[Array, "w w"]
    key: Float[Array, "w w"]
    value: Float[Array, "w w"]
    out: Float[Array, "w w"]
    reach: Float[Array, "w r"]
    reach_bias: Float[Array, " r"]
    mlp_in: Float[Array, "w h"]
    mlp_bias: Float[Array, " h"]
    mlp_out: Float[Array, "h w"]
    heads: int = eqx.field(static=True)

    @staticmethod
    def create(
        key: Key, width: int, hidden: int, heads: int, depth: int, max_dim: int
    ) -> AttentionLayer:
        """Random weights; what is added to the residual stream starts small, as 1/sqrt(depth)."""
        k = jax.random.split(key, 7)
        small = (2 * depth) ** -0.5
        return AttentionLayer(
            jnp.ones(width),
            jnp.ones(width),
            linear(k[0], width, width),
            linear(k[1], width, width),
            linear(k[2], width, width),
            linear(k[3], width, width) * small,
            0.1 * linear(k[6], width, heads * max_dim),
            jnp.repeat(jnp.log(jnp.expm1(jnp.resize(jnp.asarray(_REACH), (heads,)))), max_dim),
            linear(k[4], width, hidden),
            jnp.zeros(hidden),
            linear(k[5], hidden, width) * small,
            heads,
        )

    def narrowed(self, columns: int, whole: int) -> AttentionLayer:
        """This layer for inputs of the first of its `whole` columns only."""

        def of_columns(a: Array) -> Array:
            by_head = a.reshape(*a.shape[:-1], self.heads, whole)
            return by_head[..., :columns].reshape(*a.shape[:-1], self.heads * columns)

        reach, bias = of_columns(self.reach), of_columns(self.reach_bias)
        return eqx.tree_at(lambda a: (a.reach, a.reach_bias), self, (reach, bias))

    def keys_values(self, context: Float[Array, "n w"]) -> tuple[Array, Array]:
        """What queries attend to: keys and values (n, heads, w / heads)."""
        h = normalise(context, self.norm_attention)
        return self._split(product(h, self.key)), self._split(product(h, self.value))

    def apply(
        self,
        tokens: Float[Array, "t w"],
        x: Float[Array, "t d"],
        pair: tuple[Array, Array],
        context: Float[Array, "n d"],
        mask: Bool[Array, " n+1"],
        used: Float[Array, " d"],
    ) -> Float[Array, "t w"]:
        """Tokens at inputs `x` after this layer: keys and values are `pair`, of the null token and of
        rows at inputs `context`, those that `mask` marks."""
        keys, values = pair
        h = normalise(tokens, self.norm_attention)
        q = self._split(product(h, self.query)) * keys.shape[-1] ** -0.5
        weights = jax.nn.softplus(h @ self.reach + self.reach_bias)
        weights = weights.reshape(len(h), self.heads, len(used)) * used
        # |x - c|^2 is x^2 - 2xc + c^2. What no row of the context changes in it is taken from the null
        # token's score instead: a softmax knows no constants. All of it is one product of matrices.
        own = jnp.sum(weights * x[:, None] ** 2, axis=-1, keepdims=True)
        asked = jnp.concatenate([q, 2 * weights * x[:, None], -weights, own], axis=-1)
        rows = jnp.pad(jnp.concatenate([context, context**2], axis=1), ((1, 0), (0, 1)))
        rows = rows.at[0, -1].set(1.0)[:, None]
        told = jnp.broadcast_to(rows, (len(rows), self.heads, rows.shape[-1]))
        scores = jnp.einsum("the,nhe->htn", asked, jnp.concatenate([keys, told], axis=-1))
        attention = jax.nn.softmax(jnp.where(mask, scores, -1e30), axis=-1)
        mixed = jnp.einsum("htn,nhe->the", alike(attention, self.value), values)
        tokens = tokens + product(mixed.reshape(tokens.shape), self.out)
        h = normalise(tokens, self.norm_mlp)
        h = jax.nn.gelu(product(h, self.mlp_in) + self.mlp_bias)
        return tokens + product(h, self.mlp_out)

    def _split(self, a: Array) -> Array:
        return a.reshape(len(a), self.heads, a.shape[1] // self.heads)


def normalise(x: Float[Array, "n w"], gain: Float[Array, " w"]) -> Float[Array, "n w"]:
    """Tokens of root mean square 1, times a gain."""
    return gain * x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)


def linear(key: Key, rows: int, columns: int) -> Any:
    """Random weights that keep the variance."""
    return jax.random.normal(key, (rows, columns)) * rows**-0.5
