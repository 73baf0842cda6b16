"""A posterior in closed form: a process given a table, with joint laws over any new rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logsumexp

from bayesnet._errors import InputError, UnsupportedError
from bayesnet._matrix import as_matrix
from bayesnet._repr import fitted_to, judged
from bayesnet._types import ArrayLike
from bayesnet.data import Data, Scaling, make_data
from bayesnet.posterior.process_loo import ProcessLeaveOneOut, leave_one_out
from bayesnet.posterior.process_members import Members
from bayesnet.posterior.process_prediction import ProcessPrediction
from bayesnet.posterior.process_report import ProcessReport, integrated_evidence, process_report
from bayesnet.posterior.process_table import base_of, scale_of, table_noise, weighted_constant
from bayesnet.priors.kernel_model import KernelModel
from bayesnet.priors.process_determinant import log_determinant
from bayesnet.priors.process_iterative import iterative_blocks
from bayesnet.priors.process_solution import Solution, solution_of, solve

_NONE = np.zeros(0)


@dataclass(frozen=True, eq=False)
class ProcessPosterior:
    """A kernel prior, or a scale mixture of one, given a table; what `bn.Exact` makes.

    All attributes are in scaled coordinates and float64.

    Attributes:
        priors: the prior with fixed hyper-parameters; several where these were sampled.
        noise_std: the noise levels (k, m) that go with each of k priors; 0 where only `y_var` counts.
        log_weight: the logs of the weights (k,) of the priors; None if they weigh the same.
        scaling: the map to the user's units.
        x: inputs of the table (n, d).
        y: its targets (n, m), NaN where they are missing.
        y_var: known noise variances (n, m), or None.
        weight: of the rows (n,), or None.
        search: what the search of hyper-parameters reports.
    """

    priors: tuple[Any, ...]
    noise_std: np.ndarray
    likelihood: Any
    scaling: Scaling
    x: np.ndarray
    y: np.ndarray
    y_var: np.ndarray | None = None
    weight: np.ndarray | None = None
    method: Any = None
    search: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    log_weight: np.ndarray | None = None

    def __repr__(self) -> str:
        kind = "process" if len(self.priors) == 1 else f"{len(self.priors)} processes"
        table = (*self.x.shape, self.y.shape[1])
        return fitted_to(
            self, f"{kind} in closed form", table, judged(self.search.get("problems", ()))
        )

    @property
    def prior(self) -> Any:
        """The prior with its hyper-parameters (the first, where there are several)."""
        return self.priors[0]

    @cached_property
    def data(self) -> Data:
        """The training table in scaled coordinates (float32, as samplers take it)."""
        y_var = None if self.y_var is None else self.y_var * self.scaling.y_scale**2
        x = self.x * self.scaling.x_scale + self.scaling.x_loc
        return make_data(x, self.scaling.y_out(self.y), y_var, self.scaling, weight=self.weight)

    @cached_property
    def _solved(self) -> tuple[tuple[KernelModel, Solution], ...]:
        made = [self._solve(self.priors[i], self.noise_std[i]) for i in self._distinct[0]]
        return tuple(made[i] for i in self._distinct[1])

    @cached_property
    def _distinct(self) -> tuple[list[int], list[int]]:
        """Members that differ, and for every member which of them it is: a choice of weighted
        hyper-parameters has the same member several times."""
        seen: dict[tuple[int, bytes], int] = {}
        keys = [
            (id(p), np.asarray(std).tobytes())
            for p, std in zip(self.priors, self.noise_std, strict=True)
        ]
        which = [seen.setdefault(key, len(seen)) for key in keys]
        return [which.index(i) for i in range(len(seen))], which

    @cached_property
    def log_shares(self) -> np.ndarray:
        """The logs of the weights of the priors (k,), whose sum is 1."""
        k = len(self.priors)
        weight = np.zeros(k) if self.log_weight is None else np.asarray(self.log_weight)
        shares: np.ndarray = weight - logsumexp(weight)
        return shares

    @cached_property
    def _members(self) -> Members | None:
        return Members.of([self._solved[i] for i in self._distinct[0]], self.x)

    def _solve(self, prior: Any, std: np.ndarray) -> tuple[KernelModel, Solution]:
        model = KernelModel(base_of(prior))
        noise, residual = table_noise(std, self.y, self.y_var, self.weight)
        residual = residual - model.mean(_NONE, self.x)
        scale = scale_of(prior, self.method)
        if not self.iterative:
            return model, solve(model.matrix(_NONE, self.x, self.x), noise, residual, scale)
        blocks = iterative_blocks(
            partial(model.matrix, _NONE),
            self.x,
            model.diagonal(_NONE, self.x),
            noise,
            residual,
            self.method.cg_tolerance,
            self.method.keeps_matrix(len(self.x)),
        )
        return model, solution_of(blocks, residual.shape[1], scale)

    @property
    def iterative(self) -> bool:
        """Whether solves are by conjugate gradients: then the evidence is an estimate, and there is no
        leave-one-out."""
        ask = getattr(self.method, "iterative", None)
        return False if ask is None else bool(ask(self.prior, len(self.x)))

    def __getstate__(self) -> dict[str, Any]:
        # Factors are made again where they are needed.
        return {k: v for k, v in self.__dict__.items() if k in self.__dataclass_fields__}

    @property
    def solutions(self) -> tuple[Solution, ...]:
        """The linear algebra behind the posterior, one for each of `priors`."""
        return tuple(solution for _, solution in self._solved)

    @property
    def _sampled(self) -> bool:
        """Whether hyper-parameters were drawn: one of them may be left that has all the weight."""
        return len(self.priors) > 1 or "log_evidence" in self.search

    @property
    def log_evidence(self) -> float:
        """The log density of the observed targets given the inputs, in nats and in the units of y.

        Of what: hyper-parameters and noise at the values that were learned (`hyper="map"`,
        `"evidence"`), a scale integrated out; with sampled ones ("hmc", "nuts", amortised) all of these integrated
        out under their laws, an estimate with the standard error `log_evidence_error`. With
        `sample_weight` the log of the integrated weighted likelihood.

        A prior in scaled coordinates is placed by the mean and sd of this very y: then it is a density
        given these two, and not to be compared with that of a prior in other coordinates
        (`units="data"`, another `scaling`).

        After conjugate gradients an unbiased estimate, from fixed probe vectors; it is made when it is
        first asked for.

        Raises:
            UnsupportedError: several hyper-parameters that were not drawn under a proper law by `bn.Exact`.
            InputError: conjugate gradients that do not converge.
        """
        share = np.ones(len(self.x)) if self.weight is None else self.weight
        units = float((share @ ~np.isnan(self.y)) @ np.log(self.scaling.y_scale))
        if self._sampled:
            return integrated_evidence(self.search) - units
        solved = self._estimated[0][0] if self.iterative else self.solutions[0]
        constant = weighted_constant(self.noise_std[0], self.y, self.y_var, self.weight)
        return float(solved.log_evidence + constant - units)

    @property
    def log_evidence_error(self) -> float:
        """The standard error of `log_evidence` in nats: 0 after a factorisation, that of importance
        sampling where hyper-parameters or a scale were sampled, of stochastic Lanczos quadrature after conjugate
        gradients."""
        if self._sampled:
            return float(self.search.get("log_evidence_error", np.nan))
        if self.iterative:
            return self._estimated[1]
        only = self.solutions[0]
        return float(only.error) if only.rule == "importance" else 0.0

    @property
    def evidence_estimated(self) -> bool:
        """Whether the estimate of the evidence has been made."""
        return "_estimated" in self.__dict__

    @cached_property
    def _estimated(self) -> tuple[tuple[Solution, ...], float]:
        """The solutions with estimated log determinants, and the standard error of the evidence."""
        found, worst = [], 0.0
        for solution in self.solutions:
            blocks, variance = [], 0.0
            for number, block in enumerate(solution.blocks):
                log_det, error = log_determinant(block.factor, self.method.probes, seed=number)
                blocks.append(replace(block, log_det=log_det))
                # It enters once for each output of the block.
                variance += (0.5 * len(block.columns) * error) ** 2
            found.append(solution_of(tuple(blocks), solution.num_outputs, solution.scale))
            worst = max(worst, float(np.sqrt(variance)))
        return tuple(found), worst

    def predict(self, x: ArrayLike, y_var: ArrayLike | None = None) -> ProcessPrediction:
        """The predictive law at `x` (n, d): a `ProcessPrediction` in the units of y.

        Args:
            x: inputs in user units, n x d.
            y_var: noise variances of the new rows (n, m), for a model fitted with per-row variances;
                the mean of the training variances if None.

        Raises `InputError` for the wrong number of columns, NaN, or no rows.
        """
        matrix = self.scaling.matrix(x)
        new = self.scaling.x_in(matrix)
        scale = self.scaling.y_scale
        parts, members, weights = [], [], []
        law = self.solutions[0].scale
        inside = law.law is not None and law.noise == "inside"
        first_of, which = self._distinct
        together = None if self._members is None else self._members.moments(new)
        for place, number in enumerate(first_of):
            (model, solution), std = self._solved[number], self.noise_std[number]
            share = logsumexp(self.log_shares[np.array(which) == place])
            if together is None:
                mean, variance = self._moments(model, solution, new)
            else:
                mean, variance = (a[place : place + 1] for a in together)
            mean = mean + model.mean(_NONE, new)
            noise = np.broadcast_to(self._new_noise(std, y_var, len(new)), mean.shape[1:])[None]
            if inside:
                noise = noise * np.exp(_spread(solution.u, mean.shape[2]))[:, None, :]
            arrays = (self.scaling.y_out(mean), np.sqrt(variance) * scale, np.sqrt(noise) * scale)
            parts.append([np.broadcast_to(a, mean.shape) for a in arrays])
            members.append(np.full(len(mean), number))
            weights.append(_spread(solution.log_weight, mean.shape[2]) + share)
        location, function, noise_sd = (np.concatenate(p) for p in zip(*parts, strict=True))
        first, m = self.solutions[0], location.shape[2]
        df = None if first.df is None else _spread(first.df[None], m)[0]
        weight = np.concatenate(weights)
        shared = first.scale.law is None or not first.scale.per_output
        return ProcessPrediction(
            location,
            function,
            noise_sd,
            weight,
            df,
            _spread(np.min([s.tail for s in self.solutions], axis=0)[None], m)[0],
            np.concatenate(members),
            shared,
            self._covariances(new),
            inside,
        )

    def _moments(
        self, model: KernelModel, solution: Solution, new: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Residual mean and variance (j, k, m) of the function at scaled rows."""
        cross = model.matrix(_NONE, new, self.x)
        return solution.moments(cross, model.diagonal(_NONE, new))

    def _covariances(self, new: np.ndarray) -> Callable[[int, int], np.ndarray]:
        """`(node, output) -> (k, k)`, in user units; matrices are made when they are asked for."""
        kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        first_of, _ = self._distinct
        starts = np.cumsum([0, *(len(self.solutions[i].u) for i in first_of)])

        def covariance(node: int, output: int) -> np.ndarray:
            at = int(np.searchsorted(starts, node, side="right") - 1)
            number = first_of[at]
            model, solution = self._solved[number]
            if number not in kept:
                kept.clear()
                kept[number] = (
                    model.matrix(_NONE, new, self.x),
                    model.matrix(_NONE, new, new),
                )
            matrix = solution.covariance(*kept[number], node - starts[at], output)
            return matrix * self.scaling.y_scale[output] ** 2

        return covariance

    def joint(self, x: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Mean (n, m) and covariance (m, n, n) of the function at `x` (n, d), in the units of y.

        Infinite where variances are. Outputs are uncorrelated (under a shared scale not
        independent). For observations add the noise to the diagonal.
        """
        pred = self.predict(x)
        n, m = pred.location.shape[1:]
        weight = np.exp(pred.log_weight)
        out = np.zeros((m, n, n))
        for j in range(m):
            for k in np.flatnonzero(weight[:, j] > 1e-16):
                apart = pred.location[k, :, j] - pred.mean[:, j]
                inflated = pred._inflation[j] * pred.joint_covariance(int(k), j)
                out[j] += weight[k, j] * (inflated + np.outer(apart, apart))
        return pred.mean, out

    def functions(self, x: ArrayLike, num: int = 64, seed: Any = 0) -> np.ndarray:
        """`num` joint draws of the function at `x` (n, d), (num, n, m), in the units of y.

        The same draws for the same rows and seed. Unlike the draws of samplers they are not tied
        together between calls with different rows: ask for all rows at once.
        """
        return self.predict(x).sample(seed, num, noise=False)

    def loo(self) -> ProcessLeaveOneOut:
        """Each row given all others, in closed form, hyper-parameters and noise kept.

        Raises `UnsupportedError` for weighted rows, and after conjugate gradients.
        """
        if self.iterative:
            raise UnsupportedError("Leave-one-out needs solver='cholesky'.")
        return leave_one_out(self)

    def diagnostics(self) -> ProcessReport:
        """What there is to distrust: jitter, errors of quadrature, hyper-parameters at bounds."""
        return process_report(self)

    def save(self, path: str | Path) -> None:
        """Write this posterior to one file (safetensors with a checksum; never a pickle)."""
        from bayesnet.posterior.saving import save

        save(self, path)

    def _new_noise(self, std: np.ndarray, y_var: ArrayLike | None, n: int) -> np.ndarray:
        """Noise variances of new rows (n or 1, m), scaled; of s = 1 where noise is inside."""
        m = self.y.shape[1]
        if y_var is None:
            return std**2 + (0.0 if self.y_var is None else self._mean_row_variance())
        if not getattr(self.likelihood, "row_variances", False):
            raise UnsupportedError(f"{self.likelihood} has no use for y_var.")
        variance = as_matrix(y_var, "y_var")
        if variance.shape != (n, m):
            raise InputError(f"y_var must have shape {(n, m)}, got {variance.shape}.")
        if (variance < 0).any():
            raise InputError("y_var holds variances, which must not be negative.")
        return std**2 + variance / self.scaling.y_scale**2

    def _mean_row_variance(self) -> np.ndarray:
        assert self.y_var is not None
        share = ~np.isnan(self.y) * (1.0 if self.weight is None else self.weight[:, None])
        return (share * self.y_var).sum(axis=0) / share.sum(axis=0)


def _spread(values: np.ndarray, m: int) -> np.ndarray:
    """(j, g) as (j, m)."""
    return np.broadcast_to(values, (len(values), m))
