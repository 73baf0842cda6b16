"""What a posterior says about the class of new rows: a mixture over draws of class laws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from bayesnet._errors import InputError, UnsupportedError
from bayesnet._repr import brief
from bayesnet._types import ArrayLike
from bayesnet.likelihoods.labels import LabelLaw, codes_of, entropy, log_mean
from bayesnet.posterior.prediction import generator


@dataclass(frozen=True, eq=False)
class ClassPrediction:
    """The predictive law of a label at n points: an equal mixture of one law a draw.

    `components`: a `LabelLaw` with axes (s draws, n points, K classes); `labels`: the K class
    labels, in the order of the last axis. With label noise, probabilities are those of an
    observed label; `values` are without it. All results are float64, entropies in nats.
    """

    components: LabelLaw
    labels: tuple[Any, ...]

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__} of {len(self.labels)} classes {brief(self.labels)} at {len(self.mean)} "
            "row(s): .predicted, .mean (probabilities), .entropy, .log_prob(y)"
        )

    @property
    def classes(self) -> np.ndarray:
        """The labels (K,) in the order of the columns of `mean`."""
        return np.asarray(self.labels)

    @property
    def values(self) -> np.ndarray:
        """The class probabilities of each function draw, noise-free, (s, n, K)."""
        return self.components.clean

    @property
    def mean(self) -> np.ndarray:
        """Predictive probabilities (n, K)."""
        return self.components.probabilities.mean(axis=0)

    @property
    def predicted(self) -> np.ndarray:
        """The most probable label of each point, (n,)."""
        return self.classes[np.argmax(self.mean, axis=-1)]

    @property
    def entropy(self) -> np.ndarray:
        """Entropy of the predictive law (n,): both parts together, at most log K."""
        return entropy(self.mean)

    @property
    def aleatoric(self) -> np.ndarray:
        """Expected entropy of the label given the function (n,): more data would not reduce it."""
        return entropy(self.components.probabilities).mean(axis=0)

    @property
    def epistemic(self) -> np.ndarray:
        """Mutual information of label and function (n,): `entropy - aleatoric`.

        What more data would reduce (Houlsby et al. 2011, eq. 2, "BALD").
        """
        return np.maximum(self.entropy - self.aleatoric, 0.0)

    def log_prob(self, y: ArrayLike) -> np.ndarray:
        """Log predictive probability of the labels `y` (n,), (n,).

        Raises `InputError` for labels that are not among `classes`.
        """
        codes = codes_of(y, self.labels)
        if len(codes) != self.values.shape[1]:
            raise InputError(
                f"y must hold one label for each of {self.values.shape[1]} points, got {len(codes)}."
            )
        return log_mean(self.components.log_prob(codes))

    def sample(
        self, key: Any, num: int = 1, *, joint: bool = True, noise: bool = True
    ) -> np.ndarray:
        """`num` draws of the labels at the n points, (num, n).

        Args:
            key: an integer seed or a JAX key.
            joint: one function for all points of a draw; otherwise points are independent.
            noise: labels; otherwise the class probabilities of the function, (num, n, K).
        """
        rng = generator(key)
        s, n, _ = self.values.shape
        index = np.broadcast_to(rng.integers(s, size=(num, 1 if joint else n)), (num, n))
        pick = (index, np.arange(n)[None, :])
        return self.classes[self.components.sample(rng, pick)] if noise else self.values[pick]

    @property
    def std(self) -> NoReturn:
        """Not defined for labels: raises `UnsupportedError`."""
        raise _no("std")

    @property
    def epistemic_std(self) -> NoReturn:
        """Not defined for labels: raises `UnsupportedError`."""
        raise _no("epistemic_std")

    @property
    def aleatoric_std(self) -> NoReturn:
        """Not defined for labels: raises `UnsupportedError`."""
        raise _no("aleatoric_std")

    def moment_log_prob(self, y: ArrayLike) -> NoReturn:
        """Not defined for labels: raises `UnsupportedError`."""
        raise _no("moment_log_prob")

    def cdf(self, y: ArrayLike) -> NoReturn:
        """Not defined for labels: raises `UnsupportedError`."""
        raise _no("cdf")

    def quantile(self, q: float) -> NoReturn:
        """Not defined for labels: raises `UnsupportedError`."""
        raise _no("quantile")

    def interval(self, level: float = 0.9) -> NoReturn:
        """Not defined for labels: raises `UnsupportedError`."""
        raise _no("interval")


def _no(name: str) -> UnsupportedError:
    return UnsupportedError(
        f"Class labels have no {name}: use mean (probabilities), predicted, entropy, epistemic "
        "(mutual information), aleatoric (expected entropy) or log_prob."
    )
