import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from bayesnet import InputError
from bayesnet.bo.space import Space

EVERYTHING = {
    "x": (-3.0, 2.5),
    "lr": FloatDistribution(1e-6, 1e2, log=True),
    "momentum": FloatDistribution(0.0, 1.0, step=0.1),
    "depth": (1, 7),
    "batch": IntDistribution(8, 256, step=8),
    "units": IntDistribution(1, 1000, log=True),
    "act": ["tanh", "relu", None, True, 3],
    "fixed": FloatDistribution(2.0, 2.0),
    "only": ["one"],
}


def test_every_trial_of_optuna_survives_the_round_trip():
    space = Space.of(EVERYTHING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(200):
        params = study.ask(space.distributions).params
        back = space.decode(space.encode(params))
        assert back.keys() == params.keys()
        for name, value in params.items():
            assert type(back[name]) is type(value), name
            close = pytest.approx(value, rel=1e-12) if type(value) is float else value
            assert back[name] == close, name


def test_points_decode_to_legal_values_and_projection_is_idempotent():
    space = Space.of(EVERYTHING)
    points = np.random.default_rng(0).uniform(-0.2, 1.2, size=(300, space.columns))
    legal = space.project(points)
    assert (legal >= 0).all()
    assert (legal <= 1).all()
    np.testing.assert_allclose(space.project(legal), legal, atol=1e-12)
    for point, projected in zip(points, legal, strict=True):
        params = space.decode(point)
        for name, dist in space.distributions.items():
            assert dist._contains(dist.to_internal_repr(params[name])), (name, params[name])
        np.testing.assert_allclose(space.encode(params), projected, atol=1e-12)


def test_uniform_points_give_integers_and_steps_equal_shares():
    space = Space.of({"k": (1, 4), "s": FloatDistribution(0.0, 1.0, step=0.25)})
    points = np.random.default_rng(0).uniform(size=(4000, 2))
    decoded = [space.decode(p) for p in points]
    for name, values in (("k", 4), ("s", 5)):
        _, counts = np.unique([d[name] for d in decoded], return_counts=True)
        assert len(counts) == values
        assert counts.min() > 0.8 * 4000 / values


def test_the_ends_of_the_box_are_the_ends_of_the_ranges():
    space = Space.of(EVERYTHING)
    low, high = space.decode(np.zeros(space.columns)), space.decode(np.ones(space.columns))
    for name in ("x", "lr", "momentum", "depth", "batch", "units"):
        dist = space.distributions[name]
        assert (low[name], high[name]) == (pytest.approx(dist.low), pytest.approx(dist.high))


def test_numbers_of_numpy_and_the_kind_of_a_range():
    space = Space.of({"i": (np.int64(1), np.int32(3)), "f": (0, 1.5), "c": [np.float64(1.0), "a"]})
    kinds = [type(d) for d in space.distributions.values()]
    assert kinds == [IntDistribution, FloatDistribution, CategoricalDistribution]
    assert space.columns == 4
    assert space.discrete.tolist() == [True, False, True, True]
    assert type(space.decode(np.zeros(4))["i"]) is int


def test_neighbours_differ_in_one_discrete_parameter():
    space = Space.of(EVERYTHING)
    point = space.encode(space.decode(np.full(space.columns, 0.4)))
    here = space.decode(point)
    others = [space.decode(row) for row in space.neighbours(point)]
    changed = [[n for n in here if abs_change(here[n], o[n])] for o in others]
    assert all(len(names) == 1 for names in changed)
    assert {names[0] for names in changed} == {"momentum", "depth", "batch", "units", "act"}


def abs_change(a, b):
    if isinstance(a, float):
        return abs(a - b) > 1e-9
    return (type(a), a) != (type(b), b)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({}, "empty"),
        ([("x", (0, 1))], "dictionary"),
        ({"x": (1.0, 1.0)}, "below high"),
        ({"x": (2, 1)}, "below high"),
        ({"x": (0.0, float("inf"))}, "finite"),
        ({"x": (float("nan"), 1.0)}, "finite"),
        ({"x": ("a", "b")}, "expected"),
        ({"x": (False, True)}, "expected"),
        ({"x": (0, 1, 2)}, "expected"),
        ({"x": 3}, "expected"),
        ({"x": []}, "empty"),
        ({"x": ["a", "a"]}, "repeat"),
        ({"x": [1, True, 0]}, "are equal"),
        ({"x": FloatDistribution(0, float("inf"))}, "finite"),
        ({"x": [object()]}, "stored"),
        ({1: (0, 1)}, "names"),
        ({"x": ["a"]}, "single"),
    ],
)
def test_bad_spaces_are_refused_in_words(space, words):
    with pytest.raises(InputError, match=words):
        Space.of(space)


def test_a_space_says_how_it_was_understood():
    space = Space.of(
        {
            "temp": (20, 90),
            "flow": (20.0, 90.5),
            "lr": FloatDistribution(1e-4, 1, log=True),
            "width": IntDistribution(16, 1_000_000, step=8),
            "act": ["tanh", None],
        }
    )
    assert space.describe() == (
        "Searched are temp (whole numbers, 20 to 90), flow (real, 20.0 to 90.5), lr (real, 0.0001 to 1.0, log "
        "scale), width (whole numbers, 16 to 1000000, step 8), act (choices: tanh, None)."
    )
