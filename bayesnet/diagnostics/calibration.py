"""Calibration: how often what is said with some probability happens, with honest error bars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri

from bayesnet._errors import InputError
from bayesnet._types import ArrayLike
from bayesnet.diagnostics.scores import interval_score, label_codes, targets_of
from bayesnet.posterior import ClassPrediction, Prediction
from bayesnet.posterior.prediction import generator

LEVELS = (0.5, 0.8, 0.9, 0.95)


def wilson(hits: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson (1927) interval of a probability after `hits` of `count` independent trials."""
    if not 0 <= hits <= count or count < 1:
        raise InputError(f"hits must lie between 0 and count >= 1, got {hits} of {count}.")
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie strictly between 0 and 1, got {confidence}.")
    z, share = float(ndtri(0.5 + confidence / 2)), hits / count
    centre = share + z**2 / (2 * count)
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    low, high = (centre - half) / (1 + z**2 / count), (centre + half) / (1 + z**2 / count)
    return max(0.0, float(low)), min(1.0, float(high))


@dataclass(frozen=True)
class Coverage:
    """How many targets lay in their central intervals of probability `level`.

    `a + b` pools two of them (splits, tables), which is how coverage should be reported.
    """

    level: float
    hits: int
    count: int

    @property
    def share(self) -> float:
        """The part of targets inside."""
        return self.hits / self.count

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The Wilson interval of the probability of lying inside; targets taken as independent."""
        return wilson(self.hits, self.count, confidence)

    def __add__(self, other: Coverage) -> Coverage:
        if not isinstance(other, Coverage):
            return NotImplemented
        if other.level != self.level:
            raise InputError(f"Coverage at {self.level} and at {other.level} cannot be pooled.")
        return Coverage(self.level, self.hits + other.hits, self.count + other.count)

    def __str__(self) -> str:
        low, high = self.interval()
        return (
            f"{self.level:.0%} intervals held {self.hits} of {self.count}: {self.share:.3f} "
            f"(95 % interval {low:.3f} to {high:.3f})"
        )


def coverage(prediction: Prediction, y: ArrayLike, level: float = 0.9) -> Coverage:
    """The targets `y` (n, m) inside the central intervals, over all points and outputs."""
    targets = targets_of(prediction, y)
    low, high = prediction.interval(level)
    inside = (targets >= low) & (targets <= high)
    return Coverage(float(level), int(inside.sum()), inside.size)


def pit(prediction: Prediction, y: ArrayLike, seed: Any = 0) -> np.ndarray:
    """Probability integral transforms (n, m): uniform on (0, 1) for a calibrated prediction.

    `cdf(y)`; for counts randomised between `cdf(y - 1)` and `cdf(y)` (Czado et al. 2009), by `seed`.
    """
    targets = targets_of(prediction, y)
    upper = prediction.cdf(targets)
    if not prediction.components.discrete:
        return upper
    lower = prediction.cdf(targets - 1)
    return lower + generator(seed).uniform(size=upper.shape) * (upper - lower)


@dataclass(frozen=True)
class LevelRow:
    """One level of a calibration table: coverage, mean width and mean interval score (units of y)."""

    coverage: Coverage
    width: float
    interval_score: float


@dataclass(frozen=True)
class Bin:
    """Labels predicted with a probability in [low, high): mean confidence, hits, and count."""

    low: float
    high: float
    confidence: float
    hits: int
    count: int


@dataclass(frozen=True)
class CalibrationTable:
    """Rows of `LevelRow` (real-valued targets) or `Bin` (labels, empty bins left out); prints."""

    rows: tuple[Any, ...]

    def __str__(self) -> str:
        if isinstance(self.rows[0], Bin):
            lines = [
                f"{'probability':<14}{'said':>8}{'right':>8}  {'95 % interval':<16}{'labels':>7}"
            ]
            for b in self.rows:
                low, high = wilson(b.hits, b.count)
                lines.append(
                    f"{f'{b.low:.2f} to {b.high:.2f}':<14}{b.confidence:>8.3f}{b.hits / b.count:>8.3f}"
                    f"  {f'{low:.3f} to {high:.3f}':<16}{b.count:>7}"
                )
            return "\n".join(lines)
        lines = [f"{'level':<8}{'inside':>8}  {'95 % interval':<16}{'mean width':>12}{'score':>12}"]
        for row in self.rows:
            low, high = row.coverage.interval()
            lines.append(
                f"{row.coverage.level:<8.2f}{row.coverage.share:>8.3f}  "
                f"{f'{low:.3f} to {high:.3f}':<16}{row.width:>12.4g}{row.interval_score:>12.4g}"
            )
        return "\n".join(lines)


def calibration(
    prediction: Any, y: ArrayLike, *, levels: tuple[float, ...] = LEVELS, bins: int = 10
) -> CalibrationTable:
    """What was said against what happened: by interval level, or for labels by confidence.

    Args:
        prediction: a `Prediction` or a `ClassPrediction`.
        y: observed values (n, m), or labels (n,).
        levels: of central intervals, for real-valued targets.
        bins: of equal width in the probability of the predicted label.

    Raises `InputError` for shapes, labels or levels that do not fit.
    """
    if isinstance(prediction, ClassPrediction):
        return CalibrationTable(_bins(prediction, y, bins))
    if not levels:
        raise InputError("levels must name at least one level.")
    rows = []
    for level in levels:
        low, high = prediction.interval(level)
        score = float(interval_score(prediction, y, level).mean())
        rows.append(LevelRow(coverage(prediction, y, level), float((high - low).mean()), score))
    return CalibrationTable(tuple(rows))


def _bins(prediction: ClassPrediction, y: ArrayLike, bins: int) -> tuple[Bin, ...]:
    codes = label_codes(prediction, y)
    if not isinstance(bins, (int, np.integer)) or bins < 1:
        raise InputError(f"bins must be a whole number, at least 1, got {bins!r}.")
    probabilities = prediction.mean
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == codes
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return tuple(
        Bin(b / bins, (b + 1) / bins, float(confidence[at].mean()), int(right[at].sum()), int(at.sum()))
        for b in range(bins)
        for at in [place == b]
        if at.any()
    )  # fmt: skip


def ece(prediction: ClassPrediction, y: ArrayLike, bins: int = 15) -> float:
    """The expected calibration error of the predicted label: mean |confidence - accuracy| over bins.

    Guo et al. 2017, eq. 3: bins of equal width, weighted by their labels. Of few labels it is above 0 even
    for a calibrated prediction; compare methods on the same labels and bins.
    """
    table = _bins(prediction, y, bins)
    total = sum(b.count for b in table)
    return float(sum(abs(b.confidence * b.count - b.hits) for b in table) / total)
