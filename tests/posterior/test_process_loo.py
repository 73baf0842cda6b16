"""Leave-one-out of scale mixtures against refits without the row, several outputs sharing a scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import bayesnet as bn
from bayesnet.diagnostics.loo import loo

RNG = np.random.default_rng(3)
X = np.linspace(-2, 2, 6)[:, None]
Y = np.column_stack([np.sin(X[:, 0]), np.cos(2 * X[:, 0]), X[:, 0]]) + 0.2 * RNG.normal(size=(6, 3))
HOLES = np.where(np.isin(np.arange(18).reshape(6, 3), (1, 4, 9)), np.nan, Y)
KNOWN = bn.GaussianLikelihood(0.3)


def fit(prior, x, y):
    return bn.fit(
        prior, x, y, likelihood=KNOWN, inference="exact", missing="mask", warn=False
    )  # fmt: skip


def process(m):
    return bn.GaussianProcess("rbf", 0.7, 1.4, units="data", out_dim=m)


@pytest.mark.parametrize("per_output", [False, True])
@pytest.mark.parametrize(
    ("law", "noise"),
    [
        (bn.InverseGamma(2.0, 2.0), "inside"),
        (bn.LogNormal(0.0, 1.0), "inside"),
        (bn.InverseGamma(2.0, 2.0), "outside"),
    ],
    ids=["t", "inside", "outside"],
)
@pytest.mark.parametrize("y", [Y, HOLES], ids=["full", "holes"])
def test_rows_are_those_of_refits(law, noise, per_output, y):
    prior = bn.ScaleMixture(process(3), law, noise=noise, per_output=per_output)
    whole = fit(prior, X, y)
    got = whole.loo()
    for i in (0, 3):
        rest = np.arange(6) != i
        one = fit(prior, X[rest], y[rest])
        said = one.predict(X[i : i + 1])
        seen = ~np.isnan(y[i])
        np.testing.assert_allclose(got.mean[i][seen], said.mean[0][seen], atol=2e-5)
        np.testing.assert_allclose(got.std[i][seen], said.std[0][seen], rtol=1e-4)
        chain = whole.log_evidence - one.log_evidence
        assert got.rows[i] == pytest.approx(chain, abs=1e-5)
        assert np.isnan(got.std[i][~seen]).all()


@pytest.mark.parametrize(
    ("a", "rows", "outputs", "noise", "finite"),
    [
        # The tail without a row: a + (rows - 1) * outputs / 2, finite variance above 1.
        (0.4, 2, 1, "outside", False),
        (0.6, 2, 1, "outside", True),
        (0.4, 2, 3, "outside", True),
        (0.9, 1, 3, "outside", False),
        (0.9, 1, 3, "inside", False),
        (1.2, 1, 3, "outside", True),
        (1.05, 1, 3, "inside", True),
        (0.55, 2, 1, "inside", True),
    ],
)
def test_a_variance_is_infinite_where_that_of_the_refit_is(a, rows, outputs, noise, finite):
    x, y = X[:rows], Y[:rows, :outputs]
    prior = bn.ScaleMixture(process(outputs), bn.BurrXII(1.0, a), noise=noise)
    got = fit(prior, x, y).loo()
    assert np.isfinite(got.std).all() == finite
    if rows > 1:
        refit = fit(prior, x[1:], y[1:]).predict(x[:1])
        assert np.isfinite(refit.std).all() == finite
        np.testing.assert_allclose(got.std[0], refit.std[0], rtol=1e-4)
    elif finite:
        # The only row: the prior itself.
        noise_var = 0.09 * (prior.expected_scale if noise == "inside" else 1.0)
        expected = np.sqrt(1.4 * prior.expected_scale + noise_var)
        np.testing.assert_allclose(got.std, expected, rtol=1e-4)


def test_equal_rows_leave_the_tail_as_it_is():
    # Outside, a row that another one determines takes no direction of the function with it.
    x, y = X[[0, 0]], Y[[0, 1], :1]
    prior = bn.ScaleMixture(process(1), bn.BurrXII(1.0, 0.6), noise="outside")
    assert np.isfinite(fit(prior, x, y).loo().std).all()
    prior = bn.ScaleMixture(process(1), bn.BurrXII(1.0, 0.4), noise="outside")
    assert np.isinf(fit(prior, x, y).loo().std).all()


def test_sampled_hyperparameters_are_weighted_and_their_number_is_told():
    gps = tuple(bn.GaussianProcess("rbf", v, 1.4, units="data", out_dim=3) for v in (0.2, 0.7, 2.0))
    posts = [fit(gp, X, Y) for gp in gps]
    post = replace(posts[0], priors=gps, noise_std=np.repeat(posts[0].noise_std, 3, axis=0))
    found = post.loo()
    each = np.array([p.loo().rows for p in posts])
    weights = np.exp(-each) / np.exp(-each).sum(axis=0)
    np.testing.assert_allclose(found.rows, np.log(3) - np.log(np.exp(-each).sum(axis=0)))
    np.testing.assert_allclose(found.effective_draws, 1 / (weights**2).sum(axis=0))
    result = loo(post)
    ratio = np.exp(-each) / np.exp(-each).mean(axis=0)
    np.testing.assert_allclose(result.mc_error, ratio.std(axis=0) / np.sqrt(3))
    assert "effective draws" in result.problems[0]
    assert loo(posts[0]).problems == ()
