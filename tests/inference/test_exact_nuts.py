"""Samplers of hyper-parameters on an asymmetric density with known moments; no process, no JAX."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import digamma, polygamma

from bayesnet.inference._exact_hmc import sample_hyper
from bayesnet.inference._exact_nuts import nuts_transition


def bent(v):
    """x is the log of a Gamma(2) variable, y | x ~ N(x^2 / 4, 1): skewed and bent."""
    x, y = v
    apart = y - 0.25 * x * x
    if x > 50:
        return -np.inf, np.zeros(2)
    return 2 * x - np.exp(x) - 0.5 * apart**2, np.array([2 - np.exp(x) + 0.5 * apart * x, -apart])


@pytest.mark.parametrize("sampler", ["hmc", "nuts"])
def test_moments_of_a_bent_density(sampler):
    mode = np.array([np.log(2.0), 0.25 * np.log(2.0) ** 2])
    with np.errstate(over="ignore", invalid="ignore"):
        drawn = sample_hyper(bent, mode, 3000, 1, None, sampler)
    x, y = drawn.points.T
    mean, variance = digamma(2.0), polygamma(1, 2.0)
    assert drawn.effective_size > 500
    assert drawn.problems == []
    assert abs(x.mean() - mean) < 4.0 * np.sqrt(variance / drawn.effective_size)
    # The kurtosis of log-gamma is moderate: the error of a variance is about 2.5 / root of the size.
    assert abs(x.var() / variance - 1.0) < 4.0 * 2.5 / np.sqrt(drawn.effective_size)
    expected = 0.25 * (mean**2 + variance)
    assert abs(y.mean() - expected) < 4.0 * y.std() / np.sqrt(drawn.effective_size)


def test_transitions_keep_a_gaussian_with_any_step():
    """From exact draws, one transition later the law is the same: first and second moments."""
    rng = np.random.default_rng(0)

    def normal(v):
        return -0.5 * float(v @ v), -v

    for step in (0.3, 1.2):
        out = []
        for start in rng.normal(size=(1000, 2)):
            at, value, slope, _ = nuts_transition(normal, start, *normal(start), step, rng)
            np.testing.assert_allclose(value, normal(at)[0])
            np.testing.assert_allclose(slope, -at)
            out.append(at)
        out = np.array(out)
        assert (np.abs(out.mean(axis=0)) < 4.0 / np.sqrt(1000)).all()
        assert (np.abs(out.var(axis=0) - 1.0) < 4.0 * np.sqrt(2.0 / 1000)).all()


def test_edges_of_the_support_are_not_crossed():
    def half(v):
        return (-float(v[0]), -np.ones(1)) if v[0] > 0 else (-np.inf, np.zeros(1))

    rng, at = np.random.default_rng(0), np.array([1.0])
    for _ in range(200):
        at, _, _, rate = nuts_transition(half, at, *half(at), 0.7, rng)
        assert at[0] > 0
        assert 0.0 <= rate <= 1.0
