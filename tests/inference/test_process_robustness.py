"""What methods for processes do with tables and kernels at the edge: zeros, repeats, broken kernels, size."""

from __future__ import annotations

import numpy as np
import pytest

import bayesnet as bn
from bayesnet.inference import sparse_variational
from bayesnet.kernels import matrices
from bayesnet.kernels import process as kernel_process
from bayesnet.kernels.activations import ACTIVATIONS
from bayesnet.priors.kernel_model import KernelModel
from bayesnet.priors.process_blocks import FIRST_JITTER, LAST_JITTER, jittered_cholesky

RNG = np.random.default_rng(5)
X = RNG.normal(size=(10, 2))
Y = np.sin(X[:, 0])
LABELS = Y > 0
METHODS = {
    "exact": ("gaussian", Y, bn.Exact(restarts=0)),
    "laplace": ("bernoulli", LABELS, bn.ProcessLaplace(restarts=0)),
    "sparse": ("bernoulli", LABELS, bn.SparseVariational(inducing=6, steps=20)),
}


def fit(name, prior, x, repeat=1):
    likelihood, y, method = METHODS[name]
    y = np.repeat(y, repeat)
    return bn.fit(prior, x, y, likelihood=likelihood, inference=method, warn=False)


@pytest.mark.parametrize(
    "name", ["exact", "laplace", pytest.param("sparse", marks=pytest.mark.slow)]
)
def test_rows_of_zeros_under_a_network_without_biases(name):
    """The row of zeros has variance 0: its function value is 0, whatever the table."""
    x = X.copy()
    x[[0, 3]] = 0.0
    prior = bn.kernels.NNGP(depth=2, activation="relu", bias_std=0.0, units="data")
    np.testing.assert_array_equal(np.asarray(prior.kernel(x, x))[0], 0.0)
    post = fit(name, prior, x)
    values = post.functions(x, num=5)
    assert np.isfinite(values).all()
    np.testing.assert_allclose(values[:, [0, 3]], 0.0, atol=1e-4)


def test_variances_are_learned_with_rows_of_zeros():
    x = X.copy()
    x[0] = 0.0
    prior = bn.kernels.NNGP(depth=2, activation="relu", bias_std=0.1, units="data")
    method = bn.Exact(learn_variances=True, restarts=0)
    post = bn.fit(prior, x, Y, inference=method, warn=False)
    assert np.isfinite(post.log_evidence)
    assert np.isfinite(post.predict(x).std).all()


@pytest.mark.parametrize(
    "activation",
    [
        pytest.param(name, marks=[] if name in ("relu", "tanh") else [pytest.mark.slow])
        for name in sorted(set(ACTIVATIONS) - {"identity", "monomial"})
    ],
)
def test_kernels_of_zeros_and_repeats_are_finite_and_definite(activation):
    x = np.concatenate([np.zeros((2, 2)), X[:3], X[:3]])
    matrix = bn.kernels.NTK(depth=1, activation=activation, bias_std=0.0, units="data").in_blocks(x)
    assert np.isfinite(matrix).all()
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert np.linalg.eigvalsh(matrix).min() > -1e-9 * np.trace(matrix)


@pytest.mark.parametrize("name", METHODS)
def test_repeated_rows(name):
    x = np.repeat(X, 3, axis=0)
    post = fit(name, bn.GaussianProcess("rbf", 1.0), x, repeat=3)
    assert np.isfinite(post.predict(x).mean).all()
    assert np.isfinite(post.functions(x, num=3)).all()


class Indefinite:
    """A symmetric function of two rows that is no covariance."""

    units, out_dim = "data", 1

    def kernel(self, a, b):
        far = ((np.asarray(a)[:, None] - np.asarray(b)[None]) ** 2).sum(-1)
        return 1.0 - far

    def sample(self, key, x, num):
        raise AssertionError("only its kernel is asked for")


@pytest.mark.parametrize("name", METHODS)
def test_a_kernel_that_is_no_covariance_is_refused_with_its_eigenvalue(name):
    with pytest.raises(bn.InputError, match="smallest eigenvalue is -"):
        fit(name, Indefinite(), X)


@pytest.mark.parametrize("lack", [1e-13, 3e-11, 4e-9, 7e-7])
def test_jitter_rises_by_tens_to_the_first_that_suffices(lack):
    """Eigenvalue `-lack` times the mean variance: more than that is needed, and less than ten times."""
    vectors = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
    values = np.array([-lack, 0.5, 1.0, 1.0, 1.5, 2.0 + lack])
    factor, jitter = jittered_cholesky((vectors * values) @ vectors.T)
    assert np.isfinite(factor).all()
    steps = FIRST_JITTER * 10.0 ** np.arange(7)
    assert np.isclose(steps, jitter, rtol=1e-9).any()
    assert lack < jitter <= max(11 * lack, 1.001 * FIRST_JITTER)


def test_jitter_is_bounded_and_then_the_eigenvalue_is_named():
    vectors = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
    values = np.array([-3 * LAST_JITTER, 0.5, 1.0, 1.0, 1.5, 2.0])
    with pytest.raises(bn.InputError, match=r"smallest eigenvalue is -3e-06 times"):
        jittered_cholesky((vectors * values) @ vectors.T)


def test_many_inducing_rows_are_refused_with_the_estimate(monkeypatch):
    monkeypatch.setattr(sparse_variational, "available_gib", lambda: 1e-6)
    with pytest.raises(bn.InputError, match=r"6 inducing rows .* need about .* GiB"):
        fit("sparse", bn.GaussianProcess("rbf", 1.0), X)


def test_draws_and_gradients_that_do_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr(matrices, "available_memory", lambda: 1e3)
    with pytest.raises(bn.InputError, match="GiB"):
        bn.kernels.NNGP().sample(0, X, 2)
    for name, method in (("exact", bn.Exact), ("laplace", bn.ProcessLaplace)):
        likelihood, y, _ = METHODS[name]
        with pytest.raises(bn.InputError, match="GiB"):
            bn.fit(
                bn.kernels.NNGP(), X, y, likelihood=likelihood, inference=method(learn_variances=True)
            )  # fmt: skip


def test_matrices_of_infinite_networks_are_made_in_parts_where_they_are_large(monkeypatch):
    """Pooled images: numbers a pair grow with the square of their pixels."""
    from bayesnet.kernels import Activation, AveragePool, Conv, Dense, Flatten, Image, Serial

    layers = Serial(Image(4, 4), Conv(3), Activation("relu"), AveragePool(2), Flatten(), Dense())
    prior = bn.kernels.NNGP(layers, units="data")
    images, more = RNG.normal(size=(9, 16)), RNG.normal(size=(4, 16))
    model = KernelModel(prior)
    u = np.zeros(0)

    def parts():
        return model.matrix(u, images, images), model.matrix(u, images, more), model.diagonal(u, images)  # fmt: skip

    assert not prior.in_parts(9, 9)
    whole = parts()
    monkeypatch.setattr(matrices, "BLOCK_BYTES", 8 * matrices.LIVE * 256 * 9)  # blocks of 3 rows
    assert prior.in_parts(9, 9)
    assert prior.diagonal_rows == 9
    for a, b in zip(parts(), whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    monkeypatch.setattr(kernel_process.InfiniteNetwork, "diagonal_rows", 4)
    np.testing.assert_allclose(model.diagonal(u, images), whole[2], rtol=1e-12)
    monkeypatch.setattr(matrices, "available_memory", lambda: 1e3)
    with pytest.raises(bn.InputError, match="GiB"):
        fit("exact", prior, RNG.normal(size=(10, 16)))
