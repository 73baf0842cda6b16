"""Scores against numerical integration, closed forms, scikit-learn, and their own propriety."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, special, stats

import bayesnet as bn
from bayesnet.diagnostics import calibration as cal
from bayesnet.diagnostics import scores
from bayesnet.diagnostics.mixture_crps import mean_abs
from bayesnet.likelihoods.gaussian import Normal
from bayesnet.likelihoods.labels import LabelLaw
from bayesnet.likelihoods.laplace import LaplaceLaw
from bayesnet.likelihoods.poisson import PoissonLaw
from bayesnet.likelihoods.student_t import StudentTLaw
from bayesnet.posterior.process_prediction import ProcessPrediction

RNG = np.random.default_rng(0)


def gaussians(s, n=3, m=2, seed=1, scale=None):
    rng = np.random.default_rng(seed)
    loc = rng.normal(size=(s, n, m)) * 2
    scale = rng.uniform(0.3, 2, size=(s, n, m)) if scale is None else scale
    return bn.Prediction(Normal(loc, scale), loc)


def labels(probabilities, names=("a", "b", "c")):
    p = np.asarray(probabilities, float)
    return bn.ClassPrediction(LabelLaw(np.log(p), p), names)


@pytest.mark.parametrize("s", [1, 2, 7, 8])
def test_crps_of_a_mixture_is_the_integral_of_its_cdf(s):
    pred = gaussians(s)
    y = RNG.normal(size=(3, 2))
    got = scores.crps(pred, y, fair=False)
    grid = np.linspace(-25, 25, 200_001)
    for i in range(3):
        for j in range(2):
            loc, scale = pred.components.loc[:, i, j], pred.components.scale[:, i, j]
            cdf = np.mean([stats.norm.cdf(grid, a, b) for a, b in zip(loc, scale, strict=True)], 0)
            exact = np.trapezoid((cdf - (grid >= y[i, j])) ** 2, grid)
            assert got[i, j] == pytest.approx(exact, abs=1e-3)


def test_fair_crps_leaves_out_pairs_of_a_draw_with_itself():
    pred = gaussians(6, scale=np.ones((1, 1, 2)))
    y, s = RNG.normal(size=(3, 2)), 6
    loc = pred.components.loc
    pairs = [
        mean_abs(loc[i] - loc[j], np.full((3, 2), np.sqrt(2)))
        for i in range(s) for j in range(s) if i != j
    ]  # fmt: skip
    expected = mean_abs(y - loc, np.ones_like(loc)).mean(0) - 0.5 * np.mean(pairs, 0)
    assert scores.crps(pred, y) == pytest.approx(expected, abs=1e-12)


def test_fair_crps_does_not_depend_on_the_number_of_draws_in_the_mean():
    """Draws of N(0, 1) with noise 1: the law is N(0, 2), the unfair score is too large at s = 3."""
    rng = np.random.default_rng(2)
    loc = rng.normal(size=(3, 40_000, 1))
    pred = bn.Prediction(Normal(loc, np.ones((1, 1, 1))), loc)
    y = np.full((40_000, 1), 0.7)
    exact = scores.crps(
        bn.Prediction(Normal(np.zeros((1, 1, 1)), np.full((1, 1, 1), 2**0.5)), np.zeros((1, 1, 1))),
        [[0.7]],
        fair=False,
    )[0, 0]
    got = scores.crps(pred, y)
    assert abs(got.mean() - exact) < 4 * got.std() / 200
    assert scores.crps(pred, y, fair=False).mean() - exact > 0.05


def test_many_draws_use_a_part_of_the_pairs():
    pred = gaussians(1500, n=2, m=1)
    y = np.zeros((2, 1))
    one = scores.crps(pred, y, fair=False)
    grid = np.linspace(-18, 18, 2_001)
    cdf = pred.components.cdf(grid[:, None, None, None]).mean(axis=1)
    exact = np.trapezoid((cdf - (grid[:, None, None] >= y)) ** 2, grid, axis=0)
    assert one == pytest.approx(exact, abs=4e-3)


def test_crps_of_other_laws_is_the_integral_too():
    loc = np.array([0.0, 1.0, -2.0, 4.0])[:, None, None] * np.ones((4, 400, 1))
    pred = bn.Prediction(LaplaceLaw(loc, np.full((1, 1, 1), 0.7)), loc)
    got = scores.crps(pred, np.full((400, 1), 0.5), fair=False)
    grid = np.linspace(-30, 30, 60_001)
    cdf = np.mean([stats.laplace.cdf(grid, a, 0.7) for a in (0.0, 1.0, -2.0, 4.0)], axis=0)
    exact = np.trapezoid((cdf - (grid >= 0.5)) ** 2, grid)
    assert abs(got.mean() - exact) < 4 * got.std() / 20

    rate = np.array([2.0, 5.0])[:, None, None] * np.ones((2, 400, 1))
    counts = bn.Prediction(PoissonLaw(rate), rate)
    got = scores.crps(counts, np.full((400, 1), 3.0), fair=False)
    k = np.arange(60)
    cdf = 0.5 * (stats.poisson.cdf(k, 2.0) + stats.poisson.cdf(k, 5.0))
    assert abs(got.mean() - np.sum((cdf - (k >= 3)) ** 2)) < 4 * got.std() / 20


def test_interval_score_by_hand_and_smallest_at_the_quantiles():
    loc = np.zeros((1, 3, 1))
    pred = bn.Prediction(Normal(loc, np.ones((1, 1, 1))), loc)
    z = stats.norm.ppf(0.95)
    got = scores.interval_score(pred, [0.0, z + 0.5, -z - 1.0], 0.9)[:, 0]
    assert got == pytest.approx([2 * z, 2 * z + 10.0, 2 * z + 20.0], abs=1e-6)


def test_coverage_is_pooled_with_the_interval_of_scipy():
    loc = np.zeros((1, 200, 1))
    pred = bn.Prediction(Normal(loc, np.ones((1, 1, 1))), loc)
    y = RNG.normal(size=200)
    got = cal.coverage(pred, y, 0.8)
    assert got.hits == int(np.sum(np.abs(y) <= stats.norm.ppf(0.9)))
    both = got + cal.Coverage(0.8, 9, 10)
    assert (both.hits, both.count) == (got.hits + 9, 210)
    for hits, count in ((0, 7), (163, 200), (10, 10)):
        exact = stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
        assert cal.wilson(hits, count) == pytest.approx((exact.low, exact.high), abs=1e-12)
    with pytest.raises(bn.InputError, match="cannot be pooled"):
        _ = got + cal.Coverage(0.9, 1, 2)
    assert "of 200" in str(got)


def test_pit_is_uniform_also_for_counts():
    rng = np.random.default_rng(4)
    rate = np.full((1, 3000, 1), 1.3)
    pit = cal.pit(bn.Prediction(PoissonLaw(rate), rate), rng.poisson(1.3, 3000))
    assert stats.kstest(pit[:, 0], "uniform").pvalue > 1e-3
    pred = gaussians(4, n=500, m=1)
    y = pred.sample(3, 1)[0]
    assert stats.kstest(cal.pit(pred, y)[:, 0], "uniform").pvalue > 1e-3
    wrong = cal.pit(pred, y + 2.0)
    assert stats.kstest(wrong[:, 0], "uniform").pvalue < 1e-6


def test_scores_of_labels_against_scikit_learn_and_by_hand():
    metrics = pytest.importorskip("sklearn.metrics")
    p = RNG.dirichlet(np.ones(3), size=50)
    pred = labels(np.stack([p, p]))
    y = np.array(["a", "b", "c"])[[RNG.choice(3, p=q) for q in p]]
    got = scores.score(pred, y)
    assert got["nll"] == pytest.approx(metrics.log_loss(y, p))
    assert got["error"] == pytest.approx(1 - metrics.accuracy_score(y, pred.predicted))
    two = labels(np.stack([p[:, :2] / p[:, :2].sum(1, keepdims=True)]), (0, 1))
    y2 = RNG.integers(0, 2, 50)
    expected = metrics.brier_score_loss(y2, two.mean[:, 1])
    assert scores.brier(two, y2).mean() == pytest.approx(2 * expected)

    score = np.round(p[:, 0], 1)  # with ties
    assert scores.auroc(score, y == "a") == pytest.approx(metrics.roc_auc_score(y == "a", score))
    assert scores.auroc([1.0, 2.0], [False, True]) == 1.0

    # Two bins, by hand: confidence 0.6 right 1 of 2, confidence 0.9 right 1 of 1.
    three = labels([[[0.6, 0.4], [0.6, 0.4], [0.1, 0.9]]], (0, 1))
    assert cal.ece(three, [0, 1, 1]) == pytest.approx((2 * 0.1 + 0.1) / 3)
    table = cal.calibration(three, [0, 1, 1])
    assert [(b.hits, b.count) for b in table.rows] == [(1, 2), (1, 1)]
    assert "0.60 to 0.70" in str(table)


def test_calibration_table_of_numbers_and_the_usual_scores():
    pred = gaussians(5, n=300, m=1)
    y = pred.sample(5, 1)[0]
    table = cal.calibration(pred, y, levels=(0.5, 0.9))
    for row in table.rows:
        low, high = row.coverage.interval(0.9999)
        assert low < row.coverage.level < high
    assert table.rows[0].width < table.rows[1].width
    assert str(table).count("\n") == 2
    got = scores.score(pred, y)
    assert got["crps"] == pytest.approx(scores.crps(pred, y).mean())
    assert got["nll"] == pytest.approx(-pred.log_prob(y).mean())
    # A proper score prefers the law that y is from.
    worse = scores.score(pred, y + 1.5)
    assert all(worse[k] > got[k] for k in ("rmse", "nll", "crps", "interval_score"))


def test_corrected_error_of_ten_splits_is_one_and_a_half_times_the_naive_one():
    d = RNG.normal(size=10)
    naive = d.std(ddof=1) / np.sqrt(10)
    got = scores.corrected_error(d, 0.1)
    assert got == pytest.approx(np.sqrt((0.1 + 1 / 9) * d.var(ddof=1)))
    assert got / naive == pytest.approx(1.45, abs=0.01)


def test_what_cannot_be_scored_is_refused():
    pred = gaussians(2, n=4, m=1)
    classes = labels([[[0.5, 0.3, 0.2]]])
    with pytest.raises(bn.InputError, match=r"shape \(4, 1\)"):
        scores.crps(pred, [1.0, 2.0])
    with pytest.raises(bn.InputError, match="NaN"):
        scores.crps(pred, [1.0, np.nan, 2.0, 3.0])
    with pytest.raises(bn.InputError, match="fair=False"):
        scores.crps(gaussians(1, n=4, m=1), np.zeros(4), fair=True)
    with pytest.raises(bn.UnsupportedError, match="brier"):
        scores.crps(classes, [0.0])
    with pytest.raises(bn.UnsupportedError, match="crps"):
        scores.brier(pred, np.zeros(4))
    with pytest.raises(bn.InputError, match="not among"):
        scores.brier(classes, ["z"])
    with pytest.raises(bn.InputError, match="both"):
        scores.auroc([1.0, 2.0], [True, True])
    with pytest.raises(bn.InputError, match="test_share"):
        scores.corrected_error([1.0, 2.0], 1.0)
    with pytest.raises(bn.InputError, match="splits"):
        scores.corrected_error([1.0], 0.1)
    with pytest.raises(bn.InputError, match="hits"):
        cal.wilson(3, 2)


@pytest.mark.parametrize("df", [2.5, 8.0])
def test_crps_of_one_student_t_has_its_closed_form(df):
    """Jordan, Krueger & Lerch (2019), appendix A.1; drawn observations would differ from seed to seed."""
    loc, scale, y = (
        np.array([[[1.0], [2.0]]]),
        np.array([[[0.5], [3.0]]]),
        np.array([[1.2], [-4.0]]),
    )
    pred = bn.Prediction(StudentTLaw(loc, scale, np.full((1, 1, 1), df)), loc)
    z, t = (y - loc[0]) / scale[0], stats.t(df)
    ratio = special.beta(0.5, df - 0.5) / special.beta(0.5, df / 2) ** 2
    expected = scale[0] * (
        z * (2 * t.cdf(z) - 1)
        + 2 * t.pdf(z) * (df + z**2) / (df - 1)
        - 2 * np.sqrt(df) / (df - 1) * ratio
    )
    np.testing.assert_allclose(scores.crps(pred, y), expected, rtol=1e-10)
    assert np.array_equal(scores.crps(pred, y), scores.crps(pred, y, seed=5))
    assert scores.score(pred, y)["crps"] == pytest.approx(scores.crps(pred, y).mean())


def closed_form(weight, df, loc, scale):
    """A weighted mixture at points (n, m) in closed form."""
    j, n, m = loc.shape
    return ProcessPrediction(
        loc, scale, 0.5 * scale, np.log(weight), df, np.full(m, np.inf), np.arange(j), True,
        lambda node, output: np.eye(n),
    )  # fmt: skip


@pytest.mark.parametrize("df", [None, 0.8, 1.5, 6.0])
@pytest.mark.parametrize("j", [1, 2, 12])
def test_crps_of_a_weighted_mixture_is_the_integral_of_its_cdf(df, j):
    """By adaptive quadrature, at points inside, between and far from the laws."""
    rng = np.random.default_rng(j)
    weight = rng.dirichlet(np.full(j, 0.7), size=2).T
    loc, scale = rng.normal(size=(j, 3, 2)) * 3, 10 ** rng.uniform(-2, 1, (j, 3, 2))
    pred = closed_form(weight, None if df is None else np.full(2, df), loc, scale)
    y = np.array([[0.3, -1.0], [2.0, 40.0], [-3.0, 0.0]])
    got = scores.crps(pred, y)
    law = stats.norm if df is None else stats.t(df)
    width = np.hypot(scale, 0.5 * scale)
    for i in range(3):
        for o in range(2):

            def tail(x, up, i=i, o=o):
                z = (x - loc[:, i, o]) / width[:, i, o]
                return float(weight[:, o] @ (law.sf(z) if up else law.cdf(z))) ** 2

            size, exact = 1e-3 * float(width[:, i, o].min()), 0.0
            for up, sign in ((False, -1.0), (True, 1.0)):
                # In the log of the distance to y, from below all scales to far beyond them.
                def beyond(v, up=up, sign=sign, at=y[i, o], size=size):
                    return tail(at + sign * size * np.expm1(v), up) * size * np.exp(v)

                exact += integrate.quad(beyond, 0.0, 60.0, limit=1000, epsrel=1e-9)[0]
            assert got[i, o] == pytest.approx(exact, rel=1e-4)


def test_crps_of_a_mixture_in_closed_form_has_no_draws():
    pred = closed_form(
        np.array([[0.9], [0.1]]), None, np.array([[[-1.0]], [[1.0]]]), np.full((2, 1, 1), 0.2)
    )
    assert np.array_equal(scores.crps(pred, [[0.3]]), scores.crps(pred, [[0.3]], fair=False))
    assert "components" not in pred.__dict__  # no copies were made
    with pytest.raises(bn.InputError, match="closed form"):
        scores.crps(pred, [[0.3]], fair=True)
    heavy = closed_form(np.ones((1, 1)), np.array([0.5]), np.zeros((1, 1, 1)), np.ones((1, 1, 1)))
    assert np.isinf(scores.crps(heavy, [[0.0]])).all()
