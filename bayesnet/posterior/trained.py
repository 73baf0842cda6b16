"""The law of infinitely wide networks trained by gradient descent from random starts."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
from scipy import linalg

from bayesnet._errors import UnsupportedError
from bayesnet.posterior.process import _NONE, ProcessPosterior
from bayesnet.priors.kernel_model import KernelModel
from bayesnet.priors.process_solution import Solution


class TrainedEnsemble(ProcessPosterior):
    """The Gaussian law, over random starts, of wide networks trained to the end on one table.

    With T the tangent kernel, K the covariance at the start and `A = T(x, X) (T + D)^-1`, a network
    ends at `f0(x) + A (y - f0(X))`: mean `A y` and covariance
    `K(x, x') + A K(X, X) A' - A K(X, x') - K(x, X) A'` (Lee et al. 2019, eq. 16; D, the noise variances, is
    the ridge that keeps weights near their start, of He et al. 2020). Not a posterior: there is no
    evidence, and the spread over starts is not that of a conditioned prior.
    """

    @cached_property
    def _start(self) -> KernelModel:
        """The process before training."""
        return KernelModel(self.prior.nngp)

    def _weights(self, new: np.ndarray, column: int) -> tuple[np.ndarray, np.ndarray]:
        """A (k, n_b) for one output, and the rows that it uses."""
        model, solution = self._solved[0]
        block = next(b for b in solution.blocks if column in b.columns)
        cross = model.matrix(_NONE, new, self.x)[:, block.rows]
        return linalg.cho_solve((block.factor, True), cross.T).T, block.rows

    def _moments(
        self, model: KernelModel, solution: Solution, new: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        mean, variance = super()._moments(model, solution, new)
        start = self._start
        cross, inner = start.matrix(_NONE, new, self.x), start.matrix(_NONE, self.x, self.x)
        diagonal = start.diagonal(_NONE, new)
        for j in range(variance.shape[2]):
            a, rows = self._weights(new, j)
            spread = diagonal - 2.0 * np.sum(a * cross[:, rows], axis=1)
            spread = spread + np.sum((a @ inner[np.ix_(rows, rows)]) * a, axis=1)
            variance[:, :, j] = np.maximum(spread, 0.0)
        return mean, variance

    def _covariances(self, new: np.ndarray) -> Callable[[int, int], np.ndarray]:
        start = self._start

        def covariance(node: int, output: int) -> np.ndarray:
            a, rows = self._weights(new, output)
            half = a @ start.matrix(_NONE, new, self.x)[:, rows].T
            inner = a @ start.matrix(_NONE, self.x, self.x)[np.ix_(rows, rows)] @ a.T
            total = start.matrix(_NONE, new, new) + inner - half - half.T
            return total * self.scaling.y_scale[output] ** 2

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


def _no(what: str) -> UnsupportedError:
    return UnsupportedError(
        f"An ensemble of trained networks is not a conditioned prior and has no {what}: condition the "
        "prior itself, bn.fit(bn.kernels.NNGP(...), X, y, inference='exact')."
    )
