"""Moments of laws of a variance: in closed form, or by quadrature in logarithms with their tails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import betaln, gammaln

from bayesnet.priors.laws import LogNormal
from bayesnet.priors.scale_quadrature import Grid, find_mode
from bayesnet.priors.variance_laws import (
    BurrXII,
    Gamma,
    HalfCauchy,
    InverseGamma,
    NumpyroLaw,
    OnStd,
    PointMass,
    log_density_of,
    tail_of,
)

# How far from its mode, in logarithms, and at how many points a density without a closed form is summed.
REACH, POINTS = 150.0, 2049


def _gamma(a: float, b: float, p: float) -> float:
    return float(np.exp(gammaln(a + p) - gammaln(a) - p * np.log(b)))


def _inverse_gamma(a: float, b: float, p: float) -> float:
    return float(np.exp(p * np.log(b) + gammaln(a - p) - gammaln(a)))


def _log_normal(loc: float, scale: float, p: float) -> float:
    return float(np.exp(p * loc + 0.5 * (p * scale) ** 2))


def _burr(c: float, d: float, scale: float, p: float) -> float:
    return float(np.exp(p * np.log(scale) + np.log(d) + betaln(d - p / c, 1.0 + p / c)))


def _half_cauchy(scale: float, p: float) -> float:
    return float(scale**p / np.cos(0.5 * np.pi * p))


def _half_normal(scale: float, p: float) -> float:
    return float(np.exp(p * np.log(np.sqrt(2.0) * scale) + gammaln((1.0 + p) / 2) - gammaln(0.5)))


def _pareto(scale: float, alpha: float, p: float) -> float:
    return float(scale**p * alpha / (alpha - p))


def _weibull(scale: float, c: float, p: float) -> float:
    return float(scale**p * np.exp(gammaln(1.0 + p / c)))


# By the class of the law: E[v^p] where it is finite.
OWN: dict[type, Callable[[Any, float], float]] = {
    PointMass: lambda law, p: float(law.value**p),
    InverseGamma: lambda law, p: _inverse_gamma(law.a, law.b, p),
    Gamma: lambda law, p: _gamma(law.a, law.b, p),
    BurrXII: lambda law, p: _burr(law.c, law.d, law.scale, p),
    HalfCauchy: lambda law, p: _half_cauchy(law.scale, p),
    LogNormal: lambda law, p: _log_normal(law.loc, law.scale, p),
    OnStd: lambda law, p: law_moment(law.law, 2.0 * p),
}
# By the name of the numpyro distribution and its parameters.
NUMPYRO: dict[str, Callable[[dict[str, float], float], float]] = {
    "InverseGamma": lambda q, p: _inverse_gamma(q["concentration"], q["rate"], p),
    "Gamma": lambda q, p: _gamma(q["concentration"], q["rate"], p),
    "Exponential": lambda q, p: _gamma(1.0, q["rate"], p),
    "LogNormal": lambda q, p: _log_normal(q["loc"], q["scale"], p),
    "HalfNormal": lambda q, p: _half_normal(q["scale"], p),
    "HalfCauchy": lambda q, p: _half_cauchy(q["scale"], p),
    "Chi2": lambda q, p: _gamma(0.5 * q["df"], 0.5, p),
    "Pareto": lambda q, p: _pareto(q["scale"], q["alpha"], p),
    "Weibull": lambda q, p: _weibull(q["scale"], q["concentration"], p),
}


def law_moment(law: Any, power: float) -> float:
    """E[v^power] of a value v under a law of variances; infinity where it is."""
    if tail_of(law) <= power:
        return float("inf")
    if type(law) in OWN:
        return OWN[type(law)](law, power)
    if isinstance(law, NumpyroLaw) and law.name in NUMPYRO:
        return NUMPYRO[law.name](dict(law.parameters), power)

    def integrand(u: np.ndarray) -> np.ndarray:
        return log_density_of(law, u) + power * u

    grid = Grid(integrand, *find_mode(integrand), farthest=REACH)
    inside = np.exp(grid(POINTS).log_evidence)
    tail = tail_of(law)
    if not (grid.open and np.isfinite(tail)):
        return float(inside)
    # From the end on it falls like exp(-(tail - power) u).
    own = 0.0 if grid.jumps else 0.5 * (grid.high - grid.low) / (POINTS - 1)
    last = integrand(np.array([grid.high]))[0]
    return float(inside + np.exp(last) * (1.0 / (tail - power) - own))
