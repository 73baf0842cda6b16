"""Bayesian optimization with a network posterior: a study that survives crashes, and a BoTorch loop."""

# %%
import os
import tempfile
from pathlib import Path

import numpy as np
import optuna

import bayesnet as bn

SMALL = os.environ.get("BAYESNET_EXAMPLE_SMALL") == "1"  # how the tests run it
optuna.logging.set_verbosity(optuna.logging.WARNING)

# In small mode: short chains, and a prior that needs no matching.
method = bn.HMC(chains=2, warmup=20, draws=20, max_steps=8) if SMALL else "hmc"


def prior(columns):
    return bn.NetworkPrior(bn.MLP((10,)), in_dim=columns) if SMALL else None


# %% [markdown]
# ## An experiment
# Yield of a reaction (noisy, to be maximised) by temperature, minutes and catalyst.

# %%
rng = np.random.default_rng(0)


def experiment(params):
    best = {"A": 70.0, "B": 45.0}[params["catalyst"]]
    heat = np.exp(-(((params["temperature"] - best) / 15) ** 2))
    wait = 1 - np.exp(-params["minutes"] / 20)
    return 90 * heat * wait + rng.normal(0, 1)


space = {"temperature": (20.0, 90.0), "minutes": (1, 60), "catalyst": ["A", "B"]}

# %% [markdown]
# ## A study in SQLite
# Each trial is stored as it ends. Run the same call again, after a crash or from a second
# terminal, and the study goes on: `n_trials` counts over workers and restarts.

# %%
folder = tempfile.TemporaryDirectory()
storage = f"sqlite:///{Path(folder.name) / 'reaction.db'}"
start = 3 if SMALL else 6
settings = dict(
    surrogate=method,
    prior=prior(4),  # two numbers and two choices, one column each
    storage=storage,
    directions="maximize",
    n_startup_trials=start,
    seed=0,
)
study = bn.bo.minimize(experiment, space, n_trials=start + 1, **settings)
print(f"after {len(study.trials)} trials: {study.best_value:.1f} at {study.best_params}")

study = bn.bo.minimize(experiment, space, n_trials=start + (2 if SMALL else 14), **settings)
print(f"resumed, {len(study.trials)} trials: {study.best_value:.1f} at {study.best_params}")
folder.cleanup()

# %% [markdown]
# It is an Optuna study: `study.trials_dataframe()`, `optuna.visualization`, the dashboard.
#
# ## Your own loop with BoTorch
# `Surrogate` is a BoTorch model; acquisition functions and `optimize_acqf` take it as it is.
# Its posterior is a fixed set of functions, so sampling noise does not move the optimum about.

# %%
import torch
from botorch.acquisition import qLogExpectedImprovement
from botorch.models.transforms import Normalize, Standardize
from botorch.optim import optimize_acqf

bounds = torch.tensor([[-5.0, 0.0], [10.0, 15.0]], dtype=torch.float64)


def branin(X):
    a, b = X[:, :1], X[:, 1:]
    c = b - 5.1 / (4 * torch.pi**2) * a**2 + 5 / torch.pi * a - 6
    return -(c**2 + 10 * (1 - 1 / (8 * torch.pi)) * torch.cos(a) + 10)


X = bounds[0] + (bounds[1] - bounds[0]) * torch.quasirandom.SobolEngine(
    2, scramble=True, seed=0
).draw(6, dtype=torch.float64)
Y = branin(X)
model = None
for step in range(2 if SMALL else 12):
    model = bn.surrogates.Surrogate(
        X,
        Y,
        prior=prior(2),
        inference=bn.HMC(chains=2, warmup=20, draws=20, max_steps=8)
        if SMALL
        else bn.HMC(chains=2, warmup=300, draws=128),
        input_transform=Normalize(2, bounds=bounds),  # declared once, so coordinates never drift
        outcome_transform=Standardize(1),
        init=model,  # chains go on from those of the last step
        warn=False,  # short chains are enough to choose a next point
    )
    candidate, _ = optimize_acqf(
        qLogExpectedImprovement(model, best_f=Y.max()),
        bounds=bounds,
        q=1,
        num_restarts=2 if SMALL else 6,
        raw_samples=16 if SMALL else 128,
    )
    X, Y = torch.cat([X, candidate]), torch.cat([Y, branin(candidate)])
    print(f"step {step + 1}: value {-Y[-1].item():.2f}, best {-Y.max().item():.3f} (optimum 0.398)")
