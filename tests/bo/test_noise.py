"""The loop's law of the noise: small by default in every entry, and never over what was stated."""

import numpy as np
import optuna
import pytest
import torch
from botorch.test_functions import Ackley
from scipy.stats import qmc

import bayesnet as bn
from bayesnet.bo import LoopSettings, LoopState, minimize, suggest, suggest_from_pool
from bayesnet.bo.noise import LOOP_NOISE, loop_likelihood

from .conftest import TINY, tiny_prior

BOX = np.array([[0.0, 0.0], [1.0, 1.0]])
WIDE = bn.GaussianLikelihood()


def f(X):
    return 300.0 * np.sin(5 * X[:, 0]) + 100.0 * X[:, 1]


def design(n):
    return np.random.default_rng(0).uniform(size=(n, 2))


@pytest.fixture
def laws(monkeypatch):
    """The likelihood and the table of every surrogate that the loop fits."""
    import bayesnet.bo.state as module

    seen = []
    make = module.Surrogate

    def spy(X, Y, Yvar=None, **settings):
        seen.append((settings["likelihood"], Y))
        return make(X, Y, Yvar, **settings)

    monkeypatch.setattr(module, "Surrogate", spy)
    return seen


def assert_small(likelihood, scale):
    law = likelihood.noise_std
    assert law.loc == pytest.approx(-4.0 + np.log(scale), abs=1e-9)
    assert law.scale == 0.5


def tables():
    X = design(6)
    return X, f(X), np.std(f(X))


def test_a_state_has_the_small_law_in_the_units_of_y(laws):
    X, y, scale = tables()
    LoopState(BOX, LoopSettings(TINY, tiny_prior(2))).update(X, y)
    assert_small(laws[-1][0], scale)


def test_suggest_has_it(laws):
    X, y, scale = tables()
    suggest((X, y), BOX, surrogate="exact", raw_samples=8, num_restarts=1)
    suggest_from_pool((X, y), design(9)[6:], surrogate="exact")
    assert len(laws) == 2
    for law, _ in laws:
        assert_small(law, scale)


def test_studies_have_it(laws):
    def objective(params):
        return float(f(np.array([[params["a"], params["b"]]]))[0])

    space = {"a": (0.0, 1.0), "b": (0.0, 1.0)}
    minimize(objective, space, "exact", n_trials=4, n_startup_trials=3)
    study = optuna.create_study(
        sampler=bn.bo.BayesNetSampler("exact", n_startup_trials=3, seed=0, space=space)
    )
    study.optimize(lambda t: objective({k: t.suggest_float(k, 0, 1) for k in space}), n_trials=4)
    assert len(laws) == 2
    for law, Y in laws:
        assert_small(law, np.std(Y.numpy()))


@pytest.mark.parametrize(
    "method",
    [
        "exact",
        "infinite_width",
        "student_t",
        pytest.param("ensemble", marks=pytest.mark.slow),
        pytest.param("sghmc", marks=pytest.mark.slow),
    ],
)
def test_every_method_that_learns_a_level_takes_it(method):
    X, y, scale = tables()
    quick = {
        "ensemble": bn.DeepEnsemble(members=3, steps=50),
        "sghmc": bn.SGHMC(chains=1, warmup=50, draws=20),
    }
    prior = tiny_prior(2) if method in quick else None
    state = LoopState(BOX, LoopSettings(quick.get(method, method), prior)).update(X, y)
    assert_small(state.posterior.likelihood, scale)
    assert torch.isfinite(state.model.posterior(torch.as_tensor(X)).mean).all()


@pytest.mark.parametrize("stated", [WIDE, bn.GaussianLikelihood(3.0)])
def test_a_stated_likelihood_is_kept(stated, laws):
    X, y, _ = tables()
    LoopState(BOX, LoopSettings("exact", likelihood=stated)).update(X, y)
    suggest((X, y), BOX, surrogate="exact", likelihood=stated, raw_samples=8, num_restarts=1)
    suggest_from_pool((X, y), design(9)[6:], surrogate="exact", likelihood=stated)
    assert [law for law, _ in laws] == [stated] * 3
    assert loop_likelihood("student_t", "hmc", 2.0) == "student_t"


def test_known_variances_are_the_noise():
    X, y, _ = tables()
    state = LoopState(BOX, LoopSettings("exact")).update(X, y, np.full(6, 25.0))
    posterior = state.model.posterior(torch.as_tensor(X), observation_noise=True)
    latent = state.model.posterior(torch.as_tensor(X))
    added = (posterior.variance - latent.variance).detach().numpy()
    np.testing.assert_allclose(added, 25.0, rtol=1e-6)


def test_trained_weights_keep_their_own():
    assert loop_likelihood(None, "pfn", 2.0) is None
    assert loop_likelihood(None, "amortised", 2.0) is None
    assert loop_likelihood(None, "hmc", 2.0).noise_std.loc == LOOP_NOISE.loc + np.log(2.0)


def test_a_rough_function_is_searched_and_not_explained_as_noise():
    ackley, n = Ackley(dim=4), 256
    box = ackley.bounds.numpy()
    X = box[0] + (box[1] - box[0]) * qmc.Sobol(4, seed=3).random(n)
    y = -ackley(torch.as_tensor(X)).numpy()
    rank = np.argsort(np.argsort(-y))

    def best_rank(likelihood):
        chosen = np.random.default_rng(3).permutation(n)[:6].tolist()
        state = LoopState(box, LoopSettings("exact", likelihood=likelihood))
        for step in range(8):
            state = state.update(X[chosen], y[chosen], seed=step)
            left = np.setdiff1d(np.arange(n), chosen)
            pick = suggest_from_pool(state, X[left], acquisition="log_ei", seed=step)
            chosen.append(int(left[pick[0]]))
        return rank[chosen].min()

    assert best_rank(None) == 0  # the best of 256
    assert best_rank(WIDE) > 10
