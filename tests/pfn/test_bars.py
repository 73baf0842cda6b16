"""The bar distribution against numerical integration, scipy, and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

import bayesnet as bn
from bayesnet.pfn.bars import BarDistribution, Bars

EDGES = np.array([-2.0, -1.2, -0.5, 0.1, 0.2, 0.9, 1.5, 2.6])
TAILS = np.array([0.7, 1.3])


def laws(count=4, seed=0):
    rng = np.random.default_rng(seed)
    return BarDistribution(rng.normal(size=(count, len(EDGES) + 1)), EDGES, TAILS)


def one(law, i=0):
    return BarDistribution(law.logits[i], law.edges, law.tails)


def integral(function, low=-40.0, high=40.0, cuts=()):
    """Exact on each bar: a rule that crosses jumps would not be."""
    inside = [c for c in (*EDGES, *cuts) if low < c < high]
    points = [low, *sorted(inside), high]
    return sum(quad(function, a, b)[0] for a, b in zip(points, points[1:], strict=False))


def test_moments_entropy_and_mass_are_integrals_of_the_density():
    law = laws()
    for i in range(2):
        bar = one(law, i)

        def density(y, bar=bar):
            return float(np.exp(bar.log_prob(np.float64(y))))

        assert integral(density) == pytest.approx(1.0, abs=1e-7)
        mean = integral(lambda y, density=density: y * density(y))
        assert law.mean[i] == pytest.approx(mean, abs=1e-6)
        second = integral(lambda y, mean=mean: (y - mean) ** 2 * density(y))
        assert law.variance[i] == pytest.approx(second, abs=1e-6)

        def surprise(y, density=density):
            p = density(y)
            return -p * np.log(p) if p > 0 else 0.0

        assert law.entropy[i] == pytest.approx(integral(surprise, -10, 15), abs=1e-6)


@pytest.mark.parametrize("best", [-4.0, -0.7, 2.6, 4.0])
def test_improvement_is_an_integral_of_the_density(best):
    law = laws()
    for i in range(1):
        bar = one(law, i)

        def density(y, bar=bar):
            return float(np.exp(bar.log_prob(np.float64(y))))

        gain = integral(lambda y: max(y - best, 0.0) * density(y), cuts=(best,))
        chance = integral(density, low=best)
        assert law.expected_improvement(np.float64(best))[i] == pytest.approx(gain, abs=1e-6)
        assert law.probability_of_improvement(np.float64(best))[i] == pytest.approx(
            chance, abs=1e-7
        )
        below = integral(density, high=best)
        assert law.cdf(np.float64(best))[i] == pytest.approx(below, abs=1e-7)


def test_quantiles_invert_the_cdf_far_into_the_tails():
    law = laws(1)
    q = np.array([1e-6, 1e-3, 0.1, 0.5, 0.77, 0.999, 1 - 1e-6])
    np.testing.assert_allclose(law.cdf(law.quantile(q)), q, rtol=1e-6)
    assert np.all(np.diff(law.quantile(q)) > 0)


def test_draws_follow_the_law():
    law = laws(2)
    index = (np.repeat([0, 1], 4000),)
    draws = law.sample(np.random.default_rng(1), index).reshape(2, 4000)
    for i in range(2):
        bar = one(law, i)
        assert stats.kstest(draws[i], bar.cdf).pvalue > 1e-3


def test_affine_moves_everything():
    law = laws(3)
    moved = law.affine(np.array([5.0, 5.0, 5.0]), np.array([2.0, 2.0, 2.0]))
    np.testing.assert_allclose(moved.mean, 5 + 2 * law.mean)
    np.testing.assert_allclose(moved.variance, 4 * law.variance)
    np.testing.assert_allclose(
        moved.log_prob(np.float64(6.0)), law.log_prob(np.float64(0.5)) - np.log(2)
    )
    np.testing.assert_allclose(moved.quantile(0.3), 5 + 2 * law.quantile(0.3))


@pytest.mark.parametrize(
    "what",
    [
        lambda d: d.log_prob(jnp.asarray(0.3)),
        lambda d: d.log_prob(jnp.asarray(-3.1)),
        lambda d: d.cdf(jnp.asarray(3.1)),
        lambda d: d.quantile(jnp.asarray(0.37)),
        lambda d: d.quantile(jnp.asarray(0.002)),
        lambda d: d.mean,
        lambda d: d.variance,
        lambda d: d.entropy,
        lambda d: d.expected_improvement(jnp.asarray(0.4)),
        lambda d: d.probability_of_improvement(jnp.asarray(0.4)),
    ],
)
def test_gradients_are_those_of_finite_differences(what):
    with jax.enable_x64(True):
        base = jnp.asarray(laws(1).logits[0])

        def value(logits):
            return what(BarDistribution(logits, jnp.asarray(EDGES), jnp.asarray(TAILS)))

        gradient = jax.grad(value)(base)
        h = 1e-5 * jnp.eye(base.shape[0])
        expected = (value(base + h) - value(base - h)) / 2e-5
        np.testing.assert_allclose(gradient, expected, atol=2e-7)


def test_improvement_has_the_gradient_of_its_integral_in_best():
    with jax.enable_x64(True):
        d = BarDistribution(*map(jnp.asarray, (laws(1).logits[0], EDGES, TAILS)))
        for best in (-3.0, 0.4, 3.0):
            gradient = jax.grad(d.expected_improvement)(best)
            assert gradient == pytest.approx(-float(d.probability_of_improvement(best)), abs=1e-9)


def test_gaussian_probabilities_of_bars():
    bars = Bars(jnp.asarray(EDGES, jnp.float32), jnp.asarray(TAILS, jnp.float32))
    mean, std = np.array([0.3, -7.0, 1.49]), np.array([1.0, 0.6, 1e-4])
    p = bars.probabilities(jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32))
    cdf = stats.norm.cdf((EDGES - mean[:, None]) / std[:, None])
    expected = np.diff(np.concatenate([np.zeros((3, 1)), cdf, np.ones((3, 1))], axis=1), axis=1)
    np.testing.assert_allclose(p, expected, atol=2e-6)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-5)


def test_bars_follow_the_values_they_are_placed_by():
    values = np.random.default_rng(0).standard_t(4, size=50_000)
    bars = Bars.from_values(values, 200)
    edges = np.asarray(bars.edges, np.float64)
    assert bars.count == 200
    assert np.diff(edges).min() > 0
    assert np.diff(edges).max() < 2.5 * (edges[-1] - edges[0]) / 199  # nowhere very wide
    assert np.diff(edges)[95:105].max() < np.diff(edges)[0]  # fine where the mass is
    # The tails of values beyond the last edge, as a half-normal of the same second moment.
    beyond = values[values > edges[-1]] - edges[-1]
    assert bars.tails[1] == pytest.approx(np.sqrt(np.mean(beyond**2)), rel=1e-3)


def test_values_that_cannot_place_bars_are_refused():
    with pytest.raises(bn.InputError, match="at least 8 bars"):
        Bars.from_values(np.arange(100.0), 4)
    with pytest.raises(bn.InputError, match="finite values that differ"):
        Bars.from_values(np.ones(1000), 10)
    with pytest.raises(bn.InputError, match="finite values"):
        Bars.from_values(np.arange(20.0), 10)


def test_bars_are_placed_where_many_values_are_the_least():
    """Counts of 0, values that were cut off: nothing lies beyond the outer edge."""
    values = np.maximum(np.random.default_rng(0).normal(size=5000), -0.5)
    for sign in (1.0, -1.0):
        bars = Bars.from_values(sign * values, 40)
        assert (np.asarray(bars.tails) > 0).all()
        assert np.isfinite(bars.law(np.zeros(40)).log_prob(sign * values)).all()
