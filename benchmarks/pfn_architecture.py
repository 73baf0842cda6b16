"""The transformer on a process without hyper-priors, where the exact law is known: what is lost?

    python benchmarks/pfn_architecture.py [--steps 7800] [--batch 256] [--folder FOLDER] [--weights FILE]

One column uniform on an interval of 5 lengthscales, RBF, unit variance, noise sd 0.1, contexts of 0 to
60 rows: the setting of the first prototype (0.018 nats above the exact process after 50,000 tables). The
decoder is that of bars; a quadrature has nothing to learn here. Excess in nats over 512 new tables of 32
queries a size, 16 targets each, 95 % intervals over tables. FILE: what such a run saved elsewhere (on a GPU it takes four
minutes, on two cores of a CPU about two hours).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from _common import write

import bayesnet as bn
from bayesnet.pfn.certificate import score
from bayesnet.pfn.setup import tasks_of

COUNTS = (1, 2, 5, 10, 20, 40, 60)
KNOBS = {"buckets": (4, 10, 20, 40, 60), "padding": (20, 60), "width": 128, "depth": 4, "heads": 4, "hidden": 256,
         "bars": 320, "queries": 32, "warmup": 200, "learning_rate": 1e-3}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=7800)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--weights", default=None)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    prior = bn.GaussianProcess("rbf", 0.2 * 12**0.5)
    likelihood, box = bn.GaussianLikelihood(noise_std=0.1), bn.Box([-(3**0.5)], [3**0.5])
    knobs = KNOBS | {"batch": options.batch, "steps": options.steps}
    if options.weights:
        pfn = bn.PFN.load(options.weights)
    else:
        pfn = bn.PFN.train(prior, likelihood, inputs=box, folder=options.folder, **knobs)
    tasks, _ = tasks_of(prior, likelihood, box, None, knobs)
    rows = [score(pfn, tasks, 1, n, tables=512) for n in COUNTS]
    for row in rows:
        print(row, flush=True)
    mean = float(np.mean([row["excess"] for row in rows]))
    print(f"mean {mean:.4f} nats")
    kept = {k: pfn.card[k] for k in ("steps", "datasets", "device")}
    write("pfn_architecture", kept | {"cells": rows, "mean": mean})


if __name__ == "__main__":
    main()
