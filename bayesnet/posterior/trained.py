"""The law of infinitely wide networks trained by gradient descent from random starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
from scipy import linalg

from bayesnet._errors import UnsupportedError
from bayesnet.posterior.process import _NONE, ProcessPosterior
from bayesnet.posterior.process_table import base_of
from bayesnet.priors.kernel_model import KernelModel
from bayesnet.priors.process_solution import ScaleModel, Solution
from bayesnet.priors.scale_quadrature import ScaleNodes, scale_nodes
from bayesnet.priors.variance_laws import PointMass, log_density_of, tail_of


class TrainedEnsemble(ProcessPosterior):
    """The law, over random starts, of wide networks trained to the end on one table.

    With T the tangent kernel, K the covariance at the start and `A = T(x, X) (T + D)^-1`, a network
    ends at `f0(x) + A (y - f0(X))`: mean `A y` and covariance
    `K(x, x') + A K(X, X) A' - A K(X, x') - K(x, X) A'` (Lee et al. 2019, eq. 16; D, the noise variances, is
    the ridge that keeps weights near their start, of He et al. 2020). Not a posterior: there is no
    evidence, and the spread over starts is not that of a conditioned prior.

    Under a `bn.ScaleMixture` each network draws the variance s of its last layer, which training
    leaves as it is: start and tangent kernel become sK and sT, so that the network ends at
    `sqrt(s) f0(x) + A_s (y - sqrt(s) f0(X))`, `A_s = sT(x, X) (sT + D)^-1` (noise "outside") or A (noise
    "inside", where the ridge is sD; both without a ridge). Nothing in training prefers one s to
    another: **the law of s stays the prior law**, and is not weighted by evidence as in `Exact`. The
    mixture of Gaussian laws over s has, with noise "inside", the mean `A y` for every s and s times the
    covariance above (Lee, Yun, Yang & Lee 2022, section 3.2); with `bn.InverseGamma(a, b)` it is a
    Student-t process of 2a degrees of freedom, however many rows there are.
    """

    @cached_property
    def _solved(self) -> tuple[tuple[KernelModel, Solution], ...]:
        model, solution = self._solve(self.prior, self.noise_std[0])
        return ((model, with_prior_scale(solution)),)

    @cached_property
    def _start(self) -> KernelModel:
        """The process before training, at s = 1."""
        return KernelModel(base_of(self.prior).nngp)

    def _weights(self, new: np.ndarray, node: int, column: int) -> tuple[np.ndarray, np.ndarray]:
        """A_s (k, n_b) for one scale and output, and the rows that it uses."""
        model, solution = self._solved[0]
        block = next(b for b in solution.blocks if column in b.columns)
        cross = model.matrix(_NONE, new, self.x)[:, block.rows]
        if block.eigenvalues is None:
            return linalg.cho_solve((block.factor, True), cross.T).T, block.rows
        s = self._scale(solution, node, column)
        root = block._root()
        return (cross @ root * (s / (s * block.eigenvalues + 1.0))) @ root.T, block.rows

    @staticmethod
    def _scale(solution: Solution, node: int, column: int) -> float:
        return float(np.exp(solution.u[node, solution.group(column)]))

    def _moments(
        self, model: KernelModel, solution: Solution, new: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        mean, variance = super()._moments(model, solution, new)
        start = self._start
        cross, inner = start.matrix(_NONE, new, self.x), start.matrix(_NONE, self.x, self.x)
        diagonal = start.diagonal(_NONE, new)
        for j in range(variance.shape[2]):
            for i in range(len(variance)):
                a, rows = self._weights(new, i, j)
                spread = diagonal - 2.0 * np.sum(a * cross[:, rows], axis=1)
                spread = spread + np.sum((a @ inner[np.ix_(rows, rows)]) * a, axis=1)
                variance[i, :, j] = self._scale(solution, i, j) * np.maximum(spread, 0.0)
        return mean, variance

    def _covariances(self, new: np.ndarray) -> Callable[[int, int], np.ndarray]:
        start = self._start

        def covariance(node: int, output: int) -> np.ndarray:
            a, rows = self._weights(new, node, output)
            half = a @ start.matrix(_NONE, new, self.x)[:, rows].T
            inner = a @ start.matrix(_NONE, self.x, self.x)[np.ix_(rows, rows)] @ a.T
            total = start.matrix(_NONE, new, new) + inner - half - half.T
            s = self._scale(self._solved[0][1], node, output)
            return s * total * self.scaling.y_scale[output] ** 2

        return covariance

    @property
    def log_evidence(self) -> float:
        """Not defined: raises `UnsupportedError`."""
        raise _no("evidence")

    def loo(self) -> NoReturn:
        """Not defined: raises `UnsupportedError`."""
        raise _no("leave-one-out")

    def diagnostics(self) -> Any:
        """The report of the search for the noise level (whose evidence is that of a process with the
        tangent kernel)."""
        return self.as_process().diagnostics()

    def as_process(self) -> ProcessPosterior:
        """The posterior of the Gaussian process with the tangent kernel on the same table."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return ProcessPosterior(**fields)


def with_prior_scale(solution: Solution) -> Solution:
    """The solution with the scale from its prior law instead of its posterior."""
    scale, groups = solution.scale, solution.u.shape[1]
    if scale.law is None:
        return solution
    nodes = prior_nodes(scale)
    tail = float("inf") if isinstance(scale.law, PointMass) else tail_of(scale.law)
    return replace(
        solution,
        u=np.repeat(nodes.u[:, None], groups, axis=1),
        log_weight=np.repeat(nodes.log_weight[:, None], groups, axis=1),
        df=np.full(groups, 2.0 * scale.law.a) if scale.closed_form else None,
        tail=np.full(groups, tail),
        error=nodes.error,
        rule=nodes.rule,
    )


def prior_nodes(scale: ScaleModel) -> ScaleNodes:
    """A quadrature rule for the prior law of log s; one node where all is Student-t."""
    law = scale.law
    if scale.closed_form or isinstance(law, PointMass):
        value = law.b / law.a if scale.closed_form else law.value
        return ScaleNodes(np.array([np.log(value)]), np.zeros(1), 0.0, 0.0, "closed form")
    return scale_nodes(lambda u: log_density_of(law, u), scale.tolerance, tail_of(law))


def _no(what: str) -> UnsupportedError:
    return UnsupportedError(
        f"An ensemble of trained networks is not a conditioned prior and has no {what}: condition the "
        "prior itself, bn.fit(bn.kernels.NNGP(...), X, y, inference='exact')."
    )
