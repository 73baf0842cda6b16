"""Class labels: their vocabulary, and laws over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import entr, logsumexp

from bayesnet._errors import InputError
from bayesnet._matrix import is_na, on_host, widened
from bayesnet._types import ArrayLike

SHOWN = 8


def as_labels(y: ArrayLike) -> np.ndarray:
    """`y` as a vector (n,) of text, bools or whole numbers.

    Raises `InputError` for several columns, missing labels, or numbers with a fraction.
    """
    y = on_host(y)
    if np.ma.is_masked(y):
        raise _missing(int(np.argmax(np.ma.getmaskarray(y))))
    labels = widened(np.asarray(y))
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.size == 0:
        raise InputError(
            f"y must hold one class label a row, shape (n,), got shape {labels.shape}. Of one-hot "
            "columns take y.argmax(axis=1)."
        )
    if labels.dtype.kind == "O":
        labels = _one_type(labels)
    if labels.dtype.kind not in "biufU":
        raise InputError(
            f"Class labels must be text, bools or whole numbers, got {labels.dtype} values such "
            f"as {labels[0]!r}."
        )
    if labels.dtype.kind == "f":
        if np.isnan(labels).any():
            raise _missing(int(np.argmax(np.isnan(labels))))
        if not np.isfinite(labels).all() or (labels != np.round(labels)).any():
            raise InputError(
                "y holds numbers with a fraction, not class labels. For real-valued targets use "
                "bn.GaussianLikelihood; to make classes of ranges, bin y first."
            )
    return labels


def _one_type(labels: np.ndarray) -> np.ndarray:
    """An object array as one of a NumPy type; text and numbers together are refused."""
    for row, value in enumerate(labels):
        if value is None or is_na(value) or value != value:
            raise _missing(row)
    text = [isinstance(value, str) for value in labels]
    if any(text) and not all(text):
        raise InputError(
            f"y mixes text and numbers ({labels[0]!r}, ...): make the labels one type."
        )
    return np.array(labels.tolist())


def _missing(row: int) -> InputError:
    return InputError(f"y has a missing label at row {row}: drop rows without a label.")


def check_classes(classes: Any) -> tuple[Any, ...] | None:
    """Class names as the user may state them: distinct labels of one type, at least two."""
    if classes is None:
        return None
    names = as_labels(np.asarray(list(classes), object))
    if len(np.unique(names)) != len(names) or len(names) < 2:
        raise InputError(f"classes must be at least two different labels, got {classes!r}.")
    return tuple(names.tolist())


def encode_labels(
    y: ArrayLike, classes: tuple[Any, ...] | None
) -> tuple[tuple[Any, ...], np.ndarray]:
    """The classes (K) - sorted, if not given - and the index of each label's class, (n, 1)."""
    labels = as_labels(y)
    if classes is None:
        names, codes = np.unique(labels, return_inverse=True)
        if len(names) < 2:
            raise InputError(
                f"y holds one class only ({names[0].item()!r}): nothing can be learned about the others. "
                "If there are more, name them with classes=(...)."
            )
        return tuple(names.tolist()), codes.reshape(-1, 1).astype(np.float64)
    return classes, codes_of(labels, classes).astype(np.float64)[:, None]


def codes_of(labels: ArrayLike, classes: tuple[Any, ...]) -> np.ndarray:
    """The index (n,) of each label among `classes`. Raises `InputError` for unknown labels."""
    labels = as_labels(labels)
    names = np.asarray(classes)
    text = labels.dtype.kind == "U"
    if text != (names.dtype.kind == "U"):
        raise _unknown(labels[0], classes)
    order = np.argsort(names)
    place = np.minimum(np.searchsorted(names[order], labels), len(names) - 1)
    codes = order[place]
    wrong = names[codes] != labels
    if wrong.any():
        raise _unknown(labels[int(np.argmax(wrong))], classes)
    return codes


def _unknown(label: Any, classes: tuple[Any, ...]) -> InputError:
    names = ", ".join(repr(c) for c in classes[:SHOWN]) + (", ..." if len(classes) > SHOWN else "")
    return InputError(f"The label {np.asarray(label).item()!r} is not among the classes {names}.")


@dataclass(frozen=True, eq=False)
class LabelLaw:
    """The law of a label given function values: one component of a mixture for each draw.

    `log_probabilities` (s, n, K) of observed labels; `clean` (s, n, K), the probabilities
    before labels are mixed up (the same where there is no label noise).
    """

    log_probabilities: np.ndarray
    clean: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """Of observed labels, (s, n, K)."""
        return np.exp(self.log_probabilities)

    def log_prob(self, codes: np.ndarray) -> np.ndarray:
        """Log density (s, n) of the classes with index `codes` (n,)."""
        return self.log_probabilities[:, np.arange(len(codes)), codes]

    def sample(self, rng: np.random.Generator, draw: tuple[Any, ...]) -> np.ndarray:
        """Class indices for the index `draw` into (s, n)."""
        totals = np.cumsum(self.probabilities[draw], axis=-1)
        uniform = rng.uniform(size=(*totals.shape[:-1], 1)) * totals[..., -1:]
        return (uniform >= totals).sum(axis=-1)


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Entropy in nats over the last axis."""
    return entr(probabilities).sum(axis=-1)


def log_mean(log_values: np.ndarray) -> np.ndarray:
    """The log of the mean of `exp(log_values)` over the first axis."""
    return logsumexp(log_values, axis=0) - np.log(len(log_values))
