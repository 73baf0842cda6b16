"""Fit a table and trust the numbers: prior, fit, uncertainty, diagnostics, save and load.

Run it whole (`python examples/fit_a_table.py`) or cell by cell in an editor that knows `# %%`.
"""

# %%
import os
import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

import bayesnet as bn

SMALL = os.environ.get("BAYESNET_EXAMPLE_SMALL") == "1"  # how the tests run it

# %% [markdown]
# ## The data
# Arrays or data frames, in their own units: `fit` standardises inside.

# %%
X, y = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
X = X[["bmi", "bp", "s5"]]
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=0)
if SMALL:
    X_train, y_train = X_train[:40], y_train[:40]

# %% [markdown]
# ## The prior, as functions
# In scaled coordinates (every column at mean 0, sd 1): smooth functions that change over a few
# standard deviations of the inputs. A law instead of a number lets the data choose.

# %%
target = bn.GaussianProcess("matern52", lengthscale=bn.LogNormal(np.log(2.5), 0.5))
network = bn.MLP(hidden=(10,) if SMALL else (50, 50), activation="tanh")

# %% [markdown]
# ## Fit
# A bare network and a target: its weight prior is matched to the target, then conditioned by HMC.

# %%
method = bn.HMC(chains=2, warmup=50, draws=50, max_steps=16) if SMALL else bn.HMC(chains=4)
posterior = bn.fit(network, X_train, y_train, target=target, inference=method, seed=0)

# %% [markdown]
# ## Can it be trusted?
# R-hat and effective sample sizes of function values, near the data and away from them.

# %%
print(posterior.diagnostics())

# %% [markdown]
# ## Predict
# `epistemic_std` would shrink with more data, `aleatoric_std` (noise) would not.

# %%
prediction = posterior.predict(X_test)
low, high = prediction.interval(0.9)
for i in range(3):
    print(
        f"patient {i}: {prediction.mean[i, 0]:.0f}, 90 % of the time between {low[i, 0]:.0f} and "
        f"{high[i, 0]:.0f} (model {prediction.epistemic_std[i, 0]:.0f}, "
        f"noise {prediction.aleatoric_std[i, 0]:.0f}); observed {y_test.iloc[i]:.0f}"
    )
inside = (low[:, 0] <= y_test) & (y_test <= high[:, 0])
print(f"90 % intervals hold {inside.mean():.0%} of {len(y_test)} test rows")
print(f"test NLL {-prediction.log_prob(y_test).mean():.3f} (mixture density, units of y)")

# %% [markdown]
# Far from the data the model says that it does not know:

# %%
far = X_train.mean().to_frame().T.to_numpy() + 8 * X_train.std().to_numpy()
print(f"epistemic sd near the data {prediction.epistemic_std.mean():.0f}, far away "
      f"{posterior.predict(far).epistemic_std[0, 0]:.0f}")  # fmt: skip

# %% [markdown]
# ## Save and load
# One file, no pickle: safe to open. Predictions are identical.

# %%
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "diabetes.bayesnet"
    posterior.save(path)
    again = bn.load(path)
assert np.array_equal(again.predict(X_test).mean, prediction.mean)
print("saved and loaded: identical predictions")
