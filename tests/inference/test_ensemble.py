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
    """Pearce et al. 2020: no noise on the targets."""
    anchored = dataclasses.replace(EXACT, members=40, anchored=True, noisy_targets=False)
    post = fit(anchored)
    assert not post.diagnostics().noisy_targets
    anchors = np.stack([state.anchor for state in post.states])
    for z, anchor in zip(post.latents[0], anchors, strict=True):
        np.testing.assert_allclose(z, solution(anchor=anchor), atol=2e-3)
    # Draws of the prior, each its own.
    assert np.abs(anchors.mean(0)).max() < 5 / np.sqrt(40)
    assert np.abs(anchors.var(0) - 1).max() < 5 * np.sqrt(2 / 40)
    # Going on keeps them.
    again = fit(dataclasses.replace(anchored, steps=300), init=post, seed=1)
    np.testing.assert_array_equal(np.stack([s.anchor for s in again.states]), anchors)
    np.testing.assert_allclose(again.latents, post.latents, atol=5e-3)


def features(x):
    return np.column_stack([x, np.ones(len(x))])


def test_members_with_noisy_targets_are_draws_of_the_posterior(monkeypatch):
    """The default, for a linear model with known noise: mean, sds and covariances of functions."""
    monkeypatch.setattr(devices, "chain_layout", lambda: "vmap")
    members = 400
    post = fit(bn.DeepEnsemble(members=members, steps=600, learning_rate=0.05))
    assert post.diagnostics().noisy_targets
    assert "that of the posterior" in str(post.diagnostics())
    new = np.array([[0.0, 0.0], [1.0, -1.0], [3.0, 2.0]])
    x, y = table()
    phi, at = features(x), features(new)
    covariance = np.linalg.inv(np.eye(3) + phi.T @ phi / 0.25)
    mean = covariance @ phi.T @ y[:, 0] / 0.25
    values = post.predict(new).values[:, :, 0]
    expected = at @ covariance @ at.T
    sd = np.sqrt(np.diag(expected))
    assert (np.abs(values.mean(0) - at @ mean) < 4 * sd / np.sqrt(members)).all()
    # The sd of a sample covariance: sqrt((c_ii c_jj + c_ij^2) / n).
    error = np.sqrt((np.outer(sd, sd) ** 2 + expected**2) / members)
    assert (np.abs(np.cov(values.T) - expected) < 4 * error).all()
    # Predictions combine members: their spread and the noise.
    pred = post.predict(new)
    np.testing.assert_allclose(pred.aleatoric_std, 0.5, rtol=1e-5)
    np.testing.assert_allclose(pred.std**2, pred.epistemic_std**2 + 0.25, rtol=1e-4)


TWO = bn.NetworkPrior(
    (
        lambda key: {"w": jax.random.normal(key, (3, 2))},
        lambda params, x: x @ params["w"][:2] + params["w"][2],
    ),
    in_dim=2,
    out_dim=2,
    units="data",
)


@pytest.mark.parametrize("batch", [None, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("level", [0.5, None])
def test_each_member_solves_its_own_randomised_problem(level, batch):
    """Two outputs, variances of rows (which a level adds to), weights, a row of weight 0, missing targets."""
    x, y = table()
    y = np.column_stack([y, 1 - 2 * y])
    y[3, 1] = np.nan
    y_var = np.linspace(0.1, 0.6, 2 * N).reshape(N, 2)
    weight = np.linspace(0.0, 2.0, N)
    steps, atol = (1500, 2e-3) if batch is None else (6000, 0.03)
    method = bn.DeepEnsemble(members=3, steps=steps, learning_rate=0.05, batch_size=batch)
    post = bn.fit(
        TWO, x, y, likelihood=bn.GaussianLikelihood(level), inference=method, warn=False,
        y_var=y_var, sample_weight=weight, missing="mask",
    )  # fmt: skip
    variance = y_var + (0.25 if level else 0.0)
    for z, state in zip(post.latents[0], post.states, strict=True):
        for j in range(2):
            keep = (weight > 0) & ~np.isnan(y[:, j])
            # A matrix of weights is N(0, 1 / fan_in) a priori.
            phi, w, v = features(x)[keep] / np.sqrt(3), weight[keep], variance[keep, j]
            noise = np.sqrt(v / w) * np.asarray(state.scores)[:N][keep, j]
            gram = np.eye(3) + phi.T @ ((w / v)[:, None] * phi)
            anchor = np.asarray(state.anchor).reshape(3, 2)[:, j]
            expected = np.linalg.solve(gram, anchor + phi.T @ (w / v * (y[keep, j] + noise)))
            np.testing.assert_allclose(z.reshape(3, 2)[:, j], expected, atol=atol)


def test_rows_keep_their_noise_when_a_table_grows():
    method = bn.DeepEnsemble(members=3, steps=1)
    first = fit(method)
    for n in (13, 20):  # in the same bucket and in another
        grown = fit(method, init=first, n=n, seed=1)
        for before, after in zip(first.states, grown.states, strict=True):
            np.testing.assert_array_equal(after.scores[:N], before.scores[:N])
    scores = np.stack([state.scores[:N, 0] for state in grown.states])
    assert len(np.unique(scores)) == scores.size
    many = fit(dataclasses.replace(method, members=100))
    scores = np.stack([state.scores[:N, 0] for state in many.states])
    assert np.abs(np.corrcoef(scores.T) - np.eye(N)).max() < 5 / np.sqrt(100)
    assert np.abs(scores.mean()) < 5 / np.sqrt(100 * N)
    assert scores.var() == pytest.approx(1.0, abs=5 * np.sqrt(2 / (100 * N)))


def test_a_learned_level_is_judged_by_the_targets_without_added_noise(monkeypatch):
    """The level at rest is the most probable one under the member's own function."""
    monkeypatch.setattr(devices, "chain_layout", lambda: "vmap")
    law = bn.LogNormal(float(np.log(0.5)), 1.0)
    method = bn.DeepEnsemble(members=64, steps=1500, learning_rate=0.05)
    x, y = table(48)
    post = fit(method, likelihood=bn.GaussianLikelihood(law), n=48)
    residual = y[:, 0] - post.latents[0, :, :3] @ features(x).T
    u = post.latents[0, :, 3]
    anchors = np.stack([state.anchor for state in post.states])[:, 3]
    level = 0.5 * np.exp(u)
    # d/du of (u - a)^2 / 2 + sum(r^2) / (2 s^2) + n log s, with log s = log 0.5 + u
    slope = (u - anchors) - (residual**2).sum(1) / level**2 + 48
    np.testing.assert_allclose(slope, 0.0, atol=0.5)
    # Not inflated by the noise added, nor deflated by weights that fit it: 0.5 is the truth.
    assert np.exp(np.log(level).mean()) == pytest.approx(0.5, rel=0.2)


def test_other_likelihoods_keep_their_targets_and_say_so():
    method = bn.DeepEnsemble(members=3, steps=5)
    post = fit(method, likelihood=bn.StudentTLikelihood())
    assert "less than the posterior's" in str(post.diagnostics())


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
    scores = post.states[3].scores

    def fit_of(z):
        return model.log_likelihood_rows(z, scores).sum()

    gradient = jax.grad(fit_of)(z) - (z - anchor)
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
        ({"noisy_targets": 0}, "noisy_targets must be True or False"),
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
