"""Closed-form answers, written in NumPy and independent of the library."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

# --- kernels -------------------------------------------------------------------------------


def distances(x1: np.ndarray, x2: np.ndarray, lengthscale) -> np.ndarray:
    """Euclidean distances after dividing each column by its lengthscale."""
    a, b = np.asarray(x1, float) / lengthscale, np.asarray(x2, float) / lengthscale
    return np.sqrt(((a[:, None, :] - b[None, :, :]) ** 2).sum(-1))


def rbf(x1, x2, lengthscale=1.0, variance=1.0):
    return variance * np.exp(-0.5 * distances(x1, x2, lengthscale) ** 2)


def matern12(x1, x2, lengthscale=1.0, variance=1.0):
    return variance * np.exp(-distances(x1, x2, lengthscale))


def matern32(x1, x2, lengthscale=1.0, variance=1.0):
    r = np.sqrt(3.0) * distances(x1, x2, lengthscale)
    return variance * (1 + r) * np.exp(-r)


def matern52(x1, x2, lengthscale=1.0, variance=1.0):
    r = np.sqrt(5.0) * distances(x1, x2, lengthscale)
    return variance * (1 + r + r**2 / 3) * np.exp(-r)


def periodic(x1, x2, lengthscale=1.0, variance=1.0, period=1.0):
    difference = np.asarray(x1, float)[:, None, :] - np.asarray(x2, float)[None, :, :]
    exponent = -2 * np.sin(np.pi * difference / period) ** 2 / np.asarray(lengthscale) ** 2
    return variance * np.exp(exponent.sum(-1))


def linear(x1, x2, lengthscale=1.0, variance=1.0):
    return variance * (np.asarray(x1, float) / lengthscale) @ (np.asarray(x2) / lengthscale).T


KERNELS = {
    "rbf": rbf,
    "matern12": matern12,
    "matern32": matern32,
    "matern52": matern52,
    "periodic": periodic,
    "linear": linear,
}


# --- exact posteriors ----------------------------------------------------------------------


@dataclass(frozen=True)
class LinearRegression:
    """The posterior of `w` in `y = Phi w + noise`, w ~ N(0, I), noise variances known.

    `mean` (p,), `cov` (p, p), `log_evidence` of y.
    """

    mean: np.ndarray
    cov: np.ndarray
    log_evidence: float

    @staticmethod
    def fit(phi: np.ndarray, y: np.ndarray, noise_var) -> LinearRegression:
        """phi (n, p), y (n,), noise_var a number or (n,)."""
        n, p = phi.shape
        noise = np.broadcast_to(np.asarray(noise_var, float), (n,))
        precision = np.eye(p) + (phi / noise[:, None]).T @ phi
        cov = np.linalg.inv(precision)
        mean = cov @ (phi.T @ (y / noise))
        total = phi @ phi.T + np.diag(noise)
        _, logdet = np.linalg.slogdet(total)
        evidence = -0.5 * (y @ np.linalg.solve(total, y) + logdet + n * np.log(2 * np.pi))
        return LinearRegression(mean, cov, float(evidence))

    def functions(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean (k,) and covariance (k, k) of the function at features phi (k, p)."""
        return phi @ self.mean, phi @ self.cov @ phi.T


def gp_regression(kernel, x, y, noise_var, x_new) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of f(x_new) under a zero-mean GP, Rasmussen & Williams eq. 2.25-26."""
    gram = kernel(x, x) + noise_var * np.eye(len(x))
    cross = kernel(x_new, x)
    mean = cross @ np.linalg.solve(gram, y)
    return mean, kernel(x_new, x_new) - cross @ np.linalg.solve(gram, cross.T)


def normal_log_density(y, mean, variance) -> np.ndarray:
    return -0.5 * (y - mean) ** 2 / variance - 0.5 * np.log(2 * np.pi * np.asarray(variance))


# --- quadrature ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Quadrature:
    """A one-dimensional law known by its unnormalised log density on an even grid."""

    grid: np.ndarray
    weights: np.ndarray

    @staticmethod
    def of(log_density: np.ndarray, grid: np.ndarray) -> Quadrature:
        return Quadrature(grid, np.exp(log_density - logsumexp(log_density)))

    def expect(self, values: np.ndarray) -> np.ndarray:
        """E[values], whose first axis runs over the grid."""
        return np.tensordot(self.weights, values, axes=1)


# --- comparing draws with an answer --------------------------------------------------------


def z_scores(draws: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(mean of draws - truth) in standard errors from the draws' own effective size.

    draws (c chains, s draws, *k), truth (*k).
    """
    from bayesnet.diagnostics.convergence import import_arviz

    az = import_arviz()
    c, s = draws.shape[:2]
    flat = np.asarray(draws, float).reshape(c, s, -1)
    ess = np.array([az.ess(flat[:, :, j], method="mean") for j in range(flat.shape[-1])])
    error = flat.std(axis=(0, 1)) / np.sqrt(ess)
    return ((flat.mean(axis=(0, 1)) - np.ravel(truth)) / error).reshape(np.shape(truth))
