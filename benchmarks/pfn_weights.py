"""Weights that ship: from the checkpoint of a run, with a certificate on tables it has not seen.

    python benchmarks/pfn_weights.py gp FOLDER [--tables 128] [--note TEXT]

FOLDER is that of `bayesnet pfn train gp --folder FOLDER`. Writes bayesnet/pfn/weights/<name>.safetensors.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import bayesnet as bn
from bayesnet.pfn.certificate import certify
from bayesnet.pfn.checkpoint import CHECKPOINT, restore, signature
from bayesnet.pfn.configurations import read_configuration
from bayesnet.pfn.inputs import MixedInputs
from bayesnet.pfn.setup import WEIGHTS, make_card
from bayesnet.pfn.tasks import Tasks
from bayesnet.pfn.train import new_state


def leaving_the_prior(max_rows: int) -> dict[str, Tasks]:
    """Processes of one column beyond the prior, each by one of its hyper-parameters."""
    usual = bn.LogNormal(-2.0, 1.0)
    cases = {
        "within": (1.4, 1.0, 0.14),
        "short lengthscale (0.2; 1 in 400 of the prior is shorter)": (0.2, 1.0, 0.14),
        "low noise (0.01)": (1.4, 1.0, 0.01),
        "high noise (2)": (1.4, 1.0, 2.0),
        "large variance (16)": (1.4, 16.0, usual),
    }
    return {
        name: Tasks(
            bn.GaussianProcess("matern52", length, variance),
            bn.GaussianLikelihood(noise),
            MixedInputs(),
            (1,),
            max_rows,
        )
        for name, (length, variance, noise) in cases.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tables", type=int, default=128)
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    configuration = read_configuration(options.name)
    tasks, training = configuration.tasks, configuration.training
    like = new_state(tasks, training)
    state, step = restore(options.folder / CHECKPOINT, like, signature(tasks, training))
    card = make_card(tasks, dataclasses.replace(training, steps=step), options.name)
    if options.note:
        card["note"] = options.note
    pfn = bn.PFN(state.network, state.bars, card)
    # As users get them: rounded to float16.
    path = WEIGHTS / f"{options.name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    pfn.save(path)
    pfn = certify(
        bn.PFN.load(path),
        tasks,
        dims=(1, 2, 3, 4),
        tables=options.tables,
        outside=leaving_the_prior(tasks.max_rows),
    )
    pfn.save(path)
    for row in pfn.card["certificate"]:
        print(row)
    for name, rows in pfn.card["outside"].items():
        print(name, [(row["n"], row["excess"], row["coverage"]) for row in rows])
    print("surprise limit", pfn.card["surprise_limit"], "bytes", path.stat().st_size)


if __name__ == "__main__":
    main()
