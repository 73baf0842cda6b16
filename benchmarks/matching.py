"""Matching against the reference procedure in full: time, and neutral measures of the match.

    python benchmarks/matching.py                 # judges against the stored runs of the reference
    python benchmarks/matching.py --weights hierarchical flow   # other weight laws of ours
    python benchmarks/matching.py --quick         # one seed, few draws: does it run?

The reference (`matching_reference.py`, 200 outer steps of 200 critic steps) takes many minutes a
seed, so its matched scales and times are kept in `results/matching_reference.json` and judged
again here. Both sides are judged by the same 2,000 draws of the target a seed. Times are processor
seconds of one thread, which a busy machine does not stretch; compilation is given apart. Bars: at
most 1/15 of the reference's time, and no measure worse by more than two standard errors of the
paired difference. Run it pinned to one core (taskset -c 0).
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import product
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from matching_settings import SETTINGS, Setting, provenance

from bayesnet.diagnostics.neutral import neutral_measures
from bayesnet.networks import MLP
from bayesnet.priors import Box, GaussianProcess, NetworkPrior, match_prior
from bayesnet.priors.matching.lines import LINES, draw_along, draw_lines
from bayesnet.priors.matching.points import as_point_law

HERE = Path(__file__).parent / "results"
GRID = 100


class Judge:
    """The same lines and target draws for everything that is judged in one seed."""

    def __init__(self, setting: Setting, seed: int, num_draws: int, weights: str) -> None:
        self.gaussian = NetworkPrior(MLP(setting.hidden), in_dim=setting.in_dim)
        self.prior = NetworkPrior(MLP(setting.hidden), weights, in_dim=setting.in_dim)
        self.target = GaussianProcess("rbf", setting.lengthscale)
        self.inputs = Box(-3.0, 3.0) if setting.rows is None else setting.rows
        self.key, key_lines, key_truth = jax.random.split(jax.random.key(1000 + seed), 3)
        self.num_draws, self.seed = num_draws, seed
        law = as_point_law(self.inputs, setting.in_dim)
        self.lines, spacing = draw_lines(law, key_lines, LINES, GRID)
        self.truth = draw_along(self.target, key_truth, self.lines, num_draws)
        self.spacing = np.repeat(spacing, len(self.truth) // len(self.lines))

    def __call__(self, process) -> dict[str, float]:
        draws = draw_along(process, self.key, self.lines, self.num_draws)
        return neutral_measures(draws, self.truth, self.spacing, seed=self.seed)

    def with_log_scales(self, log_scales: list[float]) -> NetworkPrior:
        values = jnp.asarray(log_scales, jnp.float32)
        return eqx.tree_at(lambda p: p.law.log_scale, self.gaussian, values)


def run(
    setting: Setting, runs: list[dict], distance: str, num_draws: int, weights: str = "gaussian"
) -> dict:
    """Judge our match and the stored runs of the reference, seed by seed."""
    sides: dict[str, list[dict]] = {"ours": [], "reference": [], "unmatched": [], "floor": []}
    cpu, wall, compiled, scales = [], [], [], []
    for reference in runs:
        judge = Judge(setting, reference["seed"], num_draws, weights)
        if not cpu:  # compiles every program, so that the runs below are free of it
            first = match_prior(
                judge.prior, judge.target, judge.inputs, distance=distance, steps=60
            )
            compiled.append(first.compile_seconds)
        start = time.process_time()
        match = match_prior(
            judge.prior, judge.target, judge.inputs, distance=distance, seed=reference["seed"]
        )
        cpu.append(time.process_time() - start)
        wall.append(match.seconds)
        scales.append(np.asarray(getattr(match.prior.law, "log_scale", [])).tolist())
        sides["ours"].append(judge(match.prior))
        sides["reference"].append(judge(judge.with_log_scales(reference["log_scales"])))
        sides["unmatched"].append(judge(judge.prior))
        sides["floor"].append(judge(judge.target))
        print(f"{setting.name} seed {reference['seed']}: {cpu[-1]:.1f} s", flush=True)
    tables = {side: {m: [row[m] for row in rows] for m in rows[0]} for side, rows in sides.items()}
    reference_cpu = [r["cpu_seconds"] for r in runs]
    return {
        "setting": setting.name,
        "distance": distance,
        "weights": weights,
        "draws": num_draws,
        "seeds": [r["seed"] for r in runs],
        "cpu_seconds": cpu,
        "wall_seconds": wall,
        "compile_seconds": compiled[0],
        "reference_cpu_seconds": reference_cpu,
        "ratio": float(np.mean(reference_cpu) / np.mean(cpu)),
        "log_scales": scales,
        "reference_log_scales": [r["log_scales"] for r in runs],
        "measures": tables,
    }


def show(result: dict) -> None:
    """Print the table of one setting and whether the bars are met."""
    tables = result["measures"]
    print(
        f"\n{result['setting']}: {result['weights']} weights, {result['distance']}, {len(result['seeds'])} seed(s), "
        f"{result['draws']} draws\nours {np.mean(result['cpu_seconds']):.1f} s (compilation apart: "
        f"{result['compile_seconds']:.1f} s), reference "
        f"{np.mean(result['reference_cpu_seconds']):.0f} s: {result['ratio']:.1f} times"
    )
    print(f"{'':<22}" + "".join(f"{side:>18}" for side in tables) + f"{'worse by 2 se?':>18}")
    for measure in tables["ours"]:
        cells = []
        for side in tables:
            values = np.asarray(tables[side][measure])
            cells.append(f"{values.mean():.4f} +- {standard_error(values):.4f}")
        difference = np.subtract(tables["ours"][measure], tables["reference"][measure])
        if measure == "auc":  # distance from chance is what counts
            difference = np.abs(np.subtract(tables["ours"][measure], 0.5)) - np.abs(
                np.subtract(tables["reference"][measure], 0.5)
            )
        error = standard_error(difference)
        answer = "WORSE" if difference.mean() > 2.0 * error else "no"
        verdict = f"{difference.mean():+.3f} {answer if np.isfinite(error) else '(one seed)'}"
        print(f"{measure:<22}" + "".join(f"{c:>18}" for c in cells) + f"{verdict:>18}")


def standard_error(values: np.ndarray) -> float:
    """Of the mean; infinite for a single seed, which proves nothing."""
    return float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else np.inf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=None, help="how many of the stored seeds")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--setting", choices=sorted(SETTINGS), nargs="+", default=sorted(SETTINGS))
    parser.add_argument("--distance", nargs="+", default=["energy"])
    parser.add_argument("--weights", nargs="+", default=["gaussian"])
    arguments = parser.parse_args()
    stored = json.loads((HERE / "matching_reference.json").read_text())
    path = HERE / "matching.json"
    results = json.loads(path.read_text()) if path.exists() else []
    for name in arguments.setting:
        runs = sorted((r for r in stored if r["setting"] == name), key=lambda r: r["seed"])
        runs = runs[: 1 if arguments.quick else arguments.seeds]
        if not runs:
            print(f"{name}: no stored run of the reference; run matching_reference.py first.")
            continue
        for distance, weights in product(arguments.distance, arguments.weights):
            draws = 400 if arguments.quick else 2000
            new = run(SETTINGS[name], runs, distance, draws, weights) | provenance()
            show(new)
            same = ("setting", "distance", "weights")
            results = [r for r in results if any(r[k] != new[k] for k in same)] + [new]
            if not arguments.quick:
                path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
