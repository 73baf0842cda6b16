"""The shipped weights `bnn` beside HMC on the very network prior, on tables drawn from it.

    python benchmarks/pfn_network.py [--tables 8] [--dims 1 2] [--counts 10 30 100] [--figure FILE]

Half of the tables come from tanh, half from relu networks, as in training. HMC is told which; it
samples weights and noise under the prior the table came from (4 chains), and cells give the split
R-hat of its predictions. `log p(y)` of 32 x 16 new observations a table; differences are paired, with 95 %
intervals over tables. Seconds are those of one run of each, after a first call has compiled them
at that size; they are only meant where nothing else runs.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import jax
import numpy as np
from _common import write

import bayesnet as bn
from bayesnet.data import Scaling
from bayesnet.pfn.configurations import read_configuration

TARGETS = 16
HMC = bn.HMC(chains=4, warmup=500, draws=250, thin=2)


def draw_tables(tasks, d, n, tables, seed):
    """(x, y, queries, drawn f, targets, log density given f, prior), one of each network in turn."""
    each = -(-tables // len(tasks.weights))
    groups = []
    for part, prior in enumerate(tasks.parts(d)):
        key = jax.random.fold_in(jax.random.key(seed), 1000 * d + 10 * n + part)
        batch = jax.tree.map(
            lambda a: np.asarray(a, np.float64), tasks.draw(key, each, np.full(each, n), d, part)
        )
        z = np.random.default_rng([seed, d, n, part]).standard_normal(
            (each, tasks.queries, TARGETS)
        )
        std = batch.noise[:, None, None]
        targets = batch.f_mean[..., None] + std * z
        exact = -0.5 * z**2 - np.log(std) - 0.5 * np.log(2 * np.pi)
        groups.append(
            [
                (batch.x[i, :n], batch.y[i, :n], batch.queries[i], targets[i], exact[i], prior)
                for i in range(each)
            ]
        )
    return [table for group in zip(*groups, strict=True) for table in group]


def log_density(prediction, targets):
    return np.stack([prediction.log_prob(t)[:, 0] for t in targets.T], axis=1)


def timed(fn):
    start = time.perf_counter()
    result = fn()
    return result, time.perf_counter() - start


def by_hmc(prior, likelihood, x, y):
    return bn.fit(
        prior,
        x,
        y,
        likelihood=likelihood,
        inference=HMC,
        scaling=Scaling.identity(x.shape[1], 1),
        progress=False,
        warn=False,
    )


def cell(pfn, tasks, d, n, tables, seed):
    rows = []
    for x, y, new, targets, exact, prior in draw_tables(tasks, d, n, tables, seed):
        scaling = Scaling.identity(d, 1)

        def instant(x=x, y=y, new=new, scaling=scaling):
            return pfn.fit(x, y, scaling=scaling, warn=False).predict(new, warn=False)

        instant()
        mine, quick = timed(instant)
        sampled, slow = timed(lambda: by_hmc(prior, tasks.likelihood, x, y))
        theirs = sampled.predict(new)
        at = {"pfn": mine, "hmc": theirs}
        row = {k: float((exact - log_density(p, targets)).mean()) for k, p in at.items()}
        row |= {
            "pfn_seconds": quick,
            "hmc_seconds": slow,
            "r_hat": max(r.rhat for r in sampled.diagnostics().rows),
        }
        rows.append(row)
        print({k: round(v, 4) for k, v in row.items()}, flush=True)
    gap = np.array([r["pfn"] - r["hmc"] for r in rows])
    root = 1.96 / np.sqrt(len(rows))

    def summary(values):
        values = np.asarray(values, np.float64)
        return [round(float(values.mean()), 4), round(float(values.std(ddof=1) * root), 4)]

    return {
        "d": d,
        "n": n,
        "tables": len(rows),
        "pfn_above_noise": summary([r["pfn"] for r in rows]),
        "hmc_above_noise": summary([r["hmc"] for r in rows]),
        "pfn_minus_hmc": [*summary(gap), round(float(np.median(gap)), 4)],
        "worst_r_hat": round(max(r["r_hat"] for r in rows), 3),
        "pfn_seconds": round(float(np.median([r["pfn_seconds"] for r in rows])), 4),
        # The first run of a size compiles.
        "hmc_seconds": round(float(np.median([r["hmc_seconds"] for r in rows[2:]])), 2),
    }


def figure(pfn, tasks, path, seed):
    """Both posteriors of 4 tables of one column and 20 rows."""
    import matplotlib.pyplot as plt

    tables = draw_tables(tasks, 1, 20, 4, seed)
    fig, axes = plt.subplots(
        2, 4, figsize=(15, 6), sharex="col", sharey="col", layout="constrained"
    )
    for column, (x, y, _, _, _, prior) in zip(axes.T, tables, strict=True):
        grid = np.linspace(x.min() - 0.5, x.max() + 0.5, 120)[:, None]
        ours = pfn.fit(x, y, scaling=Scaling.identity(1, 1), warn=False)
        theirs = by_hmc(prior, tasks.likelihood, x, y)
        for ax, name, p in ((column[0], "PFN", ours), (column[1], "HMC", theirs)):
            prediction = p.predict(grid)
            low, high = prediction.interval(0.9)
            ax.fill_between(grid[:, 0], low[:, 0], high[:, 0], alpha=0.25, lw=0)
            ax.plot(grid[:, 0], prediction.mean[:, 0])
            ax.plot(x[:, 0], y, "k.", ms=5)
            ax.set_title(f"{name}, {prior.network.activation} network")
    fig.suptitle("Mean and 90 % interval of new observations, same prior and tables")
    fig.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default="bnn")
    parser.add_argument("--tables", type=int, default=8)
    parser.add_argument("--dims", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 30, 100])
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--figure", type=Path, default=None)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    pfn = bn.PFN.from_pretrained(options.weights)
    tasks = read_configuration(options.weights).tasks
    if options.figure is not None:
        figure(pfn, tasks, options.figure, options.seed)
        return
    cells = [
        cell(pfn, tasks, d, n, options.tables, options.seed)
        for d in options.dims
        for n in options.counts
    ]
    for row in cells:
        print(row)
    write("pfn_network", {"cells": cells, "hmc": repr(HMC)})


if __name__ == "__main__":
    main()
