"""Samples of predictions in closed form against their own moments, and against NumPy."""

import numpy as np
import pytest

from bayesnet.posterior.process_prediction import ProcessPrediction

NUM = 20_000
WEIGHTS = {"same": [[0.7, 0.7], [0.3, 0.3]], "own": [[0.7, 0.2], [0.3, 0.8]]}


def made(df, shared, weights, member):
    """Two nodes, three points in a row of correlation 0.5, two outputs."""
    rho = 0.5 ** np.abs(np.subtract.outer(np.arange(3), np.arange(3)))
    sd = np.array([[1.0, 0.5], [2.0, 3.0]])  # (node, output)
    location = np.stack([np.full((3, 2), -0.5), np.full((3, 2), 0.8)])
    function = np.broadcast_to(sd[:, None], (2, 3, 2))
    weight = np.log(np.array(WEIGHTS[weights]))
    return ProcessPrediction(
        location,
        function,
        np.full((2, 3, 2), 0.3),
        weight,
        None if df is None else np.full(2, df),
        np.full(2, np.inf if df is None else df / 2),
        np.array(member),
        shared,
        lambda node, output: sd[node, output] ** 2 * rho,
    )


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("df", [None, 9.0])
@pytest.mark.parametrize(
    ("shared", "weights", "member"),
    [
        (True, "same", [0, 1]),  # hyper-parameters or a scale of both outputs
        (False, "same", [0, 1]),  # hyper-parameters of both outputs, a scale each
        (False, "own", [0, 0]),  # outputs that are conditioned by themselves
    ],
)
def test_samples_have_the_moments_of_the_prediction(joint, df, shared, weights, member):
    pred = made(df, shared, weights, member)
    draws = pred.sample(1, NUM, joint=joint)
    np.testing.assert_allclose(draws.mean(0), pred.mean, atol=0.08)
    np.testing.assert_allclose(draws.std(0), pred.std, rtol=0.05)
    # Squares of two outputs at a point go together through a shared node or scale.
    apart = [draws[:, 0, j] - pred.mean[0, j] for j in range(2)]
    found = np.mean(np.minimum(np.abs(apart[0]), 3) * np.minimum(np.abs(apart[1]), 3))
    rng = np.random.default_rng(2)
    p = np.array(WEIGHTS[weights])
    node = rng.choice(2, 200_000, p=p[:, 0])
    node = np.stack([node, node if member == [0, 1] else rng.choice(2, 200_000, p=p[:, 1])], 1)
    chi = np.ones((200_000, 2))
    if df is not None:
        chi = np.sqrt(rng.chisquare(df, (200_000, 1 if shared else 2)) / df) * chi
    scale = np.hypot(pred.function_scale, pred.noise_scale)
    values = [
        pred.location[node[:, j], 0, j]
        + scale[node[:, j], 0, j] * rng.normal(size=200_000) / chi[:, j]
        - pred.mean[0, j]
        for j in range(2)
    ]
    expected = np.mean(np.minimum(np.abs(values[0]), 3) * np.minimum(np.abs(values[1]), 3))
    assert found == pytest.approx(expected, rel=0.05)
