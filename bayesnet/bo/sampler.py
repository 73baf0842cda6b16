"""`BayesNetSampler`: an Optuna sampler that asks a network surrogate."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.search_space import intersection_search_space
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial
from scipy.stats import qmc

from bayesnet._errors import InputError, UnsupportedError
from bayesnet._renamed import renamed
from bayesnet.bo.acquisition import Problem, check_acquisition
from bayesnet.bo.optimise import Search
from bayesnet.bo.random_sampler import state_of, uniform
from bayesnet.bo.space import Space
from bayesnet.bo.state import LoopSettings, LoopState
from bayesnet.bo.suggest import propose
from bayesnet.bo.trials import (
    History,
    history,
    read_proposal,
    write_findings,
    write_proposal,
)
from bayesnet.bo.workers import mark
from bayesnet.surrogates.scope import torch_scope
from bayesnet.surrogates.tensors import as_tensor

# The most recent failed trials that are kept away from (each is a point for every draw).
AVOIDED = 20


@renamed(inference="surrogate")
class BayesNetSampler(BaseSampler):
    """Bayesian optimization with a network surrogate, as a sampler of Optuna.

    The first trials are points of a scrambled Sobol sequence; later ones maximise an acquisition
    function of a surrogate fitted to all complete trials. Running trials of other workers are
    pending points; failed and pruned trials are kept away from, without a value. Several objectives
    raise. Conditional parameters (not in every complete trial) are drawn at random.

    What the surrogate of a proposal was like is kept in the user attributes of its trial, which Optuna's
    dashboard and `study.trials_dataframe()` show: "surrogate:rhat" and "surrogate:ess" (the worst R-hat and
    least effective sample size of function values at the tried points), "surrogate:divergences" of
    "surrogate:draws", "surrogate:runs" (how often chains were run on until they agreed, at most 4),
    "surrogate:noise_std", and "surrogate:problems" in words. The log has a warning the first time that each
    problem is found.

    Args:
        surrogate: "hmc", "nuts", "pfn", or a method such as `bn.HMC(chains=4)`.
        space: what `minimize` takes; if None it is read off the complete trials, and the first
            trial is random.
        prior, target: as for `bn.fit`; the default prior is matched once.
        likelihood: as for `bn.fit`; if None, Gaussian noise under a small law (median 0.018 of the spread
            of the values), with which rough functions are searched. For noisy objectives pass a
            wider one, such as `bn.GaussianLikelihood()` (median 0.14). Trained weights ("pfn",
            "amortised") keep the law that they were trained on.
        acquisition: "log_nei", "log_ei", "ucb" or "thompson".
        n_startup_trials: complete trials before the surrogate is asked; two for each parameter,
            at least 5 and at most 20, if None.
        seed: proposals depend on it, on the trial's number and on the trials so far; random if
            None. (Chains go on from trial to trial, so a study that is loaded again goes on with
            equally good proposals, not the very same ones.)
        beta, num_restarts, raw_samples: as for `suggest`.
        device: where JAX runs.

    Raises `InputError` for unknown names and unusable spaces, `UnsupportedError` for Thompson sampling
    with a surrogate that draws no functions.
    """

    def __init__(
        self,
        surrogate: Any = "hmc",
        *,
        space: Any = None,
        prior: Any = None,
        target: Any = None,
        likelihood: Any = None,
        acquisition: str = "log_nei",
        n_startup_trials: int | None = None,
        seed: int | None = None,
        beta: float = 4.0,
        num_restarts: int = 4,
        raw_samples: int = 256,
        device: Any = "auto",
    ) -> None:
        if n_startup_trials is not None and n_startup_trials < 1:
            raise InputError(f"n_startup_trials must be at least 1, got {n_startup_trials}.")
        # Unknown names are refused here.
        self._settings = LoopSettings(surrogate, prior, target, likelihood, device=device)
        self._space = None if space is None else Space.of(space)
        self._acquisition = check_acquisition(acquisition)
        if acquisition == "thompson" and not self._settings.draws_functions:
            raise UnsupportedError(
                "Thompson sampling needs functions drawn from the model, which this surrogate does not give: "
                "use another acquisition, or a surrogate such as 'hmc'."
            )
        self._n_startup = n_startup_trials
        self._seed = state_of(seed)
        self._beta = beta
        self._search = Search(num_restarts, raw_samples)
        self._lock = threading.Lock()
        self._loop: _Loop | None = None

    @property
    def max_trials(self) -> int | None:
        """The most complete trials that the surrogate can be fitted to, or None."""
        return self._settings.max_rows

    def __getstate__(self) -> dict[str, Any]:
        """Settings only: chains warm up again in another process."""
        state = self.__dict__.copy()
        del state["_lock"]
        state["_loop"] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def reseed_rng(self) -> None:
        """Optuna calls this in parallel workers; proposals already differ by trial number."""

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Mark the trial with the process that runs it."""
        self._raise_error_if_multi_objective(study)
        mark(study, trial._trial_id)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The given space, or the parameters that all complete trials share."""
        if self._space is not None:
            found = self._space.distributions
        else:
            found = intersection_search_space(study.get_trials(deepcopy=False))
        return {name: dist for name, dist in found.items() if not dist.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The proposal of a trial, stored on it before it is returned."""
        self._raise_error_if_multi_objective(study)
        if not search_space:
            return {}
        stored = read_proposal(trial, search_space)
        if stored:  # a trial that is run again
            return stored
        space = Space(dict(search_space))
        seen = history(study, space, but=trial.number)
        if len(seen.y) < self._startup(space):
            params = space.decode(space.project(self._sobol(space, trial.number)[None])[0])
        else:
            params = self._from_surrogate(study, trial, space, seen)
        write_proposal(study, trial, params, space)
        return params

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """A uniform draw, for parameters outside the relative space."""
        self._raise_error_if_multi_objective(study)
        return uniform(self._seed, trial.number, param_name, param_distribution)

    def _startup(self, space: Space) -> int:
        if self._n_startup is not None:
            return self._n_startup
        return max(5, min(2 * len(space.distributions), 20))

    def _sobol(self, space: Space, number: int) -> np.ndarray:
        """Point `number` of the scrambled sequence, (D,)."""
        engine = qmc.Sobol(space.columns, scramble=True, seed=self._seed)
        if number:
            engine.fast_forward(number)
        return engine.random(1)[0]

    def _from_surrogate(
        self, study: Study, trial: FrozenTrial, space: Space, seen: History
    ) -> dict[str, Any]:
        maximize = study.direction == StudyDirection.MAXIMIZE
        seed = int(np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0] >> 2)
        with self._lock, torch_scope(seed):
            if self._loop is None or not self._loop.serves(study, space):
                settings = replace(self._settings, maximize=maximize)
                self._loop = _Loop(study, space, LoopState(space.bounds, settings))
            state = self._loop.fitted(seen, seed)
            write_findings(study, trial, state.findings)
            point = self._propose(state, space, seen, seed)
            # Fitting took a while: workers may have stored proposals of their own meanwhile.
            now = history(study, space, but=trial.number)
            if not np.array_equal(now.pending, seen.pending):
                point = self._propose(state, space, now, seed)
        return space.decode(point)

    def _propose(self, state: LoopState, space: Space, seen: History, seed: int) -> np.ndarray:
        model: Any = state.model
        problem = Problem(
            model,
            tried=model.train_inputs[0],
            maximize=state.settings.maximize,
            beta=self._beta,
            seed=seed,
        )
        away = as_tensor(np.concatenate([seen.pending, seen.failed[-AVOIDED:]]))
        if len(away):
            problem = problem.after(away)
        points = propose(
            problem,
            self._acquisition,
            as_tensor(space.bounds),
            1,
            self._search,
            space=space,
            avoid=as_tensor(seen.failed),
        )
        return points[0].numpy()


class _Loop:
    """The surrogate of one study over one space, kept between its trials."""

    def __init__(self, study: Study, space: Space, state: LoopState) -> None:
        self._key = self._describe(study, space)
        self._state = state
        self._table: History | None = None

    @staticmethod
    def _describe(study: Study, space: Space) -> tuple[Any, ...]:
        # A number tells studies of one storage apart, the storage two of the same number.
        return study._study_id, id(study._storage), tuple(space.distributions.items())

    def serves(self, study: Study, space: Space) -> bool:
        return self._key == self._describe(study, space)

    def fitted(self, seen: History, seed: int) -> LoopState:
        """The state fitted to `seen`; as it is if no trial was completed since."""
        last = self._table
        if last is None or not (np.array_equal(last.x, seen.x) and np.array_equal(last.y, seen.y)):
            self._state = self._state.update(seen.x, seen.y, seed=seed)
            self._table = seen
        return self._state
