"""What the loop's law of the noise is worth on functions without noise, beside BoTorch's GP.

Ten of BoTorch's synthetic functions, 1,000 scrambled Sobol designs of each (another set for each seed),
6 random ones to begin with, the same for every arm; then one design at a time by log expected
improvement until 30 experiments have been made or the best design is found. Reported: how many of the 1,000
designs are better than the best one tried (0: the best was found), averaged over seeds as
`exp(mean(log(rank + 1))) - 1`, with a 95 % interval by Student's t on that log scale; processor seconds
and gradients a step. Finished runs are kept in results/loop_noise.json and not run again; several
processes may share the work.

    python benchmarks/loop_noise.py --arms gp exact_wide exact --seeds 10
    python benchmarks/loop_noise.py --arms hmc --seeds 3
    python benchmarks/loop_noise.py --table          # what is there, as Markdown
"""

from __future__ import annotations

import argparse
import fcntl
import json
import time
import warnings
from typing import Any

import numpy as np
import torch
from _common import RESULTS as FOLDER
from _common import context
from botorch import test_functions as functions
from pools import GaussianProcess
from scipy import stats
from scipy.stats import qmc

import bayesnet as bn
from bayesnet.bo import LoopSettings, LoopState, suggest_from_pool

RESULTS = FOLDER / "loop_noise.json"
DESIGNS, START, BUDGET = 1000, 6, 30
FUNCTIONS = {
    "branin2": functions.Branin,
    "hartmann6": functions.Hartmann,
    "rosenbrock4": lambda: functions.Rosenbrock(dim=4),
    "levy5": lambda: functions.Levy(dim=5),
    "ackley5": lambda: functions.Ackley(dim=5),
    "styblinski_tang4": lambda: functions.StyblinskiTang(dim=4),
    "michalewicz5": lambda: functions.Michalewicz(dim=5),
    "griewank4": lambda: functions.Griewank(dim=4),
    "rastrigin4": lambda: functions.Rastrigin(dim=4),
    "cosine8": functions.Cosine8,
}


class Pool:
    """The designs of one function and seed; `y` is to be maximised."""

    def __init__(self, name: str, seed: int) -> None:
        function = FUNCTIONS[name]()
        self.bounds = function.bounds.numpy().astype(float)
        unit = qmc.Sobol(function.dim, scramble=True, seed=seed).random(DESIGNS)
        self.X = self.bounds[0] + (self.bounds[1] - self.bounds[0]) * unit
        up = -1.0 if function.is_minimization_problem else 1.0
        self.y = up * function(torch.as_tensor(self.X)).numpy()
        self.rank = np.array([(self.y > v).sum() for v in self.y])
        self.start = np.random.default_rng(seed).permutation(DESIGNS)[:START].tolist()


class BoTorch(GaussianProcess):
    """BoTorch's SingleTaskGP with its own priors, fitted at every step; analytic LogEI."""

    def facts(self) -> dict[str, Any]:
        return {}


class Loop:
    """A surrogate of the loop."""

    def __init__(self, pool: Pool, seed: int, surrogate: str, likelihood: Any) -> None:
        self.seed = seed
        self.state = LoopState(pool.bounds, LoopSettings(surrogate, likelihood=likelihood))

    def choose(self, pool: Pool, chosen: list[int], left: np.ndarray) -> int:
        seed = 1000 * self.seed + len(chosen)
        self.state = self.state.update(pool.X[chosen], pool.y[chosen], seed=seed)
        best = suggest_from_pool(self.state, pool.X[left], acquisition="log_ei", seed=seed)
        return int(left[best[0]])

    def facts(self) -> dict[str, Any]:
        """What the state says about its last fit."""
        findings = getattr(self.state, "findings", None)
        return {} if findings is None else findings.attributes()


WIDE = bn.GaussianLikelihood()
ARMS = {
    "gp": BoTorch,
    "exact_wide": lambda pool, seed: Loop(pool, seed, "exact", WIDE),
    "exact": lambda pool, seed: Loop(pool, seed, "exact", None),
    "hmc": lambda pool, seed: Loop(pool, seed, "hmc", None),
}


def run(name: str, arm: str, seed: int) -> dict[str, Any]:
    """One run: the designs chosen, the rank of the best, processor seconds of each step."""
    pool = Pool(name, seed)
    optimizer = ARMS[arm](pool, seed)
    chosen, seconds, facts = list(pool.start), [], []
    while len(chosen) < BUDGET and pool.rank[chosen].min() > 0:
        left = np.setdiff1d(np.arange(DESIGNS), chosen)
        began = time.process_time()
        chosen.append(optimizer.choose(pool, chosen, left))
        seconds.append(round(time.process_time() - began, 3))
        facts.append(optimizer.facts())
    return {
        "function": name,
        "arm": arm,
        "seed": seed,
        "rank": int(pool.rank[chosen].min()),
        "experiments": len(chosen),
        "seconds": seconds,
        "facts": [f for f in facts if f],
        "chosen": chosen,
    }


def kept() -> list[dict]:
    return json.loads(RESULTS.read_text())["runs"] if RESULTS.is_file() else []


def keep(record: dict) -> None:
    """Add a run to the file, whole at every moment, also while another process does."""
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        temporary = RESULTS.with_suffix(".tmp")
        temporary.write_text(json.dumps({"runs": [*kept(), record]}) + "\n")
        temporary.replace(RESULTS)


def average(ranks: list[int]) -> tuple[float, float, float]:
    """`exp(mean(log(rank + 1))) - 1` and the ends of its 95 % interval."""
    logs = np.log1p(np.asarray(ranks, float))
    mean = logs.mean()
    if len(logs) < 2:
        return float(np.expm1(mean)), float("nan"), float("nan")
    half = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
    low, high = np.expm1(max(mean - half, 0.0)), np.expm1(mean + half)
    return float(np.expm1(mean)), float(low), float(high)


def paired(runs: list[dict], one: str, other: str) -> str:
    """The geometric mean ratio of rank + 1 over functions and seeds that both have, with its 95 % interval."""
    ranks = {(r["arm"], r["function"], r["seed"]): r["rank"] for r in runs}
    pairs = [k[1:] for k in ranks if k[0] == one and (other, *k[1:]) in ranks]
    logs = np.array([np.log1p(ranks[one, *k]) - np.log1p(ranks[other, *k]) for k in pairs])
    if len(logs) < 2:
        return "-"
    half = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
    low, mid, high = np.exp(logs.mean() + np.array([-half, 0.0, half]))
    return f"{mid:.2f} ({low:.2f} to {high:.2f}; {len(logs)} pairs)"


def table(runs: list[dict]) -> str:
    """Markdown: one row a function; in brackets the 95 % interval and the number of runs."""
    lines = ["| function | " + " | ".join(ARMS) + " |", "|---" * (len(ARMS) + 1) + "|"]
    for name in [*FUNCTIONS, "all"]:
        cells = []
        for arm in ARMS:
            ranks = [r["rank"] for r in runs if r["arm"] == arm and name in (r["function"], "all")]
            if not ranks:
                cells.append("-")
                continue
            mean, low, high = average(ranks)
            spread = f"{low:.1f} to {high:.1f}; " if len(ranks) > 1 else ""
            cells.append(f"{mean:.1f} ({spread}{len(ranks)})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for one, other in (("exact", "exact_wide"), ("exact", "gp"), ("hmc", "gp"), ("hmc", "exact")):
        print(f"{one} against {other}: rank + 1 is {paired(runs, one, other)} times as large")
    for arm in ARMS:
        steps = [t for r in runs if r["arm"] == arm for t in r["seconds"]]
        if steps:
            print(
                f"{arm}: processor seconds a step, median {np.median(steps):.2f}, {len(steps)} steps"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--functions", nargs="+", choices=FUNCTIONS, default=list(FUNCTIONS))
    parser.add_argument("--table", action="store_true", help="print what has been run")
    options = parser.parse_args()
    if options.table:
        print(table(kept()))
        return
    warnings.simplefilter("ignore")
    where = {key: context()[key] for key in ("commit", "device", "versions")}
    for seed in range(options.seeds):
        for name in options.functions:
            for arm in options.arms:
                if any((r["function"], r["arm"], r["seed"]) == (name, arm, seed) for r in kept()):
                    continue
                record = {**run(name, arm, seed), **where}
                keep(record)
                print(
                    f"seed {seed} {name:17s} {arm:11s} rank {record['rank']:3d} after "
                    f"{record['experiments']}, {np.sum(record['seconds']):.1f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
