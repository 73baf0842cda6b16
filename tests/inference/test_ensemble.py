"""Deep ensembles: optima in closed form, what makes members differ, the loop, reports, BoTorch."""

from __future__ import annotations

import dataclasses
import pickle
import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesnet as bn
from bayesnet import devices
from bayesnet.data import Scaling, make_data

N = 12
NOISE = bn.GaussianLikelihood(0.5)
LINEAR = bn.NetworkPrior(
    (
        lambda key: {"w": jax.random.normal(key, (3,))},
        lambda params, x: (x @ params["w"][:2] + params["w"][2])[:, None],
    ),
    in_dim=2,
    units="data",
)
# Adam on a quadratic of three latents: to the optimum within float32.
EXACT = bn.DeepEnsemble(members=6, steps=1500, learning_rate=0.05, anchored=False)


def table(n=N):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 2))
    return x, 0.5 + x[:, :1] - 0.7 * x[:, 1:] + 0.5 * rng.normal(size=(n, 1))


def fit(method=EXACT, *, prior=LINEAR, n=N, seed=0, likelihood=NOISE, **kwargs):
    x, y = table(n)
    return bn.fit(
        prior, x, y, likelihood=likelihood, inference=method, seed=seed, warn=False, **kwargs
    )


def solution(counts=None, anchor=0.0, prior_weight=1.0):
    """The optimum of a linear model: weighted ridge regression, shrunk towards `anchor`."""
    x, y = table()
    phi = np.column_stack([x, np.ones(N)])
    weights = (np.ones(N) if counts is None else counts) / 0.25
    gram = prior_weight * np.eye(3) + phi.T @ (weights[:, None] * phi)
    return np.linalg.solve(gram, prior_weight * np.asarray(anchor) + phi.T @ (weights * y[:, 0]))


@pytest.mark.parametrize(
    "settings", [{}, {"start": "network"}, {"prior_weight": 0.0}, {"prior_weight": 30.0}], ids=str
)
def test_linear_members_reach_the_ridge_solution(settings):
    post = fit(dataclasses.replace(EXACT, **settings))
    expected = solution(prior_weight=settings.get("prior_weight", 1.0))
    assert post.latents.shape == (1, 6, 3)
    np.testing.assert_allclose(post.latents[0], np.tile(expected, (6, 1)), atol=2e-3)
    assert (post.stats["gain_left"] < 1e-2).all()


def test_anchored_members_reach_their_own_solutions():
    post = fit(dataclasses.replace(EXACT, members=40, anchored=True))
    anchors = np.stack([state.anchor for state in post.states])
    for z, anchor in zip(post.latents[0], anchors, strict=True):
        np.testing.assert_allclose(z, solution(anchor=anchor), atol=2e-3)
    # Draws of the prior, each its own.
    assert np.abs(anchors.mean(0)).max() < 5 / np.sqrt(40)
    assert np.abs(anchors.var(0) - 1).max() < 5 * np.sqrt(2 / 40)
    # Going on keeps them.
    again = fit(dataclasses.replace(EXACT, members=40, anchored=True, steps=300), init=post, seed=1)
    np.testing.assert_array_equal(np.stack([s.anchor for s in again.states]), anchors)
    np.testing.assert_allclose(again.latents, post.latents, atol=5e-3)


def test_bootstrapped_members_reach_their_own_solutions():
    post = fit(dataclasses.replace(EXACT, bootstrap=True))
    counts = np.stack([state.counts for state in post.states])
    np.testing.assert_array_equal(counts.sum(axis=1), N)
    np.testing.assert_array_equal(counts[:, N:], 0)  # padding
    assert len(np.unique(counts, axis=0)) == 6
    for z, count in zip(post.latents[0], counts, strict=True):
        np.testing.assert_allclose(z, solution(counts=count[:N]), atol=2e-3)


@pytest.mark.slow
def test_minibatches_reach_the_same_optimum():
    post = fit(dataclasses.replace(EXACT, batch_size=4, steps=3000))
    np.testing.assert_allclose(post.latents[0], np.tile(solution(), (6, 1)), atol=0.03)
    whole = fit(dataclasses.replace(EXACT, batch_size=1000))
    np.testing.assert_allclose(whole.latents, fit().latents, atol=1e-4)


@pytest.fixture(scope="module")
def network_ensemble():
    rng = np.random.default_rng(1)
    x = rng.uniform(-2, 2, (40, 1))
    y = 10 + 3 * np.sin(2 * x) + 0.3 * rng.normal(size=x.shape)
    prior = bn.NetworkPrior(bn.MLP((30,)), in_dim=1)
    method = bn.DeepEnsemble(members=8, steps=4000, learning_rate=0.05)
    return x, y, bn.fit(prior, x, y, inference=method, warn=False)


@pytest.mark.slow
def test_members_of_a_network_differ_most_away_from_the_data(network_ensemble):
    x, y, post = network_ensemble
    pred = post.predict(x)
    assert np.sqrt(np.mean((pred.mean - y) ** 2)) < 0.4
    assert np.isfinite(pred.log_prob(y)).all()
    # Learned, in units of y; an optimum of weights and noise together is too sure of itself.
    assert 0.12 < pred.aleatoric_std.mean() < 0.36
    far = post.predict(np.array([[-5.0], [5.0]])).epistemic_std
    assert far.min() > 3 * np.median(pred.epistemic_std)
    assert post.functions(x).shape == (8, 40, 1)
    # Every member is near a stationary point of its objective.
    assert (post.stats["gain_left"] < 1).all()


def test_the_reported_numbers_are_those_of_the_members(network_ensemble):
    from bayesnet.inference.model import LatentModel

    _, _, post = network_ensemble
    model = LatentModel(post.prior, post.bound, post.data.rows)
    z, anchor = jnp.asarray(post.latents[0, 3]), post.states[3].anchor
    assert post.stats["log_density"][0, 3] == pytest.approx(float(model.log_density(z)), rel=1e-4)
    gradient = jax.grad(model.log_likelihood)(z) - (z - anchor)
    norm = float(jnp.linalg.norm(gradient))
    assert post.stats["gradient_norm"][0, 3] == pytest.approx(norm, rel=0.05, abs=0.02)
    assert norm < 0.3 * float(jnp.linalg.norm(z - anchor))  # two forces in balance


def test_diagnostics_report_training_and_no_r_hat(network_ensemble):
    _, _, post = network_ensemble
    report = post.diagnostics()
    assert report.ok, report.problems
    assert "not given, members are optima" in str(report)
    assert not hasattr(report, "rows")
    spread = {s.name: s.median for s in report.spreads}
    assert spread["f at points in twice the box"] > spread["f at training rows"]
    noise = np.log(post.predict(post.data.x).components.scale).std(axis=0)
    assert spread["log noise_std"] == pytest.approx(noise.item(), rel=1e-3)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (dataclasses.replace(EXACT, steps=20), "training of 6 of 6 members has not ended"),
        (EXACT, "members agree"),
        (dataclasses.replace(EXACT, members=1), "1 member says nothing"),
    ],
)
def test_untrusted_ensembles_warn_in_words(method, words):
    x, y = table()
    with pytest.warns(bn.ConvergenceWarning, match=words):
        bn.fit(LINEAR, x, y, likelihood=NOISE, inference=method)


def test_members_that_are_not_finite_are_named():
    post = fit()
    z = post.latents.copy()
    z[0, 2] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        report = dataclasses.replace(post, latents=z).diagnostics()
    assert any("1 member(s) are not finite" in p for p in report.problems)


def test_seeds_and_starts():
    method = dataclasses.replace(EXACT, steps=10)
    first, again, other = fit(method), fit(method), fit(method, seed=1)
    np.testing.assert_array_equal(first.latents, again.latents)
    assert not np.isin(other.latents, first.latents).any()
    assert len(np.unique(first.latents[0], axis=0)) == 6
    # A network's own initialisation, encoded: here N(0, 1) weights.
    one = dataclasses.replace(EXACT, start="network", steps=1, learning_rate=1e-9, members=50)
    z = fit(one).latents[0]
    assert np.abs(z.mean(0)).max() < 5 / np.sqrt(50)
    assert np.abs(z.std(0) - 1).max() < 5 / np.sqrt(100)


@pytest.mark.slow
def test_going_on_from_earlier_members_and_from_a_sampler():
    first = fit(dataclasses.replace(EXACT, steps=20))
    again = fit(init=first, seed=1)
    np.testing.assert_allclose(again.latents[0], np.tile(solution(), (6, 1)), atol=2e-3)
    # One row more, in the same bucket and in another.
    assert fit(init=first, n=13).data.num_rows == 13
    assert fit(dataclasses.replace(EXACT, bootstrap=True, steps=5), init=first, n=20).num_draws == 6
    hmc = fit(bn.HMC(chains=2, warmup=20, draws=20))
    slow = dataclasses.replace(EXACT, steps=1, learning_rate=1e-9)
    flat = hmc.latents.reshape(-1, 3)
    np.testing.assert_allclose(fit(slow, init=hmc).latents[0, [0, -1]], flat[[0, -1]], atol=1e-6)
    assert fit(bn.HMC(chains=2, warmup=0, draws=5), init=first).latents.shape == (2, 5, 3)
    with pytest.raises(bn.InputError, match="must be a posterior"):
        fit(init=first.latents)


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


@pytest.mark.slow
def test_one_program_for_all_members_steps_and_rates(monkeypatch):
    monkeypatch.setattr(devices, "cpu_count", lambda: 2)

    def traces(members):
        net = Counting()
        prior = bn.NetworkPrior((net.init, net.apply), in_dim=2, units="data")
        fit(bn.DeepEnsemble(members=members, steps=120), prior=prior)
        return net, prior

    (one, _), (net, prior) = traces(1), traces(5)
    assert net.traces == one.traces
    fit(bn.DeepEnsemble(members=7, steps=230, learning_rate=0.1), prior=prior, n=9)
    assert net.traces == one.traces


@pytest.mark.slow
def test_batched_members_reach_the_same_optimum(monkeypatch):
    monkeypatch.setattr(devices, "chain_layout", lambda: "vmap")
    post = fit(dataclasses.replace(EXACT, anchored=True, bootstrap=True))
    for z, state in zip(post.latents[0], post.states, strict=True):
        expected = solution(np.asarray(state.counts)[:N], np.asarray(state.anchor))
        np.testing.assert_allclose(z, expected, atol=2e-3)


def run(method, **kwargs):
    x, y = table()
    data = make_data(x, y, None, Scaling.identity(2, 1))
    return method.fit(LINEAR, NOISE, data, key=jax.random.key(0), **kwargs)


def test_progress_and_interruption():
    calls = []
    method = dataclasses.replace(EXACT, steps=250)
    run(method, progress=lambda *call: calls.append(call))
    assert calls == [
        ("training", 100, 250),
        ("training", 200, 250),
        ("training", 250, 250),
        ("evaluation", 1, 1),
    ]

    def stop(phase, done, total):
        if phase == "training" and done >= 200:
            raise KeyboardInterrupt

    post = run(method, progress=stop)
    assert post.interrupted
    assert post.latents.shape == (1, 6, 3)
    assert any("training was interrupted" in p for p in post.diagnostics().problems)
    # As far as it had come, and no farther: taken up again it arrives.
    assert np.abs(post.latents[0] - solution()).max() > 1e-3
    done = run(EXACT, init=post)
    np.testing.assert_allclose(done.latents[0], np.tile(solution(), (6, 1)), atol=2e-3)


def test_saving_pickling_and_arviz(network_ensemble, tmp_path):
    x, _, post = network_ensemble
    post.save(tmp_path / "p")
    again = bn.load(tmp_path / "p")
    assert again.method == post.method
    np.testing.assert_array_equal(again.predict(x).mean, post.predict(x).mean)
    assert str(again.diagnostics()) == str(post.diagnostics())
    assert pickle.loads(pickle.dumps(post.method)) == post.method
    assert post.to_arviz().posterior["noise_std"].shape == (1, 8, 1)


@pytest.mark.slow
def test_a_surrogate_of_an_ensemble_serves_acquisition_functions():
    torch = pytest.importorskip("torch")
    pytest.importorskip("botorch")
    from botorch.acquisition import qLogExpectedImprovement
    from botorch.optim import optimize_acqf

    from bayesnet.surrogates import Surrogate

    generator = torch.Generator().manual_seed(1)
    X = torch.rand(14, 2, generator=generator, dtype=torch.double)
    Y = 10 - 20 * ((X - torch.tensor([0.6, 0.4])) ** 2).sum(-1, keepdim=True)
    prior = bn.NetworkPrior(bn.MLP((16,)), in_dim=2)
    method = bn.DeepEnsemble(members=8, steps=1500)
    model = Surrogate(X, Y, prior=prior, inference=method, warn=False)
    assert model.num_draws == 8
    acquisition = qLogExpectedImprovement(model, best_f=Y.max())
    bounds = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.double)
    point, value = optimize_acqf(acquisition, bounds, q=1, num_restarts=2, raw_samples=32)
    assert torch.isfinite(value)
    assert float((point[0] - torch.tensor([0.6, 0.4])).norm()) < 0.35
    # New observations: members go on from where they were.
    more = model.condition_on_observations(point, 10 + 0 * point[:, :1])
    assert more.num_draws == 8
    named = Surrogate(X, Y, prior=prior, inference="ensemble", warn=False)
    assert isinstance(named.fitted.method, bn.DeepEnsemble)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"members": 0}, "members must be a whole number"),
        ({"steps": 1.5}, "steps must be a whole number"),
        ({"learning_rate": -1.0}, "learning_rate must be a number above 0"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 3.0}, "batch_size"),
        ({"start": "zero"}, "start must be one of"),
        ({"prior_weight": -1.0}, "prior_weight"),
        ({"anchored": 1}, "anchored must be True or False"),
        ({"bootstrap": None}, "bootstrap must be True or False"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(bn.InputError, match=words):
        bn.DeepEnsemble(**settings)


def test_registry_and_support():
    assert isinstance(bn.inference.resolve_inference("ensemble"), bn.DeepEnsemble)
    assert bn.DeepEnsemble().supports(LINEAR, NOISE)
    with pytest.raises(bn.UnsupportedError, match="match_prior"):
        fit(prior=bn.GaussianProcess("rbf"))
