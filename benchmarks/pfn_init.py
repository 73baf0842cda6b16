"""Starts of chains from a PFN posterior (`init=`) against starts from the prior: gradients saved?

    python benchmarks/pfn_init.py [--rounds 2] [--dims 1 2] [--counts 30 100] [--arms prior pfn ensemble]

Tables are drawn from the tanh networks of the weights `bnn`, and HMC conditions that very prior (its
2 x 50 units, noise learned). Arms differ in where 4 chains start:

- prior: draws of the prior, what `bn.fit` does when nothing is said;
- pfn: `init=` the PFN's posterior of the table, onto whose draws the network is regressed;
- ensemble: `init=` an anchored ensemble of 4 members trained on the table itself by as many steps of
  Adam as the regression takes: what the same gradients buy without a PFN.

Declared before the run: for warm-ups of 10, 25, 50, 100, 200 and 400 steps in turn, 4 chains of 100
draws follow, and functions at the rows of the table and 32 others are compared with a long run (4
chains, 400 + 400 steps, from the prior, another seed). A warm-up is long enough by `error` when the rms
over points of (mean - long mean) / long sd is below 0.2, and by `r_hat` when the split R-hat is below
1.05 at 9 of 10 points. The price is the gradients of that warm-up and its draws, all chains together
(of 400 steps, and counted as not met, where none is long enough), and those of the regression, or
the ensemble. Mass, step size and path length are tuned from scratch in every arm. (One table was seen
before: on a grid from 50 steps, without the draws in the price, both arms met both criteria at 50.)
"""

from __future__ import annotations

import argparse
import dataclasses
import warnings

import numpy as np
from _common import write
from pfn_network import draw_tables

import bayesnet as bn
from bayesnet.data import Scaling
from bayesnet.diagnostics.convergence import import_arviz
from bayesnet.inference._starts import STEPS
from bayesnet.pfn.configurations import read_configuration
from bayesnet.pfn.tasks import Mixture

WARMUPS = (10, 25, 50, 100, 200, 400)
CHAINS, DRAWS, MAX_STEPS = 4, 100, 256
LONG = bn.HMC(chains=CHAINS, warmup=400, draws=400, max_steps=MAX_STEPS)
ERROR, R_HAT, SHARE = 0.2, 1.05, 0.9
WORST = 99.0
ARMS = ("prior", "pfn", "ensemble")


def fit(prior, likelihood, x, y, method, seed, init=None):
    return bn.fit(
        prior,
        x,
        y,
        likelihood=likelihood,
        inference=method,
        scaling=Scaling.identity(x.shape[1], 1),
        seed=seed,
        init=init,
        progress=False,
        warn=False,
    )


def function_values(posterior, points):
    """(c, s, n) of draws at the points."""
    c, s = posterior.latents.shape[:2]
    return posterior.predict(points).values[:, :, 0].reshape(c, s, -1)


def r_hats(values):
    az = import_arviz()
    found = np.array([float(az.rhat(values[:, :, j])) for j in range(values.shape[2])])
    # Chains that did not move have none, or an endless one; JSON knows neither.
    return np.nan_to_num(found, nan=WORST).clip(max=WORST)


def start(arm, table, prior, likelihood, pfn):
    x, y = table
    if arm == "prior":
        return None
    if arm == "pfn":
        return pfn.fit(x, y, scaling=Scaling.identity(x.shape[1], 1), warn=False)
    method = bn.DeepEnsemble(members=CHAINS, steps=STEPS, learning_rate=0.05)
    return fit(prior, likelihood, x, y, method, seed=5)


def climb(arm, x, y, points, prior, likelihood, pfn, long_mean, long_sd):
    """One arm on one table: what each warm-up gave, up to the first that meets both criteria."""
    init = start(arm, (x, y), prior, likelihood, pfn)
    steps = []
    for warmup in WARMUPS:
        method = bn.HMC(chains=CHAINS, warmup=warmup, draws=DRAWS, max_steps=MAX_STEPS)
        post = fit(prior, likelihood, x, y, method, seed=1 + warmup, init=init)
        values = function_values(post, points)
        off = (values.mean(axis=(0, 1)) - long_mean) / long_sd
        steps.append(
            {
                "warmup": warmup,
                "gradients": int(sum(int(s.gradients) for s in post.states)),
                "draw_gradients": int(post.stats["num_gradients"].sum()),
                "error": round(float(np.sqrt(np.mean(off**2))), 3),
                "r_hat": round(float(np.quantile(r_hats(values), SHARE)), 3),
            }
        )
        if steps[-1]["error"] < ERROR and steps[-1]["r_hat"] < R_HAT:
            break
    return steps


def price(steps, criterion, limit):
    """The gradients up to the first warm-up that is long enough, its steps, and whether one is."""
    met = [step for step in steps if step[criterion] < limit]
    step = met[0] if met else steps[-1]
    return step["gradients"] + step["draw_gradients"], step["warmup"], bool(met)


def study(table, tasks, pfn, arms):
    x, y, new, _, _, prior = table
    points = np.concatenate([x, new])
    long = fit(prior, tasks.likelihood, x, y, LONG, seed=0)
    values = function_values(long, points)
    mean, sd = values.mean(axis=(0, 1)), values.std(axis=(0, 1))
    row = {"d": x.shape[1], "n": len(x)}
    row["long_r_hat"] = round(float(np.quantile(r_hats(values), SHARE)), 3)
    for arm in arms:
        row[arm] = climb(arm, x, y, points, prior, tasks.likelihood, pfn, mean, sd)
    print(row, flush=True)
    return row


def summary(rows, arms):
    out = {"regression_gradients": CHAINS * STEPS, "tables": len(rows)}
    for criterion, limit in (("error", ERROR), ("r_hat", R_HAT)):
        prices = {arm: [price(r[arm], criterion, limit) for r in rows] for arm in arms}
        for arm in arms:
            extra = 0 if arm == "prior" else CHAINS * STEPS
            spent = np.array([p[0] for p in prices[arm]]) + extra
            ratio = spent / [p[0] for p in prices["prior"]]
            out[f"{arm} by {criterion}"] = {
                "median": int(np.median(spent)),
                "quartiles": [int(q) for q in np.quantile(spent, (0.25, 0.75))],
                "warmups": [p[1] for p in prices[arm]],
                "met": sum(p[2] for p in prices[arm]),
                "ratio_to_prior": round(float(np.median(ratio)), 2),
                "ratio_quartiles": [round(float(q), 2) for q in np.quantile(ratio, (0.25, 0.75))],
            }
        for arm in arms:
            first = [r[arm][0][criterion] for r in rows]
            out[f"{arm}: {criterion} after {WARMUPS[0]}"] = round(float(np.median(first)), 3)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="tables of each size")
    parser.add_argument("--dims", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--counts", type=int, nargs="+", default=[30, 100])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seed", type=int, default=23)
    options = parser.parse_args()
    # All ratios are to starts from the prior.
    options.arms = ["prior", *(arm for arm in options.arms if arm != "prior")]
    warnings.filterwarnings("ignore")
    pfn = bn.PFN.from_pretrained("bnn")
    tasks = read_configuration("bnn").tasks
    sizes = [(d, n) for d in options.dims for n in options.counts]
    # The first part of the prior: tanh networks.
    tasks = dataclasses.replace(tasks, prior=Mixture(tasks.prior.parts[:1]))
    tables = {}
    rows = []
    for i in range(options.rounds):
        for size in sizes:
            if size not in tables:
                tables[size] = draw_tables(tasks, *size, options.rounds, options.seed)
            rows.append(study(tables[size][i], tasks, pfn, options.arms))
            # After every table, for a run that is stopped.
            write("pfn_init", {"rows": rows, "summary": summary(rows, options.arms)})
    print(summary(rows, options.arms), flush=True)


if __name__ == "__main__":
    main()
