"""Weights that ship: from the checkpoint of a run, with a certificate on tables it has not seen.

    python benchmarks/pfn_weights.py gp FOLDER [--tables 128] [--note TEXT]

FOLDER is that of `bayesnet pfn train gp --folder FOLDER`, or, for a `bn.PFN`, the file that the run wrote.
Writes bayesnet/pfn/weights/<name>.safetensors.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import jax
import numpy as np

import bayesnet as bn
from bayesnet.data import Scaling
from bayesnet.pfn.certificate import certify
from bayesnet.pfn.checkpoint import CHECKPOINT, restore
from bayesnet.pfn.class_certificate import certify as certify_classes
from bayesnet.pfn.class_training import ClassObjective
from bayesnet.pfn.classifier import ClassPFN, class_card
from bayesnet.pfn.configurations import read_configuration
from bayesnet.pfn.family import ProcessFamily
from bayesnet.pfn.inputs import MixedInputs
from bayesnet.pfn.proposal_training import ProposalObjective
from bayesnet.pfn.quadrature_run import objective_of
from bayesnet.pfn.setup import WEIGHTS, make_card
from bayesnet.pfn.tasks import Tasks
from bayesnet.pfn.train import BarsObjective


def leaving_the_prior(max_rows: int) -> dict[str, Tasks]:
    """Processes of one column beyond the prior, each by one of its hyper-parameters."""
    usual = bn.LogNormal(-2.0, 1.0)
    cases = {
        "within": (1.4, 1.0, 0.14),
        "short lengthscale (0.2; 1 in 400 of the prior is shorter)": (0.2, 1.0, 0.14),
        "low noise (0.01)": (1.4, 1.0, 0.01),
        "high noise (2)": (1.4, 1.0, 2.0),
        "large variance (16)": (1.4, 16.0, usual),
        "heavy tails of the variance (inverse gamma, a = b = 1)": (
            1.4,
            bn.InverseGamma(1, 1),
            usual,
        ),
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


def ship_process(configuration, options) -> None:
    """As below for proposals of hyper-parameters."""
    training = configuration.training
    tasks = dataclasses.replace(configuration.tasks, queries=1)
    family = ProcessFamily.of(tasks, training.max_dim)
    objective = ProposalObjective(tasks, family, training)
    state, step = restore(options.folder / CHECKPOINT, objective.start(), objective.identity())
    card = make_card(tasks, dataclasses.replace(training, steps=step), options.name)
    found = bn.AmortisedProcess(state.network, family, card)
    path = WEIGHTS / f"{options.name}.safetensors"
    found.save(path)
    found = bn.AmortisedProcess.load(path)
    rows = []
    for d in (1, 2, 3, 4):
        for n in (5, 10, 20, 50, 100):
            rows.append(score_process(found, configuration.tasks, d, n, options.tables))
            print(rows[-1], flush=True)
    found = bn.AmortisedProcess(found.network, family, card | {"certificate": rows})
    found.save(path)
    print("bytes", path.stat().st_size)


def ship_classifier(configuration, options) -> None:
    """As below for classes."""
    tasks, training = configuration.tasks, configuration.training
    objective = ClassObjective(tasks, training)
    state, step = restore(options.folder / CHECKPOINT, objective.start(), objective.identity())
    card = class_card(tasks, dataclasses.replace(training, steps=step), options.name)
    if options.note:
        card["note"] = options.note
    path = WEIGHTS / f"{options.name}.safetensors"
    ClassPFN(state.network, card).save(path)
    dims = (1, 2, 5, 10, 40)
    found = certify_classes(ClassPFN.load(path), tasks, dims=dims, tables=options.tables)
    found.save(path)
    for row in found.card["certificate"]:
        print(row)
    print("surprise limit", found.card["surprise_limit"], "bytes", path.stat().st_size)


def score_process(found, tasks, d, n, tables):
    """As `bayesnet.pfn.certificate.score`, in the coordinates of the prior."""
    excess, transforms, sizes = [], [], []
    each = -(-tables // len(tasks.weights))
    for part in range(len(tasks.weights)):
        key = jax.random.key(7_000_001)
        for value in (d, n, part):
            key = jax.random.fold_in(key, value)
        batch = jax.tree.map(np.asarray, tasks.draw(key, each, np.full(each, n), d, part))
        rng = np.random.default_rng([d, n, part])
        for i in range(each):
            posterior = found.fit(
                batch.x[i, :n], batch.y[i, :n], scaling=Scaling.identity(d, 1), warn=False
            )
            law = posterior.predict(batch.queries[i])
            z = rng.normal(size=(4, tasks.queries))
            std = np.asarray(batch.y_std[i], np.float64)
            y = batch.f_mean[i] + std * z
            exact = -0.5 * z**2 - np.log(std) - 0.5 * np.log(2 * np.pi)
            excess.append(
                np.mean([e - law.log_prob(v[:, None])[:, 0] for e, v in zip(exact, y, strict=True)])
            )
            low, high = law.interval(0.9)
            transforms.append(np.mean((y > low[:, 0]) & (y < high[:, 0])))
            sizes.append(posterior.search["effective_size"])
    excess, inside = np.asarray(excess), np.asarray(transforms)
    root = 1.96 / np.sqrt(len(excess))
    return {
        "d": d,
        "n": n,
        "tables": len(excess),
        "excess": round(float(excess.mean()), 4),
        "interval": round(float(excess.std(ddof=1) * root), 4),
        "coverage": round(float(inside.mean()), 4),
        "coverage_interval": round(float(inside.std(ddof=1) * root), 4),
        "effective_size": round(float(np.median(sizes)), 1),
    }


def trained(configuration, options):
    """The PFN of a run's last checkpoint, or of the file that it wrote."""
    if options.folder.is_file():
        return bn.PFN.load(options.folder)
    tasks, training = configuration.tasks, configuration.training
    objective = BarsObjective(tasks, training)
    if configuration.decoder == "level":
        raise SystemExit("Pass the file that the run wrote: a level is no checkpoint of its own.")
    if configuration.decoder == "quadrature":
        objective = objective_of(tasks, training, **configuration.extra)
    state, step = restore(options.folder / CHECKPOINT, objective.start(), objective.identity())
    card = make_card(tasks, dataclasses.replace(training, steps=step), options.name)
    return bn.PFN(state.network, state.bars, card)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tables", type=int, default=128)
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    configuration = read_configuration(options.name)
    if configuration.decoder == "classes":
        ship_classifier(configuration, options)
        return
    if configuration.decoder == "process":
        ship_process(configuration, options)
        return
    tasks, training = configuration.tasks, configuration.training
    pfn = trained(configuration, options)
    extra = {k: v for k, v in configuration.extra.items() if isinstance(v, (str, int, float))}
    note = {"note": options.note} if options.note else {}
    pfn = bn.PFN(pfn.network, pfn.bars, pfn.card | extra | note)
    # As users get them: rounded to float16.
    path = WEIGHTS / f"{options.name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    pfn.save(path)
    pfn = certify(
        bn.PFN.load(path),
        tasks,
        dims=tuple(d for d in training.dims if d <= 8),
        tables=options.tables,
        outside=leaving_the_prior(tasks.max_rows) if options.name == "gp" else None,
        between=jax.clear_caches,
    )
    pfn.save(path)
    for row in pfn.card["certificate"]:
        print(row)
    for name, rows in pfn.card["outside"].items():
        print(name, [(row["n"], row["excess"], row["coverage"]) for row in rows])
    print("surprise limit", pfn.card["surprise_limit"], "bytes", path.stat().st_size)


if __name__ == "__main__":
    main()
