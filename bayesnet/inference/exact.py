"""Exact inference: a kernel prior, or a scale mixture of one, under Gaussian noise."""

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
from bayesnet.inference._exact_search import HYPER, SAMPLED, Problem, search
from bayesnet.inference._exact_table import (
    Table,
    available_gib,
    check_memory,
    noise_law,
    some_rows,
    table_of,
)
from bayesnet.kernels.matrices import check_direct
from bayesnet.likelihoods import GaussianLikelihood
from bayesnet.posterior.process import ProcessPosterior
from bayesnet.posterior.process_table import base_of
from bayesnet.priors import LatentPrior
from bayesnet.priors.covariance import Combined, Named
from bayesnet.priors.kernel_model import KernelModel, check_columns
from bayesnet.priors.laws import is_law
from bayesnet.priors.scale_mixture import ScaleMixture
from bayesnet.priors.variance_laws import InverseGamma

PRESETS = ("infinite_width", "student_t")
SOLVERS = ("auto", "cholesky", "cg")
# Rows beyond which "auto" means conjugate gradients.
CHOLESKY_ROWS = 5000


@dataclass(frozen=True)
class Exact:
    """Condition a kernel prior in closed form (Rasmussen & Williams 2006, algorithm 2.1), in float64.

    Takes `bn.GaussianProcess`, `bn.kernels.NNGP`, any object with `kernel(x1, x2)`, and
    `bn.ScaleMixture` of these (Lee et al. 2022), under `bn.GaussianLikelihood`: known, per-row or
    learned noise, several outputs, missing targets and weights of rows.

    Args:
        hyper: what to do about random hyper-parameters (laws of a `bn.GaussianProcess`) and learned
            noise: "map": the mode of evidence times density, in the coordinates in which a log-normal
            law is normal; "evidence": the mode of the evidence alone (type II maximum likelihood);
            "hmc" or "nuts": draws from their posterior.
        restarts: random starts of the search besides the first.
        learn_variances: learn the weight and bias variances of an infinite network by evidence.
        draws: hyper-parameters kept with "hmc" and "nuts".
        tolerance: to which integrals over a scale are refined (relative).
        importance_samples: integrate over a scale by as many draws of its law, weighted by the
            likelihood, as Lee et al. do; by quadrature if None.
        max_gib: memory that may be used; all that is free if None.
        solver: "cholesky", or "cg": preconditioned conjugate gradients, for tables whose matrices do not
            fit into memory, of processes and Student-t processes: means, (co)variances, draws and an
            estimate of the evidence, but no leave-one-out; what is to be learned is learned on
            `learning_rows`. "auto": "cg" beyond 5,000 rows where it can be had (not for other mixtures
            nor for sampled hyper-parameters).
        cg_tolerance: relative residual at which conjugate gradients end.
        probes: random vectors (always the same) from which the evidence is estimated after conjugate
            gradients; its standard error falls with their square root.
        learning_rows: rows, drawn at random, whose evidence decides on hyper-parameters and noise before
            conjugate gradients condition on all rows.
        preset: "infinite_width" or "student_t": the prior is `bn.kernels.NNGP()`, or its
            `bn.ScaleMixture` with `bn.InverseGamma(2, 2)`; others are refused.

    Raises:
        InputError: unknown names, numbers out of range.
    """

    hyper: str = "map"
    restarts: int = 3
    learn_variances: bool = False
    draws: int = 64
    tolerance: float = 1e-6
    importance_samples: int | None = None
    max_gib: float | None = None
    solver: str = "auto"
    cg_tolerance: float = 1e-8
    probes: int = 32
    learning_rows: int = 2000
    preset: str | None = None

    # Tables are kept in float64.
    float64 = True

    def __post_init__(self) -> None:
        if self.hyper not in HYPER:
            raise unknown_name("way with hyper-parameters (hyper=)", self.hyper, HYPER)
        if self.preset is not None and self.preset not in PRESETS:
            raise unknown_name("preset", self.preset, PRESETS)
        if self.solver not in SOLVERS:
            raise unknown_name("solver", self.solver, SOLVERS)
        if not 0 < self.cg_tolerance < 1:
            raise InputError(f"cg_tolerance must lie between 0 and 1, got {self.cg_tolerance!r}.")
        samples = self.importance_samples
        for name, value, low in (
            ("restarts", self.restarts, 0),
            ("draws", self.draws, 2),
            ("learning_rows", self.learning_rows, 10),
            ("probes", self.probes, 4),
            ("importance_samples", 100 if samples is None else samples, 10),
        ):
            if isinstance(value, bool) or int(value) != value or value < low:
                raise InputError(f"{name} must be a whole number of at least {low}, got {value!r}.")
        if not (np.isfinite(self.tolerance) and 0 < self.tolerance < 1):
            raise InputError(f"tolerance must lie between 0 and 1, got {self.tolerance!r}.")
        if self.max_gib is not None and not self.max_gib > 0:
            raise InputError(f"max_gib must be positive, got {self.max_gib!r}.")

    def supports(self, prior: Any, likelihood: Any) -> bool:
        """Whether this method can condition `prior` under `likelihood`."""
        base = base_of(prior)
        return (
            isinstance(likelihood, GaussianLikelihood)
            and not isinstance(prior, LatentPrior)
            and hasattr(base, "kernel")
            and hasattr(base, "sample")
        )

    def choose_prior(self, prior: Any, target: Any, data: Data) -> Any:
        """The prior of a preset, or the one that was given (then `target` has no meaning).

        Raises `InputError` for a prior of another kind than the preset's.
        """
        if target is not None and prior is not None:
            raise InputError("Exact conditions the process itself: give the prior or the target.")
        prior = target if prior is None else prior
        if self.preset is None or prior is not None:
            if self.preset is not None and not _fits_preset(self.preset, prior):
                raise InputError(
                    f"inference={self.preset!r} brings a prior of its own, got {type(prior).__name__}: leave "
                    "the prior out, or use inference='exact'."
                )
            return prior
        from bayesnet.kernels import NNGP

        base = NNGP(out_dim=data.out_dim)
        return base if self.preset == "infinite_width" else ScaleMixture(base, InverseGamma())

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
    ) -> ProcessPosterior:
        """The posterior of `prior` given `data`, as a `ProcessPosterior`.

        Raises:
            UnsupportedError: a network prior, noise that is not Gaussian, `y_var` or weights under
                noise "inside".
            InputError: dimensions that do not agree, a table too large for memory, a covariance
                that is not positive definite.
        """
        if init is not None:
            raise InputError("Exact inference has no chains to go on from: leave init out.")
        self._check(prior, likelihood)
        base = base_of(prior)
        table = table_of(data)
        self._check_table(prior, base, table, data)
        start = time.perf_counter()
        model = KernelModel(base, variances=self.learn_variances)
        noise = noise_law(likelihood, data)
        seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
        learning, used = bool(model.free.size or noise.size), table
        iterative = self.iterative(prior, len(table.x))
        if iterative:
            self._check_iterative(prior)
            used = some_rows(table, self.learning_rows, seed) if learning else table
        if learning or not iterative:
            check_memory(
                len(used.x),
                learning=learning,
                limit=self.max_gib,
                eigen=isinstance(prior, ScaleMixture) and prior.noise == "outside",
            )
        if model.free.size and hasattr(base, "layers"):
            check_direct(base, len(used.x), len(used.x))  # gradients are not made in blocks
        found = search(Problem(prior, model, noise, used, self), seed, progress)
        problem = Problem(prior, model, noise, table, self)
        if used is not table:
            found.record["learned_on"] = len(used.x)
        posterior = ProcessPosterior(
            tuple(problem.prior_at(u) for u, _ in found.points),
            np.stack([noise.std(z) for _, z in found.points]),
            likelihood,
            data.scaling,
            table.x,
            table.y,
            table.y_var,
            table.weight,
            self,
            found.record,
        )
        _ = posterior.solutions
        posterior.seconds["fit"] = time.perf_counter() - start
        return posterior

    def keeps_matrix(self, n: int) -> bool:
        """Whether conjugate gradients keep the kernel matrix of n rows, or make it anew."""
        free = available_gib() if self.max_gib is None else self.max_gib
        return 8.0 * n**2 / 2**30 < 0.5 * free

    def iterative(self, prior: Any, n: int) -> bool:
        """Whether tables of n rows are solved by conjugate gradients."""
        if self.solver != "auto":
            return self.solver == "cg"
        return n > CHOLESKY_ROWS and self.hyper not in SAMPLED and _has_closed_form(prior)

    def _check_iterative(self, prior: Any) -> None:
        if self.hyper in SAMPLED:
            raise UnsupportedError(
                "With solver='cg' hyper-parameters are learned as a point: hyper='map' or 'evidence'."
            )
        if not _has_closed_form(prior):
            raise UnsupportedError(
                "With solver='cg' a scale mixture must have a closed form: bn.InverseGamma with noise "
                "'inside'."
            )

    def _check(self, prior: Any, likelihood: Any) -> None:
        if isinstance(prior, LatentPrior):
            raise UnsupportedError(
                f"Exact conditions kernel priors, got {type(prior).__name__}: a network of finite width has "
                "no closed form. Take its limit, prior.infinite_width(), or condition it with bn.HMC()."
            )
        base = base_of(prior)
        if not (hasattr(base, "kernel") and hasattr(base, "sample")):
            raise UnsupportedError(
                "Exact conditions priors with a kernel(x1, x2), such as bn.GaussianProcess, got "
                f"{type(prior).__name__}."
            )
        if not isinstance(likelihood, GaussianLikelihood):
            raise UnsupportedError(
                f"Exact inference is for Gaussian noise, got {type(likelihood).__name__}: for classes use "
                "bn.ProcessLaplace() or bn.SparseVariational(); else match a network to the process "
                "(bn.match_prior) and condition it with bn.HMC()."
            )
        if not isinstance(prior, ScaleMixture):
            return
        if self.learn_variances:
            raise InputError(
                "The variances of the weights and the law of the scale both set the amplitude, and data "
                "do not tell them apart. Learn the variances first, and mix what is found: "
                "bn.ScaleMixture(post.prior, law)."
            )
        if _random_amplitude(getattr(base, "covariance", None)):
            raise InputError(
                "The outputscale of the process and the scale of the mixture are both random, and both "
                "are the amplitude: data do not tell them apart. State outputscale as a number."
            )

    def _check_table(self, prior: Any, base: Any, table: Table, data: Data) -> None:
        check_columns(base, table.x)
        expected = int(getattr(base, "out_dim", 1))
        if expected != data.out_dim:
            raise InputError(
                f"The prior is for {expected} outputs, the table has {data.out_dim}: build it with "
                f"out_dim={data.out_dim}."
            )
        if isinstance(prior, ScaleMixture) and prior.noise == "inside":
            for name, value in (("y_var", table.y_var), ("sample_weight", table.weight)):
                if value is not None:
                    raise UnsupportedError(
                        f"{name} is about noise in the units of y, but under noise='inside' the noise "
                        "scales with the function: use bn.ScaleMixture(..., noise='outside')."
                    )


def _has_closed_form(prior: Any) -> bool:
    return not isinstance(prior, ScaleMixture) or prior.scale_model().closed_form


def _fits_preset(preset: str, prior: Any) -> bool:
    from bayesnet.kernels import NNGP

    if preset == "student_t":
        return isinstance(prior, ScaleMixture)
    return isinstance(prior, NNGP)


def _random_amplitude(covariance: Any) -> bool:
    """Whether every function is multiplied by a random amplitude."""
    if isinstance(covariance, Combined):
        both = (_random_amplitude(covariance.left), _random_amplitude(covariance.right))
        return any(both) if covariance.op == "product" else all(both)
    return isinstance(covariance, Named) and is_law(covariance.outputscale)
