"""Scoring rules of predictions, and errors of their means; all in the units of y, smaller is better.

A proper rule is smallest in the mean for the law that the data come from (Gneiting & Raftery 2007).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import rankdata

from bayesnet._errors import InputError, UnsupportedError
from bayesnet._matrix import as_matrix
from bayesnet._types import ArrayLike
from bayesnet.diagnostics.mixture_crps import mean_abs, mixture_crps, student_t_crps
from bayesnet.likelihoods.gaussian import Normal
from bayesnet.likelihoods.labels import codes_of
from bayesnet.likelihoods.student_t import StudentTLaw
from bayesnet.posterior import ClassPrediction, Prediction
from bayesnet.posterior.prediction import generator
from bayesnet.posterior.process_prediction import ProcessPrediction

# Pairs of draws for the spread term of the CRPS are taken at this many distances at most (all
# distances, and so all pairs, up to twice as many draws).
LAGS = 500
# Observations drawn from each component where it has no closed form, and at least of all together;
# of one component quantiles stand for draws.
REPEATS, OBSERVATIONS, LEVELS = 8, 2000, 1000


def targets_of(prediction: Any, y: ArrayLike) -> np.ndarray:
    """`y` as a float64 matrix of the shape (n, m) of a `Prediction`.

    Raises `UnsupportedError` for a prediction of classes, `InputError` for another shape or NaN.
    """
    if not isinstance(prediction, Prediction):
        raise UnsupportedError(
            f"This score is for real-valued targets, got a {type(prediction).__name__}: of classes "
            "take brier, calibration.ece, auroc, or -prediction.log_prob(y)."
        )
    targets = as_matrix(y, "y")
    shape = prediction.mean.shape
    if targets.shape != shape:
        raise InputError(
            f"y must have shape {shape}, one value a predicted point, got {np.shape(y)}."
        )
    return targets


def crps(
    prediction: Prediction, y: ArrayLike, *, fair: bool | None = None, seed: Any = 0
) -> np.ndarray:
    """The continuous ranked probability score E|Y - y| - E|Y - Y'| / 2, (n, m), in the units of y.

    Of posteriors in closed form (`ProcessPrediction`: a weighted mixture of normal or Student-t laws) the
    score of that very mixture, without draws. For components that are Gaussian the expectations over
    the noise are exact (Grimit et al. 2006, eq. 5). For others observations are drawn (`seed`), 8 of each
    component and 2,000 or more in all; one Student-t law is in closed form, of one other component 1,000
    quantiles take their place.

    Args:
        prediction: of n points, a mixture over s draws.
        y: the observed values, (n, m).
        fair: Y and Y' come from different draws (Ferro 2014, eq. 4): an unbiased estimate of the
            score of the posterior that the draws are a sample of, comparable between any s.
            False: the score of the equal mixture of these very components. None: fair, but for
            one component, and for a mixture in closed form, which is no sample.

    With more than 1,000 draws the pairs are taken at 500 distances along the draws, not at all. Raises
    `InputError` for a fair score of one draw or of a mixture in closed form, and for y of another shape.
    """
    targets = targets_of(prediction, y)
    if isinstance(prediction, ProcessPrediction):
        if fair:
            raise InputError(
                "The fair CRPS compares draws, and this prediction is a mixture in closed form: leave fair "
                "out."
            )
        scale = np.hypot(prediction.function_scale, prediction.noise_scale)
        weight = np.exp(prediction.log_weight)
        return mixture_crps(prediction.location, scale, weight, prediction.df, targets)
    components = prediction.components
    s = len(components.location)
    fair = s > 1 if fair is None else fair
    if fair and s < 2:
        raise InputError("The fair CRPS compares different draws and there is one: use fair=False.")
    if isinstance(components, Normal):
        scale = np.broadcast_to(components.scale, components.loc.shape)
        return _gaussian_crps(components.loc, scale, targets, fair)
    if s == 1 and isinstance(components, StudentTLaw) and (np.asarray(components.df) > 1).all():
        scale = np.broadcast_to(components.scale, components.loc.shape)[0]
        df = np.broadcast_to(components.df, components.loc.shape)[0]
        return scale * student_t_crps((targets - components.loc[0]) / scale, df)
    if s == 1:
        levels = (np.arange(LEVELS) + 0.5) / LEVELS
        quantiles = np.concatenate([components.quantile(level) for level in levels])
        distance, spread = _sample_crps(quantiles, targets)
        return distance - 0.5 * (LEVELS - 1) / LEVELS * spread  # each is also its own pair
    rng = generator(seed)
    everything = np.ix_(*(np.arange(k) for k in components.location.shape))
    times = range(max(REPEATS, -(-OBSERVATIONS // s)))
    repeats = [_sample_crps(components.sample(rng, everything), targets) for _ in times]
    distance, spread = np.mean(repeats, axis=0)
    if fair:
        return distance - 0.5 * spread
    # Two observations from one component, and from different ones, in their proportions.
    again = [
        np.abs(components.sample(rng, everything) - components.sample(rng, everything)).mean(axis=0)
        for _ in times
    ]
    return distance - 0.5 * ((s - 1) / s * spread + np.mean(again, axis=0) / s)


def _gaussian_crps(loc: np.ndarray, scale: np.ndarray, y: np.ndarray, fair: bool) -> np.ndarray:
    s = len(loc)
    distance = mean_abs(y - loc, scale).mean(axis=0)
    spread = np.zeros_like(y)
    if s > 1:
        # Pairs (i, i + lag mod s): every unordered pair once, those at lag s / 2 twice.
        lags = np.arange(1, s // 2 + 1)
        if len(lags) > LAGS:
            lags = np.unique(np.linspace(1, s // 2, LAGS).round().astype(int))
        share = np.where(2 * lags == s, 0.5, 1.0)
        for lag, weight in zip(lags, share / share.sum(), strict=True):
            width = np.hypot(scale, np.roll(scale, lag, axis=0))
            spread += weight * mean_abs(loc - np.roll(loc, lag, axis=0), width).mean(axis=0)
    if fair:
        return distance - 0.5 * spread
    own = mean_abs(np.zeros_like(loc), np.sqrt(2) * scale).mean(axis=0)
    return distance - 0.5 * ((s - 1) / s * spread + own / s)


def _sample_crps(draws: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean distances of draws (s, n, m) to y and, over different draws, to each other."""
    s = len(draws)
    distance = np.abs(draws - y).mean(axis=0)
    if s < 2:
        return distance, np.zeros_like(y)
    rank = (2 * np.arange(1, s + 1) - s - 1)[:, None, None]
    return distance, 2 * (rank * np.sort(draws, axis=0)).sum(axis=0) / (s * (s - 1))


def interval_score(prediction: Prediction, y: ArrayLike, level: float = 0.9) -> np.ndarray:
    """Width of the central interval plus 2 / (1 - level) times what y lies outside, (n, m).

    Gneiting & Raftery 2007, eq. 43; in the units of y.
    """
    targets = targets_of(prediction, y)
    low, high = prediction.interval(level)
    outside = np.maximum(low - targets, 0.0) + np.maximum(targets - high, 0.0)
    return high - low + 2.0 / (1.0 - level) * outside


def brier(prediction: ClassPrediction, y: ArrayLike) -> np.ndarray:
    """The Brier score of labels (n,): squared distance of probabilities to the label, 0 to 2.

    Summed over all classes as Brier 1950 has it; for two classes twice the version of one column.
    """
    codes = label_codes(prediction, y)
    hit = np.zeros_like(prediction.mean)
    hit[np.arange(len(codes)), codes] = 1.0
    return ((prediction.mean - hit) ** 2).sum(axis=1)


def label_codes(prediction: Any, y: ArrayLike) -> np.ndarray:
    """The columns (n,) of the labels `y`. Raises unless these are labels of a `ClassPrediction`."""
    if not isinstance(prediction, ClassPrediction):
        raise UnsupportedError(
            f"This score is for class labels, got a {type(prediction).__name__}: use crps, "
            "interval_score, or -prediction.log_prob(y)."
        )
    codes = codes_of(y, prediction.labels)
    if len(codes) != len(prediction.mean):
        raise InputError(f"y must hold {len(prediction.mean)} labels, got {len(codes)}.")
    return codes


def auroc(score: ArrayLike, positive: ArrayLike) -> float:
    """The area under the ROC curve: P(score of a positive > that of a negative), ties counting half.

    Args:
        score: (n,), larger for what should be positive (an entropy, a probability, ...).
        positive: (n,), bools or 0 and 1.

    By ranks (Mann & Whitney 1947). Raises `InputError` unless both kinds occur.
    """
    values, labels = np.asarray(score, np.float64), np.asarray(positive)
    if values.ndim != 1 or values.shape != labels.shape or not np.isfinite(values).all():
        raise InputError(
            f"score and positive must be finite vectors of one length, got shapes {values.shape} "
            f"and {labels.shape}."
        )
    if not np.isin(labels, (0, 1)).all():
        raise InputError("positive must hold bools, or 0 and 1.")
    labels = labels.astype(bool)
    up, down = int(labels.sum()), int((~labels).sum())
    if not (up and down):
        raise InputError("AUROC needs both positives and negatives.")
    return float((rankdata(values)[labels].sum() - up * (up + 1) / 2) / (up * down))


def corrected_error(differences: ArrayLike, test_share: float) -> float:
    """The standard error of a mean difference over random splits (Nadeau & Bengio 2003, eq. 7).

    Training sets of splits overlap, so their results depend on each other: the naive
    `sd / sqrt(k)` is too small, for ten 90/10 splits by a factor 1.45.

    Args:
        differences: (k,), one a split, of two methods on the same splits.
        test_share: the part of the rows that a split tests on, in (0, 1).

    Raises `InputError` for fewer than two splits or a share outside (0, 1).
    """
    values = np.asarray(differences, np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise InputError(
            f"differences must hold a finite number for each of 2 or more splits, got {differences!r}."
        )
    if not 0 < test_share < 1:
        raise InputError(f"test_share must lie strictly between 0 and 1, got {test_share}.")
    return float(np.sqrt((1 / len(values) + test_share / (1 - test_share)) * values.var(ddof=1)))


def score(prediction: Any, y: ArrayLike, level: float = 0.9) -> dict[str, float]:
    """The usual scores at once, each a mean over points and outputs.

    For a `Prediction`: "rmse", "nll" (of the mixture), "crps" (fair where there are two draws),
    "interval_score" and "coverage" at `level`; for a `ClassPrediction`: "error" (share of wrong
    labels), "nll", "brier", "ece".
    """
    from bayesnet.diagnostics.calibration import coverage, ece

    if isinstance(prediction, ClassPrediction):
        codes = label_codes(prediction, y)
        return {
            "error": float(np.mean(np.argmax(prediction.mean, axis=-1) != codes)),
            "nll": float(-prediction.log_prob(y).mean()),
            "brier": float(brier(prediction, y).mean()),
            "ece": ece(prediction, y),
        }
    targets = targets_of(prediction, y)
    return {
        "rmse": float(np.sqrt(np.mean((prediction.mean - targets) ** 2))),
        "nll": float(-prediction.log_prob(targets).mean()),
        "crps": float(crps(prediction, targets).mean()),
        "interval_score": float(interval_score(prediction, targets, level).mean()),
        "coverage": coverage(prediction, targets, level).share,
    }
