"""`match_prior`: the weight prior whose functions look like those of a target process."""

from __future__ import annotations

import time
import warnings
from typing import Any

import equinox as eqx
import jax
import numpy as np

from bayesnet import devices
from bayesnet._errors import ConvergenceWarning, InputError, unknown_name
from bayesnet._notices import said_if_slow
from bayesnet._types import Key, as_key
from bayesnet.priors.matching.base import Distance
from bayesnet.priors.matching.critic import Critic
from bayesnet.priors.matching.energy import Energy
from bayesnet.priors.matching.points import as_point_law
from bayesnet.priors.matching.result import MatchResult
from bayesnet.priors.matching.sliced import Sliced
from bayesnet.priors.matching.target import check_target, draw_target
from bayesnet.priors.matching.training import (
    HELD_OUT_FUNCTIONS,
    HELD_OUT_SETS,
    Run,
    Settings,
    draw_points,
    held_out,
    optimise,
)
from bayesnet.priors.network import NetworkPrior

DISTANCES: dict[str, type[Distance]] = {"sliced": Sliced, "energy": Energy, "critic": Critic}

# The spread of the starts of all runs but the first, in the parameters of the law.
JITTER = 0.2


@devices.single_precision()
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
    patience: int | None = 250,
    restarts: int = 1,
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
            `bn.Box(low, high)`, `bn.Grid`, `bn.Near` (around rows), or a tuple of those (a mix;
            with weights `bn.Mix`).
        distance: "energy", "sliced", "critic", or an object such as `Energy(increments=1.0)`.
            The default came closest by measures that none of them optimises
            (docs/benchmarks.md).
        steps: steps of the optimiser, at most.
        num_functions: s, draws of each side a step.
        num_points: n, points a step (rounded to whole triples, see `points`).
        learning_rate: of Adam, at the start.
        patience: end after so many steps in which the held-out distance has not fallen by more
            than its own noise (it is looked at every 50 steps), the learning rate falling to
            zero over 100 more; `steps` is then an upper bound. None takes all steps.
        restarts: runs with different random numbers and, but for the first, a slightly moved
            start; the one with the smallest held-out distance is returned.
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
    _check_ends(patience, restarts)
    law = as_point_law(inputs, prior.in_dim)
    triples = max(2, round(num_points / 3))
    keys = jax.random.split(as_key(seed), 7)
    xs = draw_points(law, keys[0], HELD_OUT_SETS, triples)
    check_target(prior, target, keys[1], xs[0])

    began = time.perf_counter()
    with said_if_slow(
        f"Matching the prior of a network over {prior.in_dim} input(s) to {type(target).__name__}: up to "
        f"{steps} steps. Matches to the default process are made once for each number of columns and kept."
    ):
        held_out_target = draw_target(target, keys[2], xs, HELD_OUT_FUNCTIONS)
        jax.block_until_ready(held_out_target)

        def far(prior: NetworkPrior) -> np.ndarray:
            return np.asarray(held_out(prior, keys[3], xs, held_out_target), np.float64)

        compile_began = time.perf_counter()
        before = float(far(prior).mean())
        compile_seconds = time.perf_counter() - compile_began
        settings = Settings(steps, num_functions, triples, float(learning_rate), patience, progress)
        runs = []
        for attempt in range(restarts):
            start, own = prior, tuple(keys[4:])
            if attempt:
                own = tuple(jax.random.fold_in(k, attempt) for k in keys[4:])
                start = _jittered(prior, jax.random.fold_in(keys[0], attempt))
            runs.append(optimise(start, target, law, rule, far, own, settings))
            compile_seconds += runs[-1].compile_seconds
    run = min(runs, key=lambda r: r.best_distance if _went_wrong(r, before) else r.after)
    now, after, wrong = run.now, run.after, _went_wrong(run, before)
    if wrong:
        warnings.warn(
            f"match_prior {wrong} (held-out distance {before:.4g} -> {after:.4g} at step "
            f"{run.history['step'][-1]}); the best prior seen is returned. Try a smaller "
            f"learning_rate (now {learning_rate:g}).",
            ConvergenceWarning,
            stacklevel=3,
        )
        now, after = (
            (run.best, run.best_distance) if run.best_distance < before else (prior, before)
        )
    return MatchResult(
        prior=now,
        target=target,
        history=run.history,
        distance_before=before,
        distance_after=after,
        seconds=time.perf_counter() - began - compile_seconds,
        compile_seconds=compile_seconds,
        inputs=law,
        before=prior,
        ended=wrong or ("stopped falling" if run.plateau else "took all steps"),
        attempts=tuple(r.after for r in runs),
    )


def _went_wrong(run: Run, before: float) -> str:
    """What went wrong in a run, in words, or an empty string."""
    if run.failed:
        return "became non-finite"
    if run.after > before + _noise(before):
        return "ended further from the target than it began"
    return ""


def _jittered(prior: NetworkPrior, key: Key) -> NetworkPrior:
    """The prior with its parameters moved by about two steps of the optimiser, each its own way."""
    theta, rest = eqx.partition(prior.law, eqx.is_inexact_array)
    leaves, tree = jax.tree.flatten(theta)
    keys = jax.random.split(key, len(leaves))
    moved = [
        a + JITTER * jax.random.normal(k, a.shape, a.dtype)
        for a, k in zip(leaves, keys, strict=True)
    ]
    return eqx.tree_at(lambda p: p.law, prior, eqx.combine(jax.tree.unflatten(tree, moved), rest))


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
        return named_distance(distance, prior.in_dim)
    if not all(hasattr(distance, name) for name in ("start", "adapt", "loss")):
        raise unknown_name("distance", distance, DISTANCES)
    return distance


def _check_ends(patience: Any, restarts: Any) -> None:
    if patience is not None and (int(patience) != patience or patience < 1):
        raise InputError(
            f"patience must be a whole number of steps, at least 1, or None, got {patience!r}."
        )
    if int(restarts) != restarts or restarts < 1:
        raise InputError(f"restarts must be a whole number of at least 1, got {restarts!r}.")


def named_distance(name: str, in_dim: int) -> Distance:
    """The distance that a name means for functions of `in_dim` inputs.

    Raises `InputError` for an unknown name.
    """
    if name not in DISTANCES:
        raise unknown_name("distance", name, DISTANCES)
    return Energy.for_inputs(in_dim) if name == "energy" else DISTANCES[name]()
