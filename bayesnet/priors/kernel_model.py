"""One view of every kernel prior for exact methods: matrices in float64, hyper-parameters as a tree.

A `bn.GaussianProcess` brings hyper-parameters that may be random; any other kernel prior has just
its `kernel(x1, x2)`. All functions here are to be called with NumPy arrays and give float64.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError, UnsupportedError
from bayesnet._types import Array, PyTree
from bayesnet.data import bucket_size, pad_rows
from bayesnet.priors.covariance import HYPER, Combined, Covariance, Named
from bayesnet.priors.gaussian_process import GaussianProcess
from bayesnet.priors.hyper import FreeHyper
from bayesnet.priors.means import LinearMean, SumMean, as_mean, mean_object

# Rows for which the diagonal of a foreign kernel is taken from a square matrix at once.
DIAGONAL_BLOCK = 64


class KernelModel:
    """The covariance and mean of a prior, at hyper-parameters `u` (float64, unconstrained).

    `free` is the vector of random hyper-parameters (`free.size` may be 0). Raises
    `UnsupportedError` for a prior without `kernel`.
    """

    def __init__(self, prior: Any) -> None:
        self.prior = prior
        self.process = prior if isinstance(prior, GaussianProcess) else None
        if self.process is None and not hasattr(prior, "kernel"):
            raise UnsupportedError(
                f"{type(prior).__name__} has no kernel(x1, x2): exact methods condition kernel priors such "
                "as bn.GaussianProcess."
            )
        self.out_dim = int(getattr(prior, "out_dim", 1))
        process = self.process
        self._mean = mean_object(as_mean(getattr(prior, "mean", 0.0)))
        tree = () if process is None else process.covariance.hyper
        self.free = FreeHyper((tree, self._mean.hyper))
        if not self.free.has_density:
            raise UnsupportedError(
                "A law of the hyper-parameters has no density: use bn.LogNormal, bn.Normal or a numpyro "
                "distribution."
            )

    @property
    def traceable(self) -> bool:
        """Whether the matrix can be differentiated by its hyper-parameters."""
        return self.process is not None and self.process.covariance.traceable

    def matrix(self, u: np.ndarray, x1: np.ndarray, x2: np.ndarray) -> np.ndarray:
        """The covariance (n, k); rows are padded, so that growing tables meet few shapes."""
        n, k = len(x1), len(x2)
        if self.process is not None and not self.traceable:
            return np.asarray(self.process.covariance.matrix((), x1, x2), np.float64)
        padded = [pad_rows(np.asarray(x, np.float64), bucket_size(len(x))) for x in (x1, x2)]
        with jax.enable_x64(True):
            a, b = (jnp.asarray(x, jnp.float64) for x in padded)
            if self.process is None:
                matrix = np.asarray(self.prior.kernel(a, b), np.float64)
            else:
                matrix = np.asarray(_matrix(self.process.covariance, self._hyper(u)[0], a, b))
        return matrix[:n, :k]

    def diagonal(self, u: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The variances (n,)."""
        if self.process is not None and self.traceable:
            rows = pad_rows(np.asarray(x, np.float64), bucket_size(len(x)))
            with jax.enable_x64(True):
                hyper = self._hyper(u)[0]
                return np.asarray(_diagonal(self.process.covariance, hyper, jnp.asarray(rows)))[
                    : len(x)
                ]
        blocks = [x[i : i + DIAGONAL_BLOCK] for i in range(0, len(x), DIAGONAL_BLOCK)]
        return np.concatenate([np.diag(self.matrix(u, b, b)) for b in blocks])

    def mean(self, u: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The mean (n, m)."""
        with jax.enable_x64(True):
            rows = jnp.asarray(np.asarray(x, np.float64))
            return np.asarray(self._mean.values(self._hyper(u)[1], rows, self.out_dim), np.float64)

    def pullback(
        self, u: np.ndarray, x: np.ndarray, by_matrix: np.ndarray, by_mean: np.ndarray
    ) -> np.ndarray:
        """The gradient in `u` of `sum(by_matrix * matrix) + sum(by_mean * mean)`."""
        if self.free.size == 0:
            return np.zeros(0)
        assert self.process is not None
        with jax.enable_x64(True):
            at, rows = jnp.asarray(u), jnp.asarray(x)
            hyper, back = jax.vjp(lambda v: self.free.tree(v)[0], at)
            by_hyper = _matrix_gradient(
                self.process.covariance, hyper, rows, jnp.asarray(by_matrix)
            )
            gradient = np.asarray(back(by_hyper)[0])

            def weighted_mean(v: Array) -> Array:
                values = self._mean.values(self.free.tree(v)[1], rows, self.out_dim)
                return jnp.sum(jnp.asarray(by_mean) * values)

            if self._mean.random:
                gradient = gradient + np.asarray(jax.grad(weighted_mean)(at))
            return gradient

    def log_prior(self, u: np.ndarray) -> tuple[float, np.ndarray]:
        """The log density of `u` and its gradient."""
        if self.free.size == 0:
            return 0.0, np.zeros(0)
        with jax.enable_x64(True):
            value, slope = jax.value_and_grad(self.free.log_density)(jnp.asarray(u))
            return float(value), np.asarray(slope)

    def fixed(self, u: np.ndarray) -> Any:
        """The prior with the numbers that `u` stands for in place of its laws."""
        if self.free.size == 0:
            return self.prior
        assert self.process is not None
        with jax.enable_x64(True):
            hyper, mean_hyper = self._hyper(u)
            hyper = jax.tree.map(lambda a: np.asarray(a, np.float64), hyper)
            mean_hyper = jax.tree.map(lambda a: np.asarray(a, np.float64), mean_hyper)
        mean = _fixed_mean(self._mean, mean_hyper)
        process = GaussianProcess(
            _fixed_covariance(self.process.covariance, hyper),
            mean=mean,
            out_dim=self.out_dim,
            units=self.process.units,
        )
        object.__setattr__(process, "empirical", self.process.empirical)
        return process

    def named(self, u: np.ndarray) -> dict[str, Any]:
        """The values of the random hyper-parameters, by name, for reports."""
        if self.free.size == 0:
            return {}
        with jax.enable_x64(True):
            laws = jax.tree.leaves_with_path(
                self.free.tree(jnp.zeros(self.free.size)), is_leaf=lambda a: False
            )
            values = jax.tree.leaves(self.free.tree(jnp.asarray(u)))
            ones = jax.tree.leaves(self.free.tree(jnp.ones(self.free.size)))
        return {
            jax.tree_util.keystr(path): np.asarray(value).tolist()
            for (path, zero), value, one in zip(laws, values, ones, strict=True)
            if not np.array_equal(np.asarray(zero), np.asarray(one))
        }

    def _hyper(self, u: np.ndarray) -> Any:
        """The trees of covariance and mean; inside a float64 scope."""
        return self.free.tree(jnp.asarray(np.asarray(u, np.float64)))


@partial(jax.jit, static_argnums=0)
def _matrix(covariance: Covariance, hyper: PyTree, x1: Array, x2: Array) -> Array:
    return covariance.matrix(hyper, x1, x2)


@partial(jax.jit, static_argnums=0)
def _diagonal(covariance: Covariance, hyper: PyTree, x: Array) -> Array:
    return jax.vmap(lambda r: covariance.matrix(hyper, r[None], r[None])[0, 0])(x)


@partial(jax.jit, static_argnums=0)
def _matrix_gradient(covariance: Covariance, hyper: PyTree, x: Array, by: Array) -> PyTree:
    return jax.grad(lambda h: jnp.sum(by * covariance.matrix(h, x, x)))(hyper)


def _fixed_covariance(covariance: Any, hyper: Any) -> Any:
    if isinstance(covariance, Combined):
        left = _fixed_covariance(covariance.left, hyper[0])
        return Combined(left, _fixed_covariance(covariance.right, hyper[1]), covariance.op)
    if isinstance(covariance, Named):
        return replace(covariance, **{name: hyper[name] for name in HYPER})
    return covariance


def _fixed_mean(mean: Any, hyper: Any) -> Any:
    if isinstance(mean, SumMean):
        return SumMean(_fixed_mean(mean.left, hyper[0]), _fixed_mean(mean.right, hyper[1]))
    if isinstance(mean, LinearMean):
        return LinearMean(hyper["slope"], hyper["intercept"])
    return mean


def check_columns(prior: Any, x: np.ndarray) -> None:
    """Raise `InputError` if the kernel is for another number of inputs."""
    expected = getattr(prior, "in_dim", None)
    if expected is not None and expected != x.shape[1]:
        raise InputError(f"The prior is for {expected} inputs, the table has {x.shape[1]}.")
