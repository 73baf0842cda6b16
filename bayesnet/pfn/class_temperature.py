"""The temperature of a classifier's probabilities, from rows of the table itself.

Temperature scaling (Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2) with a
prior: real tables are often easier than those of the training prior, and a PFN that is calibrated on
its prior is too cautious there. Rows held out tell it.
"""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from bayesnet._errors import InputError
from bayesnet.pfn.class_posterior import ClassPosterior, answers, average
from bayesnet.pfn.class_views import View

CROSS_VALIDATED = "cross-validated"
FOLDS = 10
# Fewer rows say nothing of it.
LEAST = 6
# The sd of the log temperature beforehand. On tables of the prior of the shipped weights, where 1 is
# right, what is found costs 0.02 nats with 10 rows, 0.003 with 30, nothing with 100 (docs/benchmarks.md).
SPREAD = 0.5
WIDEST = 2.5


def temperature_of(value: Any, posterior: ClassPosterior) -> float:
    """The temperature that `value` of `ClassPFN.fit` stands for. Raises `InputError` for no such value."""
    if isinstance(value, str) and value == CROSS_VALIDATED:
        return cross_validated(posterior)
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not 0 < float(value) < float("inf"):
        raise InputError(
            f"temperature is a positive number (1: as the network says) or {CROSS_VALIDATED!r}, got {value!r}."
        )
    return float(value)


def cross_validated(posterior: ClassPosterior) -> float:
    """The most probable temperature given the labels of rows that were held out, 1 below 6 rows.

    Tenths of the rows are predicted by the other nine; the log temperature is N(0, 0.5^2)
    beforehand. Rows that were all there was of their class do not count.
    """
    codes = np.asarray(posterior.codes, int)
    if len(codes) < LEAST:
        return 1.0
    folds = folds_of(posterior.x, codes)
    known = np.zeros(len(codes), bool)
    for fold in folds:
        known[fold] = np.isin(codes[fold], np.delete(codes, fold))
    if not known.any():
        return 1.0
    log_p, codes = np.log(held_out(posterior, folds))[known], codes[known]

    def energy(log_temperature: float) -> float:
        scaled = log_p * np.exp(-log_temperature)
        log_norm = np.logaddexp.reduce(scaled, axis=1)
        loss = (log_norm - scaled[np.arange(len(codes)), codes]).sum()
        return float(loss + 0.5 * (log_temperature / SPREAD) ** 2)

    found = minimize_scalar(energy, bounds=(-WIDEST, WIDEST), method="bounded")
    return float(np.exp(found.x))


def folds_of(x: np.ndarray, codes: np.ndarray) -> list[np.ndarray]:
    """Rows in up to 10 folds, each class dealt out among them; the order of the rows does not matter."""
    order = np.lexsort((*x.T[::-1], codes))
    number = min(FOLDS, len(codes))
    return [np.sort(order[i::number]) for i in range(number)]


def held_out(posterior: ClassPosterior, folds: list[np.ndarray]) -> np.ndarray:
    """The probabilities (n, K) of every row given the rows of the other folds."""
    size = max(len(fold) for fold in folds)
    asked: list[tuple[View, tuple[Any, ...], np.ndarray]] = []
    for fold in folds:
        rows = posterior.x[np.resize(fold, size)]
        rest = np.setdiff1d(np.arange(len(posterior.x)), fold)
        asked.extend((*given, rows) for given in posterior.contexts(rest))
    found = answers(posterior.pfn.network, asked)
    p = np.empty((len(posterior.x), len(posterior.labels)))
    views = posterior.ensemble
    for i, fold in enumerate(folds):
        members = found[i * views : (i + 1) * views]
        p[fold] = average(members, posterior.labels).mean[: len(fold)]
    return p
