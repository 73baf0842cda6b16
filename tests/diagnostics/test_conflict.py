"""Prior-data conflict: p-values against closed forms, uniform under the prior, small where it fails."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
from scipy import stats

import bayesnet as bn

RNG = np.random.default_rng(0)
X = np.linspace(0.0, 6.0, 12)[:, None]
PRIOR = bn.GaussianProcess("rbf", 1.0, units="data")
LIKELIHOOD = bn.GaussianLikelihood(0.3)
COV = oracles.rbf(X, X, 1.0) + 0.09 * np.eye(12)


def draw(cov=COV, num=None, seed=1):
    return np.random.default_rng(seed).multivariate_normal(np.zeros(12), cov, num)


def test_p_values_against_chi_square_and_simulation():
    y = draw() * 1.15
    got = bn.prior_data_conflict(PRIOR, X, y, LIKELIHOOD, num_draws=8000)
    exact = stats.chi2(12).sf(y @ np.linalg.solve(COV, y))
    assert got["joint density"].p_value == pytest.approx(exact, abs=0.04)
    law = stats.multivariate_normal(None, COV)
    assert got["joint density"].observed == pytest.approx(law.logpdf(y), abs=0.5)

    tables = draw(num=20_000, seed=2)
    near = np.array([1, *range(11)])  # a neighbour at the same distance on either side
    for name, statistic in {
        "mean of y": lambda t: t.mean(-1),
        "sd of y": lambda t: t.std(-1),
        "largest deviation": lambda t: np.abs(t - t.mean(-1, keepdims=True)).max(-1) / t.std(-1),
    }.items():
        theirs = statistic(tables)
        share = np.mean(theirs >= statistic(y))
        assert got[name].p_value == pytest.approx(2 * min(share, 1 - share), abs=0.03), name
        assert got[name].observed == pytest.approx(statistic(y), rel=1e-5)
        assert got[name].low == pytest.approx(np.quantile(theirs, 0.05), abs=0.06)
    rough = np.sqrt(np.mean((tables - tables[:, near]) ** 2, -1) / 2) / tables.std(-1)
    assert got["roughness"].high == pytest.approx(np.quantile(rough, 0.95), abs=0.06)


@pytest.mark.slow
def test_p_values_are_uniform_for_tables_of_the_prior():
    found = [
        bn.prior_data_conflict(PRIOR, X, y, LIKELIHOOD, num_draws=200, seed=i)
        for i, y in enumerate(draw(num=120, seed=3))
    ]
    for check in found[0].checks:
        p = [f[check.name].p_value for f in found]
        assert stats.kstest(p, "uniform").pvalue > 1e-3, check.name
    assert np.mean([f.ok for f in found]) > 0.88


@pytest.mark.parametrize(
    ("name", "side", "y"),
    [
        ("sd of y", 1, 5 * draw()),
        ("sd of y", -1, draw() / 10),
        ("roughness", 1, np.tile([1.0, -1.0], 6)),
        ("joint density", -1, draw(9 * np.eye(12))),
    ],
)
def test_conflicts_are_found_and_said_in_words(name, side, y):
    got = bn.prior_data_conflict(PRIOR, X, y, LIKELIHOOD)
    assert not got.ok
    assert got[name].p_value < 0.01
    assert got[name].side == side
    assert any(p.startswith(name) for p in got.problems)
    assert "! " in str(got)


def test_network_priors_learned_noise_and_several_outputs():
    y = np.column_stack([100 + 20 * draw(), draw(seed=5)])
    prior = bn.NetworkPrior(bn.MLP((20,)), in_dim=1, out_dim=2)
    got = bn.prior_data_conflict(prior, X, y, num_draws=200)
    assert {"sd of y (column 0)", "roughness (column 1)", "joint density"} <= {
        c.name for c in got.checks
    }
    heavy = bn.prior_data_conflict(PRIOR, X, draw(), bn.StudentTLikelihood(1.5, 0.3), num_draws=200)
    assert np.isfinite(heavy["joint density"].observed)


def test_labels():
    process = bn.GaussianProcess("rbf", 1.5, 9.0, units="data")
    blocks = np.repeat(["a", "b"], 6)
    got = bn.prior_data_conflict(process, X, blocks, "bernoulli")
    assert got.ok
    assert got["largest class"].observed == 0.5
    assert got["roughness"].observed == pytest.approx(1 / 12, abs=0.1)
    mixed = bn.prior_data_conflict(process, X, np.tile(["a", "b"], 6), "bernoulli")
    assert any(p.startswith("roughness") for p in mixed.problems)


def test_what_cannot_be_checked_is_refused():
    with pytest.raises(bn.InputError, match="bare network"):
        bn.prior_data_conflict(bn.MLP((3,)), X, draw())
    with pytest.raises(bn.InputError, match="out_dim=2"):
        bn.prior_data_conflict(PRIOR, X, draw(), "heteroscedastic")
    with pytest.raises(bn.InputError, match="at least 4"):
        bn.prior_data_conflict(PRIOR, X[:3], draw()[:3])
    with pytest.raises(bn.InputError, match="num_draws"):
        bn.prior_data_conflict(PRIOR, X, draw(), num_draws=3)
    with pytest.raises(bn.InputError, match="level"):
        bn.prior_data_conflict(PRIOR, X, draw(), level=2)
    with pytest.raises(bn.InputError, match="No check"):
        _ = bn.prior_data_conflict(PRIOR, X, draw(), num_draws=200)["colour"]
