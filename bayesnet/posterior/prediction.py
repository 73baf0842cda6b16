"""What a posterior says about new rows: a mixture over draws, in the units of y."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp

from bayesnet._errors import InputError
from bayesnet._types import ArrayLike

_LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True, eq=False)
class Prediction:
    """The predictive law of y at n points: an equal mixture of one conditional a draw.

    `components`: a `Conditional` with leading axes (s, n, m) in the units of y;
    `values` (s, n, m): the function draws themselves, noise-free (for counts their rates). All
    results are float64.
    """

    components: Any
    values: np.ndarray

    def __repr__(self) -> str:
        n, m = self.mean.shape
        return (
            f"{type(self).__name__} of {m} target(s) at {n} row(s): .mean, .std, .interval(0.9), "
            ".quantile(q), .log_prob(y)"
        )

    @property
    def mean(self) -> np.ndarray:
        """The predictive mean, (n, m)."""
        return self.components.mean.mean(axis=0)

    @property
    def epistemic_std(self) -> np.ndarray:
        """The sd of the function over draws, (n, m): what more data would reduce."""
        return self.values.std(axis=0)

    @property
    def aleatoric_std(self) -> np.ndarray:
        """The root of the mean noise variance, (n, m): what more data would not reduce."""
        return np.sqrt(self.components.variance.mean(axis=0))

    @property
    def std(self) -> np.ndarray:
        """The sd of a new observation, (n, m): both parts together."""
        return np.sqrt(self.values.var(axis=0) + self.components.variance.mean(axis=0))

    def log_prob(self, y: ArrayLike) -> np.ndarray:
        """Log density of the mixture at `y` (n, m), noise included, in the units of y; (n, m).

        For counts the log probability.
        """
        terms = self.components.log_prob(self._targets(y)[None])
        return logsumexp(terms, axis=0) - np.log(len(terms))

    def moment_log_prob(self, y: ArrayLike) -> np.ndarray:
        """Log density of the Gaussian with the mixture's mean and sd, (n, m).

        Older papers report this as the test log likelihood; `log_prob` is the proper one.
        """
        residual = (self._targets(y) - self.mean) / self.std
        return -0.5 * residual**2 - np.log(self.std) - 0.5 * _LOG_2PI

    def cdf(self, y: ArrayLike) -> np.ndarray:
        """Probability of an observation at or below `y`, (n, m)."""
        return self.components.cdf(self._targets(y)[None]).mean(axis=0)

    def quantile(self, q: float) -> np.ndarray:
        """The predictive `q` quantile of a new observation, (n, m), by bisection.

        For counts the least whole number with at least probability `q` at or below it. Raises `InputError` unless 0 < q < 1.
        """
        check_level(q)
        each = self.components.quantile(q)
        # The quantile of a mixture lies between the extreme quantiles of its components.
        low, high = each.min(axis=0), each.max(axis=0)
        if self.components.discrete:
            return self._whole_quantile(q, low, high)
        for _ in range(60):
            middle = 0.5 * (low + high)
            if np.all((middle <= low) | (middle >= high)):
                break
            above = self.components.cdf(middle[None]).mean(axis=0) >= q
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        return 0.5 * (low + high)

    def _whole_quantile(self, q: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """The least whole number in [low, high] with at least probability `q` at or below it."""
        for _ in range(60):  # counts beyond 2^53 have no ones
            if not np.any(low < high):
                break
            middle = np.floor(0.5 * (low + high))
            above = self.components.cdf(middle[None]).mean(axis=0) >= q
            low = np.where(above, low, np.minimum(middle + 1, high))
            high = np.where(above, middle, high)
        return high

    def interval(self, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """The central predictive interval of a new observation: two arrays (n, m).

        For counts it holds at least `level`: whole numbers seldom hit it.
        """
        if not 0 < level < 1:
            raise InputError(f"An interval level must lie strictly between 0 and 1, got {level}.")
        return self.quantile(0.5 - level / 2), self.quantile(0.5 + level / 2)

    def sample(
        self, key: Any, num: int = 1, *, joint: bool = True, noise: bool = True
    ) -> np.ndarray:
        """`num` draws at the n points, (num, n, m).

        Args:
            key: an integer seed or a JAX key.
            joint: one function for all points of a draw (coherent curves); otherwise points are
                drawn independently of each other.
            noise: new observations; otherwise the function values.
        """
        rng = generator(key)
        s, n, m = self.values.shape
        index = np.broadcast_to(rng.integers(s, size=(num, 1 if joint else n, 1)), (num, n, m))
        pick = (index, np.arange(n)[None, :, None], np.arange(m)[None, None, :])
        return self.components.sample(rng, pick) if noise else self.values[pick]

    def _targets(self, y: ArrayLike) -> np.ndarray:
        return targets_like(y, *self.values.shape[1:])


def check_level(q: Any) -> None:
    """Raises `InputError` unless `q` is one number strictly between 0 and 1."""
    if np.ndim(q) != 0 or not 0 < q < 1:
        raise InputError(
            f"A quantile level must be one number strictly between 0 and 1, got {q!r}; for several, ask one "
            "after the other."
        )


def targets_like(y: ArrayLike, n: int, m: int) -> np.ndarray:
    """`y` as (n, m); one output may come as (n,), and numbers broadcast. Raises `InputError` else."""
    targets = np.asarray(y, np.float64)
    if targets.ndim == 1 and m == 1:
        targets = targets[:, None]
    if targets.shape not in ((n, m), (1, m), (n, 1), (1, 1)) and targets.ndim != 0:
        raise InputError(f"y must have shape ({n}, {m}), got {np.shape(y)}.")
    return np.broadcast_to(targets, (n, m))


def generator(key: Any) -> np.random.Generator:
    """NumPy's generator for an integer seed or a JAX key."""
    if isinstance(key, (int, np.integer)):
        return np.random.default_rng(int(key))
    import jax

    data = (
        key
        if not jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
        else jax.random.key_data(key)
    )
    return np.random.default_rng(np.asarray(data).tolist())
