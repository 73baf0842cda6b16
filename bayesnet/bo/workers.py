"""Which process runs a trial, and whether it still lives.

Optuna's heartbeat finds a dead worker after a grace period, on any machine. On the machine where
it ran the kernel knows at once: a trial carries the process that runs it, and a study that is
started again need not wait.
"""

from __future__ import annotations

import os
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

WORKER_KEY = "bayesnet:worker"
# A trial whose worker dies this often is given up: it may be what kills the worker.
MAX_RETRIES = 3


@lru_cache(maxsize=1)
def _machine() -> str | None:
    """This boot of this machine and this process namespace; None where unknown (not Linux)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When a process started, in ticks since boot; None if there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]  # a zombie is dead


def this_worker() -> list[Any] | None:
    """What identifies this process: [machine, pid, start]; None where it cannot be told."""
    machine = _machine()
    return None if machine is None else [machine, os.getpid(), _started(os.getpid())]


def mark(study: Study, trial_id: int) -> None:
    """Write on a trial that this process runs it."""
    worker = this_worker()
    if worker is not None:
        study._storage.set_trial_system_attr(trial_id, WORKER_KEY, worker)


def is_dead(worker: Any) -> bool:
    """Whether `worker` surely has ended; False where that cannot be told from here."""
    if not worker or worker[0] != _machine():
        return False
    return _started(int(worker[1])) != worker[2]


def retry_callback(max_retry: int | None = MAX_RETRIES) -> Any:
    """What to do with the trial of a dead worker: queue it to be run again, `max_retry` times at most."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental in Optuna 5
        retry = RetryHeartbeatStaleTrialCallback(max_retry=max_retry)

    def again(study: Study, trial: FrozenTrial) -> None:
        # The copy must not carry the mark of the process that died.
        trial.system_attrs.pop(WORKER_KEY, None)
        retry(study, trial)

    return again


def retire_dead_trials(study: Study) -> None:
    """Fail the running trials of dead workers of this machine, and queue them again."""
    retry = retry_callback()
    for trial in study.get_trials(deepcopy=True, states=(TrialState.RUNNING,)):
        if not is_dead(trial.system_attrs.get(WORKER_KEY)):
            continue
        try:
            failed = study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:
            continue  # another worker was faster
        if failed:
            retry(study, trial)
