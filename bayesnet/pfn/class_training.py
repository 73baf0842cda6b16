"""Training a classifier: cross-entropy against the class probabilities of the prior."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._types import Array, Float
from bayesnet.pfn.class_network import ClassTransformer
from bayesnet.pfn.class_tasks import ClassBatch, ClassTasks, entropy_of, projected
from bayesnet.pfn.descent import descend
from bayesnet.pfn.settings import Training
from bayesnet.pfn.sharding import shared_out
from bayesnet.pfn.tasks import described
from bayesnet.pfn.transformer import pad_columns

# How much the head of the expected entropy counts beside that of the classes.
_WEIGHT_ENTROPY = 0.1


class ClassState(eqx.Module):
    """What a checkpoint of a classifier holds."""

    network: ClassTransformer
    optimiser: Any


def padded(batch: ClassBatch, max_dim: int) -> ClassBatch:
    """The tasks with columns of zeros up to `max_dim`, or projected on as many: one shape for all."""
    if batch.x.shape[2] > max_dim:
        return projected(batch, max_dim)
    x, used = pad_columns(np.asarray(batch.x), max_dim)
    queries, _ = pad_columns(np.asarray(batch.queries), max_dim)
    return dataclasses.replace(
        batch, x=jnp.asarray(x), queries=jnp.asarray(queries), used=jnp.asarray(used)
    )


def excess(
    network: ClassTransformer, batch: ClassBatch
) -> tuple[Float[Array, "b q"], Float[Array, "b q"]]:
    """KL from the prior's class probabilities to the network's, and the loss of the entropy head.

    The latter is the cross-entropy of a share in [0, 1], least where the head tells its mean.
    """

    def one(x: Array, codes: Array, mask: Array, queries: Array, classes: Array) -> Any:
        return network(x, codes, mask, queries, batch.used, classes)

    b = batch
    logits, share = jax.vmap(one)(b.x, b.codes, b.mask, b.queries, b.classes)
    log_p = jax.nn.log_softmax(logits)
    kl = -jnp.sum(jnp.where(b.classes[:, None], b.target * log_p, 0.0), axis=-1)
    truth = b.entropy / jnp.log(b.classes.sum(axis=1))[:, None]
    bernoulli = -truth * jax.nn.log_sigmoid(share) - (1 - truth) * jax.nn.log_sigmoid(-share)
    return kl - entropy_of(b.target), bernoulli


def draw_batch(tasks: ClassTasks, training: Training, step: int) -> ClassBatch:
    """The tasks of one step: always the same for the same seed and step."""
    rng = np.random.default_rng([training.seed, 4, step])
    d, part, counts, rows = training.draw_sizes(rng, tasks.weights)
    key = jax.random.fold_in(jax.random.key(training.seed + 177), step)
    batch = tasks.draw(key, training.batch, counts, d, part)
    return padded(batch.rows(rows), training.max_dim)


@dataclass(frozen=True, eq=False)
class ClassObjective:
    """A `ClassTransformer` whose probabilities follow those of the prior; a state is a
    `ClassState`."""

    tasks: ClassTasks
    training: Training
    losses = ("recent_classes", "recent_entropy")

    def identity(self) -> str:
        """What a checkpoint must agree with."""
        knobs, t = self.training.identity(), self.tasks
        told = [described(a) for a in (t.prior, t.likelihood, t.inputs, t.labels)]
        return json.dumps(["classes", knobs, *told], sort_keys=True)

    def start(self) -> ClassState:
        """Random weights."""
        t = self.training
        network = ClassTransformer.create(
            jax.random.key(t.seed),
            max_dim=t.max_dim,
            max_classes=self.tasks.labels.max_classes,
            width=t.width,
            depth=t.depth,
            heads=t.heads,
            hidden=t.hidden,
        )
        return ClassState(network, t.optimiser().init(eqx.filter(network, eqx.is_array)))

    def step(self, state: ClassState, number: int) -> tuple[ClassState, np.ndarray]:
        """One step of Adam on a batch of tasks."""
        batch = draw_batch(self.tasks, self.training, number)
        batch = shared_out(batch, self.training.batch, self.training.devices)
        network, optimiser, parts = _update(self.training, state.network, state.optimiser, batch)
        return ClassState(network, optimiser), np.asarray(parts)  # waits: one program at a time

    @cached_property
    def _held_out(self) -> dict[int, ClassBatch]:
        """Tasks that no step draws, of every width, with contexts of all sizes."""
        batches = {}
        for i, d in enumerate(self.training.dims):
            # As many as of a step: the programs that draw them are compiled already.
            counts = np.linspace(0, self.training.buckets[-1], self.training.batch).astype(int)
            key = jax.random.fold_in(jax.random.key(self.training.seed + 3_000_003), i)
            part = i % len(self.tasks.weights)
            batch = self.tasks.draw(key, len(counts), counts, d, part)
            batches[d] = padded(batch, self.training.max_dim)
        return batches

    def evaluate(self, state: ClassState) -> dict[str, Any]:
        """The excess over the prior's own probabilities of the true function, by columns."""
        found = {d: _evaluate(state.network, b)[0] for d, b in self._held_out.items()}
        return {"excess": {str(d): round(float(e.mean()), 4) for d, e in found.items()}}


@eqx.filter_jit(donate="all-except-first")
def _update(
    training: Training, network: ClassTransformer, optimiser: Any, batch: ClassBatch
) -> tuple[ClassTransformer, Any, Array]:
    def loss(network: ClassTransformer) -> tuple[Array, Array]:
        classes, entropy = excess(network, batch)
        both = jnp.stack([classes.mean(), entropy.mean()])
        return both[0] + _WEIGHT_ENTROPY * both[1], both

    return descend(training, loss, network, optimiser)


@eqx.filter_jit
def _evaluate(network: ClassTransformer, batch: ClassBatch) -> tuple[Array, Array]:
    classes, entropy = excess(network, batch)
    return classes.mean(axis=1), entropy.mean(axis=1)
