"""HMC and NUTS against posteriors known in closed form or by one-dimensional quadrature.

Every comparison is in standard errors that come from the draws' own effective sample size.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import bayesnet as bn

LIMIT = 5.0
METHODS = {
    "hmc": bn.HMC(chains=4, warmup=200, draws=400),
    "nuts": bn.NUTS(chains=4, warmup=200, draws=400),
}


@pytest.fixture(params=sorted(METHODS))
def method(request):
    return METHODS[request.param]


# Where the fast suite has seen NUTS agree on a problem of the same kind already.
NUTS_SLOW = pytest.mark.parametrize(
    "method", ["hmc", pytest.param("nuts", marks=pytest.mark.slow)], indirect=True
)


def table(n=14, d=2, m=1, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(3.0, 2.0, (n, d))
    y = 50.0 + 7.0 * (x @ rng.normal(size=(d, m))) + rng.normal(0.0, 5.0, (n, m))
    return x, y


def fit(prior, x, y, method, **kwargs):
    return bn.fit(prior, x, y, inference=method, warn=False, seed=1, **kwargs)


def chains(post, values):
    """(s, ...) in the order of the flattened chains, back to (c, s, ...)."""
    c, s, _ = post.latents.shape
    return values.reshape(c, s, *values.shape[1:])


def agree(draws, truth):
    scores = oracles.z_scores(draws, np.asarray(truth))
    assert np.abs(scores).max() < LIMIT, scores


def check_functions(post, f, mean, cov, noise_var):
    """Draws f (s, k) against N(mean, cov), and the predictive density of new targets."""
    # Within two standard deviations: far out the density is carried by a handful of draws.
    offsets = np.linspace(-2, 2, len(mean))
    y_new = mean + offsets * np.sqrt(np.diag(cov) + noise_var)
    draws = chains(post, f)
    agree(draws, mean)
    centred = draws - mean
    agree(centred[..., :, None] * centred[..., None, :], cov)
    densities = np.exp(oracles.normal_log_density(y_new, draws, noise_var))
    exact = np.exp(oracles.normal_log_density(y_new, mean, np.diag(cov) + noise_var))
    agree(densities, exact)


def linear_features(x):
    """Of MLP(hidden=()): the bias, and the inputs divided by sqrt(d)."""
    return np.column_stack([np.ones(len(x)), x / np.sqrt(x.shape[1])])


def test_linear_network_is_bayesian_linear_regression(method):
    x, y = table()
    x_new, y_new = table(n=5, seed=1)
    noise = 4.0  # sd, in the units of y
    post = fit(
        bn.NetworkPrior(bn.MLP(hidden=()), in_dim=2),
        x,
        y,
        method,
        likelihood=bn.GaussianLikelihood(noise_std=noise),
    )
    loc, scale = y.mean(0), y.std(0)
    x_loc, x_scale = x.mean(0), x.std(0)
    exact = oracles.LinearRegression.fit(
        linear_features((x - x_loc) / x_scale), ((y - loc) / scale)[:, 0], (noise / scale[0]) ** 2
    )
    mean, cov = exact.functions(linear_features((x_new - x_loc) / x_scale))
    pred = post.predict(x_new)
    user_mean, user_cov = mean * scale[0] + loc[0], cov * scale[0] ** 2
    check_functions(post, pred.values[:, :, 0], user_mean, user_cov, noise**2)
    # What the prediction reports is the mean over just these draws and densities.
    np.testing.assert_allclose(pred.mean, pred.values.mean(0), rtol=1e-12)
    by_hand = np.exp(oracles.normal_log_density(y_new, pred.values, noise**2)).mean(0)
    np.testing.assert_allclose(np.exp(pred.log_prob(y_new)), by_hand, rtol=1e-5)


@NUTS_SLOW
def test_known_variance_of_each_row_and_two_outputs(method):
    x, y = table(m=2)
    rng = np.random.default_rng(2)
    y_var = rng.uniform(4.0, 60.0, y.shape)
    prior = bn.NetworkPrior(bn.MLP(hidden=()), in_dim=2, out_dim=2, units="data")
    x, y, y_var = x / 3, (y - y.mean(0)) / 10, y_var / 100
    post = fit(prior, x, y, method, y_var=y_var)
    x_new = x[:4] + 0.5
    pred = post.predict(x_new, y_var=np.full((4, 2), 0.3))
    for j in range(2):
        exact = oracles.LinearRegression.fit(linear_features(x), y[:, j], y_var[:, j])
        mean, cov = exact.functions(linear_features(x_new))
        check_functions(post, pred.values[:, :, j], mean, cov, 0.3)
    np.testing.assert_allclose(pred.aleatoric_std, np.sqrt(0.3), rtol=1e-6)


def fixed_features(x):
    return jnp.concatenate([jnp.ones_like(x), jnp.sin(x), jnp.cos(2 * x)], axis=1)


def last_layer():
    """A bare pair whose features are fixed, so that only the last layer is random."""

    def init(key):
        return {"w": jnp.zeros(3)}

    def apply(params, x):
        return (fixed_features(x) @ params["w"])[:, None]

    return init, apply


@NUTS_SLOW
def test_random_last_layer_over_fixed_features(method):
    rng = np.random.default_rng(3)
    x = rng.uniform(-2, 2, (10, 1))
    y = np.sin(x[:, 0]) + 0.2 * rng.normal(size=10)
    prior = bn.NetworkPrior(last_layer(), in_dim=1, units="data")
    post = fit(prior, x, y, method, likelihood=bn.GaussianLikelihood(noise_std=0.2))
    x_new = np.linspace(-3, 3, 6)[:, None]
    exact = oracles.LinearRegression.fit(np.asarray(fixed_features(x)), y, 0.04)
    mean, cov = exact.functions(np.asarray(fixed_features(x_new)))
    check_functions(post, post.predict(x_new).values[:, :, 0], mean, cov, 0.04)


@pytest.mark.slow
def test_learned_noise_against_quadrature_over_its_level(method):
    rng = np.random.default_rng(4)
    x = rng.uniform(-2, 2, (12, 1))
    y = np.sin(x[:, 0]) + 0.4 * rng.normal(size=12)
    law = bn.LogNormal(-1.0, 0.7)
    prior = bn.NetworkPrior(last_layer(), in_dim=1, units="data")
    post = fit(prior, x, y, method, likelihood=bn.GaussianLikelihood(noise_std=law))
    phi = np.asarray(fixed_features(x), float)
    x_new = np.array([[-1.0], [0.5], [4.0]])
    y_new = np.array([0.0, 0.3, 1.5])
    phi_new = np.asarray(fixed_features(x_new), float)

    grid = np.linspace(-6, 6, 1201)
    variances = np.exp(2 * (law.loc + law.scale * grid))
    fits = [oracles.LinearRegression.fit(phi, y, v) for v in variances]
    logp = np.array([f.log_evidence for f in fits]) - 0.5 * grid**2
    rule = oracles.Quadrature.of(logp, grid)
    means = np.array([phi_new @ f.mean for f in fits])
    spreads = np.array([np.diag(phi_new @ f.cov @ phi_new.T) for f in fits])
    density = np.exp(oracles.normal_log_density(y_new, means, spreads + variances[:, None]))

    z = chains(post, post.split()[1])[..., 0]
    agree(z, rule.expect(grid))
    agree(z**2, rule.expect(grid**2))
    pred = post.predict(x_new)
    agree(chains(post, pred.values[:, :, 0]), rule.expect(means))
    agree(chains(post, pred.values[:, :, 0] ** 2), rule.expect(means**2 + spreads))
    sampled = np.exp(pred.components.log_prob(y_new[:, None]))[:, :, 0]
    agree(chains(post, sampled), rule.expect(density))


@pytest.mark.slow
def test_a_skewed_posterior_against_quadrature(method):
    """f(x) = exp(w) x: neither Gaussian nor symmetric, so a wrong accept step would show."""

    def init(key):
        return {"w": jnp.zeros(1)}

    def apply(params, x):
        return jnp.exp(params["w"]) * x

    x = np.array([[0.1], [0.2], [0.3]])
    y = np.array([0.2, 0.1, 0.5])
    noise = 0.5
    post = fit(
        bn.NetworkPrior((init, apply), in_dim=1, units="data"),
        x,
        y,
        method,
        likelihood=bn.GaussianLikelihood(noise_std=noise),
    )
    grid = np.linspace(-9, 6, 6001)
    residuals = y - np.exp(grid)[:, None] * x[:, 0]
    rule = oracles.Quadrature.of(-0.5 * (residuals**2).sum(1) / noise**2 - 0.5 * grid**2, grid)
    w = chains(post, post.split()[0])[..., 0]
    mean = rule.expect(grid)
    skewness = rule.expect((grid - mean) ** 3)
    assert skewness < -0.1  # the case is what it claims to be
    agree(w, mean)
    agree((w - mean) ** 2, rule.expect((grid - mean) ** 2))
    agree((w - mean) ** 3, skewness)
    agree(np.exp(w), rule.expect(np.exp(grid)))
    for q in (0.0, 0.5):
        agree((w < q).astype(float), rule.expect((grid < q).astype(float)))
