"""From tasks to a PFN that is a quadrature over the hyper-parameters of a process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bayesnet._errors import InputError, UnsupportedError
from bayesnet.pfn.amortised import AmortisedProcess
from bayesnet.pfn.family import ProcessFamily
from bayesnet.pfn.loop import run_loop
from bayesnet.pfn.quadrature_training import QuadratureObjective
from bayesnet.pfn.settings import State, Training
from bayesnet.pfn.setup import make_card
from bayesnet.pfn.tasks import Tasks


def objective_of(
    tasks: Tasks, training: Training, *, nodes: int = 2, start: str | None = None
) -> QuadratureObjective:
    """What is trained: `nodes` a component and kind of process, the reader that of the weights `start`.

    Raises `InputError` for a bad number, unknown weights, or weights for other processes;
    `UnsupportedError` for a prior that is no Gaussian process with log-normal laws, and for
    bfloat16 or several devices.
    """
    if training.precision != "float32" or training.devices != 1:
        raise UnsupportedError(
            "A quadrature is linear algebra in float64, on one device: leave precision and devices as "
            "they are, or train bars instead (decoder='bars')."
        )
    if isinstance(nodes, bool) or not isinstance(nodes, int) or not 1 <= nodes <= 16:
        raise InputError(f"nodes must be a whole number from 1 to 16, got {nodes!r}.")
    family = ProcessFamily.of(tasks, training.max_dim)
    if start is None:
        return QuadratureObjective(tasks, family, training, nodes)
    known = AmortisedProcess.from_pretrained(start)
    if repr(known.family) != repr(family):
        raise InputError(
            f"The weights {start!r} propose hyper-parameters of other processes than those of this run: "
            "leave start out, or state the same prior, noise and columns."
        )
    return QuadratureObjective(tasks, family, training, nodes, known.network)


def run_quadrature(
    tasks: Tasks,
    training: Training,
    name: str,
    *,
    nodes: int = 2,
    start: str | None = None,
    folder: str | Path | None = None,
    progress: Any = None,
) -> tuple[State, dict[str, Any]]:
    """Train on `tasks`: the last state, and its card; see `PFN.train`."""
    objective = objective_of(tasks, training, nodes=nodes, start=start)
    state = run_loop(objective, folder=folder, progress=progress)
    return state, make_card(tasks, training, name) | {"start": start}
