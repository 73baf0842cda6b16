"""Hamiltonian Monte Carlo over the hyper-parameters of a process: few coordinates, costly densities.

Coordinates are whitened by the curvature at the mode; step sizes are jittered and tuned to an
acceptance rate; chains start at the mode plus noise (Neal 2011, sections 4.1 and 5.4). Trajectories are of a few
steps each ("hmc"), or as long as they do not turn around ("nuts", in `_exact_nuts`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesnet.inference._exact_nuts import nuts_transition

LogDensity = Callable[[np.ndarray], tuple[float, np.ndarray]]
CHAINS, WARMUP, LEAPFROGS, TARGET = 2, 40, 4, 0.8


@dataclass(frozen=True, eq=False)
class HyperDraws:
    """Draws (k, p), the acceptance rate, the least effective size, and what is wrong with them."""

    points: np.ndarray
    acceptance: float
    effective_size: float
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
    each = -(-draws // CHAINS)
    kept, accepted = [], []

    def whitened(w: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = log_density(mode + root @ w)
        return value, root.T @ slope

    for chain in range(CHAINS):
        w = 0.5 * rng.normal(size=len(mode))
        value, slope = whitened(w)
        if not np.isfinite(value):
            w = np.zeros_like(mode)
            value, slope = whitened(w)
        log_step, path = np.log(0.5), []
        for i in range(WARMUP + each):
            step = np.exp(log_step) * rng.uniform(0.7, 1.1)
            w, value, slope, rate = transition(whitened, w, value, slope, step, rng)
            if i < WARMUP:
                log_step += (rate - TARGET) / (1.0 + i) ** 0.6
            else:
                path.append(w)
                accepted.append(rate)
            if progress is not None:
                progress(
                    "hyper-parameters", chain * (WARMUP + each) + i + 1, CHAINS * (WARMUP + each)
                )
        kept.append(np.stack(path))
    chains = np.stack(kept)
    size = min(_effective_size(chains[:, :, j]) for j in range(len(mode)))
    problems = []
    if size < 0.1 * draws:
        problems.append(
            f"the hyper-parameters have {size:.0f} effective draws of {draws} only: raise draws"
        )
    points = mode + chains.swapaxes(0, 1).reshape(-1, len(mode))[:draws] @ root.T
    return HyperDraws(points, float(np.mean(accepted)), size, problems)


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
    return float(c * s / max(1.0 + 2.0 * total, 0.5))
