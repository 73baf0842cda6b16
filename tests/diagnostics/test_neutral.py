"""Neutral measures against scipy, closed forms and their own floor."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
from scipy.stats import ks_2samp

from bayesnet._errors import MissingExtraError
from bayesnet.diagnostics.neutral import (
    classifier_auc,
    functionals,
    ks_distance,
    mmd2,
    neutral_measures,
)


def test_ks_distance_is_that_of_scipy_also_with_ties() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=300), rng.normal(0.4, 1, size=200)
    assert ks_distance(a, b) == pytest.approx(ks_2samp(a, b).statistic)
    a, b = rng.integers(0, 4, 300), rng.integers(0, 5, 200)
    assert ks_distance(a, b) == pytest.approx(ks_2samp(a, b).statistic)
    assert ks_distance(a, a) == 0.0


def test_functionals_of_a_known_function() -> None:
    x = np.linspace(0.0, 1.0, 2001)
    wave = np.sin(2 * np.pi * 3 * x - 0.1)
    line = 2.0 * x
    found = functionals(np.stack([wave, line]), x[1] - x[0])
    assert found["maximum"] == pytest.approx([1.0, 2.0], abs=1e-5)
    assert found["up_crossings"].tolist() == [3, 0]
    assert found["arc_length"][1] == pytest.approx(np.sqrt(5.0), rel=1e-6)
    fine = np.sqrt(1 + (6 * np.pi * np.cos(6 * np.pi * x - 0.1)) ** 2)
    assert found["arc_length"][0] == pytest.approx(np.trapezoid(fine, x), rel=1e-3)
    assert found["largest_increment"] == pytest.approx([6 * np.pi / 2000, 0.001], rel=1e-3)


def test_up_crossings_are_counted_at_the_level() -> None:
    values = np.array([[4.0, 6.0, 4.0, 6.0]])
    assert functionals(values, 1.0, 5.0)["up_crossings"] == [2]
    assert functionals(values, 1.0, 0.0)["up_crossings"] == [0]


def test_mmd_is_zero_in_the_mean_and_has_its_closed_form() -> None:
    """One bandwidth in one dimension: E k is (1 + v/h^2)^-1/2 exp(-d^2 / (2 (h^2 + v)))."""
    rng = np.random.default_rng(1)
    null = [mmd2(rng.normal(size=(60, 2)), rng.normal(size=(60, 2))) for _ in range(150)]
    assert abs(np.mean(null)) < 4 * np.std(null) / np.sqrt(150)

    f, g = rng.normal(size=(3000, 1)), rng.normal(1.0, 1.0, size=(3000, 1))
    squares = (g - g.T)[np.triu_indices(3000, 1)] ** 2
    h2 = np.array([0.25, 1.0, 4.0]) * np.median(squares)
    same = (1 + 2.0 / h2) ** -0.5
    across = same * np.exp(-0.5 / (h2 + 2.0))
    assert mmd2(f, g) == pytest.approx(np.mean(2 * same - 2 * across), rel=0.1)


def test_classifier_is_at_chance_for_equal_laws_and_sees_roughness() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 150, 12))
    assert abs(classifier_auc(a, b) - 0.5) < 0.12
    # Equal law at every point, another roughness: only the increments tell.
    smooth = np.repeat(rng.normal(size=(150, 6)), 2, axis=1)
    assert classifier_auc(smooth, b) > 0.9


def test_classifier_names_the_extra_if_scikit_learn_is_missing(monkeypatch) -> None:
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install bayesnet\[sklearn\]"):
        classifier_auc(np.zeros((8, 3)), np.zeros((8, 3)))


def test_all_measures_are_at_their_floor_for_equal_laws_and_above_it_else() -> None:
    rng = np.random.default_rng(3)
    f, g = np.cumsum(rng.normal(size=(2, 400, 30)), axis=2)
    floor = neutral_measures(f, g, 0.1, auc=False)
    far = neutral_measures(1.5 * f, g, 0.1, auc=False)
    # The critical value of two samples of 400 at level 1e-3 is 0.14.
    assert all(value < 0.14 for name, value in floor.items() if name.startswith("ks_"))
    for name in ("ks_maximum", "ks_arc_length", "ks_largest_increment", "mmd2"):
        assert far[name] > floor[name] + 0.01
