"""Gaussian noise in scaled coordinates and in user units."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import bayesnet as bn
from bayesnet.data import Scaling, make_data

X = np.arange(5.0)[:, None]
Y = np.array([[0.0, 1.0], [100.0, 2.0], [200.0, 2.0], [300.0, 3.0], [150.0, 4.0]])


def bound(likelihood, y_var=None):
    scaling = Scaling.from_data(X, Y)
    data = make_data(X, Y, y_var, scaling, pad=False)
    return likelihood.bind(scaling, data.rows), data, scaling


def row_densities(likelihood, z, f_user, y_var=None):
    """The library's densities of rows, brought back to user units."""
    b, data, scaling = bound(likelihood, y_var)
    f = jnp.asarray(scaling.y_in(f_user), jnp.float32)
    return np.asarray(b.log_prob(jnp.asarray(z), f, data.rows)) - np.log(scaling.y_scale).sum()


F = Y + np.array([5.0, -0.3])


@pytest.mark.parametrize("with_var", [False, True])
@pytest.mark.parametrize("kind", ["known", "law", "default"])
def test_densities_in_user_units(kind, with_var):
    y_var = np.abs(np.random.default_rng(0).normal(size=Y.shape)) * [100, 0.1] if with_var else None
    z = np.zeros(0, np.float32)
    if kind == "known":
        likelihood, std = bn.GaussianLikelihood(7.0), np.array([7.0, 7.0])
    else:
        z = np.array([0.5, -1.0], np.float32)
    if kind == "law":
        likelihood, std = bn.GaussianLikelihood(bn.LogNormal(1.0, 0.5)), np.exp(1.0 + 0.5 * z)
    if kind == "default":
        # Relative to the spread of y; with variances of the rows: just those.
        likelihood, std = bn.GaussianLikelihood(), Y.std(0) * np.exp(-2.0 + z)
        if with_var:
            z, std = z[:0], np.zeros(2)
    variance = std**2 + (y_var if with_var else 0.0)
    expected = stats.norm(F, np.sqrt(variance)).logpdf(Y).sum(1)
    assert bound(likelihood, y_var)[0].latent_size == len(z)
    np.testing.assert_allclose(row_densities(likelihood, z, F, y_var), expected, rtol=2e-5)


def test_learned_levels_are_reported_by_output():
    b, _, _ = bound(bn.GaussianLikelihood(bn.LogNormal(0.0, 1.0)))
    summary = b.summary(np.zeros((3, 2)))
    np.testing.assert_allclose(summary["noise_std"] * Y.std(0), np.ones((3, 2)), rtol=1e-5)
    assert bound(bn.GaussianLikelihood(1.0))[0].summary(np.zeros((3, 0))) == {}


def test_new_rows_without_a_variance_get_the_mean_of_the_true_training_rows():
    y_var = np.array([[1.0, 2.0]] * 4 + [[6.0, 2.0]])
    scaling = Scaling.identity(1, 2)
    data = make_data(X, Y, y_var, scaling)  # padded to 16 rows
    law = bn.GaussianLikelihood().bind(scaling, data.rows)
    f = np.zeros((3, 4, 2))
    np.testing.assert_allclose(
        law.conditional(np.zeros((3, 0)), f, None).variance[0, 0], [2.0, 2.0], rtol=1e-6
    )
    given = law.conditional(np.zeros((3, 0)), f, np.full((4, 2), 9.0))
    np.testing.assert_allclose(given.variance, 9.0)


@pytest.mark.parametrize("noise", [0.0, -1.0, np.nan, "small", [1.0, 2.0]])
def test_noise_must_be_one_positive_number_or_law(noise):
    with pytest.raises(bn.InputError, match="noise_std"):
        bn.GaussianLikelihood(noise_std=noise)


def test_a_law_of_noise_must_be_a_transport():
    dist = pytest.importorskip("numpyro.distributions")
    with pytest.raises(bn.InputError, match="LogNormal"):
        bn.GaussianLikelihood(dist.HalfNormal(1.0))
