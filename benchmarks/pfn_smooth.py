"""Tables unlike the prior of `gp`: smooth functions of 6 columns with no noise, next to none, and some.

    python benchmarks/pfn_smooth.py [--draws 5]

Friedman's function (1991), a line, a square, an exponential and a steep step, on uniform inputs, standardised, with noise
of 0, 0.01 and 0.1 sd; 15 to 100 rows. Mean negative log density in nats of 100 new observations, the
weights `gp` beside `amortised`, which draws until enough draws are effective: paired over functions and draws, with the
standard error over functions.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
from _common import write

import bayesnet as bn

FUNCTIONS = {
    "friedman": lambda x: (
        10 * np.sin(np.pi * x[:, 0] * x[:, 1])
        + 20 * (x[:, 2] - 0.5) ** 2
        + 10 * x[:, 3]
        + 5 * x[:, 4]
    ),
    "line": lambda x: x @ np.array([3.0, -2.0, 1.0, 0.5, 0.1, 0.0]),
    "square": lambda x: (x @ np.array([1.0, 1.0, -1.0, 0.5, 0.0, 0.0])) ** 2 + x[:, 0],
    "exponential": lambda x: np.exp(2 * x[:, 0]) * (1 + 0.5 * x[:, 1]) + 0.3 * x[:, 2],
    "step": lambda x: np.tanh(8 * (x[:, 0] - 0.5)) + x[:, 1] * x[:, 2],
}
ROWS, NOISES, NEW = (15, 30, 60, 100), (0.0, 0.01, 0.1), 100


def scores(function, n, noise, draw, arms):
    rng = np.random.default_rng(draw)
    x = rng.uniform(size=(n + NEW, 6))
    y = function(x)
    y = (y - y.mean()) / y.std() + noise * rng.normal(size=n + NEW)
    found = {}
    for name, arm in arms.items():
        prediction = arm.fit(x[:n], y[:n], warn=False).predict(x[n:])
        found[name] = -float(prediction.log_prob(y[n:, None]).mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=5)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    arms = {"gp": bn.PFN.from_pretrained("gp"), "amortised": bn.AmortisedProcess.from_pretrained()}
    rows = []
    for n in ROWS:
        for noise in NOISES:
            each = [
                [scores(f, n, noise, draw, arms) for draw in range(options.draws)]
                for f in FUNCTIONS.values()
            ]
            means = {k: np.array([np.mean([s[k] for s in draws]) for draws in each]) for k in arms}
            gap = means["gp"] - means["amortised"]
            row = {"n": n, "noise": noise} | {
                k: round(float(v.mean()), 3) for k, v in means.items()
            }
            row |= {"gap": round(float(gap.mean()), 3)}
            row |= {"error": round(float(gap.std(ddof=1) / len(gap) ** 0.5), 3)}
            rows.append(row)
            print(row, flush=True)
    write("pfn_smooth", {"rows": rows, "draws": options.draws, "functions": list(FUNCTIONS)})


if __name__ == "__main__":
    main()
