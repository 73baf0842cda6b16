"""Gaussian processes that the studies compare networks with; float64 numpy, independent of bayesnet.

All in scaled coordinates (x and y at mean 0, sd 1 of the training rows), results in user units.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.special import logsumexp

import bayesnet as bn
from bayesnet.likelihoods.gaussian import DEFAULT_NOISE, Normal
from bayesnet.posterior import Prediction

JITTER = 1e-8


def squared(a: np.ndarray, b: np.ndarray, lengthscale: Any) -> np.ndarray:
    """Squared distances (n, k) in lengthscales (a number, or one a column)."""
    a, b = a / lengthscale, b / lengthscale
    return np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T, 0.0)


def matern52(a: np.ndarray, b: np.ndarray, lengthscale: Any) -> np.ndarray:
    r = np.sqrt(5 * squared(a, b, lengthscale))
    return (1 + r + r**2 / 3) * np.exp(-r)


def rbf(a: np.ndarray, b: np.ndarray, lengthscale: Any) -> np.ndarray:
    return np.exp(-0.5 * squared(a, b, lengthscale))


class Scaled:
    """A training table in scaled coordinates, and the way back."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.scaling = bn.data.Scaling.from_data(x, y[:, None])
        self.x, self.y = self.scaling.x_in(x), self.scaling.y_in(y[:, None])[:, 0]

    def prediction(self, means: np.ndarray, stds: np.ndarray) -> Prediction:
        """The equal mixture of Gaussians (s, n) for observations, from scaled moments."""
        law = Normal(means[..., None], stds[..., None])
        law = law.affine(self.scaling.y_loc, self.scaling.y_scale)
        return Prediction(law, law.loc)


def hierarchical_gp(
    x: np.ndarray,
    y: np.ndarray,
    x_new: np.ndarray,
    lengthscale: bn.LogNormal,
    outputscale: bn.LogNormal,
    *,
    draws: int = 600,
    seed: int = 0,
) -> Prediction:
    """The exact posterior of a Matern-5/2 process with random lengthscale and variance, noise learned.

    One input. The three hyper-parameters are integrated over a grid of their laws; `draws` grid
    points are drawn by their posterior weight.
    """
    t = Scaled(x, y)
    new = t.scaling.x_in(x_new)
    z_l, z_o, z_n = np.linspace(-4, 4, 65), np.linspace(-3, 3, 13), np.linspace(-4, 4, 41)
    lengths = np.exp(np.ravel(lengthscale.loc)[0] + np.ravel(lengthscale.scale)[0] * z_l)
    variances = np.exp(float(outputscale.loc) + float(outputscale.scale) * z_o)
    noises = np.exp(DEFAULT_NOISE.loc + DEFAULT_NOISE.scale * z_n)
    log_weight = np.empty((len(lengths), len(variances), len(noises)))
    parts = []
    for i, length in enumerate(lengths):
        values, vectors = np.linalg.eigh(matern52(t.x, t.x, length))
        values, projected = np.maximum(values, 0), vectors.T @ t.y
        parts.append((values, projected, matern52(new, t.x, length) @ vectors))
        total = variances[:, None, None] * values + noises[:, None] ** 2
        log_weight[i] = -0.5 * (projected**2 / total + np.log(total)).sum(-1)
    log_weight -= 0.5 * (z_l[:, None, None] ** 2 + z_o[:, None] ** 2 + z_n**2)
    weight = np.exp(log_weight - logsumexp(log_weight)).ravel()
    picks = np.random.default_rng(seed).choice(weight.size, draws, p=weight / weight.sum())
    means, stds = np.empty((2, draws, len(new)))
    for k, pick in enumerate(picks):
        i, j, n = np.unravel_index(pick, log_weight.shape)
        values, projected, cross = parts[i]
        total = variances[j] * values + noises[n] ** 2
        means[k] = variances[j] * cross @ (projected / total)
        left = variances[j] - variances[j] ** 2 * (cross**2 / total).sum(1)
        stds[k] = np.sqrt(np.maximum(left, 0) + noises[n] ** 2)
    return t.prediction(means, stds)


def inducing_gp(
    x: np.ndarray,
    y: np.ndarray,
    x_new: np.ndarray,
    kernel: Any,
    num: int,
    *,
    outputscale: float = 1.0,
    seed: int = 0,
) -> tuple[Prediction, float]:
    """Titsias' (2009) sparse process with `num` random training rows as inducing points.

    The noise level maximises his bound (plus the log density of its law); also returned.
    """
    t = Scaled(x, y)
    chosen = np.random.default_rng(seed).permutation(len(t.x))[:num]
    z, new, n = t.x[chosen], t.scaling.x_in(x_new), len(t.x)
    chol = np.linalg.cholesky(outputscale * kernel(z, z) + JITTER * outputscale * np.eye(num))
    a = solve_triangular(chol, outputscale * kernel(z, t.x), lower=True)
    values, vectors = np.linalg.eigh(a @ a.T)
    values, projected = np.maximum(values, 0), vectors.T @ (a @ t.y)
    trace = n * outputscale - values.sum()
    levels = np.linspace(-4, 4, 161)
    noises = np.exp(DEFAULT_NOISE.loc + DEFAULT_NOISE.scale * levels)
    bounds = []
    for level, s in zip(levels, noises, strict=True):
        quadratic = (t.y @ t.y - (projected**2 / (values + s**2)).sum()) / s**2
        log_det = np.log1p(values / s**2).sum() + 2 * n * np.log(s)
        bounds.append(-0.5 * (quadratic + log_det + trace / s**2 + level**2))
    noise = float(noises[int(np.argmax(bounds))])
    cross = solve_triangular(chol, outputscale * kernel(z, new), lower=True)
    rotated = vectors.T @ cross
    mean = rotated.T @ (projected / (values + noise**2))
    left = outputscale - (cross**2).sum(0) + (rotated**2 * noise**2 / (values + noise**2)[:, None]).sum(0)  # fmt: skip
    std = np.sqrt(np.maximum(left, 0) + noise**2)
    return t.prediction(mean[None], std[None]), noise


def exact_gp(
    x: np.ndarray, y: np.ndarray, x_new: np.ndarray, kernel: Any, noise: float
) -> Prediction:
    """The process of variance 1 with a known noise level (scaled), by one Cholesky factorisation."""
    t = Scaled(x, y)
    new = t.scaling.x_in(x_new)
    matrix = np.empty((len(t.x), len(t.x)), order="F")
    for start in range(0, len(t.x), 500):  # by strips: the table may have 10,000 rows
        matrix[:, start : start + 500] = kernel(t.x, t.x[start : start + 500])
    matrix[np.diag_indices_from(matrix)] += noise**2
    chol = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
    cross = kernel(t.x, new)
    mean = cross.T @ cho_solve(chol, t.y)
    half = solve_triangular(chol[0], cross, lower=True, check_finite=False)
    std = np.sqrt(np.maximum(1 - (half**2).sum(0), 0) + noise**2)
    return t.prediction(mean[None], std[None])
