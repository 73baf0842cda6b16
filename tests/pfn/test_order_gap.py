"""The order of points: what it changes for a network, and that it changes nothing for an exact process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import bayesnet as bn
from bayesnet.data import Scaling
from bayesnet.pfn.context import pad_context
from bayesnet.pfn.joint import path_values
from bayesnet.pfn.order_gap import log_density
from tests.pfn.exact import NOISE, exact_pfn, process
from tests.pfn.small import random_pfn

RNG = np.random.default_rng(3)
X = RNG.uniform(-1.5, 1.5, (7, 2))
Y = np.sin(2 * X[:, 0]) + 0.3 * RNG.normal(size=7)
NEW = RNG.uniform(-1.5, 1.5, (4, 2))
PLAIN = Scaling.identity(2, 1)


@pytest.fixture(scope="module")
def exact():
    return exact_pfn().fit(X, Y, scaling=PLAIN)


@pytest.fixture(scope="module")
def network():
    return random_pfn().fit(X, Y)


def test_the_joint_density_is_that_of_the_process_in_any_order(exact):
    mean, covariance = process(X, Y, NEW)
    covariance = covariance + NOISE**2 * np.eye(4)
    targets = mean + RNG.multivariate_normal(np.zeros(4), covariance, size=3)
    expected = stats.multivariate_normal(mean, covariance).logpdf(targets)
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        every = np.tile(order, (3, 1))
        found = log_density(exact, 0, NEW, every, targets[:, order])
        # Bars of width 1/80 under densities with an sd of 0.3 or more.
        np.testing.assert_allclose(found, expected, atol=0.1)


@pytest.mark.slow
def test_the_gap_is_there_for_a_network_and_not_for_a_process(exact, network):
    few = {"draws": 4, "orders": 4}
    assert network.order_gap(NEW[:1], **few) == 0.0
    gap = network.order_gap(NEW, **few)
    # What is left of the exact process is the width of its bars.
    assert exact.order_gap(NEW, **few)[0] < 0.001
    assert gap.shape == (1,)
    assert gap[0] > 0.005
    # Repeatable, and told for each output.
    both = random_pfn().fit(X, np.column_stack([Y, Y**3])).order_gap(NEW, **few)
    assert both.shape == (2,)
    np.testing.assert_allclose(both[0], gap[0], rtol=1e-3)


@pytest.mark.slow
def test_the_gap_is_the_spread_over_orders_of_one_density(network):
    draws = network.sample_paths(NEW, 4, seed=4)
    targets = network.data.scaling.y_in(draws)[..., 0]
    order = np.argsort(np.random.default_rng([4, 4]).uniform(size=(4, 3, 4)), axis=-1)
    each = [
        [log_density(network, 0, NEW, o[None], t[o][None])[0] for o in mine]
        for mine, t in zip(order, targets, strict=True)
    ]
    expected = np.sqrt(np.var(each, axis=1, ddof=1).mean()) / 4
    found = network.order_gap(NEW, draws=4, orders=3, seed=4)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_paths_are_differentiable_in_the_points_with_fixed_uniforms(exact):
    u = jnp.asarray([0.2, 0.7, 0.4])
    context = pad_context(exact.pfn, exact.data.x, exact.data.y, extra=3)
    points = np.pad(NEW[:3], ((0, 0), (0, 1))).astype(np.float32)

    with jax.enable_x64(True):
        wide = jax.tree.map(
            lambda a: jnp.asarray(a, jnp.float64) if a.dtype == np.float32 else jnp.asarray(a),
            context,
        )
        x, y, mask, used = wide
        bars = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), exact.pfn.bars)

        @jax.jit
        def last(points):
            drawn = path_values(
                exact.pfn.network,
                bars,
                (x, y[0], mask, used),
                7,
                points[None],
                jnp.asarray(u, jnp.float64)[None],
            )
            return drawn[0, -1]

        at = jnp.asarray(points, jnp.float64)
        assert last(at) == last(at)
        gradient = np.asarray(jax.grad(last)(at))
        for i, j in ((0, 0), (1, 1), (2, 0)):
            step = 1e-5
            high, low = (last(at.at[i, j].add(s * step)) for s in (1, -1))
            difference = (high - low) / (2 * step)
            np.testing.assert_allclose(gradient[i, j], difference, rtol=1e-4, atol=1e-6)
        # The last draw follows from the earlier points through what was drawn at them.
        assert np.abs(gradient[:2, :2]).max() > 1e-3


def test_what_has_no_gap_is_refused(exact):
    with pytest.raises(bn.InputError, match="at least 1 draw and 2 orders"):
        exact.order_gap(NEW, orders=1)
    with pytest.raises(bn.InputError, match="at least 1 draw and 2 orders"):
        exact.order_gap(NEW, draws=0)
    with pytest.raises(bn.InputError, match="rows of context"):
        exact.order_gap(np.zeros((20, 2)))
    with pytest.raises(bn.InputError, match="features"):
        exact.order_gap(np.zeros((2, 3)))
