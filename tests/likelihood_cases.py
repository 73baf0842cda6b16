"""One table for each likelihood, shared by the tests of all of them."""

from __future__ import annotations

import jax
import numpy as np

import bayesnet as bn
from bayesnet.data import Scaling, make_data

N, D = 6, 2
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, D))
REAL = np.column_stack([100 + 20 * X[:, 0], 0.01 * X[:, 1]]) + RNG.normal(size=(N, 2)) * [5, 0.003]
COUNTS = np.array([[0, 3], [1, 0], [7, 2], [2, 2], [30, 1], [0, 0]])
TWO = np.array(["no", "yes", "yes", "no", "no", "yes"])
THREE = np.array(["b", "a", "c", "c", "b", "a"])
LAW = bn.LogNormal(0.5, 0.7)

# name -> (likelihood, targets, number of network outputs, number of latents)
CASES = {
    "gaussian": (bn.GaussianLikelihood(), REAL, 2, 2),
    "heteroscedastic": (bn.HeteroscedasticLikelihood(), REAL, 4, 0),
    "heteroscedastic by a law": (bn.HeteroscedasticLikelihood(LAW), REAL, 4, 0),
    "student t": (bn.StudentTLikelihood(), REAL, 2, 2),
    "student t, all known": (bn.StudentTLikelihood(3.0, 0.5), REAL, 2, 0),
    "student t, all learned": (bn.StudentTLikelihood(None), REAL, 2, 4),
    "student t by laws": (bn.StudentTLikelihood(LAW, LAW), REAL, 2, 4),
    "laplace": (bn.LaplaceLikelihood(), REAL, 2, 2),
    "laplace, known": (bn.LaplaceLikelihood(2.0), REAL, 2, 0),
    "bernoulli": (bn.BernoulliLikelihood(), TWO, 1, 0),
    "categorical": (bn.CategoricalLikelihood(), THREE, 3, 0),
    "categorical, known noise": (bn.CategoricalLikelihood(label_noise=0.1), THREE, 3, 0),
    "categorical, learned noise": (
        bn.CategoricalLikelihood(label_noise=bn.LogitNormal(-2.0, 0.5)),
        THREE,
        3,
        1,
    ),
    "poisson": (bn.PoissonLikelihood(), COUNTS, 2, 0),
    "poisson, stated rate": (bn.PoissonLikelihood(rate=5.0), COUNTS, 2, 0),
}
LABELS = tuple(name for name in CASES if name.startswith(("bernoulli", "categorical")))
NUMBERS = tuple(name for name in CASES if name not in LABELS)


def bind(likelihood, y, *, x=X, weight=None, y_var=None, missing=False, scaling=None, pad=True):
    """(the likelihood with its classes, bound, data) for a table."""
    likelihood, targets = likelihood.encode(y, missing=missing)
    if scaling is None:
        scaling = Scaling.from_data(x, targets, scale_y=likelihood.scales_targets, weight=weight)
    data = make_data(x, targets, y_var, scaling, weight=weight, pad=pad)
    return likelihood, likelihood.bind(scaling, data.rows), data


def draws(latents, outputs, size, s=4, seed=0):
    """Latents (s, k) and network outputs (s, n, o)."""
    keys = jax.random.split(jax.random.key(seed))
    z = jax.random.normal(keys[0], (s, latents))
    return z, jax.random.normal(keys[1], (s, size, outputs))
