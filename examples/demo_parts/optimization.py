"""Tuning a classifier: Bayesian optimization against random search, same budget, same start."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from sklearn.datasets import load_digits
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

import bayesnet as bn

SPACE = {
    "gamma": optuna.distributions.FloatDistribution(1e-5, 10.0, log=True),
    "C": optuna.distributions.FloatDistribution(1e-4, 1e4, log=True),
    "features": optuna.distributions.IntDistribution(20, 200),
}
# Small chains, as they go on from those of the last step.
LOOP = bn.HMC(chains=2, warmup=150, draws=64, max_steps=64)
DESCRIPTION = (
    "tune kernel logistic regression on 400 images of scikit-learn's digits\n"
    "  (3-fold cross-validated log loss; gamma and C on log scales, number of Nystroem features)"
)


@dataclass
class Outcome:
    """One Bayesian optimization and several random searches from its starting points.

    `values` (t,), `points` (t, 2) of gamma and C; `random_values` (searches, t),
    `random_points` (t, 2) of the first search; `seconds_per_step` of the optimizer
    alone, the median step (the first also matches the prior and compiles).
    """

    values: np.ndarray
    points: np.ndarray
    random_values: np.ndarray
    random_points: np.ndarray
    num_start: int
    seconds_per_step: float


def objective_on(small: bool) -> Callable[[dict[str, Any]], float]:
    """The function to minimise."""
    X, y = load_digits(return_X_y=True)
    X, y = X[: 120 if small else 400], y[: 120 if small else 400]
    folds = StratifiedKFold(3, shuffle=True, random_state=0)

    def objective(params: dict[str, Any]) -> float:
        model = make_pipeline(
            StandardScaler(),
            Nystroem(
                gamma=params["gamma"],
                n_components=min(params["features"], len(X) // 2),
                random_state=0,
            ),
            LogisticRegression(C=params["C"], max_iter=300),
        )
        # One thread: matrices this small only lose to the hand-over between BLAS threads.
        with threadpool_limits(1):
            probabilities = cross_val_predict(model, X, y, cv=folds, method="predict_proba")
        return float(log_loss(y, probabilities))

    return objective


def compare(small: bool, tell: Callable[[str], None]) -> Outcome:
    """Run both; `tell` gets one line a trial."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    objective = objective_on(small)
    num_start, steps, searches = (3, 2, 2) if small else (5, 20, 10)
    spent = [0.0]

    def timed(params: dict[str, Any]) -> float:
        began = time.perf_counter()
        value = objective(params)
        spent[0] += time.perf_counter() - began
        return value

    ends = [(time.perf_counter(), 0.0)]

    def announce(study: Any, trial: Any) -> None:
        ends.append((time.perf_counter(), spent[0]))
        kind = "start" if trial.number < num_start else "step "
        shown = f"gamma {trial.params['gamma']:.1e}, C {trial.params['C']:.1e}"
        tell(f"    {kind} {trial.number + 1:>2}: log loss {trial.value:.4f}"
             f"   best {study.best_value:.4f}   ({shown})")  # fmt: skip

    study = bn.bo.minimize(
        timed,
        SPACE,
        surrogate=bn.HMC(chains=2, warmup=20, draws=20, max_steps=8) if small else LOOP,
        prior=_small_prior() if small else None,
        n_trials=num_start + steps,
        n_startup_trials=num_start,
        seed=0,
        callbacks=[announce],
    )
    wall, of_objective = np.diff(np.array(ends), axis=0).T
    seconds = float(np.median((wall - of_objective)[num_start:]))
    start = study.trials[:num_start]
    tell(f"  {searches} random searches of {steps} more trials from the same starting points ...")
    random = [_random_search(objective, start, steps, seed) for seed in range(searches)]
    return Outcome(
        values=np.array([t.value for t in study.trials]),
        points=_plane(study.trials),
        random_values=np.array([[t.value for t in trials] for trials in random]),
        random_points=_plane(random[0]),
        num_start=num_start,
        seconds_per_step=seconds,
    )


def _random_search(objective: Any, start: list[Any], steps: int, seed: int) -> list[Any]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=100 + seed))
    study.add_trials(start)
    study.optimize(
        lambda trial: objective(
            {
                "gamma": trial.suggest_float("gamma", 1e-5, 10.0, log=True),
                "C": trial.suggest_float("C", 1e-4, 1e4, log=True),
                "features": trial.suggest_int("features", 20, 200),
            }
        ),
        n_trials=steps,
    )
    return study.trials


def _plane(trials: list[Any]) -> np.ndarray:
    return np.array([[t.params["gamma"], t.params["C"]] for t in trials])


def _small_prior() -> Any:
    return bn.NetworkPrior(bn.MLP((10,)), in_dim=len(SPACE))
