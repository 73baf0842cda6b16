"""Tasks: the law that a process gives for its queries, and that of drawn functions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesnet as bn
from bayesnet.pfn.inputs import KINDS, MixedInputs, as_input_law, log_prob_relevant
from bayesnet.pfn.tasks import Mixture, Tasks, gaussian_task

RBF = bn.GaussianProcess("rbf", 0.7, 1.5)


def make(prior=RBF, likelihood=None, **changes):
    settings = {"dims": (2,), "max_rows": 9, "queries": 6} | changes
    return Tasks(prior, likelihood or bn.GaussianLikelihood(0.3), as_input_law(None), **settings)


def test_a_process_gives_its_exact_law():
    """Against the textbook formula, from the context that was drawn."""
    prior = bn.GaussianProcess("matern52", bn.LogNormal([0.0, 0.5], 0.4), bn.LogNormal(0.0, 0.5))
    counts = np.array([0, 1, 4, 9])
    mask = jnp.arange(9) < counts[:, None]
    x, _ = MixedInputs(unused=0.0).draw(jax.random.key(1), 4, 15, 6, 2)
    noise = jnp.asarray([0.1, 0.2, 0.3, 0.4])
    y, mean, std, hyper = gaussian_task(prior.covariance, 0.0, jax.random.key(2), x, noise, mask)
    for i, n in enumerate(counts):
        h = jax.tree.map(lambda a, i=i: a[i], hyper)
        with jax.enable_x64(True):
            h = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), h)
            rows = np.asarray(x[i], np.float64)
            k = np.asarray(prior.covariance.matrix(h, jnp.asarray(rows), jnp.asarray(rows)))
        gram = k[:n, :n] + float(noise[i]) ** 2 * np.eye(n)
        solve = np.linalg.solve(gram, k[:n, 9:]) if n else np.zeros((0, 6))
        expected = solve.T @ np.asarray(y[i, :n], np.float64)
        variance = np.diag(k[9:, 9:]) - np.sum(k[:n, 9:] * solve, axis=0)
        np.testing.assert_allclose(mean[i], expected, atol=2e-4)
        np.testing.assert_allclose(std[i], np.sqrt(variance), atol=1e-3)
        assert np.all(np.asarray(y[i, n:]) == 0)


def test_contexts_have_the_covariance_of_the_process_and_its_noise():
    points = np.array([[0.0], [0.4], [1.0]])
    x = jnp.broadcast_to(jnp.asarray(points, jnp.float32), (4000, 3, 1))
    process = bn.GaussianProcess("rbf", 0.7, 1.5)
    y, *_ = gaussian_task(
        process.covariance,
        2.0,
        jax.random.key(0),
        x,
        jnp.full(4000, 0.3),
        jnp.ones((4000, 2), bool),
    )
    k = np.asarray(process.kernel(points[:2], points[:2])) + 0.09 * np.eye(2)
    np.testing.assert_allclose(y.mean(axis=0), 2.0, atol=4 * np.sqrt(1.6 / 4000))
    np.testing.assert_allclose(np.cov(np.asarray(y).T), k, atol=4 * np.sqrt(2 / 4000) * 1.6)


class Lines:
    """Any object with `sample`: random straight lines."""

    def sample(self, key, x, num_samples):
        slope = jax.random.normal(key, (num_samples, 1, 1))
        return slope * x[None, :, :1]


@pytest.mark.parametrize("prior", [Lines(), bn.NetworkPrior(bn.MLP((8,)), in_dim=2)])
def test_drawn_functions_are_their_own_law(prior):
    tasks = make(prior)
    batch = tasks.draw(jax.random.key(0), 300, np.full(300, 9), 2)
    assert np.all(np.asarray(batch.f_std) == 0)
    np.testing.assert_allclose(batch.y_std, 0.3, rtol=1e-6)
    if isinstance(prior, Lines):
        slope = batch.f_mean / batch.queries[..., 0]
        np.testing.assert_allclose(
            slope, np.broadcast_to(slope[:, :1], slope.shape), rtol=1e-3, atol=1e-4
        )
        noise = batch.y - slope[:, :1] * batch.x[..., 0]
        assert noise.std() == pytest.approx(0.3, rel=0.06)


def test_noise_follows_its_law():
    law = bn.LogNormal(-1.0, 0.5)
    batch = make(likelihood=bn.GaussianLikelihood(law)).draw(
        jax.random.key(0), 300, np.zeros(300), 2
    )
    log = np.log(np.asarray(batch.noise))
    assert log.mean() == pytest.approx(-1.0, abs=4 * 0.5 / np.sqrt(300))
    assert log.std() == pytest.approx(0.5, rel=0.16)


def test_inputs_have_the_laws_that_are_stated():
    law = MixedInputs(unused=0.4, wide=1.0)
    x, seen = (np.asarray(a) for a in law.draw(jax.random.key(0), 3000, 12, 4, 3))
    context, queries = x[:, :8], x[:, 8:]
    assert context.mean() == pytest.approx(0, abs=0.03)
    assert context.std() == pytest.approx(1, abs=0.03)
    binary = (np.abs(x) == 1).all(axis=1)
    assert binary.mean() == pytest.approx(0.1, abs=0.02)
    assert np.abs(queries).max() <= 2.5  # wide: the box, and binary columns stay binary
    ignored = (seen == 0).all(axis=1)
    # Ignored are 0.4 of the columns but for tables where all would be.
    assert ignored.mean() == pytest.approx((0.4 - 0.4**3) / (1 - 0.4**3), abs=0.02)
    assert not ignored.all(axis=1).any()
    assert np.array_equal(
        seen[~np.broadcast_to(ignored[:, None], x.shape)],
        x[~np.broadcast_to(ignored[:, None], x.shape)],
    )
    single, _ = MixedInputs(weights=(0, 0, 0, 0.5, 0.5)).draw(jax.random.key(0), 50, 12, 4, 1)
    assert len(KINDS) == 5
    assert not (np.abs(single) == 1).all(axis=1).any()  # no function of one binary column


@pytest.mark.parametrize(("unused", "d"), [(0.15, 2), (0.4, 3), (0.0, 2), (0.3, 1)])
def test_the_law_of_columns_with_an_effect_is_the_one_that_is_stated(unused, d):
    """Independent columns, given that one has an effect: the prior that weighs proposals."""
    _, seen = MixedInputs(unused=unused).draw(jax.random.key(1), 20_000, 6, 2, d)
    relevant = np.asarray((seen != 0).any(axis=1))
    total = 0.0
    for pattern in itertools.product([True, False], repeat=d):
        found = (relevant == np.array(pattern)).all(axis=1).mean()
        stated = float(np.exp(log_prob_relevant(np.array([pattern]), unused))[0])
        by_hand = unused ** (d - sum(pattern)) * (1 - unused) ** sum(pattern) / (1 - unused**d)
        assert stated == pytest.approx(by_hand if any(pattern) else 0.0, abs=1e-12)
        assert found == pytest.approx(stated, abs=0.015)
        total += stated
    assert total == pytest.approx(1.0, abs=1e-12)


def test_inputs_of_a_box_or_a_table():
    box = as_input_law(bn.Box([2.0], [3.0]))
    x, _ = box.draw(jax.random.key(0), 5, 10, 4, 1)
    assert x.min() >= 2
    assert x.max() <= 3
    rows = np.random.default_rng(0).normal(size=(6, 2))
    x, _ = as_input_law(rows).draw(jax.random.key(0), 5, 10, 4, 2)
    distance = np.abs(np.asarray(x)[..., None, :] - rows).sum(axis=-1).min(axis=-1)
    assert distance.max() < 1e-5


def test_mixtures_and_functions_of_the_number_of_columns():
    prior = Mixture((lambda d: bn.GaussianProcess("rbf", [1.0] * d), RBF), (3, 1))
    tasks = make(prior, dims=(1, 3))
    np.testing.assert_allclose(tasks.weights, [0.75, 0.25])
    assert tasks.parts(3)[0].covariance.lengthscale == (1.0, 1.0, 1.0)
    with pytest.raises(bn.InputError, match="one positive weight"):
        Mixture((RBF,), (0.0,))


def test_what_cannot_be_trained_on_is_refused():
    with pytest.raises(bn.UnsupportedError, match="GaussianLikelihood"):
        make(likelihood=bn.PoissonLikelihood())
    with pytest.raises(bn.UnsupportedError, match="one output"):
        make(bn.GaussianProcess("rbf", out_dim=2))
    with pytest.raises(bn.InputError, match="2 columns"):
        make(bn.NetworkPrior(bn.MLP((4,)), in_dim=2), dims=(1,))
    with pytest.raises(bn.InputError, match="scaled coordinates"):
        make(bn.GaussianProcess("rbf", units="data"))
    with pytest.raises(bn.InputError, match="draws of a prior"):
        make(lambda d: 3)
    with pytest.raises(bn.InputError, match="at least one column"):
        make(dims=())

    class Wrong:
        def sample(self, key, x, num_samples):
            return jnp.zeros((num_samples, len(x)))

    with pytest.raises(bn.InputError, match=r"must give \(s, n, 1\)"):
        make(Wrong()).draw(jax.random.key(0), 300, np.zeros(300), 2)
