"""Infinite networks and their scale mixtures on real tables, by the grid of Lee et al. (2022).

Declared before the runs. Boston, energy, yacht (standard 90/10 splits, the first 10) and 1,000 rows of
kin8nm (drawn once; 10 random 90/10 splits of them). Kernel: relu network with four hidden layers, weight_std
{1, 1.4, 2} x bias_std {0, 0.3, 1}; noise sd {0.03, 0.06, 0.12, 0.25, 0.5} of standardised y. Everything
is chosen by the NLL of VALIDATION rows, a fifth of the training rows; the chosen setting is then
conditioned on all training rows by `bn.Exact`, and the test rows are looked at once. Arms:

`gp`: the process, amplitude as the kernel gives it;
`gp_learned`: times an amplitude that maximises the evidence, noise as stated (outside);
`gp_learned_inside`: the same with the noise multiplied as well;
`t_inside`: inverse gamma (a, b) in {1, 2, 3} x {1, 2, 3}, noise inside (a Student-t process);
`t_outside`: the same laws, noise outside (quadrature).

Added after these had been seen (the least noise of the grid was chosen nearly always), without validation rows:
`gp_evidence`: one weight_std and one bias_std for all layers, and the noise, by the evidence of all training rows;
`t_evidence`: the same network times an amplitude ~ InverseGamma(2, 2), noise inside and learned again.

Validation is numpy on matrices of the library's kernel, one eigendecomposition for all noises and laws.

    python benchmarks/process_regression.py boston_housing energy yacht kin8nm
"""

from __future__ import annotations

import argparse
import itertools
import json
import warnings
from functools import cache, partial

import numpy as np
from _common import SHARED_DATA
from _studies import paired, run, table
from scipy import stats
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

import bayesnet as bn

FIELDS = ("table", "split", "arm")
GRID_ARMS = ("gp", "gp_learned", "gp_learned_inside", "t_inside", "t_outside")
ARMS = (*GRID_ARMS, "gp_evidence", "t_evidence")
TABLES = ("boston_housing", "energy", "yacht", "kin8nm")
WEIGHTS, BIASES = (1.0, 1.4, 2.0), (0.0, 0.3, 1.0)
NOISES = (0.03, 0.06, 0.12, 0.25, 0.5)
LAWS = tuple(itertools.product((1.0, 2.0, 3.0), repeat=2))
SPLITS, ROWS = 10, 1000
# Log scales of the quadrature of validation: the posterior of s is narrow beside this.
GRID = np.linspace(-8.0, 10.0, 361)


@cache
def load(name: str) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """(x, y, test rows of each split)."""
    folder = SHARED_DATA / "uci" / name
    values = np.loadtxt(folder / "data.csv", delimiter=",", skiprows=1)
    if name == "kin8nm":
        values = values[np.random.default_rng(0).permutation(len(values))[:ROWS]]
        tests = [np.random.default_rng(s).permutation(ROWS)[: ROWS // 10] for s in range(SPLITS)]
    else:
        tests = [np.asarray(t) for t in json.loads((folder / "splits.json").read_text())["test"]]
    return values[:, :-1], values[:, -1], tests[:SPLITS]


def network(weight: float, bias: float) -> bn.kernels.NNGP:
    return bn.kernels.NNGP(depth=4, activation="relu", weight_std=weight, bias_std=bias)


class Validation:
    """Scores of all settings on the validation rows, for one kernel."""

    def __init__(self, kernel: bn.kernels.NNGP, x: np.ndarray, y: np.ndarray, held: np.ndarray):
        fit = ~held
        whole = kernel.in_blocks(x)
        self.y, self.t, self.n = y[fit], y[held], int(fit.sum())
        values, vectors = np.linalg.eigh(whole[np.ix_(fit, fit)])
        self.values = np.maximum(values, 0.0)
        self.projected = vectors.T @ self.y
        self.cross = whole[np.ix_(held, fit)] @ vectors
        self.own = np.diag(whole)[held]

    def evidence(self, s: float, noise: float) -> float:
        """The log evidence of amplitude s and noise variance, up to a constant."""
        total = s * self.values + noise
        return float(-0.5 * np.sum(self.projected**2 / total + np.log(total)))

    def moments(self, s: float, noise: float) -> tuple[np.ndarray, np.ndarray]:
        total = s * self.values + noise
        mean = s * self.cross @ (self.projected / total)
        left = s * self.own - s**2 * (self.cross**2 / total).sum(1)
        return mean, np.sqrt(np.maximum(left, 0.0) + noise)

    def gaussian(self, s: float, noise: float) -> float:
        return float(-stats.norm.logpdf(self.t, *self.moments(s, noise)).mean())

    def amplitude(self, sd: float, *, inside: bool) -> float:
        if inside:
            return float(np.mean(self.projected**2 / (self.values + sd**2)))
        found = minimize_scalar(lambda u: -self.evidence(np.exp(u), sd**2), bounds=(-8, 10), method="bounded")  # fmt: skip
        return float(np.exp(found.x))

    def student(self, a: float, b: float, sd: float) -> float:
        """Noise inside: Student-t of 2a + n degrees of freedom in closed form."""
        mean, std = self.moments(1.0, sd**2)
        q = np.sum(self.projected**2 / (self.values + sd**2))
        scale = std * np.sqrt((2 * b + q) / (2 * a + self.n))
        return float(-stats.t.logpdf(self.t, 2 * a + self.n, mean, scale).mean())

    def mixtures(self, sd: float) -> list[float]:
        """Noise outside, for each of `LAWS`: quadrature around the peak of the evidence."""
        heights = np.array([self.evidence(np.exp(u), sd**2) for u in GRID])
        near = np.flatnonzero(heights > heights.max() - 40.0)
        u = np.linspace(GRID[max(near[0] - 1, 0)], GRID[min(near[-1] + 1, len(GRID) - 1)], 48)
        heights = np.array([self.evidence(np.exp(v), sd**2) for v in u])
        density = np.stack(
            [stats.norm.logpdf(self.t, *self.moments(np.exp(v), sd**2)) for v in u], 1
        )
        out = []
        for a, b in LAWS:
            weight = heights + stats.invgamma.logpdf(np.exp(u), a, scale=b) + u
            weight -= logsumexp(weight)
            out.append(float(-logsumexp(density + weight, axis=1).mean()))
        return out


@cache
def chosen(name: str, split: int) -> dict[str, dict]:
    """The setting of each arm with the least NLL of the validation rows."""
    x, y, tests = load(name)
    train = np.setdiff1d(np.arange(len(y)), tests[split])
    scaling = bn.data.Scaling.from_data(x[train], y[train, None])
    rows, targets = scaling.x_in(x[train]), scaling.y_in(y[train, None])[:, 0]
    held = np.zeros(len(train), bool)
    held[np.random.default_rng(split).permutation(len(train))[: len(train) // 5]] = True
    best: dict[str, dict] = {}

    def offer(arm: str, nll: float, **setting) -> None:
        if arm not in best or nll < best[arm]["validation_nll"]:
            best[arm] = setting | {"validation_nll": nll}

    for weight, bias in itertools.product(WEIGHTS, BIASES):
        v = Validation(network(weight, bias), rows, targets, held)
        for sd in NOISES:
            at = {"weight_std": weight, "bias_std": bias, "noise": sd}
            offer("gp", v.gaussian(1.0, sd**2), **at)
            offer("gp_learned", v.gaussian(v.amplitude(sd, inside=False), sd**2), **at)
            s = v.amplitude(sd, inside=True)
            offer("gp_learned_inside", v.gaussian(s, s * sd**2), **at)
            for (a, b), nll in zip(LAWS, v.mixtures(sd), strict=True):
                offer("t_inside", v.student(a, b, sd), **at, a=a, b=b)
                offer("t_outside", nll, **at, a=a, b=b)
    return best


def prior_of(arm: str, at: dict, rows: np.ndarray, y: np.ndarray):
    base = network(at["weight_std"], at["bias_std"])
    place = "inside" if arm.endswith("inside") else "outside"
    if arm == "gp":
        return base
    if arm.startswith("t_"):
        return bn.ScaleMixture(base, bn.InverseGamma(at["a"], at["b"]), noise=place)
    # The amplitude again by evidence, now of all training rows.
    v = Validation(base, rows, y, np.zeros(len(y), bool))
    return bn.ScaleMixture(base, v.amplitude(at["noise"], inside=place == "inside"), noise=place)


def test_scores(prediction, truth: np.ndarray) -> dict:
    low, high = prediction.interval(0.9)
    return {
        "rmse": float(np.sqrt(np.mean((prediction.mean - truth) ** 2))),
        "nll": float(-prediction.log_prob(truth).mean()),
        "covered": float(np.mean((truth >= low) & (truth <= high))),
        "test_rows": len(truth),
    }


@cache
def by_evidence(name: str, split: int):
    x, y, tests = load(name)
    train = np.setdiff1d(np.arange(len(y)), tests[split])
    method = bn.Exact(learn_variances=True, hyper="evidence", restarts=0)
    return bn.fit(network(1.4, 0.3), x[train], y[train], inference=method, seed=split, warn=False)


def one_by_evidence(name: str, split: int, arm: str) -> dict:
    x, y, tests = load(name)
    test = tests[split]
    post = by_evidence(name, split)
    if arm == "t_evidence":
        train = np.setdiff1d(np.arange(len(y)), test)
        prior = bn.ScaleMixture(post.prior, bn.InverseGamma(2.0, 2.0))
        method = bn.Exact(hyper="evidence", restarts=0)
        post = bn.fit(prior, x[train], y[train], inference=method, seed=split, warn=False)
    base = getattr(post.prior, "base", post.prior)
    return {
        "weight_std": float(base.weight_std),
        "bias_std": float(base.bias_std),
        "noise": float(post.noise_std[0, 0]),
    } | test_scores(post.predict(x[test]), y[test, None])


def one(name: str, split: int, arm: str) -> dict:
    if arm not in GRID_ARMS:
        return one_by_evidence(name, split, arm)
    x, y, tests = load(name)
    at = chosen(name, split)[arm]
    test = tests[split]
    train = np.setdiff1d(np.arange(len(y)), test)
    scaling = bn.data.Scaling.from_data(x[train], y[train, None])
    prior = prior_of(arm, at, scaling.x_in(x[train]), scaling.y_in(y[train, None])[:, 0])
    noise = bn.GaussianLikelihood(at["noise"] * float(scaling.y_scale[0]))
    post = bn.fit(prior, x[train], y[train], likelihood=noise, inference="exact", seed=split)
    return at | test_scores(post.predict(x[test]), y[test, None])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", choices=TABLES)
    parser.add_argument("--splits", type=int, default=SPLITS)
    args = parser.parse_args()
    warnings.simplefilter("ignore", bn.ConvergenceWarning)
    for name in args.tables:
        if not (SHARED_DATA / "uci" / name).is_dir():
            print(f"{name}: skipped, the shared data are absent here.")
            continue
        jobs = {
            (name, split, arm): partial(one, name, split, arm)
            for split in range(args.splits)
            for arm in ARMS
        }
        rows = [r for r in run("process_regression", jobs, FIELDS) if r["table"] == name]
        print(f"\n{name}")
        table(rows, ("rmse", "nll", "covered"))
        for arm, base in [(a, "gp") for a in ARMS[1:]] + [
            ("t_inside", "gp_learned_inside"),
            ("t_outside", "gp_learned"),
            ("t_evidence", "gp_evidence"),
        ]:
            for column in ("rmse", "nll"):
                gain, error, count = paired(rows, arm, base, column, "split", 0.1)
                print(f"  {column}, {base} minus {arm}: {gain:+.4f} +- {error:.4f} ({count})")


if __name__ == "__main__":
    main()
