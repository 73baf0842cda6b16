"""Densities and laws of each likelihood in user units, against SciPy and numpyro."""

from __future__ import annotations

import jax.numpy as jnp
import likelihood_cases as cases
import numpy as np
import pytest
from likelihood_cases import COUNTS, REAL, THREE, TWO
from scipy import stats
from scipy.special import expit, softmax

import bayesnet as bn

RNG = np.random.default_rng(1)
F = REAL + RNG.normal(size=REAL.shape) * [4.0, 0.004]  # functions in the units of y
G = RNG.normal(size=REAL.shape)
LEVEL = bn.LogNormal(-1.0, 0.5)
SPREAD = REAL.std(0)


def user_densities(likelihood, z, f, y_var=None):
    """The library's densities of rows for outputs `f` in user units, brought back to these."""
    _, bound, data = cases.bind(likelihood, REAL, y_var=y_var, pad=False)
    scaled = data.scaling.y_in(f[:, :2])
    outputs = jnp.asarray(np.concatenate([scaled, f[:, 2:]], axis=1), jnp.float32)
    rows = bound.log_prob(jnp.asarray(z, jnp.float32), outputs, data.rows)
    return np.asarray(rows) - np.log(data.scaling.y_scale).sum()


def user_law(likelihood, z, f, y_var=None):
    """The law of new targets, one draw, in user units."""
    _, bound, data = cases.bind(likelihood, REAL, pad=False)
    scaled = np.concatenate([data.scaling.y_in(f[:, :2]), f[:, 2:]], axis=1)[None]
    variance = None if y_var is None else y_var / data.scaling.y_scale**2
    law = bound.conditional(np.asarray(z, float)[None], scaled, variance)
    return law.affine(data.scaling.y_loc, data.scaling.y_scale)


Z2, Z4 = np.array([0.3, -0.7]), np.array([0.3, -0.7, 0.5, -1.2])
REAL_LAWS = {
    "student t, default": (bn.StudentTLikelihood(), Z2, lambda: _t(4.0, SPREAD * np.exp(-2 + Z2))),
    "student t, known": (bn.StudentTLikelihood(2.5, 0.3), [], lambda: _t(2.5, 0.3)),
    "student t, cauchy": (bn.StudentTLikelihood(1.0, 0.3), [], lambda: _t(1.0, 0.3)),
    "student t, learned": (
        bn.StudentTLikelihood(None, LEVEL),
        Z4,
        lambda: _t(2 + 4 * np.exp(Z4[2:]), np.exp(-1 + 0.5 * Z4[:2])),
    ),
    "student t, law of df": (
        bn.StudentTLikelihood(LEVEL, 0.2),
        Z2,
        lambda: _t(np.exp(-1 + 0.5 * Z2), 0.2),
    ),
    "laplace, default": (
        bn.LaplaceLikelihood(),
        Z2,
        lambda: stats.laplace(F, SPREAD * np.exp(-2 + Z2)),
    ),
    "laplace, known": (bn.LaplaceLikelihood(0.4), [], lambda: stats.laplace(F, 0.4)),
    "laplace, law": (
        bn.LaplaceLikelihood(LEVEL),
        Z2,
        lambda: stats.laplace(F, np.exp(-1 + 0.5 * Z2)),
    ),
    "heteroscedastic, default": (
        bn.HeteroscedasticLikelihood(),
        [],
        lambda: stats.norm(F, SPREAD * np.exp(-2 + G)),
    ),
    "heteroscedastic, law": (
        bn.HeteroscedasticLikelihood(LEVEL),
        [],
        lambda: stats.norm(F, np.exp(-1 + 0.5 * G)),
    ),
}


def _t(df, scale):
    return stats.t(df, F, scale)


def outputs_of(name):
    return np.concatenate([F, G], axis=1) if name.startswith("hetero") else F


@pytest.mark.parametrize("name", REAL_LAWS)
def test_densities_of_real_targets(name):
    likelihood, z, law = REAL_LAWS[name]
    expected = law().logpdf(REAL).sum(1)
    np.testing.assert_allclose(
        user_densities(likelihood, z, outputs_of(name)), expected, rtol=3e-5, atol=3e-5
    )


@pytest.mark.parametrize("name", REAL_LAWS)
def test_laws_of_new_real_targets(name):
    likelihood, z, law = REAL_LAWS[name]
    got, expected = user_law(likelihood, z, outputs_of(name)), law()
    y = REAL + 0.1
    # The level itself is held in float32.
    np.testing.assert_allclose(got.log_prob(y)[0], expected.logpdf(y), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got.cdf(y)[0], expected.cdf(y), rtol=1e-4)
    for q in (1e-5, 0.2, 0.5, 0.9):
        quantile = (got.quantile(q)[0] - F) / (expected.ppf(0.9) - F)
        np.testing.assert_allclose(
            quantile, (expected.ppf(q) - F) / (expected.ppf(0.9) - F), rtol=1e-5, atol=1e-12
        )
    heavy = np.broadcast_to(getattr(got, "df", 9.0), got.location.shape)[0]
    np.testing.assert_allclose(got.location[0], F, rtol=1e-10)
    np.testing.assert_allclose(got.mean[0], np.where(heavy > 1, F, np.nan))
    assert got.variance.shape == (1, *F.shape)
    with np.errstate(invalid="ignore"):
        variance = np.where(heavy > 2, expected.var(), np.inf)
    np.testing.assert_allclose(got.variance[0], variance, rtol=1e-5)


@pytest.mark.parametrize("name", REAL_LAWS)
def test_samples_follow_the_law(name):
    likelihood, z, law = REAL_LAWS[name]
    k = 4000
    pick = (np.zeros((k, 1, 1), int), np.arange(len(F))[None, :, None], np.arange(2)[None, None])
    samples = user_law(likelihood, z, outputs_of(name)).sample(np.random.default_rng(0), pick)
    uniform = law().cdf(samples)
    for i in range(2):
        # Twenty laws are tried; a wrong one has a p-value that is zero to many digits.
        assert stats.kstest(uniform[:, i, i], "uniform").pvalue > 1e-4


def test_known_variances_add_to_a_noise_that_depends_on_x():
    y_var = RNG.uniform(0.5, 2.0, REAL.shape) * [9.0, 1e-5]
    f = np.concatenate([F, G], axis=1)
    variance = np.exp(2 * (-1 + 0.5 * G)) + y_var
    likelihood = bn.HeteroscedasticLikelihood(LEVEL)
    expected = stats.norm(F, np.sqrt(variance)).logpdf(REAL).sum(1)
    np.testing.assert_allclose(user_densities(likelihood, [], f, y_var), expected, rtol=3e-5)
    np.testing.assert_allclose(user_law(likelihood, [], f, y_var).variance[0], variance, rtol=1e-6)
    _, bound, _ = cases.bind(likelihood, REAL, y_var=y_var)
    law = bound.conditional(np.zeros((1, 0)), np.zeros((1, 3, 4)), None)
    noise = np.exp(2 * (-1 - np.log(SPREAD)))
    np.testing.assert_allclose(
        law.variance[0], np.tile(noise + y_var.mean(0) / SPREAD**2, (3, 1)), rtol=1e-5
    )


def test_large_degrees_of_freedom_are_gaussian_in_float32():
    """The normalising constant keeps its digits where two log-gammas would cancel."""
    for df in (0.1, 1.0, 19.9, 20.1, 1e3, 1e6):
        _, bound, data = cases.bind(bn.StudentTLikelihood(df, 1.0), REAL[:, :1])
        scale = 1 / data.scaling.y_scale[0]
        rows = bound.log_prob(jnp.zeros(0), jnp.zeros((16, 1)), data.rows)[:6]
        expected = stats.t(df, 0, scale).logpdf(data.y[:, 0].astype(float))
        np.testing.assert_allclose(rows, expected, rtol=2e-5)


# --- classes -------------------------------------------------------------------------------


def label_densities(likelihood, y, f, z=()):
    _, bound, data = cases.bind(likelihood, y, pad=False)
    return np.asarray(bound.log_prob(jnp.asarray(z, jnp.float32), jnp.asarray(f), data.rows))


def test_bernoulli_against_numpyro():
    dist = pytest.importorskip("numpyro.distributions")
    f = np.array([[-90.0], [3.0], [0.0], [90.0], [-1.0], [1e-3]], np.float32)
    expected = dist.Bernoulli(logits=f[:, 0]).log_prob((TWO == "yes").astype(int))
    got = label_densities(bn.BernoulliLikelihood(), TWO, f)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert got[0] == pytest.approx(0.0, abs=1e-30)  # "no", and sure of it
    assert got[3] == pytest.approx(-90.0)  # "no", but sure of "yes": no underflow
    swapped = label_densities(bn.BernoulliLikelihood(("yes", "no")), TWO, -f)
    np.testing.assert_allclose(swapped, got)


def test_categorical_against_numpyro():
    dist = pytest.importorskip("numpyro.distributions")
    f = RNG.normal(0.0, 3.0, (6, 3)).astype(np.float32)
    f[0] = [200.0, -200.0, 0.0]
    codes = np.searchsorted(["a", "b", "c"], THREE)
    expected = dist.Categorical(logits=f).log_prob(codes)
    got = label_densities(bn.CategoricalLikelihood(), THREE, f)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    # A common shift of all logits changes nothing.
    np.testing.assert_allclose(
        label_densities(bn.CategoricalLikelihood(), THREE, f + 5), got, rtol=1e-5
    )


@pytest.mark.parametrize("learned", [False, True])
def test_label_noise_by_hand(learned):
    share = 0.15
    law = bn.LogitNormal(-2.0, 0.5)
    z = [(np.log(share / (1 - share)) + 2.0) / 0.5] if learned else []
    likelihood = bn.CategoricalLikelihood(label_noise=law if learned else share)
    f = RNG.normal(0.0, 3.0, (6, 3)).astype(np.float32)
    f[0] = [200.0, -200.0, 0.0]
    codes = np.searchsorted(["a", "b", "c"], THREE)
    p = (1 - share) * softmax(f.astype(float), axis=1) + share / 3
    got = label_densities(likelihood, THREE, f, z)
    np.testing.assert_allclose(got, np.log(p[np.arange(6), codes]), rtol=1e-5)
    likelihood, bound, _ = cases.bind(likelihood, THREE)
    law = bound.conditional(np.asarray(z, float)[None], f[None], None)
    np.testing.assert_allclose(law.probabilities[0], p, rtol=1e-6)
    np.testing.assert_allclose(law.clean[0], softmax(f.astype(float), axis=1), rtol=1e-9)
    if learned:
        np.testing.assert_allclose(bound.summary(np.array([z]))["label_noise"], [[share]])


def test_two_classes_by_either_likelihood():
    f = RNG.normal(0.0, 3.0, (6, 1)).astype(np.float32)
    both = np.concatenate([np.zeros_like(f), f], axis=1)
    np.testing.assert_allclose(
        label_densities(bn.BernoulliLikelihood(), TWO, f),
        label_densities(bn.CategoricalLikelihood(), TWO, both),
        rtol=1e-5,
    )
    _, bound, _ = cases.bind(bn.BernoulliLikelihood(), TWO)
    law = bound.conditional(np.zeros((1, 0)), f[None], None)
    np.testing.assert_allclose(law.probabilities[0, :, 1], expit(f[:, 0].astype(float)))


# --- counts --------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1.0, 40.0])
def test_poisson_against_scipy(rate):
    likelihood = bn.PoissonLikelihood(rate)
    f = RNG.normal(0.0, 1.5, COUNTS.shape).astype(np.float32)
    expected = stats.poisson(rate * np.exp(f.astype(float)))
    _, bound, data = cases.bind(likelihood, COUNTS, pad=False)
    rows = bound.log_prob(jnp.zeros(0), jnp.asarray(f), data.rows)
    np.testing.assert_allclose(rows, expected.logpmf(COUNTS).sum(1), rtol=2e-5)
    law = bound.conditional(np.zeros((1, 0)), f[None], None)
    assert law.discrete
    np.testing.assert_allclose(law.mean[0], expected.mean(), rtol=1e-6)
    np.testing.assert_allclose(law.variance[0], expected.var(), rtol=1e-6)
    for y in (COUNTS.astype(float), COUNTS + 0.5, -1.0 - COUNTS):
        np.testing.assert_allclose(law.log_prob(y)[0], expected.logpmf(y), rtol=1e-5)
        np.testing.assert_allclose(law.cdf(y)[0], expected.cdf(y), rtol=1e-4, atol=1e-30)
    for q in (0.01, 0.5, 0.99):
        np.testing.assert_array_equal(law.quantile(q)[0], expected.ppf(q))
    k = 4000
    pick = (np.zeros((k, 1, 1), int), np.arange(6)[None, :, None], np.arange(2)[None, None])
    samples = law.sample(np.random.default_rng(0), pick)
    error = np.sqrt(expected.var() / k)
    assert (np.abs(samples.mean(0) - expected.mean()) < 5 * error).all()
    np.testing.assert_array_equal(samples, np.round(samples))


def test_large_counts_keep_their_digits_in_float32():
    y = np.array([[9], [11], [1000], [100_000], [1_000_000], [10_000_000]])
    _, bound, data = cases.bind(bn.PoissonLikelihood(), y, pad=False)
    for off in (0.0, 1e-3, -0.01):
        f = jnp.asarray(np.log(y) + off, jnp.float32)
        # The rate that float32 can hold: what matters is the density of that one.
        expected = stats.poisson(np.exp(np.asarray(f, float))).logpmf(y)[:, 0]
        rows = bound.log_prob(jnp.zeros(0), f, data.rows)
        # A sum of y * f and log y! would be off by several at the last one.
        np.testing.assert_allclose(rows, expected, rtol=1e-3, atol=0.1)


def test_rates_beyond_what_can_be_counted_are_drawn_all_the_same():
    from bayesnet.likelihoods.poisson import PoissonLaw

    draws = PoissonLaw(np.full((1, 1, 1), 1e20)).sample(
        np.random.default_rng(0), (np.zeros((50, 1, 1), int), np.zeros((1, 1, 1), int), 0)
    )
    assert np.abs(draws / 1e20 - 1).max() < 1e-9
