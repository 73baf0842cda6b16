"""Trajectories long enough for tables that are explained almost without noise."""

from __future__ import annotations

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import bayesnet as bn
from bayesnet.data import Scaling, make_data
from bayesnet.inference import _hamiltonian
from bayesnet.inference.hmc import HMCChain
from bayesnet.inference.model import LatentModel

NOISE = 0.004
RNG = np.random.default_rng(3)
COMMON = RNG.normal(size=(16, 1))
# Two columns that are almost one: the sum of their weights is known to 0.001, their difference
# not at all, and no diagonal mass can tell the two directions apart.
X = COMMON + 3e-4 * RNG.normal(size=(16, 2))
Y = COMMON[:, 0] + NOISE * RNG.normal(size=16)
PRIOR = bn.NetworkPrior(bn.MLP(hidden=()), in_dim=2, units="data")
LIKELIHOOD = bn.GaussianLikelihood(NOISE)
FEATURES = np.column_stack([np.ones(16), X / np.sqrt(2)])


def draws(**settings):
    method = bn.HMC(chains=2, warmup=300, draws=500, **settings)
    data = make_data(X, Y[:, None], None, Scaling.identity(2, 1))
    return method.fit(PRIOR, LIKELIHOOD, data, key=jax.random.key(0))


@pytest.fixture(scope="module")
def whole():
    return draws()


def along_axes(post):
    """Draws (c, s, 3) in the axes of the exact posterior, the widest last, in its own sds."""
    exact = oracles.LinearRegression.fit(FEATURES, Y, NOISE**2)
    variances, axes = np.linalg.eigh(exact.cov)
    assert variances[-1] > 1000**2 * variances[0]  # the problem is what it says
    return (post.latents.astype(float) - exact.mean) @ axes / np.sqrt(variances)


def test_pinned_and_free_directions_against_the_closed_form(whole):
    along = along_axes(whole)
    assert np.abs(oracles.z_scores(along, np.zeros(3))).max() < 5
    assert np.abs(oracles.z_scores(along**2, np.ones(3))).max() < 5
    # The default lets trajectories go on as long as this takes.
    assert 256 < whole.stats["num_gradients"].mean() < 1024


def test_trajectories_cut_short_are_a_random_walk(whole):
    def widest(post):
        return float(az.ess(along_axes(post)[..., -1]))

    cut = draws(max_steps=256)
    gradients = [post.stats["num_gradients"].sum() for post in (cut, whole)]
    assert widest(whole) > 40
    assert widest(whole) / gradients[1] > 2 * widest(cut) / gradients[0]


@pytest.mark.slow
@pytest.mark.parametrize(("second_half", "expected"), [(False, 256 * 1e-3), (True, 1.5)])
def test_only_the_first_half_of_the_warm_up_is_held_short(monkeypatch, second_half, expected):
    seen = []

    def transition(self, model, state, key, step_size, path_length):
        seen.append(float(path_length))
        return original(self, model, state, key, step_size, jnp.asarray(1e-3))

    original = HMCChain.transition
    monkeypatch.setattr(HMCChain, "transition", transition)
    data = make_data(X, Y[:, None], None, Scaling.identity(2, 1))
    model = LatentModel(PRIOR, LIKELIHOOD.bind(data.scaling, data.rows), data.rows)
    chain = HMCChain(0.8, 1024)
    tuned = _hamiltonian.Tuning(
        jnp.asarray(1e-3), jnp.ones(3), jnp.asarray(1.5), cold=jnp.asarray(False)
    )
    state = chain.init(model, jnp.zeros(3), tuned)
    row = {"slow": jnp.asarray(False), "ends": jnp.asarray(False), "path": jnp.asarray(second_half)}
    chain.warm(model, state, jax.random.key(0), jnp.asarray(0), row)
    assert seen == [pytest.approx(expected, rel=1e-5)]
