"""The demo: `make demo`. Three acts on real data, each beside its rivals, and four pictures.

1. Regression on scikit-learn's diabetes table: a network with a matched prior, the same network
   with N(0, 1) weights, a Gaussian process, a linear model.
2. Tuning a classifier by Bayesian optimization with the network as surrogate, against random
   search.
3. One column of diabetes, 100 rows: weights that were trained once for any such table (a PFN) beside
   HMC on a network prior of the same kind. Nothing is downloaded.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
from demo_parts import amortised, figures, optimization, regression

import bayesnet as bn
from bayesnet.defaults import BOX, default_target

SMALL = os.environ.get("BAYESNET_EXAMPLE_SMALL") == "1"
OUT = Path(os.environ.get("BAYESNET_DEMO_OUTPUT", "demo_output"))
FIGURES = ("prior_functions.png", "predictions.png", "optimization.png", "one_pass.png")
BEGAN = time.perf_counter()


def tell(text: str = "") -> None:
    print(text, flush=True)


def heading(text: str) -> None:
    tell(f"\n[{time.perf_counter() - BEGAN:>3.0f} s] {text}")


def run_regression() -> None:
    split = regression.load_split(SMALL)
    X, _, y, y_test = split
    d = X.shape[1]
    heading(f"Regression: diabetes, {len(y)} rows to fit, {len(y_test)} to test, {d} columns")
    tell("  matching the network's weights to a hierarchical Matern-5/2 process ...")
    matched, unmatched, seconds = regression.priors(d, SMALL)
    tell(f"  matched in {seconds:.0f} s (compilation included; bn.fit keeps matches in a cache)")
    figures.prior_functions(
        OUT / "prior_functions.png", default_target(d), matched, unmatched, half=BOX[1]
    )
    method = bn.HMC(chains=4, warmup=20, draws=20, max_steps=8) if SMALL else HMC
    results = []
    for name, prior in (("network, matched prior", matched), ("network, N(0,1) prior", unmatched)):
        tell(f"  {name}: HMC, {method.chains} chains of {method.warmup} + {method.draws} steps ...")
        results.append(regression.fit_network(name, prior, method, split))
        tell(f"    {results[-1].seconds:.0f} s, {results[-1].remark}")
    tell("  Gaussian process (BoTorch's SingleTaskGP) and a linear model ...")
    results += [regression.fit_gaussian_process(split), regression.fit_linear(split)]

    tell(f"\n{regression.table(results, y_test)}")
    tell(
        f"  RMSE in {regression.UNIT} (sd of the test targets: {y_test.std():.1f}). NLL: minus the"
    )
    tell("  mean log density of a new observation, noise included, per unit of y; of networks the")
    tell("  mixture over draws, of the others their Gaussian. In brackets: 95 % binomial interval.")
    tell("  N(0,1): weights of the 1/sqrt(fan_in) parameterisation, nothing matched.")
    tell("\n".join(regression.verdict(results)))
    tell(
        "  One split is one split: 'better' means by 2 paired standard errors over these test rows."
    )
    figures.predictions(OUT / "predictions.png", results, y_test, regression.UNIT)


def run_optimization() -> None:
    heading(f"Optimization: {optimization.DESCRIPTION}")
    outcome = optimization.compare(SMALL, tell)
    best, random = outcome.values.min(), outcome.random_values.min(axis=1)
    beaten = int((best < random).sum())
    tell(
        f"\n  best log loss: bayesnet {best:.4f}; random search median {np.median(random):.4f}, "
        f"range {random.min():.4f} to {random.max():.4f}"
    )
    tell(
        f"  bayesnet ended below {beaten} of {len(random)} random searches "
        f"(median step: {outcome.seconds_per_step:.1f} s for the surrogate and its optimization)."
    )
    tell("  One run on one problem is an anecdote; docs/benchmarks.md has problems and seeds.")
    figures.optimization(OUT / "optimization.png", outcome)


def run_amortised() -> None:
    split = amortised.load_split(SMALL)
    X, _, y, y_test = split
    heading(f"In one forward pass: diabetes, {amortised.COLUMN} alone, {len(y)} rows to fit, "
            f"{len(y_test)} to test")  # fmt: skip
    tell("  network by HMC: 2 layers of 50 tanh units, prior matched to the default process ...")
    conditioned = [amortised.by_hmc(split, SMALL)]
    tell(f"    {conditioned[0].remark}")
    for name, weights in amortised.WEIGHTS:
        conditioned.append(amortised.by_pfn(name, weights, split))
        tell(f"  {name}: {conditioned[-1].remark}")
    tell(f"\n{amortised.table(conditioned, y_test)}")
    tell(
        "  Time: of HMC its chains and predictions, of a PFN conditioning and predicting (median of"
    )
    tell(f"  {amortised.REPEATS} calls after the first); compiling, loading and matching apart.")
    tell(amortised.agreement(conditioned[0], conditioned[1], X))
    tell("\n".join(regression.verdict([conditioned[1].result, conditioned[0].result])))
    tell(
        "  The weights bnn average over tanh and relu networks, HMC here conditions tanh ones: near to"
    )
    tell(
        "  each other, not equal. One table is one table, and a smooth one with much noise; tables with"
    )
    tell("  little noise, where a PFN loses most, are in docs/methods/pfn.md.")
    labels = (amortised.COLUMN, regression.UNIT)
    figures.side_by_side(OUT / "one_pass.png", conditioned, amortised.grid(X), split, labels)


HMC = bn.HMC(chains=4, warmup=200, draws=200)

if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    run_regression()
    run_optimization()
    run_amortised()
    heading(f"Done. Figures in {OUT}: {', '.join(FIGURES)}")
