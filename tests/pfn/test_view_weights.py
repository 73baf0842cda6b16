"""Views of a quadrature weighed by their evidence."""

import jax
import numpy as np
import pytest
from scipy.special import logsumexp

import bayesnet as bn
from bayesnet.pfn import PFN
from bayesnet.pfn.bars import Bars
from bayesnet.pfn.ensemble import COMPONENTS, SHARPNESS, allotted
from bayesnet.pfn.family import ProcessFamily
from bayesnet.pfn.inputs import MixedInputs
from bayesnet.pfn.power_map import PowerMap
from bayesnet.pfn.quadrature import QuadratureNetwork
from bayesnet.pfn.tasks import Tasks

RNG = np.random.default_rng(2)
X, NEW = RNG.normal(size=(14, 2)), RNG.normal(size=(5, 2))
SMOOTH = np.sin(X[:, 0]) + 0.3 * X[:, 1]
Y = np.column_stack([np.exp(2 * SMOOTH), SMOOTH])


@pytest.fixture(scope="module")
def pfn():
    """Processes at nodes that random weights place: the linear algebra is exact."""

    def prior(d):
        return bn.GaussianProcess("rbf", bn.LogNormal([0.1] * d, 0.5), bn.LogNormal(0.0, 0.7))

    tasks = Tasks(prior, bn.GaussianLikelihood(bn.LogNormal(-1.5, 0.6)), MixedInputs(unused=0.2), (1, 2), 24, 5)  # fmt: skip
    network = QuadratureNetwork.create(
        jax.random.key(1), ProcessFamily.of(tasks, 2), width=16, depth=2, heads=2, hidden=16, max_rows=24
    )  # fmt: skip
    bars = Bars.from_values(np.random.default_rng(0).normal(size=2000), 60)
    return PFN(network, bars, {"name": "small", "buckets": (24,), "dims": (1, 2), "steps": 0})


@pytest.fixture(scope="module")
def posterior(pfn):
    return pfn.fit(X, Y, ensemble=8, warn=False)


def test_the_slope_of_the_power_map_is_its_derivative():
    y = np.array([[-3.0, -1.0], [-0.5, 0.2], [0.7, 2.5]])
    power = PowerMap(np.array([0.3, 1.6]), np.array([0.1, -0.2]), np.array([1.5, 0.7]))
    h = 1e-6
    slope = (power.forward(y + h) - power.forward(y - h)) / (2 * h)
    np.testing.assert_allclose(np.exp(power.log_slope(y)), slope, rtol=1e-8)


def test_components_are_allotted_by_weight_and_mixed():
    found = allotted(np.array([0.5, 0.02, 0.23, 0.25]), 16)
    assert np.bincount(found, minlength=4).tolist() == [8, 0, 4, 4]
    assert sorted(found[:4]) == [0, 0, 2, 3]  # the first few are as all of them
    np.testing.assert_array_equal(allotted(np.full(5, 0.2), 5), np.arange(5))


def test_each_output_has_weights_of_its_own_from_the_root_of_the_evidence(posterior):
    found = posterior.predict(NEW)
    counts = [np.bincount(c, minlength=8) for c in posterior._components.T]
    for j, count in enumerate(counts):
        y = posterior.data.y[:, j : j + 1]
        log_weight = [
            p.log_evidence[j] + (v.target.log_slope(posterior.data.y)[:, j].sum() if v.target else 0)
            for v, p in posterior.members
        ]  # fmt: skip
        weight = np.exp(SHARPNESS * np.array(log_weight - logsumexp(log_weight)))
        weight = weight / weight.sum()
        np.testing.assert_allclose(count / COMPONENTS, weight, atol=1 / COMPONENTS)
        assert count.sum() == COMPONENTS
        # The law is the mixture of what views say, one output after the other.
        equal = posterior.prediction(
            posterior.data.scaling.x_in(NEW),
            [p.logits(v.inputs(posterior.data.scaling.x_in(NEW))) for v, p in posterior.members],
            np.repeat(np.arange(8)[:, None], 2, axis=1),
        )
        target = np.broadcast_to(y[:1] * 2 + 1, (5, 2))
        each = equal.components.log_prob(target[None])[:, :, j]
        expected = logsumexp(each + np.log(np.maximum(count, 1e-300) / COMPONENTS)[:, None], axis=0)
        np.testing.assert_allclose(found.log_prob(target)[:, j], expected, rtol=1e-9)
    # The output that is the exponential of a smooth function is told by views that map it.
    mapped = np.array([v.target is not None for v, _ in posterior.members])
    assert counts[0][mapped].sum() > 0.9 * COMPONENTS
    assert counts[1][mapped].sum() < 0.7 * COMPONENTS


@pytest.mark.slow
def test_draws_and_paths_are_of_views_by_their_weights(posterior):
    found = posterior.predict(NEW[:1])
    draws = found.sample(0, 4000)
    error = 4 * found.std / 4000**0.5
    assert (np.abs(draws.mean(axis=0) - found.mean) < error).all()
    paths = posterior.sample_paths(NEW[:1], 160, seed=1)
    assert np.array_equal(paths, posterior.sample_paths(NEW[:1], 160, seed=1))
    levels = np.array([found.cdf(p) for p in paths])[:, 0]
    assert (np.abs(levels.mean(axis=0) - 0.5) < 4 / (12 * 160) ** 0.5).all()


@pytest.mark.slow
def test_many_tables_are_weighed_as_one_by_one(pfn):
    x, y = np.stack([X, X[::-1]]), np.stack([Y[:, 0], Y[:, 1]])
    together = pfn.predict_many(x, y, np.stack([NEW, NEW]), ensemble=4)
    for i, found in enumerate(together):
        alone = pfn.fit(x[i], y[i], ensemble=4, warn=False).predict(NEW)
        np.testing.assert_allclose(found.mean, alone.mean, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.quantile(0.9), alone.quantile(0.9), rtol=1e-3, atol=1e-3)
