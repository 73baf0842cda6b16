import copy
import pickle

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from bayesnet import InputError
from bayesnet.bo import BayesNetSampler
from bayesnet.bo.trials import PROPOSAL_KEY
from bayesnet.bo.workers import WORKER_KEY, is_dead, this_worker

from .conftest import TINY, tiny_prior

SPACE = {"x": (0.0, 1.0), "k": (1, 5), "c": ["a", "b"]}


def sampler(**options):
    options = {"prior": tiny_prior(4), "seed": 1, "n_startup_trials": 4, **options}
    return BayesNetSampler(TINY, **options)


def objective(trial):
    x = trial.suggest_float("x", 0.0, 1.0)
    k = trial.suggest_int("k", 1, 5)
    return (x - 0.3) ** 2 + 0.1 * k + (trial.suggest_categorical("c", ["a", "b"]) == "a")


@pytest.mark.parametrize("space", [None, SPACE])
def test_a_study_runs_and_repeats_with_its_seed(space):
    runs = []
    for _ in range(2):
        study = optuna.create_study(sampler=sampler(space=space))
        study.optimize(objective, n_trials=8)
        runs.append([t.params for t in study.trials])
    assert runs[0] == runs[1]
    assert len({str(p) for p in runs[0]}) > 6
    other = optuna.create_study(sampler=sampler(space=space, seed=2))
    other.optimize(objective, n_trials=2)
    assert [t.params for t in other.trials] != runs[0][:2]


def test_the_first_points_are_a_sobol_sequence():
    study = optuna.create_study(sampler=sampler(space={"x": (0.0, 1.0), "y": (0.0, 8.0)}))
    points = []
    for _ in range(4):
        trial = study.ask()
        points.append([trial.suggest_float("x", 0.0, 1.0), trial.suggest_float("y", 0.0, 8.0) / 8])
    quarters = {tuple((np.array(p) * 2).astype(int)) for p in points}
    assert len(quarters) == 4


def test_a_proposal_is_stored_before_parameters_are_asked_for():
    study = optuna.create_study(sampler=sampler(space=SPACE))
    trial = study.ask()
    assert trial.relative_params
    frozen = study.trials[0]
    assert frozen.params == {}
    assert frozen.system_attrs[PROPOSAL_KEY].keys() == SPACE.keys()
    assert frozen.system_attrs[WORKER_KEY] == this_worker()


def test_running_trials_are_pending_points(monkeypatch):
    import bayesnet.bo.sampler as module

    seen = []
    real = module.propose

    def spy(problem, *args, **kwargs):
        seen.append(0 if problem.pending is None else len(problem.pending))
        return real(problem, *args, **kwargs)

    monkeypatch.setattr(module, "propose", spy)
    study = optuna.create_study(sampler=sampler(space=SPACE))
    study.optimize(objective, n_trials=4)
    trials = [study.ask() for _ in range(3)]
    proposals = [str(t.relative_params) for t in trials]
    assert seen == [0, 1, 2]
    assert len(set(proposals)) == 3
    # Their worker dies: they are waited for no longer.
    dead = [*this_worker()[:2], "long ago"]
    for trial in trials:
        study._storage.set_trial_system_attr(trial._trial_id, WORKER_KEY, dead)
    assert study.ask().relative_params
    assert seen[3] == 0


def test_failed_and_pruned_trials_are_kept_away_from(monkeypatch):
    def flaky(trial):
        value = objective(trial)
        if trial.number in (1, 5):
            return float("nan")
        if trial.number == 6:
            raise optuna.TrialPruned
        return value

    study = optuna.create_study(sampler=sampler(space=SPACE))
    study.optimize(flaky, n_trials=9)
    states = [t.state for t in study.trials]
    assert states.count(TrialState.FAIL) == 2
    assert states.count(TrialState.PRUNED) == 1
    bad = [str(t.params) for t in study.trials if t.state != TrialState.COMPLETE]
    assert len(set(bad)) == 3


def test_infinite_values_do_no_harm():
    study = optuna.create_study(sampler=sampler(space=SPACE))
    study.optimize(lambda t: objective(t) if t.number % 3 else float("inf"), n_trials=8)
    assert all(t.state == TrialState.COMPLETE for t in study.trials)


def test_enqueued_and_told_trials():
    study = optuna.create_study(sampler=sampler(space=SPACE), direction="maximize")
    study.enqueue_trial({"x": 0.25, "k": 2, "c": "b"})
    study.enqueue_trial({"x": 0.75})
    study.optimize(objective, n_trials=2)
    assert study.trials[0].params == {"x": 0.25, "k": 2, "c": "b"}
    assert study.trials[1].params["x"] == 0.75
    for _ in range(4):
        trial = study.ask()
        study.tell(trial, objective(trial))
    assert all(t.state == TrialState.COMPLETE for t in study.trials)


def test_conditional_parameters_are_drawn_at_random():
    def nested(trial):
        value = objective(trial)
        if value > 0.8:
            return value + trial.suggest_float("extra", 0.0, 1.0)
        return value + trial.suggest_int("whole", 0, 3)

    study = optuna.create_study(sampler=sampler())
    study.optimize(nested, n_trials=8)
    assert all(t.state == TrialState.COMPLETE for t in study.trials)


def test_a_finite_space_is_searched_without_repeats():
    space = {"j": (1, 2), "k": (1, 2), "c": ["a", "b"]}
    study = optuna.create_study(sampler=sampler(space=space))

    def table(trial):
        number = 2 * trial.suggest_int("j", 1, 2) + trial.suggest_int("k", 1, 2)
        return number + (trial.suggest_categorical("c", ["a", "b"]) == "a")

    study.optimize(table, n_trials=4)
    before = {str(t.params) for t in study.trials}
    study.optimize(table, n_trials=8 - len(before))
    assert len({str(t.params) for t in study.trials}) == 8
    study.optimize(table, n_trials=1)  # nothing is left: something is tried again
    assert study.trials[-1].state == TrialState.COMPLETE


def test_a_loaded_study_goes_on(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    first = optuna.create_study(storage=url, study_name="s", sampler=sampler(space=SPACE))
    first.optimize(objective, n_trials=5)
    again = optuna.load_study(storage=url, study_name="s", sampler=sampler(space=SPACE))
    again.optimize(objective, n_trials=2)
    assert len(again.trials) == 7


def test_samplers_are_copied_without_their_chains():
    one = sampler(space=SPACE)
    study = optuna.create_study(sampler=one)
    study.optimize(objective, n_trials=5)
    for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        study.sampler = other
        study.optimize(objective, n_trials=1)


def test_several_objectives_and_bad_arguments_are_refused():
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler())
    with pytest.raises(ValueError, match="multi"):
        study.ask()
    with pytest.raises(InputError, match="Did you mean"):
        BayesNetSampler("nutss")
    with pytest.raises(InputError, match="Did you mean"):
        BayesNetSampler(TINY, acquisition="log_e")
    with pytest.raises(InputError, match="n_startup"):
        BayesNetSampler(TINY, n_startup_trials=0)
    with pytest.raises(InputError, match="below high"):
        BayesNetSampler(TINY, space={"x": (1, 0)})


def test_who_is_dead():
    own = this_worker()
    assert not is_dead(own)
    assert not is_dead(None)
    assert not is_dead(["another machine", 1, "5"])
    assert is_dead([own[0], own[1], "another start"])
    assert is_dead([own[0], 2**22 + 1, "5"])
