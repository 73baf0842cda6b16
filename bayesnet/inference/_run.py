"""The only sampling loop: chains, warm-up, thinning, progress, interruption, warm starts.

A sampler is a frozen dataclass with `init`, `warm` and `step` for one chain; the loop runs a
fixed-size chunk of steps as one compiled program per chain, so that progress is shown and
Ctrl-C is answered between chunks without tracing again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet import devices
from bayesnet._notices import said_if_slow
from bayesnet._types import Array, Key, PyTree
from bayesnet.data import pad_rows
from bayesnet.inference.model import LatentModel

# Draws in one compiled chunk, and HMC's steps of the warm-up; also the resolution of progress
# and interruption.
CHUNK = 25
# Statistics of which the steps between two draws tell the mean; of counts (integers) they tell
# the sum, and of levels the last.
RATES = ("acceptance_rate", "temperature", "gradient_temperature", "gradient_velocity")

COMPILING = (
    "Compiling the programs of the sampler, once for each network, method and bucket of rows; they are kept between "
    "processes where JAX_COMPILATION_CACHE_DIR names a folder."
)

Progress = Callable[[str, int, int], None]


@runtime_checkable
class ChainSampler(Protocol):
    """One Markov chain: state in, state out. Hashable, so that programs are cached on it."""

    @property
    def chunk(self) -> int:
        """Steps of the warm-up in one compiled piece."""
        ...

    def tuning(self, model: LatentModel, earlier: PyTree | None) -> PyTree:
        """Arrays that a chain starts with: untuned, or as an earlier state was tuned."""
        ...

    def init(self, model: LatentModel, z: Array, tuning: PyTree) -> PyTree:
        """The state of a chain that starts at latents `z` (p,)."""
        ...

    def plan(self, total: int) -> PyTree:
        """Arrays with one row for each of `total` warm-up steps: what is tuned in it."""
        ...

    def warm(self, model: LatentModel, state: PyTree, key: Key, t: Array, row: PyTree) -> PyTree:
        """Warm-up step `t`, whose row of the plan is `row`: returns the new state."""
        ...

    def pool(self, model: LatentModel, states: list[PyTree]) -> list[PyTree]:
        """Settle the tuning between chains at the end of the warm-up."""
        ...

    def step(self, model: LatentModel, state: PyTree, key: Key) -> tuple[PyTree, PyTree]:
        """One step: the new state, and a dict of scalars about it."""
        ...

    def position(self, state: PyTree) -> Array:
        """The latents (p,) in a state."""
        ...


@dataclass(frozen=True, eq=False)
class Run:
    """What the loop returns.

    `latents` (c, s, p); `stats` name -> (c, s); `states` the last state of each chain, from
    which a later run starts warm; `seconds` by phase (compile, warmup, sampling).
    """

    latents: np.ndarray
    stats: dict[str, np.ndarray]
    states: list[PyTree]
    seconds: dict[str, float] = field(default_factory=dict)
    interrupted: bool = False


@devices.single_precision()
def run_chains(
    sampler: ChainSampler,
    model: LatentModel,
    *,
    key: Key,
    chains: int,
    warmup: int,
    draws: int,
    thin: int = 1,
    start: Array | None = None,
    warm_states: list[PyTree] | None = None,
    progress: Progress | None = None,
    phases: tuple[str, str] = ("warm-up", "sampling"),
    keep_unfinished: bool = False,
) -> Run:
    """Run `chains` chains of `warmup` steps and `draws` kept draws, `thin` steps apart.

    Args:
        start: latents (c, p) at which chains start; prior draws if None.
        warm_states: last states of an earlier run of the same model: chains go on from there.
        progress: called with (phase, steps done, steps in all) after each chunk.
        phases: what progress calls the warm-up and the sampling.
        keep_unfinished: draw from the states that an interrupted warm-up has come to.

    Ctrl-C during sampling keeps what was drawn so far (`interrupted=True`); during the
    warm-up, where there is nothing to keep yet, it propagates (unless `keep_unfinished`).
    """
    report = progress or (lambda phase, done, total: None)
    layout = devices.chain_layout()
    # A batch of chains is compiled by its first piece, single ones before.
    batched = layout != "threads"
    key_start, key_warm, key_draw = jax.random.split(key, 3)
    if start is None:
        start = jax.random.normal(key_start, (chains, model.size), model.rows.y.dtype)
    began = time.perf_counter()
    with said_if_slow(COMPILING):
        states = _start(sampler, model, start, warm_states)

    chunk = sampler.chunk
    plan = sampler.plan(warmup) if warmup else None

    def warm(state: PyTree, k: Key, done: int, count: int) -> PyTree:
        # Rows of the plan, not its length: one program serves warm-ups of any length.
        rows = jax.tree.map(lambda a: jnp.asarray(pad_rows(a[done : done + chunk], chunk)), plan)
        return _warm_program(sampler, model, state, k, rows, jnp.int32(done), jnp.int32(count))

    def draw(state: PyTree, k: Key, done: int, count: int) -> tuple[PyTree, PyTree]:
        return _draw_program(sampler, thin, model, state, k, jnp.int32(done), jnp.int32(count))

    keys = jax.random.split(key_warm, chains)
    with said_if_slow(COMPILING):
        if warmup:
            _compile(warm, states[0], keys[0], layout)
        _compile(draw, states[0], keys[0], layout)
    compiled = time.perf_counter()

    interrupted = False
    try:
        for done in range(0, warmup, chunk):
            count = min(chunk, warmup - done)
            with said_if_slow(COMPILING) if batched and not done else nullcontext():
                states = _each_chain(partial(warm, done=done, count=count), states, keys, layout)
            report(phases[0], done + count, warmup)
    except KeyboardInterrupt:
        if not keep_unfinished:
            raise
        interrupted = True
    if warmup:
        states = sampler.pool(model, states)
    warmed = time.perf_counter()

    keys = jax.random.split(key_draw, chains)
    pieces: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []
    try:
        for done in range(0, draws, CHUNK):
            count = min(CHUNK, draws - done)
            with said_if_slow(COMPILING) if batched and not done else nullcontext():
                results = _each_chain(partial(draw, done=done, count=count), states, keys, layout)
            states = [state for state, _ in results]
            pieces.append(_stack([out for _, out in results], count))
            report(phases[1], done + count, draws)
    except KeyboardInterrupt:
        if not pieces:
            raise
        interrupted = True
    latents = np.concatenate([z for z, _ in pieces], axis=1)
    stats = {k: np.concatenate([s[k] for _, s in pieces], axis=1) for k in pieces[0][1]}
    seconds = {
        "compile": compiled - began,
        "warmup": warmed - compiled,
        "sampling": time.perf_counter() - warmed,
    }
    return Run(latents, stats, states, seconds, interrupted)


def _compile(
    work: Callable[[PyTree, Key, int, int], PyTree], state: PyTree, key: Key, layout: str
) -> None:
    """Compile a program by a call of no steps, before threads would each do so.

    XLA has aborted where one thread compiled (and stored) a program that another ran.
    """
    if layout == "threads":
        idle = devices.with_settings(lambda s: work(s, key, 0, 0))
        jax.block_until_ready(idle(state))


def _stack(outs: list[Any], count: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The first `count` draws of each chain's chunk: latents (c, count, p), stats (c, count)."""
    latents = np.stack([np.asarray(z)[:count] for z, _ in outs])
    names = outs[0][1]
    return latents, {
        k: np.stack([np.asarray(stats[k])[:count] for _, stats in outs]) for k in names
    }


def _start(
    sampler: ChainSampler,
    model: LatentModel,
    start: Array,
    warm_states: list[PyTree] | None,
) -> list[PyTree]:
    if warm_states is None:
        fresh = sampler.tuning(model, None)
        return [_init_chain(sampler, model, z, fresh) for z in start]
    earlier = [warm_states[i % len(warm_states)] for i in range(len(start))]
    return [
        _init_chain(sampler, model, sampler.position(state), sampler.tuning(model, state))
        for state in earlier
    ]


def _each_chain(
    work: Callable[[PyTree, Key], PyTree], states: list[PyTree], keys: Array, layout: str
) -> list[PyTree]:
    """`work` on every chain: from one thread a core on CPU, in one batched program elsewhere."""
    if layout == "threads":

        def one(item: tuple[PyTree, Key]) -> PyTree:
            # Waiting inside the thread keeps at most one program a core under way.
            return jax.block_until_ready(work(*item))

        return devices.run_side_by_side(one, list(zip(states, keys, strict=True)))
    batched = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    out = jax.block_until_ready(jax.vmap(work)(batched, keys))
    return [jax.tree.map(lambda a, i=i: a[i], out) for i in range(len(states))]


@eqx.filter_jit
def _init_chain(sampler: ChainSampler, model: LatentModel, z: Array, tuning: PyTree) -> PyTree:
    # Python numbers in a state would be part of the program, and become arrays (another
    # program) after one step.
    return jax.tree.map(_strong, sampler.init(model, z, tuning))


def _strong(a: Any) -> Array:
    array = jnp.asarray(a)
    return jax.lax.convert_element_type(array, array.dtype)


@eqx.filter_jit
def _warm_program(
    sampler: ChainSampler,
    model: LatentModel,
    state: PyTree,
    key: Key,
    plan: PyTree,
    done: Array,
    count: Array,
) -> PyTree:
    def body(i: Array, state: PyTree) -> PyTree:
        t = done + i
        row = jax.tree.map(lambda a: a[i], plan)
        return sampler.warm(model, state, jax.random.fold_in(key, t), t, row)

    return jax.lax.fori_loop(0, count, body, state)


@eqx.filter_jit
def _draw_program(
    sampler: ChainSampler,
    thin: int,
    model: LatentModel,
    state: PyTree,
    key: Key,
    done: Array,
    count: Array,
) -> tuple[PyTree, PyTree]:
    """`count` draws (at most CHUNK) of `thin` steps each; rows beyond `count` repeat the last."""

    def draw(state: PyTree, i: Array) -> tuple[PyTree, PyTree]:
        keys = jax.random.split(jax.random.fold_in(key, done + i), thin)
        state, stats = jax.lax.scan(lambda s, k: sampler.step(model, s, k), state, keys)
        return state, {name: _over_thinned(name, a) for name, a in stats.items()}

    def body(state: PyTree, i: Array) -> tuple[PyTree, PyTree]:
        shapes = jax.eval_shape(draw, state, i)[1]
        idle = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        state, stats = jax.lax.cond(i < count, lambda: draw(state, i), lambda: (state, idle))
        return state, (sampler.position(state), stats)

    return jax.lax.scan(body, state, jnp.arange(CHUNK))


def _over_thinned(name: str, values: Array) -> Array:
    if name in RATES:
        return jnp.mean(values)
    if jnp.issubdtype(values.dtype, jnp.integer):
        return jnp.sum(values)
    return values[-1]
