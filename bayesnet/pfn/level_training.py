"""A level more for a quadrature that is trained: quicker on long tables, the shorter as they were.

Two runs: a narrow reader learns what a wide one says of long tables (`distillation`); then it, the
places of fewer nodes in its law and their steps learn the predictive law (`quadrature_training`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

from bayesnet._errors import InputError
from bayesnet.pfn.distillation import DistilledObjective
from bayesnet.pfn.family import ProcessFamily
from bayesnet.pfn.level import Level
from bayesnet.pfn.loop import run_loop
from bayesnet.pfn.proposal import ProposalNetwork
from bayesnet.pfn.quadrature import QuadratureNetwork
from bayesnet.pfn.quadrature_training import QuadratureObjective
from bayesnet.pfn.settings import State, Training
from bayesnet.pfn.tasks import Tasks


@dataclass(frozen=True)
class LongTables:
    """The knobs of a level for tables of more than `above` rows.

    `nodes` of each kind, slopes taken at `probes` of them; `reading`: steps of the narrow reader's own
    run at `reading_rate`, its sizes being those of the training.
    """

    above: int
    nodes: int = 2
    probes: int = 1
    reading: int = 18_000
    reading_rate: float = 2e-3


def with_level(
    network: QuadratureNetwork, reader: ProposalNetwork, knobs: LongTables, rows: int, seed: int
) -> QuadratureNetwork:
    """`network` with an untrained level for tables of more than `knobs.above` rows."""
    *shorter, last = network.levels
    level = Level.create(
        jax.random.fold_in(jax.random.key(seed), 1),
        kinds=len(network.shares),
        nodes=knobs.nodes,
        slots=reader.slots,
        columns=network.max_dim,
        width=reader.width,
        rows=rows,
        probes=knobs.probes,
        reader=len(network.readers),
    )
    levels = (*shorter, replace(last, rows=knobs.above), level)
    return replace(network, readers=(*network.readers, reader), levels=levels)


def run_level(
    tasks: Tasks,
    training: Training,
    network: QuadratureNetwork,
    teacher: ProposalNetwork,
    knobs: LongTables,
    *,
    wide: Tasks | None = None,
    share: float = 0.0,
    folder: str | Path | None = None,
    progress: Any = None,
) -> State:
    """Train the level on top of `network`; arguments and checkpoints as of `run_loop`, of both runs in
    `folder`, and of `QuadratureObjective`.

    Raises `InputError` for a level that is not between those that there are.
    """
    least, most = max(level.rows for level in network.levels[:-1]), training.buckets[-1]
    if not least <= knobs.above < most:
        raise InputError(f"above must be from {least} to {most - 1} rows, got {knobs.above}.")
    if len(network.readers) > 1:
        raise InputError("These weights have a level for long tables already: start from others.")
    family = ProcessFamily.of(tasks, training.max_dim)
    reading = replace(training, steps=knobs.reading, learning_rate=knobs.reading_rate)
    read = run_loop(
        DistilledObjective(tasks, family, reading, knobs.above + 1, teacher),
        folder=None if folder is None else Path(folder) / "reader",
        progress=progress,
    )
    objective = QuadratureObjective(
        tasks,
        family,
        training,
        base=with_level(network, read.network, knobs, most, training.seed),
        learn="last",
        least=knobs.above + 1,
        wide=wide,
        share=share,
    )
    state: State = run_loop(
        objective, folder=None if folder is None else Path(folder) / "level", progress=progress
    )
    return state
