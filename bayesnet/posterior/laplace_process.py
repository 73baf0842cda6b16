"""A posterior of class labels by the Laplace approximation of their latent process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import logsumexp

from bayesnet._repr import fitted_to, judged
from bayesnet.data import Scaling
from bayesnet.posterior.laplace_solution import Labels, LaplaceMode, laplace_mode
from bayesnet.posterior.latent_process import (
    POINTS,
    LatentProcess,
    LatentReport,
    Marginals,
    covariance_roots,
    label_law,
    pick_nodes,
    rule,
)
from bayesnet.posterior.process import _NONE
from bayesnet.posterior.process_report import (
    chain_line,
    expansion_problems,
    integrated_evidence,
)
from bayesnet.posterior.process_table import base_of
from bayesnet.priors.kernel_model import KernelModel
from bayesnet.priors.process_blocks import jittered_cholesky
from bayesnet.priors.scale_mixture import ScaleMixture
from bayesnet.priors.scale_quadrature import ends_of
from bayesnet.priors.variance_laws import PointMass, log_density_of

# Scales: nats below the peak at which their law, and their posterior, are cut off; modes over the
# first range, and over the second until the evidence settles.
LEAST_PRIOR, LEAST, COARSE, SIZES, TOLERANCE = 30.0, 14.0, 13, (9, 17, 33, 65), 1e-3
# Beyond these log scales class probabilities do not change any more.
FARTHEST = 16.0
# Rows whose labels are looked at, and nats a row that are worth a word (see `shortfall`).
SHORTFALL_ROWS, NOTABLE_SHORTFALL = 64, 0.25
# Nodes of less weight are left out.
NEGLIGIBLE = 1e-6


@dataclass(frozen=True, eq=False)
class LaplaceNodes:
    """Modes at values u = log s of the scale (one at u = 0 for a process): `log_weight` (j,) their
    posterior probabilities; `error` of the log evidence by quadrature."""

    u: np.ndarray
    log_weight: np.ndarray
    modes: tuple[LaplaceMode, ...]
    log_evidence: float
    error: float


def solve_labels(prior: Any, labels: Labels, matrix: np.ndarray, mean: np.ndarray) -> LaplaceNodes:
    """The approximation under a process, or its mixture over scales, for the matrix at s = 1."""

    def at(u: float) -> LaplaceMode:
        return laplace_mode(labels, np.exp(u) * matrix, mean)

    law = prior.scale if isinstance(prior, ScaleMixture) else PointMass(1.0)
    if isinstance(law, PointMass):
        mode = at(float(np.log(law.value)))
        u = np.array([np.log(law.value)])
        return LaplaceNodes(u, np.zeros(1), (mode,), mode.log_evidence, 0.0)
    return scale_modes(at, lambda u: log_density_of(law, u))


def scale_modes(
    at: Callable[[float], LaplaceMode], log_density: Callable[[np.ndarray], np.ndarray]
) -> LaplaceNodes:
    """The trapezoid rule in u = log s over the posterior's mass, its points doubled until the log
    evidence changes by less than `TOLERANCE` (it is a smooth function of u; `error` is the change).
    """
    wide = np.linspace(-FARTHEST, FARTHEST, 4001)
    likely = log_density(wide)
    own = wide[likely > np.max(likely) - LEAST_PRIOR]
    step = wide[1] - wide[0]
    low, high = ends_of(log_density)
    if low > own[0] - step:  # a law that begins there: not somewhere within a step
        own[0] = low
    if high < own[-1] + step:
        own[-1] = high
    grid = np.linspace(own[0], own[-1], COARSE)
    smooth = CubicSpline(grid, [at(u).log_evidence for u in grid])
    fine = np.linspace(own[0], own[-1], 1000)
    density = smooth(fine) + log_density(fine)
    inside = fine[density > density.max() - LEAST]
    u = np.linspace(inside[0], inside[-1], SIZES[0])
    modes = [at(v) for v in u]
    total = error = np.inf
    for size in SIZES:
        if size > len(u):
            between = 0.5 * (u[1:] + u[:-1])
            merged = np.empty(size)
            merged[::2], merged[1::2] = u, between
            new = [at(v) for v in between]
            modes = [new[i // 2] if i % 2 else modes[i // 2] for i in range(size)]
            u = merged
        heights = np.array([mode.log_evidence for mode in modes])
        terms = heights + log_density(u) + np.log(u[1] - u[0])
        terms[[0, -1]] -= np.log(2.0)
        before, total = total, float(logsumexp(terms))
        error = abs(total - before)
        if error < TOLERANCE:
            break
    keep = terms - total > np.log(NEGLIGIBLE)
    kept = terms[keep] - logsumexp(terms[keep])
    chosen = tuple(mode for mode, k in zip(modes, keep, strict=True) if k)
    return LaplaceNodes(u[keep], kept, chosen, total, error)


@dataclass(frozen=True, eq=False)
class LaplacePosterior(LatentProcess):
    """Latent functions given labels, by the Laplace approximation; what `bn.ProcessLaplace` makes.

    Fields, in scaled coordinates and float64:
        priors: the prior with fixed hyper-parameters; several, equally weighted, where these were
            sampled.
        x (n, d), codes (n,) class indices, weight (n,); scaling: the map of inputs to user units.
        search: what the search of hyper-parameters reports.
    """

    priors: tuple[Any, ...]
    likelihood: Any
    scaling: Scaling
    x: np.ndarray
    codes: np.ndarray
    weight: np.ndarray
    method: Any = None
    search: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        what = f"Laplace approximation of {len(self.likelihood.classes)} classes"
        trust = judged(self.search.get("problems", ()))
        return fitted_to(self, what, (*self.x.shape, 1), trust)

    @property
    def prior(self) -> Any:
        """The prior with its hyper-parameters (the first, where there are several)."""
        return self.priors[0]

    @property
    def columns(self) -> int:
        return self.x.shape[1]

    @cached_property
    def labels(self) -> Labels:
        """The labels as the algebra takes them."""
        return Labels(self.codes, self.weight, self.likelihood.num_outputs(1))

    @cached_property
    def _solved(self) -> tuple[tuple[KernelModel, LaplaceNodes], ...]:
        out = []
        for prior in self.priors:
            model = KernelModel(base_of(prior))
            matrix = model.matrix(_NONE, self.x, self.x)
            jittered_cholesky(matrix)  # modes of a few labels may exist where it is no covariance
            mean = latent_mean(model, _NONE, self.x, self.labels.outputs)
            out.append((model, solve_labels(prior, self.labels, matrix, mean)))
        return tuple(out)

    def __getstate__(self) -> dict[str, Any]:
        # Modes and factors are made again where they are needed.
        return {k: v for k, v in self.__dict__.items() if k in self.__dataclass_fields__}

    @property
    def solutions(self) -> tuple[LaplaceNodes, ...]:
        """The modes behind the posterior, one set for each of `priors`."""
        return tuple(nodes for _, nodes in self._solved)

    @property
    def log_evidence(self) -> float:
        """Laplace's approximation of the log probability of the labels given the inputs, in nats.

        Hyper-parameters at the values that were learned, or, where they were sampled, integrated out
        under their laws: an estimate with the standard error `log_evidence_error`. With `sample_weight`
        that of the weighted likelihood. Labels are not scaled, and so comparable whatever the units of
        the prior. Raises `UnsupportedError` for several hyper-parameters of another origin.
        """
        if len(self.priors) > 1:
            return integrated_evidence(self.search)
        return self.solutions[0].log_evidence

    @property
    def log_evidence_error(self) -> float:
        """The Monte-Carlo standard error of `log_evidence` in nats: 0 unless hyper-parameters were
        sampled. What Laplace's approximation misses is not in it."""
        if len(self.priors) > 1:
            return float(self.search.get("log_evidence_error", np.nan))
        return 0.0

    def _marginals(self, new: np.ndarray) -> Marginals:
        weight, mean, root = [], [], []
        for model, nodes in self._solved:
            cross, diagonal = model.matrix(_NONE, new, self.x), model.diagonal(_NONE, new)
            start = latent_mean(model, _NONE, new, self.labels.outputs)
            for u, mode in zip(nodes.u, nodes.modes, strict=True):
                s = np.exp(u)
                mean.append(start + s * (cross @ mode.alpha))
                spread = mode.factors.marginal(s * cross, s * diagonal)
                root.append(covariance_roots(spread))
            weight.append(nodes.log_weight - np.log(len(self.priors)))
        return Marginals(np.concatenate(weight), np.stack(mean), np.stack(root))

    def _joint(self, new: np.ndarray, num: int, rng: np.random.Generator) -> np.ndarray:
        n, outputs = len(self.x), self.labels.outputs
        weight = np.concatenate([nodes.log_weight for nodes in self.solutions])
        picked = pick_nodes(rng, weight - np.log(len(self.priors)), num)
        normal = rng.standard_normal((num, n + len(new), outputs))
        e = rng.standard_normal((num, n, outputs))
        out = np.empty((num, len(new), outputs))
        number = 0
        for model, nodes in self._solved:
            chosen = np.flatnonzero((picked >= number) & (picked < number + len(nodes.u)))
            if len(chosen):
                both = np.concatenate([self.x, new])
                full = model.matrix(_NONE, both, both)
                factor, _ = jittered_cholesky(
                    full + 1e-10 * np.mean(np.diag(full)) * np.eye(len(full))
                )
                start = latent_mean(model, _NONE, new, outputs)
            for offset, (u, mode) in enumerate(zip(nodes.u, nodes.modes, strict=True)):
                own = np.flatnonzero(picked == number + offset)
                if not len(own):
                    continue
                s = np.exp(u)
                f0 = np.sqrt(s) * np.einsum("ij,sjk->sik", factor, normal[own], optimize=True)
                cross = s * full[n:, :n]
                moved = mode.draw(f0[:, :n], cross, f0[:, n:], e[own])
                out[own] = start + cross @ mode.alpha + moved
            number += len(nodes.u)
        return out

    @cached_property
    def shortfall(self) -> float:
        """Nats a row by which the table's own labels are less probable averaged over the Gaussian law than at
        its mode (mean over at most `SHORTFALL_ROWS` rows).

        Far from 0 the law reaches where labels are wrong, to which the true posterior does not go:
        Laplace's approximation is then right about the class and too unsure of it (Kuss & Rasmussen 2005).
        """
        rows = np.linspace(0, len(self.x) - 1, min(len(self.x), SHORTFALL_ROWS)).astype(int)
        at = np.arange(len(rows)), self.codes[rows]

        def probability(f: np.ndarray) -> np.ndarray:
            """Of the labels, for latents (s, n, K): (s, n)."""
            return np.exp(label_law(self.likelihood, f).log_probabilities[:, *at])

        averaged = probability(rule(self._marginals(self.x[rows]), POINTS)).mean(axis=0)
        best = np.zeros(len(rows))
        for nodes in self.solutions:
            own = probability(np.stack([mode.f[rows] for mode in nodes.modes]))
            best += np.exp(nodes.log_weight) @ own / len(self.priors)
        return float(np.mean(np.log(best) - np.log(averaged)))

    def diagnostics(self) -> LatentReport:
        """The evidence, and what there is to distrust: hyper-parameters at bounds, quadrature, a law
        that is too wide (`shortfall`)."""
        error = max(nodes.error for nodes in self.solutions)
        several = len(self.priors) > 1
        known = not several or "log_evidence" in self.search
        evidence = self.log_evidence if known else float("nan")
        lines = [
            f"Laplace approximation of {self.labels.outputs} latent function(s), "
            f"{sum(self.seconds.values()):.1f} s",
            f"log evidence (approximate) {evidence:.3f}, {evidence / len(self.x):.3f} a row"
            if known
            else "no log evidence",
        ]
        if several:
            if known:
                lines[-1] += f", Monte-Carlo error {self.log_evidence_error:.2f}"
            lines.append(chain_line(self.search, len(self.priors)))
        problems = list(self.search.get("problems", ()))
        problems += expansion_problems(self.prior, self.x)
        if any(len(nodes.u) > 1 for nodes in self.solutions):
            lines.append(f"error of the integral over the scale below {error:.1e} nats")
            if error > 10 * TOLERANCE:
                problems.append(f"the integral over the scale is known to {error:.1e} nats only")
        if self.shortfall > NOTABLE_SHORTFALL:
            problems.append(
                f"averaged over the Gaussian law the table's labels are {self.shortfall:.2f} nats a row less "
                "probable than at its mode: predictions will be too unsure; use bn.SparseVariational()"
            )
        lines += [f"{k} = {v}" for k, v in self.search.get("hyperparameters", {}).items()]
        headline = f"Laplace, log evidence {evidence:.3f}" if known else "Laplace"
        return LatentReport(tuple(lines), headline, tuple(problems))


def latent_mean(model: KernelModel, u: np.ndarray, x: np.ndarray, outputs: int) -> np.ndarray:
    """The prior mean (n, K), that of one output for all where the prior has one."""
    mean = model.mean(u, x)
    return np.array(np.broadcast_to(mean, (len(x), outputs)))
