"""`match_prior`: the weight prior whose functions look like those of a target process."""

from __future__ import annotations

import time
import warnings
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from bayesnet._errors import ConvergenceWarning, InputError, unknown_name
from bayesnet._types import Array, Float, Key, PyTree, as_key
from bayesnet.priors.matching.base import Distance
from bayesnet.priors.matching.critic import Critic
from bayesnet.priors.matching.energy import Energy
from bayesnet.priors.matching.points import PointLaw, as_point_law, draw_triples
from bayesnet.priors.matching.result import MatchResult
from bayesnet.priors.matching.sliced import Sliced
from bayesnet.priors.matching.target import check_target, draw_target
from bayesnet.priors.network import NetworkPrior

DISTANCES: dict[str, type[Distance]] = {"sliced": Sliced, "energy": Energy, "critic": Critic}

# Steps a chunk: targets are drawn for a chunk in one program, then one program trains on them.
CHUNK = 50
# The shortest segment between two drawn points, as a fraction of their distance.
SHORTEST = 0.05
# Size of the held-out comparison: sets of points, and functions at each.
HELD_OUT_SETS, HELD_OUT_FUNCTIONS = 4, 256

_ADAM = optax.scale_by_adam()


def match_prior(
    prior: NetworkPrior,
    target: Any,
    inputs: Any,
    *,
    distance: str | Distance = "energy",
    steps: int = 400,
    num_functions: int = 128,
    num_points: int = 64,
    learning_rate: float = 0.1,
    seed: int | Key = 0,
    progress: bool = False,
) -> MatchResult:
    """Tune the weight law of `prior` until its functions look like those of `target`.

    Every step draws points, functions of the target and functions of the prior at them, and
    moves the parameters theta of the law down the gradient of a distance between the two sets
    of functions, by Adam with a cosine decay.

    Args:
        prior: the network prior; theta are the array leaves of its law. It is not changed.
        target: any object with `sample(key, x (n, d), s) -> (s, n, m)`, for example
            `bn.GaussianProcess`; it need not be JAX code.
        inputs: where functions are compared, in the prior's coordinates: an array (n, d), a
            `bn.Box(low, high)`, or a tuple of those (a mix).
        distance: "energy", "sliced", "critic", or an object such as `Energy(increments=1.0)`.
            The default came closest by measures that none of them optimises
            (docs/benchmarks.md).
        steps: steps of the optimiser.
        num_functions: s, draws of each side a step.
        num_points: n, points a step (rounded to whole triples, see `points`).
        learning_rate: of Adam, at the start.
        seed: an integer or a JAX key.
        progress: print a line a chunk of steps.

    Raises:
        InputError: inputs of another dimension, with NaN, or of one distinct point; a target
            with another number of outputs or in other units; an unknown distance; a law
            without parameters; numbers out of range. All before any training.

    Warns:
        ConvergenceWarning: the run became non-finite or ended worse than it began; the best
            prior that was seen is returned.
    """
    rule = _check(prior, distance, steps, num_functions, num_points, learning_rate)
    law = as_point_law(inputs, prior.in_dim)
    triples = max(2, round(num_points / 3))
    keys = iter(jax.random.split(as_key(seed), 7))
    draw = partial(_draw_points, law, num_triples=triples)
    xs = draw(next(keys), HELD_OUT_SETS)
    check_target(prior, target, next(keys), xs[0])

    began = time.perf_counter()
    held_out_target = draw_target(target, next(keys), xs, HELD_OUT_FUNCTIONS)
    jax.block_until_ready(held_out_target)
    held_out = partial(_held_out, key=next(keys), xs=xs, gs=held_out_target)
    compile_began = time.perf_counter()
    before = float(held_out(prior))
    compile_seconds = time.perf_counter() - compile_began

    theta = eqx.filter(prior.law, eqx.is_inexact_array)
    state = (theta, _ADAM.init(theta), rule.start(next(keys), 3 * triples * prior.out_dim))
    key_draw, key_train = next(keys), next(keys)
    best, best_distance, now, failed = prior, before, prior, False
    history: dict[str, list[Any]] = {"step": [0], "held_out": [before], "loss": []}
    draw_seconds = []
    for done in range(0, steps, CHUNK):
        count = min(CHUNK, steps - done)
        # The generator is waited for: on CPU, LAPACK calls beside large gradients can dead-lock.
        clock = time.perf_counter()
        key_x, key_g = jax.random.split(jax.random.fold_in(key_draw, done))
        points = draw(key_x, CHUNK)
        functions = jax.block_until_ready(draw_target(target, key_g, points, num_functions))
        draw_seconds.append(time.perf_counter() - clock)
        train = partial(_train, rule, prior, key_train, points, functions)
        # As arrays: a Python number would be part of the program and compile it anew.
        rate, at, total = jnp.float32(learning_rate), jnp.int32(done), jnp.int32(steps)
        if done == 0:
            # No step is taken here: the call compiles, and compilation is timed apart.
            clock = time.perf_counter()
            jax.block_until_ready(train(state, rate, jnp.int32(0), at, total))
            compile_seconds += time.perf_counter() - clock
        state, losses = train(state, rate, jnp.int32(count), at, total)
        now = eqx.tree_at(lambda p: p.law, prior, eqx.combine(state[0], prior.law))
        far = float(held_out(now))
        history["step"].append(done + count)
        history["held_out"].append(far)
        history["loss"].append(np.asarray(losses)[:count])
        if progress:
            print(
                f"match_prior: step {done + count}/{steps}, held-out distance {far:.4g}", flush=True
            )
        failed = not (np.isfinite(far) and np.isfinite(history["loss"][-1]).all())
        if failed:
            break
        if far < best_distance:
            best, best_distance = now, far

    # The first draw compiles the target's program; the others tell what a draw costs.
    compile_seconds += max(
        0.0, draw_seconds[0] - float(np.median(draw_seconds[1:] or draw_seconds))
    )
    after = history["held_out"][-1]
    if failed or after > before + _noise(before):
        what = "became non-finite" if failed else "ended further from the target than it began"
        warnings.warn(
            f"match_prior {what} (held-out distance {before:.4g} -> {after:.4g} at step "
            f"{history['step'][-1]}); the best prior seen is returned. Try a smaller learning_rate "
            f"(now {learning_rate:g}).",
            ConvergenceWarning,
            stacklevel=2,
        )
        now, after = best, best_distance
    return MatchResult(
        prior=now,
        target=target,
        history={
            "step": np.asarray(history["step"]),
            "held_out": np.asarray(history["held_out"]),
            "loss": np.concatenate(history["loss"]),
        },
        distance_before=before,
        distance_after=after,
        seconds=time.perf_counter() - began - compile_seconds,
        compile_seconds=compile_seconds,
        inputs=law,
        before=prior,
    )


def _noise(before: float) -> float:
    """How far two held-out distances may differ by chance; the estimate is unbiased, so near a
    perfect match it scatters around zero."""
    return 0.1 * abs(before) + 0.01


def _check(
    prior: Any, distance: Any, steps: int, num_functions: int, num_points: int, learning_rate: float
) -> Distance:
    if not isinstance(prior, NetworkPrior):
        raise InputError(
            f"match_prior tunes a bn.NetworkPrior, got {type(prior).__name__} (the target comes "
            "second)."
        )
    if not jax.tree.leaves(eqx.filter(prior.law, eqx.is_inexact_array)):
        raise InputError(
            "The prior's weight law has no trainable parameters: nothing can be matched."
        )
    for name, value, low in (
        ("steps", steps, 1),
        ("num_functions", num_functions, 2),
        ("num_points", num_points, 2),
    ):
        if int(value) != value or value < low:
            raise InputError(f"{name} must be a whole number of at least {low}, got {value!r}.")
    if not (np.isfinite(learning_rate) and learning_rate > 0):
        raise InputError(f"learning_rate must be positive and finite, got {learning_rate!r}.")
    if isinstance(distance, str):
        if distance not in DISTANCES:
            raise unknown_name("distance", distance, DISTANCES)
        return DISTANCES[distance]()
    if not all(hasattr(distance, name) for name in ("start", "adapt", "loss")):
        raise unknown_name("distance", distance, DISTANCES)
    return distance


@partial(jax.jit, static_argnames=("num_sets", "num_triples"))
def _draw_points(law: PointLaw, key: Key, num_sets: int, num_triples: int) -> Array:
    """Sets of points (sets, 3k, d)."""
    keys = jax.random.split(key, num_sets)
    return jax.vmap(lambda k: draw_triples(law, k, num_triples, SHORTEST))(keys)


def _functions(prior: NetworkPrior, key: Key, x: Array, num: int) -> Float[Array, "s n m"]:
    z = jax.random.normal(key, (num, prior.latent_size))
    return jax.vmap(prior.apply, in_axes=(0, None))(z, x)


@eqx.filter_jit
def _held_out(prior: NetworkPrior, key: Key, xs: Array, gs: Array) -> Float[Array, ""]:
    """The mean energy distance of values and increments over held-out sets of points.

    The latents are the same at every call, so that a history is not blurred by their noise.
    """
    keys = jax.random.split(key, len(xs))
    rule = Energy(increments=1.0)

    def one(args: tuple[Key, Array, Array]) -> Array:
        key, x, g = args
        return rule.loss((), key, _functions(prior, key, x, g.shape[0]), g)

    return jnp.mean(jax.lax.map(one, (keys, xs, gs)))


@eqx.filter_jit
def _train(
    rule: Distance,
    prior: NetworkPrior,
    key: Key,
    xs: Float[Array, "c n d"],
    gs: Float[Array, "c s n m"],
    state: PyTree,
    learning_rate: Float[Array, ""],
    count: Array,
    done: Array,
    steps: Array,
) -> tuple[PyTree, Float[Array, " c"]]:
    """`count` steps on the first `count` sets of points and target draws, after `done` of `steps`.

    The number of steps is an argument, not a shape: any number of steps is one program.
    """

    def functions(theta: PyTree, key: Key, x: Array) -> Array:
        law = eqx.combine(theta, prior.law)
        return _functions(eqx.tree_at(lambda p: p.law, prior, law), key, x, gs.shape[1])

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
        rate = 0.5 * learning_rate * (1.0 + jnp.cos(jnp.pi * (done + i) / steps))
        theta = jax.tree.map(lambda t, u: t - rate * u, theta, updates)
        return (theta, moments, memory), losses.at[i].set(value)

    return jax.lax.fori_loop(0, count, step, (state, jnp.zeros(len(xs))))
