"""Sums of priors of any kind: moments, shapes, what cannot be added."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import bayesnet as bn
from bayesnet.priors.matching.target import check_target

X = np.random.default_rng(0).normal(size=(4, 1))


class Level:
    """A user's own process: a random level."""

    def sample(self, key, x, num_samples):
        return np.repeat(np.asarray(jax.random.normal(key, (num_samples, 1, 1))), len(x), axis=1)


def test_a_sum_adds_independent_draws():
    network = bn.NetworkPrior(bn.MLP((3,)), in_dim=1)
    process = bn.GaussianProcess("rbf", 0.7, mean=2.0)
    total = process + Level() + network
    assert isinstance(total, bn.Sum)
    assert len(total.parts) == 3
    f = np.asarray(total.sample(0, X, 6000)[..., 0], float) - 2.0
    g = np.asarray(network.sample(jax.random.key(9), X, 6000)[..., 0], float)
    expected = np.asarray(process.kernel(X, X)) + 1.0 + np.cov(g.T)
    products = f[:, :, None] * f[:, None, :]
    error = np.hypot(products.std(0), (g[:, :, None] * g[:, None, :]).std(0)) / np.sqrt(6000)
    assert np.abs((products.mean(0) - expected) / error).max() < 5


def test_any_order_and_several_sets_of_points():
    network = bn.NetworkPrior(bn.MLP((3,)), in_dim=1)
    for total in (
        network + bn.GaussianProcess(),
        Level() + bn.GaussianProcess(),
        bn.Sum(Level(), network),
    ):
        xs = jax.numpy.stack([jax.numpy.asarray(X, "float32")] * 2)
        assert total.sample_many(jax.random.key(0), xs, 3).shape == (2, 3, 4, 1)
    assert isinstance(bn.GaussianProcess() + bn.GaussianProcess(), bn.GaussianProcess)


def test_a_sum_is_a_matching_target():
    prior = bn.NetworkPrior(bn.MLP((5,)), in_dim=1)
    key = jax.random.key(0)
    check_target(prior, bn.GaussianProcess() + Level(), key, X)
    with pytest.raises(bn.InputError, match="2 output"):
        check_target(prior, bn.GaussianProcess(out_dim=2) + bn.GaussianProcess(out_dim=2), key, X)


def test_what_cannot_be_added():
    process = bn.GaussianProcess()
    for make, words in (
        (lambda: bn.Sum(process), "at least two"),
        (lambda: bn.Sum(process, 3.0), "has none"),
        (lambda: bn.Sum(Level(), process, bn.GaussianProcess(out_dim=2)), "out_dim"),
        (lambda: bn.Sum(bn.GaussianProcess(units="data"), process, Level()), "units"),
        (lambda: bn.Sum(process, bn.NetworkPrior(bn.MLP((2,)), out_dim=2)), "out_dim"),
    ):
        with pytest.raises(bn.InputError, match=words):
            make()
    with pytest.raises(TypeError):
        process + 1.0
