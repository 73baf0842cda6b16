from contextlib import contextmanager

import jax
import numpy as np
import pytest
from jax._src import monitoring

import bayesnet as bn
from bayesnet.bo import LoopSettings, LoopState, chains, suggest
from bayesnet.bo.state import LOOP_HMC, loop_inference

from .conftest import TINY, tiny_prior

BOUNDS = np.array([[0.0, 0.0], [1.0, 5.0]])


def f(X):
    return np.sin(3 * X[:, 0]) - (X[:, 1] - 2) ** 2


def design(n):
    return BOUNDS[0] + (BOUNDS[1] - BOUNDS[0]) * np.random.default_rng(0).uniform(size=(n, 2))


@contextmanager
def compilations():
    """The names of JAX's compilations inside the block."""
    seen = []

    def listen(event, duration, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(kwargs.get("fun_name", event))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        monitoring.unregister_event_duration_listener(listen)


def test_a_new_point_compiles_nothing():
    state, X = LoopState(BOUNDS, LoopSettings(TINY, tiny_prior(2))), design(8)

    def step(seed):
        nonlocal state, X
        state = state.update(X, f(X), seed=seed)
        X = np.concatenate([X, suggest(state, seed=seed)])

    for seed in range(3):  # cold, warm, and every size of a batch of restarts
        step(seed)
    with compilations() as control:
        jax.jit(lambda x: x + len(X))(1.0)
    assert control
    with compilations() as later:
        for seed in range(3, 7):
            step(seed)
    assert len(X) == 15
    assert not later


def test_the_prior_is_matched_once(monkeypatch):
    import bayesnet.fitting

    calls = []

    def once(prior, target, data, **kwargs):
        calls.append((prior, target))
        return tiny_prior(2) if prior is None else prior

    monkeypatch.setattr(bayesnet.fitting, "resolve_prior", once)
    state, X = LoopState(BOUNDS, LoopSettings(TINY)), design(8)
    first = state.update(X[:6], f(X[:6]))
    second = first.update(X, f(X))
    assert calls[0] == (None, None)
    assert calls[1] == (first.posterior.prior, None)
    assert second.posterior.prior is first.posterior.prior


def test_chains_go_on_and_are_tuned_again_when_it_matters(monkeypatch):
    monkeypatch.setattr(chains, "MOST_RUNS", 0)  # of each step its own run alone
    X = design(30)
    state = LoopState(BOUNDS, LoopSettings(TINY, tiny_prior(2)))
    first = state.update(X[:8], f(X[:8]))
    second = first.update(X[:9], f(X[:9]))
    assert (first.moved, second.moved) == (True, False)
    assert first.posterior.data.scaling.x_scale is not None
    assert second.y_scale == first.y_scale
    assert second.posterior.method.warmup < first.posterior.method.warmup == TINY.warmup
    kept = [np.asarray(p.posterior.states[0].inverse_mass) for p in (first, second)]
    np.testing.assert_array_equal(*kept)
    assert second.update(X[:11], f(X[:11])).tuned_at == 8
    grown = second.update(X[:12], f(X[:12]))  # half as many again
    assert grown.tuned_at == 12
    assert not np.array_equal(kept[0], grown.posterior.states[0].inverse_mass)
    shifted = second.update(X[:10], 50 * f(X[:10]))
    assert shifted.moved
    assert shifted.posterior.method == TINY


def test_bad_values_do_not_spoil_the_scale():
    X = design(12)
    y = f(X)
    y[3], y[5] = -1e12, -np.inf
    state = LoopState(BOUNDS, LoopSettings(TINY, tiny_prior(2))).update(X, y)
    assert state.y_scale[1] < 50
    assert np.isfinite(suggest(state)).all()


@pytest.mark.parametrize("n", [1, 2])
def test_a_single_row_or_constant_values(n):
    X = np.full((n, 2), 0.5)
    state = LoopState(BOUNDS, LoopSettings(TINY, tiny_prior(2))).update(X, np.full(n, 3.0))
    assert np.isfinite(suggest(state)).all()


def test_names_mean_small_chains():
    assert loop_inference("hmc") is LOOP_HMC
    assert loop_inference(TINY) is TINY
    with pytest.raises(bn.InputError, match="Did you mean 'hmc'"):
        loop_inference("hmcc")


def test_the_old_word_for_a_surrogate_works_and_says_so():
    with pytest.warns(FutureWarning, match="surrogate=") as caught:
        old = LoopSettings(inference=TINY)
    assert caught[0].filename == __file__
    assert old == LoopSettings(TINY) == LoopSettings(surrogate=TINY)
    with pytest.warns(FutureWarning, match="surrogate"):
        assert old.inference is TINY
    with pytest.warns(FutureWarning, match="surrogate="):
        sampler = bn.bo.BayesNetSampler(inference="exact")
    assert isinstance(sampler._settings.surrogate, bn.Exact)
    with pytest.raises(TypeError, match="old word"):
        LoopSettings(TINY, inference="exact", surrogate="hmc")
    pickled = LoopSettings.__new__(LoopSettings)
    pickled.__setstate__({"inference": TINY, "maximize": False})
    assert pickled.surrogate is TINY
