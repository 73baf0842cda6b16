"""The sampling loop: seeds, warm starts, interruption, traces, thinning, progress, layouts."""

from __future__ import annotations

import threading

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import bayesnet as bn
from bayesnet import devices, fitting
from bayesnet.data import Scaling, make_data

RNG = np.random.default_rng(0)
X = RNG.uniform(-2, 2, (14, 1))
Y = np.sin(X) + 0.2 * RNG.normal(size=(14, 1))
NOISE = bn.GaussianLikelihood(0.3)


class Counting:
    """A bare network over fixed features that counts how often it is traced."""

    def __init__(self):
        self.traces = 0
        self.lock = threading.Lock()

    def init(self, key):
        return {"w": jnp.zeros(2)}

    def apply(self, params, x):
        with self.lock:
            self.traces += 1
        return (jnp.concatenate([jnp.ones_like(x), jnp.sin(x)], axis=1) @ params["w"])[:, None]

    def prior(self):
        return bn.NetworkPrior((self.init, self.apply), units="data")


PRIOR = Counting().prior()
METHOD = bn.HMC(chains=2, warmup=60, draws=60)


def fit(method=METHOD, *, prior=PRIOR, n=14, seed=0, **kwargs):
    return bn.fit(
        prior, X[:n], Y[:n], likelihood=NOISE, inference=method, seed=seed, warn=False, **kwargs
    )


def run(method=METHOD, **kwargs):
    """The method itself, as `fit` calls it."""
    data = make_data(X, Y, None, Scaling.identity(1, 1))
    return method.fit(PRIOR, NOISE, data, key=jax.random.key(0), **kwargs)


@pytest.fixture(scope="module")
def first():
    return fit()


@pytest.mark.parametrize("seed", [0, jax.random.key(0)], ids=["integer", "key"])
def test_the_same_seed_gives_the_same_draws_to_the_last_bit(first, seed):
    again = fit(seed=seed)
    np.testing.assert_array_equal(again.latents, first.latents)
    for name, values in first.stats.items():
        np.testing.assert_array_equal(again.stats[name], values)


def test_another_seed_gives_other_draws_and_chains_differ(first):
    assert not np.isin(fit(seed=1).latents, first.latents).any()
    assert not np.allclose(first.latents[0], first.latents[1])


def test_shapes_and_statistics(first):
    assert first.latents.shape == (2, 60, 2)
    assert first.latents.dtype == np.float32
    assert {k: v.shape for k, v in first.stats.items()} == dict.fromkeys(
        ("acceptance_rate", "divergent", "num_gradients", "log_density"), (2, 60)
    )
    assert 0.5 < first.stats["acceptance_rate"].mean() <= 1
    # The reported log density is that of the reported draw.
    z = first.latents[1, -1].astype(float)
    f = z[0] + z[1] * np.sin(X)
    expected = oracles.normal_log_density(Y, f, 0.09).sum() - 0.5 * z @ z
    assert first.stats["log_density"][1, -1] == pytest.approx(expected, rel=1e-4)
    assert set(first.seconds) == {"compile", "warmup", "sampling"}


def test_going_on_from_earlier_chains(first):
    again = run(bn.HMC(chains=2, warmup=0, draws=25), init=first)
    for new, old in zip(again.states, first.states, strict=True):
        np.testing.assert_array_equal(new.inverse_mass, old.inverse_mass)
        assert float(new.path_length) == float(old.path_length)
        assert float(new.step_size) == float(old.step_size)
    # No warm-up at all, and yet in the bulk at once; from the prior it would not be.
    low = np.quantile(first.stats["log_density"], 0.02) - 3
    assert (again.stats["log_density"][:, 0] > low).all()
    cold = run(bn.HMC(chains=2, warmup=0, draws=25))
    assert cold.stats["log_density"][:, 0].min() < low
    # More chains than before start from the old ones in turn.
    assert run(bn.HMC(chains=3, warmup=0, draws=5), init=first).latents.shape == (3, 5, 2)


def test_going_on_with_more_rows(first):
    short = fit(n=13)
    again = fit(bn.HMC(chains=2, warmup=25, draws=25), init=short)
    assert again.data.num_rows == 14
    np.testing.assert_array_equal(again.states[0].inverse_mass, short.states[0].inverse_mass)


def test_going_on_with_another_method_and_after_loading(first, tmp_path):
    low = np.quantile(first.stats["log_density"], 0.02) - 3
    nuts = run(bn.NUTS(chains=2, warmup=0, draws=5), init=first)
    assert (nuts.stats["log_density"] > low).all()
    first.save(tmp_path / "p")
    network = PRIOR.network.source
    loaded = bn.load(tmp_path / "p", network=network)
    assert loaded.states == ()
    again = run(bn.HMC(chains=2, warmup=0, draws=5), init=loaded)
    assert (again.stats["log_density"] > low).all()


def test_init_that_is_no_posterior_of_this_table_is_refused(first):
    with pytest.raises(bn.InputError, match="must be a posterior"):
        fit(init=first.latents)
    two = bn.NetworkPrior(bn.MLP((3,)), in_dim=2, units="data")
    with pytest.raises(bn.InputError, match="1 inputs, the table has 2"):
        bn.fit(two, np.hstack([X, X]), Y, likelihood=NOISE, inference=METHOD, init=first)


def test_thinning_takes_more_steps_between_draws():
    one, three = run(), run(bn.HMC(chains=2, warmup=60, draws=60, thin=3))
    assert three.latents.shape == one.latents.shape
    ratio = three.stats["num_gradients"].mean() / one.stats["num_gradients"].mean()
    assert 2.4 < ratio < 3.6
    assert three.stats["acceptance_rate"].max() <= 1


def test_progress_is_told_after_every_chunk():
    calls = []
    run(progress=lambda *call: calls.append(call))
    assert calls == [
        ("warm-up", 25, 60),
        ("warm-up", 50, 60),
        ("warm-up", 60, 60),
        ("sampling", 25, 60),
        ("sampling", 50, 60),
        ("sampling", 60, 60),
    ]


def interrupt(phase, at):
    def report(now, done, total):
        if now == phase and done >= at:
            raise KeyboardInterrupt

    return report


def test_interrupted_sampling_keeps_what_was_drawn(first):
    post = run(progress=interrupt("sampling", 50))
    assert post.interrupted
    np.testing.assert_array_equal(post.latents, first.latents[:, :50])
    assert all(values.shape == (2, 50) for values in post.stats.values())
    assert post.predict(X).mean.shape == (14, 1)
    assert any("interrupted" in p for p in post.diagnostics().problems)
    # And it can be taken up again.
    assert run(bn.HMC(chains=2, warmup=0, draws=10), init=post).latents.shape == (2, 10, 2)


def test_interrupted_warm_up_propagates():
    with pytest.raises(KeyboardInterrupt):
        run(progress=interrupt("warm-up", 25))


def test_an_interrupted_fit_warns_in_words(monkeypatch):
    from contextlib import contextmanager

    @contextmanager
    def bar(show):
        yield interrupt("sampling", 25)

    monkeypatch.setattr(fitting, "_progress_bar", bar)
    with pytest.warns(bn.ConvergenceWarning, match="interrupted: it holds fewer draws"):
        post = bn.fit(PRIOR, X, Y, likelihood=NOISE, inference=METHOD)
    assert post.latents.shape == (2, 25, 2)


@pytest.mark.parametrize("cls", [bn.HMC, pytest.param(bn.NUTS, marks=pytest.mark.slow)])
def test_nothing_is_traced_twice(cls, monkeypatch):
    monkeypatch.setattr(devices, "cpu_count", lambda: 2)  # two threads want the same program
    net, method = Counting(), cls(chains=2, warmup=30, draws=30)
    prior = net.prior()

    def everything(n):
        post = fit(method, prior=prior, n=n)
        sampling = net.traces
        post.predict(X)
        post.diagnostics()
        return sampling

    once = everything(11) - 1  # building the prior evaluates the network once
    traced = net.traces
    everything(11)
    assert net.traces == traced
    everything(12)  # the same bucket
    assert net.traces == traced
    # A warm start, and a warm-up of another length, run the same programs.
    shorter = cls(chains=2, warmup=20, draws=10)
    fit(shorter, prior=prior, n=12, init=fit(method, prior=prior, n=12))
    assert net.traces == traced
    # One chain traces each program once; two threads may not trace more.
    net = Counting()
    prior = net.prior()
    method = cls(chains=1, warmup=30, draws=30)
    assert everything(11) - 1 == once


@pytest.mark.slow
def test_batched_chains_sample_the_same_law(monkeypatch):
    monkeypatch.setattr(devices, "chain_layout", lambda: "vmap")
    post = run(bn.HMC(chains=4, warmup=150, draws=300))
    phi = np.column_stack([np.ones(14), np.sin(X[:, 0])])
    exact = oracles.LinearRegression.fit(phi, Y[:, 0], 0.09)
    assert np.abs(oracles.z_scores(post.latents, exact.mean)).max() < 5
    centred = post.latents - exact.mean
    products = centred[..., :, None] * centred[..., None, :]
    assert np.abs(oracles.z_scores(products, exact.cov)).max() < 5
    again = run(bn.HMC(chains=2, warmup=0, draws=5), init=post)
    assert again.latents.shape == (2, 5, 2)


def test_each_program_is_compiled_once_and_not_in_a_thread(monkeypatch, caplog):
    # Two threads that compile, or one that compiles what another runs: slow, and XLA has aborted.
    monkeypatch.setattr(devices, "cpu_count", lambda: 2)
    prior = bn.NetworkPrior(bn.MLP((7,)), in_dim=1)  # no other test has compiled for it
    with jax.log_compiles(), caplog.at_level("WARNING"):
        fit(bn.HMC(chains=2, warmup=30, draws=30), prior=prior)
    compiled = [r for r in caplog.records if "Finished XLA compilation of jit(_" in r.getMessage()]
    for name in ("_init_chain", "_warm_program", "_draw_program"):
        of_name = [r for r in compiled if f"jit({name})" in r.getMessage()]
        assert [r.threadName for r in of_name] == ["MainThread"], name
