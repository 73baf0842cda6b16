"""A transformer that reads a table and proposes hyper-parameters of the process behind it."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from bayesnet._types import Array, Bool, Float, Key
from bayesnet.pfn.attention import AttentionLayer, linear, normalise
from bayesnet.pfn.transformer import PER_COLUMN, embed_inputs, with_null

# Gaussians of the mixture that is proposed, and the range of the logs of their sds.
COMPONENTS = 4
_LOG_STD = (-4.0, 1.0)


class ProposedLaw(eqx.Module):
    """A law of the slots of a `ProcessFamily`: a mixture of independent Gaussians, with the kind of
    process by component, and which columns have an effect.

    `log_weight` (c,), `log_part` (c, p), `mean` and `log_std` (c, k), `relevance` (d,) (log odds).
    """

    log_weight: Float[Array, "*b c"]
    log_part: Float[Array, "*b c p"]
    mean: Float[Array, "*b c k"]
    log_std: Float[Array, "*b c k"]
    relevance: Float[Array, "*b d"]

    def log_prob(
        self, z: Float[Array, " k"], part: Array, slots: Bool[Array, " k"]
    ) -> Float[Array, ""]:
        """Log density of latents in the slots that count, and of the kind of process, together."""
        each = -0.5 * ((z - self.mean) / jnp.exp(self.log_std)) ** 2 - self.log_std - _HALF_LOG_2PI
        gaussian = jnp.sum(jnp.where(slots, each, 0.0), axis=-1)
        return jax.nn.logsumexp(self.log_weight + self.log_part[:, part] + gaussian)

    def log_prob_relevant(self, relevant: Bool[Array, " d"], used: Float[Array, " d"]) -> Array:
        """Log probability that just these of the columns have an effect."""
        signed = jnp.where(relevant, self.relevance, -self.relevance)
        return jnp.sum(used * jax.nn.log_sigmoid(signed))


_HALF_LOG_2PI = 0.9189385332046727


class ProposalNetwork(eqx.Module):
    """Rows attend to each other, a null token gathers what they say, a perceptron states the law."""

    embed_x: Float[Array, "c w"]
    embed_used: Float[Array, "d w"]
    embed_y: Float[Array, " w"]
    context_token: Float[Array, " w"]
    null_token: Float[Array, " w"]
    layers: tuple[AttentionLayer, ...]
    norm: Float[Array, " w"]
    head_in: Float[Array, "w h"]
    head_bias: Float[Array, " h"]
    head_out: Float[Array, "h o"]
    start: Float[Array, " o"]
    slots: int = eqx.field(static=True)
    parts: int = eqx.field(static=True)

    @staticmethod
    def create(
        key: Key,
        *,
        slots: int,
        parts: int,
        max_dim: int,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
    ) -> ProposalNetwork:
        """Random weights."""
        k = jax.random.split(key, 8)
        out = COMPONENTS * (1 + parts + 2 * slots) + max_dim
        spread = jnp.linspace(-1.0, 1.0, COMPONENTS)[:, None] * jnp.ones(slots)
        start = [jnp.zeros(COMPONENTS * (1 + parts)), spread.reshape(-1)]
        start += [jnp.full(COMPONENTS * slots, -0.3), jnp.ones(max_dim)]
        return ProposalNetwork(
            linear(k[0], max_dim * PER_COLUMN, width),
            0.1 * jax.random.normal(k[1], (max_dim, width)),
            jax.random.normal(k[2], (width,)),
            0.1 * jax.random.normal(k[3], (width,)),
            jax.random.normal(k[4], (width,)),
            tuple(
                AttentionLayer.create(q, width, hidden, heads, depth, max_dim)
                for q in jax.random.split(k[5], depth)
            ),
            jnp.ones(width),
            linear(k[6], width, 2 * width),
            jnp.zeros(2 * width),
            0.1 * linear(k[7], 2 * width, out),
            jnp.concatenate(start),
            slots,
            parts,
        )

    @property
    def max_dim(self) -> int:
        """The largest number of columns."""
        return self.embed_used.shape[0]

    @property
    def width(self) -> int:
        """The size of a token."""
        return len(self.embed_y)

    def narrowed(self, columns: int) -> ProposalNetwork:
        """This network for tables that are padded to fewer columns: the same answers, less to do."""
        whole = self.max_dim
        if columns == whole:
            return self
        layers = tuple(layer.narrowed(columns, whole) for layer in self.layers)
        return eqx.tree_at(
            lambda n: (n.embed_x, n.embed_used, n.layers),
            self,
            (
                # `embed_inputs` scales by the columns that there might be.
                self.embed_x[: columns * PER_COLUMN] * (whole / columns) ** 0.5,
                self.embed_used[:columns],
                layers,
            ),
        )

    def __call__(
        self,
        x: Float[Array, "n d"],
        y: Float[Array, " n"],
        mask: Bool[Array, " n"],
        used: Float[Array, " d"],
    ) -> ProposedLaw:
        """The law that a table proposes; arguments as of `Transformer.encode`."""
        return self.read(x, y, mask, used)[0]

    def read(
        self,
        x: Float[Array, "n d"],
        y: Float[Array, " n"],
        mask: Bool[Array, " n"],
        used: Float[Array, " d"],
    ) -> tuple[ProposedLaw, Float[Array, " w"]]:
        """The law that a table proposes, and the token that it is stated from."""
        x = x * used
        rows = embed_inputs(x, used, self.embed_x, self.embed_used)
        rows = rows + y[:, None] * self.embed_y + self.context_token
        tokens = jnp.concatenate([(self.null_token + used @ self.embed_used)[None], rows])
        seen = with_null(mask)
        places = jnp.concatenate([jnp.zeros((1, x.shape[1]), x.dtype), x])
        for i, layer in enumerate(self.layers):
            pair = layer.keys_values(tokens)
            if i + 1 == len(self.layers):  # only the null token is read
                tokens, places = tokens[:1], places[:1]
            tokens = layer.apply(tokens, places, pair, x, seen, used)
        h = normalise(tokens, self.norm)[0]
        numbers = jax.nn.gelu(h @ self.head_in + self.head_bias) @ self.head_out + self.start
        return self._law(numbers), h

    def _law(self, numbers: Float[Array, " o"]) -> ProposedLaw:
        c, p, k = COMPONENTS, self.parts, self.slots
        ends = [c, c * (1 + p), c * (1 + p + k), c * (1 + p + 2 * k)]
        weight, part, mean, log_std, relevance = jnp.split(numbers, ends)
        return ProposedLaw(
            jax.nn.log_softmax(weight),
            jax.nn.log_softmax(part.reshape(c, p), axis=-1),
            mean.reshape(c, k),
            jnp.clip(log_std.reshape(c, k), *_LOG_STD),
            relevance,
        )


class Examples(eqx.Module):
    """Tables with the hyper-parameters that made them: what a proposal is trained on.

    `z` (b, k) and `slots` (b, k): latents and which count; `part`: the kind; `relevant` (b, d).
    """

    x: Float[Array, "b n d"]
    y: Float[Array, "b n"]
    mask: Bool[Array, "b n"]
    used: Float[Array, " d"]
    z: Float[Array, "b k"]
    slots: Bool[Array, "b k"]
    part: Any
    relevant: Bool[Array, "b d"]


def losses(network: ProposalNetwork, examples: Examples) -> tuple[Array, Array]:
    """Minus the log density that is proposed for the true latents (b,), and for the columns (b,)."""

    def one(x: Array, y: Array, mask: Array, z: Array, slots: Array, relevant: Array) -> Any:
        law = network(x, y, mask, examples.used)
        return (
            -law.log_prob(z, examples.part, slots),
            -law.log_prob_relevant(relevant, examples.used),
        )

    e = examples
    return jax.vmap(one)(e.x, e.y, e.mask, e.z, e.slots, e.relevant)
