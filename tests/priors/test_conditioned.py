"""Processes given known values: moments and draws against the formulas of GP regression."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import oracles
import pytest
from scipy import stats

import bayesnet as bn

X0 = np.array([[-1.0], [0.3], [1.1]])
Y0 = np.array([0.5, -1.0, 1.5])
SD = np.array([0.0, 0.4, 0.1])
X = np.linspace(-2, 2, 6)[:, None]


def test_moments_and_draws_are_those_of_regression():
    process = bn.GaussianProcess("matern52", 0.8, 1.7, mean=lambda x: x[:, 0])
    given = process.condition(X0, Y0, SD)
    mean, cov = given.moments(X)
    noise = np.diag(SD**2 + 1e-6 * 1.7)
    kernel = lambda a, b: oracles.matern52(a, b, 0.8, 1.7)  # noqa: E731
    expected, expected_cov = oracles.gp_regression(kernel, X0, Y0 - X0[:, 0], noise, X)
    np.testing.assert_allclose(mean[:, 0], expected + X[:, 0], atol=1e-6)
    np.testing.assert_allclose(cov[0], expected_cov, atol=1e-6)
    f = np.asarray(given.sample(0, X, 6000)[..., 0], float)
    assert np.abs((f.mean(0) - mean[:, 0]) / (f.std(0) / np.sqrt(6000))).max() < 5
    centred = f - mean[:, 0]
    products = centred[:, :, None] * centred[:, None, :]
    error = products.std(0) / np.sqrt(6000)
    assert np.abs((products.mean(0) - cov[0]) / error).max() < 5


def test_known_values_are_met():
    given = bn.GaussianProcess("rbf", 0.8, 4.0, out_dim=2).condition(
        X0, np.c_[Y0, 2 * Y0], np.c_[SD, 0 * SD]
    )
    f = np.asarray(given.sample(1, X0, 2000), float)
    np.testing.assert_allclose(f[:, 0], np.tile([0.5, 1.0], (2000, 1)), atol=0.02)  # jitter
    np.testing.assert_allclose(f[:, :, 1], np.tile(2 * Y0, (2000, 1)), atol=0.02)
    assert 0.05 < f[:, 2, 0].std() < 0.12
    for other in (copy.deepcopy(given), pickle.loads(pickle.dumps(given))):
        np.testing.assert_array_equal(other.sample(0, X, 2), given.sample(0, X, 2))


@pytest.mark.slow
def test_random_hyper_parameters_follow_the_known_values():
    # f(0) | f(0.2) = 2.5 +- 0.5 when the variance is random: by quadrature over its logarithm.
    process = bn.GaussianProcess("rbf", 0.7, bn.LogNormal(0.0, 1.0))
    f = np.asarray(process.condition([[0.2]], [2.5], 0.5).sample(0, [[0.0]], 3000), float).ravel()
    z = np.linspace(-5, 5, 400)
    v = np.exp(z)
    weight = stats.norm.pdf(z) * stats.norm.pdf(2.5, scale=np.sqrt(v + 0.25))
    weight /= weight.sum()
    k = np.exp(-0.5 * (0.2 / 0.7) ** 2)
    means, variances = k * v / (v + 0.25) * 2.5, v - (k * v) ** 2 / (v + 0.25)
    mean = weight @ means
    second = weight @ (variances + means**2)
    assert abs(f.mean() - mean) < 5 * f.std() / np.sqrt(3000)
    assert abs((f**2).mean() - second) < 5 * (f**2).std() / np.sqrt(3000)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((X0, Y0[:2]), "Known values"),
        ((X0, np.c_[Y0, Y0]), "Known values"),
        ((X0, Y0, -1.0), "not negative"),
        ((X0, Y0, [0.1, 0.2]), "noise_std"),
        (([[0.0], [0.0]], [1.0, 2.0]), "Two different values"),
        (([[np.nan]], [1.0]), "NaN"),
    ],
)
def test_bad_input_is_named(arguments, words):
    with pytest.raises(bn.InputError, match=words):
        bn.GaussianProcess("rbf").condition(*arguments)


def test_a_kernel_of_torch_is_refused():
    kernels = pytest.importorskip("gpytorch").kernels
    with pytest.raises(bn.InputError, match="can be conditioned"):
        bn.GaussianProcess(kernels.RBFKernel()).condition(X0, Y0)
