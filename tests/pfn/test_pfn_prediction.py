"""From tables to predictions: with a network that is an exact process, the answers are known."""

import numpy as np
import pytest
from scipy import stats

import bayesnet as bn
from bayesnet.data import Scaling
from bayesnet.pfn.bars import BarDistribution
from bayesnet.pfn.prediction import BarPrediction
from tests.pfn.exact import NOISE, exact_pfn, process

RNG = np.random.default_rng(3)
X = RNG.uniform(-1.5, 1.5, (7, 2))
Y = np.sin(2 * X[:, 0]) + 0.3 * RNG.normal(size=7)
NEW = RNG.uniform(-1.5, 1.5, (5, 2))
PLAIN = Scaling.identity(2, 1)


@pytest.fixture(scope="module")
def pfn():
    return exact_pfn()


@pytest.fixture(scope="module")
def posterior(pfn):
    return pfn.fit(X, Y, scaling=PLAIN)


def test_predictions_are_those_of_the_process(posterior):
    mean, covariance = process(X, Y, NEW)
    f_std = np.sqrt(np.diag(covariance))
    y_std = np.sqrt(f_std**2 + NOISE**2)
    prediction = posterior.predict(NEW)
    np.testing.assert_allclose(prediction.mean[:, 0], mean, atol=2e-3)
    np.testing.assert_allclose(prediction.std[:, 0], y_std, rtol=3e-3)
    np.testing.assert_allclose(prediction.epistemic_std[:, 0], f_std, rtol=3e-3)
    np.testing.assert_allclose(prediction.aleatoric_std[:, 0], NOISE, rtol=2e-2)
    y = mean + 0.7 * y_std
    expected = stats.norm.logpdf(0.7) - np.log(y_std)
    np.testing.assert_allclose(prediction.log_prob(y)[:, 0], expected, atol=0.02)
    np.testing.assert_allclose(prediction.cdf(y)[:, 0], stats.norm.cdf(0.7), atol=2e-3)
    np.testing.assert_allclose(
        prediction.quantile(0.1)[:, 0], mean + y_std * stats.norm.ppf(0.1), atol=5e-3
    )


def test_predictions_are_in_user_units(pfn):
    base = pfn.fit(X, Y).predict(NEW)
    moved = pfn.fit(100 + 7 * X, -3 + 50 * Y).predict(100 + 7 * NEW)
    np.testing.assert_allclose(moved.mean, -3 + 50 * base.mean, rtol=1e-3, atol=0.05)
    np.testing.assert_allclose(moved.std, 50 * base.std, rtol=1e-3)
    np.testing.assert_allclose(moved.epistemic_std, 50 * base.epistemic_std, rtol=2e-3)
    np.testing.assert_allclose(
        moved.log_prob(-3 + 50 * base.mean), base.log_prob(base.mean) - np.log(50), atol=0.03
    )


def test_outputs_are_independent_and_keep_their_columns(pfn):
    both = pfn.fit(X, np.column_stack([Y, 5 - 2 * Y])).predict(NEW)
    one, two = pfn.fit(X, Y).predict(NEW), pfn.fit(X, 5 - 2 * Y).predict(NEW)
    np.testing.assert_allclose(both.mean, np.column_stack([one.mean, two.mean]), atol=1e-4)
    assert both.quantile(0.3).shape == (5, 2)
    assert both.sample(0, 3).shape == (3, 5, 2)


def test_any_number_of_rows_gives_the_same(posterior):
    many = np.concatenate([NEW] * 220)
    prediction = posterior.predict(many)
    np.testing.assert_allclose(
        prediction.mean.reshape(220, 5), np.tile(posterior.predict(NEW).mean.T, (220, 1)), atol=1e-5
    )


def test_correlations_are_those_of_the_process(posterior):
    _, covariance = process(X, Y, NEW)
    sd = np.sqrt(np.diag(covariance))
    of_f, of_y = posterior.correlations(NEW)
    np.testing.assert_allclose(of_f[0], covariance / np.outer(sd, sd), atol=0.01)
    noisy = covariance + NOISE**2 * np.eye(5)
    sd = np.sqrt(np.diag(noisy))
    np.testing.assert_allclose(of_y[0], noisy / np.outer(sd, sd), atol=0.01)


@pytest.mark.parametrize("noise", [True, False])
def test_joint_draws_have_the_covariance_of_the_process(posterior, noise):
    mean, covariance = process(X, Y, NEW)
    covariance = covariance + (NOISE**2 if noise else 0.0) * np.eye(5)
    draws = posterior.predict(NEW).sample(0, 20_000, noise=noise)[..., 0]
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=5 * sd.max() / np.sqrt(20_000))
    # The sd of an entry of the sample covariance is at most sqrt(2 / n) sd_i sd_j.
    error = (np.cov(draws.T) - covariance) / np.outer(sd, sd)
    assert np.abs(error).max() < 5 * np.sqrt(2 / 20_000) + 0.01
    alone = posterior.predict(NEW).sample(0, 20_000, joint=False, noise=noise)[..., 0]
    off = np.corrcoef(alone.T) - np.eye(5)
    assert np.abs(off).max() < 5 / np.sqrt(20_000)


def test_paths_drawn_point_after_point_have_it_too(posterior):
    mean, covariance = process(X, Y, NEW[:3])
    covariance = covariance + NOISE**2 * np.eye(3)
    draws = posterior.sample_paths(NEW[:3], 4000, seed=1)[..., 0]
    assert np.array_equal(draws, posterior.sample_paths(NEW[:3], 4000, seed=1)[..., 0])
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=5 * sd.max() / np.sqrt(4000))
    error = (np.cov(draws.T) - covariance) / np.outer(sd, sd)
    assert np.abs(error).max() < 5 * np.sqrt(2 / 4000) + 0.01
    with pytest.raises(bn.InputError, match="rows of context"):
        posterior.sample_paths(np.zeros((20, 2)), 2)


def test_many_tables_in_one_call_are_the_tables_one_by_one(pfn):
    rng = np.random.default_rng(0)
    x, y, new = rng.normal(size=(5, 6, 2)), rng.normal(size=(5, 6)), rng.normal(size=(5, 3, 2))
    together = pfn.predict_many(x, y, new)
    for i in range(5):
        alone = pfn.fit(x[i], y[i]).predict(new[i])
        np.testing.assert_allclose(together[i].mean, alone.mean, atol=1e-4)
        np.testing.assert_allclose(together[i].epistemic_std, alone.epistemic_std, atol=1e-4)
    with pytest.raises(bn.InputError, match="agree in tables and columns"):
        pfn.predict_many(x, y, new[:4])


def test_a_table_like_the_prior_does_not_surprise_and_another_does(pfn):
    rng = np.random.default_rng(0)
    x = rng.uniform(-1.5, 1.5, (24, 1))
    usual = pfn.fit(x, np.sin(x) + 0.3 * rng.normal(size=(24, 1)), scaling=Scaling.identity(1, 1))
    assert 0.3 < usual.surprise < 2.5
    outlier = np.sin(x)
    outlier[7] += 4.0
    assert pfn.fit(x, outlier, scaling=Scaling.identity(1, 1)).surprise > 4
    assert np.isnan(pfn.fit(x[:4], x[:4]).surprise)
    limited = type(pfn)(pfn.network, pfn.bars, pfn.card | {"surprise_limit": 4.0})
    with pytest.warns(UserWarning, match="unlike what this PFN was trained on"):
        limited.fit(x, outlier, scaling=Scaling.identity(1, 1))


def test_rows_far_outside_are_warned_of(posterior):
    with pytest.warns(UserWarning, match=r"Row 1 lies 9 standard deviations"):
        posterior.predict([[0.0, 0.0], [9.0, 0.0]])


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.zeros((1, 1)), np.array([3.0])),  # one row
        (np.ones((5, 2)), np.full(5, -2.0)),  # constant columns and targets
        (np.repeat([[1.0], [2.0]], 4, axis=0), np.repeat([1.0, 2.0], 4)),  # ties
    ],
)
def test_degenerate_tables_have_finite_answers(pfn, x, y):
    prediction = pfn.fit(x, y).predict(x)
    assert np.isfinite(prediction.mean).all()
    assert (prediction.std > 0).all()
    np.testing.assert_allclose(prediction.mean[:, 0], y, atol=0.5)


def test_tables_that_cannot_be_taken_are_refused(pfn, posterior):
    with pytest.raises(bn.InputError, match="accepts at most 3"):
        pfn.fit(np.zeros((5, 4)), np.zeros(5))
    with pytest.raises(bn.InputError, match="trained for at most 24"):
        pfn.fit(np.zeros((25, 1)), np.zeros(25))
    with pytest.raises(bn.InputError, match="NaN"):
        pfn.fit([[np.nan]], [1.0])
    with pytest.raises(bn.InputError, match="longer"):
        pfn.fit(X, Y, longer="cut")
    with pytest.raises(bn.InputError, match="features"):
        posterior.predict(np.zeros((2, 3)))
    with pytest.raises(bn.InputError, match="at most at 256 points"):
        posterior.predict(np.zeros((257, 2))).sample(0)


def test_longer_tables_are_subsampled_when_asked(pfn):
    x = np.linspace(-1, 1, 60)[:, None]
    first, again = (pfn.fit(x, x[:, 0], longer="subsample", seed=4) for _ in range(2))
    assert first.data.num_rows == 24
    assert np.array_equal(first.data.x, again.data.x)
    assert not np.array_equal(first.data.x, pfn.fit(x, x[:, 0], longer="subsample", seed=5).data.x)


def test_the_preset_takes_no_other_prior(pfn):
    by_fit = bn.fit(None, X, Y, inference=pfn)
    np.testing.assert_array_equal(by_fit.predict(NEW).mean, pfn.fit(X, Y).predict(NEW).mean)
    with pytest.raises(bn.UnsupportedError, match="brings its own prior"):
        bn.fit(bn.MLP((4,)), X, Y, inference=pfn)
    with pytest.raises(bn.UnsupportedError, match="brings its own prior"):
        bn.fit(None, X, Y, target=bn.GaussianProcess("rbf"), inference=pfn)
    with pytest.raises(bn.UnsupportedError, match="law of the noise"):
        bn.fit(None, X, Y, likelihood="student_t", inference=pfn)
    with pytest.raises(bn.UnsupportedError, match="no use for sample_weight"):
        bn.fit(None, X, Y, sample_weight=np.ones(7), inference=pfn)


def test_the_function_is_never_less_certain_than_an_observation():
    """Two heads that were trained apart: where they disagree y's is believed."""
    edges, tails = np.linspace(-2, 2, 19), np.array([0.5, 0.5])
    at = 0.5 * (edges[1:] + edges[:-1])

    def law(*stds):
        inner = np.stack([-0.5 * (at / std) ** 2 for std in stds])
        logits = np.concatenate([inner[:, :1] - 1, inner, inner[:, -1:] - 1], axis=1)
        return BarDistribution(logits[None, :, None], edges, tails)

    y, f = law(0.5, 0.9), law(0.8, 0.4)  # at the first point f is wider
    eye = np.broadcast_to(np.eye(2), (1, 2, 2))
    found = BarPrediction(y, f.mean, f, (lambda: (eye, eye),))
    np.testing.assert_allclose(
        found.epistemic_std**2 + found.aleatoric_std**2, found.std**2, rtol=1e-12
    )
    assert found.epistemic_std[0, 0] == found.std[0, 0]
    assert found.epistemic_std[1, 0] == pytest.approx(f.variance[0, 1, 0] ** 0.5)
    for joint in (True, False):
        drawn = found.sample(0, 20_000, joint=joint, noise=False)
        np.testing.assert_allclose(drawn.std(axis=0), found.epistemic_std, rtol=0.03)
        np.testing.assert_allclose(drawn.mean(axis=0), f.mean[0], atol=0.02)

    # With noise that is the same everywhere an observation has no less of it than rows of the table.
    even = BarPrediction(y, f.mean, f, (lambda: (eye, eye),), noise=lambda: np.array([0.04]))
    np.testing.assert_allclose(even.aleatoric_std[0, 0], 0.2, rtol=1e-9)
    assert even.epistemic_std[1, 0] == found.epistemic_std[1, 0]
    much = BarPrediction(y, f.mean, f, (lambda: (eye, eye),), noise=lambda: np.array([9.0]))
    np.testing.assert_allclose(much.epistemic_std[0], much.aleatoric_std[0])


def test_the_noise_of_a_table_is_that_of_the_process(pfn, posterior):
    scale = posterior.data.scaling.y_scale
    np.testing.assert_allclose(posterior.noise_variance() / scale**2, NOISE**2, rtol=0.05)
    far = posterior.predict([[40.0, 0.0]], warn=False)
    assert far.aleatoric_std[0, 0] > 0


def test_a_target_without_a_scale_is_pointed_out(pfn):
    for x, y in ((np.ones((1, 1)), [7.0]), (np.arange(5.0)[:, None], np.full(5, 7e6))):
        with pytest.warns(UserWarning, match="y is constant"):
            pfn.fit(x, y)
