"""Integrals over the logarithm of a random scale: nodes where the posterior is, as many as it needs.

The log joint density of u = log s and the data is a function of one variable. Gauss-Hermite nodes
are put around its mode with the standard deviation of its curvature there, and doubled until the
evidence and the posterior moments of the scale stop changing. Where they do not stop (densities that
fall slowly to one side), an even grid over the whole mass takes over; where the density jumps to zero
(a law with an end, as of Pareto), Gauss-Legendre nodes from there on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from scipy.special import expit, logsumexp, roots_hermite, roots_legendre

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
        rule: "gauss-hermite", "even grid", "gauss-legendre", "closed form" or "importance".
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


@lru_cache(maxsize=16)
def _legendre(size: int) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = roots_legendre(size)
    return nodes, np.log(weights)


def ends_of(log_density: LogDensity) -> tuple[float, float]:
    """Where a density of u begins and ends, to all digits; infinity where it falls off by itself."""
    if np.isfinite(_finite(log_density(np.array([-RANGE, RANGE])))).all():
        return -np.inf, np.inf
    grid = np.linspace(-RANGE, RANGE, COARSE)
    inside = np.flatnonzero(np.isfinite(_finite(log_density(grid))))
    if not len(inside):
        return -np.inf, np.inf
    found = []
    for at, step in ((inside[0], -1), (inside[-1], 1)):
        if not 0 <= at + step < COARSE:
            found.append(step * np.inf)
            continue
        near, far = float(grid[at]), float(grid[at + step])
        while True:
            between = np.linspace(near, far, 65)
            last = int(np.flatnonzero(np.isfinite(_finite(log_density(between))))[-1])
            if last == 64 or not 0 < abs(between[last + 1] - between[last]) < abs(far - near):
                break
            near, far = float(between[last]), float(between[last + 1])
        found.append(near)
    return found[0], found[1]


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
    grid = Grid(log_joint, mode, sd, moment and np.isfinite(tail))
    ways = (
        ((grid, GRIDS),)
        if grid.jumps
        else ((partial(_around_mode, log_joint, mode, sd), SIZES), (grid, GRIDS))
    )
    best = None
    for build, sizes in ways:
        before = None
        for size in sizes:
            rule = build(size)
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


class Grid:
    """Nodes over the whole mass: the trapezoid rule, geometric for analytic densities that fall off on
    both sides, or Gauss-Legendre nodes where the density jumps at an end.

    `remainder`: one node more, of the mass and the mean of s beyond the end. `farthest`: about how far
    from the mode the grid may reach. `low`, `high`: where it ends; `open`: whether there is mass beyond.
    """

    def __init__(
        self,
        log_joint: LogDensity,
        mode: float,
        sd: float,
        remainder: bool = False,
        farthest: float = 1e3,
    ) -> None:
        self.log_joint = log_joint
        peak = float(_finite(log_joint(np.array([mode])))[0])
        reached = []
        for sign in (-1.0, 1.0):
            reach = 4.0 * sd
            while (
                reach < 1e3 and _finite(log_joint(np.array([mode + sign * reach])))[0] > peak - DROP
            ):
                reach *= 1.5
            reached.append(mode + sign * reach)
        first, last = ends_of(log_joint)
        self.low, self.high = max(reached[0], first), min(reached[1], last)
        self.jumps = self.low == first or self.high == last
        self.open = self.high != last
        self.remainder = remainder and self.open

    def __call__(self, size: int) -> ScaleNodes:
        """`size` nodes, and the remainder."""
        if self.jumps:
            x, log_w = _legendre(size)
            half = 0.5 * (self.high - self.low)
            u, log_w = self.low + half * (x + 1.0), log_w + np.log(half)
        else:
            u = np.linspace(self.low, self.high, size)
            log_w = np.full(size, np.log(u[1] - u[0]))
        terms = _finite(self.log_joint(u)) + log_w
        total = float(logsumexp(terms))
        name = "gauss-legendre" if self.jumps else "even grid"
        rule = ScaleNodes(u, terms - total, total, np.inf, name)
        return self._with_remainder(rule) if self.remainder else rule

    def _with_remainder(self, rule: ScaleNodes) -> ScaleNodes:
        """Beyond the end the density falls like `exp(-t u)`, and E[s] has a part that falls like
        `exp(-(t - 1) u)` only: slowly where t is near 1."""
        h = (self.high - self.low) / (len(rule.u) - 1)
        before, last = _finite(self.log_joint(self.high + np.array([-h, 0.0])))
        slope = (before - last) / h
        if not (np.isfinite(slope) and slope > 1.0):
            return rule
        height = last - rule.log_evidence
        weight = rule.log_weight.copy()
        if not self.jumps:
            weight[-1] -= np.log(2.0)  # the trapezoid rule ends where the remainder begins
        return ScaleNodes(
            np.append(rule.u, self.high + np.log(slope / (slope - 1.0))),
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
