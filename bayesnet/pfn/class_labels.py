"""How functions become labels: classes of bins between random thresholds, labels replaced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr

from bayesnet._errors import InputError
from bayesnet._types import Array, Float, Int, Key


@dataclass(frozen=True)
class Labels:
    """How functions become labels.

    Args:
        max_classes: K, the most classes of a table.
        class_weights: how often a table has 2, 3, ..., K classes; if None as 1, 1/2, ... 1/(K-1).
        balance: concentration of the Dirichlet law of the shares of bins, or of the mean
            probabilities of classes: 1 is uniform over all shares, more is more balanced.
        logits: the probability that labels come from K functions (network priors only).
        several: the probability that there are more bins than classes.
        flipped: the highest share of labels that are replaced by a random one; half of the tables
            have none.

    Raises `InputError` for numbers out of range.
    """

    max_classes: int = 5
    class_weights: tuple[float, ...] | None = None
    balance: float = 2.5
    logits: float = 0.5
    several: float = 0.3
    flipped: float = 0.1

    def __post_init__(self) -> None:
        k = self.max_classes
        if k < 2:
            raise InputError(f"max_classes must be at least 2, got {k}.")
        weights = self.class_weights or tuple(1.0 / i for i in range(1, k))
        object.__setattr__(self, "class_weights", tuple(float(w) for w in weights))
        if len(weights) != k - 1 or min(weights) < 0 or sum(weights) <= 0:
            raise InputError(f"class_weights are {k - 1} numbers, 0 or more, for 2 to {k} classes.")
        if not self.balance > 0:
            raise InputError(f"balance must be positive, got {self.balance}.")
        for name in ("logits", "several", "flipped"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is a probability, got {getattr(self, name)}.")


class Bins(eqx.Module):
    """For each of b tables: thresholds between 2K bins, and the class of each bin, one-hot.

    `edges` (b, 2K - 1), infinite where there are fewer bins; `owner` (b, 2K, K).
    """

    edges: Float[Array, "b e"]
    owner: Float[Array, "b B K"]

    def probabilities(self, mean: Array, std: Array) -> Float[Array, "b q K"]:
        """Probabilities of the classes at values N(mean, std^2), (b, q) each."""
        z = (self.edges[:, None] - mean[..., None]) / jnp.maximum(std, 1e-6)[..., None]
        below = ndtr(z)
        ends = jnp.zeros_like(below[..., :1])
        mass = jnp.diff(jnp.concatenate([ends, below, ends + 1], axis=-1), axis=-1)
        return jnp.einsum("bqe,bek->bqk", mass, self.owner)

    def codes(self, values: Array) -> Int[Array, "b n"]:
        """The class of each value (b, n)."""
        place = (values[..., None] > self.edges[:, None]).sum(axis=-1)
        return jnp.take_along_axis(jnp.argmax(self.owner, axis=-1), place, axis=1)


def num_classes(labels: Labels, key: Key, size: int) -> Array:
    """The numbers of classes of `size` tables, (size,)."""
    weights = jnp.asarray(labels.class_weights)
    return 2 + jax.random.choice(key, len(weights), (size,), p=weights / weights.sum())


def draw_bins(labels: Labels, key: Key, values: Float[Array, "b n"], count: Array) -> Bins:
    """Thresholds at random quantiles of values, and classes 0 to count - 1 of the bins."""
    k_more, k_extra, k_share, k_order, k_rest, k_shuffle = jax.random.split(key, 6)
    b, most = len(values), labels.max_classes
    more = jax.random.uniform(k_more, (b,)) < labels.several
    extra = jax.random.randint(k_extra, (b,), 1, most + 1)
    bins = jnp.minimum(count + jnp.where(more, extra, 0), 2 * count)
    real = jnp.arange(2 * most) < bins[:, None]
    share = jax.random.gamma(k_share, labels.balance, (b, 2 * most)) * real
    levels = jnp.cumsum(share / share.sum(axis=1, keepdims=True), axis=1)[:, :-1]
    edges = jax.vmap(lambda v, q: jnp.quantile(v, jnp.minimum(q, 1.0)))(values, levels)
    edges = jnp.where(jnp.arange(2 * most - 1) < bins[:, None] - 1, edges, jnp.inf)
    # The first bins have each class once, in random order; the rest any class.
    order = jax.random.uniform(k_order, (b, most)) + (jnp.arange(most) >= count[:, None])
    first = jnp.argsort(order, axis=1)
    rest = jnp.floor(jax.random.uniform(k_rest, (b, most)) * count[:, None]).astype(int)
    place = jnp.arange(2 * most)
    class_of = jnp.where(
        place < count[:, None],
        first[:, jnp.minimum(place, most - 1)],
        rest[:, jnp.maximum(place - most, 0)],
    )
    # Which bins come first along the function is random too.
    shuffle = jnp.argsort(jax.random.uniform(k_shuffle, real.shape) + ~real, axis=1)
    class_of = jnp.take_along_axis(class_of, shuffle, axis=1)
    return Bins(edges, jax.nn.one_hot(class_of, most))


def flip(labels: Labels, key: Key, codes: Array, target: Array, count: Array) -> Any:
    """Replace some labels by a random class, and say so in the targets."""
    k_any, k_share, k_row, k_class = jax.random.split(key, 4)
    b, n = codes.shape
    some = jax.random.uniform(k_any, (b,)) < 0.5
    share = jnp.where(some, jax.random.uniform(k_share, (b,)) * labels.flipped, 0.0)
    classes = jnp.arange(labels.max_classes) < count[:, None]
    other = jnp.floor(jax.random.uniform(k_class, (b, n)) * count[:, None]).astype(int)
    codes = jnp.where(jax.random.uniform(k_row, (b, n)) < share[:, None], other, codes)
    uniform = classes / count[:, None]
    target = (1 - share)[:, None, None] * target + share[:, None, None] * uniform[:, None]
    return codes, classes, target, share, uniform
