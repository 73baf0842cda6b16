"""The compiled pieces of a match, and the one loop that runs them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from bayesnet._types import Array, Float, Key, PyTree
from bayesnet.priors.matching.base import Distance
from bayesnet.priors.matching.energy import Energy
from bayesnet.priors.matching.points import PointLaw, draw_triples
from bayesnet.priors.matching.stopping import Plateau, cosine
from bayesnet.priors.matching.target import draw_target
from bayesnet.priors.network import NetworkPrior, draws_at_once

# Steps a chunk: targets are drawn for a chunk in one program, then one program trains on them.
CHUNK = 50
# The shortest segment between two drawn points, as a fraction of their distance.
SHORTEST = 0.05
# Size of the held-out comparison: sets of points, and functions at each.
HELD_OUT_SETS, HELD_OUT_FUNCTIONS = 4, 256

_ADAM = optax.scale_by_adam()


@dataclass(frozen=True)
class Settings:
    """The numbers of a run that `match_prior` was asked for."""

    steps: int
    num_functions: int
    num_triples: int
    learning_rate: float
    patience: int | None
    progress: bool


@dataclass(eq=False)
class Run:
    """One run of the optimiser: where it ended, the best it saw, and what it took."""

    now: NetworkPrior
    best: NetworkPrior
    best_distance: float
    history: dict[str, np.ndarray]
    plateau: bool
    failed: bool
    compile_seconds: float

    @property
    def after(self) -> float:
        """The held-out distance at the end."""
        return float(self.history["held_out"][-1])


def optimise(
    prior: NetworkPrior,
    target: Any,
    law: PointLaw,
    rule: Distance,
    far: Callable[[NetworkPrior], np.ndarray],
    keys: tuple[Key, Key, Key],
    settings: Settings,
) -> Run:
    """Adam from the law of `prior`; `far` gives the held-out distance on each set of points."""
    key_rule, key_draw, key_train = keys
    size = 3 * settings.num_triples * prior.out_dim
    theta = eqx.filter(prior.law, eqx.is_inexact_array)
    state = (theta, _ADAM.init(theta), rule.start(key_rule, size))
    first = far(prior)
    best, best_distance, now, failed = prior, float(first.mean()), prior, False
    plateau = Plateau(settings.patience, first)
    rates = cosine(settings.learning_rate, settings.steps)
    step, held_out, losses = [0], [best_distance], []
    draw_seconds, compile_seconds = [], 0.0
    done = 0
    while done < len(rates):
        count = min(CHUNK, len(rates) - done)
        # The generator is waited for: on CPU, LAPACK calls beside large gradients can dead-lock.
        clock = time.perf_counter()
        key_x, key_g = jax.random.split(jax.random.fold_in(key_draw, done))
        points = draw_points(law, key_x, CHUNK, settings.num_triples)
        functions = draw_target(target, key_g, points, settings.num_functions)
        functions = jax.block_until_ready(functions)
        draw_seconds.append(time.perf_counter() - clock)
        rate = jnp.asarray(np.resize(rates[done : done + count], CHUNK), jnp.float32)
        # As arrays: a Python number would be part of the program and compile it anew.
        run = partial(train, rule, prior, key_train, points, functions, state, rate)
        if done == 0:
            # No step is taken here: the call compiles, and compilation is timed apart.
            clock = time.perf_counter()
            jax.block_until_ready(run(jnp.int32(0), jnp.int32(done)))
            compile_seconds += time.perf_counter() - clock
        state, chunk_losses = run(jnp.int32(count), jnp.int32(done))
        done += count
        now = eqx.tree_at(lambda p: p.law, prior, eqx.combine(state[0], prior.law))
        by_set = far(now)
        distance = float(by_set.mean())
        step.append(done)
        held_out.append(distance)
        losses.append(np.asarray(chunk_losses)[:count])
        if settings.progress:
            message = f"step {done}/{len(rates)}, held-out distance {distance:.4g}"
            print(f"match_prior: {message}", flush=True)
        failed = not (np.isfinite(distance) and np.isfinite(losses[-1]).all())
        if failed:
            break
        if distance < best_distance:
            best, best_distance = now, distance
        if plateau.sees(done, by_set):
            rates = plateau.shortened(rates, done)
    # The first draw compiles the target's program; the others tell what a draw costs.
    usual = float(np.median(draw_seconds[1:] or draw_seconds))
    return Run(
        now=now,
        best=best,
        best_distance=best_distance,
        history={
            "step": np.asarray(step),
            "held_out": np.asarray(held_out),
            "loss": np.concatenate(losses),
        },
        plateau=plateau.reached,
        failed=failed,
        compile_seconds=compile_seconds + max(0.0, draw_seconds[0] - usual),
    )


@partial(jax.jit, static_argnames=("num_sets", "num_triples"))
def draw_points(law: PointLaw, key: Key, num_sets: int, num_triples: int) -> Array:
    """Sets of points (sets, 3k, d)."""
    keys = jax.random.split(key, num_sets)
    return jax.vmap(lambda k: draw_triples(law, k, num_triples, SHORTEST))(keys)


def draw_functions(prior: Any, key: Key, x: Array, num: int) -> Float[Array, "s n m"]:
    """`num` functions of a latent prior, in one batch unless its network prefers a loop."""
    z = jax.random.normal(key, (num, prior.latent_size))
    if draws_at_once(prior, num) is None:
        # What the backward pass needs is computed anew, draw by draw: maps of all draws and points
        # together are gigabytes (PreResNet20 at 8 x 8).
        return jax.lax.map(jax.checkpoint(lambda zi: prior.apply(zi, x)), z)
    return jax.vmap(prior.apply, in_axes=(0, None))(z, x)


@eqx.filter_jit
def held_out(prior: Any, key: Key, xs: Array, gs: Array) -> Float[Array, " k"]:
    """The energy distance of values and increments on each held-out set of points.

    The latents are the same at every call, so that a history is not blurred by their noise.
    """
    keys = jax.random.split(key, len(xs))
    rule = Energy(increments=1.0)

    def one(args: tuple[Key, Array, Array]) -> Array:
        key, x, g = args
        return rule.loss((), key, draw_functions(prior, key, x, g.shape[0]), g)

    return jax.lax.map(one, (keys, xs, gs))


@eqx.filter_jit
def train(
    rule: Distance,
    prior: NetworkPrior,
    key: Key,
    xs: Float[Array, "c n d"],
    gs: Float[Array, "c s n m"],
    state: PyTree,
    rates: Float[Array, " c"],
    count: Array,
    done: Array,
) -> tuple[PyTree, Float[Array, " c"]]:
    """`count` steps on the first `count` sets of points and target draws, after `done` others.

    The number of steps is an argument, not a shape: any number of steps is one program.
    """

    def functions(theta: PyTree, key: Key, x: Array) -> Array:
        law = eqx.combine(theta, prior.law)
        return draw_functions(eqx.tree_at(lambda p: p.law, prior, law), key, x, gs.shape[1])

    def step(i: Array, carry: tuple[PyTree, Array]) -> tuple[PyTree, Array]:
        (theta, moments, memory), losses = carry
        key_f, key_a, key_d = jax.random.split(jax.random.fold_in(key, done + i), 3)
        x, g = xs[i], gs[i]

        def loss(theta: PyTree, memory: PyTree) -> tuple[Array, PyTree]:
            f = functions(theta, key_f, x)
            memory = rule.adapt(memory, key_a, jax.lax.stop_gradient(f), g)
            return rule.loss(jax.lax.stop_gradient(memory), key_d, f, g), memory

        (value, memory), slope = jax.value_and_grad(loss, has_aux=True)(theta, memory)
        updates, moments = _ADAM.update(slope, moments)
        theta = jax.tree.map(lambda t, u: t - rates[i] * u, theta, updates)
        return (theta, moments, memory), losses.at[i].set(value)

    return jax.lax.fori_loop(0, count, step, (state, jnp.zeros(len(xs))))
