"""Where a matched network does better than the process with the very kernel it was matched to.

Problems on generated data, declared before the runs. (Images: `classification.py` has the digits, with
a convolutional network, and the process on pixels.)

`lengths`: one input, 50 rows, noise sd 0.05 of a function whose lengthscale changes: `chirp`, whose
    frequency grows 20-fold from left to right, and `step`, a smooth wave with one steep step of
    width 0.02. Matern-5/2 with the library's default laws of lengthscale and variance; network MLP
    1-50-50-1 tanh, HMC. Arms: `n01`, `matched`, `ensemble` (plain, under `n01`), `gp` (the very
    target, hyper-parameters integrated), `gp_fitted` (Matern-5/2 by marginal likelihood).
    `matched_scale`, with lengthscale and variance as latents, was added after the others were seen.
`large`: 10,000 rows of Friedman's first function of 8 inputs, three of them without effect, noise sd
    0.2 of the signal's. Target Matern-5/2 with lengthscale sqrt(2 d) and variance 1; network MLP
    8-50-50-1 tanh, SGHMC with batches of 256. `gp_subset` (1,000 rows), `gp_inducing` (Titsias 2009,
    500 rows as inducing points), `gp_exact` (all rows, the noise
    of `gp_subset`; what the others approximate), `gp_ard`
    (inducing points, lengthscales of each input by marginal likelihood on 500 rows).
"N(0, 1)" weights are in the "ntk" parameterisation.

    python benchmarks/where_networks_help.py lengths large
"""

from __future__ import annotations

import argparse
import warnings
from functools import cache, partial

import numpy as np
from _processes import exact_gp, hierarchical_gp, inducing_gp, matern52
from _studies import convergence, paired, run, table

import bayesnet as bn
from bayesnet.defaults import default_lengthscale, default_network, default_outputscale, matched
from bayesnet.diagnostics.calibration import coverage

FIELDS = ("part", "problem", "seed", "arm")
PLAIN_ENSEMBLE = {"members": 10, "start": "network", "anchored": False}


def scores(prediction, y: np.ndarray, f: np.ndarray) -> dict[str, float]:
    """RMSE against the noise-free function and NLL of observations, in units of the function's sd."""
    error = prediction.mean[:, 0] - f
    return {
        "rmse_f": float(np.sqrt(np.mean(error**2)) / f.std()),
        "nll": float(-prediction.log_prob(y[:, None]).mean() - np.log(f.std())),
        "cover90": coverage(prediction, y[:, None]).share,
    }


# --- a lengthscale that changes ---------------------------------------------------------------


def changing(problem: str, seed: int) -> tuple[np.ndarray, ...]:
    """(x, y, x_new, y_new, f_new)."""
    rng = np.random.default_rng([seed, len(problem)])
    phase, centre, slope = rng.uniform(0, 1), rng.uniform(0.3, 0.7), rng.normal()

    def function(x: np.ndarray) -> np.ndarray:
        if problem == "chirp":
            turns = 3 * np.expm1(3 * x) / np.expm1(3) + phase
            return np.sin(2 * np.pi * turns) + 0.3 * slope * x
        wave = 0.3 * np.sin(2 * np.pi * (x + phase))
        return np.tanh((x - centre) / 0.02) + wave + 0.3 * slope * x

    x, x_new = rng.uniform(size=50), rng.uniform(size=500)
    f, f_new = function(x), function(x_new)
    scale = 0.05 * function(np.linspace(0, 1, 1000)).std()
    noise = rng.normal(size=(550,)) * scale
    return x[:, None], f + noise[:50], x_new[:, None], f_new + noise[50:], f_new


def one_changing(problem: str, seed: int, arm: str, quick: bool) -> dict:
    x, y, x_new, y_new, f_new = changing(problem, seed)
    laws = default_lengthscale(1), default_outputscale()
    if arm == "gp":
        return scores(hierarchical_gp(x, y, x_new, *laws), y_new, f_new)
    if arm == "gp_fitted":
        return scores(fitted_gp(x, y, x_new, len(x)), y_new, f_new)
    method = bn.HMC(warmup=30, draws=10) if quick else bn.HMC(warmup=400, draws=150, max_steps=256)
    if arm == "ensemble":
        method = bn.DeepEnsemble(**PLAIN_ENSEMBLE, steps=50 if quick else 3000)
    prior = None if arm == "matched" else bn.NetworkPrior(default_network(), in_dim=1)
    if arm == "matched_scale":
        prior = rescaled_prior()
    post = bn.fit(prior, x, y, inference=method, seed=seed, warn=False)
    return scores(post.predict(x_new), y_new, f_new) | convergence(post)


@cache
def rescaled_prior() -> bn.RescaledPrior:
    plain = bn.NetworkPrior(default_network(), in_dim=1)
    laws = {"lengthscale": default_lengthscale(1), "outputscale": default_outputscale()}
    return bn.match_rescaled(plain, "matern52", bn.Box(-2.0, 2.0), **laws, seed=0).prior


def fitted_gp(x, y, x_new, rows: int, inducing: int | None = None, seed: int = 0):
    """Lengthscales and variance by marginal likelihood on `rows` rows, then all of them used."""
    chosen = np.random.default_rng(seed).permutation(len(x))[:rows]
    process = bn.GaussianProcess.fit(x[chosen], y[chosen], "matern52", restarts=1)
    kernel = process.covariance
    part = bn.data.Scaling.from_data(x[chosen], y[chosen, None])
    whole = bn.data.Scaling.from_data(x, y[:, None])
    # From the coordinates of the part to those of the whole table.
    length = np.ravel(kernel.lengthscale) * part.x_scale / whole.x_scale
    variance = float(kernel.outputscale) * float((part.y_scale / whole.y_scale)[0]) ** 2
    law = partial(matern52, lengthscale=length)
    count = len(x) if inducing is None else inducing
    return inducing_gp(x, y, x_new, law, count, outputscale=variance, seed=seed)[0]


# --- many rows --------------------------------------------------------------------------------


def friedman(seed: int, rows: int) -> tuple[np.ndarray, ...]:
    """(x, y, x_new, y_new, f_new): 2,000 new rows."""
    rng = np.random.default_rng([seed, 99])
    u = rng.uniform(size=(rows + 2000, 8))
    f = 10 * np.sin(np.pi * u[:, 0] * u[:, 1]) + 20 * (u[:, 2] - 0.5) ** 2 + 10 * u[:, 3] + 5 * u[:, 4]  # fmt: skip
    y = f + 0.2 * f.std() * rng.normal(size=len(f))
    return u[:rows], y[:rows], u[rows:], y[rows:], f[rows:]


def one_large(problem: str, seed: int, arm: str, quick: bool) -> dict:
    x, y, x_new, y_new, f_new = friedman(seed, 500 if quick else 10_000)
    few, inducing = (50, 50) if quick else (1000, 500)
    length = (2.0 * x.shape[1]) ** 0.5
    kernel = partial(matern52, lengthscale=length)
    if arm == "gp_ard":
        return scores(fitted_gp(x, y, x_new, inducing, inducing, seed), y_new, f_new)
    if arm == "gp_inducing":
        return scores(inducing_gp(x, y, x_new, kernel, inducing, seed=seed)[0], y_new, f_new)
    if arm == "gp_subset":
        prediction, _ = inducing_gp(x[:few], y[:few], x_new, kernel, few, seed=seed)
        return scores(prediction, y_new, f_new)
    if arm == "gp_exact":
        _, noise = inducing_gp(x[:few], y[:few], x_new, kernel, few, seed=seed)
        return scores(exact_gp(x, y, x_new, kernel, noise), y_new, f_new) | {"noise": noise}
    plain = bn.NetworkPrior(default_network(), in_dim=8)
    if arm == "ensemble":
        method = bn.DeepEnsemble(**PLAIN_ENSEMBLE, batch_size=256, steps=50 if quick else 3000)
    else:
        steps = {"warmup": 100, "draws": 10, "thin": 5} if quick else {"warmup": 8000, "draws": 60, "thin": 200}  # fmt: skip
        method = bn.SGHMC(batch_size=256, **steps)
    target = bn.GaussianProcess("matern52", length)
    box = bn.Box([-2.0] * 8, [2.0] * 8)
    prior = matched(plain, target, box) if arm == "matched" else plain
    post = bn.fit(prior, x, y, inference=method, seed=seed, warn=False)
    return scores(post.predict(x_new), y_new, f_new) | convergence(post)


PARTS = {
    "lengths": (
        one_changing,
        ("chirp", "step"),
        ("n01", "matched", "matched_scale", "ensemble", "gp", "gp_fitted"),
    ),
    "large": (
        one_large,
        ("friedman",),
        ("n01", "matched", "ensemble", "gp_subset", "gp_inducing", "gp_exact", "gp_ard"),
    ),
}
SEEDS = {"lengths": 6, "large": 3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--seeds", type=int, default=None)
    parser.add_argument("--quick", action="store_true", help="tiny runs, kept in another file")
    args = parser.parse_args()
    warnings.simplefilter("ignore", bn.ConvergenceWarning)
    jobs = {}
    for part in args.parts:
        one, problems, arms = PARTS[part]
        for seed in range(args.seeds or SEEDS[part]):
            for problem in problems:
                for arm in arms:
                    jobs[part, problem, seed, arm] = partial(one, problem, seed, arm, args.quick)
    rows = run("where_quick" if args.quick else "where_networks_help", jobs, FIELDS)
    for part in args.parts:
        for problem in PARTS[part][1]:
            mine = [r for r in rows if (r["part"], r["problem"]) == (part, problem)]
            columns = ("rmse_f", "nll", "cover90")
            print(f"\n{part}, {problem}")
            table(mine, columns)
            for arm in PARTS[part][2]:
                for column in columns[:2]:
                    if arm != "matched":
                        gain, error, count = paired(mine, "matched", arm, column, "seed")
                        print(f"  {column}, {arm} minus matched: {gain:+.4f} +- {error:.4f} ({count})")  # fmt: skip


if __name__ == "__main__":
    main()
