"""Mixtures of laws other than the Gaussian: integrals, quantiles and parts of the variance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

import bayesnet as bn
from bayesnet.likelihoods.gaussian import Normal
from bayesnet.likelihoods.laplace import LaplaceLaw
from bayesnet.likelihoods.poisson import PoissonLaw
from bayesnet.likelihoods.student_t import StudentTLaw

RNG = np.random.default_rng(0)
S, N, M = 6, 3, 2
F = RNG.normal(0.0, 2.0, (S, N, M))
SCALE = RNG.uniform(0.3, 1.5, (S, N, M))
LAWS = {
    "heteroscedastic": Normal(F, SCALE),
    "student t": StudentTLaw(F, SCALE[:, :1], RNG.uniform(3.0, 9.0, (S, 1, M))),
    "laplace": LaplaceLaw(F, SCALE[:, :1]),
    "poisson": PoissonLaw(np.exp(F)),
}


def prediction(law):
    return bn.Prediction(law, law.location)


@pytest.mark.parametrize("name", LAWS)
def test_total_variance_is_the_sum_of_its_parts(name):
    pred = prediction(LAWS[name])
    np.testing.assert_allclose(pred.std**2, pred.epistemic_std**2 + pred.aleatoric_std**2)


@pytest.mark.parametrize("name", ["heteroscedastic", "student t", "laplace"])
def test_density_and_moments_by_quadrature(name):
    pred = prediction(LAWS[name])
    for i, j in ((0, 0), (2, 1)):

        def density(y, i=i, j=j):
            return float(np.exp(pred.log_prob(np.full((N, M), y))[i, j]))

        def integral(g, upper=np.inf, i=i, j=j):
            # Laplace densities have kinks at each component's location.
            inner = [v for v in sorted(F[:, i, j]) if v < upper]
            edges = [-np.inf, *inner, upper]
            parts = zip(edges[:-1], edges[1:], strict=True)
            return sum(integrate.quad(lambda y: g(y) * density(y), a, b)[0] for a, b in parts)

        assert integral(lambda y: 1.0) == pytest.approx(1, abs=1e-6)
        mean = integral(lambda y: y)
        assert mean == pytest.approx(pred.mean[i, j], abs=1e-5)
        assert integral(lambda y, mean=mean: (y - mean) ** 2) == pytest.approx(
            pred.std[i, j] ** 2, rel=1e-4
        )
        assert integral(lambda y: 1.0, 0.7) == pytest.approx(
            pred.cdf(np.full((N, M), 0.7))[i, j], abs=1e-6
        )


@pytest.mark.parametrize("q", [1e-6, 0.05, 0.5, 0.95])
@pytest.mark.parametrize("name", ["heteroscedastic", "student t", "laplace"])
def test_quantiles_invert_the_distribution(name, q):
    pred = prediction(LAWS[name])
    np.testing.assert_allclose(pred.cdf(pred.quantile(q)), q, rtol=1e-6)


def test_counts_by_summation():
    pred = prediction(LAWS["poisson"])
    counts = np.arange(2000.0)
    rate = np.exp(F)
    pmf = stats.poisson(rate[..., None]).pmf(counts).mean(0)
    for count in (0, 3, 40):
        np.testing.assert_allclose(
            pred.log_prob(np.full((N, M), count)), np.log(pmf[..., count]), rtol=1e-6
        )
    np.testing.assert_allclose(pred.mean, pmf @ counts, rtol=1e-9)
    np.testing.assert_allclose(pred.std**2, pmf @ counts**2 - (pmf @ counts) ** 2, rtol=1e-8)
    assert np.isneginf(pred.log_prob(np.full((N, M), 1.5))).all()
    for q in (1e-4, 0.05, 0.5, 0.9, 0.999):
        expected = (np.cumsum(pmf, axis=-1) >= q).argmax(axis=-1)
        np.testing.assert_array_equal(pred.quantile(q), expected)
    low, high = pred.interval(0.8)
    held = pred.cdf(high) - pred.cdf(low - 1)
    assert (held >= 0.8).all()
    samples = pred.sample(0, 20_000)
    np.testing.assert_array_equal(samples, np.round(samples))
    error = pred.std / np.sqrt(20_000)
    assert (np.abs(samples.mean(0) - pred.mean) < 5 * error).all()


def test_infinite_variance_is_told_and_quantiles_stand():
    df = np.array([3.0, 1.5, 0.8])[:, None, None]
    heavy = StudentTLaw(F[:3], np.ones((3, 1, 1)), df)
    pred = prediction(heavy)
    assert np.isinf(pred.std).all()
    assert np.isinf(pred.aleatoric_std).all()
    assert np.isnan(pred.mean).all()  # one draw has no mean
    assert np.isfinite(pred.epistemic_std).all()
    np.testing.assert_allclose(pred.cdf(pred.quantile(0.3)), 0.3, rtol=1e-9)
    assert np.isfinite(pred.log_prob(np.zeros((N, M)))).all()
    with_mean = prediction(StudentTLaw(F[:2], np.ones((2, 1, 1)), df[:2]))
    assert np.isfinite(with_mean.mean).all()
    assert np.isinf(with_mean.std).all()
