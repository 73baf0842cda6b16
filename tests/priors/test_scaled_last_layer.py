"""A random variance of the last layer: its law, files, its limit, and the posterior of wide networks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import z_scores
from scipy import stats

import bayesnet as bn
from bayesnet.posterior import saving

LAWS = {
    "inverse gamma": (bn.InverseGamma(1.5, 0.7), stats.invgamma(1.5, scale=0.7)),
    "gamma": (bn.Gamma(0.8, 2.0), stats.gamma(0.8, scale=0.5)),
    "log-normal": (bn.LogNormal(0.3, 0.8), stats.lognorm(0.8, scale=np.exp(0.3))),
    "log-normal sd": (
        bn.OnStd(bn.LogNormal(0.3, 0.8)),
        stats.lognorm(1.6, scale=np.exp(0.6)),
    ),
}


def prior_of(law, network=None):
    weights = bn.weights.ScaledLastLayer(law)
    return bn.NetworkPrior(network or bn.MLP((6,)), weights, in_dim=2, out_dim=2)


@pytest.mark.parametrize("name", LAWS)
def test_the_scale_has_its_law(name):
    law, reference = LAWS[name]
    variance = prior_of(law).law.variance
    z = jnp.linspace(-4, 4, 9)
    got = np.exp(np.asarray(jax.vmap(variance.log_value)(z), np.float64))
    np.testing.assert_allclose(got, reference.ppf(stats.norm.cdf(z)), rtol=2e-3)
    far = np.asarray(jax.vmap(variance.log_value)(jnp.array([-8.0, 8.0])))
    assert np.isfinite(far).all()
    again = variance.law()
    u = np.array([-1.0, 0.5])
    expected = bn.priors.variance_laws.log_density_of(law, u)
    np.testing.assert_allclose(
        bn.priors.variance_laws.log_density_of(again, u), expected, rtol=1e-4
    )


def test_a_half_cauchy_scale():
    variance = prior_of(bn.OnStd(bn.HalfCauchy(0.7))).law.variance
    z = jnp.array([-8.0, -3.0, 0.0, 3.0, 8.0])
    got = np.asarray(jax.vmap(variance.log_value)(z), np.float64) / 2
    p = stats.norm.logcdf(-np.abs(np.asarray(z, np.float64)))
    size = np.log(np.tan(np.pi / 2 * np.exp(p)))  # of probability Phi(-|z|); odd
    np.testing.assert_allclose(got, np.log(0.7) - np.sign(z) * size, rtol=1e-4, atol=1e-5)


def test_only_the_last_layer_is_scaled():
    prior = prior_of(bn.LogNormal(0.0, 1.0))
    law = prior.law
    z = jax.random.normal(jax.random.key(0), (law.latent_size,))
    one, two = (law.decode(z.at[-1].set(u)) for u in (0.0, 1.0))
    np.testing.assert_array_equal(one[0]["w"], two[0]["w"])
    ratio = np.exp(
        0.5 * (law.variance.log_value(1.0 * jnp.ones(())) - law.variance.log_value(jnp.zeros(())))
    )
    np.testing.assert_allclose(two[1]["w"] / one[1]["w"], ratio, rtol=1e-5)
    np.testing.assert_allclose(two[1]["b"] / one[1]["b"], ratio, rtol=1e-5)
    for a, b in zip(
        jax.tree.leaves(law.decode(law.encode(two))), jax.tree.leaves(two), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_functions_of_the_prior_are_student_t():
    prior = bn.kernels.NNGP(depth=1, activation="erf").finite(256, 2)
    prior = bn.NetworkPrior(prior.network, bn.weights.ScaledLastLayer(bn.InverseGamma(2.0, 2.0)), 2)
    x = np.array([[0.5, -1.0]])
    limit = prior.infinite_width()
    assert limit.scale == bn.InverseGamma(2.0, 2.0)
    assert limit.noise == "outside"
    draws = np.asarray(prior.sample(0, x, 2000))[:, 0, 0]
    sd = np.sqrt(float(limit.base.kernel(x, x)[0, 0]))
    assert stats.kstest(draws / sd, stats.t(4).cdf).pvalue > 1e-3


def test_a_prior_with_a_scaled_layer_is_saved(tmp_path):
    prior = prior_of(bn.LogNormal(0.0, 1.0))
    saving.save(prior, tmp_path / "prior")
    again = bn.load(tmp_path / "prior")
    x = np.ones((2, 2), np.float32)
    np.testing.assert_array_equal(again.sample(0, x, 3), prior.sample(0, x, 3))


def test_what_has_no_last_layer_or_transport_is_refused():
    with pytest.raises(bn.UnsupportedError, match="transport"):
        bn.weights.ScaledLastLayer(bn.BurrXII(2.0, 1.0))
    with pytest.raises(bn.UnsupportedError, match="last layer"):
        prior_of(
            bn.InverseGamma(),
            (lambda key: {"w": jnp.zeros((2, 2))}, lambda p, x: x @ p["w"]),
        )


@pytest.mark.slow
def test_the_posterior_of_a_wide_network_is_that_of_the_mixture():
    """HMC at growing widths against the exact posterior of the limit."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (10, 1))
    y = 3 * np.sin(2 * x[:, 0]) + 0.2 * rng.normal(size=10)
    new = np.linspace(-2.5, 2.5, 6)[:, None]
    kernel = bn.kernels.NNGP(depth=1, activation="erf", weight_std=1.5, bias_std=0.5, units="data")
    known = bn.GaussianLikelihood(0.2)
    gap = {}
    for width in (4, 128):
        weights = bn.weights.ScaledLastLayer(bn.InverseGamma(1.0, 1.0))
        prior = bn.NetworkPrior(kernel.finite(width, 1).network, weights, 1, units="data")
        limit = prior.infinite_width()
        exact = bn.fit(limit, x, y, likelihood=known, inference="exact").predict(new)
        method = bn.HMC(chains=4, warmup=500, draws=1000)
        post = bn.fit(prior, x, y, likelihood=known, inference=method, warn=False, seed=1)
        draws = post.predict(new).values.reshape(4, -1, 6)
        gap[width] = np.abs(draws.mean((0, 1)) - exact.mean[:, 0]).max()
        if width == 128:
            wide_z = z_scores(draws, exact.mean[:, 0])
            ratio = draws.std((0, 1)) / exact.epistemic_std[:, 0]
    assert gap[128] < gap[4]
    assert (np.abs(wide_z) < 6).all()  # Monte-Carlo error, and what 128 units still differ
    np.testing.assert_allclose(ratio, 1.0, atol=0.15)
