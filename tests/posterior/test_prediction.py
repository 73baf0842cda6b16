"""A prediction is a mixture of one law a draw: everything by hand with SciPy."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy import stats

import bayesnet as bn
from bayesnet.likelihoods.gaussian import Normal

RNG = np.random.default_rng(0)
S, N, M = 7, 4, 2
F = RNG.normal(3.0, 1.0, (S, N, M)) + RNG.normal(0.0, 3.0, (S, 1, M))
SCALE = RNG.uniform(0.3, 1.5, (S, 1, M))
PRED = bn.Prediction(Normal(F, SCALE), F)
LAW = stats.norm(F, SCALE)
Y = RNG.normal(3.0, 2.0, (N, M))


def test_moments_by_hand():
    np.testing.assert_allclose(PRED.mean, F.mean(0))
    np.testing.assert_allclose(PRED.epistemic_std, F.std(0))
    np.testing.assert_allclose(PRED.aleatoric_std**2, np.broadcast_to((SCALE**2).mean(0), (N, M)))
    np.testing.assert_allclose(PRED.std**2, PRED.epistemic_std**2 + PRED.aleatoric_std**2)


def test_mixture_density_and_distribution_by_hand():
    np.testing.assert_allclose(PRED.log_prob(Y), np.log(LAW.pdf(Y).mean(0)))
    np.testing.assert_allclose(PRED.cdf(Y), LAW.cdf(Y).mean(0))
    np.testing.assert_allclose(PRED.log_prob(Y + 1e4) < -1e6, True)  # far out: finite, no underflow
    assert np.isfinite(PRED.log_prob(Y + 1e4)).all()


def test_moment_density_is_the_gaussian_of_the_same_mean_and_sd():
    expected = stats.norm(PRED.mean, PRED.std).logpdf(Y)
    np.testing.assert_allclose(PRED.moment_log_prob(Y), expected)
    assert not np.allclose(expected, PRED.log_prob(Y))


@pytest.mark.parametrize("q", [1e-6, 0.05, 0.5, 0.9, 1 - 1e-6])
def test_quantile_inverts_the_distribution(q):
    np.testing.assert_allclose(PRED.cdf(PRED.quantile(q)), q, rtol=1e-6)


def test_intervals_hold_their_share_of_samples():
    samples = PRED.sample(0, 20_000)
    for level in (0.5, 0.9):
        low, high = PRED.interval(level)
        inside = ((samples >= low) & (samples <= high)).mean(0)
        assert np.abs(inside - level).max() < 5 * np.sqrt(level * (1 - level) / 20_000)


@pytest.mark.parametrize("bad", [0.0, 1.0, -0.1, 1.5, np.nan])
def test_levels_must_lie_inside_the_unit_interval(bad):
    with pytest.raises(bn.InputError, match="between 0 and 1"):
        PRED.quantile(bad)
    with pytest.raises(bn.InputError, match="between 0 and 1"):
        PRED.interval(bad)


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("noise", [True, False])
def test_samples_have_the_moments_of_the_mixture(joint, noise):
    k = 40_000
    samples = PRED.sample(jax.random.key(1), k, joint=joint, noise=noise)
    assert samples.shape == (k, N, M)
    sd = PRED.std if noise else PRED.epistemic_std
    assert (np.abs(samples.mean(0) - PRED.mean) < 5 * sd / np.sqrt(k)).all()
    np.testing.assert_allclose(samples.std(0), sd, rtol=0.05)
    # Joint draws carry the covariance of the functions between points, others none.
    cov = np.cov(samples[:, 0, 0], samples[:, 1, 0])[0, 1]
    between = np.cov(F[:, 0, 0], F[:, 1, 0], ddof=0)[0, 1]
    error = 6 * sd[0, 0] * sd[1, 0] / np.sqrt(k)
    assert abs(between) > 10 * error  # the two cases can be told apart
    assert cov == pytest.approx(between if joint else 0.0, abs=error)


def test_joint_samples_without_noise_are_the_functions():
    for draw in PRED.sample(3, 20, noise=False):
        assert np.isclose(F, draw).all(axis=(1, 2)).any()


def test_the_key_decides():
    for key in (3, np.int64(3), jax.random.key(3), jax.random.PRNGKey(3)):
        np.testing.assert_array_equal(PRED.sample(key, 2), PRED.sample(key, 2))
    assert not np.array_equal(PRED.sample(3, 2), PRED.sample(4, 2))
    assert not np.array_equal(PRED.sample(jax.random.key(3)), PRED.sample(jax.random.key(4)))


def test_targets_of_the_wrong_shape_are_refused():
    for wrong in (Y.T, np.zeros(N), np.zeros((N + 1, M))):
        with pytest.raises(bn.InputError, match="y must have shape"):
            PRED.log_prob(wrong)
    single = bn.Prediction(Normal(F[:, :, :1], SCALE[:, :, :1]), F[:, :, :1])
    np.testing.assert_array_equal(single.log_prob(Y[:, 0]), single.log_prob(Y[:, :1]))
