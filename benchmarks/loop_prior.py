"""Which lengthscales serve the optimization loop: the default process of regression, or others?

Made-up pools: 600 Sobol designs of each standard test function, 5 random ones to start from, then one
chosen at a time until one of the best 1 % is found, at most 40 (41 where it was not). Arms, declared
before the run: `typical` (the default process of `fit`), `median` (independent lengthscales, log-normal with
median sqrt(2 d), sd 0.7; shorter for many inputs), `wide` (the same median, sd 1.2), and BoTorch's SingleTaskGP.
Added after the first seed of these was seen: `rescaled` and `rescaled_wide`, the lengthscales of `median` and `wide`
and the variance as latents of the posterior (`bn.match_rescaled`). Added last, to tell the prior from the network
and its chains: `exact`, the very process of `typical` with its hyper-parameters at their mode (`bn.Exact(hyper="map")`), and `amortised`.
No table of real data is looked at.

    python benchmarks/loop_prior.py --seeds 5
"""

from __future__ import annotations

import argparse
import json
import warnings
from functools import cache

import numpy as np
import torch
from _common import RESULTS, write
from botorch import test_functions as functions
from botorch.exceptions import BotorchWarning
from botorch.utils.sampling import draw_sobol_samples
from pools import METHODS, Network, mean_error, run

import bayesnet as bn
from bayesnet.bo import LoopSettings, LoopState
from bayesnet.bo.problems import Pool
from bayesnet.defaults import default_lengthscale, default_network

FUNCTIONS = {
    "branin": functions.Branin,
    "hartmann3": lambda: functions.Hartmann(dim=3),
    "hartmann6": functions.Hartmann,
    "levy4": lambda: functions.Levy(dim=4),
    "rosenbrock3": lambda: functions.Rosenbrock(dim=3),
    "styblinski3": lambda: functions.StyblinskiTang(dim=3),
    "ackley5": lambda: functions.Ackley(dim=5),
    "cosine8": functions.Cosine8,
}


def lengthscales(arm: str, dim: int) -> bn.LogNormal:
    """The law of the lengthscales of an arm, in scaled coordinates."""
    if arm in ("typical", "exact", "amortised"):
        return default_lengthscale(dim)
    spread = 1.2 if arm.endswith("wide") else 0.7
    return bn.LogNormal(np.full(dim, 0.5 * np.log(2.0 * dim)), spread)


@cache
def rescaled(arm: str, dim: int) -> bn.RescaledPrior:
    """The default network with lengthscales and variance as latents, matched once."""
    return bn.match_rescaled(
        bn.NetworkPrior(default_network(), in_dim=dim),
        "matern52",
        bn.Box([-2.0] * dim, [2.0] * dim),
        lengthscale=lengthscales(arm, dim),
        outputscale=bn.LogNormal(0.0, 0.5),
    ).prior


def network(arm: str) -> type:
    """The network of `pools.py` with the process of an arm as its target."""

    class Arm(Network):
        def __init__(self, pool: Pool, seed: int) -> None:
            self.seed = seed
            dim = pool.X.shape[1]
            law = lengthscales(arm, dim)
            if arm == "amortised":
                settings = LoopSettings("amortised", maximize=pool.maximize)
            elif arm == "exact":
                process = bn.GaussianProcess("matern52", law, bn.LogNormal(0.0, 0.5))
                method = bn.Exact(hyper="map")
                settings = LoopSettings(method, prior=process, maximize=pool.maximize)
            elif arm.startswith("rescaled"):
                settings = LoopSettings("hmc", prior=rescaled(arm, dim), maximize=pool.maximize)
            else:
                target = bn.GaussianProcess("matern52", law, bn.LogNormal(0.0, 0.5))
                settings = LoopSettings("hmc", target=target, maximize=pool.maximize)
            self.state = LoopState(pool.bounds, settings)

    return Arm


def pool_of(name: str) -> Pool:
    """600 designs of a function, whose best 6 are looked for."""
    function = FUNCTIONS[name]()
    bounds = function.bounds.to(torch.double)
    x = draw_sobol_samples(bounds, 600, 1, seed=len(name)).squeeze(1)
    # Maximised by the pools; all but Cosine8 are functions to minimise.
    y = function(x) if name == "cosine8" else -function(x)
    return Pool(x.numpy(), y.numpy(), maximize=True)


ARMS = (
    "typical",
    "median",
    "wide",
    "rescaled",
    "rescaled_wide",
    "exact",
    "amortised",
    "botorch_gp",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    args = parser.parse_args()
    warnings.simplefilter("ignore", BotorchWarning)
    path = RESULTS / "loop_prior.json"
    rows = json.loads(path.read_text())["results"]["rows"] if path.exists() else []
    for arm in args.arms:
        METHODS[arm] = network(arm) if arm != "botorch_gp" else METHODS["botorch_gp"]
    for seed in range(args.seeds):
        for name in FUNCTIONS:
            for arm in args.arms:
                if any((r["function"], r["arm"], r["seed"]) == (name, arm, seed) for r in rows):
                    continue
                record = run(pool_of(name), arm, seed, 40, False, share=0.01)
                row = {"function": name, "arm": arm, "seed": seed, "until": record["until_top"]}
                rows.append(row)
                print(row, flush=True)
            write("loop_prior", {"rows": rows})
    for name in (*FUNCTIONS, "all"):
        cells = []
        for arm in ARMS:
            mine = [r["until"] for r in rows if r["arm"] == arm and name in (r["function"], "all")]
            cells.append(f"{arm} {mean_error(mine)}" if mine else f"{arm} -")
        print(f"{name:12s}", " | ".join(cells))


if __name__ == "__main__":
    main()
