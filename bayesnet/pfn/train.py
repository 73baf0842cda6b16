"""Training the bars of a PFN: Adam on tasks from a prior."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._types import Array, Float
from bayesnet.pfn.bars import Bars
from bayesnet.pfn.batch import Batch
from bayesnet.pfn.checkpoint import signature
from bayesnet.pfn.descent import descend
from bayesnet.pfn.joint_tasks import JointTasks
from bayesnet.pfn.loop import Progress, run_loop
from bayesnet.pfn.settings import State, Training
from bayesnet.pfn.sharding import shared_out
from bayesnet.pfn.tasks import Tasks
from bayesnet.pfn.transformer import Transformer, pad_columns

# Tasks of one evaluation, for each number of columns.
_EVALUATED = 64
# How much the head of the function counts beside that of y, here and in `quadrature_training`.
WEIGHT_F = 0.5


def new_state(tasks: Tasks | JointTasks, training: Training) -> State:
    """Random weights, and bars placed by targets of the prior."""
    key = jax.random.fold_in(jax.random.key(training.seed), 0)
    network = training.network(key)
    bars = Bars.from_values(targets_of_prior(tasks, training), training.bars)
    return State(network, training.optimiser().init(eqx.filter(network, eqx.is_array)), bars)


def targets_of_prior(tasks: Tasks | JointTasks, training: Training) -> np.ndarray:
    """Values of y at queries of tasks with empty contexts, from all parts of the prior."""
    need = 100 * training.bars
    rng = np.random.default_rng([training.seed, 1])
    values: list[np.ndarray] = []
    while sum(map(len, values)) < need:
        for d in training.dims:
            for part in range(len(tasks.weights)):
                key = jax.random.key(int(rng.integers(2**31)))
                batch = tasks.draw(key, training.batch, np.zeros(training.batch), d, part)
                z = rng.standard_normal(batch.f_mean.shape)
                values.append(np.ravel(batch.y_mean + z * batch.y_std))
    return np.concatenate(values)


def draw_batch(tasks: Tasks | JointTasks, training: Training, step: int, least: int = 0) -> Batch:
    """The tasks of one step, of `least` rows or more: always the same for the same seed and step."""
    rng = np.random.default_rng([training.seed, 2, step])
    d, part, counts, rows = training.draw_sizes(rng, tasks.weights, least)
    key = jax.random.fold_in(jax.random.key(training.seed), step + 1)
    batch = tasks.draw(key, training.batch, counts, d, part)
    return padded(batch.rows(rows), training.max_dim)


def padded(batch: Batch, max_dim: int) -> Batch:
    """The tasks with columns of zeros up to `max_dim`, without hyper-parameters: one shape for all."""
    x, used = pad_columns(np.asarray(batch.x), max_dim)
    queries, _ = pad_columns(np.asarray(batch.queries), max_dim)
    relevant, _ = pad_columns(np.asarray(batch.relevant), max_dim)
    return dataclasses.replace(
        batch,
        x=jnp.asarray(x),
        queries=jnp.asarray(queries),
        used=jnp.asarray(used),
        relevant=jnp.asarray(relevant),
        hyper=None,
    )


def excess(
    network: Transformer, bars: Bars, batch: Batch
) -> tuple[Float[Array, "b q"], Float[Array, "b q"]]:
    """KL from the bar probabilities of the tasks to the network's, in nats, for y and for f."""

    def one(x: Array, y: Array, mask: Array, queries: Array) -> tuple[Array, Array]:
        return network(x, y, mask, queries, batch.used, bars)

    return divergences(bars, batch, *jax.vmap(one)(batch.x, batch.y, batch.mask, batch.queries))


def divergences(
    bars: Bars, batch: Batch, logits_y: Float[Array, "b q k"], logits_f: Float[Array, "b q k"]
) -> tuple[Float[Array, "b q"], Float[Array, "b q"]]:
    """KL in nats from the bar probabilities of y and of f to those that logits stand for."""
    # A function known exactly is in one bar, whose edges no float32 sd of 1e-4 can cross.
    target_f = bars.probabilities(batch.f_mean, jnp.maximum(batch.f_std, 1e-4))
    target_y = bars.probabilities(batch.y_mean, jnp.maximum(batch.y_std, 1e-4))
    return _divergence(target_y, logits_y), _divergence(target_f, logits_f)


def _divergence(target: Array, logits: Array) -> Array:
    log_target = jnp.log(jnp.maximum(target, 1e-30))
    return jnp.sum(target * (log_target - jax.nn.log_softmax(logits)), axis=-1)


@eqx.filter_jit(donate="all-except-first")
def _update(
    training: Training, network: Transformer, optimiser: Any, bars: Bars, batch: Batch
) -> tuple[Transformer, Any, Bars, Array]:
    def loss(network: Transformer) -> tuple[Array, Array]:
        y, f = excess(network, bars, batch)
        both = jnp.stack([y.mean(), f.mean()])
        return both[0] + WEIGHT_F * both[1], both

    network, optimiser, parts = descend(training, loss, network, optimiser)
    return network, optimiser, bars, parts


@eqx.filter_jit
def _evaluate(network: Transformer, bars: Bars, batch: Batch) -> tuple[Array, Array]:
    y, f = excess(network, bars, batch)
    return y.mean(axis=1), f.mean(axis=1)


@dataclass(frozen=True, eq=False)
class BarsObjective:
    """A transformer whose bars follow the prior's own law of y and of f; a state is a `State`."""

    tasks: Tasks | JointTasks
    training: Training
    losses = ("recent_y", "recent_f")

    def identity(self) -> str:
        """What a checkpoint must agree with."""
        return signature(self.tasks, self.training)

    def start(self) -> State:
        """Random weights, and bars placed by targets of the prior."""
        return new_state(self.tasks, self.training)

    def step(self, state: State, number: int) -> tuple[State, np.ndarray]:
        """One step of Adam on a batch of tasks."""
        batch = draw_batch(self.tasks, self.training, number)
        batch = shared_out(batch, self.training.batch, self.training.devices)
        network, optimiser, bars, parts = _update(
            self.training, state.network, state.optimiser, state.bars, batch
        )
        return State(network, optimiser, bars), np.asarray(parts)  # waits: one program at a time

    @cached_property
    def _batches(self) -> dict[int, Batch]:
        return held_out(self.tasks, self.training)

    def evaluate(self, state: State) -> dict[str, Any]:
        """The excess over the prior's own law of y given its hyper-parameters, by columns; the
        cross-entropy of bars where there is no law but a drawn y."""
        name = "cross_entropy" if isinstance(self.tasks, JointTasks) else "excess"
        return {name: evaluate(state.network, state.bars, self._batches)}


def run(
    tasks: Tasks | JointTasks,
    training: Training,
    *,
    folder: str | Path | None = None,
    progress: Progress | None = None,
    log_every: int = 500,
    stop_at: int | None = None,
) -> State:
    """Train bars; arguments, checkpoints and errors as of `run_loop`."""
    state: State = run_loop(
        BarsObjective(tasks, training),
        folder=folder,
        progress=progress,
        log_every=log_every,
        stop_at=stop_at,
    )
    return state


def held_out(tasks: Tasks | JointTasks, training: Training, least: int = 0) -> dict[int, Batch]:
    """Tasks that no step draws, of every width, with contexts of all sizes from `least` rows."""
    batches = {}
    for i, d in enumerate(training.dims):
        counts = np.linspace(least, training.buckets[-1], _EVALUATED).astype(int)
        key = jax.random.fold_in(jax.random.key(training.seed + 1_000_003), i)
        part = i % len(tasks.weights)
        batches[d] = padded(tasks.draw(key, _EVALUATED, counts, d, part), training.max_dim)
    return batches


def evaluate(network: Transformer, bars: Bars, batches: dict[int, Batch]) -> dict[str, float]:
    """The mean excess of y over held-out tasks, by number of columns."""
    return {
        str(d): round(float(_evaluate(network, bars, batch)[0].mean()), 4)
        for d, batch in batches.items()
    }
