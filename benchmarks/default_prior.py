"""The hyper-laws of the default process, judged on made-up functions.

Candidates for the lengthscales of the default Matern-5/2 process, declared before the run:
`median` independent, log-normal with median sqrt(2 d), sd 0.7; `corrected` the same with the
median raised by exp(0.7^2), so that the mean of 1/lengthscale^2 is 1/(2 d) and two random rows are
at mean squared distance 1 in lengthscales whatever d; `typical` the median, over drawn functions, of
that mean squared distance is 1 (the library's default; added after the first three, which it lies
between: equal to `median` at d = 1, near `corrected` at large d); `shared` one lengthscale for all columns, median
sqrt(2 d), sd 0.7; `rescaled` the laws of
`typical`, but lengthscales and variance are latents of the posterior (`bn.match_rescaled`; added last). The variance is log-normal with median 1 and sd 0.5 throughout. Tables are
generated (no table of real data is looked at), 100 training rows, noise 0.2 of the signal's sd.

    python benchmarks/default_prior.py
"""

from __future__ import annotations

import argparse
import json
import warnings

import numpy as np
from _common import RESULTS, write

import bayesnet as bn
from bayesnet.defaults import default_lengthscale, default_network, matched


def laws(dim: int) -> dict[str, bn.LogNormal]:
    loc = np.full(dim, 0.5 * np.log(2.0 * dim))
    return {
        "median": bn.LogNormal(loc, 0.7),
        "corrected": bn.LogNormal(loc + 0.49, 0.7),
        "typical": default_lengthscale(dim),
        "shared": bn.LogNormal(float(loc[0]), 0.7),
        "rescaled": default_lengthscale(dim),
    }


def prior_of(name: str, dim: int):
    """The default network, matched to the Matern-5/2 process with the law `name`."""
    law, variance = laws(dim)[name], bn.LogNormal(0.0, 0.5)
    plain = bn.NetworkPrior(default_network(), in_dim=dim)
    box = bn.Box([-2.0] * dim, [2.0] * dim)
    if name == "rescaled":
        return bn.match_rescaled(
            plain, "matern52", box, lengthscale=law, outputscale=variance, quantiles=()
        ).prior
    return matched(plain, bn.GaussianProcess("matern52", law, variance), box)


def friedman1(x: np.ndarray) -> np.ndarray:
    u = (x + 1.7) / 3.4
    return 10 * np.sin(np.pi * u[:, 0] * u[:, 1]) + 20 * (u[:, 2] - 0.5) ** 2 + 10 * u[:, 3]


FUNCTIONS = {
    "linear": (8, lambda x: x @ np.array([3.0, -2, 1, 0.5, 0, 0, 0, 0])),
    "near linear": (13, lambda x: x[:, :6].sum(1) + 0.3 * x[:, 0] * x[:, 1] + 0.2 * x[:, 6] ** 2),
    "additive sines": (6, lambda x: np.sin(1.5 * x).sum(1)),
    "friedman 1": (10, friedman1),
    "interactions": (5, lambda x: x[:, 0] * x[:, 1] + x[:, 2] * np.abs(x[:, 3])),
    "smooth 2-D": (2, lambda x: np.exp(-0.5 * ((x - 0.5) ** 2).sum(1)) + 0.3 * x[:, 0]),
    "rough 2-D": (2, lambda x: np.sign(np.sin(3 * x[:, 0])) + np.sin(4 * x[:, 1])),
    "steps 1-D": (1, lambda x: np.floor(1.5 * x[:, 0])),
}


def table(name: str, seed: int) -> tuple[np.ndarray, ...]:
    dim, function = FUNCTIONS[name]
    rng = np.random.default_rng([seed, len(name)])
    x = rng.uniform(-1.7, 1.7, (600, dim))
    f = function(x)
    y = f + 0.2 * f.std() * rng.normal(size=len(f))
    y = (y - y[:100].mean()) / y[:100].std()
    return x[:100], y[:100], x[100:], y[100:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--laws", nargs="+", default=list(laws(1)), choices=list(laws(1)))
    args = parser.parse_args()
    warnings.simplefilter("ignore", bn.ConvergenceWarning)
    method = bn.HMC(chains=2, warmup=300, draws=200, max_steps=128)
    path = RESULTS / "default_prior.json"
    rows = json.loads(path.read_text())["results"]["rows"] if path.exists() else []
    rows = [r for r in rows if r["law"] not in args.laws]
    for name, (dim, _) in FUNCTIONS.items():
        for law_name in args.laws:
            prior = prior_of(law_name, dim)
            for seed in range(args.seeds):
                x, y, x_new, y_new = table(name, seed)
                post = bn.fit(prior, x, y, inference=method, seed=seed, warn=False)
                prediction = post.predict(x_new)
                checked = next(r for r in post.diagnostics().rows if r.name == "f at training rows")
                row = {
                    "table": name,
                    "law": law_name,
                    "seed": seed,
                    "rmse": float(np.sqrt(np.mean((prediction.mean[:, 0] - y_new) ** 2))),
                    "nll": float(-prediction.log_prob(y_new).mean()),
                    "rhat_f": checked.rhat,
                }
                rows.append(row)
                print(row, flush=True)
    for law_name in laws(1):
        mine = [r for r in rows if r["law"] == law_name]
        print(law_name, *(f"{k} {np.mean([r[k] for r in mine]):.4f}" for k in ("rmse", "nll")))
    write("default_prior", {"rows": rows})


if __name__ == "__main__":
    main()
