"""Mean functions: values, random lines against their closed-form covariance, sums."""

from __future__ import annotations

import copy
import pickle

import jax.numpy as jnp
import numpy as np
import pytest

import bayesnet as bn

X = np.random.default_rng(0).normal(size=(5, 2))


def mean_of(process, x=X, draws=4000):
    f = np.asarray(process.sample(0, x, draws), float)
    return f.mean(0), f.std(0) / np.sqrt(draws)


@pytest.mark.parametrize(
    ("mean", "expected"),
    [
        (2.5, np.full((5, 2), 2.5)),
        (bn.LinearMean([1.0, -2.0], 3.0), np.repeat((X @ [1, -2] + 3)[:, None], 2, 1)),
        (bn.LinearMean(0.5), np.repeat(0.5 * X.sum(1)[:, None], 2, 1)),
        (lambda x: np.sin(x[:, 0]), np.repeat(np.sin(X[:, :1]), 2, 1)),
        (lambda x: jnp.stack([x[:, 0], x[:, 1] ** 2], 1), np.c_[X[:, 0], X[:, 1] ** 2]),
    ],
    ids=["constant", "line", "one slope", "numpy function", "jax function"],
)
def test_draws_have_the_stated_mean(mean, expected):
    got, error = mean_of(bn.GaussianProcess("rbf", 0.5, 0.01, mean=mean, out_dim=2))
    assert np.abs((got - expected) / error).max() < 5


def test_a_random_line_adds_the_linear_kernel():
    # slope ~ N(0, 4), intercept ~ N(1, 0.25): covariance 4 x.x' + 0.25 on top of the kernel's.
    mean = bn.LinearMean(bn.Normal([0.0, 0.0], 2.0), bn.Normal(1.0, 0.5))
    process = bn.GaussianProcess("rbf", 1.0, 1.0, mean=mean)
    assert process.random
    f = np.asarray(process.sample(0, X, 6000)[..., 0], float) - 1.0
    expected = np.asarray(bn.GaussianProcess("rbf").kernel(X, X), float) + 0.25 + 4.0 * X @ X.T
    products = f[:, :, None] * f[:, None, :]
    error = products.std(0) / np.sqrt(len(f))
    assert np.abs((products.mean(0) - expected) / error).max() < 5
    with pytest.raises(bn.InputError, match="random"):
        process.kernel(X, X)


def test_by_name_a_line_in_one_column():
    process = bn.GaussianProcess("rbf", 1.0, 1e-6, mean="linear")
    f = np.asarray(process.sample(0, [[1.0], [-2.0]], 4000)[..., 0], float)
    assert abs(f[:, 0].std() - 1.0) < 0.06
    np.testing.assert_allclose(f[:, 1], -2.0 * f[:, 0], atol=0.02)
    with pytest.raises(bn.InputError, match="one a column"):
        process.sample(0, X, 2)


def test_kernel_and_line_are_drawn_independently():
    law = bn.LogNormal(0.0, 1.0)
    process = bn.GaussianProcess("rbf", 1.0, law, mean=bn.LinearMean(bn.Normal(0.0, 1.0)))
    x = np.array([[0.0], [100.0]])  # the line is seen far out, the kernel at 0
    f = np.asarray(process.sample(3, x, 5000)[..., 0], float)
    slope, size = f[:, 1] / 100, np.abs(f[:, 0])
    assert abs(np.corrcoef(slope**2, size)[0, 1]) < 5 / np.sqrt(5000)


def test_sums_of_processes_combine_means():
    a = bn.GaussianProcess("rbf", 0.5, 0.01, mean=bn.LinearMean([1.0, 0.0]))
    b = bn.GaussianProcess("rbf", 0.5, 0.01, mean=lambda x: x[:, 1])
    got, error = mean_of(a + b + bn.GaussianProcess("rbf", 0.5, 0.01, mean=3.0))
    assert np.abs((got[:, 0] - X.sum(1) - 3.0) / error[:, 0]).max() < 5
    with pytest.raises(bn.InputError, match="mean 0"):
        a * a


def test_several_sets_of_points_at_once():
    process = bn.GaussianProcess("rbf", 0.5, 1e-8, mean=lambda x: x[:, 0])
    xs = jnp.asarray(np.stack([X, X + 1.0]), jnp.float32)
    import jax

    draws = process.sample_many(jax.random.key(0), xs, 3)
    assert draws.shape == (2, 3, 5, 1)
    np.testing.assert_allclose(draws[1, :, :, 0], np.tile(X[:, 0] + 1.0, (3, 1)), atol=1e-3)


def test_what_prints_alike_is_alike():
    # Kept matches are told apart by what their target prints.
    assert repr(bn.GaussianProcess(mean=bn.LinearMean(1.0))) != repr(
        bn.GaussianProcess(mean=bn.LinearMean(2.0))
    )

    class Curve:
        def __init__(self, power):
            self.power = power

        def __call__(self, x):
            return x[:, 0] ** self.power

        def __repr__(self):
            return "Curve()"

    assert " at 0x" in repr(bn.GaussianProcess(mean=Curve(2)))
    tk = pytest.importorskip("tinygp").kernels
    short, long = (tk.ExpSquared(scale=jnp.array(s)) for s in (1.0, 2.0))
    assert repr(bn.GaussianProcess(short)) != repr(bn.GaussianProcess(long))
    assert " at 0x" in repr(bn.GaussianProcess(tk.Custom(lambda a, b: 1.0)))


def test_copies():
    process = bn.GaussianProcess("rbf", mean=bn.LinearMean(bn.Normal([0.0, 0.0], 1.0)))
    for other in (copy.deepcopy(process), pickle.loads(pickle.dumps(process))):
        assert other == process
        np.testing.assert_array_equal(other.sample(0, X, 2), process.sample(0, X, 2))


@pytest.mark.parametrize(
    ("mean", "words"),
    [
        ("quadratic", "Unknown mean"),
        (np.nan, "finite"),
        ([1.0, 2.0], "mean must be"),
        (bn.LinearMean([1.0, 2.0, 3.0]), "3 slopes"),
        (lambda x: x, "gave shape"),
        (lambda x: x[:, 0] * np.nan, "not finite"),
    ],
)
def test_bad_means_are_named(mean, words):
    with pytest.raises(bn.InputError, match=words):
        bn.GaussianProcess("rbf", mean=mean).sample(0, X, 2)


@pytest.mark.parametrize("bad", [{"slope": "steep"}, {"slope": np.inf}, {"intercept": [1.0, 2.0]}])
def test_bad_lines_are_named(bad):
    with pytest.raises(bn.InputError, match=next(iter(bad))):
        bn.LinearMean(**bad)
