"""Scale mixtures: the multivariate t, quadrature against closed forms and dense integration."""

from __future__ import annotations

import pickle

import jax
import numpy as np
import numpyro.distributions as dist
import oracles
import pytest
from scipy import integrate, stats

import bayesnet as bn
from bayesnet.priors.law_moments import law_moment
from bayesnet.priors.process_solution import ScaleModel, evidence_gradient, solve
from bayesnet.priors.scale_quadrature import ends_of, scale_nodes
from bayesnet.priors.variance_laws import NumpyroLaw, as_variance_law, log_density_of, tail_of

RNG = np.random.default_rng(0)
X = RNG.uniform(-2, 2, (10, 1))
Y = np.sin(2 * X) + 0.1 * RNG.normal(size=(10, 1))
NEW = np.array([[-1.5], [0.1], [3.0]])
GP = bn.GaussianProcess("rbf", 0.7, 1.4, units="data")
KNOWN = bn.GaussianLikelihood(0.3)
LAWS = {
    "inverse gamma": (bn.InverseGamma(1.5, 0.7), stats.invgamma(1.5, scale=0.7)),
    "gamma": (bn.Gamma(0.6, 2.0), stats.gamma(0.6, scale=0.5)),
    "burr": (bn.BurrXII(1.5, 0.8, 2.0), stats.burr12(1.5, 0.8, scale=2.0)),
    "half-cauchy": (bn.HalfCauchy(0.7), stats.halfcauchy(scale=0.7)),
    "log-normal": (bn.LogNormal(0.3, 0.8), stats.lognorm(0.8, scale=np.exp(0.3))),
    "numpyro": (as_variance_law(dist.Weibull(1.3, 0.9)), stats.weibull_min(0.9, scale=1.3)),
}


def gram(noise_var):
    return oracles.rbf(X, X, 0.7, 1.4) + noise_var * np.eye(10)


def fit(prior, y=Y, **options):
    return bn.fit(prior, X, y, **{"likelihood": KNOWN, "inference": "exact", **options})


@pytest.mark.parametrize("name", LAWS)
def test_laws_have_their_densities_and_draws(name):
    law, reference = LAWS[name]
    u = np.array([-3.0, -0.5, 0.4, 2.5])
    np.testing.assert_allclose(
        log_density_of(law, u), reference.logpdf(np.exp(u)) + u, rtol=1e-5, atol=1e-6
    )
    drawn = np.asarray(law.sample(jax.random.key(0), (4000,)), np.float64)
    assert stats.kstest(drawn, reference.cdf).pvalue > 1e-3
    assert pickle.loads(pickle.dumps(law)) == law


def test_a_law_of_the_standard_deviation():
    law = bn.OnStd(bn.HalfCauchy(2.0))
    s = np.exp(np.array([-4.0, 0.0, 3.0]))
    expected = stats.halfcauchy(scale=2.0).logpdf(np.sqrt(s)) - np.log(2 * np.sqrt(s)) + np.log(s)
    np.testing.assert_allclose(law.log_density(np.log(s)), expected, rtol=1e-12)
    assert law.tail == 0.5
    drawn = np.sqrt(np.asarray(law.sample(jax.random.key(1), (4000,))))
    assert stats.kstest(drawn, stats.halfcauchy(scale=2.0).cdf).pvalue > 1e-3


def test_tails_and_moments_are_told_apart():
    assert tail_of(bn.InverseGamma(1.5, 1.0)) == 1.5
    assert tail_of(bn.BurrXII(2.0, 0.7)) == pytest.approx(1.4)
    assert tail_of(bn.LogNormal(0.0, 1.0)) == np.inf
    assert tail_of(as_variance_law(dist.InverseGamma(2.5, 1.0))) == pytest.approx(2.5, rel=1e-3)
    assert tail_of(as_variance_law(dist.Gamma(2.5, 1.0))) == np.inf
    assert law_moment(bn.InverseGamma(3.0, 4.0), 1.0) == pytest.approx(2.0, rel=1e-6)
    assert law_moment(bn.InverseGamma(1.0, 1.0), 1.0) == np.inf
    assert law_moment(as_variance_law(2.5), 1.0) == 2.5


def test_an_inverse_gamma_scale_is_the_multivariate_t():
    """Density of function values, evidence, posterior: 2a degrees of freedom, scale (b / a) K."""
    law = bn.InverseGamma(1.7, 0.9)
    mixture = bn.ScaleMixture(GP, law)
    t = stats.multivariate_t(np.zeros(10), law.b / law.a * gram(0.09), df=2 * law.a)
    np.testing.assert_allclose(float(mixture.log_evidence(X, Y, 0.3)), t.logpdf(Y[:, 0]), rtol=1e-9)
    post = fit(mixture)
    np.testing.assert_allclose(post.log_evidence, t.logpdf(Y[:, 0]), rtol=1e-9)
    # The posterior of a joint t is a ratio of its densities.
    both = np.concatenate([X, NEW])
    cov = oracles.rbf(both, both, 0.7, 1.4) + 0.09 * np.eye(13)
    joint = stats.multivariate_t(np.zeros(13), law.b / law.a * cov, df=2 * law.a)
    y_new = np.array([0.3, -0.4, 2.0])
    expected = joint.logpdf(np.concatenate([Y[:, 0], y_new])) - t.logpdf(Y[:, 0])
    pred = post.predict(NEW)
    np.testing.assert_allclose(pred.joint_log_prob(y_new), expected, rtol=1e-8)
    # Shah et al. 2014, lemma 3.
    quadratic = Y[:, 0] @ np.linalg.solve(gram(0.09), Y[:, 0])
    mean, cov = oracles.gp_regression(
        lambda a, b: oracles.rbf(a, b, 0.7, 1.4), X, Y[:, 0], 0.09, NEW
    )
    df, ratio = 2 * law.a + 10, (law.b + quadratic / 2) / (law.a + 5)
    marginal = stats.t(df, mean, np.sqrt(ratio * (np.diag(cov) + 0.09)))
    np.testing.assert_allclose(pred.log_prob(y_new)[:, 0], marginal.logpdf(y_new), rtol=1e-8)
    np.testing.assert_allclose(pred.std[:, 0], marginal.std(), rtol=1e-8)
    np.testing.assert_allclose(pred.quantile(0.05)[:, 0], marginal.ppf(0.05), rtol=1e-7)
    np.testing.assert_allclose(post.joint(NEW)[1][0], cov * ratio * df / (df - 2), atol=1e-9)


def test_the_mean_is_that_of_the_process_and_the_covariance_is_scaled():
    gp, mixture = fit(GP), fit(bn.ScaleMixture(GP, bn.InverseGamma(1.5, 2.0)))
    np.testing.assert_allclose(mixture.predict(NEW).mean, gp.predict(NEW).mean, atol=1e-10)
    ratio = mixture.joint(NEW)[1] / gp.joint(NEW)[1]
    np.testing.assert_allclose(ratio, ratio[0, 0, 0], rtol=1e-6)
    loud = fit(bn.ScaleMixture(GP, bn.InverseGamma(1.5, 2.0)), 5 * Y)
    np.testing.assert_allclose(loud.predict(NEW).mean, 5 * gp.predict(NEW).mean, atol=1e-9)
    assert (loud.predict(NEW).std > 2 * mixture.predict(NEW).std).all()


def test_quadrature_with_an_inverse_gamma_law_equals_the_closed_form():
    """The same law, hidden from the closed form behind numpyro; few data, far tails."""
    hidden = as_variance_law(dist.InverseGamma(0.7, 1.3))
    assert isinstance(hidden, NumpyroLaw)
    for rows in (1, 2, 10):
        table = {"X": X[:rows], "y": Y[:rows, 0], "likelihood": KNOWN, "inference": "exact"}
        closed = bn.fit(bn.ScaleMixture(GP, bn.InverseGamma(0.7, 1.3)), **table)
        by_nodes = bn.fit(bn.ScaleMixture(GP, hidden), **table)
        np.testing.assert_allclose(by_nodes.log_evidence, closed.log_evidence, atol=1e-6)
        a, b = by_nodes.predict(NEW), closed.predict(NEW)
        for z in (0.0, 3.0, 8.0):
            y = b.mean + z * np.hypot(b.function_scale, b.noise_scale)[0]
            np.testing.assert_allclose(np.exp(a.log_prob(y) - b.log_prob(y)), 1.0, atol=2e-6)
        if rows > 1:  # with one row the variance comes from the far tail of the scale
            np.testing.assert_allclose(a.std, b.std, rtol=2e-3 if rows == 2 else 1e-5)


@pytest.mark.parametrize("noise", ["inside", "outside"])
@pytest.mark.parametrize("law", [bn.Gamma(0.5, 1.0), bn.OnStd(bn.HalfCauchy(1.0))], ids=str)
def test_quadrature_equals_dense_integration(noise, law):
    mixture = bn.ScaleMixture(GP, law, noise=noise)
    u = np.linspace(-40, 40, 16001)
    total = oracles.rbf(X, X, 0.7, 1.4)
    values, vectors = np.linalg.eigh(total)
    s = np.exp(u)[:, None]
    spread = s * (values + 0.09) if noise == "inside" else s * values + 0.09
    rotated = (vectors.T @ Y[:, 0]) ** 2
    log_lik = -0.5 * (np.log(2 * np.pi * spread) + rotated / spread).sum(axis=1)
    terms = log_lik + log_density_of(law, u)
    peak = terms.max()
    weights = np.exp(terms - peak)
    expected = np.log(integrate.simpson(weights, x=u)) + peak
    post = fit(mixture)
    np.testing.assert_allclose(post.log_evidence, expected, atol=1e-6)
    k = oracles.rbf(NEW, X, 0.7, 1.4) @ vectors
    latent = s if noise == "inside" else 1.0
    gain = s / spread
    means = gain * (vectors.T @ Y[:, 0]) @ k.T
    var = s * 1.4 - (s * gain) @ (k**2).T + 0.09 * latent
    y_new = np.array([0.5, -0.2, 4.0])
    density = np.exp(oracles.normal_log_density(y_new, means, var))
    share = weights / integrate.simpson(weights, x=u)
    log_prob = np.log(integrate.simpson(share[:, None] * density, x=u, axis=0))
    pred = post.predict(NEW)
    np.testing.assert_allclose(pred.log_prob(y_new)[:, 0], log_prob, atol=2e-6)
    mean = integrate.simpson(share[:, None] * means, x=u, axis=0)
    np.testing.assert_allclose(pred.mean[:, 0], mean, atol=1e-6)


def test_importance_sampling_agrees_within_its_error():
    mixture = bn.ScaleMixture(GP, bn.LogNormal(0.0, 1.0), noise="outside")
    post = fit(mixture)
    sampled = fit(mixture, inference=bn.Exact(importance_samples=4000))
    error = sampled.solutions[0].error
    assert 0 < error < 0.1
    assert abs(sampled.log_evidence - post.log_evidence) < 4 * error
    assert sampled.log_evidence_error == error
    assert post.log_evidence_error == 0.0
    np.testing.assert_allclose(sampled.predict(NEW).std, post.predict(NEW).std, rtol=0.1)


def test_a_known_scale_is_the_process():
    for noise in ("inside", "outside"):
        mixture = bn.ScaleMixture(GP, 2.0, noise=noise)
        level = 0.3 * np.sqrt(2.0) if noise == "inside" else 0.3
        process = bn.GaussianProcess("rbf", 0.7, 2.8, units="data")
        a = fit(mixture).predict(NEW)
        b = fit(process, likelihood=bn.GaussianLikelihood(level)).predict(NEW)
        np.testing.assert_allclose(a.mean, b.mean, atol=1e-8)
        np.testing.assert_allclose(a.std, b.std, rtol=1e-8)


@pytest.mark.parametrize(
    ("law", "noise", "per_output"),
    [
        (None, "inside", False),
        (bn.InverseGamma(1.5, 2.0), "inside", False),
        (bn.InverseGamma(1.5, 2.0), "inside", True),
        (bn.Gamma(2.0, 2.0), "inside", False),
        (bn.InverseGamma(1.5, 2.0), "outside", False),
        (bn.OnStd(bn.HalfCauchy(1.0)), "outside", True),
    ],
    ids=str,
)
def test_gradients_of_the_evidence_are_finite_differences(law, noise, per_output):
    rng = np.random.default_rng(1)
    residual = rng.normal(size=(10, 2))
    residual[3, 1] = np.nan
    model = ScaleModel(law, noise, per_output, tolerance=1e-10)
    at = (oracles.rbf(X, X, 0.7, 1.4), np.full((10, 2), 0.1), residual)
    a = rng.normal(size=(10, 10))
    along = (0.01 * (a + a.T), 0.05 * rng.uniform(size=(10, 2)), rng.normal(size=(10, 2)))

    def value(h):
        moved = (m + h * d for m, d in zip(at, along, strict=True))
        return solve(*moved, model).log_evidence

    slopes = evidence_gradient(solve(*at, model), 10)
    slope = sum(np.nansum(g * d) for g, d in zip(slopes, along, strict=True))
    np.testing.assert_allclose(slope, (value(1e-5) - value(-1e-5)) / 2e-5, rtol=2e-6)


def test_outputs_share_a_scale_or_have_one_each():
    two = bn.GaussianProcess("rbf", 0.7, 1.4, out_dim=2, units="data")
    y = np.column_stack([Y[:, 0], 20 * Y[:, 0]])
    law = bn.InverseGamma(1.5, 2.0)
    each = fit(bn.ScaleMixture(two, law, per_output=True), y)
    alone = [fit(bn.ScaleMixture(GP, law), y[:, j]) for j in range(2)]
    for j in range(2):
        np.testing.assert_allclose(
            each.predict(NEW).std[:, j], alone[j].predict(NEW).std[:, 0], rtol=1e-9
        )
    np.testing.assert_allclose(each.log_evidence, sum(p.log_evidence for p in alone), rtol=1e-10)
    y_new = np.array([[0.1, 1.0], [0.2, -3.0], [0.0, 9.0]])
    np.testing.assert_allclose(
        each.predict(NEW).joint_log_prob(y_new),
        sum(p.predict(NEW).joint_log_prob(y_new[:, j]) for j, p in enumerate(alone)),
        rtol=1e-9,
    )
    shared = fit(bn.ScaleMixture(two, law), y)
    ratio = shared.joint(NEW)[1][0] / shared.joint(NEW)[1][1]
    np.testing.assert_allclose(ratio, 1.0, rtol=1e-9)
    draws = shared.predict(NEW[2:]).sample(0, 30_000, noise=False)[:, 0]
    centred = np.abs(draws - draws.mean(axis=0))
    assert np.corrcoef(centred.T)[0, 1] > 0.005  # uncorrelated, and yet dependent
    for post in (shared, each):
        pred = post.predict(NEW)
        sampled = pred.sample(1, 30_000)
        for q in (0.1, 0.5, 0.8):
            below = (sampled <= pred.quantile(q)).mean(axis=0)
            np.testing.assert_allclose(below, q, atol=0.012)


def test_infinite_moments_are_reported_as_such():
    heavy = bn.ScaleMixture(GP, bn.InverseGamma(0.4, 1.0))
    for noise in ("inside", "outside"):
        prior = bn.ScaleMixture(GP, bn.InverseGamma(0.4, 1.0), noise=noise)
        post = bn.fit(prior, X[:1], Y[:1, 0], likelihood=KNOWN, inference="exact", warn=False)
        pred = post.predict(NEW)
        assert np.isinf(pred.epistemic_std).all()
        assert np.isfinite(pred.mean).all()
        assert np.isfinite(pred.quantile(0.9)).all()
        assert np.isfinite(fit(prior).predict(NEW).std).all()  # 10 rows: variances again
    with pytest.raises(bn.InputError, match="no covariance"):
        heavy.kernel(X, X)
    finite = bn.ScaleMixture(GP, bn.InverseGamma(3.0, 4.0))
    np.testing.assert_allclose(finite.kernel(X, X), 2 * GP.kernel(X, X), rtol=1e-5)


def test_draws_have_a_scale_of_their_own():
    mixture = bn.ScaleMixture(
        bn.GaussianProcess("rbf", 0.7, 1.4, mean=3.0), bn.InverseGamma(2.0, 2.0)
    )
    draws = np.asarray(mixture.sample(0, X, 4000))
    assert draws.shape == (4000, 10, 1)
    z = (draws[:, 0, 0] - 3.0) / np.sqrt(1.4)
    assert stats.kstest(z, stats.t(4).cdf).pvalue > 1e-3


@pytest.mark.slow
def test_a_network_is_matched_to_a_mixture():
    """A heavy-tailed functional prior: functions of the network get amplitudes of their own."""
    process = bn.GaussianProcess("rbf", 1.5)
    spread = {}
    for name, target in {
        "process": process,
        "mixture": bn.ScaleMixture(process, bn.InverseGamma(1.5, 1.0)),
    }.items():
        prior = bn.NetworkPrior(bn.MLP((20,)), weights="hierarchical")
        match = bn.match_prior(prior, target, inputs=bn.Box([-2.0], [2.0]), steps=200)
        assert match.distance_after < match.distance_before
        draws = np.asarray(match.prior.sample(0, np.linspace(-2, 2, 9)[:, None], 4000))
        amplitude = np.log(draws.std(axis=(1, 2)))
        spread[name] = amplitude.std()
    assert spread["mixture"] > 1.2 * spread["process"]


def test_bad_mixtures_say_what_is_expected():
    with pytest.raises(bn.InputError, match="ScaledLastLayer"):
        bn.ScaleMixture(bn.NetworkPrior(bn.MLP((3,))), bn.InverseGamma())
    with pytest.raises(bn.InputError, match="inside"):
        bn.ScaleMixture(GP, bn.InverseGamma(), noise="insde")
    with pytest.raises(bn.InputError, match="law of a scale"):
        bn.ScaleMixture(GP, "gamma")
    with pytest.raises(bn.InputError, match="positive"):
        bn.InverseGamma(-1.0, 2.0)
    with pytest.raises(bn.InputError, match="positive"):
        bn.ScaleMixture(GP, dist.Normal(0.0, 1.0))
    with pytest.raises(bn.InputError, match="one number"):
        bn.ScaleMixture(GP, dist.Gamma(np.ones(2), 1.0))
    with pytest.raises(bn.InputError, match="noise_std"):
        bn.ScaleMixture(GP, bn.InverseGamma(), noise="outside").log_evidence(X, Y, 0.0)


NEAR_ONE = [
    bn.InverseGamma(1.005, 1.3),
    bn.BurrXII(2.0, 0.51, 0.7),
    bn.OnStd(bn.BurrXII(2.0, 1.05)),
]
MOMENTS = [
    *[(law, reference) for law, reference in LAWS.values()],
    *[
        (as_variance_law(law), reference)
        for law, reference in (
            (dist.InverseGamma(1.5, 0.7), stats.invgamma(1.5, scale=0.7)),
            (dist.Gamma(0.6, 2.0), stats.gamma(0.6, scale=0.5)),
            (dist.Chi2(3.0), stats.chi2(3.0)),
            (dist.Exponential(2.0), stats.expon(scale=0.5)),
            (dist.HalfNormal(1.7), stats.halfnorm(scale=1.7)),
            (dist.HalfCauchy(0.7), stats.halfcauchy(scale=0.7)),
            (dist.Pareto(1.0, 3.0), stats.pareto(3.0)),
        )
    ],
]


@pytest.mark.parametrize(("law", "reference"), MOMENTS, ids=lambda v: type(v).__name__)
def test_moments_have_closed_forms(law, reference):
    for power in (0.5, 1.0, 1.3):
        if power >= tail_of(law) - 1e-9:
            assert law_moment(law, power) == np.inf
            continue
        q = np.linspace(-60.0, 60.0, 200001)  # in logarithms, far into both tails
        terms = reference.logpdf(np.exp(q)) + q + power * q
        expected = np.exp(np.logaddexp.reduce(terms)) * (q[1] - q[0])
        assert law_moment(law, power) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("law", "mean"),
    [
        (dist.Uniform(0.5, 2.0), 1.25),
        (dist.Uniform(0.0, 2.0), 1.0),
        (dist.LogUniform(0.5, 2.0), 1.5 / np.log(4.0)),
        (bn.OnStd(dist.Uniform(0.5, 1.0)), 7.0 / 12.0),
        (dist.Pareto(1.0, 1.2), 6.0),
    ],
    ids=lambda v: type(v).__name__,
)
@pytest.mark.parametrize("noise", ["inside", "outside"])
def test_laws_that_begin_or_end_with_a_jump(law, mean, noise):
    law = as_variance_law(law)
    assert law_moment(law, 1.0) == pytest.approx(mean, rel=1e-8)
    ends = ends_of(lambda u: log_density_of(law, u))
    u = np.linspace(max(ends[0], -30.0), min(ends[1], 30.0), 20001)
    s = np.exp(u)
    v = s * (1.4 + 0.09) if noise == "inside" else s * 1.4 + 0.09
    y = 0.7
    w = np.exp(log_density_of(law, u)) * stats.norm.pdf(y, scale=np.sqrt(v))
    evidence = integrate.simpson(w, x=u)
    post = bn.fit(
        bn.ScaleMixture(GP, law, noise=noise), np.zeros((1, 1)), np.array([y]), likelihood=KNOWN,
        inference="exact", warn=False,
    )  # fmt: skip
    assert post.log_evidence == pytest.approx(np.log(evidence), abs=1e-6)
    expected = integrate.simpson(w * 1.4 * s * y / v, x=u) / evidence
    if noise == "outside":
        assert post.predict(np.zeros((1, 1))).mean[0, 0] == pytest.approx(expected, rel=1e-6)


def test_means_near_where_they_cease_to_exist():
    for a in (1.005, 1.02, 1.1):
        assert law_moment(bn.InverseGamma(a, a), 1.0) == pytest.approx(a / (a - 1), rel=1e-10)
        mix = bn.ScaleMixture(bn.GaussianProcess("rbf"), bn.InverseGamma(a, a))
        assert float(mix.kernel(X[:1], X[:1])[0, 0]) == pytest.approx(a / (a - 1), rel=1e-5)

    for law in (dist.InverseGamma(1.0, 2.0), dist.HalfCauchy(0.3), dist.Pareto(1.0, 1.0)):
        assert law_moment(as_variance_law(law), 1.0) == np.inf

    class Stated:
        """Without a closed form: the sum goes on where the grid ends."""

        shape, tail = (), 1.02

        def sample(self, key, shape=()):
            return bn.InverseGamma(1.02, 1.0).sample(key, shape)

        def log_density(self, u):
            return bn.InverseGamma(1.02, 1.0).log_density(u)

    assert law_moment(Stated(), 1.0) == pytest.approx(1 / 0.02, rel=1e-6)


@pytest.mark.parametrize("law", NEAR_ONE, ids=str)
def test_nodes_have_the_mean_of_the_scale(law):
    rule = scale_nodes(lambda u: log_density_of(law, u), 1e-6, tail_of(law))
    mean = np.sum(np.exp(rule.log_weight + rule.u))
    assert mean == pytest.approx(law_moment(law, 1.0), rel=1e-5)


def test_predicted_variances_of_one_row_with_a_tail_just_above_one():
    # One row, noise outside: the posterior of s has the tail 0.55 + 1/2.
    x, y, new = np.zeros((1, 1)), np.array([0.4]), np.array([[0.7]])
    law = bn.InverseGamma(0.55, 0.5)
    post = bn.fit(
        bn.ScaleMixture(GP, law, noise="outside"), x, y, likelihood=KNOWN, inference="exact", warn=False
    )  # fmt: skip
    k, c = 1.4, 1.4 * np.exp(-0.5)
    u = np.linspace(-30, 700, 400001)
    s = np.exp(u)
    log_w = log_density_of(law, u) - 0.5 * np.log(s * k + 0.09) - 0.08 / (s * k + 0.09)
    w = np.exp(log_w - log_w.max())
    w /= w.sum()
    mean, variance = s * c / (s * k + 0.09) * 0.4, s * (k - s * c**2 / (s * k + 0.09))
    centre = np.sum(w * mean)
    # What is left beyond: the variance grows like s (k - c^2 / k).
    rest = w[-1] * variance[-1] / (u[1] - u[0]) / 0.05
    expected = np.sum(w * (variance + (mean - centre) ** 2)) + rest
    got = post.predict(new)
    assert got.epistemic_std[0, 0] == pytest.approx(np.sqrt(expected), rel=1e-3)
    assert got.aleatoric_std[0, 0] == pytest.approx(0.3, rel=1e-6)


def test_noise_outside_has_its_own_variance_where_that_of_the_function_is_infinite():
    x, y, new = X[:1], Y[:1], NEW
    for noise, aleatoric in (("outside", 0.3), ("inside", np.inf)):
        mix = bn.ScaleMixture(GP, bn.InverseGamma(0.4, 0.4), noise=noise)
        post = bn.fit(mix, x, y, likelihood=KNOWN, inference="exact", warn=False)
        said = post.predict(new)
        np.testing.assert_allclose(said.aleatoric_std, aleatoric)
        assert np.isinf(said.epistemic_std).all()
        assert np.isinf(said.std).all()
    ensemble = bn.fit(
        bn.ScaleMixture(bn.kernels.NTK(), bn.InverseGamma(0.9, 0.9), noise="outside"),
        X, Y, likelihood=KNOWN, inference=bn.NTKEnsemble(), warn=False,
    ).predict(new)  # fmt: skip
    np.testing.assert_allclose(ensemble.aleatoric_std, 0.3)
    assert np.isinf(ensemble.epistemic_std).all()
