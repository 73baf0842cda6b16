"""Where functions are compared: grids, neighbourhoods, weighted mixes; many dimensions; stopping."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import bayesnet as bn
from bayesnet._errors import InputError
from bayesnet.priors.matching.points import as_point_law, draw_triples
from bayesnet.priors.matching.stopping import COOL_DOWN, Plateau, cosine
from bayesnet.priors.matching.strategies import Scaled

KEY = jax.random.key(0)


def test_a_grid_has_its_nodes_and_nothing_else() -> None:
    law = as_point_law(bn.Grid([0.0, 10.0], [1.0, 20.0], (2, 3)), 2)
    drawn = np.asarray(law.draw(KEY, 60))
    nodes, counts = np.unique(drawn, axis=0, return_counts=True)
    expected = [[a, b] for a in (0.0, 1.0) for b in (10.0, 15.0, 20.0)]
    np.testing.assert_array_equal(nodes, expected)
    assert (counts == 10).all()
    assert as_point_law(bn.Grid(-1.0, 1.0, 5), 1).draw(KEY, 5).shape == (5, 1)
    assert hash(bn.Grid(-1.0, 1.0)) == hash(bn.Grid(-1.0, 1.0))


def test_points_near_rows_are_local_and_so_are_their_segments() -> None:
    rows = np.asarray([[0.0, 0.0], [100.0, 0.0], [0.0, 300.0]])
    law = as_point_law(bn.Near(rows, (0.5, 2.0)), 2)
    start, towards = (np.asarray(a) for a in law.draw_ends(KEY, 6000))
    nearest = np.linalg.norm(start[:, None] - rows[None], axis=-1).argmin(1)
    assert (np.bincount(nearest) > 1800).all()
    noise = start - rows[nearest]
    np.testing.assert_allclose(noise.std(0), [0.5, 2.0], rtol=0.05)
    np.testing.assert_allclose((towards - start).std(0), np.sqrt(2) * noise.std(0), rtol=0.05)
    triples = np.asarray(draw_triples(law, KEY, 50, 0.05))
    assert np.abs(triples[:50] - triples[100:]).max() < 20.0


def test_with_labels_segments_stay_in_a_class_and_classes_are_balanced() -> None:
    rng = np.random.default_rng(0)
    labels = np.asarray(["b"] * 5 + ["a"] * 60 + ["c"] * 12)
    rows = rng.normal(size=(77, 1)) + 50.0 * np.searchsorted(["a", "b", "c"], labels)[:, None]
    law = as_point_law(bn.Near(rows, 0.1, labels), 1)
    start, towards = (np.asarray(a)[:, 0] for a in law.draw_ends(KEY, 3000))
    of_start, of_towards = np.round(start / 50), np.round(towards / 50)
    np.testing.assert_array_equal(of_start, of_towards)
    assert (np.bincount(of_start.astype(int), minlength=3) > 850).all()
    assert np.abs(start - towards).std() > 0.5  # of different rows


def test_a_mix_follows_its_weights_and_keeps_local_parts_local() -> None:
    near = bn.Near(np.full((3, 1), 100.0) + np.arange(3)[:, None], 0.1)
    law = as_point_law(bn.Mix(near, bn.Box(0.0, 1.0), weights=(3, 1)), 1)
    start, towards = (np.asarray(a)[:, 0] for a in law.draw_ends(KEY, 4000))
    local = start > 50
    assert local.mean() == pytest.approx(0.75, abs=4 * (0.75 * 0.25 / 4000) ** 0.5)
    assert np.abs(start - towards)[local].max() < 2.0
    assert (towards[~local] > 50).mean() == pytest.approx(0.75, abs=0.06)
    assert as_point_law(bn.Mix(bn.Box(0.0, 1.0)), 1).draw(KEY, 3).shape == (3, 1)
    low, high = law.bounds()
    assert low[0] == 0.0
    assert high[0] > 102.0


def test_scaled_points_share_a_lengthscale_within_a_set() -> None:
    law = as_point_law(Scaled(bn.Grid(1.0, 2.0, 2), bn.LogNormal(0.7, 0.5)), 1)
    sets = np.stack([np.sort(law.draw(jax.random.key(i), 4)[:, 0]) for i in range(300)])
    np.testing.assert_allclose(sets[:, 3] / sets[:, 0], 2.0, rtol=1e-5)
    logs = -np.log(sets[:, 0])
    assert logs.mean() == pytest.approx(0.7, abs=4 * 0.5 / 300**0.5)
    assert logs.std() == pytest.approx(0.5, rel=0.2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bn.Grid([0] * 4, [1] * 4, 3), "3 columns"),
        (lambda: bn.Grid(0, 1, 1), "at least 2"),
        (lambda: bn.Grid(0, 1, 2.5), "whole"),
        (lambda: bn.Grid([0, 0], [1, 1], (3, 3, 3)), "num"),
        (lambda: bn.Grid([0] * 3, [1] * 3, 50), "nodes"),
        (lambda: bn.Grid(1, 0), "low < high"),
        (lambda: bn.Near([[0.0], [np.nan]], 1.0), "Near"),
        (lambda: bn.Near([[0.0], [1.0]], 0.0), "positive"),
        (lambda: bn.Near([[0.0], [1.0]], [1.0, 2.0]), "scale"),
        (lambda: bn.Near([[0.0], [1.0]], 1.0, ["a"]), "labels"),
        (lambda: bn.Mix(), "at least one"),
        (lambda: bn.Mix(bn.Box(0, 1), weights=(1, 2)), "weights"),
        (lambda: bn.Mix(bn.Box(0, 1), weights=(-1,)), "weights"),
        (lambda: as_point_law(bn.Grid(0, 1), 2), "1 column"),
        (lambda: as_point_law(bn.Near([[0.0], [1.0]], 1.0), 2), "1 column"),
        (lambda: as_point_law(Scaled(bn.Box(0, 1), bn.LogNormal([0, 0], 1.0)), 1), "shape"),
    ],
)
def test_bad_strategies_are_refused(make, message) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_a_plateau_is_seen_after_patience_and_the_rate_cools_down() -> None:
    plateau = Plateau(100, np.full(4, 1.0))
    assert not plateau.sees(50, np.asarray([0.5, 0.4, 0.5, 0.4]))
    # A fall in the mean that is within its own standard error is none.
    assert not plateau.sees(100, np.asarray([0.1, 0.8, 0.5, 0.35]))
    assert plateau.sees(150, np.asarray([0.5, 0.41, 0.49, 0.4]))
    assert plateau.reached
    assert not plateau.sees(200, np.full(4, 0.9))  # only once
    rates = cosine(0.1, 1000)
    short = plateau.shortened(rates, 150)
    assert len(short) == 150 + COOL_DOWN
    assert short[150] == rates[150]
    assert short[-1] < 1e-4
    assert plateau.shortened(rates, 950) is rates
    never = Plateau(None, np.full(4, 1.0))
    assert not any(never.sees(s, np.full(4, 1.0)) for s in range(50, 5000, 50))


@pytest.mark.slow
def test_a_match_stops_where_the_distance_no_longer_falls() -> None:
    """A target that the network can be: two numbers to find, long before 3,000 steps."""
    prior = bn.NetworkPrior(bn.MLP(()))
    target = bn.RescaledPrior(prior, 0.5, 2.0)
    options = {"num_functions": 48, "num_points": 18, "steps": 3000}
    match = bn.match_prior(prior, target, bn.Box(-2.0, 2.0), restarts=2, **options)
    taken = match.history["step"][-1]
    assert match.ended == "stopped falling"
    assert 150 < taken < 1500
    assert len(match.history["loss"]) == taken
    np.testing.assert_allclose(match.prior.law.log_scale, np.log([2**0.5, 2 * 2**0.5]), atol=0.15)
    assert len(match.attempts) == 2
    assert match.distance_after == min(match.attempts)
    assert match.distance_after < 0.05


@pytest.mark.slow
def test_a_hundred_inputs_are_matched_by_the_default_numbers_of_points() -> None:
    rows = np.random.default_rng(0).normal(size=(60, 100))
    target = bn.GaussianProcess("rbf", 10.0, 4.0)
    inputs = bn.Mix(rows, bn.Near(rows, 0.3), weights=(2, 1))
    prior = bn.NetworkPrior(bn.MLP((8,)), in_dim=100)
    match = bn.match_prior(prior, target, inputs, steps=50, num_functions=48)
    assert match.distance_after < 0.5 * match.distance_before


@pytest.mark.slow
def test_images_are_matched_around_their_classes() -> None:
    """8 x 8 digits: strongly correlated columns, some of them constant."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    rows, labels = digits.data[:600] / 16.0, digits.target[:600]
    target = bn.GaussianProcess("matern52", 2.5, 4.0)
    prior = bn.NetworkPrior(bn.MLP((50, 50)), in_dim=64)
    match = bn.match_prior(prior, target, (rows, bn.Near(rows, 0.1, labels)))
    print(match.distance_before, match.distance_after, match.ended)
    assert match.distance_after < 0.3 * match.distance_before
