"""Laws of positive hyper-parameters."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import bayesnet as bn
from bayesnet.priors.laws import check_positive_law


def test_log_normal_is_exp_of_a_normal():
    law = bn.LogNormal(0.5, 0.8)
    draws = np.asarray(law.sample(jax.random.key(0), (20_000,)), float)
    assert stats.kstest(draws, stats.lognorm(0.8, scale=np.exp(0.5)).cdf).pvalue > 1e-4
    z = jnp.array([-8.0, 0.0, 8.0])
    np.testing.assert_allclose(law.transport(z), np.exp(0.5 + 0.8 * np.asarray(z)), rtol=1e-5)


def test_vectors_are_independent_components():
    law = bn.LogNormal([0.0, 1.0], 0.5)
    assert law.shape == (2,)
    draws = np.log(law.sample(jax.random.key(0), (5000,)))
    np.testing.assert_allclose(draws.mean(0), [0, 1], atol=0.05)
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.1
    assert hash(law) == hash(bn.LogNormal((0.0, 1.0), 0.5))


@pytest.mark.parametrize("arguments", [(np.nan, 1.0), (0.0, 0.0), (0.0, -1.0), (0.0, np.inf)])
def test_impossible_parameters(arguments):
    with pytest.raises(bn.InputError, match="LogNormal"):
        bn.LogNormal(*arguments)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf, "one", [], [1.0, -1.0], [[1.0]]])
def test_values_that_are_not_positive(value):
    with pytest.raises(bn.InputError, match="lengthscale must be"):
        check_positive_law(value, "lengthscale")


def test_numpyro_laws_must_stay_positive():
    dist = pytest.importorskip("numpyro.distributions")
    for law in (dist.Gamma(2.0, 1.0), dist.HalfCauchy(1.0), dist.Uniform(0.1, 2.0)):
        assert check_positive_law(law, "lengthscale") is law
    for law in (dist.Normal(0.0, 1.0), dist.Uniform(-1.0, 2.0), dist.StudentT(3.0)):
        with pytest.raises(bn.InputError, match="outside the positive axis"):
            check_positive_law(law, "lengthscale")


def test_a_normal_is_a_law_of_slopes_not_of_scales():
    law = bn.Normal([0.5, -1.0], 0.8)
    draws = np.asarray(law.sample(jax.random.key(0), (20_000,)), float)
    for j, loc in enumerate((0.5, -1.0)):
        assert stats.kstest(draws[:, j], stats.norm(loc, 0.8).cdf).pvalue > 1e-4
    z = jnp.array([-8.0, 8.0])
    np.testing.assert_allclose(
        law.transport(z), np.array([0.5, -1.0]) + 0.8 * np.asarray(z), rtol=1e-6
    )
    for bad in ((np.nan, 1.0), (0.0, 0.0), (0.0, np.inf)):
        with pytest.raises(bn.InputError, match="Normal"):
            bn.Normal(*bad)
    with pytest.raises(bn.InputError, match="outside the positive axis"):
        bn.GaussianProcess("rbf", bn.Normal(5.0, 1.0))


class Shifted:
    """A law that states no support: it is told by what it draws."""

    def __init__(self, by):
        self.by = by

    def sample(self, key, sample_shape=()):
        return jax.random.uniform(key, sample_shape) + self.by


def test_laws_without_a_stated_support_are_tried():
    assert bn.GaussianProcess("rbf", Shifted(0.1)).random
    with pytest.raises(bn.InputError, match="outside the positive axis"):
        bn.GaussianProcess("rbf", Shifted(-0.5))


def test_laws_of_other_libraries_are_refused_in_words():
    torch = pytest.importorskip("torch")
    with pytest.raises(bn.InputError, match="must have a method sample"):
        bn.GaussianProcess("rbf", torch.distributions.Gamma(2.0, 1.0))
