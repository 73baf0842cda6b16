"""Is there a cold-posterior effect, with N(0, 1) weights and with a matched prior?

The tempered posterior of Wenzel et al. 2020 is proportional to exp(-U(w) / T), prior included. For
Gaussian weights it needs no sampler of its own: exp(-U / T) is the posterior under weights of
sd sqrt(T) times the prior's, every row counting 1 / T times (`sample_weight`). `tempered` below
does that, and `check` compares log densities.

Declared before the runs: digits of classes 0 to 7 as in `classification.py` (two disjoint sets of 200
rows to learn from, 280 to test on); MLP 64-50-8 tanh ("ntk"); HMC, 4 chains; T = 0.03, 0.1, 0.3, 1, 3;
arms `n01`, `n01_raw`, `matched` as there. T = 1 is Bayes; NLL is of test labels.

    python benchmarks/cold_posterior.py
"""

from __future__ import annotations

import argparse
import warnings
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from _studies import convergence, paired, run
from classification import class_scores, digits_prior, digits_split

import bayesnet as bn
from bayesnet.data import Scaling, make_data
from bayesnet.inference.model import LatentModel

TEMPERATURES = (0.03, 0.1, 0.3, 1.0, 3.0)
ARMS = ("n01", "n01_raw", "matched")
FIELDS = ("split", "arm", "temperature")


def tempered(prior: bn.NetworkPrior, temperature: float) -> bn.NetworkPrior:
    """The prior raised to the power 1 / T: Gaussian weights of mean 0, sd sqrt(T) times as large."""
    shift = 0.5 * np.log(temperature)
    return eqx.tree_at(lambda p: p.law.log_scale, prior, prior.law.log_scale + shift)


def one(split: int, arm: str, temperature: float) -> dict:
    x, y, x_new, y_new, _ = digits_split(split)
    post = bn.fit(
        tempered(digits_prior("digits_small", arm), temperature), x, y,
        likelihood=bn.CategoricalLikelihood(), sample_weight=np.full(len(y), 1 / temperature),
        inference=bn.HMC(warmup=150, draws=75, max_steps=64), seed=split, warn=False,
    )  # fmt: skip
    return class_scores(post.predict(x_new), y_new) | convergence(post)


def check(temperature: float = 0.1) -> float:
    """The largest error of log density differences against those at T = 1, divided by T."""
    x, y, _, _, _ = digits_split(0)
    cold = digits_prior("digits_small", "n01")
    cold_prior = tempered(cold, temperature)
    likelihood, codes = bn.CategoricalLikelihood().encode(y)
    scaling = Scaling.identity(64, 1)

    def model(prior: bn.NetworkPrior, weight: float) -> LatentModel:
        data = make_data(x, codes, None, scaling, weight=np.full(len(y), weight))
        return LatentModel(prior, likelihood.bind(scaling, data.rows), data.rows)

    z = jax.random.normal(jax.random.key(0), (4, cold.latent_size))
    plain, tempered_model = model(cold, 1.0), model(cold_prior, 1 / temperature)
    # The same weights are z under the prior and z / sqrt(T) under the tempered one.
    a = jnp.stack([plain.log_density(v) for v in z]) / temperature
    b = jnp.stack([tempered_model.log_density(v / temperature**0.5) for v in z])
    return float(jnp.abs((a - a[0]) - (b - b[0])).max() / jnp.abs(a - a[0]).max())


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    warnings.simplefilter("ignore", bn.ConvergenceWarning)
    print(f"relative error of tempered log densities: {check():.1e}")
    jobs = {
        (split, arm, t): partial(one, split, arm, t)
        for split in range(2)
        for arm in ARMS
        for t in TEMPERATURES
    }
    rows = run("cold_posterior", jobs, FIELDS)
    for arm in ARMS:
        print(f"\n{arm}")
        at = {t: [r for r in rows if (r["arm"], r["temperature"]) == (arm, t)] for t in TEMPERATURES}  # fmt: skip
        for t, mine in at.items():
            means = "  ".join(f"{k} {np.mean([r[k] for r in mine]):.3f}" for k in ("nll", "accuracy", "ece"))  # fmt: skip
            both = [r | {"arm": str(r["temperature"])} for r in at[1.0] + mine]
            gain, error, _ = paired(both, str(t), "1.0", "nll", "split") if t != 1 else (0, 0, 0)
            hats = [r["rhat_f"] for r in mine]
            print(f"  T {t:<5} {means}  gain in nll over T = 1 {gain:+.3f} +- {error:.3f}  R-hat {max(hats):.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
