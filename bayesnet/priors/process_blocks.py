"""The factorised blocks of a conditioned process: outputs that share observed rows and noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg

from bayesnet._errors import InputError

LOG_2PI = float(np.log(2.0 * np.pi))
# Jitter, relative to the mean variance, is raised by factors of 10 between these.
FIRST_JITTER, LAST_JITTER = 1e-12, 1e-6
# Eigenvalues below this share of the largest count as zero for the tails of the scale.
RANK_TOLERANCE = 1e-12


@dataclass(frozen=True, eq=False)
class Block:
    """Outputs `columns` with the same observed `rows`, noise variances `noise` (n_b,) and residuals
    (n_b, m_b); factorised."""

    columns: np.ndarray
    rows: np.ndarray
    noise: np.ndarray
    residual: np.ndarray
    factor: Any
    weights: np.ndarray
    eigenvalues: np.ndarray | None
    log_det: float
    jitter: float

    @property
    def quadratic(self) -> np.ndarray:
        """`r' C^-1 r` of each output (inside only)."""
        return np.sum(self.residual * self.weights, axis=0)

    @property
    def rank(self) -> int:
        """How many directions of the data the scale acts on."""
        if self.eigenvalues is None:
            return len(self.rows)
        top = self.eigenvalues.max(initial=0.0)
        return int((self.eigenvalues > RANK_TOLERANCE * max(top, 1e-300)).sum())

    def log_likelihood(self, u: np.ndarray) -> np.ndarray:
        """The log density of the residuals at log scales `u` (j,): (j, m_b)."""
        n = len(self.rows)
        if self.eigenvalues is None:
            with np.errstate(over="ignore"):
                squares = self.quadratic[None, :] * np.exp(-u)[:, None]
            return -0.5 * (n * (u[:, None] + LOG_2PI) + squares + self.log_det)
        gain = np.exp(np.minimum(u, 300.0))[:, None] * self.eigenvalues + 1.0
        squares = (self.weights**2).T @ (1.0 / gain).T  # (m_b, j)
        spread = np.log(gain).sum(axis=1) + self.log_det + n * LOG_2PI
        return -0.5 * (squares.T + spread[:, None])

    def explained(self, part: np.ndarray) -> np.ndarray:
        """The diagonal (k,) of `part C^-1 part'` for cross covariances (k, n_b); inside only."""
        whitened = linalg.solve_triangular(self.factor, part.T, lower=True)
        return np.sum(whitened**2, axis=0)

    def explained_matrix(self, part: np.ndarray) -> np.ndarray:
        """`part C^-1 part'` (k, k); inside only."""
        whitened = linalg.solve_triangular(self.factor, part.T, lower=True)
        return whitened.T @ whitened

    def solved(self, s: np.ndarray) -> np.ndarray:
        """`C_s^-1 r` for scales `s` (j,), (j, n_b, m_b); inside: of s = 1, (1, n_b, m_b)."""
        if self.eigenvalues is None:
            return self.weights[None]
        gain = 1.0 / (s[:, None] * self.eigenvalues + 1.0)
        inner = gain[:, :, None] * self.weights[None]
        return np.einsum("ik,jkm->jim", self._root(), inner)

    def inverse_diagonal(self, s: np.ndarray) -> np.ndarray:
        """The diagonal of `C_s^-1`, (j, n_b); inside: of s = 1, (1, n_b)."""
        if self.eigenvalues is None:
            inverse = linalg.solve_triangular(self.factor, np.eye(len(self.rows)), lower=True)
            return np.sum(inverse**2, axis=0)[None]
        gain = 1.0 / (s[:, None] * self.eigenvalues + 1.0)
        return gain @ (self._root() ** 2).T

    def _root(self) -> np.ndarray:
        """`D^-1/2 U`."""
        return self.factor / np.sqrt(self.noise)[:, None]


def make_blocks(
    matrix: np.ndarray, noise: np.ndarray, residual: np.ndarray, outside: bool
) -> tuple[Block, ...]:
    """Factorise `matrix` (n, n) with noise variances (n, m) for residuals (n, m), NaN if missing.

    Raises `InputError` for a covariance that is not positive definite with any jitter allowed.
    """
    observed = ~np.isnan(residual)
    groups: dict[bytes, list[int]] = {}
    for j in range(residual.shape[1]):
        seen = observed[:, j]
        groups.setdefault(seen.tobytes() + noise[seen, j].tobytes(), []).append(j)
    blocks = []
    for columns in groups.values():
        rows = np.flatnonzero(observed[:, columns[0]])
        d = noise[rows, columns[0]]
        r = residual[np.ix_(rows, np.asarray(columns))]
        part = matrix[np.ix_(rows, rows)] if len(rows) < len(matrix) else matrix
        build = _outside if outside else _inside
        blocks.append(build(np.asarray(columns), rows, part, d, r))
    return tuple(blocks)


def _inside(
    columns: np.ndarray, rows: np.ndarray, matrix: np.ndarray, d: np.ndarray, r: np.ndarray
) -> Block:
    total = matrix + np.diag(d)
    factor, jitter = jittered_cholesky(total)
    weights = linalg.cho_solve((factor, True), r)
    log_det = 2.0 * float(np.log(np.diag(factor)).sum())
    return Block(columns, rows, d, r, factor, weights, None, log_det, jitter)


def _outside(
    columns: np.ndarray, rows: np.ndarray, matrix: np.ndarray, d: np.ndarray, r: np.ndarray
) -> Block:
    sd = np.sqrt(d)
    whitened = matrix / sd[:, None] / sd[None, :]
    if not np.isfinite(whitened).all():
        raise not_definite(matrix)
    values, vectors = linalg.eigh(whitened)
    smallest, top = float(values[0]), float(max(values[-1], 1e-300))
    if smallest < -LAST_JITTER * top:
        raise not_definite(matrix)
    weights = vectors.T @ (r / sd[:, None])
    log_det = float(np.log(d).sum())
    kept = np.maximum(values, 0.0)
    return Block(columns, rows, d, r, vectors, weights, kept, log_det, max(-smallest / top, 0.0))


def jittered_cholesky(matrix: np.ndarray) -> tuple[np.ndarray, float]:
    """The lower Cholesky factor and the jitter it took, relative to the mean of the diagonal.

    Raised in steps of 10 from 1e-12 to 1e-6; beyond that `InputError` names the smallest eigenvalue.
    """
    level = float(np.mean(np.diag(matrix))) if len(matrix) else 1.0
    if np.isfinite(matrix).all():
        jitter = 0.0
        while jitter <= LAST_JITTER * 1.001:
            try:
                lifted = matrix + jitter * level * np.eye(len(matrix)) if jitter else matrix
                return linalg.cholesky(lifted, lower=True), jitter
            except linalg.LinAlgError:
                jitter = FIRST_JITTER if jitter == 0.0 else 10.0 * jitter
    raise not_definite(matrix)


def not_definite(matrix: np.ndarray) -> InputError:
    """The error of a covariance that no jitter mends."""
    n = len(matrix)
    if not np.isfinite(matrix).all():
        return InputError(
            f"The covariance of {n} rows holds NaN or infinity: the kernel or its hyper-parameters are "
            "extreme."
        )
    smallest = float(linalg.eigvalsh(matrix)[0]) / max(float(np.mean(np.diag(matrix))), 1e-300)
    return InputError(
        f"The covariance of {n} rows is not positive definite: its smallest eigenvalue is "
        f"{smallest:.3g} times the mean variance, more than a jitter of {LAST_JITTER:.0e} can mend. The "
        "kernel is not a covariance, or its hyper-parameters are extreme."
    )
