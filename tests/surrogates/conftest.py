"""Surrogates for the tests: most are made of prior draws, so that nothing is sampled or matched."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from botorch.exceptions.warnings import BotorchWarning

import bayesnet as bn
from bayesnet.data import Scaling, make_data
from bayesnet.networks import from_functions
from bayesnet.surrogates import Surrogate

CENTRE = (0.62, 0.37)


@dataclass(frozen=True)
class Factory:
    """Makes a posterior from prior draws, on a table with its own units."""

    def posterior(self, in_dim=2, out_dim=1, draws=24, hidden=(5,), y_var=None, seed=0, **kwargs):
        rng = np.random.default_rng(seed)
        prior = bn.NetworkPrior(bn.MLP(hidden=hidden), in_dim=in_dim, out_dim=out_dim)
        return self.around(prior, rng, draws, y_var, **kwargs)

    def around(self, prior, rng, draws, y_var=None, likelihood=None, scaling=None):
        likelihood = bn.GaussianLikelihood() if likelihood is None else likelihood
        x = rng.uniform(size=(8, prior.in_dim)) * 3 - 1
        y = 5 + 2 * rng.normal(size=(8, prior.out_dim))
        scaling = Scaling.from_data(x, y) if scaling is None else scaling
        variance = None if y_var is None else np.full_like(y, y_var)
        data = make_data(x, y, variance, scaling)
        k = likelihood.bind(data.scaling, data.rows).latent_size
        latents = rng.normal(size=(2, draws // 2, prior.latent_size + k)).astype(np.float32)
        return bn.FunctionDraws(prior, likelihood, data, latents)

    def surrogate(self, dtype=torch.float64, **kwargs):
        return Surrogate.from_posterior(self.posterior(**kwargs), dtype=dtype)

    def bumps(self, draws=32, spread=0.05, seed=0):
        """A surrogate of draws -|x - c|^2 with c near `CENTRE`: a known optimum."""
        network = from_functions(
            lambda key: {"c": jnp.zeros(2)},
            lambda p, x: -jnp.sum((x - jnp.array(CENTRE) - spread * p["c"]) ** 2, -1)[:, None],
        )
        prior = bn.NetworkPrior(network, in_dim=2, out_dim=1)
        posterior = self.around(
            prior, np.random.default_rng(seed), draws, scaling=Scaling.identity(2, 1)
        )
        return Surrogate.from_posterior(posterior)


@pytest.fixture(scope="session")
def make():
    return Factory()


@pytest.fixture(scope="session")
def surrogate(make):
    """Two inputs, one output, 24 draws, float64."""
    return make.surrogate()


@pytest.fixture(scope="session")
def table():
    """A table that a small network can fit: X (10, 2) and Y (10, 1), float64."""
    generator = torch.Generator().manual_seed(1)
    X = torch.rand(10, 2, generator=generator, dtype=torch.double)
    Y = 10 - 20 * ((X - torch.tensor([0.6, 0.4])) ** 2).sum(-1, keepdim=True)
    return X, Y


@pytest.fixture(scope="session")
def settings():
    """Arguments that make a fit short."""
    return {
        "prior": bn.NetworkPrior(bn.MLP(hidden=(8,)), in_dim=2, out_dim=1),
        "inference": bn.HMC(chains=2, warmup=50, draws=32),
        "warn": False,
    }


@pytest.fixture(scope="session")
def fitted(table, settings):
    """A surrogate that was really fitted, by two short chains."""
    return Surrogate(*table, **settings)


@pytest.fixture(autouse=True)
def _quiet_botorch():
    """Warnings on data scaling and root caching are about Gaussian processes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BotorchWarning)
        yield
