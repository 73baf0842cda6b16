"""Inference methods: each a way of conditioning a prior on data, one a file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from bayesnet._errors import InputError, unknown_name
from bayesnet.inference.base import Inference
from bayesnet.inference.ensemble import DeepEnsemble
from bayesnet.inference.exact import Exact
from bayesnet.inference.hmc import HMC
from bayesnet.inference.ntk_ensemble import NTKEnsemble
from bayesnet.inference.nuts import NUTS
from bayesnet.inference.process_laplace import ProcessLaplace
from bayesnet.inference.sghmc import SGHMC
from bayesnet.inference.sparse_variational import SparseVariational

__all__ = [
    "HMC",
    "NUTS",
    "PRESETS",
    "SGHMC",
    "DeepEnsemble",
    "Exact",
    "Inference",
    "NTKEnsemble",
    "ProcessLaplace",
    "SparseVariational",
    "resolve_inference",
]

PRESETS: dict[str, Callable[[], Any]] = {
    "ensemble": DeepEnsemble,
    "exact": Exact,
    "hmc": HMC,
    "infinite_width": partial(Exact, preset="infinite_width"),
    "nuts": NUTS,
    "process_laplace": ProcessLaplace,
    "sghmc": SGHMC,
    "sparse_variational": SparseVariational,
    "student_t": partial(Exact, preset="student_t"),
}


def resolve_inference(inference: str | Inference) -> Any:
    """The method that a preset's name means; a method passes through.

    Raises `InputError` for an unknown name.
    """
    if isinstance(inference, str):
        if inference not in PRESETS:
            raise unknown_name("inference method", inference, PRESETS)
        return PRESETS[inference]()
    if isinstance(inference, type) or not isinstance(inference, Inference):
        raise InputError(
            f"inference must be a name ({', '.join(sorted(PRESETS))}) or a method such as bn.HMC(), "
            f"got {inference!r}."
        )
    return inference
