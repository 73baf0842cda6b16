"""Classification by a Gaussian process, as a reference for networks: sampled, not approximated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from _processes import rbf
from _studies import convergence
from scipy.linalg import solve_triangular

import bayesnet as bn


class WhitenedValues(eqx.Module):
    """Values of K independent processes at n rows as a prior: f = L z; a row of x is its index."""

    chol: jax.Array
    out_dim: int = eqx.field(static=True)
    in_dim: int = eqx.field(static=True, default=1)
    units: str = eqx.field(static=True, default="data")

    @property
    def latent_size(self) -> int:
        return self.chol.shape[0] * self.out_dim

    def values(self, z: jax.Array) -> jax.Array:
        return self.chol @ z.reshape(-1, self.out_dim)

    def apply(self, z: jax.Array, x: jax.Array) -> jax.Array:
        return self.values(z)[jnp.round(x[:, 0]).astype(jnp.int32)]

    def encode(self, params: Any) -> jax.Array:
        return jnp.linalg.solve(self.chol, params).ravel()

    def sample(self, key: Any, x: jax.Array, num_samples: int) -> jax.Array:
        z = jax.random.normal(key, (num_samples, self.latent_size))
        return jax.vmap(lambda a: self.apply(a, x))(z)


def pixel_process(
    x: np.ndarray, y: np.ndarray, lengthscale: float, variance: float, *, seed: int
) -> tuple[Callable[[np.ndarray], Any], dict[str, float]]:
    """The posterior of one RBF process a logit: a function that predicts, and its convergence.

    HMC on the whitened values at the training rows; at new rows the values given those are
    drawn from their Gaussian, one draw for each posterior draw, row by row.
    """
    matrix = variance * (rbf(x, x, lengthscale) + 1e-6 * np.eye(len(x)))
    chol = np.linalg.cholesky(matrix)
    classes = len(np.unique(y))
    prior = WhitenedValues(jnp.asarray(chol, jnp.float32), classes)
    post = bn.fit(
        prior, np.arange(len(x), dtype=float)[:, None], y, likelihood=bn.CategoricalLikelihood(),
        inference=bn.HMC(warmup=250, draws=150, max_steps=128), seed=seed, warn=False,
    )  # fmt: skip
    z = np.asarray(post.split()[0], np.float64).reshape(-1, len(x), classes)

    def predict(x_new: np.ndarray) -> Any:
        half = solve_triangular(chol, variance * rbf(x, x_new, lengthscale), lower=True)
        left = np.sqrt(np.maximum(variance - (half**2).sum(0), 0))
        noise = np.random.default_rng(seed).normal(size=(len(z), len(x_new), classes))
        f = np.einsum("tn,stk->snk", half, z, optimize=True) + left[:, None] * noise
        return bn.ClassPrediction(
            post.bound.conditional(post.split()[1], f, None), post.likelihood.classes
        )

    return predict, convergence(post)
