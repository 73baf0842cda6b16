"""What the algebra of a process is told of a prior and of a table: scale, noise, weights of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesnet.priors.process_blocks import LOG_2PI
from bayesnet.priors.process_solution import ScaleModel
from bayesnet.priors.scale_mixture import ScaleMixture


def base_of(prior: Any) -> Any:
    """The kernel prior under a scale mixture; a kernel prior itself."""
    return prior.base if isinstance(prior, ScaleMixture) else prior


def scale_of(prior: Any, method: Any = None) -> ScaleModel:
    """How a random scale enters, with the settings of the method."""
    if not isinstance(prior, ScaleMixture):
        return ScaleModel()
    if method is None:
        return prior.scale_model()
    return prior.scale_model(tolerance=method.tolerance, num_samples=method.importance_samples)


def table_noise(
    std: np.ndarray, y: np.ndarray, y_var: np.ndarray | None, weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Noise variances (n, m) and targets (n, m) as the algebra takes them.

    A row of weight w has the Gaussian likelihood of variance / w; of weight 0 it is missing.
    """
    noise = np.broadcast_to(std**2 + (0.0 if y_var is None else y_var), y.shape)
    if weight is None:
        return noise, y
    column = weight[:, None]
    return noise / np.where(column > 0, column, 1.0), np.where(column > 0, y, np.nan)


def weighted_constant(
    std: np.ndarray, y: np.ndarray, y_var: np.ndarray | None, weight: np.ndarray | None
) -> float:
    """What `w log N(y; f, v)` has more than `log N(y; f, v / w)`, summed over observed targets."""
    if weight is None:
        return 0.0
    noise = np.broadcast_to(std**2 + (0.0 if y_var is None else y_var), y.shape)
    w = np.where(weight > 0, weight, 1.0)[:, None]
    terms = 0.5 * (1.0 - w) * (LOG_2PI + np.log(noise)) - 0.5 * np.log(w)
    return float(np.sum(np.where(np.isnan(y) | (weight[:, None] <= 0), 0.0, terms)))
