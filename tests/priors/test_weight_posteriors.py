"""Posteriors under every weight law against quadrature, and centred against non-centred latents."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import Quadrature, z_scores
from scipy import stats
from scipy.special import logsumexp

import bayesnet as bn

W = bn.weights
NOISE = 0.5
# One weight: y = w x + noise, no bias.
ONE_WEIGHT = (lambda key: {"w": jnp.zeros((1, 1))}, lambda p, x: x @ p["w"])
X1 = np.array([[0.5], [1.0], [-1.0], [0.2]])
Y1 = np.array([1.2, 1.9, -2.6, 0.1])


def lognormal_scales(w):
    u, weight = np.polynomial.hermite_e.hermegauss(60)
    return logsumexp(stats.norm.logpdf(w[:, None], 0, np.exp(0.8 * u)), b=weight, axis=1)


def regularised_horseshoe(w):
    v = np.linspace(-15, 15, 601)
    log_weight = -np.logaddexp(v, -v)
    both = log_weight[:, None] + log_weight[None, :]
    scale = 1 / np.sqrt(np.exp(-2 * (v[:, None] + v[None, :])) / 0.25 + 0.25)
    return np.array([logsumexp(both + stats.norm.logpdf(a, 0, scale)) for a in w])


CASES = {
    "laplace": (W.Laplace(), stats.laplace(0, 0.5**0.5).logpdf),
    "student_t": (W.StudentT(df=2.0), stats.t(2).logpdf),
    "hierarchical": (W.Hierarchical(spread=0.8), lognormal_scales),
    "inverse gamma, centred": (
        W.Hierarchical(scale_law="inverse_gamma", shape=1.5, centred=0.5),
        stats.t(3, 0, (stats.gamma(1.5).median() / 1.5) ** 0.5).logpdf,
    ),
    "horseshoe": (W.Horseshoe(global_scale=0.5, slab_scale=2.0), regularised_horseshoe),
    "flow": (W.Flow(), stats.norm.logpdf),
}


@pytest.mark.parametrize(
    "name",
    [n if n == "student_t" else pytest.param(n, marks=pytest.mark.slow) for n in CASES],
)
def test_the_posterior_of_one_weight_is_that_of_quadrature(name):
    recipe, log_prior = CASES[name]
    prior = bn.NetworkPrior(ONE_WEIGHT, recipe, units="data")
    method = bn.HMC(chains=4, warmup=500, draws=1000)
    post = bn.fit(
        prior, X1, Y1, likelihood=bn.GaussianLikelihood(NOISE), inference=method, warn=False
    )
    w = post.functions(np.ones((1, 1))).reshape(4, 1000)
    grid = np.linspace(-8, 8, 1601)
    log_lik = stats.norm.logpdf(Y1[:, None], X1 * grid, NOISE).sum(0)
    exact = Quadrature.of(log_prior(grid) + log_lik, grid)
    tests = np.stack([w, w**2, np.abs(w), w > 1.5], axis=-1)
    truth = exact.expect(np.stack([grid, grid**2, np.abs(grid), grid > 1.5], axis=-1))
    assert np.abs(z_scores(tests, truth)).max() < 4


# --- centred and non-centred ----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("centred", [1.0, 0.4])
@pytest.mark.parametrize("recipe", ["lognormal", "inverse_gamma"])
def test_the_sampling_form_has_the_density_of_the_prior(recipe, centred):
    """log density of v is that of z(v) plus the log determinant of the map, whatever theta."""
    with jax.enable_x64(True):
        knobs = {"per": "unit", "scale_law": recipe, "centred": centred}
        prior = bn.NetworkPrior(bn.MLP((2,)), W.Hierarchical(**knobs), in_dim=2)
        prior = eqx.tree_at(
            lambda p: p.law, prior, jax.tree.map(lambda a: jnp.float64(a) + 0.2, prior.law)
        )
        form = prior.sampling_form()
        v = 1.3 * jax.random.normal(jax.random.key(0), (prior.latent_size,), jnp.float64)
        z = form.law.to_latents(v)
        np.testing.assert_allclose(form.law.from_latents(z), v, rtol=1e-10)
        _, logdet = np.linalg.slogdet(np.asarray(jax.jacfwd(form.law.to_latents)(v)))
        ours = form.log_correction(v) - 0.5 * jnp.sum(v**2)
        np.testing.assert_allclose(ours, logdet - 0.5 * np.sum(np.asarray(z) ** 2), rtol=1e-9)
        x = jnp.ones((3, 2), jnp.float64)
        np.testing.assert_allclose(form.apply(v, x), prior.apply(z, x), rtol=1e-10)
        assert float(prior.log_correction(z)) == 0.0


D = 6
SPREAD = 0.7


def table(n):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(n, D))
    return x, x @ np.array([3.0, -2.0, 1.0, 0.0, 0.5, 4.0]) + 1.0 + NOISE * rng.normal(size=n)


def exact_posterior(x, y):
    """E of the scale latents (u_b, u_w), of their squares, and of the weights, on a grid of u."""
    phi = np.column_stack([np.ones(len(x)), x / D**0.5])
    gram, projected = phi.T @ phi / NOISE**2, phi.T @ y / NOISE**2
    u = np.linspace(-6, 6, 121)
    rows = []
    for b in u:
        for w in u:
            variances = np.exp(2 * SPREAD * np.array([b] + [w] * D))
            precision = gram + np.diag(1 / variances)
            mean = np.linalg.solve(precision, projected)
            _, logdet = np.linalg.slogdet(precision)
            evidence = 0.5 * (projected @ mean - logdet - np.log(variances).sum())
            second = np.diag(np.linalg.inv(precision)) + mean**2
            rows.append([evidence - 0.5 * (b**2 + w**2), b, w, b**2, w**2, *mean, *second])
    rows = np.array(rows)
    return Quadrature.of(rows[:, 0], rows[:, 1:]).expect(rows[:, 1:])


@pytest.mark.slow
@pytest.mark.parametrize("centred", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("n", [20, pytest.param(5000, marks=pytest.mark.slow)])
def test_centred_and_not_they_sample_the_exact_posterior(n, centred):
    x, y = table(n)
    recipe = W.Hierarchical(spread=SPREAD, centred=centred)
    prior = bn.NetworkPrior(bn.MLP(()), recipe, in_dim=D, units="data")
    method = bn.HMC(chains=4, warmup=500, draws=500)
    likelihood = bn.GaussianLikelihood(NOISE)
    post = bn.fit(prior, x, y, likelihood=likelihood, inference=method, warn=False)
    u = np.asarray(post.latents)[..., -2:]  # kept in the prior's own latents in either form
    decoded = jax.vmap(jax.vmap(prior.law.decode))(jnp.asarray(post.latents))[0]
    w = np.concatenate([decoded["b"], decoded["w"][..., 0]], axis=-1).astype(float)
    draws = np.concatenate([u, u**2, w, w**2], axis=-1)
    assert np.abs(z_scores(draws, exact_posterior(x, y))).max() < 4.2
    # Going on from given draws: their latents are mapped into the sampling form.
    if n == 20:
        again = bn.fit(
            prior,
            x,
            y,
            likelihood=likelihood,
            inference=bn.NUTS(chains=2, warmup=1, draws=1),
            init=post,
            warn=False,
        )
        low = np.quantile(post.stats["log_density"], 0.001) - 20
        assert (again.stats["log_density"] > low).all()
