"""Bring your own network: an equinox module, a flax module, or a pair of functions."""

# %%
import os
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import bayesnet as bn

SMALL = os.environ.get("BAYESNET_EXAMPLE_SMALL") == "1"  # how the tests run it
method = bn.HMC(chains=2, warmup=50, draws=50, max_steps=16) if SMALL else bn.HMC(chains=4)
steps = 20 if SMALL else 400

rng = np.random.default_rng(0)
X = rng.uniform(-3, 3, (60, 1))
y = np.sin(2 * X[:, 0]) + 0.3 * X[:, 0] + 0.1 * rng.normal(size=60)

# %% [markdown]
# ## An equinox module
# It maps one row (d,) to (m,). Here with a skip connection, which `bn.MLP` does not have.


# %%
class Skip(eqx.Module):
    first: eqx.nn.Linear
    second: eqx.nn.Linear
    last: eqx.nn.Linear

    def __init__(self, width, key):
        keys = jax.random.split(key, 3)
        self.first = eqx.nn.Linear(1, width, key=keys[0])
        self.second = eqx.nn.Linear(width, width, key=keys[1])
        self.last = eqx.nn.Linear(width, 1, key=keys[2])

    def __call__(self, x):
        h = jnp.tanh(self.first(x))
        return self.last(h + jnp.tanh(self.second(h)))


module = Skip(10 if SMALL else 30, jax.random.key(0))
target = bn.GaussianProcess("rbf", lengthscale=0.6)
prior = bn.NetworkPrior(module, in_dim=1)
match = bn.match_prior(prior, target, inputs=bn.Box([-2.0], [2.0]), steps=steps)
posterior = bn.fit(match.prior, X, y, inference=method, seed=0, warn=not SMALL)
prediction = posterior.predict(X)
print(f"equinox: RMSE {np.sqrt(np.mean((prediction.mean[:, 0] - y) ** 2)):.3f}, noise sd is 0.1")

# %% [markdown]
# A saved posterior holds the weights, not the code of a foreign network: hand it back to load.

# %%
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "skip.bayesnet"
    posterior.save(path)
    again = bn.load(path, network=Skip(10 if SMALL else 30, jax.random.key(1)))
assert np.allclose(again.predict(X).mean, prediction.mean)
print("loaded with the module handed back: the same predictions")

# %% [markdown]
# ## A flax module
# It maps a batch (n, d) to (n, m). Layers with running statistics are refused by name.

# %%
from flax import linen


class FlaxNetwork(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.tanh(linen.Dense(10 if SMALL else 30)(x))
        return linen.Dense(1)(x)


posterior = bn.fit(
    bn.NetworkPrior(FlaxNetwork(), in_dim=1), X, y, inference=method, seed=0, warn=not SMALL
)
print(f"flax: RMSE {np.sqrt(np.mean((posterior.predict(X).mean[:, 0] - y) ** 2)):.3f}")

# %% [markdown]
# ## A pair of functions
# `init(key) -> parameters` and `apply(parameters, x) -> (n, m)`: any model that JAX can
# differentiate. Here a damped oscillation: five parameters with a meaning, and their posterior.


# %%
def init(key):
    return {"size": jnp.ones(2), "rate": jnp.zeros(()), "phase": jnp.zeros(2)}


def apply(params, x):
    t = x[:, :1]
    wave = jnp.sin(jnp.exp(params["rate"]) * 2 * t + params["phase"][0])
    return params["size"][0] * wave + params["size"][1] * t + params["phase"][1]


posterior = bn.fit(
    bn.NetworkPrior((init, apply), in_dim=1), X, y, inference=method, seed=0, warn=not SMALL
)
print(f"functions: RMSE {np.sqrt(np.mean((posterior.predict(X).mean[:, 0] - y) ** 2)):.3f}")
