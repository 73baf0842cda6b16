"""Predictions of classes: everything by hand."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy import stats

import bayesnet as bn
from bayesnet.likelihoods.labels import LabelLaw

RNG = np.random.default_rng(0)
S, N, K = 9, 5, 3
P = RNG.dirichlet(np.ones(K), (S, N))
P[:, 0] = [0.2, 0.3, 0.5]  # draws agree: nothing to learn about the function
P[:, 1] = np.eye(K)[RNG.integers(K, size=S)]  # each draw is sure, of different classes
P[:, 2] = [1.0, 0.0, 0.0]
CLEAN = RNG.dirichlet(np.ones(K), (S, N))
with np.errstate(divide="ignore"):
    PRED = bn.ClassPrediction(LabelLaw(np.log(P), CLEAN), ("ant", "bee", "cat"))
MEAN = P.mean(0)


def test_probabilities_and_labels():
    np.testing.assert_allclose(PRED.mean, MEAN)
    np.testing.assert_allclose(PRED.mean.sum(-1), 1.0)
    assert PRED.classes.tolist() == ["ant", "bee", "cat"]
    assert PRED.predicted.tolist() == [PRED.classes[i] for i in MEAN.argmax(1)]
    np.testing.assert_array_equal(PRED.values, CLEAN)


def test_entropies_by_hand():
    total = np.array([stats.entropy(p) for p in MEAN])
    expected = np.array([[stats.entropy(p) for p in draw] for draw in P]).mean(0)
    np.testing.assert_allclose(PRED.entropy, total)
    np.testing.assert_allclose(PRED.aleatoric, expected)
    np.testing.assert_allclose(PRED.epistemic, total - expected, atol=1e-12)
    # Mutual information as the mean divergence of each draw from the mixture.
    divergence = [[stats.entropy(p, q) for p, q in zip(draw, MEAN, strict=True)] for draw in P]
    np.testing.assert_allclose(PRED.epistemic, np.mean(divergence, axis=0), atol=1e-12)
    assert PRED.epistemic[0] == pytest.approx(0, abs=1e-12)
    assert PRED.aleatoric[1] == pytest.approx(0, abs=1e-12)
    assert PRED.entropy[2] == 0
    assert (PRED.epistemic >= 0).all()


def test_log_probabilities_of_labels():
    labels = np.array(["cat", "bee", "ant", "ant", "bee"])
    expected = np.log(MEAN[np.arange(N), [2, 1, 0, 0, 1]])
    np.testing.assert_allclose(PRED.log_prob(labels), expected)
    np.testing.assert_allclose(PRED.log_prob(labels.astype(object)[:, None]), expected)
    with pytest.raises(bn.InputError, match="'dog' is not among the classes 'ant', 'bee', 'cat'"):
        PRED.log_prob(["dog"] * N)
    with pytest.raises(bn.InputError, match="0 is not among"):
        PRED.log_prob(np.zeros(N, int))
    with pytest.raises(bn.InputError, match="one label for each of 5 points, got 1"):
        PRED.log_prob(["ant"])


def test_probabilities_that_underflow_keep_their_logarithm():
    log_p = np.array([[[-1000.0, 0.0]], [[-1001.0, 0.0]]])
    pred = bn.ClassPrediction(LabelLaw(log_p, np.exp(log_p)), (0, 1))
    assert pred.log_prob([0])[0] == pytest.approx(np.logaddexp(-1000, -1001) - np.log(2))


@pytest.mark.parametrize("joint", [True, False])
def test_samples_have_the_probabilities(joint):
    k = 20_000
    samples = PRED.sample(jax.random.key(0), k, joint=joint)
    assert samples.shape == (k, N)
    for j, name in enumerate(PRED.labels):
        error = 5 * np.sqrt(MEAN[:, j] * (1 - MEAN[:, j]) / k) + 1e-12
        assert (np.abs((samples == name).mean(0) - MEAN[:, j]) < error).all()
    # Joint draws are of one function: its points depend on each other.
    both = (samples[:, 1] == "ant") & (samples[:, 3] == "ant")
    exact = (P[:, 1, 0] * P[:, 3, 0]).mean() if joint else MEAN[1, 0] * MEAN[3, 0]
    assert abs(both.mean() - exact) < 5 * np.sqrt(exact * (1 - exact) / k)
    functions = PRED.sample(3, 4, joint=joint, noise=False)
    assert functions.shape == (4, N, K)
    assert joint == all(np.isclose(CLEAN, draw).all(axis=(1, 2)).any() for draw in functions)


@pytest.mark.parametrize(
    "ask",
    [
        lambda p: p.std,
        lambda p: p.epistemic_std,
        lambda p: p.aleatoric_std,
        lambda p: p.quantile(0.5),
        lambda p: p.interval(0.9),
        lambda p: p.cdf(0),
        lambda p: p.moment_log_prob(0),
    ],
)
def test_what_labels_do_not_have_is_refused_in_words(ask):
    with pytest.raises(bn.UnsupportedError, match=r"Class labels have no .*: use mean"):
        ask(PRED)
