"""Tables of class labels drawn from a prior: what a classifier is trained on.

Functions of the prior become labels in two ways. Binned (Mueller et al. 2022, section 5): the values
of one function with noise fall between random thresholds, and the bins belong to classes in a random
order, a class having one bin or several. By logits: K functions are the log odds of K classes.
Either way the probability of every class at a query is known in closed form, given what the prior
knows of the table, and is the target in the place of a sampled label: the same expected gradient,
less variance (Rao-Blackwell).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import UnsupportedError
from bayesnet._types import Array, ArrayLike, Bool, Float, Int, Key
from bayesnet.likelihoods import GaussianLikelihood
from bayesnet.likelihoods.levels import DEFAULT_NOISE
from bayesnet.pfn.class_labels import Labels, draw_bins, flip, num_classes
from bayesnet.pfn.inputs import InputLaw
from bayesnet.pfn.tasks import Mixture, Tasks, gaussian_task, has_exact_law
from bayesnet.priors import LatentPrior
from bayesnet.priors.laws import draw_law

# Inputs are standardised by the rows of the table, and end here.
FAR = 8.0
# Nodes of the quadrature over a function that is known up to a Gaussian.
_NODES, _MASSES = np.polynomial.hermite_e.hermegauss(9)
_MASSES = _MASSES / _MASSES.sum()


class ClassBatch(eqx.Module):
    """`b` tables with labels, contexts padded to n rows, inputs to d columns, classes to K.

    `codes` (b, n): the class of each row. `classes` (b, K): which classes a table can have.
    `target` (b, q, K): the probability of each class at the queries; `entropy` (b, q): the expected
    entropy of the label given the function, in nats: what no further row would reduce.
    """

    x: Float[Array, "b n d"]
    codes: Int[Array, "b n"]
    mask: Bool[Array, "b n"]
    queries: Float[Array, "b q d"]
    used: Float[Array, " d"]
    classes: Bool[Array, "b K"]
    target: Float[Array, "b q K"]
    entropy: Float[Array, "b q"]

    def rows(self, n: int) -> ClassBatch:
        """The same tasks with contexts cut to their first `n` rows, which must hold them all."""
        return eqx.tree_at(
            lambda t: (t.x, t.codes, t.mask),
            self,
            (self.x[:, :n], self.codes[:, :n], self.mask[:, :n]),
        )


@dataclass(frozen=True)
class ClassTasks:
    """Where tables with labels come from.

    Args:
        prior, likelihood, inputs, dims, max_rows, queries: as of `Tasks`; the noise is that of the
            function before it is binned, relative to the sd of a network's function.
        labels: how functions become labels.

    Raises:
        InputError: sizes that are not positive, a prior that cannot draw functions.
        UnsupportedError: a prior that is neither a process with a known law nor of latents.
    """

    prior: Any
    likelihood: Any
    inputs: InputLaw
    dims: tuple[int, ...]
    max_rows: int
    queries: int = 32
    labels: Labels = field(default_factory=Labels)

    def __post_init__(self) -> None:
        for d in self.dims:
            for part in self.functions.parts(d):
                if not (has_exact_law(part) or isinstance(part, LatentPrior)):
                    raise UnsupportedError(
                        "A classifier is trained on bn.GaussianProcess or on network priors, got "
                        f"{type(part).__name__}."
                    )

    @property
    def functions(self) -> Tasks:
        """Where the functions come from; raises what `Tasks` raises."""
        prior = self.prior if isinstance(self.prior, Mixture) else Mixture((self.prior,))
        likelihood = GaussianLikelihood() if self.likelihood is None else self.likelihood
        return Tasks(prior, likelihood, self.inputs, self.dims, self.max_rows, self.queries)

    @property
    def weights(self) -> np.ndarray:
        """How often each part of the prior is chosen."""
        return self.functions.weights

    def draw(self, key: Key, size: int, counts: ArrayLike, d: int, part: int = 0) -> ClassBatch:
        """`size` tables of width `d` with `counts` (b,) context rows each; their x has d columns.

        Several programs, each waited for: LAPACK beside a training step can dead-lock XLA on CPU.
        """
        k_inputs, k_noise, k_function, k_labels = jax.random.split(key, 4)
        n = self.max_rows
        x, seen = self.inputs.draw(k_inputs, size, n + self.queries, self.queries, d)
        law = getattr(self.likelihood, "noise_std", None)
        noise = draw_law(DEFAULT_NOISE if law is None else law, k_noise, size).astype(jnp.float32)
        mask = jnp.arange(n) < jnp.asarray(counts)[:, None]
        prior = self.functions.parts(d)[part]
        if has_exact_law(prior):
            # All n rows are drawn and tell the law at the queries; the network sees some of them.
            every = jnp.ones_like(mask)
            y, mean, std, _ = jax.block_until_ready(
                gaussian_task(prior.covariance, prior.mean, k_function, seen, noise, every)
            )
            found = _binned_process(self.labels, k_labels, y, mean, std, noise)
        else:
            f = _functions(self.labels.max_classes, prior, k_function, seen)
            found = _of_functions(self.labels, n, k_labels, f, noise)
        codes, classes, target, entropy = found
        x, queries = _standardised(x[:, :n], x[:, n:], mask)
        batch = ClassBatch(
            x, jnp.where(mask, codes, 0), mask, queries, jnp.ones(d), classes, target, entropy
        )
        return jax.block_until_ready(batch)


@jax.jit
def _standardised(x: Array, queries: Array, mask: Array) -> tuple[Array, Array]:
    """Inputs as those of a user's table: each column at mean 0 and sd 1 over the rows of the table."""
    real = mask[..., None].astype(x.dtype)
    count = jnp.maximum(real.sum(axis=1, keepdims=True), 1.0)
    loc = (x * real).sum(axis=1, keepdims=True) / count
    scale = jnp.sqrt((real * (x - loc) ** 2).sum(axis=1, keepdims=True) / count)
    scale = jnp.where(scale <= 1e-6 * (1.0 + jnp.abs(loc)), 1.0, scale)
    x, queries = ((a - loc) / scale for a in (x, queries))
    return jnp.clip(x, -FAR, FAR) * real, jnp.clip(queries, -FAR, FAR)


def projected(batch: ClassBatch, columns: int) -> ClassBatch:
    """Tables of many columns as `ClassPFN.fit(wider="project")` shows them to the network: the first
    principal components of the rows of each, their signs at random, standardised again."""
    x, queries = (np.asarray(a, np.float64) for a in (batch.x, batch.queries))
    _, vectors = np.linalg.eigh(np.swapaxes(x, 1, 2) @ x)  # rows of padding are 0
    first = vectors[:, :, ::-1][:, :, :columns]
    # What LAPACK makes of signs is no law.
    signs = np.random.default_rng(len(x)).choice([-1.0, 1.0], size=(len(x), 1, columns))
    turned = (jnp.asarray(a @ (first * signs), jnp.float32) for a in (x, queries))
    new = (*_standardised(*turned, batch.mask), jnp.ones(columns))
    return eqx.tree_at(lambda t: (t.x, t.queries, t.used), batch, new)


def entropy_of(p: Float[Array, "*b K"]) -> Float[Array, "*b"]:
    """Entropy in nats."""
    return -jnp.sum(p * jnp.log(jnp.maximum(p, 1e-30)), axis=-1)


@partial(jax.jit, static_argnums=0)
def _binned_process(
    labels: Labels, key: Key, y: Array, mean: Array, std: Array, noise: Array
) -> Any:
    """Labels (b, n) by bins of y, and the laws at queries where f is N(mean, std^2)."""
    k_count, k_bins, k_flip = jax.random.split(key, 3)
    count = num_classes(labels, k_count, len(y))
    bins = draw_bins(labels, k_bins, y, count)
    total = jnp.sqrt(std**2 + noise[:, None] ** 2)
    codes, classes, target, share, uniform = flip(
        labels, k_flip, bins.codes(y), bins.probabilities(mean, total), count
    )
    entropy = jnp.zeros_like(mean)
    for node, mass in zip(_NODES, _MASSES, strict=True):
        p = bins.probabilities(mean + node * std, jnp.broadcast_to(noise[:, None], mean.shape))
        p = (1 - share)[:, None, None] * p + share[:, None, None] * uniform[:, None]
        entropy = entropy + mass * entropy_of(p)
    return codes, classes, target, entropy


@eqx.filter_jit
def _functions(num: int, prior: Any, key: Key, x: Array) -> Float[Array, "b k n"]:
    """`num` functions for each table, of mean 0 and sd 1 over its rows."""
    z = jax.random.normal(key, (len(x), num, prior.latent_size))
    f = jax.vmap(lambda z, x: jax.vmap(lambda a: prior.apply(a, x)[:, 0])(z))(z, x)
    f = jnp.where(jnp.isfinite(f), f, 0.0)
    centred = f - f.mean(axis=-1, keepdims=True)
    return centred / jnp.maximum(f.std(axis=-1, keepdims=True), 1e-4)


@partial(jax.jit, static_argnums=(0, 1))
def _of_functions(labels: Labels, n: int, key: Key, f: Array, noise: Array) -> Any:
    """As `_binned_process` for known functions (b, K, rows); the first `n` rows are the context's."""
    k_count, k_bins, k_flip, k_noise, k_way, k_class, k_shift = jax.random.split(key, 7)
    b, most = f.shape[:2]
    count = num_classes(labels, k_count, b)
    # One function in bins.
    y = f[:, 0, :n] + noise[:, None] * jax.random.normal(k_noise, (b, n))
    bins = draw_bins(labels, k_bins, y, count)
    at_queries = f[:, 0, n:]
    binned = bins.probabilities(at_queries, jnp.broadcast_to(noise[:, None], at_queries.shape))
    # K functions: log odds, as steep as the noise is small, around random mean shares.
    classes = jnp.arange(most) < count[:, None]
    shares = jax.random.gamma(k_shift, labels.balance, (b, most)) * classes
    level = jnp.log(jnp.maximum(shares / shares.sum(axis=1, keepdims=True), 1e-3))
    steep = 1.7 / jnp.maximum(noise, 0.02)
    odds = steep[:, None, None] * (f + 0.7 * level[..., None])
    odds = jnp.where(classes[..., None], odds, -jnp.inf)
    drawn = jax.random.categorical(k_class, odds[..., :n], axis=1)
    by_logits = jnp.swapaxes(jax.nn.softmax(odds[..., n:], axis=1), 1, 2)
    # One way a table.
    many = jax.random.uniform(k_way, (b,)) < labels.logits
    codes = jnp.where(many[:, None], drawn, bins.codes(y))
    target = jnp.where(many[:, None, None], by_logits, binned)
    codes, classes, target, *_ = flip(labels, k_flip, codes, target, count)
    return codes, classes, target, entropy_of(target)
