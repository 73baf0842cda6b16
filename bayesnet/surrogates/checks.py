"""Validation of tensors at the door of a surrogate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bayesnet._errors import InputError, UnsupportedError, unknown_name
from bayesnet.inference import PRESETS, NTKEnsemble, ProcessLaplace, SparseVariational

DTYPES = (torch.float32, torch.float64)
# Methods whose posterior BoTorch cannot be given; and names that stand for trained weights.
NO_SURROGATE = (ProcessLaplace, SparseVariational, NTKEnsemble)
TRAINED = ("amortised", "pfn")


def check_settings(dtype: Any, max_draws: int | None) -> None:
    """Raise `InputError` for a dtype or number of draws that a surrogate cannot have."""
    if dtype not in DTYPES:
        raise InputError(f"dtype must be torch.float32 or torch.float64, got {dtype}.")
    if max_draws is not None and max_draws < 1:
        raise InputError(f"max_draws must be at least 1 or None, got {max_draws}.")


def refuse_draws(inference: Any, init: Any, max_draws: Any) -> None:
    """Raise `UnsupportedError` for arguments about chains and draws, of which `inference` has none."""
    given = [n for n, v in (("init", init), ("max_draws", max_draws)) if v is not None]
    if given:
        raise UnsupportedError(
            f"inference={inference!r} has no chains and no draws: leave {' and '.join(given)} out."
        )


def check_likelihood(likelihood: Any) -> Any:
    """`likelihood`, or `UnsupportedError` if functions are not outcomes (classes, counts)."""
    if not likelihood.scales_targets:
        raise UnsupportedError(
            f"A Surrogate models real-valued outcomes; under {type(likelihood).__name__} functions "
            "are logits or log rates. Use bn.GaussianLikelihood, StudentTLikelihood or "
            "LaplaceLikelihood, or bn.fit and its predictions."
        )
    return likelihood


def names() -> tuple[str, ...]:
    """The names of methods that make a surrogate."""
    return (*(n for n, make in PRESETS.items() if not isinstance(make(), NO_SURROGATE)), *TRAINED)


def check_method(inference: Any) -> Any:
    """`inference`; `InputError` for an unknown name, `UnsupportedError` for a method whose posterior BoTorch
    cannot be given."""
    if isinstance(inference, str) and inference not in (*PRESETS, *TRAINED):
        raise unknown_name("inference method", inference, names())
    named = isinstance(inference, str) and inference in PRESETS
    method = PRESETS[inference]() if named else inference
    if isinstance(method, NO_SURROGATE):
        raise UnsupportedError(
            f"{type(method).__name__} makes no surrogate: its posterior has no joint law in torch, which is differentiated "
            "and conditioned on new points. A process is one in closed form by inference='exact' (many rows: "
            "bn.Exact on some of them); classes are no outcomes to optimize."
        )
    return inference


def check_training(train_X: Any, train_Y: Any, train_Yvar: Any) -> None:
    """Raise `InputError` unless these are finite float tensors n x d, n x m and n x m or None."""
    check_tensor(train_X, "train_X", "n x d")
    check_tensor(train_Y, "train_Y", "n x m")
    if train_Yvar is not None:
        check_tensor(train_Yvar, "train_Yvar", "n x m")
    for value, name in ((train_X, "train_X"), (train_Y, "train_Y"), (train_Yvar, "train_Yvar")):
        if value is not None and value.dim() != 2:
            hint = (
                f"Make one column of it: {name}.unsqueeze(-1)."
                if value.dim() < 2
                else "Batches of training sets are not supported: fit one Surrogate for each, and "
                "put several outcomes side by side in botorch's ModelList."
            )
            raise InputError(
                f"{name} must be a matrix (two axes), got shape {tuple(value.shape)}. {hint}"
            )
    if train_X.shape[0] != train_Y.shape[0]:
        raise InputError(
            f"train_X has {train_X.shape[0]} rows but train_Y has {train_Y.shape[0]}: one row of "
            "outcomes for each row of inputs is needed."
        )
    if train_X.shape[0] == 0 or train_X.shape[1] == 0 or train_Y.shape[1] == 0:
        raise InputError(
            f"No data: train_X {tuple(train_X.shape)}, train_Y {tuple(train_Y.shape)}."
        )
    if train_Yvar is not None:
        if train_Yvar.shape != train_Y.shape:
            raise InputError(
                f"train_Yvar has shape {tuple(train_Yvar.shape)}, train_Y has "
                f"{tuple(train_Y.shape)}: they must agree."
            )
        if not bool((train_Yvar > 0).all()):
            raise InputError("train_Yvar holds noise variances, which must be positive.")


def check_points(X: Any, in_dim: int) -> None:
    """Raise `InputError` unless X is a finite float tensor batch x q x d."""
    check_tensor(X, "X", "batch x q x d")
    if X.dim() < 2:
        raise InputError(
            f"X must have shape batch x q x {in_dim}, got {tuple(X.shape)}. "
            "For one point: X.reshape(1, -1)."
        )
    if X.shape[-1] != in_dim:
        raise InputError(
            f"X has {X.shape[-1]} columns, but the surrogate was fitted on {in_dim}: pass the "
            "same columns in the same order."
        )


def check_tensor(value: Any, name: str, shape: str) -> None:
    """Raise `InputError` unless `value` is a finite tensor of a real floating dtype."""
    if not isinstance(value, Tensor):
        raise InputError(
            f"{name} must be a torch.Tensor ({shape}), got {type(value).__name__}. "
            "Convert it: torch.as_tensor(value, dtype=torch.double)."
        )
    if value.dtype not in DTYPES:
        raise InputError(
            f"{name} has dtype {value.dtype}; floats of single or double precision are needed: "
            f"{name}.double()."
        )
    if not bool(torch.isfinite(value).all()):
        raise InputError(f"{name} holds NaN or infinity: drop or impute those rows first.")
