"""What a sampler reads from the trials of a study, and writes on its own.

Optuna stores parameters only as an objective asks for them, so a proposal is written whole as a
system attribute before the trial runs: other workers count it as pending, and a trial that is
run again after its worker died runs the same proposal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from bayesnet.bo.findings import Findings
from bayesnet.bo.space import Space
from bayesnet.bo.workers import WORKER_KEY, is_dead

PROPOSAL_KEY = "bayesnet:proposal"
# A running trial whose worker cannot be asked after is given up as pending after the larger of
# these: a time, and a multiple of the longest finished trial.
SHORTEST_PATIENCE = timedelta(hours=1)
PATIENCE = 20.0


@dataclass(frozen=True, eq=False)
class History:
    """Encoded trials of a study over one space.

    `x` (n, D), `y` (n,): complete trials; `pending` (p, D): running ones; `failed` (f, D): those
    that failed or were pruned, whose place is known and whose value is not.
    """

    x: np.ndarray
    y: np.ndarray
    pending: np.ndarray
    failed: np.ndarray


def write_proposal(
    study: Study, trial: FrozenTrial, params: Mapping[str, Any], space: Space
) -> None:
    """Store `params` on a trial, in Optuna's internal (numeric) representation."""
    numbers = {
        name: space.distributions[name].to_internal_repr(value) for name, value in params.items()
    }
    study._storage.set_trial_system_attr(trial._trial_id, PROPOSAL_KEY, numbers)


def write_findings(study: Study, trial: FrozenTrial, found: Findings) -> None:
    """Store what was found about the surrogate of a proposal as user attributes, which dashboards show."""
    for name, value in found.attributes().items():
        study._storage.set_trial_user_attr(trial._trial_id, name, value)


def read_proposal(trial: FrozenTrial, distributions: Mapping[str, BaseDistribution]) -> dict:
    """The stored proposal of a trial for these distributions; empty if there is none."""
    stored = trial.system_attrs.get(PROPOSAL_KEY) or {}
    if not all(name in stored and d._contains(stored[name]) for name, d in distributions.items()):
        return {}
    return {name: d.to_external_repr(stored[name]) for name, d in distributions.items()}


def history(study: Study, space: Space, *, but: int) -> History:
    """What is known of a study, without trial number `but`."""
    trials = [t for t in study.get_trials(deepcopy=False) if t.number != but]
    limit = patience(trials)
    retried = retried_numbers(trials)
    rows: dict[str, list[np.ndarray]] = {"done": [], "pending": [], "failed": []}
    values = []
    for trial in trials:
        params = _params(trial, space)
        if params is None:
            continue
        point = space.encode(params)
        if trial.state == TrialState.COMPLETE:
            rows["done"].append(point)
            values.append(trial.value)
        elif still_running(trial, limit):
            rows["pending"].append(point)
        elif trial.state in (TrialState.FAIL, TrialState.PRUNED) and trial.number not in retried:
            rows["failed"].append(point)
    arrays = {k: np.array(v).reshape(len(v), space.columns) for k, v in rows.items()}
    return History(arrays["done"], np.array(values), arrays["pending"], arrays["failed"])


def retried_numbers(trials: Sequence[FrozenTrial]) -> set[int]:
    """Numbers of trials that another trial runs again."""
    return {n for t in trials for n in t.system_attrs.get("retry_history", [])}


def _params(trial: FrozenTrial, space: Space) -> dict[str, Any] | None:
    """The parameters of a trial: asked for, else fixed by `enqueue_trial`, else proposed."""
    known = trial.params
    if trial.state == TrialState.RUNNING and len(known) < len(space.distributions):
        fixed = trial.system_attrs.get("fixed_params", {})
        known = {**read_proposal(trial, space.distributions), **fixed, **known}
    if not all(name in known for name in space.distributions):
        return None
    try:
        legal = all(
            d._contains(d.to_internal_repr(known[name])) for name, d in space.distributions.items()
        )
    except (ValueError, TypeError):
        return None
    return {name: known[name] for name in space.distributions} if legal else None


def patience(trials: Sequence[FrozenTrial]) -> timedelta:
    """How long a running trial is believed in."""
    longest = max((t.duration for t in trials if t.duration is not None), default=timedelta())
    return max(SHORTEST_PATIENCE, PATIENCE * longest)


def still_running(trial: FrozenTrial, limit: timedelta) -> bool:
    """Whether a trial runs, as far as can be told: not for ever if nobody can be asked."""
    if trial.state != TrialState.RUNNING or is_dead(trial.system_attrs.get(WORKER_KEY)):
        return False
    return trial.datetime_start is None or datetime.now() - trial.datetime_start <= limit
