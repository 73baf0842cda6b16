"""Hamiltonian Monte Carlo over the hyper-parameters of a process: few coordinates, costly densities.

Coordinates are whitened by the curvature at the mode; step sizes are jittered and tuned to an
acceptance rate, then held at their average; chains start around the mode (Neal 2011, sections 4.1 and 5.4).
Trajectories are of a few steps each ("hmc"), or as long as they do not turn around ("nuts", in `_exact_nuts`).
Chains go on until they agree, up to a bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bayesnet.inference._exact_nuts import nuts_transition

LogDensity = Callable[[np.ndarray], tuple[float, np.ndarray]]
CHAINS, LEAPFROGS, TARGET = 4, 4, 0.8
# Transitions that tune the step: of the first chain, and of those that begin with what it found.
WARMUP, REWARM = 40, 20
# Transitions of each chain before it is asked whether they agree, at least, and how often it is asked.
SHORTEST, ROUNDS = 25, 4
# Chains go on above this R-hat, and below so many effective draws (or half of the draws that are kept).
RHAT_LIMIT, ENOUGH = 1.1, 50.0


@dataclass(frozen=True, eq=False)
class HyperDraws:
    """Draws (k, p), the acceptance rate, the worst R-hat and least effective size of a coordinate, the
    number of transitions that these are of, and what is wrong with them."""

    points: np.ndarray
    acceptance: float
    rhat: float
    effective_size: float
    transitions: int
    problems: list[str]


def sample_hyper(
    log_density: LogDensity,
    mode: np.ndarray,
    draws: int,
    seed: int,
    progress: Any = None,
    sampler: str = "hmc",
) -> HyperDraws:
    """`draws` draws over `CHAINS` chains from the density whose mode is `mode`, by "hmc" or "nuts"."""
    transition = nuts_transition if sampler == "nuts" else hmc_transition
    root = curvature_root(log_density, mode)
    rng = np.random.default_rng(seed + 1)
    each = max(-(-draws // CHAINS), SHORTEST)
    total, done = WARMUP + (CHAINS - 1) * REWARM + CHAINS * each, 0

    def whitened(w: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = log_density(mode + root @ w)
        return value, root.T @ slope

    def move(chain: _Chain, tune: int = 0, steps: int = 0) -> None:
        nonlocal done, total
        chain.tune(transition, whitened, tune, rng)
        chain.run(transition, whitened, steps, rng)
        done += tune + steps
        total = max(total, done)
        if progress is not None:
            progress("hyper-parameters", done, total)

    chains: list[_Chain] = []
    log_step = float(np.log(0.5))
    for number in range(CHAINS):
        chains.append(_Chain.around_mode(whitened, len(mode), log_step, rng))
        move(chains[-1], tune=REWARM if number else WARMUP)
        log_step = chains[-1].log_step
    for _ in range(ROUNDS):
        for chain in chains:
            move(chain, steps=each)
        paths = np.stack([np.stack(chain.path) for chain in chains])
        values = [paths[:, :, j] for j in range(len(mode))]
        rhat, size = max(split_rhat(v) for v in values), min(_effective_size(v) for v in values)
        if rhat <= RHAT_LIMIT and size >= min(ENOUGH, 0.5 * draws):
            break
    problems = []
    if not rhat <= RHAT_LIMIT:
        problems.append(
            f"chains of the hyper-parameters disagree (R-hat {rhat:.2f} > {RHAT_LIMIT} after "
            f"{paths.shape[1]} transitions each): they may lie around several modes; raise draws, state "
            "narrower laws, or take hyper='map'"
        )
    elif size < min(ENOUGH, 0.5 * draws):
        problems.append(
            f"the hyper-parameters have {size:.0f} effective draws in {paths.shape[0] * paths.shape[1]} "
            "transitions: raise draws"
        )
    joined = paths.swapaxes(0, 1).reshape(-1, len(mode))
    kept = joined[np.linspace(0, len(joined) - 1, draws).round().astype(int)]
    rate = float(np.mean([r for chain in chains for r in chain.rates]))
    return HyperDraws(mode + kept @ root.T, rate, rhat, size, len(joined), problems)


@dataclass(eq=False)
class _Chain:
    """Where a chain is (whitened), its step, and what it kept since it was tuned."""

    at: np.ndarray
    value: float
    slope: np.ndarray
    log_step: float
    path: list[np.ndarray] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    @staticmethod
    def around_mode(
        density: LogDensity, size: int, log_step: float, rng: np.random.Generator
    ) -> _Chain:
        """Spread as the posterior is near its mode, so that chains which disagree are seen to."""
        at = rng.normal(size=size)
        value, slope = density(at)
        if not np.isfinite(value):
            at = np.zeros(size)
            value, slope = density(at)
        return _Chain(at, value, slope, log_step)

    def tune(self, transition: Any, density: LogDensity, count: int, rng: Any) -> None:
        """Move to an acceptance rate of `TARGET`; the step is then the average of the later half."""
        steps = []
        for i in range(count):
            rate = self._move(transition, density, rng)
            self.log_step += (rate - TARGET) / (1.0 + i) ** 0.6
            steps.append(self.log_step)
        if steps:
            self.log_step = float(np.mean(steps[count // 2 :]))

    def run(self, transition: Any, density: LogDensity, count: int, rng: Any) -> None:
        """`count` transitions, kept."""
        for _ in range(count):
            self.rates.append(self._move(transition, density, rng))
            self.path.append(self.at)

    def _move(self, transition: Any, density: LogDensity, rng: np.random.Generator) -> float:
        step = np.exp(self.log_step) * rng.uniform(0.7, 1.1)
        self.at, self.value, self.slope, rate = transition(
            density, self.at, self.value, self.slope, step, rng
        )
        return float(rate)


def hmc_transition(
    log_density: LogDensity,
    at: np.ndarray,
    value: float,
    slope: np.ndarray,
    step: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, float, np.ndarray, float]:
    """From a position with its log density and gradient to the next, and the acceptance rate."""
    p = rng.normal(size=len(at))
    energy = value - 0.5 * float(p @ p)
    new, v, g = at, value, slope
    momentum = p + 0.5 * step * g
    for k in range(LEAPFROGS):
        new = new + step * momentum
        v, g = log_density(new)
        if not np.isfinite(v):
            break
        momentum = momentum + (step if k < LEAPFROGS - 1 else 0.5 * step) * g
    end = v - 0.5 * float(momentum @ momentum) if np.isfinite(v) else -np.inf
    rate = float(np.exp(min(0.0, end - energy)))
    return (new, v, g, rate) if rng.uniform() < rate else (at, value, slope, rate)


def curvature_root(log_density: LogDensity, mode: np.ndarray) -> np.ndarray:
    """A root of the inverse negative Hessian at the mode, by central differences of the gradient."""
    size, step = len(mode), 1e-3
    rows = []
    for i in range(size):
        e = step * np.eye(size)[i]
        rows.append((log_density(mode - e)[1] - log_density(mode + e)[1]) / (2 * step))
    hessian = np.stack(rows)
    values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T))
    return vectors / np.sqrt(np.clip(values, 0.05, 1e8))


def split_rhat(chains: np.ndarray) -> float:
    """R-hat of (c, s) draws, each chain cut into halves (Gelman et al. 2013, section 11.4)."""
    half = chains.shape[1] // 2
    parts = np.concatenate([chains[:, :half], chains[:, -half:]])
    within = float(parts.var(axis=1, ddof=1).mean())
    between = float(parts.mean(axis=1).var(ddof=1))
    if within == 0.0:
        return 1.0 if between == 0.0 else float("inf")
    return float(np.sqrt((half - 1) / half + between / within))


def _effective_size(chains: np.ndarray) -> float:
    """The effective size of (c, s) draws from their autocorrelations (Geyer's positive pairs)."""
    c, s = chains.shape
    centred = chains - chains.mean()
    variance = float(np.mean(centred**2))
    if variance == 0.0:
        return 1.0
    total, lag = 0.0, 1
    while lag + 1 < s:
        pair = sum(np.mean(centred[:, k:] * centred[:, : s - k]) for k in (lag, lag + 1))
        if pair <= 0:
            break
        total += pair / variance
        lag += 2
    return float(c * s / max(1.0 + 2.0 * total, 1.0))
