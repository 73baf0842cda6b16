"""Leave-one-out of a linear network with known noise against exact densities, outlier included."""

from __future__ import annotations

import dataclasses

import numpy as np
import oracles
import pytest
from scipy import stats

import bayesnet as bn
from bayesnet.diagnostics.loo import k_limit, loo

NOISE = 4.0
RNG = np.random.default_rng(0)
X = RNG.normal(3.0, 2.0, (14, 2))
Y = 50.0 + X @ [7.0, -3.0] + RNG.normal(0.0, NOISE, 14)
# A row far from the others, and off their plane: without it the posterior is another one.
X[5] = [13.0, -8.0]
Y[5] = 120.0


def features(x):
    return np.column_stack([np.ones(len(x)), x / np.sqrt(2.0)])


def exact_rows(x, y, weight=None):
    """log p(y_i | all other rows) in the units of y, coordinates fixed by the whole table."""
    weight = np.ones(len(x)) if weight is None else weight
    loc, scale = np.average(x, axis=0, weights=weight), 0.0
    scale = np.sqrt(np.average((x - loc) ** 2, axis=0, weights=weight))
    y_loc = np.average(y, weights=weight)
    y_scale = np.sqrt(np.average((y - y_loc) ** 2, weights=weight))
    phi, t, var = features((x - loc) / scale), (y - y_loc) / y_scale, (NOISE / y_scale) ** 2
    rows = []
    for i in range(len(x)):
        rest = (np.arange(len(x)) != i) & (weight > 0)
        post = oracles.LinearRegression.fit(phi[rest], t[rest], var / weight[rest])
        mean, cov = post.functions(phi[i : i + 1])
        law = stats.norm(mean[0], np.sqrt(cov[0, 0] + var))
        rows.append(law.logpdf(t[i]) - np.log(y_scale))
    return np.array(rows)


def fit(**kwargs):
    return bn.fit(
        bn.NetworkPrior(bn.MLP(()), in_dim=2), X, Y, likelihood=bn.GaussianLikelihood(NOISE),
        inference=bn.HMC(warmup=200, draws=500), warn=False, seed=1, **kwargs,
    )  # fmt: skip


WEIGHT = np.ones(14)
WEIGHT[[2, 7]] = [0.0, 2.0]


@pytest.fixture(scope="module")
def posterior():
    return fit(sample_weight=WEIGHT)


def test_psis_and_refits_agree_with_exact_leave_one_out(posterior):
    exact = WEIGHT * exact_rows(X, Y, WEIGHT)
    got = loo(posterior, refits=5)
    assert got.rows[2] == 0.0
    assert 5 in got.refitted
    assert got.ok
    assert got.k_hat[5] > got.limit
    easy = got.k_hat < 0.5
    assert easy.sum() >= 8
    assert np.all(np.abs(got.rows - exact) < 5 * got.mc_error + 0.01), got.rows - exact
    assert got.mc_error.max() < 0.5
    assert np.median(got.mc_error) < 0.03
    assert got.elpd == pytest.approx(exact.sum(), abs=1.0)
    assert got.standard_error == pytest.approx(np.sqrt(14 * got.rows.var(ddof=1)))
    assert "refitted" in str(got)


def test_without_refits_the_outlier_is_reported(posterior):
    got = loo(posterior, refits=0)
    assert got.refitted == ()
    assert not got.ok
    assert "not refitted" in got.problems[0]
    # What the refit is for: weights alone are far off in this row.
    assert abs(got.rows[5] - exact_rows(X, Y, WEIGHT)[5]) > 0.5


def test_agrees_with_arviz_where_nothing_is_refitted(posterior):
    az = pytest.importorskip("arviz")
    theirs = az.loo(posterior.to_arviz(), pointwise=True)
    got = loo(posterior, refits=0)
    in_scaled = got.rows + np.log(posterior.data.scaling.y_scale[0])
    easy = (got.k_hat < 0.5) & (WEIGHT == 1)
    assert in_scaled[easy] == pytest.approx(np.ravel(theirs.loo_i)[easy], abs=0.02)


@pytest.mark.slow
def test_rows_without_weights():
    got = loo(fit(), refits=3)
    assert np.all(np.abs(got.rows - exact_rows(X, Y)) < 5 * got.mc_error + 0.01)


def test_what_has_no_leave_one_out_is_refused(posterior):
    ensemble = dataclasses.replace(posterior, method=bn.DeepEnsemble())
    with pytest.raises(bn.UnsupportedError, match="members of an ensemble"):
        loo(ensemble)
    with pytest.raises(bn.UnsupportedError, match="int"):
        loo(3)
    with pytest.raises(bn.InputError, match="refits"):
        loo(posterior, refits=-1)
    with pytest.raises(bn.InputError, match="limit"):
        loo(posterior, limit=0.0)
    short = dataclasses.replace(posterior, latents=posterior.latents[:, :20])
    with pytest.raises(bn.InputError, match="100 draws"):
        loo(short)


def test_limit_of_k_hat():
    assert k_limit(10**6) == 0.7
    assert k_limit(100) == pytest.approx(0.5)
