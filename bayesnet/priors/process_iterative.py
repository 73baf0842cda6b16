"""Large tables without factorising: preconditioned conjugate gradients (Gardner et al. 2018, section 4).

The preconditioner is a pivoted Cholesky factor of low rank plus the noise (Harbrecht, Peters &
Schneider 2012), inverted by Woodbury's formula. Solves are run to a relative residual of
`tolerance`; products with the kernel matrix are made by blocks of rows, kept where they fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg

from bayesnet._errors import InputError
from bayesnet.priors.process_blocks import Block

# Rank of the preconditioner, iterations allowed, rows of a block of the matrix, right hand sides
# solved side by side.
RANK, ITERATIONS, ROWS, SIDES = 200, 1000, 1024, 256

Columns = Callable[[np.ndarray, np.ndarray], np.ndarray]


class IterativeSystem:
    """`(K + diag(noise)) v = b` for rows `x` (n, d).

    Args:
        kernel: `(x1, x2) -> (n, k)`; diagonal: (n,) of K; noise: (n,), positive.
        tolerance: relative residual at which a solve ends.
        keep: whether the matrix is kept (8 n^2 bytes), else made anew in every product.
    """

    def __init__(
        self,
        kernel: Columns,
        x: np.ndarray,
        diagonal: np.ndarray,
        noise: np.ndarray,
        tolerance: float,
        keep: bool,
    ) -> None:
        self.kernel, self.x, self.noise, self.tolerance = kernel, x, noise, tolerance
        self.worst = 0.0
        n = len(x)
        self._blocks = [slice(i, min(i + ROWS, n)) for i in range(0, n, ROWS)]
        self._matrix = [kernel(x[b], x) for b in self._blocks] if keep else None
        self._low = pivoted_cholesky(kernel, x, diagonal, min(RANK, n))
        scaled = self._low / noise[:, None]
        inner = np.eye(self._low.shape[1]) + self._low.T @ scaled
        self._inner = linalg.cho_factor(inner, lower=True)

    def multiply(self, v: np.ndarray) -> np.ndarray:
        """`(K + diag(noise)) v`, (n, r)."""
        out = self.noise[:, None] * v
        for i, block in enumerate(self._blocks):
            rows = self.kernel(self.x[block], self.x) if self._matrix is None else self._matrix[i]
            out[block] += rows @ v
        return out

    def precondition(self, v: np.ndarray) -> np.ndarray:
        """`(L L' + diag(noise))^-1 v`."""
        scaled = v / self.noise[:, None]
        inner = linalg.cho_solve(self._inner, self._low.T @ scaled)
        return scaled - (self._low @ inner) / self.noise[:, None]

    @property
    def log_det_preconditioner(self) -> float:
        """`log det (L L' + diag(noise))`."""
        inner = 2.0 * float(np.log(np.diag(self._inner[0])).sum())
        return float(np.log(self.noise).sum()) + inner

    def draw(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """Draws (n, num) of N(0, L L' + diag(noise))."""
        low = self._low @ rng.normal(size=(self._low.shape[1], num))
        return low + np.sqrt(self.noise)[:, None] * rng.normal(size=(len(self.noise), num))

    def solve(self, b: np.ndarray) -> np.ndarray:
        """The solutions (n, r), each right hand side with steps of its own.

        Raises `InputError` if one does not converge.
        """
        parts = [self._solve(b[:, i : i + SIDES]) for i in range(0, b.shape[1], SIDES)]
        return np.concatenate(parts, axis=1)

    def _solve(self, b: np.ndarray) -> np.ndarray:
        size = np.maximum(np.linalg.norm(b, axis=0), 1e-300)
        v, r = np.zeros_like(b), b.copy()
        z = self.precondition(r)
        p, rz = z.copy(), np.sum(r * z, axis=0)
        for _ in range(ITERATIONS):
            left = np.linalg.norm(r, axis=0) / size
            if (left <= self.tolerance).all():
                self.worst = max(self.worst, float(left.max(initial=0.0)))
                return v
            q = self.multiply(p)
            curvature = np.sum(p * q, axis=0)
            # A side that has ended stands still.
            moving = (left > self.tolerance) & (curvature > 0)
            step = np.where(moving, rz / np.where(moving, curvature, 1.0), 0.0)
            v += step * p
            r -= step * q
            z = self.precondition(r)
            new = np.sum(r * z, axis=0)
            p = z + np.where(moving, new / np.where(rz != 0, rz, 1.0), 0.0) * p
            rz = new
        raise InputError(
            f"Conjugate gradients did not reach a relative residual of {self.tolerance:.0e} in {ITERATIONS} "
            f"steps (it is {float(left.max()):.1e}): the noise is small for this kernel. Use "
            "solver='cholesky', a larger noise, or fewer rows."
        )


def pivoted_cholesky(kernel: Columns, x: np.ndarray, diagonal: np.ndarray, rank: int) -> np.ndarray:
    """The factor (n, k), k <= rank, of K from columns chosen greedily by what is left of the diagonal."""
    left = np.array(diagonal, np.float64)
    top = float(left.max())
    low = np.zeros((len(x), rank))
    for k in range(rank):
        pivot = int(np.argmax(left))
        if left[pivot] <= 1e-10 * top:
            return low[:, :k]
        column = kernel(x, x[pivot : pivot + 1])[:, 0] - low[:, :k] @ low[pivot, :k]
        low[:, k] = column / np.sqrt(left[pivot])
        left = np.maximum(left - low[:, k] ** 2, 0.0)
    return low


@dataclass(frozen=True, eq=False)
class IterativeBlock(Block):
    """A block whose `factor` is an `IterativeSystem`. Its log determinant is NaN until it is estimated
    (`process_determinant`)."""

    def explained(self, part: np.ndarray) -> np.ndarray:
        return np.sum(part.T * self.factor.solve(part.T), axis=0)

    def explained_matrix(self, part: np.ndarray) -> np.ndarray:
        half = part @ self.factor.solve(part.T)
        return 0.5 * (half + half.T)


def iterative_blocks(
    kernel: Columns,
    x: np.ndarray,
    diagonal: np.ndarray,
    noise: np.ndarray,
    residual: np.ndarray,
    tolerance: float,
    keep: bool,
) -> tuple[Block, ...]:
    """One block for each set of outputs (n, m) with the same noise and observed rows."""
    observed = ~np.isnan(residual)
    groups: dict[bytes, list[int]] = {}
    for j in range(residual.shape[1]):
        seen = observed[:, j]
        groups.setdefault(seen.tobytes() + noise[seen, j].tobytes(), []).append(j)
    blocks: list[Any] = []
    for columns in groups.values():
        rows = np.flatnonzero(observed[:, columns[0]])
        d = noise[rows, columns[0]]
        r = residual[np.ix_(rows, np.asarray(columns))]
        system = IterativeSystem(kernel, x[rows], diagonal[rows], d, tolerance, keep)
        weights = system.solve(r)
        blocks.append(
            IterativeBlock(np.asarray(columns), rows, d, r, system, weights, None, np.nan, 0.0)
        )
    return tuple(blocks)
