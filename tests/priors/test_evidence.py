"""Evidence: closed form against scipy, estimates against quadrature with their standard errors."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
from scipy import stats
from scipy.special import logsumexp

import bayesnet as bn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 2))
Y = np.sin(X) + 0.1 * RNG.normal(size=(12, 2))


@pytest.mark.parametrize("noise", ["number", "rows", "outputs"])
def test_closed_form_equals_scipy(noise):
    level = {"number": 0.3, "rows": RNG.uniform(0.1, 1, 12), "outputs": [[0.2, 0.5]]}[noise]
    mean = bn.LinearMean([0.5, -0.2], 0.1)
    process = bn.GaussianProcess("matern32", [0.7, 1.3], 1.5, mean=mean, out_dim=2)
    got = process.log_evidence(X, Y, level)
    matrix = oracles.matern32(X, X, np.array([0.7, 1.3]), 1.5)
    expected = 0.0
    for j in range(2):
        sd = np.asarray(level)[0, j] if noise == "outputs" else np.asarray(level)
        law = stats.multivariate_normal(X @ [0.5, -0.2] + 0.1, matrix + np.eye(12) * sd**2)
        expected += law.logpdf(Y[:, j])
    assert float(got) == pytest.approx(expected, abs=1e-9)
    assert got.standard_error == 0.0
    assert got.method == "closed form"


def test_gpytorch_kernels_have_an_evidence_too():
    kernels = pytest.importorskip("gpytorch").kernels
    got = bn.GaussianProcess(kernels.RBFKernel()).log_evidence(X, Y[:, 0], 0.3)
    same = bn.GaussianProcess("rbf", float(np.log(2.0))).log_evidence(X, Y[:, 0], 0.3)
    assert float(got) == pytest.approx(float(same), abs=1e-4)


@pytest.mark.slow
def test_random_hyper_parameters_against_quadrature():
    dist = pytest.importorskip("numpyro.distributions")
    process = bn.GaussianProcess("rbf", bn.LogNormal(0.2, 0.7), dist.Gamma(3.0, 2.0))
    got = process.log_evidence(X, Y[:, 0], 0.2)
    lengthscales = np.exp(0.2 + 0.7 * (grid := np.linspace(-4, 4, 31)))
    variances = np.linspace(0.01, 8, 200)
    logs = np.empty((31, 200))
    eye = np.eye(12)
    for i, lengthscale in enumerate(lengthscales):
        matrix = oracles.rbf(X, X, lengthscale)
        for k, v in enumerate(variances):
            factor = np.linalg.cholesky(v * matrix + 0.04 * eye)
            white = np.linalg.solve(factor, Y[:, 0])
            logs[i, k] = (
                -0.5 * white @ white - np.log(np.diag(factor)).sum() - 6 * np.log(2 * np.pi)
            )
    logs += stats.norm.logpdf(grid)[:, None] + stats.gamma(3.0, scale=0.5).logpdf(variances)
    expected = logsumexp(logs) + np.log((grid[1] - grid[0]) * (variances[1] - variances[0]))
    assert got.method == "importance sampling"
    assert got.effective_size > 500
    assert got.standard_error < 0.05
    assert abs(float(got) - expected) < 4 * got.standard_error + 2e-3


def test_a_random_line_and_noise_integrated_out():
    # With a normal slope and intercept the evidence is a normal density of a larger covariance.
    mean = bn.LinearMean(bn.Normal([0.0, 1.0], 0.5), bn.Normal(0.3, 0.2))
    process = bn.GaussianProcess("rbf", 0.8, mean=mean)
    got = process.log_evidence(X, Y[:, 0], 0.2, seed=1)
    cov = oracles.rbf(X, X, 0.8) + 0.25 * X @ X.T + 0.04 + 0.04 * np.eye(12)
    expected = stats.multivariate_normal(X @ [0.0, 1.0] + 0.3, cov).logpdf(Y[:, 0])
    assert abs(float(got) - expected) < 4 * got.standard_error
    assert got.standard_error < 0.05

    noise = bn.LogNormal(-1.5, 0.5)
    got = bn.GaussianProcess("rbf", 0.8).log_evidence(X, Y[:, 0], noise)
    z = np.linspace(-5, 5, 200)
    logs = [
        stats.multivariate_normal(
            np.zeros(12), oracles.rbf(X, X, 0.8) + np.eye(12) * np.exp(2 * (-1.5 + 0.5 * t))
        ).logpdf(Y[:, 0])
        + stats.norm.logpdf(t)
        for t in z
    ]
    expected = logsumexp(logs) + np.log(z[1] - z[0])
    assert abs(float(got) - expected) < 4 * got.standard_error + 1e-3


class OnlyDraws:
    """A law without a density."""

    def sample(self, key, sample_shape=()):
        return bn.LogNormal(0.2, 0.7).sample(key, sample_shape)


def test_laws_without_a_density_are_sampled_from_the_prior():
    rough = bn.GaussianProcess("rbf", OnlyDraws()).log_evidence(X[:5], Y[:5, 0], 0.5)
    good = bn.GaussianProcess("rbf", bn.LogNormal(0.2, 0.7)).log_evidence(X[:5], Y[:5, 0], 0.5)
    assert rough.method == "prior sampling"
    assert abs(float(rough) - float(good)) < 4 * np.hypot(rough.standard_error, good.standard_error)
    far = bn.GaussianProcess("rbf", OnlyDraws(), mean=40.0)
    with pytest.warns(bn.ConvergenceWarning, match="effective draws"):
        far.log_evidence(np.repeat(X, 4, 0), np.repeat(Y[:, 0], 4), 0.01, num_samples=100)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: p.log_evidence(X, Y, 0.1), "2 output"),
        (lambda p: p.log_evidence(X, Y[:, 0], 0.0), "noise_std"),
        (lambda p: p.log_evidence(X, Y[:, 0], "small"), "noise_std"),
        (lambda p: p.log_evidence(X, Y[:, 0], [0.1, 0.2]), "noise_std"),
        (lambda p: p.log_evidence(X, Y[:, 0], bn.Normal(0.0, 1.0)), "positive axis"),
        (lambda p: p.log_evidence(X, Y[:5, 0], 0.1), "rows"),
        (lambda p: p.log_evidence(X, Y[:, 0], 0.1, num_samples=3), "num_samples"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(bn.InputError, match=words):
        call(bn.GaussianProcess("rbf"))
