"""What a PFN says about new rows: bars for y, bars for the function, joint draws by a copula."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr

from bayesnet._errors import InputError
from bayesnet.pfn.bars import BarDistribution
from bayesnet.posterior.prediction import Prediction, generator

# Rows of which joint draws are made: the copula needs two encoded contexts for each.
MOST_JOINT = 256


@dataclass(frozen=True, eq=False)
class BarPrediction(Prediction):
    """The predictive law of y at n points, as bars in the units of y.

    `components`: the law of y, a `BarDistribution` with leading axes (1, n, m); `latent`: the law
    of the function, without noise; `values` (1, n, m): its mean. `joint`: the correlations of the
    function and of y between the points, (n, n) for each output, when called.
    """

    latent: BarDistribution
    joint: Callable[[], tuple[np.ndarray, np.ndarray]]

    @property
    def epistemic_std(self) -> np.ndarray:
        """The sd of the function, (n, m), from the head that was trained on noise-free values."""
        return np.sqrt(self.latent.variance[0])

    @property
    def aleatoric_std(self) -> np.ndarray:
        """The root of what the variance of y has beyond that of the function, (n, m)."""
        left = self.components.variance[0] - self.latent.variance[0]
        return np.sqrt(np.maximum(left, 0.0))

    @property
    def std(self) -> np.ndarray:
        """The sd of a new observation, (n, m)."""
        return np.sqrt(self.components.variance[0])

    def sample(
        self, key: Any, num: int = 1, *, joint: bool = True, noise: bool = True
    ) -> np.ndarray:
        """`num` draws at the n points, (num, n, m).

        Joint draws have the predictive law of every point and the correlations of a Gaussian
        copula (see `PFNPosterior.correlations`); `PFNPosterior.sample_paths` draws one point after
        the other instead. Raises `InputError` for joint draws at more than 256 points.
        """
        rng = generator(key)
        law = self.components if noise else self.latent
        n, m = self.values.shape[1:]
        if not joint:
            u = rng.uniform(size=(num, n, m))
            return law.quantile(u)
        if n > MOST_JOINT:
            raise InputError(
                f"Joint draws are made at most at {MOST_JOINT} points at once, got {n}; pass fewer, or "
                "joint=False for independent ones."
            )
        correlation = self.joint()[1 if noise else 0]
        roots = [_root(correlation[j]) for j in range(m)]
        z = np.stack([rng.standard_normal((num, n)) @ root.T for root in roots], axis=-1)
        return law.quantile(ndtr(z))


def _root(correlation: np.ndarray) -> np.ndarray:
    """A matrix R with unit rows and R R' the nearest correlation matrix by clipped eigenvalues."""
    values, vectors = np.linalg.eigh(correlation)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    return root / np.linalg.norm(root, axis=1, keepdims=True)
