"""Ensembles of infinitely wide trained networks against trained draws, linear models and wide networks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesnet as bn

RNG = np.random.default_rng(0)
X = RNG.uniform(-1.5, 1.5, (7, 2))
Y = np.column_stack([np.sin(2 * X[:, 0]), X[:, 1]])
NEW = RNG.uniform(-2, 2, (4, 2))
KERNEL = bn.kernels.NTK(depth=1, activation="erf", out_dim=2, units="data")
KNOWN = bn.GaussianLikelihood(0.2)


def fit(kernel=KERNEL, y=Y, **options):
    method = bn.NTKEnsemble(restarts=0)
    return bn.fit(kernel, X, y, inference=method, **{"likelihood": KNOWN, **options})


def test_the_law_is_that_of_trained_draws():
    """Draws of networks at the start, moved by the flow of their tangent kernel."""
    post = fit()
    both = np.concatenate([X, NEW])
    start = np.asarray(KERNEL.nngp.kernel(both, both), np.float64)
    tangent = np.asarray(KERNEL.kernel(both, both), np.float64)
    root = np.linalg.cholesky(start + 1e-7 * np.eye(11))
    f0 = RNG.normal(size=(40_000, 11)) @ root.T
    flow = tangent[7:, :7] @ np.linalg.inv(tangent[:7, :7] + 0.04 * np.eye(7))
    ends = f0[:, 7:] + (Y[:, 0] - f0[:, :7]) @ flow.T
    mean, cov = post.joint(NEW)
    sd = np.sqrt(np.diag(cov[0]))
    np.testing.assert_allclose(ends.mean(0), mean[:, 0], atol=5 * sd.max() / 200)
    np.testing.assert_allclose(np.cov(ends.T), cov[0], atol=0.03 * sd.max() ** 2)
    pred = post.predict(NEW)
    np.testing.assert_allclose(pred.epistemic_std[:, 0], sd, rtol=1e-6)
    np.testing.assert_allclose(pred.mean, post.as_process().predict(NEW).mean)
    np.testing.assert_allclose(pred.aleatoric_std, 0.2)


@pytest.mark.slow
def test_a_linear_model_trained_is_a_linear_model_conditioned():
    """Without hidden layers the tangent kernel is the covariance: without noise, the posterior."""
    linear = bn.kernels.NTK(depth=0, weight_std=1.0, bias_std=0.5, units="data")
    x = X[:2]
    tiny = bn.GaussianLikelihood(1e-4)
    trained = bn.fit(linear, x, Y[:2, 0], inference=bn.NTKEnsemble(), likelihood=tiny)
    start = np.asarray(linear.nngp.kernel(NEW, NEW))
    np.testing.assert_allclose(start, linear.kernel(NEW, NEW), rtol=1e-5)
    exact = bn.fit(linear.nngp, x, Y[:2, 0], inference="exact", likelihood=tiny)
    np.testing.assert_allclose(trained.joint(NEW)[1], exact.joint(NEW)[1], atol=1e-5)


def test_it_is_saved_and_has_no_evidence(tmp_path):
    post = fit(likelihood=None)
    post.save(tmp_path / "post")
    again = bn.load(tmp_path / "post")
    np.testing.assert_array_equal(again.predict(NEW).std, post.predict(NEW).std)
    assert post.diagnostics().ok
    with pytest.raises(bn.UnsupportedError, match="no evidence"):
        _ = post.log_evidence
    with pytest.raises(bn.UnsupportedError, match="leave-one-out"):
        post.loo()
    with pytest.raises(bn.UnsupportedError, match=r"bn\.Exact"):
        fit(KERNEL.nngp)
    with pytest.raises(bn.UnsupportedError, match="no posterior"):
        bn.surrogates.Surrogate.from_posterior(post)


@pytest.mark.slow
def test_wide_networks_trained_come_near_it():
    """Networks of 1,000 units, each moved by the flow of its own tangent kernel (linearised)."""
    kernel = bn.kernels.NTK(depth=1, activation="erf", units="data")
    prior = kernel.finite(1000, 2)
    both = jnp.asarray(np.concatenate([X, NEW]), jnp.float32)

    @jax.jit
    def trained(key):
        z = jax.random.normal(key, (prior.latent_size,))
        f0 = prior.apply(z, both)[:, 0]
        slope = jax.jacrev(lambda v: prior.apply(v, both)[:, 0])(z)
        tangent = slope @ slope.T
        inner = tangent[:7, :7] + 0.04 * jnp.eye(7)
        return f0[7:] + tangent[7:, :7] @ jnp.linalg.solve(inner, jnp.asarray(Y[:, 0]) - f0[:7])

    ends = np.asarray([trained(k) for k in jax.random.split(jax.random.key(0), 2000)])
    post = bn.fit(kernel, X, Y[:, 0], inference=bn.NTKEnsemble(), likelihood=KNOWN)
    mean, cov = post.joint(NEW)
    sd = np.sqrt(np.diag(cov[0]))
    np.testing.assert_allclose(ends.mean(0), mean[:, 0], atol=5 * sd.max() / np.sqrt(2000))
    np.testing.assert_allclose(ends.std(0), sd, rtol=0.1)
