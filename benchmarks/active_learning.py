"""Active learning on a generated regression table: which rows of a pool to measure next.

Declared before the runs: Friedman's first function of 8 inputs (three without effect), noise sd 0.1 of
the signal's; 10 random rows to start with, then five times ten more from a pool of 300; 500 test points,
RMSE against the function, NLL of noisy observations; 5 seeds, the same tables and starts for every arm. Network MLP 8-50-50-1 tanh, HMC with 4
chains, noise learned. Arms: prior `n01` (N(0, 1) weights, "ntk") or `matched` (the library's default
process), rows chosen by `variance` or at `random`. `variance`: greedily the row of largest variance of the
function given those chosen before it in the same batch, by the covariance of the posterior draws.

    python benchmarks/active_learning.py
"""

from __future__ import annotations

import argparse
import warnings
from functools import partial

import numpy as np
from _studies import paired, run, table

import bayesnet as bn
from bayesnet.defaults import default_network

SIZES = (10, 20, 30, 40, 50, 60)
ARMS = tuple(f"{p}, {a}" for p in ("n01", "matched") for a in ("random", "variance"))
FIELDS = ("seed", "arm")


def friedman(seed: int) -> tuple[np.ndarray, ...]:
    """Pool (x, y), and 500 test points with noise-free values and with observations."""
    rng = np.random.default_rng([seed, 5])
    u = rng.uniform(size=(800, 8))
    f = 10 * np.sin(np.pi * u[:, 0] * u[:, 1]) + 20 * (u[:, 2] - 0.5) ** 2 + 10 * u[:, 3] + 5 * u[:, 4]  # fmt: skip
    y = f + 0.1 * f.std() * rng.normal(size=800)
    return u[:300], y[:300], u[300:], f[300:], y[300:]


def by_variance(values: np.ndarray, noise: float, count: int) -> list[int]:
    """`count` of n points by function draws (s, n): a pivoted Cholesky factorisation with noise."""
    centred = (values - values.mean(axis=0)) / np.sqrt(len(values) - 1)
    covariance, chosen = centred.T @ centred, []
    for _ in range(count):
        left = np.diag(covariance).copy()
        left[chosen] = -np.inf
        best = int(np.argmax(left))
        chosen.append(best)
        column = covariance[:, best]
        covariance = covariance - np.outer(column, column) / (column[best] + noise**2)
    return chosen


def one(seed: int, arm: str, quick: bool) -> dict:
    prior_name, rule = arm.split(", ")
    x, y, x_new, f_new, y_new = friedman(seed)
    rng = np.random.default_rng([seed, 6])
    order = rng.permutation(300)
    chosen = list(order[:10])
    prior = None if prior_name == "matched" else bn.NetworkPrior(default_network(), in_dim=8)
    steps = {"warmup": 20, "draws": 10} if quick else {"warmup": 300, "draws": 150}
    errors, scores, hats = [], [], []
    for size in SIZES:
        if size > len(chosen):
            rest = [i for i in order if i not in chosen]
            if rule == "random":
                chosen += rest[:10]
            else:
                f = np.asarray(post.functions(x[rest]))[..., 0]
                noise = float(np.sqrt(np.mean(post.predict(x[:1]).aleatoric_std ** 2)))
                chosen += [rest[i] for i in by_variance(f, noise, 10)]
        method = bn.HMC(max_steps=256, **steps)
        post = bn.fit(prior, x[chosen], y[chosen], inference=method, seed=seed, warn=False)
        prediction = post.predict(x_new)
        errors.append(float(np.sqrt(np.mean((prediction.mean[:, 0] - f_new) ** 2)) / f_new.std()))
        scores.append(float(-prediction.log_prob(y_new[:, None]).mean() - np.log(f_new.std())))
        report = post.diagnostics()
        hats.append(next(r.rhat for r in report.rows if r.name == "f at training rows"))
    return {
        "rmse": errors[-1],
        "rmse_mean": float(np.mean(errors[1:])),
        "nll_mean": float(np.mean(scores[1:])),
        "rmse_path": errors,
        "nll_path": scores,
        "rhat_f": max(hats),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="tiny runs, kept in another file")
    args = parser.parse_args()
    warnings.simplefilter("ignore", bn.ConvergenceWarning)
    jobs = {(s, a): partial(one, s, a, args.quick) for s in range(args.seeds) for a in ARMS}
    rows = run("active_quick" if args.quick else "active_learning", jobs, FIELDS)
    table(rows, ("rmse", "rmse_mean", "nll_mean"))
    for arm in ARMS:
        mine = [r["rmse_path"] for r in rows if r["arm"] == arm]
        print(f"  {arm:<18}" + "  ".join(f"{v:.3f}" for v in np.mean(mine, axis=0)))
    for arm, base in (
        ("matched, random", "n01, random"),
        ("matched, variance", "n01, variance"),
        ("n01, variance", "n01, random"),
        ("matched, variance", "matched, random"),
        ("matched, variance", "n01, random"),
    ):
        for column in ("rmse", "rmse_mean", "nll_mean"):
            gain, error, count = paired(rows, arm, base, column, "seed")
            print(f"  {column}: {base} minus {arm}: {gain:+.4f} +- {error:.4f} ({count} seeds)")


if __name__ == "__main__":
    main()
