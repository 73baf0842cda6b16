"""The shipped PFN beside exact and fitted Gaussian processes, on tables drawn from its prior.

    python benchmarks/pfn.py [--weights FILE] [--tables 12] [--bayes 4] [--dims 1 2 4] [--out NAME]
    taskset -c 0 python benchmarks/pfn.py --speed one; python benchmarks/pfn.py --speed many
    python benchmarks/pfn.py --amortised --dims 1 2 3 4      (`bn.AmortisedProcess` in its place)

Accuracy: `log p(y)` of 32 x 16 targets a table, beside the exact law given the true
hyper-parameters; "ml": gpytorch, hyper-parameters by maximum likelihood, a Matern-5/2 kernel with a
lengthscale a column (4 starts); "bayes": the true prior, hyper-parameters drawn by HMC
(`bn.Exact(hyper="hmc")`, 64 draws), on the first `--bayes` tables of each cell; it is told the kind of
kernel of each table, which the others are not. Differences are paired. Probability transforms of
targets that the exact law draws are uniform over tables if a method is calibrated. All in the coordinates
of the prior, without scaling. Speed (only on a quiet machine, both sides on the cores that `taskset` gives): new
tables of 100 rows and 1,000 queries, beside BoTorch's fit and prediction and numpyro's NUTS over the hyper-parameters, and
1,000 tables in one call beside a loop of BoTorch's fits.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings

import jax
import numpy as np
from _common import interleaved, write

import bayesnet as bn
from bayesnet.data import Scaling
from bayesnet.pfn.configurations import read_configuration
from bayesnet.pfn.node_algebra import RADIAL

TARGETS = 16
COUNTS = (5, 10, 20, 50, 100)


def draw_tables(configuration, d, n, tables, seed):
    """Tables (x, y, queries, targets, exact log density, prior), half of each kernel."""
    tasks = configuration.tasks
    out = []
    for part, prior in enumerate(tasks.parts(d)):
        size = tables // len(tasks.weights)
        key = jax.random.fold_in(jax.random.key(seed), 1000 * d + 10 * n + part)
        batch = tasks.draw(key, size, np.full(size, n), d, part)
        rng = np.random.default_rng([seed, d, n, part])
        z = rng.standard_normal((size, tasks.queries, TARGETS))
        std = np.asarray(batch.y_std, np.float64)[..., None]
        targets = np.asarray(batch.f_mean, np.float64)[..., None] + std * z
        exact = -0.5 * z**2 - np.log(std) - 0.5 * np.log(2 * np.pi)
        x, y, new = (np.asarray(a, np.float64) for a in (batch.x, batch.y, batch.queries))
        out += [(x[i, :n], y[i, :n], new[i], targets[i], exact[i], prior) for i in range(size)]
    # One of each kernel in turn, so that the first few are of both.
    half = len(out) // 2
    return [t for pair in zip(out[:half], out[half:], strict=True) for t in pair]


def log_density(prediction, targets):
    return np.stack([prediction.log_prob(t)[:, 0] for t in targets.T], axis=1)


def by_weights(weights, x, y, new, targets):
    """Log densities, probability transforms, and effective draws of what trained weights predict."""
    posterior = weights.fit(x, y, scaling=Scaling.identity(x.shape[1], 1), warn=False)
    prediction = (
        posterior.predict(new) if amortised(weights) else posterior.predict(new, warn=False)
    )
    levels = np.stack([prediction.cdf(t)[:, 0] for t in targets.T], axis=1)
    size = posterior.search["effective_size"] if amortised(weights) else float("nan")
    return log_density(prediction, targets), levels, size


def amortised(weights):
    return isinstance(weights, bn.AmortisedProcess)


def by_bayes(prior, likelihood, x, y, new, targets):
    posterior = bn.fit(
        prior,
        x,
        y,
        likelihood=likelihood,
        inference=bn.Exact(hyper="hmc"),
        scaling=Scaling.identity(x.shape[1], 1),
        progress=False,
        warn=False,
    )
    return log_density(posterior.predict(new), targets)


def maximum_likelihood(x, y, starts=4):
    """gpytorch's GP in float64, hyper-parameters by maximum likelihood, the best of several starts."""
    import torch
    from botorch.exceptions import ModelFittingError
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from gpytorch.constraints import GreaterThan
    from gpytorch.kernels import MaternKernel, ScaleKernel
    from gpytorch.likelihoods import GaussianLikelihood
    from gpytorch.mlls import ExactMarginalLogLikelihood

    best = None
    for start in range(starts):
        torch.manual_seed(start)
        likelihood = GaussianLikelihood(noise_constraint=GreaterThan(1e-5))
        kernel = ScaleKernel(MaternKernel(2.5, ard_num_dims=x.shape[1]))
        model = SingleTaskGP(
            torch.tensor(x),
            torch.tensor(y)[:, None],
            likelihood=likelihood,
            covar_module=kernel,
            outcome_transform=None,
        )
        if start:
            kernel.base_kernel.lengthscale = torch.exp(torch.randn(x.shape[1]).double())
            likelihood.noise = float(np.exp(-3 + np.random.default_rng(start).normal()))
        mll = ExactMarginalLogLikelihood(likelihood, model)
        try:
            fit_gpytorch_mll(mll)
        except ModelFittingError:
            continue  # a start that its optimizer gave up
        model.train()
        with torch.no_grad():
            value = float(mll(model(*model.train_inputs), model.train_targets))
        model.eval()
        if best is None or value > best[0]:
            best = value, model
    if best is None:
        raise RuntimeError("no start of maximum likelihood came to an end")
    return best[1]


def by_likelihood(x, y, new, targets):
    import torch

    posterior = maximum_likelihood(x, y).posterior(torch.tensor(new), observation_noise=True)
    mean = posterior.mean[:, 0].detach().numpy()[:, None]
    std = posterior.variance[:, 0].detach().sqrt().numpy()[:, None]
    return -0.5 * ((targets - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)


def summary(values):
    values = np.asarray(values, np.float64)
    error = 1.96 * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return {
        "mean": round(float(values.mean()), 4),
        "interval": round(float(error), 4),
        "tables": len(values),
    }


def calibration(levels):
    """Of probability transforms (tables, targets): their largest distance from uniform, and how many lie
    in the central 90 %, with an interval over tables."""
    u = np.sort(np.concatenate([a.ravel() for a in levels]))
    distance = np.abs(u - (np.arange(len(u)) + 0.5) / len(u)).max()
    inside = [np.mean((a > 0.05) & (a < 0.95)) for a in levels]
    return {"ks": round(float(distance), 4), "central_90": summary(inside)}


def accuracy(pfn, configuration, dims, counts, tables, bayes, seed):
    name = "amortised" if amortised(pfn) else "pfn"
    rows, every = [], {k: [] for k in (name, "ml", "bayes", "levels")}
    for d in dims:
        for n in counts:
            gaps: dict[str, list[float]] = {name: [], "ml": [], "bayes": []}
            levels, sizes = [], []
            for i, (x, y, new, targets, exact, prior) in enumerate(
                draw_tables(configuration, d, n, tables, seed)
            ):
                found, level, size = by_weights(pfn, x, y, new, targets)
                gaps[name].append((exact - found).mean())
                levels.append(level)
                sizes.append(size)
                gaps["ml"].append((exact - by_likelihood(x, y, new, targets)).mean())
                if i < bayes:
                    likelihood = configuration.tasks.likelihood
                    value = by_bayes(prior, likelihood, x, y, new, targets)
                    gaps["bayes"].append((exact - value).mean())
            row = {"d": d, "n": n, **compared(name, gaps), **calibration(levels)}
            if amortised(pfn):
                row["effective_size"] = [round(float(a), 1) for a in (np.median(sizes), min(sizes))]
            rows.append(row)
            print(row, flush=True)
            every["levels"] += levels
            for arm, values in gaps.items():
                # The subset with "bayes" is kept apart, so that differences stay paired.
                every[arm] += values if arm != "bayes" else [*values, *[np.nan] * (tables - bayes)]
    total = compared(name, {k: every[k] for k in gaps}) | calibration(every["levels"])
    print(total, flush=True)
    return {"cells": rows, "all": total}


def compared(name, gaps):
    """Nats above the exact law of each arm, and paired differences; NaN: a table without that arm."""
    row = {}
    for arm, values in gaps.items():
        kept = np.asarray(values, np.float64)
        kept = kept[~np.isnan(kept)]
        if len(kept):
            row[f"{arm}_above_exact"] = summary(kept)
            if len(kept) > 2:
                row[f"{arm}_above_exact"]["median"] = round(float(np.median(kept)), 4)
    for arm in ("ml", "bayes"):
        other = np.asarray(gaps[arm], np.float64)
        both = np.subtract(gaps[name][: len(other)], other)
        both = both[~np.isnan(both)]
        if len(both):
            median = round(float(np.median(both)), 4)
            row[f"{name}_minus_{arm}"] = summary(both) | {"median": median}
    return row


def speed(pfn, configuration, dims=(1, 4, 8), tables=8):
    """Seconds for new tables of the prior, 100 rows and 1,000 queries, and ratios by table; NUTS on two."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    rows = []
    for d in dims:
        new = np.random.default_rng(d).normal(size=(1000, d))
        cells = []
        for i, (x, y, _, _, _, prior) in enumerate(draw_tables(configuration, d, 100, tables, 11)):

            def one(x=x, y=y):
                prediction = pfn.fit(x, y, warn=False).predict(new, warn=False)
                return prediction.mean, prediction.std

            def botorch(x=x, y=y):
                model = maximum_likelihood(x, y, starts=1)
                # The faster of its two ways: a batch of single points, without their covariance.
                posterior = model.posterior(torch.tensor(new)[:, None], observation_noise=True)
                return posterior.mean.detach(), posterior.variance.detach()

            cells.append(interleaved({"pfn": one, "botorch": botorch}, repeats=7))
            if i < 2:
                name = prior.covariance.name
                likelihood = configuration.tasks.likelihood
                cells[-1]["nuts"] = nuts(name, prior, likelihood, x, y, new)
        ratios = {
            side: [c[side] / c["pfn"] for c in cells if side in c] for side in ("botorch", "nuts")
        }
        row = {"d": d, "tables": tables, "pfn": float(np.median([c["pfn"] for c in cells]))}
        row |= {side: float(np.median([c[side] for c in cells if side in c])) for side in ratios}
        row |= {
            f"{side}_ratio": [float(f(v)) for f in (np.median, min, max)]
            for side, v in ratios.items()
        }
        rows.append(row)
        print(row, flush=True)
    return rows


def nuts(name, prior, likelihood, x, y, new, draws=256, warmup=500):
    """Seconds of the second of two runs of numpyro's NUTS over the hyper-parameters, with predictions.

    One chain, float64, 64 of its draws conditioned and predicted with.
    """
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer import MCMC, NUTS

    hyper, noise = prior.covariance.hyper, likelihood.noise_std
    laws = {
        "lengthscale": hyper["lengthscale"],
        "outputscale": hyper["outputscale"],
        "noise": noise,
    }
    with jax.enable_x64(True):
        x, y, new = jnp.asarray(x), jnp.asarray(y), jnp.asarray(new)

        def kernel(h, a, b):
            square = jnp.sum(((a[:, None] - b) / h["lengthscale"]) ** 2, axis=-1)
            return h["outputscale"] * RADIAL[name](jnp.maximum(square, 1e-30))

        def gram(h):
            return kernel(h, x, x) + (h["noise"] ** 2 + 1e-7) * jnp.eye(len(x))

        def model():
            h = {
                k: numpyro.sample(k, dist.LogNormal(jnp.asarray(v.loc), v.scale))
                for k, v in laws.items()
            }
            numpyro.sample("y", dist.MultivariateNormal(covariance_matrix=gram(h)), obs=y)

        @jax.jit
        def law(h):
            factor = jnp.linalg.cholesky(gram(h))
            cross = kernel(h, x, new)
            solved = jax.scipy.linalg.solve_triangular(factor, cross, lower=True)
            e = jax.scipy.linalg.solve_triangular(factor, y, lower=True)
            return solved.T @ e, h["outputscale"] + h["noise"] ** 2 - jnp.sum(solved**2, axis=0)

        sampler = MCMC(NUTS(model), num_warmup=warmup, num_samples=draws, progress_bar=False)

        def run(seed):
            sampler.run(jax.random.key(seed))
            found = sampler.get_samples()
            for i in range(0, draws, draws // 64):
                jax.block_until_ready(law(jax.tree.map(lambda a, i=i: a[i], found)))

        run(0)
        start = time.perf_counter()
        run(0)
        return time.perf_counter() - start


def many(pfn, configuration, sizes=(20, 50, 100), tables=1000, loop=24):
    """1,000 tables of one column in one call (median of 5), 10 queries each, beside a loop of BoTorch fits."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    rows = []
    for n in sizes:
        drawn = draw_tables(configuration, 1, n, tables, 12)
        x, y = (np.stack([t[i] for t in drawn]) for i in (0, 1))
        new = np.stack([t[2][:10] for t in drawn])
        start = time.perf_counter()
        pfn.predict_many(x, y, new)
        first = time.perf_counter() - start
        calls = []
        for _ in range(5):
            start = time.perf_counter()
            pfn.predict_many(x, y, new)
            calls.append(time.perf_counter() - start)
        seconds = float(np.median(calls))
        start = time.perf_counter()
        for i in range(loop):
            model = maximum_likelihood(x[i], y[i], starts=1)
            posterior = model.posterior(torch.tensor(new[i])[:, None], observation_noise=True)
            posterior.variance.detach()
        each = (time.perf_counter() - start) / loop
        row = {"n": n, "tables": tables, "pfn": seconds, "first_call": first}
        row |= {"botorch": each * tables, "ratio": each * tables / seconds}
        rows.append(row)
        print(row, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default=None)
    parser.add_argument("--amortised", action="store_true")
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--tables", type=int, default=12)
    parser.add_argument("--bayes", type=int, default=4)
    parser.add_argument("--dims", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--out", default=None, help="name of the results")
    parser.add_argument("--speed", nargs="*", choices=["one", "many"], default=None)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    kind = bn.AmortisedProcess if options.amortised else bn.PFN
    name = options.weights or ("gp_process" if options.amortised else "gp")
    pfn = (kind.load if name.endswith(".safetensors") else kind.from_pretrained)(name)
    results = {"card": {k: v for k, v in pfn.card.items() if k not in ("certificate", "outside")}}
    configuration = read_configuration("gp")
    if options.speed is not None:
        for part in options.speed or ("one", "many"):
            found = (speed if part == "one" else many)(pfn, configuration)
            write(f"pfn_speed_{part}", results | {"speed": found})
        return
    found = accuracy(
        pfn,
        configuration,
        options.dims,
        options.counts,
        options.tables,
        options.bayes,
        options.seed,
    )
    name = options.out or ("pfn_amortised" if options.amortised else "pfn")
    write(name, results | {"accuracy": found})


if __name__ == "__main__":
    main()
