"""The diabetes table: one split, four models, the same measures for each."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest, norm
from sklearn.datasets import load_diabetes
from sklearn.linear_model import BayesianRidge
from sklearn.model_selection import train_test_split

import bayesnet as bn
from bayesnet.defaults import BOX, default_network, default_target

LEVEL = 0.9
UNIT = "points of disease progression"


@dataclass
class Result:
    """A model's predictions of the test rows: arrays (n,), in units of y.

    `cdf` is the predictive probability at or below each target, from which every calibration
    statement follows; `log_density` includes observation noise.
    """

    name: str
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    log_density: np.ndarray
    cdf: np.ndarray
    seconds: float
    remark: str = ""

    def rmse(self, y: np.ndarray) -> float:
        return float(np.sqrt(np.mean((self.mean - y) ** 2)))

    def nll(self) -> float:
        return float(-self.log_density.mean())

    def coverage(self, y: np.ndarray) -> tuple[float, float, float]:
        """The share of targets inside the interval, with its exact 95 % binomial interval."""
        inside = int(((self.low <= y) & (y <= self.high)).sum())
        bounds = binomtest(inside, len(y)).proportion_ci(0.95, "exact")
        return inside / len(y), float(bounds.low), float(bounds.high)


def load_split(small: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """X train, X test, y train, y test: one random split, a fifth held out."""
    X, y = load_diabetes(return_X_y=True, scaled=False)
    if small:
        X, y = X[:80], y[:80]
    return train_test_split(X, y, test_size=0.2, random_state=0)


def priors(in_dim: int, small: bool) -> tuple[Any, Any, float]:
    """The matched prior, the N(0, 1) prior of the same network, and the seconds of the match."""
    network = bn.MLP((10,)) if small else default_network()
    unmatched = bn.NetworkPrior(network, in_dim=in_dim)
    began = time.perf_counter()
    box = bn.Box([BOX[0]] * in_dim, [BOX[1]] * in_dim)
    match = bn.match_prior(unmatched, default_target(in_dim), box, steps=50 if small else 400)
    return match.prior, unmatched, time.perf_counter() - began


def fit_network(name: str, prior: Any, method: Any, split: Any) -> Result:
    """HMC under `prior`; the predictive density is the mixture over the draws."""
    X, X_test, y, y_test = split
    began = time.perf_counter()
    posterior = bn.fit(prior, X, y, inference=method, seed=0, warn=False)
    prediction = posterior.predict(X_test)
    low, high = prediction.interval(LEVEL)
    seconds = time.perf_counter() - began
    report = posterior.diagnostics()
    rhat = max(row.rhat for row in report.rows if row.name.startswith("f at training"))
    return Result(
        name,
        prediction.mean[:, 0],
        low[:, 0],
        high[:, 0],
        prediction.log_prob(y_test)[:, 0],
        prediction.cdf(y_test)[:, 0],
        seconds,
        f"R-hat of fitted values at most {rhat:.2f}",
    )


def _gaussian(
    name: str, mean: np.ndarray, std: np.ndarray, y: np.ndarray, seconds: float
) -> Result:
    half = norm.ppf(0.5 + LEVEL / 2) * std
    law = norm(mean, std)
    return Result(name, mean, mean - half, mean + half, law.logpdf(y), law.cdf(y), seconds)


def fit_gaussian_process(split: Any) -> Result:
    """BoTorch's SingleTaskGP (gpytorch) with its defaults: ARD RBF kernel, MAP, learned noise."""
    import torch
    from botorch import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.models.transforms import Normalize, Standardize
    from gpytorch.mlls import ExactMarginalLogLikelihood

    X, X_test, y, y_test = split
    began = time.perf_counter()
    model = SingleTaskGP(
        torch.as_tensor(X),
        torch.as_tensor(y)[:, None],
        input_transform=Normalize(X.shape[1]),
        outcome_transform=Standardize(1),
    )
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    posterior = model.posterior(torch.as_tensor(X_test), observation_noise=True)
    mean = posterior.mean[:, 0].detach().numpy()
    std = posterior.variance[:, 0].sqrt().detach().numpy()
    return _gaussian("GP (BoTorch)", mean, std, y_test, time.perf_counter() - began)


def fit_linear(split: Any) -> Result:
    """Bayesian linear regression: the bar that any flexible model should at least reach."""
    X, X_test, y, y_test = split
    began = time.perf_counter()
    loc, scale = X.mean(axis=0), X.std(axis=0)
    model = BayesianRidge().fit((X - loc) / scale, y)
    mean, std = model.predict((X_test - loc) / scale, return_std=True)
    return _gaussian("linear (BayesianRidge)", mean, std, y_test, time.perf_counter() - began)


def table(results: list[Result], y: np.ndarray) -> str:
    """The measures as text, one line a model."""
    lines = [f"  {'model':<24}{'RMSE':>7}{'NLL':>8}   {'90 % interval holds':<22}{'fit':>7}"]
    for r in results:
        share, low, high = r.coverage(y)
        lines.append(
            f"  {r.name:<24}{r.rmse(y):>7.2f}{r.nll():>8.3f}   "
            f"{f'{share:.0%} ({low:.0%} to {high:.0%})':<22}{r.seconds:>5.1f} s"
        )
    return "\n".join(lines)


def verdict(results: list[Result]) -> list[str]:
    """Paired by test row: the first model against each other one, in words."""
    first, *others = results
    lines = []
    for other in others:
        gain = first.log_density - other.log_density
        mean, error = gain.mean(), gain.std(ddof=1) / np.sqrt(len(gain))
        word = "no clear difference"
        if abs(mean) > 2 * error:
            word = "better" if mean > 0 else "worse"
        lines.append(
            f"  {first.name} against {other.name}: {word} "
            f"(NLL lower by {mean:+.3f} +- {error:.3f} a row)"
        )
    return lines
