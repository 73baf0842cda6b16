"""`minimize`: a whole study, which a killed process or several workers can share."""

from __future__ import annotations

import logging
import numbers
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, fail_stale_trials
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from bayesnet._errors import InputError, unknown_name
from bayesnet.bo.random_sampler import NumberedRandomSampler
from bayesnet.bo.sampler import BayesNetSampler
from bayesnet.bo.space import Space
from bayesnet.bo.storage import open_study
from bayesnet.bo.trials import patience, retried_numbers, still_running
from bayesnet.bo.workers import WORKER_KEY, mark, retire_dead_trials, retry_callback, this_worker
from bayesnet.inference import PRESETS
from bayesnet.surrogates.checks import TRAINED, names

_log = logging.getLogger(__name__)
# Seconds between two looks at trials that other workers still run.
POLL = 0.5
SURPLUS_KEY = "bayesnet:surplus"
DIRECTIONS = ("minimize", "maximize")


def minimize(
    objective: Callable[[dict[str, Any]], float],
    space: Any,
    surrogate: Any = "hmc",
    n_trials: int = 50,
    storage: str | BaseStorage | None = None,
    seed: int | None = 0,
    *,
    study_name: str | None = None,
    directions: str | Iterable[str] = "minimize",
    prior: Any = None,
    target: Any = None,
    likelihood: Any = None,
    acquisition: str = "log_nei",
    n_startup_trials: int | None = None,
    callbacks: Iterable[Callable[[Study, FrozenTrial], None]] = (),
    catch: tuple[type[Exception], ...] = (),
    progress: bool = False,
    device: Any = "auto",
) -> Study:
    """Minimise an expensive function of named parameters.

    A study in a database can be run by several processes at once, and goes on where it stopped
    when this is called again with the same `storage` and `study_name`: a trial whose process was
    killed or interrupted is run again with the same parameters.

    Args:
        objective: a dictionary of parameters -> a number. NaN means that the trial failed; an
            exception ends the run unless its type is in `catch`.
        space: name -> `(low, high)`, a list of choices, or an Optuna distribution (log, step). Two
            integers stay integers: `(20, 90)` are whole numbers, `(20.0, 90.0)` real ones. The log
            says at the start how each was understood.
        surrogate: "hmc", "nuts", "sghmc", "ensemble", "exact", "infinite_width", "student_t", "pfn",
            "amortised" (these two up to 101 trials), a method such as `bn.HMC(chains=4)`, "random" (no
            surrogate), or any Optuna sampler.
        n_trials: finished trials of the study in all, over workers and restarts. Returns when
            there are so many, also where other workers run the last of them.
        storage: None (memory), a database URL ("sqlite:///study.db"), or an Optuna storage.
        seed: the same seed gives the same study (one worker, not interrupted).
        study_name: under which a storage keeps it ("bayesnet" if None).
        directions: "minimize" or "maximize".
        prior, target, likelihood, acquisition, n_startup_trials, device: see `BayesNetSampler`.
        callbacks: called with (study, trial) after each trial, as in Optuna.
        progress: show Optuna's progress bar.

    Returns:
        The Optuna study: `best_params`, `best_value`, `trials_dataframe()`.

    Raises:
        InputError: unusable arguments, an objective that returns no number, a storage that cannot be
            opened, more trials than the surrogate takes rows, or a study of that name with another
            space or direction.
    """
    if not callable(objective):
        raise InputError(f"objective must be a function of a dictionary, got {objective!r}.")
    if not isinstance(n_trials, numbers.Integral) or n_trials < 1:
        raise InputError(f"n_trials must be a positive integer, got {n_trials!r}.")
    space = Space.of(space)
    direction = _direction(directions)
    sampler = _sampler(
        surrogate,
        space=space,
        seed=seed,
        prior=prior,
        target=target,
        likelihood=likelihood,
        acquisition=acquisition,
        n_startup_trials=n_startup_trials,
        device=device,
    )
    limit = sampler.max_trials if isinstance(sampler, BayesNetSampler) else None
    if limit is not None and n_trials > limit + 1:
        raise InputError(
            f"The weights of this surrogate take tables of at most {limit} rows, and n_trials={n_trials} asks for "
            "more: use n_trials up to one more than that, or a surrogate such as 'hmc'."
        )
    study = open_study(storage, study_name, direction, sampler, space)
    # At a level that is seen without any set-up: (20, 90) is easily meant as real numbers.
    _log.warning(space.describe())
    _Run(objective, space, int(n_trials), tuple(callbacks), catch, progress).finish(study)
    return study


class _Run:
    """The part of one process in a study."""

    def __init__(
        self,
        objective: Callable[[dict[str, Any]], float],
        space: Space,
        n_trials: int,
        callbacks: tuple[Any, ...],
        catch: tuple[type[Exception], ...],
        progress: bool,
    ) -> None:
        self.objective, self.space, self.n_trials = objective, space, n_trials
        self.callbacks, self.catch, self.progress = callbacks, catch, progress
        self.done = False
        self.interrupted: int | None = None

    def finish(self, study: Study) -> None:
        """Run trials, and wait for those of others, until the study is complete."""
        while True:
            retire_dead_trials(study)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # experimental in Optuna 5
                fail_stale_trials(study)
            todo = self._todo(study)
            if todo:
                self.done = False
                try:
                    study.optimize(
                        self._evaluate,
                        n_trials=todo,
                        callbacks=[*self.callbacks, self._stop_when_done],
                        catch=self.catch,
                        show_progress_bar=self.progress,
                    )
                except KeyboardInterrupt:
                    self._queue_again(study)
                    raise
                if study._stop_flag and not self.done:
                    return  # stopped by a callback of the user
            elif self._awaited(study):
                time.sleep(POLL)
            else:
                return

    def _queue_again(self, study: Study) -> None:
        """Have the trial that Ctrl-C ended run again, with the same parameters: nothing is wrong with it."""
        trial = next((t for t in study.get_trials() if t.number == self.interrupted), None)
        if trial is not None and trial.state == TrialState.FAIL:
            retry_callback(max_retry=None)(study, trial)

    def _counted(self, study: Study) -> list[FrozenTrial]:
        """The trials that make up `n_trials`: not those run again, nor those beyond the number."""
        trials = study.get_trials(deepcopy=False)
        again = retried_numbers(trials)
        return [t for t in trials if t.number not in again and SURPLUS_KEY not in t.system_attrs]

    def _todo(self, study: Study) -> int:
        """How many trials nobody has begun."""
        counted = self._counted(study)
        waiting = sum(t.state == TrialState.WAITING for t in counted[: self.n_trials])
        return waiting + max(self.n_trials - len(counted), 0)

    def _stop_when_done(self, study: Study, trial: FrozenTrial) -> None:
        if self._todo(study) == 0:
            self.done = True
            study.stop()

    def _awaited(self, study: Study) -> bool:
        """Whether another process is running one of the trials, as far as can be told."""
        trials = self._counted(study)
        limit, own = patience(trials), [None, this_worker()]
        return any(
            still_running(t, limit) and t.system_attrs.get(WORKER_KEY) not in own for t in trials
        )

    def _evaluate(self, trial: Trial) -> float:
        if not isinstance(trial.study.sampler, BayesNetSampler):  # which has done it
            mark(trial.study, trial._trial_id)
        before = [t for t in self._counted(trial.study) if t.number < trial.number]
        if len(before) >= self.n_trials:
            # Two workers began the last trial at the same moment; this is the later one.
            trial.storage.set_trial_system_attr(trial._trial_id, SURPLUS_KEY, True)
            raise optuna.TrialPruned("The study has its trials already.")
        try:
            params = {name: _ask(trial, name, d) for name, d in self.space.distributions.items()}
            return _as_number(self.objective(params))
        except KeyboardInterrupt:
            self.interrupted = trial.number
            raise


def _ask(trial: Trial, name: str, dist: Any) -> Any:
    if isinstance(dist, CategoricalDistribution):
        return trial.suggest_categorical(name, dist.choices)
    ask = trial.suggest_float if isinstance(dist, FloatDistribution) else trial.suggest_int
    return ask(name, dist.low, dist.high, step=dist.step, log=dist.log)


def _as_number(value: Any) -> float:
    """A Python float from what the objective returned, NaN included."""
    item = value
    if hasattr(value, "item") and getattr(value, "size", None) is not None:
        size = value.numel() if hasattr(value, "numel") else value.size
        item = value.item() if size == 1 else value
    if not isinstance(item, numbers.Real):
        raise InputError(
            f"The objective must return one number, got {type(value).__name__}: {value!r}."
        )
    return float(item)


def _direction(directions: str | Iterable[str]) -> str:
    names = [directions] if isinstance(directions, str) else list(directions)
    if len(names) != 1:
        raise InputError(f"One objective is optimized, got {len(names)} directions.")
    if names[0] not in DIRECTIONS:
        raise unknown_name("direction", names[0], DIRECTIONS)
    return names[0]


def _sampler(surrogate: Any, *, seed: int | None, **options: Any) -> BaseSampler:
    if isinstance(surrogate, BaseSampler):
        return surrogate
    if isinstance(surrogate, str):
        if surrogate == "random":
            return NumberedRandomSampler(seed=seed)
        if surrogate not in (*PRESETS, *TRAINED):
            raise unknown_name("surrogate", surrogate, [*names(), "random"])
    return BayesNetSampler(surrogate, seed=seed, **options)
