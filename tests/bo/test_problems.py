import numpy as np
import pytest

from bayesnet import InputError
from bayesnet.bo.problems import FUNCTIONS, Pool, problem
from bayesnet.bo.space import Space


@pytest.mark.parametrize("name", FUNCTIONS)
def test_standard_problems_have_their_optimum(name):
    one = problem(name)
    Space.of(one.space)
    at = one.function.optimizers[0].tolist() if one.function.optimizers is not None else None
    if at is not None:
        assert one(dict(zip(one.space, at, strict=True))) == pytest.approx(one.optimum, abs=1e-4)
    middle = {n: (a + b) / 2 + 0.1 for n, (a, b) in one.space.items()}
    assert one(middle) > one.optimum


def test_unknown_problem():
    with pytest.raises(InputError, match="Did you mean 'branin'"):
        problem("brannin")


def test_a_pool_averages_equal_designs():
    X = np.array([[0, 1], [1, 1], [0, 1], [2, 1]])
    pool = Pool.of(X, [1.0, 5.0, 3.0, 4.0])
    np.testing.assert_array_equal(pool.X, [[0, 1], [1, 1], [2, 1]])
    np.testing.assert_array_equal(pool.y, [2.0, 5.0, 4.0])
    np.testing.assert_array_equal(pool.bounds, [[0, 1], [2, 2]])
    assert pool.top(0.4).tolist() == [False, True, False]
    np.testing.assert_array_equal(pool.regret(np.array([0, 2, 1, 0])), [3, 1, 0, 0])
    lowest = Pool.of(X, [1.0, 5.0, 3.0, 4.0], maximize=False)
    assert lowest.top(0.1).tolist() == [True, False, False]
    assert sorted(lowest.start(3, seed=1)) == [0, 1, 2]
    with pytest.raises(InputError, match="two different"):
        Pool.of(X[:1], [1.0])
