import numpy as np
import pytest

from bayesnet.bo.scaling import FACTOR, SHIFT, WORST, robust_scale, winsorise


@pytest.mark.parametrize("maximize", [True, False])
def test_only_the_bad_tail_is_clipped(maximize):
    sign = 1.0 if maximize else -1.0
    y = sign * np.concatenate([np.linspace(-1, 1, 50), [-1e9, 1e3, -np.inf, np.inf]])
    clipped = sign * winsorise(y, maximize=maximize)
    assert np.isfinite(clipped).all()
    assert clipped[51] == 1e3
    assert clipped[53] == 1e3  # +inf: as good as the best finite one
    assert clipped[50] == clipped[52]
    assert -WORST * 2 < clipped[50] < -1
    np.testing.assert_array_equal(clipped[:50], sign * y[:50])


@pytest.mark.parametrize("y", [[3.0], [2.0, 2.0, 2.0], [1.0, 2.0], [np.inf, -np.inf]])
def test_few_or_equal_values_stay_finite(y):
    clipped = winsorise(np.array(y))
    assert np.isfinite(clipped).all()
    (_, scale), moved = robust_scale(clipped)
    assert scale > 0
    assert moved


def test_the_scale_stays_until_it_has_really_moved():
    rng = np.random.default_rng(0)
    y = rng.normal(size=200)
    first, moved = robust_scale(y)
    assert moved
    for nearby in (y * (FACTOR - 0.05), y / (FACTOR - 0.05), y + 0.9 * SHIFT):
        assert robust_scale(nearby, first) == (first, False)
    for far in (y * (FACTOR + 0.1), y / (FACTOR + 0.1), y + 1.1 * SHIFT):
        kept, moved = robust_scale(far, first)
        assert moved
        assert kept == (pytest.approx(far.mean()), pytest.approx(far.std()))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_values_too_big_to_square_are_as_infinite(sign):
    y = sign * np.array([0.0, 1.0, 2.0, 3.0, np.finfo(float).max])
    np.testing.assert_array_equal(
        winsorise(y), winsorise(np.where(np.abs(y) > 9, sign * np.inf, y))
    )
    (loc, scale), _ = robust_scale(winsorise(np.full(5, 1e200)))
    assert np.isfinite([loc, scale]).all()
