"""The search for hyper-parameters of greatest evidence, in float64, over their logarithms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from bayesnet._errors import InputError
from bayesnet._types import Array, PyTree
from bayesnet.priors.covariance import ARC_COSINE, Combined, Named
from bayesnet.priors.evidence import gaussian_log_density

# How far from where it starts each hyper-parameter may go, as a factor either way. A lengthscale
# at its upper bound is that of a column that does not matter.
REACH = {"lengthscale": 100.0, "outputscale": 1000.0, "period": 20.0, "bias": 1000.0}
# The noise level starts at the first, and stays between the others, in sds of y.
NOISE_START, NOISE_LOW, NOISE_HIGH = 0.3, 1e-3, 3.0
# Restarts scatter the logarithms of the start by this much.
SCATTER = 1.0


def parts(covariance: Any) -> Iterator[Any]:
    """The covariances of which a sum or product is made."""
    if isinstance(covariance, Combined):
        yield from parts(covariance.left)
        yield from parts(covariance.right)
    else:
        yield covariance


def used(part: Named) -> tuple[str, ...]:
    """The hyper-parameters on which a named kernel depends."""
    if part.name == "periodic":
        return ("lengthscale", "outputscale", "period")
    return ("lengthscale", "outputscale", *(("bias",) if part.name in ARC_COSINE else ()))


def start_logs(covariance: Any) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The logarithms of the hyper-parameters, how far each may go, and their names."""
    values, reach, names = [], [], []
    for number, part in enumerate(parts(covariance)):
        for field in used(part):
            value = np.atleast_1d(getattr(part, field))
            values.append(np.log(value))
            reach.append(np.full(len(value), np.log(REACH[field])))
            label = field if isinstance(covariance, Named) else f"{part.name}{number}.{field}"
            names += [f"{label}[{j}]" for j in range(len(value))] if len(value) > 1 else [label]
    return np.concatenate(values), np.concatenate(reach), names


def replace_hyper(covariance: Any, logs: Any, leaf: Any) -> tuple[Any, Any]:
    """`leaf(part, {field: logarithms})` in place of every named kernel; and what is left."""
    if isinstance(covariance, Combined):
        left, logs = replace_hyper(covariance.left, logs, leaf)
        right, logs = replace_hyper(covariance.right, logs, leaf)
        return (left, right, covariance.op), logs
    found = {}
    for field in used(covariance):
        size = np.size(getattr(covariance, field))
        found[field] = logs[:size] if np.ndim(getattr(covariance, field)) else logs[0]
        logs = logs[size:]
    return leaf(covariance, found), logs


def hyper_tree(covariance: Any, logs: Array) -> PyTree:
    """The hyper-parameters that `covariance.matrix` takes."""

    def strip(node: Any) -> PyTree:
        return (strip(node[0]), strip(node[1])) if isinstance(node, tuple) else node

    def leaf(part: Named, found: dict[str, Array]) -> PyTree:
        return {k: jnp.asarray(v) for k, v in part.hyper.items()} | {
            k: jnp.exp(v) for k, v in found.items()
        }

    return strip(replace_hyper(covariance, logs, leaf)[0])


def rebuilt(covariance: Any, logs: np.ndarray) -> Any:
    """`covariance` with the hyper-parameters whose logarithms are given."""

    def build(node: Any) -> Any:
        return (
            Combined(build(node[0]), build(node[1]), node[2]) if isinstance(node, tuple) else node
        )

    def leaf(part: Named, found: dict[str, np.ndarray]) -> Named:
        return replace(part, **{k: np.exp(v) for k, v in found.items()})

    return build(replace_hyper(covariance, logs, leaf)[0])


# --- the search -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """The best end of the search; see `EmpiricalBayes` for the fields."""

    covariance: Any
    noise: float
    log_evidence: float
    reached: tuple[float, ...]
    at_bounds: tuple[str, ...]


def negative_log_evidence(
    covariance: Any, x: np.ndarray, t: np.ndarray, noise: float | None
) -> Any:
    """The objective: logarithms (float64) -> (value, gradient), the last one the log noise sd if
    `noise` is None. To be called inside `jax.enable_x64(True)`."""
    rows, targets = jnp.asarray(x), jnp.asarray(t)

    def value(logs: Array) -> Array:
        level = jnp.exp(logs[-1]) if noise is None else jnp.asarray(noise)
        matrix = covariance.matrix(hyper_tree(covariance, logs), rows, rows)
        variance = jnp.broadcast_to(level**2, targets.shape)
        return -gaussian_log_density(matrix, variance, targets)

    return jax.jit(jax.value_and_grad(value))


def log_evidence_of(covariance: Any, x: np.ndarray, t: np.ndarray, noise: float) -> float:
    """The log evidence at the hyper-parameters of `covariance`."""
    with jax.enable_x64(True):
        logs = jnp.asarray(start_logs(covariance)[0])
        return -float(negative_log_evidence(covariance, x, t, noise)(logs)[0])


def maximise(
    covariance: Any,
    x: np.ndarray,
    t: np.ndarray,
    noise: float | None,
    spread: float,
    restarts: int,
    seed: int,
) -> Found:
    """Maximise the evidence of residuals `t` (n, m) from the start and `restarts` random ones."""
    start, reach, names = start_logs(covariance)
    low, high = start - reach, start + reach
    if noise is None:
        start = np.append(start, np.log(NOISE_START * spread))
        low = np.append(low, np.log(NOISE_LOW * spread))
        high = np.append(high, np.log(NOISE_HIGH * spread))
        names = [*names, "noise_std"]
    rng = np.random.default_rng(seed + 1)
    starts = [start] + [
        np.clip(start + SCATTER * rng.normal(size=len(start)), low, high) for _ in range(restarts)
    ]
    with jax.enable_x64(True):
        both = negative_log_evidence(covariance, x, t, noise)

        def objective(logs: np.ndarray) -> tuple[float, np.ndarray]:
            value, slope = both(jnp.asarray(logs))
            if not (np.isfinite(value) and np.isfinite(slope).all()):
                return 1e25, np.zeros_like(logs)  # not positive definite: the line search backs off
            return float(value), np.asarray(slope)

        bounds = list(zip(low, high, strict=True))
        ends = [
            optimize.minimize(objective, s, jac=True, method="L-BFGS-B", bounds=bounds)
            for s in starts
        ]
    ends.sort(key=lambda end: end.fun)
    best = ends[0]
    if best.fun >= 1e25:
        raise InputError(
            "No hyper-parameters near the start give a covariance that is positive definite."
        )
    room = 1e-6 * (high - low)
    stuck = (best.x <= low + room) | (best.x >= high - room)
    size = len(best.x) - (noise is None)
    return Found(
        rebuilt(covariance, best.x[:size]),
        float(np.exp(best.x[-1])) if noise is None else noise,
        -float(best.fun),
        tuple(-float(end.fun) for end in ends),
        tuple(name for name, is_stuck in zip(names, stuck, strict=True) if is_stuck),
    )
