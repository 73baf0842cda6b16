import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState

from bayesnet import InputError, UnsupportedError
from bayesnet.bo import minimize
from bayesnet.bo.minimize import SURPLUS_KEY
from bayesnet.bo.trials import PROPOSAL_KEY

from .conftest import TINY, tiny_prior

SCRIPT = Path(__file__).with_name("study_script.py")
SPACE = {"x": (0.0, 1.0), "k": (1, 5)}


def f(params):
    return (params["x"] - 0.3) ** 2 + params["k"]


def tiny(objective=f, space=SPACE, **options):
    return minimize(objective, space, **{"surrogate": "random", "n_trials": 5, **options})


def test_a_study_in_memory_with_the_surrogate():
    runs = [
        minimize(f, SPACE, TINY, 8, prior=tiny_prior(2), n_startup_trials=4, seed=5)
        for _ in range(2)
    ]
    assert [t.params for t in runs[0].trials] == [t.params for t in runs[1].trials]
    assert runs[0].best_value == min(t.value for t in runs[0].trials)
    assert isinstance(runs[0].best_params["k"], int)


def test_n_trials_is_the_total_over_restarts(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    calls = []

    def counted(params):
        calls.append(params)
        return f(params)

    for n_trials, total in ((3, 3), (5, 5), (5, 5), (2, 5)):
        study = tiny(counted, storage=url, n_trials=n_trials)
        assert len(study.trials) == len(calls) == total
    in_memory = optuna.storages.InMemoryStorage()
    for n_trials in (3, 6):
        assert len(tiny(storage=in_memory, n_trials=n_trials).trials) == n_trials


def test_failed_trials_count_and_errors_propagate():
    study = tiny(lambda p: math.nan)
    assert [t.state for t in study.trials] == [TrialState.FAIL] * 5
    with pytest.raises(ZeroDivisionError):
        tiny(lambda p: 1 / 0)
    study = tiny(lambda p: 1 / 0, catch=(ZeroDivisionError,))
    assert len(study.trials) == 5


def test_directions_callbacks_and_numbers_of_any_kind():
    seen = []
    study = tiny(
        lambda p: [np.float32(2), torch.tensor(2.0), np.array([2.0]), 2, True][len(seen)],
        directions=["maximize"],
        callbacks=[lambda study, trial: seen.append(trial.number)],
    )
    assert seen == [0, 1, 2, 3, 4]
    assert [t.value for t in study.trials] == [2.0, 2.0, 2.0, 2.0, 1.0]
    assert study.direction.name == "MAXIMIZE"
    stopped = tiny(callbacks=[lambda study, trial: study.stop()])
    assert len(stopped.trials) == 1


def test_every_kind_of_parameter_reaches_the_objective():
    space = {
        "step": optuna.distributions.FloatDistribution(0.0, 1.0, step=0.25),
        "int": optuna.distributions.IntDistribution(1, 64, log=True),
        "cat": [None, True],
        "one": [3],
    }
    got = []
    minimize(
        lambda p: got.append(p) or p["step"] / p["int"],
        space,
        TINY,
        7,
        prior=tiny_prior(4),
        n_startup_trials=4,
    )
    assert all(p.keys() == space.keys() and p["one"] == 3 for p in got)
    assert all(p["step"] % 0.25 == 0 and p["cat"] in (None, True) for p in got)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"surrogate": "hcm"}, "Did you mean 'hmc'"),
        ({"surrogate": 3}, "inference must be"),
        ({"surrogate": "hmc", "acquisition": "ei"}, "acquisition"),
        ({"space": {}}, "empty"),
        ({"space": {"x": (1, 1)}}, "below high"),
        ({"objective": "f"}, "function"),
        ({"n_trials": 0}, "positive"),
        ({"n_trials": 2.5}, "positive"),
        ({"surrogate": "pfn", "n_trials": 102}, "at most 100 rows"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"surrogate": "hmc", "seed": -1}, "seed must be 0 or more"),
        ({"storage": "sqlite:////no/such/folder/study.db"}, "cannot be used"),
        ({"directions": "minimise"}, "Did you mean 'minimize'"),
        ({"directions": ["minimize", "maximize"]}, "One objective"),
        ({"storage": "study.db"}, "sqlite:///study.db"),
        ({"storage": 3}, "Optuna"),
        ({"objective": lambda p: None}, "one number"),
        ({"objective": lambda p: "3"}, "one number"),
        ({"objective": lambda p: (1.0, 2.0)}, "one number"),
        ({"objective": lambda p: np.ones(3)}, "one number"),
    ],
)
def test_bad_arguments_are_refused_in_words(change, words):
    with pytest.raises(InputError, match=words):
        tiny(**change)


def test_another_space_or_direction_under_the_same_name_is_refused(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    tiny(storage=url)
    with pytest.raises(InputError, match="another space"):
        tiny(storage=url, space={"x": (0.0, 2.0), "k": (1, 5)})
    with pytest.raises(InputError, match="direction"):
        tiny(storage=url, directions="maximize")
    assert len(tiny(storage=url, study_name="other", directions="maximize").trials) == 5


def worker(url, n_trials, marks, mode):
    return subprocess.Popen([sys.executable, str(SCRIPT), url, str(n_trials), str(marks), mode])


def wait_for(condition, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_a_killed_study_resumes(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    victim = worker(url, 10, tmp_path, "die")
    try:
        wait_for(lambda: (tmp_path / "waiting").exists() or victim.poll() is not None)
        assert victim.poll() is None
    finally:
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
    before = optuna.load_study(storage=url, study_name="bayesnet").trials
    assert [t.state.name for t in before] == ["COMPLETE"] * 6 + ["RUNNING"]
    assert PROPOSAL_KEY in before[6].system_attrs

    study = minimize(f, SPACE, TINY, 10, url, prior=tiny_prior(2), n_startup_trials=4)
    after = study.trials
    assert [(t.params, t.value) for t in after[:6]] == [(t.params, t.value) for t in before[:6]]
    assert after[6].state == TrialState.FAIL
    assert after[7].params == before[6].params  # the dead trial is run again
    assert after[7].state == TrialState.COMPLETE
    assert sum(t.state == TrialState.COMPLETE for t in after) == 10
    assert not any(t.state in (TrialState.RUNNING, TrialState.WAITING) for t in after)


@pytest.mark.slow
def test_two_workers_share_a_study(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    tiny(storage=url, n_trials=1)
    workers = [worker(url, 14, tmp_path, "slow") for _ in range(2)]
    assert [w.wait(timeout=400) for w in workers] == [0, 0]
    trials = optuna.load_study(storage=url, study_name="bayesnet").trials
    done = [t for t in trials if t.state == TrialState.COMPLETE]
    surplus = [t for t in trials if SURPLUS_KEY in t.system_attrs]
    assert len(done) == 14
    assert len(trials) == len(done) + len(surplus)
    assert all(PROPOSAL_KEY in t.system_attrs for t in done[1:])
    assert len({str(t.params) for t in done}) > 10
    calls = [p.read_text().splitlines() for p in tmp_path.glob("calls-*")]
    assert len(calls) == 2
    assert sum(map(len, calls)) == 13


@pytest.mark.parametrize("surrogate", ["infinite_width", "student_t", "pfn", "amortised"])
def test_thompson_sampling_of_what_draws_no_functions_is_refused_at_once(surrogate):
    with pytest.raises(UnsupportedError, match="another acquisition"):
        tiny(lambda p: pytest.fail("was run"), surrogate=surrogate, acquisition="thompson")


def test_random_points_depend_on_the_trial_and_not_on_the_process(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    for n_trials in (2, 4):
        parts = tiny(storage=url, n_trials=n_trials)
    points = [t.params for t in parts.trials]
    assert points == [t.params for t in tiny(n_trials=4).trials]
    assert len({p["x"] for p in points}) == 4
    assert points != [t.params for t in tiny(n_trials=4, seed=1).trials]


@pytest.mark.parametrize("surrogate", ["random", TINY])
def test_an_interrupted_trial_is_run_again(tmp_path, surrogate):
    url = f"sqlite:///{tmp_path}/study.db"
    calls, options = [], {} if surrogate == "random" else {"prior": tiny_prior(2)}

    def impatient(params):
        calls.append(params)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return f(params)

    with pytest.raises(KeyboardInterrupt):
        tiny(impatient, storage=url, surrogate=surrogate, **options)
    study = tiny(impatient, storage=url, surrogate=surrogate, **options)
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * 2 + ["FAIL"] + ["COMPLETE"] * 3
    assert calls[3] == calls[2]
    assert len({str(p) for p in calls}) == 5


@pytest.mark.slow
def test_workers_that_start_together_make_the_tables_once(tmp_path):
    url = f"sqlite:///{tmp_path}/new.db"
    script = (
        "import sys, time, bayesnet.bo as bo\n"
        "import bayesnet.bo.minimize\n"
        "time.sleep(max(0.0, float(sys.argv[2]) - time.time()))\n"
        "bo.minimize(lambda p: p['x'], {'x': (0.0, 1.0)}, 'random', 6, sys.argv[1])\n"
    )
    start = str(time.time() + 12)
    workers = [
        subprocess.Popen([sys.executable, "-c", script, url, start], stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    said = [w.communicate(timeout=240)[1].decode() for w in workers]
    assert [w.returncode for w in workers] == [0, 0, 0], said
    trials = optuna.load_study(storage=url, study_name="bayesnet").trials
    assert sum(t.state == TrialState.COMPLETE for t in trials) == 6


def test_the_first_line_says_how_ranges_were_understood(caplog):
    space = {"temp": (20, 90), "flow": (20.0, 90.0)}
    study = minimize(lambda p: p["temp"] + p["flow"], space, "random", 1)
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("bayesnet")]
    assert lines[0] == "Searched are temp (whole numbers, 20 to 90), flow (real, 20.0 to 90.0)."
    assert caplog.records[0].levelname == "WARNING"  # seen without any set-up
    assert isinstance(study.best_params["temp"], int)
    assert isinstance(study.best_params["flow"], float)
