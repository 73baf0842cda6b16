"""Posteriors that approximate latent functions by Gaussian laws, or mixtures of them over a scale."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_expit, log_softmax, ndtri
from scipy.stats import qmc

from bayesnet._errors import InputError
from bayesnet._types import ArrayLike, Key
from bayesnet.data import Data, Rows, Scaling
from bayesnet.likelihoods import BernoulliLikelihood, CategoricalLikelihood
from bayesnet.likelihoods.base import refuse_y_var
from bayesnet.likelihoods.labels import LabelLaw
from bayesnet.posterior.classes import ClassPrediction
from bayesnet.posterior.prediction import generator

# Points of the quasi-random rule behind class probabilities, unless `predict` is told otherwise.
POINTS = 256


@dataclass(frozen=True, eq=False)
class Marginals:
    """The law of latents at each of k new rows: `log_weight` (j,), `mean` (j, k, K) and a root of
    the covariance, (j, k, K, K), or (j, k, K) where the K latents are independent."""

    log_weight: np.ndarray
    mean: np.ndarray
    root: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class ProcessClassPrediction(ClassPrediction):
    """The predictive law of a label under a latent process: a `bn.ClassPrediction`.

    `components` is a quasi-random rule for the law of latents at each row; `joint_law(rng, num)`
    draws functions at all rows together, for `sample(joint=True)`.
    """

    joint_law: Callable[[np.random.Generator, int], LabelLaw]

    def sample(
        self, key: Any, num: int = 1, *, joint: bool = True, noise: bool = True
    ) -> np.ndarray:
        """`num` draws of the labels at the n points, (num, n); see `bn.ClassPrediction.sample`."""
        if not joint:
            return super().sample(key, num, joint=False, noise=noise)
        rng = generator(key)
        law = self.joint_law(rng, num)
        if not noise:
            return law.clean
        n = law.clean.shape[1]
        pick = (np.arange(num)[:, None], np.arange(n)[None, :])
        return self.classes[law.sample(rng, pick)]


@dataclass(frozen=True)
class LatentReport:
    """Facts and problems of an approximate posterior of latent functions; prints.

    `noise_std` are the levels of Gaussian noise (m,), in the units of y; empty for classes.
    """

    lines: tuple[str, ...]
    headline: str
    problems: tuple[str, ...]
    noise_std: tuple[float, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.problems

    def __str__(self) -> str:
        return "\n".join([*self.lines, *(f"! {problem}" for problem in self.problems)])


class LatentProcess:
    """What approximate posteriors of latent processes share: `predict`, `functions`, `save`."""

    likelihood: Any
    scaling: Scaling

    @property
    @abstractmethod
    def columns(self) -> int:
        """d, the number of inputs."""

    @abstractmethod
    def _marginals(self, new: np.ndarray) -> Marginals:
        """The law of latents at each scaled row."""

    @abstractmethod
    def _joint(self, new: np.ndarray, num: int, rng: np.random.Generator) -> np.ndarray:
        """`num` draws (num, k, K) of latents at scaled rows together."""

    @abstractmethod
    def diagnostics(self) -> LatentReport:
        """What there is to distrust."""

    def predict(self, x: ArrayLike, y_var: ArrayLike | None = None, *, points: int = POINTS) -> Any:
        """The predictive law at `x` (n, d), in user units: a `bn.ClassPrediction`.

        Args:
            x: inputs, n x d.
            y_var: has no meaning for labels.
            points: of the quasi-random rule that integrates class probabilities over latents.

        Raises `InputError` for the wrong number of columns, NaN, or no rows.
        """
        refuse_y_var(type(self.likelihood).__name__, y_var)
        new = self._scaled(x)
        components = self._label_law(rule(self._marginals(new), points))

        def joint(rng: np.random.Generator, num: int) -> LabelLaw:
            return self._label_law(self._joint(new, num, rng))

        return ProcessClassPrediction(components, self.likelihood.classes, joint)

    def functions(self, x: ArrayLike, num: int = 64, seed: int | Key = 0) -> np.ndarray:
        """`num` joint draws of the latent functions at `x` (n, d), (num, n, K): logits for classes.

        The same draws for the same rows and seed; draws of different rows are not tied together.
        """
        draws = self._joint(self._scaled(x), num, generator(seed))
        loc, scale = self.likelihood.output_units(self.scaling)
        return draws * scale + loc

    def save(self, path: str | Path) -> None:
        """Write this posterior to one file (safetensors with a checksum; never a pickle)."""
        from bayesnet.posterior.saving import save

        save(self, path)

    def _scaled(self, x: ArrayLike) -> np.ndarray:
        return self.scaling.x_in(self.scaling.matrix(x))

    def _label_law(self, f: np.ndarray) -> LabelLaw:
        """The law of labels for latents (s, n, K)."""
        return label_law(self.likelihood, f)


def label_law(likelihood: Any, f: np.ndarray) -> LabelLaw:
    """The law of labels for latents (s, n, K) under a class likelihood with known label noise."""
    if isinstance(likelihood, BernoulliLikelihood):
        log_p = log_expit(np.concatenate([-f, f], axis=-1))
    else:
        log_p = log_softmax(f, axis=-1)
    clean = np.exp(log_p)
    noise = float(getattr(likelihood, "label_noise", 0.0))
    if noise == 0.0:
        return LabelLaw(log_p, clean)
    return LabelLaw(np.log((1.0 - noise) * clean + noise / f.shape[-1]), clean)


def rule(law: Marginals, points: int) -> np.ndarray:
    """Latents (s, k, K) whose equal mixture stands for the law of each row: midpoints of normal
    quantiles for one latent, a scrambled Sobol sequence (Owen 1998) otherwise; the same every time."""
    if isinstance(points, bool) or int(points) != points or points < 1:
        raise InputError(f"points must be a whole number of at least 1, got {points!r}.")
    j, _, outputs = law.mean.shape
    if j == 1 and outputs == 1:
        u = ((np.arange(points) + 0.5) / points)[:, None]
        node = np.zeros(points, int)
    else:
        drawn = qmc.Sobol(outputs + 1, seed=0).random(1 << int(np.ceil(np.log2(points))))
        u = drawn[:, 1:]
        edges = np.cumsum(np.exp(law.log_weight))
        node = np.minimum(np.searchsorted(edges / edges[-1], drawn[:, 0]), j - 1)
    z = ndtri(np.clip(u, 1e-12, 1.0 - 1e-12))
    if law.root.ndim == 3:
        return law.mean[node] + law.root[node] * z[:, None, :]
    out = np.empty((len(z), *law.mean.shape[1:]))
    for number in np.unique(node):
        own = node == number
        out[own] = law.mean[number] + np.einsum("kab,sb->ska", law.root[number], z[own])
    return out


def covariance_roots(covariance: np.ndarray) -> np.ndarray:
    """Square roots of covariances (..., K, K) that may be singular."""
    values, vectors = np.linalg.eigh(0.5 * (covariance + np.swapaxes(covariance, -1, -2)))
    return vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]


def pick_nodes(rng: np.random.Generator, log_weight: np.ndarray, num: int) -> np.ndarray:
    """`num` indices with these log probabilities."""
    edges = np.cumsum(np.exp(log_weight))
    return np.minimum(np.searchsorted(edges / edges[-1], rng.uniform(size=num)), len(edges) - 1)


def check_outputs(prior: Any, likelihood: Any, data: Data) -> int:
    """The number of latent functions, K. One kernel may serve all; raises `InputError` otherwise."""
    outputs = int(likelihood.num_outputs(data.out_dim))
    given = int(getattr(prior, "out_dim", 1))
    if given not in (1, outputs):
        raise InputError(
            f"The prior is for {given} outputs, {type(likelihood).__name__} needs {outputs}: build it with "
            f"out_dim={outputs}, or with out_dim=1 for one kernel that serves all."
        )
    return outputs


def row_weights(rows: Rows, n: int) -> np.ndarray:
    """The weights (n,) of the true rows."""
    return np.ones(n) if rows.weight is None else np.asarray(rows.weight, np.float64)[:n]


CLASS_LIKELIHOODS = (BernoulliLikelihood, CategoricalLikelihood)
