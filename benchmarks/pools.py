"""Choosing the best of the 600 crossed barrels: matched network by HMC, random search, BoTorch GP.

Every method starts from the same 5 random designs of a seed and then chooses one design at a time.
Reported: experiments (the first 5 included) until one of the best 5 % is found, at most 60 (61 where it
was not), where a run stops unless `--full` (then also simple regret after 60); paired differences by
seed with standard errors; seconds a step, compilation included. Finished (method, seed) runs are
kept in results/pools.json, one record a run, and not run again.

    python benchmarks/pools.py --seeds 20        # the whole table
    python benchmarks/pools.py --quick           # 2 seeds, 15 experiments, nothing is kept
"""

from __future__ import annotations

import argparse
import json
import time
import warnings

import numpy as np
import pandas as pd
import torch
from _common import RESULTS as FOLDER
from _common import SHARED_DATA, context
from botorch.acquisition import LogExpectedImprovement
from botorch.exceptions import BotorchWarning
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.transforms import Normalize, Standardize
from gpytorch.mlls import ExactMarginalLogLikelihood

from bayesnet.bo import LoopSettings, LoopState, suggest_from_pool
from bayesnet.bo.problems import Pool

TABLE = SHARED_DATA / "pools" / "crossed_barrel" / "data.csv"
RESULTS = FOLDER / "pools.json"
START, BUDGET = 5, 60


class Random:
    """A random order of the designs that are left."""

    def __init__(self, pool: Pool, seed: int) -> None:
        self.rng = np.random.default_rng(10_000 + seed)

    def choose(self, pool: Pool, chosen: list[int], left: np.ndarray) -> int:
        return int(self.rng.choice(left))


class GaussianProcess:
    """BoTorch's SingleTaskGP with its own priors, fitted at every step; LogEI."""

    def __init__(self, pool: Pool, seed: int) -> None:
        torch.manual_seed(seed)
        self.bounds = torch.as_tensor(pool.bounds)

    def choose(self, pool: Pool, chosen: list[int], left: np.ndarray) -> int:
        X, y = torch.as_tensor(pool.X), torch.as_tensor(pool.y)
        model = SingleTaskGP(
            X[chosen],
            y[chosen].unsqueeze(1),
            input_transform=Normalize(X.shape[1], bounds=self.bounds),
            outcome_transform=Standardize(1),
        )
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        acquisition = LogExpectedImprovement(model, best_f=y[chosen].max())
        with torch.no_grad():
            return int(left[acquisition(X[left].unsqueeze(1)).argmax()])


class Network:
    """The default prior (MLP 50-50 matched to a hierarchical Matern-5/2 GP) by HMC; noisy LogEI."""

    def __init__(self, pool: Pool, seed: int) -> None:
        self.seed = seed
        self.state = LoopState(pool.bounds, LoopSettings("hmc", maximize=pool.maximize))

    def choose(self, pool: Pool, chosen: list[int], left: np.ndarray) -> int:
        seed = 1000 * self.seed + len(chosen)
        self.state = self.state.update(pool.X[chosen], pool.y[chosen], seed=seed)
        return int(left[suggest_from_pool(self.state, pool.X[left], seed=seed)[0]])


METHODS = {"random": Random, "botorch_gp": GaussianProcess, "bayesnet_hmc": Network}


def run(pool: Pool, method: str, seed: int, budget: int, full: bool, share: float = 0.05) -> dict:
    """One run of a method, until one of the best `share` is found: choices, seconds of each step."""
    optimizer = METHODS[method](pool, seed)
    chosen, seconds = pool.start(START, seed).tolist(), []
    top = pool.top(share)
    while len(chosen) < budget and (full or not top[chosen].any()):
        left = np.setdiff1d(np.arange(len(pool.y)), chosen)
        began = time.perf_counter()
        chosen.append(optimizer.choose(pool, chosen, left))
        seconds.append(round(time.perf_counter() - began, 4))
    hits = np.flatnonzero(top[chosen])
    return {
        "method": method,
        "seed": seed,
        "until_top": int(hits[0]) + 1 if len(hits) else budget + 1,
        "regret": [round(float(r), 6) for r in pool.regret(np.array(chosen))],
        "seconds": seconds,
        "full": full,
        "chosen": chosen,
    }


def summarise(runs: list[dict]) -> dict:
    """Means, standard errors, and differences paired by seed with the network."""
    by = {m: {r["seed"]: r for r in runs if r["method"] == m} for m in METHODS}
    seeds = sorted(set.intersection(*(set(b) for b in by.values())))
    out: dict = {"seeds": len(seeds), "methods": {}, "network_minus": {}}
    for method, records in by.items():
        rows = [records[s] for s in seeds]
        out["methods"][method] = {
            "until_top": mean_error([r["until_top"] for r in rows]),
            "seconds_a_step": {
                "median": round(
                    float(np.median([t for r in rows for t in r["seconds"]] or [0.0])), 3
                ),
                "mean": round(float(np.mean([t for r in rows for t in r["seconds"]] or [0.0])), 3),
            },
        }
        if method != "bayesnet_hmc":
            ours = by["bayesnet_hmc"]
            out["network_minus"][method] = {
                "until_top": mean_error(
                    [ours[s]["until_top"] - records[s]["until_top"] for s in seeds]
                ),
            }
        if all(r["full"] for r in rows):
            end = mean_error([r["regret"][-1] for r in rows])
            out["methods"][method]["regret_at_end"] = end
    return out


def mean_error(values: list[float]) -> list[float]:
    """The mean and its standard error."""
    a = np.asarray(values, float)
    error = a.std(ddof=1) / np.sqrt(len(a)) if len(a) > 1 else float("nan")
    return [round(float(a.mean()), 4), round(float(error), 4)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="2 seeds, 15 experiments, not kept")
    parser.add_argument("--full", action="store_true", help="60 experiments in every run")
    options = parser.parse_args()
    if not TABLE.is_file():
        print(f"Skipped: the crossed-barrel table is not there (looked at {TABLE}).")
        return
    warnings.simplefilter("ignore", BotorchWarning)
    table = pd.read_csv(TABLE)
    pool = Pool.of(table.iloc[:, :-1], table.iloc[:, -1])
    seeds, budget = (2, 15) if options.quick else (options.seeds, BUDGET)
    runs: list[dict] = []
    if RESULTS.is_file() and not options.quick:
        runs = json.loads(RESULTS.read_text())["runs"]
    have = {(r["method"], r["seed"]) for r in runs}
    where = {key: context()[key] for key in ("commit", "device", "versions")}
    for seed in range(seeds):
        for method in METHODS:
            if (method, seed) in have:
                continue
            record = {**run(pool, method, seed, budget, options.full), **where}
            runs.append(record)
            print(
                f"seed {seed:2d} {method:12s} best 5 % after {record['until_top']:2d}, "
                f"regret {record['regret'][-1]:.3f}, {np.median(record['seconds'] or [0]):.2f} s a step",
                flush=True,
            )
            if not options.quick:
                keep(runs)
    print(json.dumps(summarise(runs), indent=2))


def keep(runs: list[dict]) -> None:
    """Write all runs, the old file staying whole until the new one is."""
    RESULTS.parent.mkdir(exist_ok=True)
    complete = {m: {r["seed"] for r in runs if r["method"] == m} for m in METHODS}
    summary = summarise(runs) if set.intersection(*complete.values()) else None
    temporary = RESULTS.with_suffix(".tmp")
    temporary.write_text(json.dumps({"summary": summary, "runs": runs}) + "\n")
    temporary.replace(RESULTS)


if __name__ == "__main__":
    main()
