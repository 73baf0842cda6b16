"""The Laplace approximation of latent functions under class labels: mode, evidence and its gradient.

Rasmussen & Williams 2006, algorithms 3.1-3.4 and 5.1. K latent functions share one covariance C
(n, n) and are independent before labels are seen; two classes have one function, the log odds. With
W the negative Hessian of the log likelihood at the mode f, block diagonal over rows,

    log q(y) = -(f - m)' C^-1 (f - m) / 2 + log p(y | f) - log|I + C W| / 2.

`W = D - D 1 (sum_k D_k)^-1 1' D` with diagonal D for K classes and W = D for two, so that only n x n
matrices are factorised: `(C + W^-1)^-1 = E - E 1 (sum_k E_k)^-1 1' E`, `E = D^1/2 (I + D^1/2 C D^1/2)^-1 D^1/2`.
(The book's algorithm 3.3 leaves the determinant of `sum_k E_k` out; here it is in.) All is NumPy,
float64, in the prior's coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import linalg
from scipy.special import expit, log_expit, log_softmax

from bayesnet._errors import InputError
from bayesnet.priors.process_blocks import jittered_cholesky, not_definite

# Newton's method ends with a step that moves no latent by more than this (it converges
# quadratically); a step counts as a gain up to rounding.
MOVE, ITERATIONS, HALVINGS, ROUNDING = 1e-6, 100, 30, 1e-13


@dataclass(frozen=True, eq=False)
class Labels:
    """Class indices `codes` (n,), row weights (n,), and the number of latent functions K (1: two
    classes)."""

    codes: np.ndarray
    weight: np.ndarray
    outputs: int

    def log_prob(self, f: np.ndarray) -> float:
        """The weighted log likelihood of latents (n, K)."""
        if self.outputs == 1:
            terms = log_expit(np.where(self.codes > 0, f[:, 0], -f[:, 0]))
        else:
            terms = log_softmax(f, axis=1)[np.arange(len(f)), self.codes]
        return float(self.weight @ terms)

    def probabilities(self, f: np.ndarray) -> np.ndarray:
        """(n, K); of the second class alone for K = 1."""
        return expit(f) if self.outputs == 1 else np.exp(log_softmax(f, axis=1))

    def gradient(self, f: np.ndarray) -> np.ndarray:
        """Of the log likelihood, (n, K)."""
        p = self.probabilities(f)
        hot = self.codes[:, None] == (np.arange(self.outputs) + (self.outputs == 1))
        return self.weight[:, None] * (hot - p)

    def diagonal(self, f: np.ndarray) -> np.ndarray:
        """D, (n, K)."""
        p = self.probabilities(f)
        return self.weight[:, None] * (p * (1.0 - p) if self.outputs == 1 else p)

    def hessian_times(self, f: np.ndarray, v: np.ndarray) -> np.ndarray:
        """W v for v (..., n, K)."""
        d = self.diagonal(f)
        if self.outputs == 1:
            return d * v
        p = self.probabilities(f)
        return d * (v - np.sum(p * v, axis=-1, keepdims=True))

    def hessian_root(self, f: np.ndarray, e: np.ndarray) -> np.ndarray:
        """`W^1/2 e` for e (..., n, K): of covariance W where e is standard normal."""
        root = np.sqrt(self.diagonal(f))
        if self.outputs == 1:
            return root * e
        p = self.probabilities(f)
        return root * e - np.sqrt(self.weight)[:, None] * p * np.sum(
            np.sqrt(p) * e, axis=-1, keepdims=True
        )

    def curvature_slope(self, f: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        """`d tr(S W) / df` (n, K) for the covariances S (n, K, K) of rows."""
        p, w = self.probabilities(f), self.weight[:, None]
        if self.outputs == 1:
            return w * (p * (1.0 - p) * (1.0 - 2.0 * p)) * covariance[:, 0]
        inner = np.einsum("nkk->nk", covariance) - 2.0 * np.einsum("nkl,nl->nk", covariance, p)
        return w * p * (inner - np.sum(inner * p, axis=1, keepdims=True))


@dataclass(frozen=True, eq=False)
class LaplaceMode:
    """The Gaussian approximation around the mode `f` (n, K) of latents with covariance `matrix` and
    mean (n, K); `alpha = C^-1 (f - mean)` (n, K), the gradient of the log likelihood there."""

    labels: Labels
    matrix: np.ndarray
    mean: np.ndarray
    f: np.ndarray
    alpha: np.ndarray
    iterations: int

    @cached_property
    def factors(self) -> Factors:
        """The factorisation at the mode."""
        return Factors(self.labels, self.matrix, self.f)

    @cached_property
    def log_evidence(self) -> float:
        """log q(y), in nats."""
        fit = self.labels.log_prob(self.f) - 0.5 * float(np.sum(self.alpha * (self.f - self.mean)))
        return fit - 0.5 * self.factors.log_det

    def evidence_gradient(self) -> tuple[np.ndarray, np.ndarray]:
        """The gradient of the log evidence in the matrix (n, n) and in the mean (n, K)."""
        factors = self.factors
        spread = factors.marginal(self.matrix, np.diag(self.matrix))
        moved = -0.5 * self.labels.curvature_slope(self.f, spread)
        moved = moved - factors.solve(self.matrix @ moved)
        by_matrix = 0.5 * (self.alpha @ self.alpha.T - factors.trace())
        implicit = moved @ self.alpha.T
        return by_matrix + 0.5 * (implicit + implicit.T), self.alpha + moved

    def draw(
        self, f0: np.ndarray, cross: np.ndarray, f0_new: np.ndarray, e: np.ndarray
    ) -> np.ndarray:
        """Deviations (s, k, K) from the posterior mean at new rows, from prior draws f0 (s, n, K) and
        f0_new (s, k, K) drawn together, and standard normal e (s, n, K); `cross` is (k, n).

        Perturb and solve: `d = (C^-1 + W)^-1 (C^-1 f0 + W^1/2 e)` has the approximate posterior's covariance.
        """
        root = self.labels.hessian_root(self.f, e)
        solve = self.factors.solve
        inner = root - solve(np.einsum("ij,sjk->sik", self.matrix, root)) - solve(f0)
        return f0_new + np.einsum("ij,sjk->sik", cross, inner)


class Factors:
    """`R = (C + W^-1)^-1` at latents f, factorised."""

    def __init__(self, labels: Labels, matrix: np.ndarray, f: np.ndarray) -> None:
        n = len(matrix)
        root = np.sqrt(labels.diagonal(f))
        self.e = np.empty((labels.outputs, n, n))
        self.log_det = 0.0
        for k in range(labels.outputs):
            r = root[:, k]
            factor = linalg.cholesky(np.eye(n) + r[:, None] * matrix * r, lower=True)
            half = lower_solve(factor, np.diag(r))
            self.e[k] = half.T @ half
            self.log_det += 2.0 * float(np.log(np.diag(factor)).sum())
        self.m: np.ndarray | None = None
        if labels.outputs > 1:
            self.m, _ = jittered_cholesky(self.e.sum(axis=0))
            self.log_det += 2.0 * float(np.log(np.diag(self.m)).sum())
            self.log_det -= float(np.log(labels.weight).sum())

    def solve(self, v: np.ndarray) -> np.ndarray:
        """R v for v (..., n, K)."""
        out = np.einsum("kij,...jk->...ik", self.e, v, optimize=True)
        if self.m is None:
            return out
        total = np.moveaxis(out.sum(axis=-1), -1, 0)
        shared = linalg.cho_solve((self.m, True), total.reshape(len(total), -1))
        shared = np.moveaxis(shared.reshape(total.shape), 0, -1)
        return out - np.einsum("kij,...j->...ik", self.e, shared, optimize=True)

    def trace(self) -> np.ndarray:
        """The sum over k of the diagonal blocks R_kk, (n, n)."""
        total = self.e.sum(axis=0)
        if self.m is not None:
            for e in self.e:
                half = lower_solve(self.m, e)
                total = total - half.T @ half
        return total

    def marginal(self, cross: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
        """The covariance (k, K, K) of the latents of each of k rows, from covariances `cross` (k, n)
        with the table and prior variances (k,)."""
        outputs = len(self.e)
        parts = [e @ cross.T for e in self.e]
        out = np.zeros((len(cross), outputs, outputs))
        if self.m is not None:
            half = np.stack([lower_solve(self.m, part) for part in parts])
            out = np.einsum("kjr,ljr->rkl", half, half, optimize=True)
        for k, part in enumerate(parts):
            out[:, k, k] += diagonal - np.sum(cross.T * part, axis=0)
        return out


def lower_solve(factor: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`factor^-1 b` for a lower triangle, by the BLAS call: LAPACK's starts threads for small ones."""
    return linalg.blas.dtrsm(1.0, factor, b, lower=1)


def laplace_mode(labels: Labels, matrix: np.ndarray, mean: np.ndarray) -> LaplaceMode:
    """The mode by Newton's method; steps that do not gain are halved.

    Raises `InputError` for a covariance that holds NaN or infinity or is not positive.
    """
    if not np.isfinite(matrix).all():
        raise InputError("The covariance holds NaN or infinity: its hyper-parameters are extreme.")

    def objective(a: np.ndarray, f: np.ndarray) -> float:
        return labels.log_prob(f) - 0.5 * float(np.sum(a * (f - mean)))

    alpha, f = np.zeros_like(mean), mean.copy()
    value = objective(alpha, f)
    count = 0
    for count in range(1, ITERATIONS + 1):  # noqa: B007
        try:
            factors = Factors(labels, matrix, f)
        except linalg.LinAlgError as error:
            raise not_definite(matrix) from error
        b = labels.hessian_times(f, f - mean) + labels.gradient(f)
        step = b - factors.solve(matrix @ b) - alpha
        moved, size = 0.0, 1.0
        for _ in range(HALVINGS):
            trial = alpha + size * step
            there = mean + matrix @ trial
            new = objective(trial, there)
            if new - value >= -ROUNDING * (1.0 + abs(value)):
                moved = float(np.max(np.abs(there - f)))
                alpha, f, value = trial, there, new
                break
            size *= 0.5
        if moved < MOVE:
            break
    # At the mode both are the gradient; this one is the more accurate.
    return LaplaceMode(labels, matrix, mean, f, labels.gradient(f), count)
