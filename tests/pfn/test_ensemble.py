"""Views of a table: what is averaged is a whole law, in the units of y."""

import itertools

import numpy as np
import pytest
from scipy import stats

import bayesnet as bn
from bayesnet.data import Scaling
from bayesnet.pfn.ensemble import moved
from bayesnet.pfn.power_map import PowerMap
from bayesnet.pfn.table_views import make_table_views
from tests.pfn.exact import exact_pfn
from tests.pfn.small import random_pfn

RNG = np.random.default_rng(5)
X = RNG.uniform(-1.5, 1.5, (12, 3))
# Skewed, so that the map of the target bends.
Y = 7 + 3 * np.exp(np.sin(2 * X[:, 0]) + X[:, 1] + 0.2 * RNG.normal(size=12))
NEW = RNG.uniform(-1.5, 1.5, (4, 3))


@pytest.fixture(scope="module")
def pfn():
    return random_pfn()


@pytest.fixture(scope="module")
def prediction(pfn):
    return pfn.fit(X, Y, ensemble=14).predict(NEW)


def test_the_power_map_is_yeo_johnsons_with_an_exact_inverse():
    y = np.linspace(-4, 4, 41)
    for power in (0.0, 0.3, 1.0, 1.4, 2.0):
        plain = PowerMap(np.array([power]), np.zeros(1), np.ones(1))
        z = plain.forward(y[:, None])
        np.testing.assert_allclose(z[:, 0], stats.yeojohnson(y, power), rtol=1e-12)
        np.testing.assert_allclose(plain.inverse(z)[:, 0], y, rtol=1e-10, atol=1e-12)
        wide = np.linspace(-30, 30, 61)[:, None]
        np.testing.assert_allclose(plain.forward(plain.inverse(wide)), wide, rtol=1e-9, atol=1e-9)


def test_the_power_follows_the_skewness_of_each_column():
    z = stats.norm.ppf((np.arange(200) + 0.5) / 200)
    skewed = (np.exp(z) - np.exp(z).mean()) / np.exp(z).std()
    found = PowerMap.fit(np.column_stack([skewed, -skewed, z, np.full(200, 3.0)]))
    assert found.power[0] < 0.3
    np.testing.assert_allclose(found.power[1], 2 - found.power[0], atol=1e-3)
    np.testing.assert_allclose(found.power[2:], 1.0, atol=0.02)
    mapped = found.forward(np.column_stack([skewed, -skewed, z, np.full(200, 3.0)]))
    np.testing.assert_allclose(mapped.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(mapped.std(axis=0)[:3], 1.0, rtol=1e-12)
    # A few rows say less: the law of the power draws it towards 1.
    few = PowerMap.fit(skewed[::40, None]).power[0]
    assert found.power[0] < few < 1


def test_views_come_in_turns_of_all_orders():
    views = make_table_views(X, Y[:, None], 25, seed=0)
    orders = sorted(itertools.permutations(range(3)))
    for turn in range(4):
        mine = views[6 * turn : 6 * turn + 6]
        assert sorted(tuple(v.columns) for v in mine) == orders
        assert len({(v.squash is None, v.target is None) for v in mine}) == 1
    assert len({(v.squash is None, v.target is None) for v in views}) == 4
    np.testing.assert_array_equal(views[0].inputs(X), X)
    np.testing.assert_array_equal(views[24].columns, views[0].columns)
    wide = np.random.default_rng(0).normal(size=(9, 5))
    first, again, other = (make_table_views(wide, Y[:9, None], 3, seed=s) for s in (0, 0, 1))
    assert all((a.columns == b.columns).all() for a, b in zip(first, again, strict=True))
    assert any((a.columns != b.columns).any() for a, b in zip(first, other, strict=True))
    assert all(sorted(v.columns) == list(range(5)) for v in first)
    seen = next(v for v in views if v.squash is not None).inputs(X)
    np.testing.assert_allclose(seen.std(axis=0), 1.0)


@pytest.mark.parametrize("d", [2, 3])
def test_all_orders_together_are_indifferent_to_the_order_of_columns(pfn, d):
    factorial = {2: 2, 3: 6}[d]
    turned = list(range(d))[::-1]
    for views, same in ((1, False), (factorial, True), (2 * factorial, True)):
        base = pfn.fit(X[:, :d], Y, ensemble=views).predict(NEW[:, :d])
        other = pfn.fit(X[:, turned], Y, ensemble=views).predict(NEW[:, turned])
        close = np.allclose(base.mean, other.mean, atol=1e-4)
        assert close == same
        assert np.allclose(base.log_prob(Y.mean()), other.log_prob(Y.mean()), atol=1e-4) == same


def test_a_moved_law_has_the_probabilities_of_the_map_of_its_values(pfn):
    target = PowerMap.fit(((Y - Y.mean()) / Y.std())[:, None])
    assert abs(target.power[0] - 1) > 0.1  # it bends
    view = next(v for v in make_table_views(X, Y[:, None], 8, 0) if v.target is not None)
    view = type(view)(view.columns, view.squash, view.loc, view.scale, target)
    law = pfn.law(np.random.default_rng(0).normal(size=(5, 1, 200)))
    found = moved(law, view)
    ends = np.array([law.edges[0] - law.tails[0], *law.edges, law.edges[-1] + law.tails[1]])
    for z in ends:
        at = target.inverse(np.array([z]))
        np.testing.assert_allclose(found.cdf(at), law.cdf(z), rtol=1e-9)
    # The density of the map's values, averaged over a bar.
    for k in (20, 100, 180):
        low, high = found.edges[0, k : k + 2]
        y = np.linspace(low, high, 2001)[1:-1]
        z = target.forward(y[:, None])[:, 0]
        slope = np.gradient(z, y)
        density = np.exp(law.log_prob(0.5 * (law.edges[k] + law.edges[k + 1])))[:, 0]
        expected = density * slope.mean()
        np.testing.assert_allclose(np.exp(found.log_prob(y[1000]))[:, 0], expected, rtol=1e-3)


def test_the_average_is_one_law(prediction):
    assert len(prediction.values) == 14
    assert len({e.tobytes() for e in prediction.components.edges}) == 2
    y = np.linspace(-60, 160, 4001)
    density = np.exp(np.stack([prediction.log_prob(v)[:, 0] for v in y[:-1] + 0.5 * np.diff(y)]))
    step = y[1] - y[0]
    centre = (y[:-1] + 0.5 * step)[:, None]
    np.testing.assert_allclose(density.sum(axis=0) * step, 1.0, atol=1e-3)
    mean = (density * centre).sum(axis=0) * step
    np.testing.assert_allclose(prediction.mean[:, 0], mean, rtol=2e-3)
    variance = (density * (centre - mean) ** 2).sum(axis=0) * step
    np.testing.assert_allclose(prediction.std[:, 0], np.sqrt(variance), rtol=5e-3)
    best = 15.0
    improvement = (density * np.maximum(centre - best, 0)).sum(axis=0) * step
    np.testing.assert_allclose(
        prediction.expected_improvement(best)[:, 0], improvement, rtol=5e-3, atol=1e-3
    )
    for at in (2.0, 10.0, 30.0):
        below = density[centre[:, 0] < at].sum(axis=0) * step
        np.testing.assert_allclose(prediction.cdf(at)[:, 0], below, atol=2e-3)
        np.testing.assert_allclose(
            prediction.probability_of_improvement(at), 1 - prediction.cdf(at), atol=1e-12
        )
    parts = prediction.epistemic_std**2 + prediction.aleatoric_std**2
    np.testing.assert_allclose(parts, prediction.std**2, rtol=1e-6)


@pytest.mark.parametrize("q", [1e-5, 0.05, 0.5, 0.95, 1 - 1e-5])
def test_quantiles_invert_the_distribution_function(prediction, q):
    np.testing.assert_allclose(prediction.cdf(prediction.quantile(q)), q, atol=1e-9)
    both = prediction.interval(0.9)
    np.testing.assert_allclose(prediction.cdf(both[1]) - prediction.cdf(both[0]), 0.9, atol=1e-8)


@pytest.mark.parametrize("joint", [True, False])
def test_draws_have_the_averaged_law(prediction, joint):
    draws = prediction.sample(1, 4000, joint=joint)
    assert np.array_equal(draws, prediction.sample(1, 4000, joint=joint))
    levels = np.array([prediction.cdf(v)[:, 0] for v in draws[:150]])
    assert all(stats.kstest(column, "uniform").pvalue > 1e-3 for column in levels.T)
    low, high = prediction.interval(0.8)
    inside = ((draws >= low) & (draws <= high)).mean(axis=0)
    np.testing.assert_allclose(inside, 0.8, atol=5 * np.sqrt(0.16 / 4000))
    functions = prediction.sample(1, 4000, joint=joint, noise=False)
    error = 5 * prediction.epistemic_std / np.sqrt(4000)
    assert (np.abs(functions.mean(axis=0) - prediction.values.mean(axis=0)) < error).all()


def test_an_ensemble_is_in_user_units_and_repeatable(pfn):
    base = pfn.fit(X, Y, ensemble=8).predict(NEW)
    moved_units = pfn.fit(100 + 7 * X, -3 + 50 * Y, ensemble=8).predict(100 + 7 * NEW)
    np.testing.assert_allclose(moved_units.mean, -3 + 50 * base.mean, rtol=1e-3)
    np.testing.assert_allclose(moved_units.quantile(0.9), -3 + 50 * base.quantile(0.9), rtol=1e-3)
    again = pfn.fit(X, Y, ensemble=8).predict(NEW)
    assert np.array_equal(base.mean, again.mean)
    one = pfn.fit(X, Y).predict(NEW)
    assert np.array_equal(one.mean, pfn.fit(X, Y, ensemble=1).predict(NEW).mean)
    # Outputs are told apart, each with a map of its own.
    both = pfn.fit(X, np.column_stack([Y, -Y]), ensemble=8).predict(NEW)
    np.testing.assert_allclose(both.mean[:, 0], base.mean[:, 0], rtol=1e-4)
    other = pfn.fit(X, -Y, ensemble=8).predict(NEW)
    np.testing.assert_allclose(both.quantile(0.2)[:, 1], other.quantile(0.2)[:, 0], rtol=1e-4)


def test_a_map_of_the_target_helps_where_the_target_is_a_mapped_process():
    pfn, gain = exact_pfn(), []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        x = rng.uniform(-1.5, 1.5, (60, 1))
        k = np.exp(-0.5 * (x - x.T) ** 2 / 0.8**2) + 1e-9 * np.eye(60)
        y = np.exp(np.linalg.cholesky(k) @ rng.normal(size=60) + 0.3 * rng.normal(size=60))
        # View 2 is the plain table with a mapped target.
        posterior = pfn.fit(x[:24], y[:24], ensemble=3, warn=False)
        new, target = x[24:], y[24:]
        member = posterior.predict(new, warn=False).components.log_prob(target[None, :, None])
        gain.append(float((member[2] - member[0]).mean()))
    assert np.mean(gain) > 2 * np.std(gain) / np.sqrt(8)


def test_many_tables_are_the_tables_one_by_one(pfn):
    rng = np.random.default_rng(0)
    x, y, new = rng.normal(size=(3, 6, 2)), rng.normal(size=(3, 6)) ** 3, rng.normal(size=(3, 4, 2))
    together = pfn.predict_many(x, y, new, ensemble=4)
    for i in range(3):
        alone = pfn.fit(x[i], y[i], ensemble=4, warn=False).predict(new[i], warn=False)
        np.testing.assert_allclose(together[i].mean, alone.mean, atol=1e-4)
        np.testing.assert_allclose(together[i].quantile(0.9), alone.quantile(0.9), atol=1e-3)
    with pytest.raises(bn.InputError, match="whole number of at least 1"):
        pfn.predict_many(x, y, new, ensemble=0)


@pytest.mark.slow
def test_paths_are_drawn_by_views_in_turn(pfn):
    posterior = pfn.fit(X, Y, ensemble=4)
    paths = posterior.sample_paths(NEW, 128, seed=3)
    assert paths.shape == (128, 4, 1)
    assert np.array_equal(paths, posterior.sample_paths(NEW, 128, seed=3))
    assert not np.array_equal(paths[::4], paths[1::4])
    law = posterior.predict(NEW[:1])
    first = posterior.sample_paths(NEW[:1], 128)[:, 0, 0]
    assert stats.kstest([law.cdf(v)[0, 0] for v in first], "uniform").pvalue > 1e-3
    with pytest.raises(bn.InputError, match="at least 1"):
        posterior.sample_paths(NEW, 0)
    with pytest.raises(bn.InputError, match="rows of context"):
        posterior.sample_paths(np.zeros((20, 3)), 2)


def test_an_ensemble_is_saved_with_its_views(pfn, tmp_path):
    posterior = pfn.fit(X, Y, ensemble=7, seed=3)
    posterior.save(tmp_path / "post.safetensors")
    loaded = bn.load(tmp_path / "post.safetensors")
    np.testing.assert_array_equal(loaded.predict(NEW).mean, posterior.predict(NEW).mean)


def test_scaling_of_the_user_stays(pfn):
    plain = Scaling.identity(3, 1)
    single = pfn.fit(X, Y / 10, scaling=plain, warn=False).predict(NEW)
    of_three = pfn.fit(X, Y / 10, scaling=plain, ensemble=3, warn=False).predict(NEW)
    np.testing.assert_allclose(of_three.values[0], single.values[0], rtol=1e-6)


@pytest.mark.parametrize("ensemble", [0, -1, 1.5, True, "two", None])
def test_what_is_no_number_of_views_is_refused(pfn, ensemble):
    with pytest.raises(bn.InputError, match="whole number of at least 1"):
        pfn.fit(X, Y, ensemble=ensemble)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.zeros((1, 1)), np.array([3.0])),  # one row
        (np.ones((5, 2)), np.full(5, -2.0)),  # constant columns and targets
        (np.repeat([[1.0], [2.0]], 4, axis=0), np.repeat([1.0, 1e6], 4)),  # ties
    ],
)
def test_degenerate_tables_have_finite_answers(pfn, x, y):
    law = pfn.fit(x, y, ensemble=8, warn=False).predict(x)
    for value in (law.mean, law.std, law.quantile(0.01), law.quantile(0.99), law.log_prob(y)):
        assert np.isfinite(value).all()
    assert (law.std > 0).all()


def test_rows_far_outside_are_warned_of(pfn):
    with pytest.warns(UserWarning, match=r"Row 0 lies .* standard deviations"):
        pfn.fit(X, Y, ensemble=2, warn=False).predict(np.full((1, 3), 50.0))


def test_surrogates_refuse_an_ensemble(pfn):
    from bayesnet.surrogates import Surrogate
    from bayesnet.surrogates.pfn_model import PFNSurrogate

    posterior = pfn.fit(X, Y, ensemble=2)
    for kind in (Surrogate, PFNSurrogate):
        with pytest.raises(bn.UnsupportedError, match="not of an ensemble"):
            kind.from_posterior(posterior)


def test_the_estimator_averages_views(pfn):
    from sklearn.base import clone

    model = clone(bn.PFNRegressor(pfn, ensemble=6, random_state=0)).fit(X, Y)
    assert isinstance(model.posterior_, bn.pfn.PFNEnsemble)
    np.testing.assert_allclose(
        model.predict(NEW), pfn.fit(X, Y, ensemble=6).predict(NEW).mean[:, 0], rtol=1e-6
    )
    with pytest.raises(ValueError, match="whole number"):
        bn.PFNRegressor(pfn, ensemble=0).fit(X, Y)
