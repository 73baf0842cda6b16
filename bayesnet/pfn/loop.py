"""The loop of a training run: a schedule by step count, checkpoints, a log.

An objective draws the same tasks for a step whenever it is run, and a checkpoint holds the weights
and the state of Adam in full, so that an interrupted run goes on to the same result, bit for bit
on the same machine layout; on another number of devices it goes on to the same up to rounding.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bayesnet._errors import InputError
from bayesnet._types import PyTree
from bayesnet.pfn.checkpoint import CHECKPOINT, EVERY, keep, restore
from bayesnet.pfn.interrupt import deferred_interrupt
from bayesnet.pfn.settings import Training
from bayesnet.pfn.sharding import gathered, mesh_of, replicated

Progress = Callable[[str, int, int], None]


class Objective(Protocol):
    """What is trained, and how one step of it goes."""

    @property
    def training(self) -> Training:
        """The knobs."""
        ...

    @property
    def losses(self) -> tuple[str, ...]:
        """Names of the losses that a step returns, for the log."""
        ...

    def identity(self) -> str:
        """What a checkpoint must agree with."""
        ...

    def start(self) -> PyTree:
        """The state before the first step."""
        ...

    def step(self, state: PyTree, number: int) -> tuple[PyTree, np.ndarray]:
        """The state after a step, and its losses."""
        ...

    def evaluate(self, state: PyTree) -> dict[str, Any]:
        """How good the state is on tasks that no step draws."""
        ...


def run_loop(
    objective: Objective,
    *,
    folder: str | Path | None = None,
    progress: Progress | None = None,
    log_every: int = 500,
    stop_at: int | None = None,
) -> PyTree:
    """Train from the start, or from the checkpoint in `folder` if there is one; the last state.

    Args:
        folder: where checkpoints (at most every 45 s, and after the step in which Ctrl-C was pressed) and
            `log.jsonl` go; none are kept if None.
        progress: called with ("training", done, total).
        log_every: steps between evaluations.
        stop_at: leave off after this step, as if killed there; the schedule is that of `steps`.

    Raises `InputError` if the checkpoint is of another configuration, or training diverged.
    """
    training = objective.training
    mesh_of(training.devices)  # before any compute: are there so many?
    state, first = objective.start(), 0
    if folder is not None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / CHECKPOINT).is_file():
            state, first = restore(folder / CHECKPOINT, state, objective.identity())
    state = replicated(state, training.devices)
    kept = began = time.monotonic()
    recent: list[np.ndarray] = []
    end = training.steps if stop_at is None else min(stop_at, training.steps)
    with deferred_interrupt() as interrupt:
        for number in range(first, end):
            state, losses = objective.step(state, number)
            recent.append(losses)
            done = number + 1
            if progress is not None:
                progress("training", done, training.steps)
            if not np.isfinite(losses).all():
                raise InputError(
                    f"Training diverged at step {done} (the loss is not finite): lower learning_rate, "
                    "or check that draws of the prior are of order 1."
                )
            leave = interrupt.asked
            due = done == end or leave or time.monotonic() - kept > EVERY
            if folder is not None and due:
                keep(folder / CHECKPOINT, state, done, objective.identity())
                kept = time.monotonic()
            if leave:
                raise KeyboardInterrupt
            if done % log_every == 0 or done == end:
                if folder is not None:
                    seconds = time.monotonic() - began
                    line = {
                        "step": done,
                        "seconds": round(seconds, 1),
                        "datasets_per_second": round((done - first) * training.batch / seconds, 1),
                        **dict(
                            zip(
                                objective.losses, np.mean(recent, axis=0).astype(float), strict=True
                            )
                        ),
                        **objective.evaluate(state),
                    }
                    with (folder / "log.jsonl").open("a") as file:
                        file.write(json.dumps(line) + "\n")
                recent = []
    return gathered(state, training.devices)
