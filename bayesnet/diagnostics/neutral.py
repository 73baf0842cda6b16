"""Neutral measures: how far two laws of functions are apart, by nothing that matching optimises.

Functions are seen as their values on a grid along a line, `f` and `g` of shape (s, g): one draw a
row. Sets of equal law give the floor, which depends on the number of draws; a table should
always show it (DESIGN: target against target).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesnet._errors import MissingExtraError
from bayesnet._types import ArrayLike

FUNCTIONALS = ("maximum", "arc_length", "up_crossings", "largest_increment")
# Trees of the forest that tells the two sets apart, and folds of its cross-validation.
TREES, FOLDS = 60, 3
# Bandwidths of the kernel two-sample statistic, as multiples of the median distance.
BANDWIDTHS = (0.5, 1.0, 2.0)


def functionals(values: ArrayLike, spacing: ArrayLike, level: float = 0.0) -> dict[str, np.ndarray]:
    """One number a draw (s,): maximum, arc length, up-crossings of `level`, largest increment.

    `spacing` is the distance of neighbouring grid points, in the coordinates of the prior.
    """
    values = np.asarray(values, np.float64)
    steps = np.diff(values, axis=1)
    width = np.broadcast_to(np.asarray(spacing, np.float64), len(values))[:, None]
    return {
        "maximum": values.max(1),
        "arc_length": np.sqrt(width**2 + steps**2).sum(1),
        "up_crossings": ((values[:, :-1] < level) & (values[:, 1:] >= level)).sum(1).astype(float),
        "largest_increment": np.abs(steps).max(1),
    }


def ks_distance(a: ArrayLike, b: ArrayLike) -> float:
    """The Kolmogorov-Smirnov distance of two samples, right with ties (counts)."""
    a, b = np.sort(np.asarray(a)), np.sort(np.asarray(b))
    at = np.concatenate([a, b])
    below = [np.searchsorted(sample, at, side="right") / len(sample) for sample in (a, b)]
    return float(np.abs(below[0] - below[1]).max())


def mmd2(f: ArrayLike, g: ArrayLike) -> float:
    """The unbiased squared maximum mean discrepancy (Gretton et al. 2012, eq. 3).

    The kernel is the mean of three Gaussians with bandwidths around the median distance within
    `g`. Zero in the mean for equal laws; a sample can be slightly negative.
    """
    f, g = np.asarray(f, np.float64), np.asarray(g, np.float64)

    def squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2.0 * a @ b.T, 0.0)

    ff, gg, fg = squares(f, f), squares(g, g), squares(f, g)
    median = np.median(gg[np.triu_indices(len(g), 1)])

    def kernel(d: np.ndarray) -> np.ndarray:
        scales = [2.0 * width**2 * median + 1e-300 for width in BANDWIDTHS]
        return np.mean([np.exp(-d / scale) for scale in scales], axis=0)

    def within(d: np.ndarray) -> float:
        k = kernel(d)
        return (k.sum() - np.trace(k)) / (len(d) * (len(d) - 1))

    return float(within(ff) + within(gg) - 2.0 * kernel(fg).mean())


def classifier_auc(f: ArrayLike, g: ArrayLike, seed: int = 0) -> float:
    """How well a random forest tells the two sets apart: cross-validated area under the ROC curve.

    It sees the values and their increments; 0.5 is chance (Lopez-Paz & Oquab 2017). Raises
    `MissingExtraError` without scikit-learn.
    """
    try:
        from sklearn.ensemble import RandomForestClassifier
        from sklearn.metrics import roc_auc_score
        from sklearn.model_selection import StratifiedKFold, cross_val_predict
    except ImportError as error:
        raise MissingExtraError(
            "The two-sample classifier needs scikit-learn: pip install bayesnet[sklearn]."
        ) from error
    values = np.concatenate([np.asarray(f, np.float64), np.asarray(g, np.float64)])
    features = np.concatenate([values, np.diff(values, axis=1)], axis=1)
    label = np.repeat([0, 1], [len(f), len(g)])
    forest = RandomForestClassifier(TREES, min_samples_leaf=5, random_state=seed, n_jobs=1)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    score = cross_val_predict(forest, features, label, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(label, score))


def neutral_measures(
    f: ArrayLike,
    g: ArrayLike,
    spacing: ArrayLike,
    *,
    auc: bool = True,
    seed: int = 0,
) -> dict[str, float]:
    """All measures between draws `f` and draws `g` of the target on the same grids.

    Keys: "ks_" + each of `FUNCTIONALS`, "mmd2", and "auc" (unless `auc=False`). Up-crossings are
    those of the target's mean level.
    """
    level = float(np.mean(g))
    ours, theirs = functionals(f, spacing, level), functionals(g, spacing, level)
    measures: dict[str, Any] = {
        f"ks_{name}": ks_distance(ours[name], theirs[name]) for name in FUNCTIONALS
    }
    measures["mmd2"] = mmd2(f, g)
    if auc:
        measures["auc"] = classifier_auc(f, g, seed)
    return measures
