"""From tasks to a PFN that is a quadrature over the hyper-parameters of a process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from bayesnet._errors import InputError, UnsupportedError, unknown_name
from bayesnet.pfn.amortised import AmortisedProcess
from bayesnet.pfn.family import ProcessFamily
from bayesnet.pfn.hyper_map import HyperMap
from bayesnet.pfn.level_training import LongTables, run_level
from bayesnet.pfn.loop import run_loop
from bayesnet.pfn.precision import cast
from bayesnet.pfn.quadrature import QuadratureNetwork
from bayesnet.pfn.quadrature_training import QuadratureObjective
from bayesnet.pfn.settings import State, Training
from bayesnet.pfn.setup import load_pretrained, make_card
from bayesnet.pfn.tasks import Tasks


def objective_of(
    tasks: Tasks,
    training: Training,
    *,
    nodes: int = 2,
    start: str | None = None,
    learn: str = "all",
    wide: Tasks | None = None,
    share: float = 0.0,
) -> QuadratureObjective:
    """What is trained: `nodes` a component and kind of process.

    `start`: weights to start from, an `AmortisedProcess`'s for the reader or a whole quadrature, of which
    `learn` says what is trained ("all", or "levels": places and steps). `wide`, `share`: see `QuadratureObjective`.

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
    if learn not in ("all", "levels"):
        raise unknown_name("value of learn", learn, ("all", "levels"))
    family = ProcessFamily.of(tasks, training.max_dim)
    given: dict[str, Any] = {}
    if start is not None:
        known = load_pretrained(start)
        if isinstance(known, AmortisedProcess):
            given = {"reader": cast(_same(known, family, start).network, jnp.float32)}
        else:
            given = {"base": _whole(known, family, start)}
    if learn == "levels" and "base" not in given:
        raise InputError("learn='levels' needs the weights of a whole quadrature as start.")
    return QuadratureObjective(
        tasks, family, training, nodes, learn=learn, wide=wide, share=share, **given
    )


def run_quadrature(
    tasks: Tasks,
    training: Training,
    name: str,
    *,
    folder: str | Path | None = None,
    progress: Any = None,
    **knobs: Any,
) -> tuple[State, dict[str, Any]]:
    """Train on `tasks`: the last state, and its card; `knobs` as of `objective_of`, see `PFN.train`."""
    objective = objective_of(tasks, training, **knobs)
    state = run_loop(objective, folder=folder, progress=progress)
    return state, make_card(tasks, training, name) | {"start": knobs.get("start")}


def run_long(
    tasks: Tasks,
    training: Training,
    name: str,
    *,
    start: str,
    teacher: str,
    wide: Tasks | None = None,
    share: float = 0.0,
    folder: str | Path | None = None,
    progress: Any = None,
    **knobs: Any,
) -> tuple[State, dict[str, Any]]:
    """Add a level for long tables to the quadrature `start`; `teacher`: weights whose reader is imitated.

    `knobs`: of `LongTables`. The card is that of `start`, which the level leaves as it was, and tells of
    the level. Raises `InputError` as `objective_of` and `run_level`.
    """
    family = ProcessFamily.of(tasks, training.max_dim)
    known = load_pretrained(start)
    base = _whole(known, family, start)
    wide_reader = cast(_same(load_pretrained(teacher), family, teacher).network, jnp.float32)
    state = run_level(
        tasks,
        training,
        base,
        wide_reader,
        LongTables(**knobs),
        wide=wide,
        share=share,
        folder=folder,
        progress=progress,
    )
    card = make_card(tasks, training, name) | {"start": start, "teacher": teacher, "level": knobs}
    return state, card | {"buckets": known.card["buckets"]}


def _whole(known: Any, family: ProcessFamily, name: str) -> QuadratureNetwork:
    network = getattr(known, "network", None)
    if not isinstance(network, QuadratureNetwork):
        raise InputError(f"The weights {name!r} are no quadrature, and none can start from them.")
    # Weights are kept in float16.
    maps = (cast(m, jnp.float32) for m in (network.hyper, HyperMap.of(family)))
    if not eqx.tree_equal(*maps, rtol=1e-2, atol=1e-2):
        raise InputError(_OTHER.format(name))
    found: QuadratureNetwork = cast(network, jnp.float32)
    return found


def _same(known: Any, family: ProcessFamily, name: str) -> AmortisedProcess:
    if not isinstance(known, AmortisedProcess):
        raise InputError(f"The weights {name!r} propose no hyper-parameters.")
    if repr(known.family) != repr(family):
        raise InputError(_OTHER.format(name))
    return known


_OTHER = (
    "The weights {!r} are of other processes than those of this run: leave start out, or state the same "
    "prior, noise and columns."
)
