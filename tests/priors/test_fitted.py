"""Hyper-parameters chosen by data: gradients, recovery, units, and what cannot be fitted."""

from __future__ import annotations

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesnet as bn
from bayesnet.priors.hyper_search import negative_log_evidence, start_logs

RNG = np.random.default_rng(0)
X = RNG.uniform(-3, 3, (100, 2))
TRUTH = bn.GaussianProcess("rbf", [0.9, 2.5], 2.0)
Y = np.asarray(TRUTH.sample(1, X, 1), float)[0, :, 0] + 0.1 * RNG.normal(size=100)


@pytest.mark.parametrize(
    "kernel", ["rbf", "matern12", "matern52", "periodic", "linear", "arccosine1", "sum"]
)
def test_gradients_equal_finite_differences(kernel):
    if kernel == "sum":
        part = bn.GaussianProcess("matern32", [0.9, 2.0]) * bn.GaussianProcess("linear", 2.0)
        covariance = (part + bn.GaussianProcess("rbf", 1.5, 0.5)).covariance
    else:
        covariance = bn.GaussianProcess(
            kernel, [0.9, 2.0], 1.3, period=2.3 if kernel == "periodic" else 1.0
        ).covariance
    with jax.enable_x64(True):
        both = negative_log_evidence(covariance, X[:20], Y[:20, None], None)
        logs = np.append(start_logs(covariance)[0], np.log(0.3))
        _, slope = both(jnp.asarray(logs))
        for i in range(len(logs)):
            e = 1e-5 * np.eye(len(logs))[i]
            difference = (both(jnp.asarray(logs + e))[0] - both(jnp.asarray(logs - e))[0]) / 2e-5
            assert float(slope[i]) == pytest.approx(float(difference), rel=1e-5, abs=1e-5)


def test_recovers_what_made_the_data():
    fitted = bn.GaussianProcess.fit(X, Y, "rbf", units="data", restarts=1)
    record = fitted.empirical
    assert record.method == "marginal_likelihood"
    np.testing.assert_allclose(fitted.covariance.lengthscale, [0.9, 2.5], rtol=0.3)
    assert 0.07 < record.noise_std < 0.13
    assert record.at_bounds == ()
    centred = TRUTH.log_evidence(X, Y - Y.mean(), 0.1)
    assert record.log_evidence > float(centred)  # a maximum beats the truth on its own data
    assert record.log_evidence == pytest.approx(
        float(fitted.log_evidence(X, Y, record.noise_std)), abs=1e-6
    )
    assert "EmpiricalBayes" in repr(fitted)
    assert bn.GaussianProcess("rbf").empirical is None
    assert copy.deepcopy(fitted) == fitted
    assert (fitted + bn.GaussianProcess("linear", units="data")).empirical is record


def test_units_of_the_data_do_not_matter():
    a = bn.GaussianProcess.fit(X, Y, "rbf", restarts=0)
    b = bn.GaussianProcess.fit(X * [20, 1e-3] + 7, 50 * Y + 1000, "rbf", restarts=0)
    np.testing.assert_allclose(a.covariance.lengthscale, b.covariance.lengthscale, rtol=1e-3)
    assert b.empirical.noise_std == pytest.approx(50 * a.empirical.noise_std, rel=1e-3)
    scaled = bn.GaussianProcess.fit(X, Y, "rbf", restarts=0, units="data")
    np.testing.assert_allclose(
        scaled.covariance.lengthscale, np.asarray(a.covariance.lengthscale) * X.std(0), rtol=1e-3
    )
    assert scaled.covariance.outputscale == pytest.approx(
        a.covariance.outputscale * Y.var(), rel=1e-3
    )


def test_median_distances():
    fitted = bn.GaussianProcess.fit(X, Y, "rbf", method="median", ard=False, noise_std=0.1)
    scaled = bn.standardize(X)
    distances = np.sqrt(((scaled[:, None] - scaled[None]) ** 2).sum(-1))[np.triu_indices(100, 1)]
    assert fitted.covariance.lengthscale == pytest.approx(np.median(distances))
    assert fitted.covariance.outputscale == pytest.approx(1 - 0.01 / Y.var())
    noise = 0.1 / Y.std()
    expected = fitted.log_evidence(scaled, (Y - Y.mean()) / Y.std(), noise)
    assert fitted.empirical.log_evidence == pytest.approx(float(expected), abs=1e-6)
    wide = bn.GaussianProcess.fit(X, Y, method="median")
    gaps = np.abs(scaled[:, None] - scaled[None])[np.triu_indices(100, 1)]
    np.testing.assert_allclose(wide.covariance.lengthscale, np.sqrt(2) * np.median(gaps, 0))
    assert wide.empirical.noise_std is None


def test_from_a_process_and_columns_that_do_not_matter():
    start = bn.GaussianProcess("rbf", [1.0, 1.0]) + bn.GaussianProcess("linear")
    y = np.sin(2 * X[:, 0]) + 0.1 * RNG.normal(size=100)
    fitted = bn.GaussianProcess.fit(X, y, start, restarts=0)
    assert fitted.covariance.left.lengthscale[1] > 20 * fitted.covariance.left.lengthscale[0]
    long = bn.GaussianProcess.fit(X, y, "rbf", restarts=0, max_rows=40)
    assert long.empirical.num_rows == 40


def test_a_fitted_process_is_a_target():
    target = bn.GaussianProcess.fit(X[:40], Y[:40], "rbf", restarts=0)
    assert target.units == "scaled"
    assert target.sample(0, bn.standardize(X), 3).shape == (3, 100, 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"X": np.ones((100, 2))}, "single distinct row"),
        ({"X": np.c_[X, np.ones(100)]}, r"Columns \[2\] of X are constant"),
        ({"y": np.ones(100)}, "y is constant"),
        ({"kernel": "rbff"}, "Did you mean 'rbf'"),
        ({"method": "mcmc"}, "Unknown method"),
        ({"method": "median", "kernel": "linear"}, "Median distances"),
        ({"kernel": bn.GaussianProcess("rbf", bn.LogNormal())}, "fixed hyper-parameters"),
        ({"noise_std": -1.0}, "noise_std"),
        ({"noise_std": 99.0, "method": "median"}, "leaves nothing"),
        ({"restarts": -1}, "restarts"),
        ({"units": "feet"}, "units"),
        ({"y": np.c_[Y, Y], "units": "data"}, "one output"),
        ({"y": np.c_[Y, 9 * Y], "noise_std": 0.1}, "different scales"),
    ],
)
def test_bad_input_is_named(changes, words):
    with pytest.raises(bn.InputError, match=words):
        bn.GaussianProcess.fit(**({"X": X, "y": Y} | changes))


def test_one_lengthscale_for_all_takes_constant_columns():
    fitted = bn.GaussianProcess.fit(np.c_[X, np.ones(100)], Y, "rbf", ard=False, restarts=0)
    assert np.ndim(fitted.covariance.lengthscale) == 0
