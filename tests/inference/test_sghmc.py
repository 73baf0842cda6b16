"""SGHMC against closed forms, quadrature and HMC; minibatches; the loop; what it says of itself."""

from __future__ import annotations

import pickle
import threading

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import bayesnet as bn
from bayesnet import devices
from bayesnet.data import Scaling, make_data
from bayesnet.inference._gradient_estimates import Moments, Stiffness, power_iteration
from bayesnet.inference._stochastic import (
    batch_log_density,
    minibatch,
    minibatch_gradient,
    missing_share,
)
from bayesnet.inference.model import LatentModel

LIMIT = 5.0
LINEAR = bn.NetworkPrior(bn.MLP(hidden=()), in_dim=2, units="data")
NOISE = bn.GaussianLikelihood(0.5)


def table(n, seed=0, noise=0.5):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    return x, 0.5 + x[:, :1] - 0.7 * x[:, 1:] + noise * rng.normal(size=(n, 1))


def features(x):
    """Of MLP(hidden=()): the bias, and the inputs divided by sqrt(d), in the order of the latents."""
    decoded = LINEAR.law.decode
    columns = []
    for unit in np.eye(3, dtype=np.float32):
        layer = decoded(jnp.asarray(unit))[0]
        columns.append(x @ np.asarray(layer["w"])[:, 0] / np.sqrt(2) + float(layer["b"][0]))
    return np.column_stack(columns)


def fit(method, n=12, *, prior=LINEAR, likelihood=NOISE, seed=0, **kwargs):
    x, y = table(n)
    return bn.fit(
        prior, x, y, likelihood=likelihood, inference=method, seed=seed, warn=False, **kwargs
    )


def linear_model(n):
    x, y = table(n)
    data = make_data(x, y, None, Scaling.identity(2, 1))
    return LatentModel(LINEAR, NOISE.bind(data.scaling, data.rows), data.rows)


def exact(n):
    x, y = table(n)
    return oracles.LinearRegression.fit(features(x), y[:, 0], 0.25)


# --- against answers in closed form --------------------------------------------------------


def test_full_batches_sample_bayesian_linear_regression():
    post = fit(bn.SGHMC(warmup=3000, draws=1000, thin=20, batch_size=1000))
    truth = exact(12)
    assert np.abs(oracles.z_scores(post.latents, truth.mean)).max() < LIMIT
    # The stated bias: variances are up to about 5 % too large in the stiffest direction.
    precision, axes = np.linalg.eigh(np.linalg.inv(truth.cov))
    squares = ((post.latents - truth.mean) @ axes) ** 2 * precision
    low, high = oracles.z_scores(squares, np.ones(3)), oracles.z_scores(squares, np.full(3, 1.06))
    assert (low > -LIMIT).all(), low
    assert (high < LIMIT).all(), high
    report = post.diagnostics()
    assert report.temperature == pytest.approx(1, abs=0.03)
    assert 0.95 < report.gradient_temperature < 1.25
    # From the prior it came into the bulk with as many effective draws as that.
    assert min(row.ess_bulk for row in report.rows) > 1000


@pytest.mark.parametrize("share", [1.0, 0.25], ids=["large step", "half of it"])
def test_the_bias_of_the_step_size_is_the_stated_one(share):
    """On a Gaussian the chain is an AR(2) process whose variance is known exactly."""
    truth, friction = exact(12), 0.3
    precision, axes = np.linalg.eigh(np.linalg.inv(truth.cov))
    step_size = np.sqrt(share / precision[-1])  # step^2 times the largest curvature is 1 or 1/4
    method = bn.SGHMC(
        warmup=500,
        draws=2000,
        thin=7,
        batch_size=1000,
        step_size=float(step_size),
        friction=friction,
        adapt=False,
    )
    post = fit(method)
    k = step_size**2 * precision
    variance = 1 / precision / (1 - k / (2 * (2 - friction)))
    draws = (post.latents - truth.mean) @ axes
    assert np.abs(oracles.z_scores(draws, np.zeros(3))).max() < LIMIT
    scores = oracles.z_scores(draws**2, variance)
    assert np.abs(scores).max() < LIMIT
    # The error is there to be seen, and smaller for the smaller step: 42 %, then 8 %.
    error = (draws[..., -1] ** 2).mean() * precision[-1] - 1
    assert error == pytest.approx(variance[-1] * precision[-1] - 1, abs=0.07)
    # The kinetic energy tells of it: (1 - alpha/2) E v^2 / step^2 by the same algebra.
    expected = 1 / (1 - k / (2 * (2 - friction)))
    assert post.stats["temperature"].mean() == pytest.approx(expected.mean(), rel=0.03)
    assert expected.min() - 0.03 < post.stats["gradient_temperature"].mean() < 1.6 * expected[-1]
    # The direction of the largest curvature was found.
    for state in post.states:
        stiff = state.tuning.stiffness
        assert abs(np.asarray(stiff.direction) @ axes[:, -1]) == pytest.approx(1, abs=0.01)
        assert float(stiff.curvature) == pytest.approx(precision[-1], rel=0.02)


def test_minibatches_sample_bayesian_linear_regression():
    post = fit(bn.SGHMC(warmup=8000, draws=1000, thin=50, batch_size=32), n=150)
    truth = exact(150)
    assert np.abs(oracles.z_scores(post.latents, truth.mean)).max() < LIMIT
    ratio = post.latents.var(axis=(0, 1)) / np.diag(truth.cov)
    assert (np.abs(ratio - 1) < 0.15).all(), ratio
    # Here the noise of gradients is hardly correlated between the three coordinates.
    for name in ("temperature", "gradient_temperature"):
        assert post.stats[name].mean() == pytest.approx(1, abs=0.06)


def exponential():
    """f = exp(w), the same for every x: with a positive target the posterior of w is skew."""
    return (
        lambda key: {"w": jnp.zeros(1)},
        lambda params, x: jnp.exp(params["w"]) * jnp.ones_like(x),
    )


def test_an_asymmetric_posterior_against_quadrature():
    prior = bn.NetworkPrior(exponential(), units="data")
    x, y = np.zeros((2, 1)), np.array([[0.1], [0.5]])
    method = bn.SGHMC(warmup=2000, draws=2000, thin=25)
    post = bn.fit(prior, x, y, likelihood=bn.GaussianLikelihood(0.5), inference=method, warn=False)
    grid = np.linspace(-7, 4, 4001)
    density = oracles.normal_log_density(y, np.exp(grid), 0.25).sum(0) - 0.5 * grid**2
    law = oracles.Quadrature.of(density, grid)
    mean = law.expect(grid)
    skewness = law.expect((grid - mean) ** 3) / law.expect((grid - mean) ** 2) ** 1.5
    assert skewness < -0.3
    z = post.latents[..., 0]
    for power in (1, 2, 3):
        score = oracles.z_scores(z**power, law.expect(grid**power))
        # 1 % of bias beside the statistical error: curvature differs along the posterior.
        error = abs((z**power).mean() - law.expect(grid**power))
        assert abs(score) < LIMIT or error < 0.01 * law.expect(np.abs(grid) ** power), power
    third = ((z - mean) ** 3).mean() / ((z - mean) ** 2).mean() ** 1.5
    assert third == pytest.approx(skewness, abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1000, 32])
def test_network_predictions_agree_with_hmc(batch_size):
    rng = np.random.default_rng(3)
    x = rng.uniform(-2, 2, (90, 1))
    y = np.sin(2 * x) + 0.2 * rng.normal(size=x.shape)
    prior = bn.NetworkPrior(bn.MLP((20,)), in_dim=1)
    hmc = bn.fit(prior, x, y, inference=bn.HMC(warmup=500, draws=1000), warn=False)
    method = bn.SGHMC(warmup=10_000, draws=500, thin=300, batch_size=batch_size)
    ours = bn.fit(prior, x, y, inference=method, warn=False)
    x_new = np.linspace(-3, 3, 25)[:, None]
    a, b = hmc.predict(x_new), ours.predict(x_new)
    assert (np.abs(a.mean - b.mean) < 0.25 * a.epistemic_std).all()
    assert b.aleatoric_std.mean() == pytest.approx(a.aleatoric_std.mean(), rel=0.03)
    ratio = b.epistemic_std / a.epistemic_std
    # Minibatches are allowed to raise the temperature along gradients by 0.3.
    full = batch_size > len(x)
    assert np.median(ratio) == pytest.approx(1.0 if full else 1.05, abs=0.05)
    assert 0.85 < ratio.min() < ratio.max() < (1.15 if full else 1.35), ratio


# --- minibatches ---------------------------------------------------------------------------


@pytest.mark.slow
def test_a_batch_of_the_whole_table_is_the_table():
    model = linear_model(12)
    rows, beside, factor = minibatch(model.rows, jax.random.key(0), 16, also=jnp.arange(16))
    assert rows is model.rows
    assert float(factor) == 1
    np.testing.assert_array_equal(beside, np.arange(16))
    z = jnp.array([0.3, -1.0, 0.5])
    expected = model.log_density(z)
    for size in (12, 14, 16, 1000):  # some smaller than the padded table
        value, gradient = minibatch_gradient(model, z, jax.random.key(1), size)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        np.testing.assert_allclose(gradient, jax.grad(model.log_density)(z), rtol=1e-4)
        assert float(missing_share(model.rows, size)) == 0


def test_minibatches_are_unbiased_and_hold_true_rows_only():
    n, size = 50, 16  # strata that cut through rows; padded to 64
    model = linear_model(n)
    keys = jax.random.split(jax.random.key(0), 5_000)
    chosen = jax.vmap(lambda k: minibatch(model.rows, k, size, also=jnp.arange(64))[1])(keys)
    assert int(chosen.max()) == n - 1
    counts = np.bincount(np.ravel(chosen), minlength=n)
    expected = len(keys) * size / n
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
    z = jnp.array([0.3, -1.0, 0.5])
    values, gradients = jax.vmap(lambda k: minibatch_gradient(model, z, k, size))(keys)
    for sample, truth in (
        (values[:, None], model.log_density(z)[None]),
        (gradients, jax.grad(model.log_density)(z)),
    ):
        sample = np.asarray(sample, float)
        error = sample.std(0) / np.sqrt(len(keys))
        assert (np.abs(sample.mean(0) - truth) < 5 * error).all()
    # Not worse than rows drawn at random.
    terms = np.asarray(model.log_likelihood_rows(z))[:n]
    assert np.var(np.asarray(values)) < 1.02 * n**2 / size * terms.var()
    assert float(missing_share(model.rows, size)) == pytest.approx(1 - size / n)


def test_gradient_of_a_batch_by_finite_differences():
    model = linear_model(50)
    key, z = jax.random.key(3), jnp.array([0.3, -1.0, 0.5])
    rows, _, factor = minibatch(model.rows, key, 8)
    _, gradient = minibatch_gradient(model, z, key, 8)
    for i, unit in enumerate(np.eye(3, dtype=np.float32)):
        up = batch_log_density(model, z + 0.1 * unit, rows, factor)
        down = batch_log_density(model, z - 0.1 * unit, rows, factor)
        assert (up - down) / 0.2 == pytest.approx(float(gradient[i]), rel=1e-3)


# --- estimates -----------------------------------------------------------------------------


def test_running_moments_find_those_of_stationary_noise():
    rng = np.random.default_rng(0)
    g = rng.normal([0.0, 3.0, 0.01], [10.0, 4.0, 0.01], (4000, 3)).astype(np.float32)

    def update(m, tg):
        return m.update(tg[1], tg[0]), None

    start = Moments.start(jnp.zeros(3))
    found, _ = jax.lax.scan(update, start, (jnp.arange(4000), jnp.asarray(g)))
    np.testing.assert_allclose(found.square[:2], [100.0, 25.0], rtol=0.2)
    assert found.square[2] == 1  # not below the curvature of the prior
    # The window of a large mean stays short; that of noise grows, to a fifth of the steps at most.
    assert found.window[1] == 100
    assert 500 < found.window[0] <= 800
    # A transient ten thousand times as large is forgotten.
    g[:300] *= 100
    found, _ = jax.lax.scan(update, start, (jnp.arange(4000), jnp.asarray(g)))
    np.testing.assert_allclose(found.square[:2], [100.0, 25.0], rtol=0.2)


def test_power_iteration_finds_the_largest_curvature():
    rng = np.random.default_rng(1)
    root = rng.normal(size=(6, 6))
    hessian = (root @ root.T).astype(np.float32)
    inverse_mass = np.exp(rng.normal(size=6)).astype(np.float32)
    values, vectors = np.linalg.eigh(
        np.sqrt(inverse_mass)[:, None] * hessian * np.sqrt(inverse_mass)
    )
    found = Stiffness(jnp.ones(6) / 6**0.5, jnp.zeros(()))
    z = jnp.asarray(rng.normal(size=6), jnp.float32)

    def force(at):
        return hessian @ at

    for t in range(200):
        found = power_iteration(force, z, force(z), inverse_mass, found, jnp.asarray(t))
    assert float(found.curvature) == pytest.approx(values[-1], rel=1e-3)
    assert abs(np.asarray(found.direction) @ vectors[:, -1]) == pytest.approx(1, abs=1e-3)


# --- the loop ------------------------------------------------------------------------------

SHORT = bn.SGHMC(chains=2, warmup=60, draws=60, thin=3, batch_size=8)


def test_seeds_shapes_and_statistics():
    first, again, other = fit(SHORT), fit(SHORT), fit(SHORT, seed=1)
    np.testing.assert_array_equal(again.latents, first.latents)
    assert not np.isin(other.latents, first.latents).any()
    assert not np.allclose(first.latents[0], first.latents[1])
    assert first.latents.shape == (2, 60, 3)
    assert first.latents.dtype == np.float32
    assert {k: v.shape for k, v in first.stats.items()} == dict.fromkeys(
        (
            "log_density",
            "temperature",
            "gradient_temperature",
            "gradient_velocity",
            "divergent",
            "num_gradients",
        ),
        (2, 60),
    )
    assert (first.stats["num_gradients"] == 3).all()
    assert first.stats["divergent"].sum() == 0
    assert "temperature" in str(first.diagnostics())


def test_a_batch_as_large_as_the_table_is_a_full_batch():
    small = bn.SGHMC(chains=1, warmup=20, draws=10, thin=2, batch_size=12)
    large = bn.SGHMC(chains=1, warmup=20, draws=10, thin=2, batch_size=1000)
    np.testing.assert_allclose(fit(small).latents, fit(large).latents, rtol=1e-3, atol=1e-3)


def test_going_on_from_earlier_chains():
    first = fit(bn.SGHMC(chains=2, warmup=2000, draws=50, thin=3, batch_size=8))
    again = fit(bn.SGHMC(chains=2, warmup=0, draws=25, thin=3, batch_size=8), init=first, seed=1)
    for new, old in zip(again.states, first.states, strict=True):
        np.testing.assert_array_equal(new.tuning.moments.square, old.tuning.moments.square)
        assert float(new.tuning.step_size) == float(old.tuning.step_size)
    low = np.quantile(first.stats["log_density"], 0.02) - 10
    assert (again.stats["log_density"][:, 0] > low).all()
    # Into other methods and back.
    hmc = fit(bn.HMC(chains=2, warmup=0, draws=5), init=first)
    assert fit(SHORT, init=hmc).latents.shape == (2, 60, 3)
    # A step size that is given replaces the tuned one.
    given = bn.SGHMC(chains=2, warmup=0, draws=25, thin=3, batch_size=8, step_size=0.001)
    assert float(fit(given, init=first).states[0].tuning.step_size) == pytest.approx(0.001)


class Counting:
    """A bare network that counts how often it is traced."""

    def __init__(self):
        self.traces = 0
        self.lock = threading.Lock()

    def init(self, key):
        return {"w": jnp.zeros(3)}

    def apply(self, params, x):
        with self.lock:
            self.traces += 1
        return (x @ params["w"][:2] + params["w"][2])[:, None]


def test_nothing_is_traced_twice(monkeypatch):
    monkeypatch.setattr(devices, "cpu_count", lambda: 2)
    net = Counting()
    prior = bn.NetworkPrior((net.init, net.apply), in_dim=2, units="data")
    fit(SHORT, prior=prior)
    traced = net.traces
    fit(SHORT, prior=prior)
    fit(SHORT, prior=prior, n=9)  # the same bucket
    other = bn.SGHMC(chains=3, warmup=700, draws=30, thin=3, batch_size=8)
    fit(other, prior=prior, init=fit(SHORT, prior=prior))
    assert net.traces == traced


@pytest.mark.slow
def test_batched_chains_sample_the_same_law(monkeypatch):
    monkeypatch.setattr(devices, "chain_layout", lambda: "vmap")
    post = fit(bn.SGHMC(warmup=2000, draws=200, thin=20, batch_size=1000))
    truth = exact(12)
    assert np.abs(oracles.z_scores(post.latents, truth.mean)).max() < LIMIT
    ratio = post.latents.var(axis=(0, 1)) / np.diag(truth.cov)
    assert (np.abs(ratio - 1) < 0.3).all()


def interrupt(phase, at):
    def report(now, done, total):
        if now == phase and done >= at:
            raise KeyboardInterrupt

    return report


def run(method, **kwargs):
    x, y = table(12)
    data = make_data(x, y, None, Scaling.identity(2, 1))
    return method.fit(LINEAR, NOISE, data, key=jax.random.key(0), **kwargs)


def test_interruption_keeps_draws_and_progress_is_told():
    calls = []
    whole = run(SHORT, progress=lambda *call: calls.append(call))
    assert calls == [
        ("warm-up", 60, 60),
        ("sampling", 25, 60),
        ("sampling", 50, 60),
        ("sampling", 60, 60),
    ]
    post = run(SHORT, progress=interrupt("sampling", 50))
    assert post.interrupted
    np.testing.assert_array_equal(post.latents, whole.latents[:, :50])
    assert any("interrupted" in p for p in post.diagnostics().problems)
    with pytest.raises(KeyboardInterrupt):
        run(SHORT, progress=interrupt("warm-up", 25))


def test_saving_pickling_and_arviz(tmp_path):
    post = fit(SHORT)
    post.save(tmp_path / "p")
    again = bn.load(tmp_path / "p")
    assert again.method == SHORT
    np.testing.assert_array_equal(again.latents, post.latents)
    assert pickle.loads(pickle.dumps(SHORT)) == SHORT
    assert "temperature" in post.to_arviz().sample_stats


# --- what it says of itself ----------------------------------------------------------------


def test_a_diverging_chain_stays_finite_and_says_so():
    wild = bn.SGHMC(
        chains=2, warmup=20, draws=30, thin=3, batch_size=8, step_size=30.0, adapt=False
    )
    x, y = table(12)
    with pytest.warns(bn.ConvergenceWarning, match=r"diverged: lower step_size"):
        post = bn.fit(LINEAR, x, y, likelihood=NOISE, inference=wild)
    assert np.isfinite(post.latents).all()
    assert post.stats["divergent"].sum() > 0


def test_a_chain_that_gradient_noise_heats_says_so():
    hot = bn.SGHMC(
        warmup=500, draws=200, thin=10, batch_size=2, step_size=0.01, friction=0.01, adapt=False
    )
    post = fit(hot, n=400)
    assert post.stats["gradient_temperature"].mean() > 2
    found = [p for p in post.diagnostics().problems if "temperature" in p]
    assert len(found) == 1
    assert "raise batch_size" in found[0]


@pytest.mark.slow
def test_many_latents_are_not_taken_for_heat():
    """20,000 weights that the data say little of: an exact sampler, and no temperature to report."""
    x, y = table(12)
    prior = bn.NetworkPrior(bn.MLP((140, 140)), in_dim=2)
    method = bn.SGHMC(chains=2, warmup=150, draws=40, thin=5, step_size=0.1, friction=0.1)
    post = bn.fit(prior, x, y, likelihood=NOISE, inference=method, warn=False)
    raw = post.stats["gradient_temperature"].mean()
    assert raw > 20  # about 20,000 * 0.1^2 / 4, whatever the temperature
    assert post.diagnostics().gradient_temperature == pytest.approx(1, abs=0.4)


@pytest.mark.slow
def test_a_chain_that_is_hot_along_gradients_only_says_so():
    rng = np.random.default_rng(3)
    x = rng.uniform(-2, 2, (90, 1))
    y = np.sin(2 * x) + 0.2 * rng.normal(size=x.shape)
    prior = bn.NetworkPrior(bn.MLP((20,)), in_dim=1)
    method = bn.SGHMC(warmup=2000, draws=50, thin=50, batch_size=32, step_size=0.03)
    report = bn.fit(prior, x, y, inference=method, warn=False).diagnostics()
    assert report.temperature == pytest.approx(1, abs=0.1)
    assert report.gradient_temperature > 1.75
    assert any("along gradients" in p for p in report.problems)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number, at least 1"),
        ({"batch_size": 2.5}, "batch_size must be a whole number"),
        ({"chains": True}, "chains must be a whole number"),
        ({"thin": 0}, "thin"),
        ({"warmup": -1}, "warmup must be a whole number, at least 0"),
        ({"step_size": 0.0}, "step_size must be a number above 0"),
        ({"step_size": np.nan}, "step_size"),
        ({"friction": 1.0}, "friction must be a number between 0 and 1"),
        ({"friction": 0}, "friction"),
        ({"adapt": 1}, "adapt must be True or False"),
        ({"adapt": False}, "pass step_size"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(bn.InputError, match=words):
        bn.SGHMC(**settings)


def test_registry_and_support():
    assert isinstance(bn.inference.resolve_inference("sghmc"), bn.SGHMC)
    assert bn.SGHMC().supports(LINEAR, NOISE)
    assert not bn.SGHMC().supports(bn.GaussianProcess("rbf"), NOISE)
    with pytest.raises(bn.UnsupportedError, match="match_prior"):
        fit(bn.SGHMC(), prior=bn.GaussianProcess("rbf"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [bn.SGHMC(chains=2, warmup=1500, draws=50, thin=20, batch_size=32), bn.DeepEnsemble(5, 800)],
    ids=["sghmc", "ensemble"],
)
def test_classes_weights_and_minibatches(method):
    """Another likelihood, and row weights that must follow the rows into batches."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2))
    labels = np.where(x[:, 0] > 0, "right", "left")
    wrong = rng.permutation(80)[:30]
    labels[wrong] = np.where(labels[wrong] == "left", "right", "left")
    weight = np.ones(80)
    weight[wrong] = 0  # mislabelled rows count for nothing
    prior = bn.NetworkPrior(bn.MLP((8,)), in_dim=2, out_dim=2)
    post = bn.fit(
        prior,
        x,
        labels,
        likelihood=bn.CategoricalLikelihood(),
        inference=method,
        sample_weight=weight,
        warn=False,
    )
    probabilities = np.asarray(post.predict(x).mean)
    clear = np.abs(x[:, 0]) > 0.3
    np.testing.assert_array_equal(probabilities.argmax(1)[clear], (x[:, 0] > 0).astype(int)[clear])
    assert post.diagnostics() is not None
