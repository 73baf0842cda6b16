"""One small table conditioned twice: by HMC, and by weights that were trained once for any table."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from demo_parts.regression import LEVEL, Result
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

import bayesnet as bn
from bayesnet.defaults import default_network

COLUMN = "body mass index (kg/m2)"
# Calls after the first, of which the median time is told.
REPEATS = 5
# The trained weights: of networks, as HMC conditions them, and of Gaussian processes.
WEIGHTS = (("PFN of networks (bnn)", "bnn"), ("PFN of GPs (gp)", "gp"))


@dataclass
class Band:
    """What a posterior says along the column: arrays (n,) in units of y.

    `low`, `high`: the 90 % interval of a new observation; `std`: the sd of the function, which
    more rows would reduce.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    std: np.ndarray


@dataclass
class Conditioned:
    """A result on the held-out rows, the bands for the figure, and what was spent before."""

    result: Result
    band: Band
    remark: str


def load_split(small: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """X train, X test, y train, y test: one column of diabetes, 100 rows to fit (a random choice)."""
    X, y = load_diabetes(return_X_y=True, scaled=False)
    X = X[:, [2]]
    return train_test_split(X, y, train_size=20 if small else 100, random_state=0)


def grid(X: np.ndarray) -> np.ndarray:
    """Points along the column, a fifth of its range beyond the rows on each side."""
    margin = 0.2 * np.ptp(X)
    return np.linspace(X.min() - margin, X.max() + margin, 200)[:, None]


def by_hmc(split: Any, small: bool) -> Conditioned:
    """HMC on a network whose weight prior is matched to the default process, noise learned."""
    X, X_test, y, y_test = split
    method = bn.HMC(chains=4, warmup=200, draws=200)
    prior: Any = default_network()
    if small:
        method = bn.HMC(chains=2, warmup=20, draws=20, max_steps=8)
        prior = bn.NetworkPrior(bn.MLP((10,)), in_dim=1)
    posterior = bn.fit(prior, X, y, inference=method, seed=0, warn=False)
    began = time.perf_counter()
    result = _result("network by HMC", posterior.predict(X_test), y_test)
    predicted = time.perf_counter() - began
    seconds = posterior.seconds
    result.seconds = seconds["warmup"] + seconds["sampling"] + predicted
    report = posterior.diagnostics()
    rhat = max(row.rhat for row in report.rows if row.name.startswith("f at training"))
    remark = f"compiled in {seconds['compile']:.0f} s; R-hat of fitted values at most {rhat:.2f}"
    return Conditioned(result, _band(posterior.predict(grid(X))), remark)


def by_pfn(name: str, weights: str, split: Any) -> Conditioned:
    """The shipped weights: one forward pass, nothing fitted.

    Without the check whether the table is like those of the prior (`warn`), which the weights answer
    by predicting halves of it: three more programs to compile.
    """
    X, X_test, y, y_test = split
    began = time.perf_counter()
    pfn = bn.PFN.from_pretrained(weights)
    loaded = time.perf_counter()
    prediction = pfn.fit(X, y, warn=False).predict(X_test)
    compiled = time.perf_counter()
    result = _result(name, prediction, y_test)
    result.seconds = statistics.median(_timed(pfn, X, y, X_test) for _ in range(REPEATS))
    remark = f"read in {loaded - began:.1f} s, compiled in {compiled - loaded:.1f} s"
    return Conditioned(result, _band(pfn.fit(X, y, warn=False).predict(grid(X))), remark)


def table(conditioned: list[Conditioned], y: np.ndarray) -> str:
    """The measures as text, one line a posterior."""
    lines = [f"  {'posterior':<24}{'RMSE':>7}{'NLL':>8}   {'90 % interval holds':<22}{'time':>10}"]
    for r in (c.result for c in conditioned):
        share, low, high = r.coverage(y)
        spent = f"{r.seconds:.1f} s" if r.seconds >= 1 else f"{1000 * r.seconds:.0f} ms"
        lines.append(
            f"  {r.name:<24}{r.rmse(y):>7.2f}{r.nll():>8.3f}   "
            f"{f'{share:.0%} ({low:.0%} to {high:.0%})':<22}{spent:>10}"
        )
    return "\n".join(lines)


def agreement(first: Conditioned, second: Conditioned, X: np.ndarray) -> str:
    """How far two posteriors are from each other where the rows are, in words."""
    inside = (X.min() <= grid(X)[:, 0]) & (grid(X)[:, 0] <= X.max())
    a, b = first.band, second.band
    shift = np.sqrt(np.mean((a.mean - b.mean)[inside] ** 2))
    spread = np.sqrt(np.mean(a.std[inside] ** 2))
    ratio = np.median((b.std / a.std)[inside])
    width = np.median(((b.high - b.low) / (a.high - a.low))[inside])
    return (
        f"  {second.result.name} against {first.result.name}, over the range of the rows: means "
        f"{shift:.1f} apart (rms)\n  where the sd of the function is {spread:.1f}; sd of the function "
        f"{ratio:.2f} times as large,\n  intervals {width:.2f} times as wide (medians)"
    )


def _timed(pfn: Any, X: np.ndarray, y: np.ndarray, X_test: np.ndarray) -> float:
    began = time.perf_counter()
    pfn.fit(X, y, warn=False).predict(X_test).interval(LEVEL)
    return time.perf_counter() - began


def _result(name: str, prediction: Any, y: np.ndarray) -> Result:
    low, high = prediction.interval(LEVEL)
    return Result(
        name,
        prediction.mean[:, 0],
        low[:, 0],
        high[:, 0],
        prediction.log_prob(y)[:, 0],
        prediction.cdf(y)[:, 0],
        0.0,
    )


def _band(prediction: Any) -> Band:
    low, high = prediction.interval(LEVEL)
    return Band(prediction.mean[:, 0], low[:, 0], high[:, 0], prediction.epistemic_std[:, 0])
