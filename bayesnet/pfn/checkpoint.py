"""Checkpoints of training: the weights and the state of Adam in full, never a pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import FileFormatError, InputError
from bayesnet._types import PyTree
from bayesnet.pfn.joint_tasks import JointTasks
from bayesnet.pfn.settings import Training
from bayesnet.pfn.tasks import Tasks, described
from bayesnet.posterior.saving import load, save

# The file in the folder of a run; at most so many seconds of work are lost when it is killed.
CHECKPOINT = "checkpoint.safetensors"
EVERY = 45.0


def signature(tasks: Tasks | JointTasks, training: Training) -> str:
    """What a checkpoint must agree with; a run may be made longer or shorter on the way."""
    return json.dumps(
        [
            training.identity(),
            described(tasks.prior),
            repr(tasks.likelihood),
            described(tasks.inputs),
        ],
        sort_keys=True,
    )


def keep(path: Path, state: PyTree, step: int, signature: str) -> None:
    """Write a checkpoint, atomically."""
    leaves = [np.asarray(a) for a in jax.tree.leaves(state)]
    save({"step": step, "signature": signature, "leaves": leaves}, path)


def restore(path: Path, like: PyTree, signature: str) -> tuple[Any, int]:
    """The state, shaped as `like`, and the number of steps done of the checkpoint at `path`.

    Raises `InputError` for one of another run, `FileFormatError` for a damaged one.
    """
    kept = load(path)
    if kept["signature"] != signature:
        raise InputError(
            f"{path} is of a run with another configuration; use another folder, or remove it.\n"
            f"It has {kept['signature']},\nasked for is {signature}."
        )
    leaves, structure = jax.tree.flatten(like)
    # Scalars come back from a file as vectors of one number.
    if [a.size for a in leaves] != [a.size for a in kept["leaves"]]:
        raise FileFormatError(f"{path} holds other arrays than the configuration asks for.")
    arrays = [
        jnp.asarray(a, like.dtype).reshape(like.shape)
        for a, like in zip(kept["leaves"], leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, arrays), int(kept["step"])
