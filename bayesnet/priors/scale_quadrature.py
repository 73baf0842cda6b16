"""Integrals over the logarithm of a random scale: nodes where the posterior is, as many as it needs.

The log joint density of u = log s and the data is a function of one variable. Gauss-Hermite nodes
are put around its mode with the standard deviation of its curvature there, and doubled until the
evidence and the posterior moments of the scale stop changing. Where they do not stop (densities that
fall slowly to one side), an even grid over the whole mass takes over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import expit, logsumexp, roots_hermite

from bayesnet._errors import InputError

# Numbers of nodes that are tried; the range of log s in which the mode is looked for.
SIZES = (16, 32, 64, 128, 256)
RANGE, COARSE, ZOOMS = 80.0, 1601, 4
# The even grid: mass below exp(-DROP) of the peak is left out. Its numbers of nodes.
DROP, GRIDS = 60.0, (129, 257, 513, 1025, 2049)

LogDensity = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class ScaleNodes:
    """A quadrature rule for the posterior of u = log s.

    Attributes:
        u: (j,) nodes; log_weight: (j,) their posterior log probabilities, which sum to 1.
        log_evidence: log of the integral of the joint density.
        error: the change of the log evidence, and of the expected s^(1/4) and s / (s + s0),
            s0 the mode, from half as many nodes: an estimate of the error of the coarser rule.
        rule: "gauss-hermite", "even grid", "closed form" or "importance".
    """

    u: np.ndarray
    log_weight: np.ndarray
    log_evidence: float
    error: float
    rule: str


@lru_cache(maxsize=8)
def _hermite(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes of N(0, 1) and the logs of weight / density: sum exp(.) f(x) is the integral of f."""
    nodes, weights = roots_hermite(size)
    with np.errstate(divide="ignore"):
        return np.sqrt(2.0) * nodes, np.log(weights) + nodes**2 + 0.5 * np.log(2.0)


def find_mode(log_joint: LogDensity) -> tuple[float, float]:
    """The mode of a density of u and the standard deviation of its curvature there."""
    grid = np.linspace(-RANGE, RANGE, COARSE)
    values = _finite(log_joint(grid))
    best = int(np.argmax(values))
    if not np.isfinite(values[best]):
        raise InputError(
            "The density of the scale given the data is zero everywhere: the law of the scale and the "
            "data exclude each other, or the covariance is not finite."
        )
    mode, step = float(grid[best]), float(grid[1] - grid[0])
    for _ in range(ZOOMS):
        near = mode + np.linspace(-step, step, 65)
        mode = float(near[int(np.argmax(_finite(log_joint(near))))])
        step /= 32.0
    h = 1e-3
    left, middle, right = log_joint(np.array([mode - h, mode, mode + h]))
    curvature = -(left - 2.0 * middle + right) / h**2
    sd = 1.0 / np.sqrt(curvature) if np.isfinite(curvature) and curvature > 1e-4 else 3.0
    return mode, float(min(sd, 10.0))


def scale_nodes(log_joint: LogDensity, tolerance: float, tail: float = 0.0) -> ScaleNodes:
    """Nodes for the density `exp(log_joint(u))`, unnormalised, to a relative error of `tolerance`.

    Where neither rule gets there, the best one, whose `error` says so. `tail`: moments of s of lower
    order exist; where E[s] does, it is that of the nodes, the last of which may stand for all beyond.
    """
    moment = tail > 1.0
    mode, sd = find_mode(log_joint)
    best = None
    for build, sizes in ((_around_mode, SIZES), (_even, GRIDS)):
        before = None
        for size in sizes:
            rule = build(log_joint, mode, sd, size)
            if build is _even and moment and np.isfinite(tail):
                rule = _with_remainder(log_joint, rule)
            now = _summary(rule, mode, moment)
            if before is not None:
                error = float(np.max(np.abs(now - before)))
                found = ScaleNodes(rule.u, rule.log_weight, rule.log_evidence, error, rule.rule)
                if error < tolerance:
                    return _pruned(found, moment)
                if best is None or error < best.error:
                    best = found
            before = now
    assert best is not None
    return _pruned(best, moment)


def _around_mode(log_joint: LogDensity, mode: float, sd: float, size: int) -> ScaleNodes:
    x, log_w = _hermite(size)
    u = mode + sd * x
    terms = _finite(log_joint(u)) + log_w + np.log(sd)
    total = float(logsumexp(terms))
    return ScaleNodes(u, terms - total, total, np.inf, "gauss-hermite")


def _even(log_joint: LogDensity, mode: float, sd: float, size: int) -> ScaleNodes:
    """The trapezoid rule, geometric for analytic densities that fall off on both sides."""
    peak = float(_finite(log_joint(np.array([mode])))[0])
    ends = []
    for sign in (-1.0, 1.0):
        reach = 4.0 * sd
        while reach < 1e3 and _finite(log_joint(np.array([mode + sign * reach])))[0] > peak - DROP:
            reach *= 1.5
        ends.append(mode + sign * reach)
    u = np.linspace(ends[0], ends[1], size)
    terms = _finite(log_joint(u)) + np.log(u[1] - u[0])
    total = float(logsumexp(terms))
    return ScaleNodes(u, terms - total, total, np.inf, "even grid")


def _with_remainder(log_joint: LogDensity, rule: ScaleNodes) -> ScaleNodes:
    """The even grid and one node more, of the mass and the mean of s beyond its end.

    There the density falls like `exp(-t u)`, and E[s] has a part that falls like `exp(-(t - 1) u)` only:
    slowly where t is near 1.
    """
    h = rule.u[1] - rule.u[0]
    before, last = _finite(log_joint(rule.u[-1] + np.array([-h, 0.0])))
    slope = (before - last) / h
    if not (np.isfinite(slope) and slope > 1.0):
        return rule
    height = last - rule.log_evidence
    weight = rule.log_weight.copy()
    weight[-1] -= np.log(2.0)  # the trapezoid rule ends where the remainder begins
    return ScaleNodes(
        np.append(rule.u, rule.u[-1] + np.log(slope / (slope - 1.0))),
        np.append(weight, height - np.log(slope)),
        rule.log_evidence,
        rule.error,
        rule.rule,
    )


def _summary(rule: ScaleNodes, mode: float, moment: bool) -> np.ndarray:
    """What must have settled: the evidence, and functionals of the form that predictions have.

    E[1 / s] or E[s] may be infinite, and then never settle: of E[s] the caller knows.
    """
    w, u = rule.log_weight, rule.u
    shrinkage = float(np.exp(w) @ expit(u - mode))
    found = [rule.log_evidence, logsumexp(w + 0.25 * (u - mode)), shrinkage]
    return np.array([*found, logsumexp(w + u - mode)] if moment else found)


def _pruned(rule: ScaleNodes, moment: bool) -> ScaleNodes:
    """Without nodes whose weight could not be seen in any density of interest.

    With `moment` those on the far side become one, so that E[s] stays what it is.
    """
    keep = rule.log_weight > -45.0
    u, weight = rule.u[keep], rule.log_weight[keep]
    far = rule.u > u[-1]
    if moment and far.any():
        mass = logsumexp(rule.log_weight[far])
        mean = logsumexp(rule.log_weight[far] + rule.u[far]) - mass
        if np.isfinite(mass):
            u, weight = np.append(u, mean), np.append(weight, mass)
    return ScaleNodes(u, weight - logsumexp(weight), rule.log_evidence, rule.error, rule.rule)


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(values), -np.inf, values)
