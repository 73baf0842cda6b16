"""What runs and weights of every kind share: their tasks, their card, where they ship."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import jax

from bayesnet._errors import InputError, unknown_name
from bayesnet.likelihoods import GaussianLikelihood
from bayesnet.pfn.class_tasks import ClassTasks
from bayesnet.pfn.inputs import as_input_law
from bayesnet.pfn.joint_tasks import JointTasks
from bayesnet.pfn.numpyro_model import NumpyroModel
from bayesnet.pfn.settings import Training
from bayesnet.pfn.tasks import Tasks, described
from bayesnet.posterior.saving import load

WEIGHTS = Path(__file__).parent / "weights"


def load_pretrained(name: str) -> Any:
    """The shipped weights `name`, in the precision of the file.

    Raises `InputError` for an unknown name, `FileFormatError` for an altered file.
    """
    known = sorted(p.stem for p in WEIGHTS.glob("*.safetensors"))
    if name not in known:
        raise unknown_name("set of weights", name, known)
    return load(WEIGHTS / f"{name}.safetensors")


def tasks_of(
    prior: Any,
    likelihood: Any,
    inputs: Any,
    dims: tuple[int, ...] | None,
    knobs: dict[str, Any],
) -> tuple[Tasks | JointTasks, Training]:
    """Tasks and knobs of a run, as `PFN.train` is told them."""
    training = training_of(prior, dims, knobs)
    training.refuse_wider()
    if isinstance(prior, NumpyroModel):
        if likelihood is not None or inputs is not None:
            raise InputError(
                "A NumpyroModel draws inputs and noise itself: leave likelihood and inputs out."
            )
        return JointTasks(prior, training.dims, training.buckets[-1], training.queries), training
    tasks = Tasks(
        prior,
        GaussianLikelihood() if likelihood is None else likelihood,
        as_input_law(inputs),
        training.dims,
        training.buckets[-1],
        training.queries,
    )
    return tasks, training


def training_of(prior: Any, dims: tuple[int, ...] | None, knobs: dict[str, Any]) -> Training:
    """Knobs of a run for tables with `dims` columns; those of the prior, or 1, if None."""
    if dims is None:
        dims = (int(getattr(prior, "in_dim", 1)),)
    known = [f.name for f in fields(Training)]
    for knob in knobs:
        if knob not in known:
            raise unknown_name("knob of training", knob, known)
    return Training(**({"max_dim": max(dims)} | knobs), dims=tuple(dims))


def make_card(
    tasks: Tasks | JointTasks | ClassTasks, training: Training, name: str
) -> dict[str, Any]:
    """What is known of a PFN before it is tested."""
    if not isinstance(name, str) or not name:
        raise InputError(f"name must be text, got {name!r}.")
    own = tasks.facts() if isinstance(tasks, JointTasks) else {}
    return own | {
        "name": name,
        "prior": described(tasks.prior),
        "likelihood": repr(tasks.likelihood),
        "inputs": str(tasks.inputs),
        "dims": training.dims,
        "buckets": training.buckets,
        "steps": training.steps,
        "datasets": training.steps * training.batch,
        "seed": training.seed,
        "precision": training.precision,
        "devices": training.devices,
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }
