"""Every weight prior on four real tables, noise learned, beside the exact process they are matched to.

Declared before the runs. Boston housing, yacht, energy and kin8nm, the first standard splits; of kin8nm
the first 600 training rows of a random order, and its 819 test rows. MLP with one hidden layer of 50
tanh units ("ntk" parameterisation), Gaussian noise with the library's law of its level. Arms:

`n01`           weights N(0, 1), HMC;
`s_by_evidence` weights N(0, s^2), one s for all, the s in 0.5, 1, 2, 4, 8 of the highest Laplace evidence
                (a screen) on the training rows, HMC;
`hierarchical`  weights with random scales, unmatched, HMC;
`gpi_g`, `gpi_h`, `gpi_nf`  Gaussian, hierarchical and flow weights matched to an RBF process with
                lengthscale sqrt(2 d) and variance 1, HMC;
`ensemble`      10 members, MAP under `n01`, from the network's initialisation, not anchored;
`gp`            that very RBF process, exact, its noise integrated over the networks' law.

HMC: 4 chains of 300 + 150 draws, trajectories of at most 256 steps. Scores in the units of y: RMSE, NLL of
the mixture, CRPS, interval score of the central 90 %, and its coverage, pooled over all test rows.

    python benchmarks/regression_arms.py boston_housing yacht energy kin8nm --splits 3
"""

from __future__ import annotations

import argparse
import time
import warnings
from functools import partial

import equinox as eqx
import numpy as np
from _studies import paired, run
from regression import exact_gp, load

import bayesnet as bn
from bayesnet.defaults import matched
from bayesnet.diagnostics.scores import score

ARMS = (
    "n01", "s_by_evidence", "hierarchical", "gpi_g", "gpi_h", "gpi_nf", "ensemble", "gp",
)  # fmt: skip
FIELDS = ("table", "split", "arm")
SCALES = (0.5, 1.0, 2.0, 4.0, 8.0)
WEIGHTS = {"gpi_g": "gaussian", "gpi_h": "hierarchical", "gpi_nf": "flow"}
MOST_ROWS = 600
SCORES = ("rmse", "nll", "crps", "interval_score")


def table_split(name: str, split: int) -> tuple[np.ndarray, ...]:
    """(x, y, x_new, y_new) and the share of the table that is tested."""
    x, y, tests = load(name)
    test = np.asarray(tests[split])
    train = np.setdiff1d(np.arange(len(y)), test)
    train = np.random.default_rng(split).permutation(train)[:MOST_ROWS]
    return x[train], y[train], x[test], y[test]


def scaled(prior: bn.NetworkPrior, s: float) -> bn.NetworkPrior:
    """The same prior with s times its weights."""
    return eqx.tree_at(lambda p: p.law.log_scale, prior, prior.law.log_scale + np.log(s))


def prior_of(arm: str, x: np.ndarray, y: np.ndarray) -> tuple[bn.NetworkPrior, dict]:
    """The prior of an arm, and what there is to say of it."""
    d, net = x.shape[1], bn.MLP((50,), activation="tanh")
    if arm in WEIGHTS:
        target = bn.GaussianProcess("rbf", lengthscale=(2.0 * d) ** 0.5)
        box = bn.Box([-2.0] * d, [2.0] * d)
        return matched(bn.NetworkPrior(net, WEIGHTS[arm], in_dim=d), target, box), {}
    if arm == "hierarchical":
        return bn.NetworkPrior(net, "hierarchical", in_dim=d), {}
    plain = bn.NetworkPrior(net, in_dim=d)
    if arm != "s_by_evidence":
        return plain, {}
    candidates = {str(s): scaled(plain, s) for s in SCALES}
    best = bn.compare_priors(candidates, x, y, by="laplace_screen", restarts=2).best
    return candidates[best], {"s": float(best)}


def one(name: str, split: int, arm: str) -> dict:
    x, y, x_new, y_new = table_split(name, split)
    start, extra = time.perf_counter(), {}
    if arm == "gp":
        prediction = exact_gp(x, y, x_new, None)
    else:
        prior, extra = prior_of(arm, x, y)
        method = bn.HMC(chains=4, warmup=300, draws=150, max_steps=256)
        if arm == "ensemble":
            method = bn.DeepEnsemble(members=10, steps=2000, start="network", anchored=False)
        post = bn.fit(prior, x, y, inference=method, seed=split, warn=False)
        prediction, report = post.predict(x_new), post.diagnostics()
        if arm != "ensemble":
            row = next(r for r in report.rows if r.name == "f at training rows")
            extra |= {"rhat_f": row.rhat, "ess_f": row.ess_bulk}
    found = score(prediction, y_new[:, None])
    low, high = prediction.interval(0.9)
    covered = int(np.sum((y_new[:, None] >= low) & (y_new[:, None] <= high)))
    return (
        {k: found[k] for k in SCORES}
        | {"covered": covered, "count": len(y_new), "seconds": time.perf_counter() - start}
        | extra
    )


def report(name: str, rows: list[dict]) -> None:
    _, y, tests = load(name)
    share = len(tests[0]) / len(y)
    print(f"\n{name}")
    for arm in dict.fromkeys(r["arm"] for r in rows):
        mine = [r for r in rows if r["arm"] == arm]
        cells = [f"{np.mean([r[k] for r in mine]):.3f} ({np.std([r[k] for r in mine], ddof=min(1, len(mine) - 1)):.3f})" for k in SCORES]  # fmt: skip
        pooled = sum(r["covered"] for r in mine) / sum(r["count"] for r in mine)
        hats = [r["rhat_f"] for r in mine if "rhat_f" in r]
        tail = f" | {np.median(hats):.2f}, {max(hats):.2f}" if hats else " | -"
        print(f"| {arm} | {' | '.join(cells)} | {pooled:.3f}{tail} | {len(mine)}")
    for arm in ARMS:
        for base in ("n01", "gp"):
            for column in ("rmse", "nll", "crps"):
                if arm != base and arm in {r["arm"] for r in rows}:
                    gain, error, count = paired(rows, arm, base, column, "split", share)
                    print(f"  {column}: {base} minus {arm}: {gain:+.4f} +- {error:.4f} ({count})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", help="boston_housing, yacht, energy, kin8nm")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    args = parser.parse_args()
    warnings.simplefilter("ignore", bn.ConvergenceWarning)
    jobs = {
        (name, split, arm): partial(one, name, split, arm)
        for split in range(args.splits)
        for name in args.tables
        for arm in args.arms
    }
    rows = run("regression_arms", jobs, FIELDS)
    for name in args.tables:
        report(name, [r for r in rows if r["table"] == name])


if __name__ == "__main__":
    main()
