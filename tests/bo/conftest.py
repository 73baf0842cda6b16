from functools import lru_cache

import optuna
import pytest

import bayesnet as bn

# Tiny chains and networks: these tests are about the loop, not about the quality of a fit.
TINY = bn.HMC(chains=1, warmup=40, draws=30, max_steps=16)


@lru_cache
def tiny_prior(in_dim):
    return bn.NetworkPrior(bn.MLP(hidden=(8,)), in_dim=in_dim)


@pytest.fixture
def tiny():
    return {"surrogate": TINY, "prior": tiny_prior(2)}


@pytest.fixture(autouse=True)
def _quiet_optuna():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)
