"""A posterior of a process, or of its scale mixture, held by inducing values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg

from bayesnet._repr import fitted_to, judged
from bayesnet._types import ArrayLike
from bayesnet.data import Rows, Scaling
from bayesnet.likelihoods import GaussianLikelihood
from bayesnet.likelihoods.base import refuse_y_var
from bayesnet.posterior.laplace_process import latent_mean
from bayesnet.posterior.latent_process import POINTS, LatentProcess, LatentReport, Marginals
from bayesnet.posterior.process import _NONE
from bayesnet.posterior.process_prediction import ProcessPrediction, covariance_root
from bayesnet.posterior.process_report import expansion_problems
from bayesnet.posterior.process_table import base_of
from bayesnet.priors.kernel_model import KernelModel
from bayesnet.priors.process_blocks import jittered_cholesky
from bayesnet.priors.scale_mixture import ScaleMixture
from bayesnet.priors.variance_laws import PointMass

# Relative jitter of the inducing matrix; nodes of the scale in predictions.
JITTER, NODES = 1e-8, 16
# What a further Newton step may still gain, nats a row.
STILL_GAINING = 0.01


@dataclass(frozen=True, eq=False)
class SparsePosterior(LatentProcess):
    """Latent functions by a Gaussian law of values at inducing rows; what `bn.SparseVariational` makes.

    Fields, in scaled coordinates and float64, for K latent functions and M inducing rows:
        prior: with fixed hyper-parameters; inducing: (M, d).
        mean (K, M), root (K, M, M): the law of the whitened inducing values, N(mean, root root').
        log_scale: under a scale mixture (loc, sd, tie): log s ~ N(loc, sd^2), and given s the whitened values
            are `r mean + r root z` with `r = exp(tie (log s - loc) / 2)`; else None.
        noise: latents of the likelihood; num_rows: n; search: the record of training, with "elbo".
    """

    prior: Any
    likelihood: Any
    scaling: Scaling
    inducing: np.ndarray
    mean: np.ndarray
    root: np.ndarray
    log_scale: np.ndarray | None
    noise: np.ndarray
    num_rows: int
    method: Any = None
    search: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        what = f"law of values at {len(self.inducing)} inducing rows"
        targets = 1 if hasattr(self.likelihood, "classes") else len(self.mean)
        return fitted_to(self, what, (self.num_rows, self.columns, targets), judged(()))

    @property
    def columns(self) -> int:
        return self.inducing.shape[1]

    @property
    def elbo(self) -> float:
        """The lower bound of the log density of y given X, of all rows, in nats and in the units of y (of
        labels: of their log probability), hyper-parameters and noise at the values that were learned.

        Under a prior in scaled coordinates it is a density given the mean and sd of this very y.
        """
        # Files of the first version hold no units: theirs is in scaled coordinates.
        return float(self.search["elbo"]) - float(self.search.get("log_units", 0.0))

    @cached_property
    def _model(self) -> KernelModel:
        return KernelModel(base_of(self.prior))

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k in self.__dataclass_fields__}

    def scales(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values of s and r (j,) and their log weights: one where s is known."""
        if self.log_scale is None:
            return np.exp([known_log_scale(self.prior)]), np.ones(1), np.zeros(1)
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        return (*self._scales_at(nodes), np.log(weights / weights.sum()))

    def _scales_at(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """s and r where log s is z standard deviations from its mean."""
        assert self.log_scale is not None
        loc, sd, tie = self.log_scale
        return np.exp(loc + sd * z), np.exp(0.5 * tie * sd * z)

    def _moments(self, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (j, k, K) of latents at scaled rows."""
        a, left = project(self._model, _NONE, self.inducing, new)
        outputs = len(self.mean)
        inner = np.stack([np.sum((a @ root) ** 2, axis=1) for root in self.root], axis=1)
        s, r, _ = self.scales()
        s, r = s[:, None, None], r[:, None, None]
        mean = latent_mean(self._model, _NONE, new, outputs) + r * (a @ self.mean.T)
        return mean, np.sqrt(s * left[:, None] + r**2 * inner)

    def _marginals(self, new: np.ndarray) -> Marginals:
        mean, sd = self._moments(new)
        return Marginals(self.scales()[2], mean, sd)

    def _joint(self, new: np.ndarray, num: int, rng: np.random.Generator) -> np.ndarray:
        a, _ = project(self._model, _NONE, self.inducing, new)
        outputs, size = self.mean.shape
        rest = covariance_root(self._model.matrix(_NONE, new, new) - a @ a.T)
        mean = latent_mean(self._model, _NONE, new, outputs)
        s, r, _ = self.scales()
        if self.log_scale is not None:
            s, r = self._scales_at(rng.standard_normal(num))
        z = rng.standard_normal((num, outputs, size))
        e = rng.standard_normal((num, outputs, len(new)))
        values = self.mean + np.einsum("kml,skl->skm", self.root, z)
        free = np.sqrt(s)[:, None, None] * (e @ rest.T)
        return mean + np.swapaxes(r[:, None, None] * (values @ a.T) + free, 1, 2)

    def predict(self, x: ArrayLike, y_var: ArrayLike | None = None, *, points: int = POINTS) -> Any:
        """The predictive law at `x` (n, d): a `bn.ClassPrediction`, for Gaussian noise a `bn.Prediction`
        in the units of y; see `LatentProcess.predict`."""
        if not isinstance(self.likelihood, GaussianLikelihood):
            return super().predict(x, y_var, points=points)
        refuse_y_var("bn.SparseVariational", y_var)
        new = self._scaled(x)
        mean, sd = self._moments(new)
        scale = self.scaling.y_scale
        location = self.scaling.y_out(mean)
        function, noise = sd * scale, np.broadcast_to(self._noise_std() * scale, sd.shape)
        log_weight = np.repeat(self.scales()[2][:, None], mean.shape[2], axis=1)
        return ProcessPrediction(
            location,
            function,
            noise,
            log_weight,
            None,
            np.full(mean.shape[2], np.inf),
            np.zeros(len(location), int),
            True,
            self._covariances(new),
        )

    def _noise_std(self) -> np.ndarray:
        """Noise levels (m,), scaled."""
        m = len(self.mean)
        with jax.enable_x64(True):
            empty = Rows(jnp.zeros((1, 1)), jnp.zeros((1, m)), jnp.ones(1, bool))
            bound = self.likelihood.bind(self.scaling, empty)
        return np.asarray(bound.conditional(self.noise[None], np.zeros((1, 1, m)), None).scale)[
            0, 0
        ]

    def _covariances(self, new: np.ndarray) -> Callable[[int, int], np.ndarray]:
        a, _ = project(self._model, _NONE, self.inducing, new)

        def covariance(node: int, output: int) -> np.ndarray:
            rest = self._model.matrix(_NONE, new, new) - a @ a.T
            half = a @ self.root[output]
            s, r, _ = self.scales()
            total = s[node] * rest + r[node] ** 2 * (half @ half.T)
            return total * self.scaling.y_scale[output] ** 2

        return covariance

    def diagnostics(self) -> LatentReport:
        """The bound, and whether training has ended."""
        outputs, size = self.mean.shape
        lines = [
            f"sparse variational posterior: {outputs} latent function(s), {size} inducing rows, "
            f"{self.num_rows} rows, {sum(self.seconds.values()):.1f} s",
            f"evidence lower bound {self.elbo:.3f}, {self.elbo / self.num_rows:.3f} a row",
        ]
        if self.log_scale is not None:
            loc, sd, tie = self.log_scale
            lines.append(
                f"log of the scale {loc:.3f} +- {sd:.3f}, tied to the functions by {tie:.2f}"
            )
        lines += [f"{k} = {v}" for k, v in self.search.get("hyperparameters", {}).items()]
        gain = float(self.search["gain_left"]) / self.num_rows
        problems = expansion_problems(self.prior, self.inducing)
        if not np.isfinite(self.elbo):
            problems.append("training diverged: lower learning_rate")
        elif gain > STILL_GAINING:
            problems.append(
                f"a Newton step of the inducing values would still gain {gain:.2g} nats a row: raise steps"
            )
        noise: tuple[float, ...] = ()
        if isinstance(self.likelihood, GaussianLikelihood):
            noise = tuple((self._noise_std() * self.scaling.y_scale).tolist())
            lines.append(f"noise sd {', '.join(f'{level:.4g}' for level in noise)}")
        return LatentReport(tuple(lines), f"ELBO {self.elbo:.3f}", tuple(problems), noise)


def known_log_scale(prior: Any) -> float:
    """log s where it is known (0 for a process)."""
    if isinstance(prior, ScaleMixture) and isinstance(prior.scale, PointMass):
        return float(np.log(prior.scale.value))
    return 0.0


def project(
    model: KernelModel, u: np.ndarray, inducing: np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`A = C_xZ L^-T` (k, M) and the variance (k,) that inducing values leave, at s = 1."""
    square = model.matrix(u, inducing, inducing)
    level = JITTER * np.trace(square) / len(square)
    factor, _ = jittered_cholesky(square + level * np.eye(len(square)))
    a = linalg.blas.dtrsm(1.0, factor, model.matrix(u, inducing, x), lower=1).T
    return a, np.maximum(model.diagonal(u, x) - np.sum(a**2, axis=1), 0.0)
