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
from bayesnet.priors.covariance import HYPER, Combined, Named
from bayesnet.priors.gaussian_process import GaussianProcess
from bayesnet.priors.hyper_vector import HyperVector, VarianceVector
from bayesnet.priors.means import LinearMean, SumMean, as_mean, mean_object

# Rows for which the diagonal of a foreign kernel is taken from a square matrix at once.
DIAGONAL_BLOCK = 64


class KernelModel:
    """The covariance and mean of a prior, at hyper-parameters `u` (float64, unconstrained).

    `free` is the vector of random hyper-parameters (`free.size` may be 0). With `variances` those
    of an infinite network are free too, their logarithms without a law of their own.

    Raises `UnsupportedError` for a prior without `kernel`, or without `variances` to set free.
    """

    def __init__(self, prior: Any, *, variances: bool = False) -> None:
        self.prior = prior
        if variances and not hasattr(prior, "with_variances"):
            raise UnsupportedError(
                f"{type(prior).__name__} has no weight and bias variances to learn: they belong to "
                "bn.kernels.NNGP and NTK. Give a bn.GaussianProcess laws such as "
                "lengthscale=bn.LogNormal(0.0, 1.0) instead."
            )
        self.process = prior if isinstance(prior, GaussianProcess) else None
        if not hasattr(prior, "kernel"):
            raise UnsupportedError(
                f"{type(prior).__name__} has no kernel(x1, x2): exact methods condition kernel priors such "
                "as bn.GaussianProcess."
            )
        self.out_dim = int(getattr(prior, "out_dim", 1))
        self._mean = mean_object(as_mean(getattr(prior, "mean", 0.0)))
        # What has `matrix(hyper, x1, x2)` as JAX code; None for a kernel of the user's own.
        self.covariance: Any = None
        tree: Any = ()
        if self.process is not None:
            self.covariance, tree = (
                bare_covariance(self.process.covariance),
                self.process.covariance.hyper,
            )
        elif hasattr(prior, "bare") and hasattr(prior, "matrix"):
            self.covariance, tree = prior.bare(), prior.hyper
        self.free: Any = (
            VarianceVector(tree) if variances else HyperVector((tree, self._mean.hyper))
        )
        if not self.free.has_density:
            raise UnsupportedError(
                "A law of the hyper-parameters has no density: use bn.LogNormal, bn.Normal or a numpyro "
                "distribution."
            )

    @property
    def traceable(self) -> bool:
        """Whether the matrix is JAX code, which can be differentiated."""
        return self.covariance is not None and self.covariance.traceable

    def matrix(self, u: np.ndarray, x1: np.ndarray, x2: np.ndarray) -> np.ndarray:
        """The covariance (n, k); rows are padded, so that growing tables meet few shapes."""
        if self.covariance is not None and not self.traceable:
            return np.asarray(self.covariance.matrix((), x1, x2), np.float64)
        if hasattr(self.prior, "in_parts") and self.prior.in_parts(len(x1), len(x2)):
            # An infinite network on many rows, or on images: what is made on the way would not fit.
            if x1 is x2:
                return self.fixed(u).in_blocks(x1)
            wide = pad_rows(np.asarray(x2, np.float64), bucket_size(len(x2)))
            return self.fixed(u).in_blocks(x1, wide)[:, : len(x2)]
        padded = [pad_rows(np.asarray(x, np.float64), bucket_size(len(x))) for x in (x1, x2)]
        with jax.enable_x64(True):
            a, b = (jnp.asarray(x, jnp.float64) for x in padded)
            if self.covariance is None:
                matrix = self.prior.kernel(a, b)
            else:
                matrix = _matrix(self.covariance, self._hyper(u)[0], a, b)
            return np.asarray(matrix, np.float64)[: len(x1), : len(x2)]

    def diagonal(self, u: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The variances (n,)."""
        if self.traceable:
            part = getattr(self.prior, "diagonal_rows", len(x))
            if len(x) > part:
                pieces = [x[i : i + part] for i in range(0, len(x), part)]
                return np.concatenate([self.diagonal(u, piece) for piece in pieces])
            rows = pad_rows(np.asarray(x, np.float64), bucket_size(len(x)))
            with jax.enable_x64(True):
                values = _diagonal(self.covariance, self._hyper(u)[0], jnp.asarray(rows))
                return np.asarray(values)[: len(x)]
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
        n, size = len(x), bucket_size(len(x))
        wide = np.zeros((size, size))
        wide[:n, :n] = by_matrix
        hyper, mean_hyper = self._hyper(u)
        with jax.enable_x64(True):
            rows = jnp.asarray(pad_rows(np.asarray(x, np.float64), size))
            slope = _matrix_gradient(self.covariance, hyper, rows, jnp.asarray(wide))
            slope = jax.tree.map(np.asarray, slope)
            mean_slope = jax.tree.map(np.zeros_like, mean_hyper)
            if self._mean.random:
                by = jnp.asarray(by_mean)

                def weighted(h: PyTree) -> Array:
                    return jnp.sum(by * self._mean.values(h, rows[:n], self.out_dim))

                mean_slope = jax.tree.map(np.asarray, jax.grad(weighted)(mean_hyper))
        return self.free.pull(u, (slope, mean_slope))

    def log_prior(self, u: np.ndarray) -> tuple[float, np.ndarray]:
        """The log density of `u` and its gradient."""
        return self.free.log_density(u)

    def fixed(self, u: np.ndarray) -> Any:
        """The prior with the numbers that `u` stands for in place of its laws."""
        if self.free.size == 0:
            return self.prior
        hyper, mean_hyper = self._hyper(u)
        if self.process is None:
            return self.prior.with_variances(**hyper)
        mean = _fixed_mean(self._mean, mean_hyper)
        covariance = fixed_covariance(self.process.covariance, hyper)
        old = self.process
        return GaussianProcess.from_fields(covariance, mean, self.out_dim, old.units, old.empirical)

    def named(self, u: np.ndarray) -> dict[str, Any]:
        """The values of the random hyper-parameters, by name, for reports."""
        return self.free.named(u)

    def _hyper(self, u: np.ndarray) -> Any:
        """The trees of covariance and mean, in NumPy."""
        return self.free.tree(np.asarray(u, np.float64))


@partial(jax.jit, static_argnums=0)
def _matrix(covariance: Any, hyper: PyTree, x1: Array, x2: Array) -> Array:
    return covariance.matrix(hyper, x1, x2)


@partial(jax.jit, static_argnums=0)
def _diagonal(covariance: Any, hyper: PyTree, x: Array) -> Array:
    return jax.vmap(lambda r: covariance.matrix(hyper, r[None], r[None])[0, 0])(x)


@partial(jax.jit, static_argnums=0)
def _matrix_gradient(covariance: Any, hyper: PyTree, x: Array, by: Array) -> PyTree:
    return jax.grad(lambda h: jnp.sum(by * covariance.matrix(h, x, x)))(hyper)


def bare_covariance(covariance: Any) -> Any:
    """The structure of a covariance, whose numbers come as arguments: programs are kept by it."""
    if isinstance(covariance, Combined):
        return Combined(
            bare_covariance(covariance.left), bare_covariance(covariance.right), covariance.op
        )
    if isinstance(covariance, Named):
        return Named(covariance.name, columns=covariance.columns)
    return covariance


def fixed_covariance(covariance: Any, hyper: Any) -> Any:
    """A covariance with the numbers of `hyper` in place of its laws."""
    if isinstance(covariance, Combined):
        left = fixed_covariance(covariance.left, hyper[0])
        return Combined(left, fixed_covariance(covariance.right, hyper[1]), covariance.op)
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
