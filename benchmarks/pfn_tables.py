"""Regression from 30 rows of real tables: shipped PFN weights beside processes, forest and ridge.

    python benchmarks/pfn_tables.py [--draws 20] [--weights gp] [--tables yacht energy] [--made-up]

Declared before the runs. Tables: the open UCI sets of the shared data (boston_housing, energy, yacht, kin8nm, naval; one that is
absent is named and left out) and scikit-learn's diabetes. Every draw takes 30 random rows and scores the others, at
most 1,000 random ones: root mean square error in sd of y (of the whole table), mean negative log density in nats of y
standardised so (methods that have a density; for the PFNs that of the mixture), and how many observations lie in the
central 90 %.

Arms: `PFN` (weights `gp`, one view of the table), `PFN, 8 views` (`ensemble=8`), `amortised` (hyper-parameters by a network,
the rest exact), `GP, maximum likelihood` (gpytorch, Matern-5/2, a lengthscale a column, best of 4 starts), `GP, scikit-learn`
(the same by its optimizer, one lengthscale, 2 restarts), `random forest` (100 trees), `ridge` (alpha by leave-one-out among 25
values; its density is a Gaussian of the residuals' sd by leave-one-out). All on columns standardised by the 30 rows. Trained weights
accept 10 columns: of tables with more (boston_housing 13, naval 16) they see the first 10 principal components of the
standardised 30 rows; `GP, same columns` sees these too.

Differences to the maximum-likelihood GP are paired (`without`: draws on which no start of it came to an end, left out). Two draws share 30 / n of their rows; as by Nadeau and Bengio (2003) that share is taken
for the correlation of the differences. Rows are kept as they are made, by the weights and their training steps: a run that was
stopped goes on, and other weights are run anew.

`--made-up`: whether views help, on tables drawn from the library's default process with log-normal noise (median 0.14 sd, sd of its log 1), 30 rows, as they are and warped:
every column and the target x replaced by (exp(a x) - 1) / a, a uniform in [-1, 1]. `PFN` beside `PFN, 8 views`, nats in the units of y.
The default `ensemble=1` is judged by these, never by the real tables.
"""  # fmt: skip

from __future__ import annotations

import argparse
import warnings
from functools import partial

import jax
import numpy as np
from _common import SHARED_DATA, write
from _studies import run
from pfn import maximum_likelihood
from scipy import stats
from sklearn.datasets import load_diabetes
from sklearn.ensemble import RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.linear_model import RidgeCV

import bayesnet as bn
from bayesnet.diagnostics.scores import corrected_error

ROWS, MOST, COLUMNS, VIEWS = 30, 1000, 10, 8
UCI = ("boston_housing", "energy", "yacht", "kin8nm", "naval")
BASE = "GP, maximum likelihood"


def tables(names: list[str] | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    found = {"diabetes": load_diabetes(return_X_y=True)}
    for name in UCI:
        path = SHARED_DATA / "uci" / name / "data.csv"
        if not path.is_file():
            print(f"{name}: left out, the shared data are absent here.")
            continue
        table = np.loadtxt(path, delimiter=",", skiprows=1)
        found[name] = table[:, :-1], table[:, -1]
    return {k: v for k, v in found.items() if not names or k in names}


class Arms:
    """Each arm: `(x, y, x_new, y_new) -> mean, log density or None, cdf or None`, (n,) each, x standardised."""

    def __init__(self, weights: str) -> None:
        is_file = weights.endswith(".safetensors")
        self.pfn = bn.PFN.load(weights) if is_file else bn.PFN.from_pretrained(weights)
        self.process = bn.AmortisedProcess.from_pretrained()

    def pfn_views(self, x, y, new, y_new, ensemble=1, seed=0):
        post = self.pfn.fit(x, y, ensemble=ensemble, seed=seed, warn=False)
        law = post.predict(new, warn=False)
        return law.mean[:, 0], law.log_prob(y_new)[:, 0], law.cdf(y_new)[:, 0]

    def amortised(self, x, y, new, y_new):
        law = self.process.fit(x, y, warn=False).predict(new)
        return law.mean[:, 0], law.log_prob(y_new)[:, 0], law.cdf(y_new)[:, 0]

    def gpytorch(self, x, y, new, y_new):
        import torch

        loc, scale = y.mean(), y.std()
        model = maximum_likelihood(x, (y - loc) / scale)
        with torch.no_grad():
            law = model.posterior(torch.tensor(new), observation_noise=True)
            mean, sd = law.mean[:, 0].numpy(), law.variance[:, 0].sqrt().numpy()
        return gaussian(loc + scale * mean, scale * sd, y_new)

    def scikit(self, x, y, new, y_new):
        kernel = ConstantKernel() * Matern(nu=2.5) + WhiteKernel(0.1, (1e-5, 10.0))
        model = GaussianProcessRegressor(
            kernel, normalize_y=True, n_restarts_optimizer=2, random_state=0
        )
        return gaussian(*model.fit(x, y).predict(new, return_std=True), y_new)

    def forest(self, x, y, new, y_new):
        return RandomForestRegressor(100, random_state=0).fit(x, y).predict(new), None, None

    def ridge(self, x, y, new, y_new):
        alphas = np.logspace(-3, 3, 25)
        model = RidgeCV(alphas).fit(x, y)
        return gaussian(model.predict(new), (-model.best_score_) ** 0.5, y_new)


def gaussian(mean, sd, y):
    law = stats.norm(mean, sd)
    return mean, law.logpdf(y), law.cdf(y)


def standardised(x, new):
    loc, scale = bn.data.standardization(x)
    return (x - loc) / scale, (new - loc) / scale


def reduced(x, new):
    """The first 10 principal components of `x`, or the columns as they are if no more."""
    if x.shape[1] <= COLUMNS:
        return x, new
    right = np.linalg.svd(x, full_matrices=False)[2][:COLUMNS].T
    return x @ right, new @ right


def one_draw(arms: Arms, x, y, seed: int) -> dict[str, dict[str, float]]:
    order = np.random.default_rng([seed, len(y)]).permutation(len(y))
    inside, outside = order[:ROWS], order[ROWS:][:MOST]
    full = standardised(x[inside], x[outside])
    few = reduced(*full)
    runs = {
        "PFN": (arms.pfn_views, few),
        f"PFN, {VIEWS} views": (partial(arms.pfn_views, ensemble=VIEWS, seed=seed), few),
        "amortised": (arms.amortised, few),
        BASE: (arms.gpytorch, full),
        "GP, scikit-learn": (arms.scikit, full),
        "random forest": (arms.forest, full),
        "ridge": (arms.ridge, full),
    }
    if x.shape[1] > COLUMNS:
        runs["GP, same columns"] = (arms.gpytorch, few)
    unit, found = y.std(), {}
    for name, (run_arm, (a, b)) in runs.items():
        try:
            mean, density, levels = run_arm(a, y[inside], b, y[outside])
        except RuntimeError as error:  # `maximum_likelihood` gave up
            found[name] = dict.fromkeys(("rmse", "nll", "covered"), float("nan"))
            print(f"{name}, draw {seed}: {error}", flush=True)
            continue
        row = {"rmse": float(np.sqrt(np.mean((mean - y[outside]) ** 2)) / unit)}
        if density is not None:
            row["nll"] = float(-density.mean() - np.log(unit))
            row["covered"] = float(np.mean((levels >= 0.05) & (levels <= 0.95)))
        found[name] = row
    return {"rows": len(y), "columns": x.shape[1], "arms": found}


def summary(draws: list[dict], size: int) -> None:
    """Means over draws, coverage, and paired differences to the base with corrected errors (95 %)."""
    for name in draws[0]:
        row: dict[str, float] = {}
        for score in ("rmse", "nll"):
            if score not in draws[0][name]:
                continue
            mine = np.array([d[name][score] for d in draws])
            base = np.array([d[BASE][score] for d in draws])
            row[score], row[f"{score} median"] = float(np.nanmean(mine)), float(np.nanmedian(mine))
            both = ~np.isnan(mine - base)
            if not both.all():
                row["without"] = int(np.sum(~both))
                mine, base = mine[both], base[both]
            if name != BASE and len(draws) > 1:
                row[f"{score} minus GP"] = float((mine - base).mean())
                row[f"{score} minus GP, 95 %"] = 1.96 * corrected_error(mine - base, ROWS / size)
                row[f"{score} below GP"] = float(np.mean(mine < base))
        if "covered" in draws[0][name]:
            share = np.array([d[name]["covered"] for d in draws])
            share = share[~np.isnan(share)]
            row["covered"] = float(share.mean())
            # The draws are the unit: observations that share 30 rows are not independent.
            row["covered, 95 %"] = 1.96 * float(share.std(ddof=1) / len(share) ** 0.5)
        print(f"  {name:24s}", {k: round(v, 3) for k, v in row.items()}, flush=True)


def real(options) -> None:
    arms, found = Arms(options.weights), tables(options.tables)
    version = f"{arms.pfn.card['name']}, {arms.pfn.card['steps']} steps"
    # Draw after draw through all tables: a run that is stopped is as good for one as for another.
    jobs = {
        (version, name, draw): partial(one_draw, arms, x, y, draw)
        for draw in range(options.draws)
        for name, (x, y) in found.items()
    }
    rows = run("pfn_tables", jobs, ("weights", "table", "draw"))
    for name in found:
        mine = [r for r in rows if (r["weights"], r["table"]) == (version, name)]
        print(f"\n{name}: {mine[0]['columns']} columns, {mine[0]['rows']} rows, {len(mine)} draws")
        summary([r["arms"] for r in mine], mine[0]["rows"])


def made_up(options) -> None:
    from bayesnet.defaults import default_target

    arms, found = Arms(options.weights), {}
    for d in (1, 2, 4, 8):
        for warped in (False, True):
            rows = []
            for seed in range(2 * options.draws):
                rng = np.random.default_rng([seed, d, warped])
                x = rng.standard_normal((ROWS + 128, d))
                f = np.asarray(default_target(d).sample(jax.random.key(1000 * d + seed), x, 1))
                y = f[0, :, 0] + 0.14 * np.exp(rng.normal()) * rng.normal(size=len(x))
                if warped:
                    a = rng.uniform(-1, 1, d + 1)
                    x, y = np.expm1(a[:d] * x) / a[:d], np.expm1(a[d] * y) / a[d]
                seen, new = standardised(x[:ROWS], x[ROWS:])
                args = seen, y[:ROWS], new, y[ROWS:]
                rows.append([-arms.pfn_views(*args, k)[1].mean() for k in (1, VIEWS)])
            each = np.array(rows)
            gain = each[:, 0] - each[:, 1]
            cell = {
                "nll of one view": float(each[:, 0].mean()),
                "gain of 8 views": float(gain.mean()),
                "gain of 8 views, 95 %": 1.96 * float(gain.std(ddof=1) / len(gain) ** 0.5),
                "median gain": float(np.median(gain)),
                "better on": float(np.mean(gain > 0)),
                "tables": len(gain),
            }
            key = f"{d} columns, {'warped' if warped else 'plain'}"
            found[key] = cell
            print(key, {k: round(v, 4) for k, v in cell.items()}, flush=True)
    write("pfn_tables_made_up", {"weights": options.weights, "cells": found})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--weights", default="gp", help="a name or a file")
    parser.add_argument("--tables", nargs="*", help="only these")
    parser.add_argument("--made-up", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    (made_up if options.made_up else real)(options)


if __name__ == "__main__":
    main()
