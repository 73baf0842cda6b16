"""Warped columns: what the prior sees of them, and that tasks without warps are what they were."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesnet as bn
from bayesnet.pfn import CorrelatedInputs, MixedInputs
from bayesnet.pfn.warps import SPREAD, kumaraswamy, warped


def test_the_map_is_that_of_kumaraswamy_also_near_its_ends():
    u = np.concatenate([[0.0], np.geomspace(1e-7, 0.5, 30), 1 - np.geomspace(0.5, 1e-5, 30), [1.0]])
    u = u.astype(np.float32)
    wide = u.astype(np.float64)
    for a, b in ((0.2, 0.3), (1.0, 1.0), (4.0, 0.25), (0.5, 6.0)):
        found = np.asarray(kumaraswamy(jnp.asarray(u), a, b))
        # 1 - (1 - u^a)^b in float64, by the power of the smaller number.
        expected = 1 - (-np.expm1(a * np.log(np.maximum(wide, 1e-300)))) ** b
        np.testing.assert_allclose(found, expected, atol=3e-6)
        assert (np.diff(found) >= 0).all()
    np.testing.assert_allclose(kumaraswamy(jnp.asarray(u), 1.0, 1.0), u, atol=1e-6)


def test_columns_are_warped_monotonically_within_their_range():
    x = jax.random.normal(jax.random.key(0), (2000, 9, 2))
    x = x.at[:1000, :, 1].set(0.0)  # a column that the function ignores
    seen = np.asarray(warped(0.3, jax.random.key(1), x))
    x = np.asarray(x)
    np.testing.assert_array_equal(seen[:1000, :, 1], 0.0)
    order = np.argsort(x, axis=1)
    assert (np.diff(np.take_along_axis(seen, order, axis=1), axis=1) >= 0).all()
    for end in (np.min, np.max):
        np.testing.assert_allclose(end(seen, axis=1), end(x, axis=1), atol=1e-5)
    moved = (seen != x).any(axis=1)
    assert moved[:, 0].mean() == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 2000))
    # Each column of a task by itself.
    both = (moved[1000:, 0] & moved[1000:, 1]).mean()
    assert both == pytest.approx(0.09, abs=4 * np.sqrt(0.09 * 0.91 / 1000))


def test_warps_have_the_spread_of_their_exponents():
    """A column of 0, 1/2 and 1: the middle tells of both exponents, in float64 by quadrature."""
    x = jnp.broadcast_to(jnp.asarray([0.0, 0.5, 1.0])[:, None], (20_000, 3, 1))
    middle = np.asarray(warped(1.0, jax.random.key(2), x))[:, 1, 0]
    nodes, masses = np.polynomial.hermite_e.hermegauss(40)
    power = np.exp(SPREAD * nodes)
    value = 1 - (1 - 0.5 ** power[:, None]) ** power[None]
    mass = masses[:, None] * masses[None] / masses.sum() ** 2
    mean = (mass * value).sum()
    std = np.sqrt((mass * (value - mean) ** 2).sum())
    assert middle.mean() == pytest.approx(mean, abs=4 * std / np.sqrt(20_000))
    assert middle.std() == pytest.approx(std, rel=0.03)


def test_inputs_warp_only_what_the_prior_sees():
    plain, warping = MixedInputs(unused=0.4), MixedInputs(unused=0.4, warped=0.5)
    x, seen = (np.asarray(a) for a in plain.draw(jax.random.key(0), 400, 12, 4, 3))
    same, bent = (np.asarray(a) for a in warping.draw(jax.random.key(0), 400, 12, 4, 3))
    np.testing.assert_array_equal(x, same)
    np.testing.assert_array_equal((seen == 0).all(axis=1), (bent == 0).all(axis=1))
    relevant = (seen != 0).any(axis=1)
    moved = (np.abs(bent - seen) > 1e-4).any(axis=1)
    binary = (np.abs(x) == 1).all(axis=1)
    assert not moved[binary].any()
    share = moved[relevant & ~binary].mean()
    assert share == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt((relevant & ~binary).sum()))


def test_mixed_columns_are_warped_as_they_are_in_the_end():
    law = CorrelatedInputs(MixedInputs(unused=0.0, warped=1.0), correlated=1.0, rounded=0.0)
    x, seen = (np.asarray(a) for a in law.draw(jax.random.key(0), 50, 12, 4, 3))
    order = np.argsort(x, axis=1)
    assert (np.diff(np.take_along_axis(seen, order, axis=1), axis=1) >= 0).all()
    assert (np.abs(seen - x) > 1e-3).any(axis=(1, 2)).mean() > 0.9


def test_tasks_without_warps_are_what_they_were():
    """Numbers of version 0.1.0 before there were warps: shipped weights can be trained again."""
    for law, first, total in (
        (MixedInputs(), [-1.7019292, -1.5796703], 0.0963161),
        (CorrelatedInputs(), [-0.30188408, -0.0071481988], -2.4518588),
    ):
        x, _ = law.draw(jax.random.key(3), 3, 5, 2, 2)
        np.testing.assert_allclose(x[0, 0], first, rtol=1e-5)
        assert float(np.asarray(x, np.float64).sum()) == pytest.approx(total, abs=1e-4)
    # Checkpoints and cards name inputs by this text.
    assert repr(MixedInputs()) == (
        "MixedInputs(weights=(0.35, 0.35, 0.1, 0.1, 0.1), unused=0.15, wide=0.3)"
    )
    assert repr(MixedInputs(warped=0.5)).endswith("wide=0.3, warped=0.5)")


def test_what_cannot_be_warped_is_refused():
    with pytest.raises(bn.InputError, match="probabilities"):
        MixedInputs(warped=1.5)
    # The evidence that weighs hyper-parameters knows of no warps.
    with pytest.raises(bn.UnsupportedError, match="warped"):
        bn.AmortisedProcess.train(
            bn.GaussianProcess("rbf", bn.LogNormal(0.0, 0.3)), inputs=MixedInputs(warped=0.2)
        )
