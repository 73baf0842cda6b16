"""Hyper-parameters of exact inference: the mode of their posterior or of the evidence, or draws."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from scipy import optimize

from bayesnet._errors import BayesNetError, InputError
from bayesnet.inference._exact_hmc import sample_hyper
from bayesnet.inference._exact_noise import NoiseEvidence
from bayesnet.inference._exact_table import NoiseLaw, Table
from bayesnet.inference._hyper_evidence import HyperEvidence, hyper_evidence
from bayesnet.posterior.process_table import scale_of, table_noise, weighted_constant
from bayesnet.priors.hyper import HALF_LOG_2PI
from bayesnet.priors.kernel_model import KernelModel
from bayesnet.priors.process_solution import Solution, evidence_gradient, solve
from bayesnet.priors.scale_mixture import ScaleMixture

HYPER = ("map", "evidence", "hmc", "nuts")
# Ways that sample instead of searching for one point.
SAMPLED = ("hmc", "nuts")
# How far the latents of noise levels, and the logs of other hyper-parameters from where searches
# start, may go.
NOISE_REACH, HYPER_REACH = 8.0, 12.0
PRIOR_DRAWS = 200


@dataclass(frozen=True, eq=False)
class Problem:
    """The log density of hyper-parameters `u` and noise latents `z`, put end to end in `v`."""

    prior: Any
    model: KernelModel
    noise: NoiseLaw
    table: Table
    method: Any

    @property
    def size(self) -> int:
        return self.model.free.size + self.noise.size

    def split(self, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """u and z."""
        return v[: self.model.free.size], v[self.model.free.size :]

    def prior_at(self, u: np.ndarray) -> Any:
        """The prior with hyper-parameters `u` fixed."""
        base = self.model.fixed(u)
        if not isinstance(self.prior, ScaleMixture):
            return base
        old = self.prior
        return ScaleMixture(base, old.scale, noise=old.noise, per_output=old.per_output)

    def log_evidence(self, v: np.ndarray) -> tuple[float, np.ndarray]:
        """The log evidence of the table (scaled coordinates) and its gradient."""
        u, z = self.split(v)
        table = self.table
        std = self.noise.std(z)
        if self._noise_only is not None:
            value, by_variance = self._noise_only.at(std)
            return value, by_variance * 2.0 * std**2 * np.asarray(self.noise.scale)
        value, found = self._solved(u, std)
        by_matrix, by_noise, by_residual = evidence_gradient(found, len(table.x))
        # d y - mean = - d mean.
        slope_u = self.model.pullback(u, table.x, by_matrix, -by_residual)
        return value, np.concatenate([slope_u, self._noise_slope(std, by_noise)])

    def _solved(self, u: np.ndarray, std: np.ndarray) -> tuple[float, Solution]:
        table = self.table
        noise, y = table_noise(std, table.y, table.y_var, table.weight)
        residual = y - self.model.mean(u, table.x)
        found = solve(self._matrix(u), noise, residual, scale_of(self.prior, self.method))
        constant = weighted_constant(std, table.y, table.y_var, table.weight)
        return found.log_evidence + constant, found

    def value(self, v: np.ndarray) -> float:
        """The log evidence alone: without a gradient, at a fraction of the cost."""
        u, z = self.split(v)
        std = self.noise.std(z)
        if self._noise_only is not None:
            return self._noise_only.at(std)[0]
        return self._solved(u, std)[0]

    def integrated(self, points: np.ndarray, seed: int) -> HyperEvidence | None:
        """The evidence with what is random integrated out, from draws (k, p) of its posterior; None
        where a law of it is improper (variances that are learned without one)."""
        if not self.model.free.proper:
            return None

        def log_likelihood(v: np.ndarray) -> float:
            try:
                value = self.value(v)
            except BayesNetError:
                return -np.inf
            return float(value) if np.isfinite(value) else -np.inf

        def log_prior(v: np.ndarray) -> float:
            u, z = self.split(v)
            return self.model.log_prior(u)[0] - 0.5 * float(z @ z) - len(z) * HALF_LOG_2PI

        def draw(rng: np.random.Generator, num: int) -> np.ndarray:
            u = np.zeros((num, 0))
            if self.model.free.size:
                u = self.model.free.draw(jax.random.key(int(rng.integers(2**31))), num)
            return np.concatenate([u, rng.normal(size=(num, self.noise.size))], axis=1)

        return hyper_evidence(log_likelihood, log_prior, draw, points, seed)

    def _matrix(self, u: np.ndarray) -> np.ndarray:
        if self.model.free.size:
            return self.model.matrix(u, self.table.x, self.table.x)
        return self._fixed_matrix

    @cached_property
    def _fixed_matrix(self) -> np.ndarray:
        return self.model.matrix(np.zeros(0), self.table.x, self.table.x)

    @cached_property
    def _noise_only(self) -> NoiseEvidence | None:
        """The cheap evidence, where nothing but noise levels common to all rows is learned."""
        table, scale = self.table, scale_of(self.prior, self.method)
        plain = table.y_var is None and table.weight is None and not np.isnan(table.y).any()
        if self.model.free.size or not self.noise.size or not plain:
            return None
        if not NoiseEvidence.covers(scale):
            return None
        residual = table.y - self.model.mean(np.zeros(0), table.x)
        return NoiseEvidence(self._fixed_matrix, residual, scale)

    def _noise_slope(self, std: np.ndarray, by_noise: np.ndarray) -> np.ndarray:
        if self.noise.scale is None:
            return np.zeros(0)
        weight = self.table.weight
        share = np.ones(len(by_noise)) if weight is None else weight
        per_row = by_noise / np.where(share > 0, share, 1.0)[:, None]
        if weight is not None:
            y_var = 0.0 if self.table.y_var is None else self.table.y_var
            level = std**2 + y_var + np.zeros_like(by_noise)
            seen = ~np.isnan(self.table.y) & (weight[:, None] > 0)
            per_row = per_row + np.where(seen, 0.5 * (1.0 - weight[:, None]) / level, 0.0)
        return per_row.sum(axis=0) * 2.0 * std**2 * self.noise.scale

    def log_density(self, v: np.ndarray, *, prior: bool = True) -> tuple[float, np.ndarray]:
        """The log evidence plus, with `prior`, the log density of `v`; and the gradient.

        Minus infinity where the covariance is not positive definite.
        """
        try:
            value, slope = self.log_evidence(v)
        except BayesNetError:
            return -np.inf, np.zeros_like(v)
        if prior:
            u, z = self.split(v)
            log_prior, prior_slope = self.model.log_prior(u)
            value = value + log_prior - 0.5 * float(z @ z)
            slope = slope + np.concatenate([prior_slope, -z])
        if not (np.isfinite(value) and np.isfinite(slope).all()):
            return -np.inf, np.zeros_like(v)
        return float(value), slope


@dataclass(frozen=True, eq=False)
class Found:
    """Hyper-parameters and noise latents that are used, and what to remember of the search."""

    points: list[tuple[np.ndarray, np.ndarray]]
    record: dict[str, Any]


def search(problem: Problem, seed: int, progress: Any = None) -> Found:
    """The mode, or draws, of what is not known. Raises `InputError` if nothing has a density."""
    method = problem.method
    if problem.size == 0:
        return Found([(np.zeros(0), np.zeros(0))], {})
    starts = _starts(problem, seed, method.restarts)
    spread = np.concatenate(
        [np.full(problem.model.free.size, HYPER_REACH), np.full(problem.noise.size, NOISE_REACH)]
    )
    centre = np.concatenate([starts[0][: problem.model.free.size], np.zeros(problem.noise.size)])
    low, high = centre - spread, centre + spread
    with_prior = method.hyper != "evidence"

    def objective(v: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = problem.log_density(v, prior=with_prior)
        return (-value, -slope) if np.isfinite(value) else (1e25, np.zeros_like(v))

    ends = []
    for number, start in enumerate(starts):
        ends.append(
            optimize.minimize(
                objective,
                np.clip(start, low, high),
                jac=True,
                method="L-BFGS-B",
                bounds=list(zip(low, high, strict=True)),
            )
        )
        if progress is not None:
            progress("search", number + 1, len(starts))
    ends.sort(key=lambda end: end.fun)
    best = ends[0]
    if best.fun >= 1e25:
        problem.log_evidence(best.x)  # raises what is wrong
        raise InputError("No hyper-parameters near the start give a finite evidence.")
    reached = tuple(-float(end.fun) for end in ends)
    stuck = (best.x <= low + 1e-6) | (best.x >= high - 1e-6)
    problems = []
    if stuck.any():
        problems.append(
            f"{int(stuck.sum())} of {len(stuck)} hyper-parameters ran into a bound of the search: the data do "
            "not determine them"
        )
    u, _ = problem.split(best.x)
    record: dict[str, Any] = {
        "hyper": method.hyper,
        "reached": reached,
        "hyperparameters": problem.model.named(u),
    }
    points = [best.x]
    if method.hyper in SAMPLED:
        drawn = sample_hyper(
            problem.log_density, best.x, method.draws, seed, progress, method.hyper
        )
        points = list(drawn.points)
        problems += drawn.problems
        record |= {
            "acceptance": drawn.acceptance,
            "rhat": drawn.rhat,
            "effective_size": drawn.effective_size,
            "transitions": drawn.transitions,
        }
        evidence = problem.integrated(drawn.points, seed)
        if evidence is not None:
            problems += evidence.problems
            record |= {"log_evidence": evidence.value, "log_evidence_error": evidence.error}
    record["problems"] = tuple(problems)
    return Found([problem.split(v) for v in points], record)


def _starts(problem: Problem, seed: int, restarts: int) -> list[np.ndarray]:
    """The middle of the prior, then draws from it."""
    size, m = problem.model.free.size, problem.noise.size
    rng = np.random.default_rng(seed)
    drawn = np.zeros((PRIOR_DRAWS, size))
    if size:
        drawn = problem.model.free.draw(jax.random.key(seed), PRIOR_DRAWS)
    first = np.concatenate([np.median(drawn, axis=0), np.zeros(m)])
    more = [
        np.concatenate([drawn[i], rng.normal(size=m)]) for i in range(min(restarts, PRIOR_DRAWS))
    ]
    return [first, *more]
