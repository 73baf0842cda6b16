"""The law of the targets on the command line: its options, its targets, and its scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import typer

from bayesnet._errors import InputError
from bayesnet.cli._table import Table

Likelihood = Annotated[
    str,
    typer.Option(
        help="gaussian, heteroscedastic (noise that depends on the inputs), student_t, laplace "
        "(outliers), bernoulli, categorical (classes), poisson (counts)"
    ),
]


def make_likelihood(name: str, noise_std: float | None) -> Any:
    """The likelihood that the options state."""
    from bayesnet.likelihoods import GaussianLikelihood, resolve_likelihood

    if name == "gaussian":
        return GaussianLikelihood(noise_std)
    if noise_std is not None:
        raise InputError(
            "--noise-std is a known Gaussian noise: use it with --likelihood gaussian."
        )
    return resolve_likelihood(name)


def has_classes(likelihood: Any) -> bool:
    """Whether the targets are class labels."""
    return hasattr(likelihood, "classes")


def law_of(posterior: Any) -> Any:
    """The likelihood of a posterior; of trained weights, which hold none, what their targets are."""
    from bayesnet.likelihoods import CategoricalLikelihood, GaussianLikelihood

    if hasattr(posterior, "likelihood"):
        return posterior.likelihood
    labels = getattr(posterior, "labels", None)
    return GaussianLikelihood() if labels is None else CategoricalLikelihood(classes=labels)


def read_targets(table: Table, targets: Sequence[str], likelihood: Any, fix: str) -> np.ndarray:
    """The target columns: numbers (n, m), or the labels (n,) of one column."""
    if not has_classes(likelihood):
        return table.numbers(targets, fix)
    if len(targets) != 1:
        raise InputError(f"Classes are those of one target column, got {len(targets)}.")
    known = likelihood.classes
    return table.labels(targets[0], fix, text=known is not None and isinstance(known[0], str))


def noise_facts(posterior: Any) -> list[tuple[str, str]]:
    """Learned noise levels, each one line: its name and median, in the user's units."""
    if hasattr(posterior, "pfn"):  # trained weights, which tell the noise row by row
        return []
    if not hasattr(posterior, "bound"):  # a process: one level an output, none for classes
        report = posterior.diagnostics()
        if has_classes(posterior.likelihood):
            return []
        return [("noise sd", ", ".join(f"{level:.4g}" for level in report.noise_std))]
    scale = posterior.data.scaling.y_scale
    units = {"noise_std": ("noise sd", scale), "scale": ("noise scale", scale)}
    lines = []
    for name, values in posterior.bound.summary(posterior.split()[1]).items():
        label, unit = units.get(name, (name.replace("_", " "), 1.0))
        levels = np.median(values, axis=0) * unit
        text = ", ".join(f"{level:.4g}" for level in np.atleast_1d(levels))
        lines.append((label, f"{text} (learned, median)"))
    return lines


def class_scores(prediction: Any, y: np.ndarray) -> str:
    """How good class probabilities are for the labels `y` (n,)."""
    names, counts = np.unique(y, return_counts=True)
    return (
        f"accuracy {np.mean(prediction.predicted == y):.1%} (always {names[counts.argmax()]}: "
        f"{counts.max() / len(y):.1%}), NLL {-prediction.log_prob(y).mean():.3f} nats"
    )


def class_columns(prediction: Any) -> dict[str, np.ndarray]:
    """The columns that `bayesnet predict` writes for classes."""
    columns = {"predicted": prediction.predicted}
    for name, probability in zip(prediction.labels, prediction.mean.T, strict=True):
        columns[f"p_{name}"] = probability
    return columns | {"epistemic": prediction.epistemic, "aleatoric": prediction.aleatoric}
