"""Log determinants of large tables, without factorising: preconditioned stochastic Lanczos quadrature.

With the preconditioner `P = R R'` and `A = R^-1 C R^-T`, `log det C = log det P + tr log A`, and for
u uniform on the sphere `tr log A = n E[u' log(A) u]`. Conjugate gradients on `C v = z`,
z ~ N(0, P), are Lanczos' process for A started at `u = R^-1 z / |R^-1 z|`; Gauss quadrature with its
tridiagonal matrix gives `u' log(A) u` (Golub & Meurant 1994; Ubaru, Chen & Saad 2017; Gardner et al.
2018, section 4; Wenger et al. 2022). What P explains of C has no variance.
"""

from __future__ import annotations

import numpy as np
from scipy import linalg

from bayesnet._errors import InputError
from bayesnet.priors.process_iterative import ITERATIONS, IterativeSystem

# Relative residual (in the norm of the preconditioner) at which Lanczos' process ends: the error of
# Gauss quadrature is about its square.
RESIDUAL = 1e-5


def log_determinant(system: IterativeSystem, probes: int, seed: int = 0) -> tuple[float, float]:
    """`log det (K + diag(noise))` and its standard error, from as many probe vectors.

    The same probes for the same seed. Raises `InputError` if Lanczos' process does not end.
    """
    n = len(system.noise)
    z = system.draw(np.random.default_rng(seed), probes)
    values = n * _quadratic_forms(system, z)
    error = float(values.std(ddof=1) / np.sqrt(probes))
    return system.log_det_preconditioner + float(values.mean()), error


def _quadratic_forms(system: IterativeSystem, z: np.ndarray) -> np.ndarray:
    """`u' log(A) u` for each column of z (n, p)."""
    r = z.copy()
    w = system.precondition(r)
    rw = np.sum(r * w, axis=0)
    start, p = rw.copy(), w.copy()
    steps, ratios = [], []
    moving = np.ones(z.shape[1], bool)
    length = np.zeros(z.shape[1], int)
    for _ in range(min(ITERATIONS, 2 * len(z))):
        q = system.multiply(p)
        step = np.where(moving, rw / np.where(moving, np.sum(p * q, axis=0), 1.0), 0.0)
        length += moving
        r -= step * q
        w = system.precondition(r)
        new = np.sum(r * w, axis=0)
        ratio = np.where(moving, new / np.where(moving, rw, 1.0), 0.0)
        steps.append(step)
        ratios.append(ratio)
        # A probe that has ended stands still.
        moving = moving & (new > RESIDUAL**2 * start)
        if not moving.any():
            return np.array([_gauss(*columns) for columns in _columns(steps, ratios, length)])
        p = np.where(moving, w + ratio * p, p)
        rw = np.where(moving, new, rw)
    raise InputError(
        f"The log determinant did not converge in {ITERATIONS} steps of Lanczos' process: the noise is "
        "small for this kernel. Use solver='cholesky', a larger noise, or fewer rows."
    )


def _columns(steps: list[np.ndarray], ratios: list[np.ndarray], length: np.ndarray) -> list:
    a, b = np.stack(steps), np.stack(ratios)
    return [(a[: length[j], j], b[: length[j], j]) for j in range(a.shape[1])]


def _gauss(step: np.ndarray, ratio: np.ndarray) -> float:
    """`e_1' log(T) e_1` for the tridiagonal matrix T of the steps of conjugate gradients."""
    diagonal = 1.0 / step
    diagonal[1:] += ratio[:-1] / step[:-1]
    beside = np.sqrt(ratio[:-1]) / step[:-1]
    nodes, vectors = linalg.eigh_tridiagonal(diagonal, beside)
    return float(vectors[0] ** 2 @ np.log(np.maximum(nodes, 1e-300)))
