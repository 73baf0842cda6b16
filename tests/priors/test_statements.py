"""Statements: they hold on fresh draws at fresh points, in the units of the data, or say why not."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import jax
import numpy as np
import pandas as pd
import pytest

import bayesnet as bn
from bayesnet import defaults
from bayesnet.data import Scaling
from bayesnet.priors.statements.links import Clip
from bayesnet.priors.weights import Gaussian

S = bn.statements
RNG = np.random.default_rng(0)
X = RNG.uniform(0.0, 100.0, (60, 1))
X2 = np.c_[X, RNG.normal(5.0, 0.1, 60)]
GRID = np.linspace(-20.0, 130.0, 40)[:, None]  # beyond the data, too


def values(prior, x, num=64, seed=7):
    """Draws (s, n) at rows in the user's units, in the user's units."""
    inside = prior.scaling.x_in(np.asarray(x, float))
    draws = np.asarray(prior.sample(seed, inside, num), float)
    return prior.scaling.y_out(draws)[..., 0]


# --- one by one -------------------------------------------------------------------------------


def test_varies_is_a_gaussian_process_in_units_of_the_data():
    prior = bn.elicit(
        S.Varies(20.0, amplitude=3.0, around=12.0, trend=0.1, spread=0.0), X=X, kernel="rbf"
    )
    x = np.array([[30.0], [50.0], [80.0]])
    f = values(prior, x, 6000)
    mean = 12.0 + 0.1 * (x[:, 0] - X.mean())
    assert np.abs((f.mean(0) - mean) / (f.std(0) / np.sqrt(6000))).max() < 5
    products = (f - mean)[:, :, None] * (f - mean)[:, None, :]
    expected = 9.0 * np.exp(-0.5 * ((x - x.T) / 20.0) ** 2)
    assert np.abs((products.mean(0) - expected) / (products.std(0) / np.sqrt(6000))).max() < 5


@pytest.mark.slow
def test_about_means_a_law_and_a_trend_has_its_sign():
    prior = bn.elicit(S.Varies(20.0, amplitude=3.0, around=0.0, trend="down"), X=X)
    far = np.array([[-3000.0], [3000.0]])
    f = values(prior, far, 500)
    assert (f[:, 0] > f[:, 1]).mean() > 0.99
    slopes = (f[:, 0] - f[:, 1]) / 6000
    assert np.median(slopes) == pytest.approx(2 * 3.0 / np.ptp(X), rel=0.15)
    level = bn.elicit(S.Varies(20.0, amplitude=3.0, spread=0.5), X=X)
    f = values(level, [[50.0]], 4000)[:, 0]
    # A normal whose variance is log-normal of sd 1: kurtosis 3 e.
    assert 5.0 < (f**4).mean() / (f**2).mean() ** 2 < 14.0


def test_periodic_repeats():
    prior = bn.elicit(S.Varies(3.0, amplitude=2.0), S.Periodic(24.0), X=X)
    f = values(prior, np.concatenate([GRID, GRID + 48.0]))
    start, later = np.split(f, 2, axis=1)
    np.testing.assert_allclose(start, later, atol=0.05)  # jitter
    assert f.std(1).mean() > 0.5


@pytest.mark.parametrize("bounds", [(0.0, 10.0), (-np.inf, 3.0), (3.0, np.inf)])
def test_bounds_hold_at_every_point(bounds):
    prior = bn.elicit(S.Bounded(*bounds), S.Varies(15.0, amplitude=4.0), X=X)
    f = values(prior, GRID, 300)
    assert f.min() >= bounds[0] - 1e-5
    assert f.max() <= bounds[1] + 1e-5
    assert f.std() > 1.0


def test_positive_far_from_the_bound_leaves_functions_alone():
    stated = S.Varies(20.0, amplitude=1.0, around=50.0, spread=0.0)
    f = values(bn.elicit(stated, S.Positive(), X=X), [[10.0], [60.0]], 4000)
    assert f.mean() == pytest.approx(50.0, abs=0.1)
    assert f.std(0) == pytest.approx([1.0, 1.0], abs=0.06)


def test_a_known_value_conditions_the_process():
    stated = S.Varies(20.0, amplitude=3.0, around=12.0, spread=0.0)
    prior = bn.elicit(stated, S.KnownValue(50.0, 15.0, 0.5), X=X, kernel="rbf")
    x = np.array([[50.0], [60.0]])
    f = values(prior, x, 6000)
    k = 9.0 * np.exp(-0.5 * (np.array([0.0, 10.0]) / 20.0) ** 2)
    mean = 12.0 + k / 9.25 * 3.0
    sd = np.sqrt(9.0 - k**2 / 9.25)
    assert np.abs((f.mean(0) - mean) / (f.std(0) / np.sqrt(6000))).max() < 5
    np.testing.assert_allclose(f.std(0), sd, rtol=0.05)
    clipped = bn.elicit(stated, S.Bounded(0, 20), S.KnownValue(50.0, 19.5), X=X)
    np.testing.assert_allclose(values(clipped, [[50.0]]), 19.5, atol=0.02)


@pytest.mark.parametrize("direction", ["increasing", "decreasing"])
def test_monotone_by_construction_at_every_point(direction):
    prior = bn.elicit(
        S.Varies(25.0, amplitude=2.0), S.Varies(0.1, column=1), S.Monotone(0, direction), X=X2
    )
    assert prior.acceptance == 1.0
    lines = np.concatenate([np.c_[GRID, np.full(40, level)] for level in (4.8, 5.0, 5.3)])
    f = values(prior, lines).reshape(64, 3, 40)
    change = np.diff(f, axis=2) * (1 if direction == "increasing" else -1)
    assert change.min() > -1e-5
    assert f[:, :, 20].std() > 0.5  # the level varies
    assert (f[:, 0] - f[:, 2]).std() > 0.5  # and so does the other column


def test_a_monotone_slope_has_the_stated_mean():
    prior = bn.elicit(S.Varies(20.0, amplitude=2.0, trend=0.3), S.Monotone(0), X=X)
    rises = np.diff(values(prior, [[20.0], [80.0]], 3000), axis=1)[:, 0]
    assert abs(rises.mean() - 18.0) < 5 * rises.std() / np.sqrt(3000)
    assert rises.min() > 0


def test_monotone_with_known_values_and_bounds():
    known = (S.KnownValue(30.0, 4.0, 0.3), S.KnownValue(80.0, 7.0, 0.3))
    prior = bn.elicit(S.Bounded(0, 10), S.Monotone(0), *known, X=X)
    assert prior.acceptance < 1.0
    f = values(prior, np.concatenate([GRID, [[30.0], [80.0]]]), 300)
    assert np.diff(f[:, :40], axis=1).min() > -1e-5
    np.testing.assert_allclose(f[:, 40:].mean(0), [4.0, 7.0], atol=0.15)
    assert (f.min() >= 0) & (f.max() <= 10)


def test_known_values_reweigh_the_monotone_part_exactly():
    # One known value: f = level + rise, so the law of the rise at x given f(x) = y is the prior's
    # times a normal density of what the level has to be. By importance sampling of prior draws.
    stated = (S.Varies(30.0, amplitude=2.0, around=0.0), S.Monotone(0))
    points, known = [[90.0], [float(X.mean())]], S.KnownValue(90.0, 6.0, 0.5)
    free = values(bn.elicit(*stated, X=X), points, 20_000)
    given = values(bn.elicit(*stated, known, X=X), points, 4000)
    rise = free[:, 0] - free[:, 1]
    weight = np.exp(-0.5 * (6.0 - rise) ** 2 / (4.0 + 0.25))
    expected = (weight * rise).sum() / weight.sum()
    got = given[:, 0] - given[:, 1]
    error = np.hypot(
        got.std() / np.sqrt(4000),
        np.sqrt((weight**2 * (rise - expected) ** 2).sum()) / weight.sum(),
    )
    assert abs(got.mean() - expected) < 5 * error


def test_filters_keep_what_obeys():
    stated = (S.Varies(60.0, amplitude=1.0, spread=0.0), S.Monotone(0, impose="filter"))
    prior = bn.elicit(*stated, X=X, kernel="rbf")
    assert 0.02 < prior.acceptance < 0.9
    inside = np.linspace(X.min(), X.max(), 15)[:, None]
    f = values(prior, inside)
    assert np.maximum(-np.diff(f, axis=1), 0).sum(1).max() < 0.011  # slack: 1 % of the sd
    box = bn.elicit(S.Bounded(-1, 1, impose="filter"), S.Varies(60.0, amplitude=1.0), X=X)
    assert np.abs(values(box, inside)).max() <= 1.0 + 1e-6


def test_a_process_of_ones_own_is_filtered():
    class Waves:
        def sample(self, key, x, num_samples):
            k1, k2 = jax.random.split(key)
            phase = jax.random.uniform(k1, (num_samples, 1)) * 6.28
            return (jax.random.normal(k2, (num_samples, 1)) + np.sin(x[:, 0] + phase))[..., None]

    prior = bn.elicit(
        S.Satisfies(lambda x, f: f.mean(1) > 0, "positive on average"),
        S.KnownValue(50.0, 0.5, 0.4),
        base=Waves(),
        X=X,
    )
    at = values(prior, [[50.0]], 1500)[:, 0]
    # The filter keeps with probability exp(-(f - y)^2 / (2 tolerance^2)): Gaussian conditioning.
    free = np.asarray(Waves().sample(jax.random.key(3), prior.scaling.x_in(X), 40_000), float)[
        ..., 0
    ]
    start = np.asarray(
        Waves().sample(jax.random.key(3), prior.scaling.x_in(np.array([[50.0]])), 40_000)
    )
    start = start[:, 0, 0]
    weight = np.exp(-0.5 * ((start - 0.5) / 0.4) ** 2) * (free.mean(1) > 0)
    expected = (weight * start).sum() / weight.sum()
    assert abs(at.mean() - expected) < 0.05
    assert prior.report(num_draws=64).rows[0]["imposed"] == "filter"


# --- reports, units, use ----------------------------------------------------------------------


def test_the_report_says_what_holds_and_how():
    prior = bn.elicit(
        S.Varies(30.0, amplitude=2.0),
        S.Positive(),
        S.Monotone(0),
        S.KnownValue(40.0, 5.0, 0.2),
        X=X,
    )
    report = prior.report(num_draws=200)
    rows = {row["statement"]: row for row in report.rows}
    assert rows["positive"]["satisfied"] == 1.0
    assert rows["positive"]["gap"] == 0.0
    assert "exactly" in rows["positive"]["imposed"]
    assert rows["increasing in column 0"]["satisfied"] == 1.0
    assert rows["f(40) = 5 +- 0.2"]["satisfied"] > 0.9
    assert rows["varies over 30 in column 0, amplitude about 2"]["satisfied"] is None
    assert report.acceptance == prior.acceptance < 1
    assert "correlation over 30" in str(report)


def test_the_report_sees_a_gap():
    # Nothing imposes positivity here: a report must notice that.
    import dataclasses

    prior = bn.elicit(S.Varies(30.0, amplitude=2.0, around=0.5), X=X)
    wrong = dataclasses.replace(prior, statements=(S.Positive(), S.Monotone(0)), how=("no", "no"))
    positive, monotone = wrong.report(num_draws=100).rows
    assert positive["satisfied"] < 0.3
    assert positive["gap"] > 0.5
    assert monotone["satisfied"] < 0.3


def test_any_coordinates_give_the_same_functions():
    stated = (S.Varies(20.0, amplitude=3.0, around=12.0), S.Positive())
    scaled, data = bn.elicit(*stated, X=X), bn.elicit(*stated, X=X, units="data")
    np.testing.assert_allclose(
        values(scaled, GRID), np.asarray(data.sample(7, GRID, 64))[..., 0], rtol=2e-3, atol=2e-3
    )
    assert data.units == "data"
    other = Scaling(np.array([10.0]), np.array([3.0]), np.array([-4.0]), np.array([8.0]))
    moved = scaled.with_scaling(other)
    np.testing.assert_allclose(values(moved, GRID), values(scaled, GRID), rtol=2e-3, atol=2e-3)
    xs = jax.numpy.asarray(np.stack([scaled.scaling.x_in(GRID)] * 2), "float32")
    assert scaled.sample_many(jax.random.key(0), xs, 5).shape == (2, 5, 40, 1)
    with pytest.raises(bn.InputError, match="one output"):
        scaled.with_scaling(Scaling.identity(1, 2))


@pytest.mark.slow
def test_fit_speaks_the_units_of_its_table(monkeypatch):
    # Stated with other rows, and without y: `fit` re-expresses the statements in its own scaling.
    seen = {}

    def keep(prior, target, inputs, seed=0):
        seen["target"], seen["law"] = target, prior.law
        return prior

    monkeypatch.setattr(defaults, "matched", keep)
    prior = bn.elicit(
        S.Varies(20.0, amplitude=3.0, around=12.0, spread=0.0), X=bn.Box([0.0], [200.0])
    )
    rows, y = X[:10], 100.0 + X[:10, 0]
    bn.fit(
        bn.MLP((3,)),
        rows,
        y,
        target=prior,
        inference=bn.HMC(chains=1, warmup=2, draws=2),
        warn=False,
    )
    target = seen["target"]
    assert seen["law"].loc_form == "free"  # weights with means: a level breaks symmetry
    np.testing.assert_allclose(target.scaling.y_loc, y.mean())
    f = np.asarray(target.sample(0, np.array([[0.0]]), 2000), float)
    assert f.mean() * y.std() + y.mean() == pytest.approx(12.0, abs=0.4)
    assert f.std() * y.std() == pytest.approx(3.0, rel=0.1)


@pytest.mark.slow
def test_matched_networks_follow_statements_that_break_symmetry():
    prior = bn.elicit(S.Varies(30.0, amplitude=8.0, around=310.0), S.Monotone(0), X=X)
    inputs = prior.scaling.x_in(X)
    rising = {}
    for loc in ("fixed", "free"):
        network = bn.NetworkPrior(bn.MLP((30, 30)), Gaussian(loc=loc), in_dim=1)
        match = bn.match_prior(network, prior, inputs, num_functions=64)
        f = np.asarray(match.prior.sample(0, np.sort(inputs, 0), 500))[..., 0]
        rising[loc] = (f[:, -1] > f[:, 0]).mean()
    assert rising["free"] > 0.9
    assert abs(rising["fixed"] - 0.5) < 0.1  # weights of mean 0 are symmetric around 0


def test_a_stated_prior_is_a_matching_target():
    from bayesnet.priors.matching.target import check_target

    prior = bn.elicit(S.Varies(20.0, amplitude=3.0), X=X)
    network = bn.NetworkPrior(bn.MLP((4,)), in_dim=1)
    check_target(network, prior, jax.random.key(0), prior.scaling.x_in(X))
    both = prior + bn.GaussianProcess("rbf", 0.1, 0.01)
    check_target(network, both, jax.random.key(0), prior.scaling.x_in(X))
    assert both.with_scaling(Scaling.identity(1, 1)).scaling.x_scale[0] == 1.0
    with pytest.raises(bn.InputError, match=r"one prior made by bn\.elicit"):
        prior + prior


def test_copies():
    prior = bn.elicit(S.Varies(30.0, amplitude=2.0), S.Monotone(0), X=X)
    for other in (copy.deepcopy(prior), pickle.loads(pickle.dumps(prior))):
        np.testing.assert_array_equal(values(other, GRID), values(prior, GRID))


@pytest.mark.parametrize(
    "clip", [Clip(-1.0, 2.0, 0.3), Clip(low=0.5, width=0.2), Clip(high=0.0), Clip()]
)
def test_the_clip_and_its_inverse(clip):
    u = np.linspace(-6, 6, 101)
    y = clip(u)
    assert (np.diff(y) >= 0).all()
    assert (y >= clip.low).all()
    assert (y <= clip.high).all()
    inner = (y > clip.low + 1e-6) & (y < clip.high - 1e-6)
    np.testing.assert_allclose(clip.inverse(y[inner]), u[inner], atol=1e-6)
    difference = (clip(u + 1e-5) - clip(u - 1e-5)) / 2e-5
    np.testing.assert_allclose(clip.slope(u), difference, atol=1e-6)
    assert abs(Clip(-10.0, 10.0, 0.5)(np.array(1.0)) - 1.0) < 1e-6  # alone well inside


# --- what cannot be stated --------------------------------------------------------------------

AMOUNT = S.Varies(20.0, amplitude=1.0)


@pytest.mark.parametrize(
    ("statements", "changes", "words"),
    [
        ((), {}, "State something"),
        (("positive",), {}, "Expected statements"),
        ((S.Monotone(1), AMOUNT), {}, "column must be one of 0 to 0"),
        ((S.Monotone(0),), {}, "how large the functions are"),
        ((S.Monotone(0), S.Monotone(0, "decreasing"), AMOUNT), {}, "two Monotone"),
        ((S.Monotone(0), S.Periodic(3.0), AMOUNT), {}, "monotone and periodic"),
        ((S.Monotone(0), S.Varies(20.0, amplitude=1.0, trend="down")), {}, "contradicts"),
        ((S.Periodic(3.0), S.Varies(20.0, amplitude=1.0, trend="up")), {}, "do not repeat"),
        ((S.Bounded(0, 1), S.Bounded(2, 3)), {}, "bounds contradict"),
        ((S.Bounded(0, 1), S.KnownValue(3.0, 2.0)), {}, "outside the bounds"),
        ((AMOUNT, S.KnownValue([1.0, 2.0], 2.0)), {}, "2 number"),
        ((AMOUNT, S.KnownValue(3.0, 2.0), S.KnownValue(3.0, 4.0)), {}, "Two different values"),
        ((AMOUNT,), {"base": bn.GaussianProcess()}, "property of the kernel"),
        ((S.Positive(),), {"base": 3}, "base must have"),
        ((AMOUNT,), {"X": np.ones((5, 1))}, "single distinct row"),
        ((AMOUNT,), {"units": "feet"}, "units"),
        ((AMOUNT,), {"y": np.ones((60, 2))}, "one output"),
        ((AMOUNT,), {"y": np.ones(60), "X": bn.Box([0.0], [1.0])}, "rows X that belong"),
        (
            (AMOUNT, S.Varies(2.0, column=1, amplitude=7.0)),
            {"X": X2},
            "Several values of amplitude",
        ),
        ((S.Satisfies(lambda x, f: 3), AMOUNT), {}, "booleans"),
    ],
)
def test_contradictions_are_named(statements, changes, words):
    with pytest.raises(bn.InputError, match=words):
        bn.elicit(*statements, **({"X": X} | changes))


@pytest.mark.parametrize(
    "make",
    [
        lambda: S.Varies(-1.0),
        lambda: S.Varies(1.0, amplitude=0.0),
        lambda: S.Varies(1.0, trend="sideways"),
        lambda: S.Varies(1.0, spread=-1.0),
        lambda: S.Monotone(0, "sideways"),
        lambda: S.Bounded(3, 1),
        lambda: S.Bounded(),
        lambda: S.Positive(1.0),
        lambda: S.Periodic(0.0),
        lambda: S.KnownValue("here", 1.0),
        lambda: S.KnownValue(1.0, np.nan),
        lambda: S.KnownValue(1.0, 1.0, -0.1),
        lambda: S.Satisfies("test"),
    ],
)
def test_impossible_statements(make):
    with pytest.raises(bn.InputError):
        make()


def test_statements_that_no_draw_satisfies():
    wiggly = S.Varies(3.0, amplitude=1.0, spread=0.0)
    with pytest.raises(bn.InputError, match=r"Only 0 of .* draws obey.*increasing in column 0"):
        bn.elicit(wiggly, S.Monotone(0, impose="filter"), X=X, max_tries=2000)
    known = (S.KnownValue(30.0, 7.0), S.KnownValue(80.0, 4.0))  # falls, exactly
    with pytest.raises(bn.InputError, match="draws obey"):
        bn.elicit(S.Bounded(0, 10), S.Monotone(0), *known, X=X, max_tries=2000)


FRAME = pd.DataFrame(X2, columns=["heat", "dose"])


def test_columns_may_be_called_by_their_names():
    names = ("heat", "dose")
    for statement in (S.Monotone("dose"), S.Periodic(3.0, "dose"), S.Varies(3.0, "dose")):
        resolved = statement.resolved(names)
        assert resolved == replace(statement, column=1)
        assert "in column dose" in resolved.words
    named = S.KnownValue({"dose": 0.5, "heat": 20.0}, 1.0, 0.1)
    assert named.resolved(names) == S.KnownValue([20.0, 0.5], 1.0, 0.1)
    tested = S.Satisfies(lambda x, f: f[:, 0] > 0, points=FRAME[["dose", "heat"]])
    np.testing.assert_array_equal(tested.resolved(names).points, X2)


def test_statements_follow_the_columns_of_a_table_in_another_order():
    stated = bn.elicit(S.Varies(25.0, amplitude=2.0), S.Varies(0.1, column="dose"), X=FRAME)
    turned = Scaling.from_data(X2[:, ::-1], np.ones((len(X2), 1)))
    here, there = (
        Scaling.from_data(X2, np.ones((len(X2), 1))),
        replace(turned, names=("dose", "heat")),
    )
    x = bn.standardize(X2)[:4]
    ours = stated.with_scaling(there).sample(0, x[:, ::-1], 16)
    np.testing.assert_allclose(ours, stated.with_scaling(here).sample(0, x, 16), atol=1e-5)
    with pytest.raises(bn.InputError, match="missing 'heat'; unknown 'cold'"):
        stated.with_scaling(replace(turned, names=("dose", "cold")))


@pytest.mark.parametrize(
    ("statement", "X", "words"),
    [
        (S.Monotone("dose"), X2, "'dose' is the name of a column, and X has no names"),
        (S.Periodic(3.0, "dose"), bn.Box([0, 0], [1, 1]), "X has no names"),
        (S.Varies(3.0, "dosis", amplitude=1.0), FRAME, "no column 'dosis', only 'heat', 'dose'"),
        (S.KnownValue({"dose": 1.0}, 1.0), FRAME, "no value for 'heat'"),
        (S.KnownValue({"dose": 1.0, "cold": 1.0}, 1.0), FRAME, "no column 'cold'"),
    ],
)
def test_names_that_are_not_there_are_refused(statement, X, words):
    with pytest.raises(bn.InputError, match=words):
        bn.elicit(statement, S.Varies(2.0, column=0, amplitude=1.0), X=X)
