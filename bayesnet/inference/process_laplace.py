"""Classes under a kernel prior: the Laplace approximation of the latent functions."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from bayesnet import devices
from bayesnet._errors import InputError, UnsupportedError, unknown_name
from bayesnet._types import Key
from bayesnet.data import Data
from bayesnet.inference._exact_search import HYPER, Problem, search
from bayesnet.inference._exact_table import NoiseLaw, Table, available_gib, table_of
from bayesnet.inference._kernel_priors import (
    check_kernel_prior,
    choose_kernel_prior,
    is_kernel_prior,
)
from bayesnet.kernels.matrices import check_direct
from bayesnet.likelihoods import CategoricalLikelihood
from bayesnet.posterior.laplace_process import LaplacePosterior, latent_mean, solve_labels
from bayesnet.posterior.laplace_solution import Labels
from bayesnet.posterior.latent_process import CLASS_LIKELIHOODS, check_outputs, row_weights
from bayesnet.posterior.process_table import base_of
from bayesnet.priors.kernel_model import KernelModel, check_columns
from bayesnet.priors.scale_mixture import ScaleMixture


@dataclass(frozen=True)
class ProcessLaplace:
    """Classify with a kernel prior by the Laplace approximation (Rasmussen & Williams 2006, section 3.4-3.5).

    The latent functions (the log odds, or K logits) get the Gaussian law around their mode given the
    labels, its precision the Hessian there; predictions average class probabilities over it.
    For up to a few hundred or thousand rows: time grows as K n^3. Takes the priors of `bn.Exact`
    (`bn.GaussianProcess`, `bn.kernels.NNGP`, any object with `kernel(x1, x2)`; K outputs, or one kernel
    for all) under `bn.BernoulliLikelihood` and `bn.CategoricalLikelihood`, and `bn.ScaleMixture` of
    these: one Gaussian law for each of some values of the scale, weighted by approximate evidence
    (where a mixture has its noise does not matter: labels have none).

    Args:
        hyper: what to do about random hyper-parameters: "map" (mode of approximate evidence times
            density), "evidence" (of the evidence alone), "hmc" or "nuts" (draws from their posterior).
        restarts: random starts of the search besides the first.
        learn_variances: learn the weight and bias variances of an infinite network.
        draws: hyper-parameters kept with "hmc" and "nuts".
        max_gib: memory that may be used; all that is free if None.

    Raises:
        InputError: unknown names, numbers out of range.
    """

    hyper: str = "map"
    restarts: int = 1
    learn_variances: bool = False
    draws: int = 32
    max_gib: float | None = None

    # Tables are kept in float64.
    float64 = True

    def __post_init__(self) -> None:
        if self.hyper not in HYPER:
            raise unknown_name("way with hyper-parameters (hyper=)", self.hyper, HYPER)
        for name, low in (("restarts", 0), ("draws", 2)):
            value = getattr(self, name)
            if isinstance(value, bool) or int(value) != value or value < low:
                raise InputError(f"{name} must be a whole number of at least {low}, got {value!r}.")
        if self.max_gib is not None and not self.max_gib > 0:
            raise InputError(f"max_gib must be positive, got {self.max_gib!r}.")

    def supports(self, prior: Any, likelihood: Any) -> bool:
        """Whether this method can condition `prior` under `likelihood`."""
        noisy = isinstance(likelihood, CategoricalLikelihood) and likelihood.label_noise != 0.0
        return isinstance(likelihood, CLASS_LIKELIHOODS) and not noisy and is_kernel_prior(prior)

    def choose_prior(self, prior: Any, target: Any, data: Data) -> Any:
        """The prior or the target, whichever is given. Raises `InputError` for both."""
        return choose_kernel_prior("ProcessLaplace", prior, target)

    @devices.single_precision()
    def fit(
        self,
        prior: Any,
        likelihood: Any,
        data: Data,
        *,
        key: Key,
        init: Any = None,
        progress: Any = None,
    ) -> LaplacePosterior:
        """The posterior as a `LaplacePosterior`.

        Raises:
            UnsupportedError: a network prior, targets that are not classes, label noise.
            InputError: dimensions that do not agree, a table too large for memory, a covariance that
                is not positive definite.
        """
        if init is not None:
            raise InputError("ProcessLaplace has no chains to go on from: leave init out.")
        check_kernel_prior("ProcessLaplace", prior, learn_variances=self.learn_variances)
        _check_likelihood(likelihood)
        outputs = check_outputs(prior, likelihood, data)
        if isinstance(prior, ScaleMixture) and prior.per_output and outputs > 1:
            raise UnsupportedError(
                "ProcessLaplace takes one scale for all latent functions: per_output=False."
            )
        start = time.perf_counter()
        table = table_of(data)
        check_columns(base_of(prior), table.x)
        weight = row_weights(data.rows, len(table.x))
        kept = weight > 0
        table = Table(table.x[kept], table.y[kept], None, None)
        self._check_memory(len(table.x), outputs)
        model = KernelModel(base_of(prior), variances=self.learn_variances)
        if model.free.size and hasattr(base_of(prior), "layers"):
            check_direct(base_of(prior), len(table.x), len(table.x))
        labels = Labels(table.y[:, 0].astype(int), weight[kept], outputs)
        problem = LaplaceProblem(prior, model, NoiseLaw(None, None, outputs), table, self, labels)
        seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
        found = search(problem, seed, progress)
        posterior = LaplacePosterior(
            tuple(problem.prior_at(u) for u, _ in found.points),
            likelihood,
            data.scaling,
            table.x,
            labels.codes,
            labels.weight,
            self,
            found.record,
        )
        _ = posterior.solutions
        posterior.seconds["fit"] = time.perf_counter() - start
        return posterior

    def _check_memory(self, n: int, outputs: int) -> None:
        copies = 2.0 * outputs + 6.0
        needed = copies * 8.0 * n**2 / 2**30
        available = available_gib() if self.max_gib is None else self.max_gib
        if needed > available:
            raise InputError(
                f"The Laplace approximation on {n} rows and {outputs} latent function(s) needs about "
                f"{needed:.1f} GiB, and {available:.1f} GiB are free. Take fewer rows, or "
                "bn.SparseVariational(inducing=100)."
            )


@dataclass(frozen=True, eq=False)
class LaplaceProblem(Problem):
    """The log density of hyper-parameters by the approximate evidence (algorithm 5.1)."""

    labels: Labels

    def value(self, v: np.ndarray) -> float:
        """The approximate log evidence alone."""
        mean = latent_mean(self.model, v, self.table.x, self.labels.outputs)
        return solve_labels(self.prior, self.labels, self._matrix(v), mean).log_evidence

    def log_evidence(self, v: np.ndarray) -> tuple[float, np.ndarray]:
        """The approximate log evidence and its gradient in `v`; under a scale its posterior mean."""
        x, outputs = self.table.x, self.labels.outputs
        mean = latent_mean(self.model, v, x, outputs)
        nodes = solve_labels(self.prior, self.labels, self._matrix(v), mean)
        by_matrix, by_mean = np.zeros((len(x), len(x))), np.zeros((len(x), outputs))
        for u, weight, mode in zip(nodes.u, np.exp(nodes.log_weight), nodes.modes, strict=True):
            matrix_part, mean_part = mode.evidence_gradient()
            by_matrix += weight * np.exp(u) * matrix_part
            by_mean += weight * mean_part
        if self.model.out_dim == 1:
            by_mean = by_mean.sum(axis=1, keepdims=True)
        return nodes.log_evidence, self.model.pullback(v, x, by_matrix, by_mean)


def _check_likelihood(likelihood: Any) -> None:
    if not isinstance(likelihood, CLASS_LIKELIHOODS):
        raise UnsupportedError(
            f"ProcessLaplace is for classes (likelihood='bernoulli' or 'categorical'), got "
            f"{type(likelihood).__name__}: Gaussian noise has a closed form, inference='exact'."
        )
    if isinstance(likelihood, CategoricalLikelihood) and likelihood.label_noise != 0.0:
        raise UnsupportedError(
            "With label noise the likelihood has no single mode: use bn.SparseVariational(), which takes a "
            "known label_noise, or label_noise=0."
        )
