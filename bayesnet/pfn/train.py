"""Training a PFN: Adam on tasks from a prior, a schedule by step count, checkpoints.

Step `i` of seed `s` draws the same tasks whenever it is run, and a checkpoint holds the weights
and the state of Adam in full, so that an interrupted run goes on to the same result, bit for bit
on the same machine layout.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError
from bayesnet._types import Array, Float
from bayesnet.pfn.bars import Bars
from bayesnet.pfn.checkpoint import CHECKPOINT, EVERY, keep, restore, signature
from bayesnet.pfn.settings import State, Training
from bayesnet.pfn.tasks import Batch, Tasks
from bayesnet.pfn.transformer import Transformer, pad_columns

# Tasks of one evaluation, for each number of columns.
_EVALUATED = 64
# How much the head of the function counts beside that of y.
_WEIGHT_F = 0.5


def new_state(tasks: Tasks, training: Training) -> State:
    """Random weights, and bars placed by targets of the prior."""
    key = jax.random.fold_in(jax.random.key(training.seed), 0)
    network = training.network(key)
    bars = Bars.from_values(_targets_of_prior(tasks, training), training.bars)
    return State(network, training.optimiser().init(eqx.filter(network, eqx.is_array)), bars)


def _targets_of_prior(tasks: Tasks, training: Training) -> np.ndarray:
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
                values.append(np.ravel(batch.f_mean + z * batch.y_std))
    return np.concatenate(values)


def draw_batch(tasks: Tasks, training: Training, step: int) -> Batch:
    """The tasks of one step: always the same for the same seed and step."""
    rng = np.random.default_rng([training.seed, 2, step])
    weights = np.asarray(training.dim_weights)
    d = training.dims[rng.choice(len(weights), p=weights / weights.sum())]
    part = int(rng.choice(len(tasks.weights), p=tasks.weights))
    bucket = int(rng.integers(len(training.buckets)))
    low = training.buckets[bucket - 1] + 1 if bucket else 0
    counts = rng.integers(low, training.buckets[bucket] + 1, size=training.batch)
    key = jax.random.fold_in(jax.random.key(training.seed), step + 1)
    batch = tasks.draw(key, training.batch, counts, d, part)
    return padded(batch.rows(training.buckets[bucket]), training.max_dim)


def padded(batch: Batch, max_dim: int) -> Batch:
    """The tasks with columns of zeros up to `max_dim`."""
    x, used = pad_columns(np.asarray(batch.x), max_dim)
    queries, _ = pad_columns(np.asarray(batch.queries), max_dim)
    return eqx.tree_at(
        lambda b: (b.x, b.queries, b.used),
        batch,
        (jnp.asarray(x), jnp.asarray(queries), jnp.asarray(used)),
    )


def excess(
    network: Transformer, bars: Bars, batch: Batch
) -> tuple[Float[Array, "b q"], Float[Array, "b q"]]:
    """KL from the bar probabilities of the tasks to the network's, in nats, for y and for f."""

    def one(x: Array, y: Array, mask: Array, queries: Array) -> tuple[Array, Array]:
        return network(x, y, mask, queries, batch.used, bars)

    logits_y, logits_f = jax.vmap(one)(batch.x, batch.y, batch.mask, batch.queries)
    # A function known exactly is in one bar, whose edges no float32 sd of 1e-4 can cross.
    target_f = bars.probabilities(batch.f_mean, jnp.maximum(batch.f_std, 1e-4))
    target_y = bars.probabilities(batch.f_mean, jnp.maximum(batch.y_std, 1e-4))
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
        return both[0] + _WEIGHT_F * both[1], both

    (_, parts), gradient = eqx.filter_value_and_grad(loss, has_aux=True)(network)
    updates, optimiser = training.optimiser().update(gradient, optimiser)
    return eqx.apply_updates(network, updates), optimiser, bars, parts


@eqx.filter_jit
def _evaluate(network: Transformer, bars: Bars, batch: Batch) -> tuple[Array, Array]:
    y, f = excess(network, bars, batch)
    return y.mean(axis=1), f.mean(axis=1)


def run(
    tasks: Tasks,
    training: Training,
    *,
    folder: str | Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    log_every: int = 500,
    stop_at: int | None = None,
) -> State:
    """Train from the start, or from the checkpoint in `folder` if there is one.

    Args:
        folder: where checkpoints (at most every 45 s) and `log.jsonl` go; none are kept if None.
        progress: called with ("training", done, total).
        log_every: steps between evaluations on held-out tasks (excess over the prior's own law
            of y given its hyper-parameters, in nats, by number of columns).
        stop_at: leave off after this step, as if killed there; the schedule is that of `steps`.

    Raises `InputError` if the checkpoint is of another configuration, or training diverged.
    """
    identity = signature(tasks, training)
    state, start = None, 0
    if folder is not None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / CHECKPOINT).is_file():
            state, start = restore(folder / CHECKPOINT, training, identity)
    if state is None:
        state = new_state(tasks, training)
    network, optimiser, bars = state.network, state.optimiser, state.bars
    held_out = _held_out(tasks, training)
    kept = began = time.monotonic()
    recent: list[np.ndarray] = []
    end = training.steps if stop_at is None else min(stop_at, training.steps)
    for step in range(start, end):
        batch = draw_batch(tasks, training, step)
        network, optimiser, bars, parts = _update(training, network, optimiser, bars, batch)
        recent.append(np.asarray(parts))  # waits: one program at a time
        done = step + 1
        if progress is not None:
            progress("training", done, training.steps)
        if not np.isfinite(recent[-1]).all():
            raise InputError(
                f"Training diverged at step {done} (the loss is not finite): lower learning_rate, "
                "or check that draws of the prior are of order 1."
            )
        if folder is not None and (done == end or time.monotonic() - kept > EVERY):
            keep(folder / CHECKPOINT, State(network, optimiser, bars), done, identity)
            kept = time.monotonic()
        if done % log_every == 0 or done == end:
            if folder is not None:
                seconds = time.monotonic() - began
                line = {
                    "step": done,
                    "seconds": round(seconds, 1),
                    "datasets_per_second": round((done - start) * training.batch / seconds, 1),
                    "recent_y": float(np.mean(recent, axis=0)[0]),
                    "recent_f": float(np.mean(recent, axis=0)[1]),
                    "excess": evaluate(network, bars, held_out),
                }
                with (folder / "log.jsonl").open("a") as file:
                    file.write(json.dumps(line) + "\n")
            recent = []
    return State(network, optimiser, bars)


def _held_out(tasks: Tasks, training: Training) -> dict[int, Batch]:
    """Tasks that no step draws, of every width, with contexts of all sizes."""
    batches = {}
    for i, d in enumerate(training.dims):
        counts = np.linspace(0, training.buckets[-1], _EVALUATED).astype(int)
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
