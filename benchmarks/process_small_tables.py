"""What a random amplitude is good for: small made-up tables whose amplitude is uncertain.

Declared before the runs. Functions from an RBF process of known lengthscale 1 on [-3, 3] times sqrt(s), noise of
sd 0.1, all in units of the data; n rows, mean negative log density of 20 new ones. Truths: `heavy`: 1 / s ~
Exponential(1), that is s ~ InverseGamma(1, 1); `light`: log s ~ N(0, 1). Arms, noise known and outside:

`fixed`: amplitude 1; `evidence`: the amplitude that maximises the evidence; `map`: its MAP under LogNormal(0, 2);
`mixture`: s ~ InverseGamma(1, 1); `narrow`: InverseGamma(3, 3); `half_cauchy`: sqrt(s) ~ HalfCauchy(1).

    python benchmarks/process_small_tables.py
"""

from __future__ import annotations

import argparse
import warnings
from functools import partial

import numpy as np
from _studies import run

import bayesnet as bn

FIELDS = ("truth", "rows", "block")
TRUTHS, ROWS, BLOCK, BLOCKS, NEW = ("heavy", "light"), (5, 10, 30), 30, 10, 20
NOISE = 0.1


def process(outputscale=1.0) -> bn.GaussianProcess:
    return bn.GaussianProcess("rbf", 1.0, outputscale, units="data")


def mixture(law) -> bn.ScaleMixture:
    return bn.ScaleMixture(process(), law, noise="outside")


RANDOM = process(bn.LogNormal(0.0, 2.0))
ARMS = {
    "fixed": (process(), bn.Exact()),
    "evidence": (RANDOM, bn.Exact(hyper="evidence", restarts=1)),
    "map": (RANDOM, bn.Exact(restarts=1)),
    "mixture": (mixture(bn.InverseGamma(1.0, 1.0)), bn.Exact()),
    "narrow": (mixture(bn.InverseGamma(3.0, 3.0)), bn.Exact()),
    "half_cauchy": (mixture(bn.OnStd(bn.HalfCauchy(1.0))), bn.Exact()),
}


def made_up(truth: str, n: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """n + NEW rows x (., 1) and y (.,)."""
    rng = np.random.default_rng([TRUTHS.index(truth), n, number])
    x = rng.uniform(-3, 3, n + NEW)
    s = 1 / rng.exponential() if truth == "heavy" else np.exp(rng.normal())
    matrix = np.exp(-0.5 * (x[:, None] - x) ** 2) + 1e-10 * np.eye(n + NEW)
    f = np.sqrt(s) * np.linalg.cholesky(matrix) @ rng.normal(size=n + NEW)
    return x[:, None], f + NOISE * rng.normal(size=n + NEW)


def one(truth: str, n: int, block: int) -> dict:
    out: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for number in range(block * BLOCK, (block + 1) * BLOCK):
        x, y = made_up(truth, n, number)
        for arm, (prior, method) in ARMS.items():
            post = bn.fit(
                prior, x[:n], y[:n], likelihood=bn.GaussianLikelihood(NOISE), inference=method,
                seed=number, warn=False,
            )  # fmt: skip
            out[arm].append(float(-post.predict(x[n:]).log_prob(y[n:, None]).mean()))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=BLOCKS, help=f"of {BLOCK} tables each")
    args = parser.parse_args()
    warnings.simplefilter("ignore", bn.ConvergenceWarning)
    jobs = {
        (truth, n, block): partial(one, truth, n, block)
        for block in range(args.blocks)
        for truth in TRUTHS
        for n in ROWS
    }
    rows = run("process_small_tables", jobs, FIELDS)
    for truth in TRUTHS:
        for n in ROWS:
            mine = [r for r in rows if (r["truth"], r["rows"]) == (truth, n)]
            nll = {arm: np.concatenate([r[arm] for r in mine]) for arm in ARMS}
            print(f"\n{truth}, {n} rows, {len(nll['fixed'])} tables")
            for arm in ARMS:
                gain = nll["map"] - nll[arm]
                error = gain.std(ddof=1) / len(gain) ** 0.5
                print(f"  {arm:<12}{nll[arm].mean():.3f}  map minus it {gain.mean():+.4f} +- {error:.4f}")  # fmt: skip


if __name__ == "__main__":
    main()
