"""Chains of a proposal run on until they agree, up to a bound, and say what was found."""

import json
import logging
from dataclasses import dataclass, replace

import numpy as np
import optuna

import bayesnet as bn
from bayesnet.bo import BayesNetSampler, Findings, LoopSettings, LoopState, chains
from bayesnet.bo.chains import ANEW, ESS_LIMIT, MOST_RUNS, RHAT_LIMIT, Check, settled
from bayesnet.bo.findings import findings
from bayesnet.inference import HMC

from .conftest import TINY, tiny_prior

BOX = np.array([[0.0, 0.0], [1.0, 1.0]])


class Table:
    """Three tried points, one outcome."""

    x = np.zeros((3, 1))
    out_dim = 1


@dataclass(frozen=True, eq=False)
class Draws:
    """Draws whose latents are the function values at the tried points: what `settled` looks at."""

    latents: np.ndarray
    stats: dict
    states: tuple = ("here",)
    method: object = HMC()
    seconds: dict = None
    interrupted: bool = False
    data: object = Table()

    @property
    def num_draws(self):
        return self.latents.shape[0] * self.latents.shape[1]

    def scaled_functions(self, x):
        return self.latents.reshape(-1, 3, 1)


def draws(seed, *, apart=0.0, acceptance=0.8, divergent=0):
    """Two chains of 100 independent draws, their means `apart`."""
    values = np.random.default_rng(seed).normal(size=(2, 100, 3))
    values[1] += apart
    stats = {
        "acceptance_rate": np.full((2, 100), acceptance),
        "divergent": np.arange(200).reshape(2, 100) < divergent,
    }
    return Draws(values, stats, (seed,), seconds={"sampling": 1.0})


def test_chains_that_agree_are_left_alone():
    first = draws(0, divergent=3)

    def never(*_):
        raise AssertionError

    kept, check, runs = settled(first, never)
    assert kept is first
    assert runs == 0
    assert check.rhat < RHAT_LIMIT
    assert check.ess > ESS_LIMIT
    assert (check.divergences, check.draws) == (3, 200)


def test_a_bad_start_is_run_on_until_the_limits_are_kept():
    asked = []

    def again(last, how, run):
        asked.append((last.states, how, run))
        return draws(run)

    kept, check, runs = settled(draws(0, apart=5.0), again)
    assert asked == [((0,), "none", 1)]
    assert runs == 1
    assert check.rhat <= RHAT_LIMIT
    assert check.ess >= ESS_LIMIT
    # The draws of the bad start are left out, and the next step goes on from the new states.
    np.testing.assert_array_equal(kept.latents, draws(1).latents)
    assert kept.states == (1,)


def test_draws_of_runs_are_put_together_where_that_helps():
    """Chains that move slowly: each run has too few effective draws, several have enough."""
    slow = [np.repeat(draws(seed).latents[:, :20], 5, axis=1) for seed in range(5)]
    make = lambda k: replace(draws(k), latents=slow[k])  # noqa: E731
    kept, check, runs = settled(make(0), lambda last, how, run: make(run))
    assert 1 <= runs < ANEW
    assert kept.latents.shape == (2, 100 * (runs + 1), 3)
    assert kept.stats["divergent"].shape == (2, 100 * (runs + 1))
    assert kept.seconds == {"sampling": runs + 1.0}
    assert check.ess >= ESS_LIMIT


def test_stuck_chains_are_tuned_and_then_warmed_up_anew_up_to_the_bound():
    asked = []

    def again(last, how, run):
        asked.append(how)
        return draws(run, apart=4.0 - 0.6 * run, acceptance=0.1)

    kept, check, runs = settled(draws(0, apart=4.0, acceptance=0.1), again)
    assert asked == ["short", "short", "full", "short"]
    assert runs == MOST_RUNS == 4
    assert check.badness > 1
    np.testing.assert_array_equal(kept.latents, draws(4, apart=1.6).latents)  # the best of them


def test_what_cannot_be_judged_or_run_on_is_left():
    ensemble = replace(draws(0, apart=9.0), method=bn.DeepEnsemble())
    assert settled(ensemble, None)[1:] == (None, 0)
    ended = replace(draws(0, apart=9.0), states=())
    assert settled(ended, None)[0] is ended


def test_a_bound_that_is_reached_is_said_once_for_each_cause(caplog):
    bad = Check(1.4, 12.0, 40, 200)
    found = findings(draws(0), bad, 4, y_scale=1.0, default_noise=True)
    assert set(found.problems) == {"chains", "divergences"}
    assert "R-hat 1.40, 12 effective draws" in found.problems["chains"]
    with caplog.at_level(logging.WARNING, logger="bayesnet"):
        told = found.tell(frozenset())
        assert found.tell(told) == told
    assert [r.levelname for r in caplog.records] == ["WARNING"] * 2
    assert "4 further runs" in caplog.text
    attributes = json.loads(json.dumps(found.attributes(), allow_nan=False))
    assert attributes["surrogate:rhat"] == 1.4
    assert attributes["surrogate:divergences"] == 40
    assert "40 of 200 draws diverged" in attributes["surrogate:problems"]


def test_chains_that_never_move_still_make_json():
    found = findings(draws(0), Check(np.inf, 2.0, 0, 200), 4, y_scale=1.0, default_noise=True)
    json.dumps(found.attributes(), allow_nan=False)
    assert not found.ok


def test_noise_beyond_the_small_law_is_said(caplog):
    rng = np.random.default_rng(0)
    X = np.linspace(0, 1, 25)[:, None]
    y = 5.0 * X[:, 0] + rng.normal(size=25)
    state = LoopState(BOX[:, :1], LoopSettings(bn.Exact(restarts=0))).update(X, y)
    assert 0.5 < state.findings.noise_std < 1.5
    assert "likelihood=bn.GaussianLikelihood()" in state.findings.problems["noise"]
    assert state.told == {"noise"}
    assert "values look noisy" in caplog.text
    wide = LoopSettings(bn.Exact(restarts=0), likelihood=bn.GaussianLikelihood())
    assert LoopState(BOX[:, :1], wide).update(X, y).findings.ok


def test_a_state_runs_chains_on_and_the_trials_carry_what_it_found(monkeypatch):
    monkeypatch.setattr(chains, "ESS_LIMIT", 1e6)  # never reached: the bound is
    method = replace(TINY, chains=2)
    study = optuna.create_study(
        sampler=BayesNetSampler(method, prior=tiny_prior(2), seed=0, n_startup_trials=4)
    )
    objective = lambda t: t.suggest_float("a", 0.0, 1.0) + t.suggest_float("b", 0.0, 1.0)  # noqa: E731
    study.optimize(objective, n_trials=5)
    first, last = study.trials[0].user_attrs, study.trials[-1].user_attrs
    assert first == {}
    assert last["surrogate:runs"] == MOST_RUNS
    assert last["surrogate:draws"] > TINY.draws * 2 - 1
    assert {"surrogate:rhat", "surrogate:ess", "surrogate:divergences"} <= set(last)
    assert last["surrogate:noise_std"] > 0
    assert "chains disagree" in last["surrogate:problems"]
    state = study.sampler._loop._state
    assert isinstance(state.findings, Findings)
    assert state.model.num_draws == TINY.draws * 2  # more would be another program
    assert state.findings.draws == state.posterior.num_draws


def test_processes_and_known_noise_have_findings():
    X = np.random.default_rng(0).uniform(size=(5, 2))
    state = LoopState(BOX, LoopSettings(bn.Exact(restarts=0))).update(X, X[:, 0], np.full(5, 1e-4))
    assert state.findings.rhat is None
    assert state.findings.ok
    assert "surrogate:runs" not in state.findings.attributes()


def test_limits_are_kept_by_real_chains():
    """Chains of the loop, short ones: run on, they keep the limits in the end."""
    X = np.random.default_rng(0).uniform(size=(6, 2))
    method = replace(TINY, chains=2, warmup=100, draws=100)
    state = LoopState(BOX, LoopSettings(method, tiny_prior(2), likelihood="gaussian"))
    found = state.update(X, X.sum(axis=1)).findings
    assert "chains" not in found.problems
    assert found.rhat <= RHAT_LIMIT
    assert found.ess >= ESS_LIMIT


def test_chains_that_call_everything_noise_start_again_near_the_data(monkeypatch):
    """A row that no draw has foreseen: the noise rises to explain it, and R-hat sees nothing."""
    import bayesnet.bo.state as module

    X = np.random.default_rng(0).uniform(size=(6, 2))
    asked = []
    make = module.Surrogate

    def spy(*tables, **settings):
        asked.append(settings["inference"])
        return make(*tables, **settings)

    monkeypatch.setattr(module, "Surrogate", spy)
    trapped = iter([True, False])
    monkeypatch.setattr(module, "looks_noisy", lambda posterior, scale: next(trapped))
    method = replace(TINY, chains=2)
    state = LoopState(BOX, LoopSettings(method, tiny_prior(2))).update(X, X.sum(axis=1))
    process = next(i for i, m in enumerate(asked) if isinstance(m, bn.Exact))
    assert asked[process + 1] == method  # all of the warm-up, from functions through all rows
    assert state.findings.runs > 0
    assert state.posterior.prior is tiny_prior(2)
