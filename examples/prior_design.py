"""Design a prior by what functions look like: state a process, match a network, judge, look."""

# %%
import os
import tempfile
from pathlib import Path

import jax
import matplotlib
import numpy as np

matplotlib.use("Agg")  # leave this out in a notebook
import bayesnet as bn

SMALL = os.environ.get("BAYESNET_EXAMPLE_SMALL") == "1"  # how the tests run it
OUT = Path(tempfile.mkdtemp()) if SMALL else Path("prior_design_output")
OUT.mkdir(exist_ok=True)

# %% [markdown]
# ## State a process
# Coordinates: inputs and targets at mean 0 and sd 1. Say how quickly functions change
# (lengthscale), how smooth they are (kernel), how large (outputscale, a variance).
# Processes add and multiply: here a slow smooth trend and a small rough part.

# %%
trend = bn.GaussianProcess("rbf", lengthscale=1.0, outputscale=0.9)
rough = bn.GaussianProcess("matern32", lengthscale=0.3, outputscale=0.1)
target = trend + rough

# %% [markdown]
# ## Match a network
# Weights N(0, 1) say nothing of this. Matching tunes the scales of the weight prior until its
# functions look like draws of the process, on points drawn from the region that you care about.

# %%
prior = bn.NetworkPrior(bn.MLP(hidden=(10,) if SMALL else (50, 50), activation="tanh"), in_dim=1)
box = bn.Box([-2.0], [2.0])
match = bn.match_prior(prior, target, inputs=box, steps=50 if SMALL else 400, seed=0)
print(
    f"held-out distance {match.distance_before:.4f} -> {match.distance_after:.4f} in "
    f"{match.seconds:.1f} s (and {match.compile_seconds:.1f} s of compilation)"
)

# %% [markdown]
# ## Judge it by measures that it was not trained on
# The floor is what two sets of draws of the target itself score. A gap to it is what this
# network with this weight law cannot do: try other activations or more width.

# %%
print(match.report(num_draws=200 if SMALL else 1000))

# %% [markdown]
# ## Look

# %%
figure = match.prior.show(target, x=box)
figure.savefig(OUT / "matched.png", dpi=150)
figure = prior.show(target, x=box)
figure.savefig(OUT / "unmatched.png", dpi=150)
print(f"functions drawn to {OUT}")

# %% [markdown]
# ## Your own process
# Anything with `sample(key, x, num_samples) -> (s, n, m)` is a target: a simulator, a bank of old
# experiments. It need not be JAX code. Here, oscillations of unknown frequency and phase.


# %%
class Oscillations:
    def sample(self, key, x, num_samples):
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
        size, phase = rng.normal(size=(num_samples, 1)), rng.uniform(0, 2 * np.pi, (num_samples, 1))
        frequency = np.exp(rng.normal(0.5, 0.3, (num_samples, 1)))
        return (size * np.sin(frequency * np.asarray(x)[:, 0] + phase))[..., None]


waves = bn.match_prior(prior, Oscillations(), inputs=box, steps=50 if SMALL else 400, seed=0)
print(f"oscillations: {waves.distance_before:.4f} -> {waves.distance_after:.4f}")
waves.prior.show(Oscillations(), x=box).savefig(OUT / "oscillations.png", dpi=150)

# %% [markdown]
# What a weight prior cannot do, it cannot be matched to: independent Gaussian weights are
# symmetric in sign, so functions that always increase are out of reach. The report and the
# picture tell such limits before any data do.
