"""The evidence as a function of the noise levels alone: one eigendecomposition, then O(n) a point."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from bayesnet.priors.process_blocks import LAST_JITTER, LOG_2PI, not_definite
from bayesnet.priors.process_solution import ScaleModel, student_t_log_evidence


class NoiseEvidence:
    """For a fixed kernel matrix (n, n), residuals (n, m) without gaps and noise variances (m,) that
    are the same for all rows; a process, or a Student-t process.

    Raises `InputError` for a matrix with eigenvalues that no jitter mends.
    """

    def __init__(self, matrix: np.ndarray, residual: np.ndarray, scale: ScaleModel) -> None:
        if not np.isfinite(matrix).all():
            raise not_definite(matrix)
        values, vectors = linalg.eigh(matrix)
        if values[0] < -LAST_JITTER * max(values[-1], 1e-300):
            raise not_definite(matrix)
        self.values = np.maximum(values, 0.0)
        self.squares = (vectors.T @ residual) ** 2
        self.scale = scale

    @staticmethod
    def covers(scale: ScaleModel) -> bool:
        """Whether the evidence under this scale has a closed form."""
        return scale.law is None or scale.closed_form

    def at(self, std: np.ndarray) -> tuple[float, np.ndarray]:
        """The log evidence and its gradient in the variances `std^2` (m,)."""
        n, m = self.squares.shape
        total = self.values[:, None] + std**2
        share = self.squares / total
        quadratic, log_det = share.sum(axis=0), np.log(total).sum(axis=0)
        by_quadratic, by_det = -(share / total).sum(axis=0), (1.0 / total).sum(axis=0)
        if self.scale.law is None:
            value = -0.5 * float(np.sum(quadratic + log_det + n * LOG_2PI))
            return value, -0.5 * (by_quadratic + by_det)
        law = self.scale.law
        if not self.scale.per_output:
            quadratic, log_det = np.full(m, quadratic.sum()), np.full(m, log_det.sum())
        count = n * (1 if self.scale.per_output else m)
        each = student_t_log_evidence(law, count, quadratic, log_det)
        value = float(np.sum(each) if self.scale.per_output else each[0])
        expected = (law.a + 0.5 * count) / (law.b + 0.5 * quadratic)
        return value, -0.5 * (expected * by_quadratic + by_det)
