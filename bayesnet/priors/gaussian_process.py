"""The Gaussian process: matching target, exact prior, and source of function draws."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet import devices
from bayesnet._errors import InputError
from bayesnet._matrix import as_matrix
from bayesnet._types import Array, ArrayLike, Float, Key, as_key
from bayesnet.devices import float64_island
from bayesnet.priors.covariance import Combined, Covariance, as_covariance
from bayesnet.priors.means import add_means, as_mean, mean_object
from bayesnet.priors.network import UNITS

if TYPE_CHECKING:
    from bayesnet.priors.conditioned import ConditionedProcess
    from bayesnet.priors.empirical import EmpiricalBayes
    from bayesnet.priors.evidence import LogEvidence

# Added to the diagonal, relative to its mean, before the Cholesky factorisation in float64.
JITTER = 1e-6


@dataclass(frozen=True, init=False)
class GaussianProcess:
    """A Gaussian process; every draw may have a random kernel and a random line of its own.

    Args:
        kernel: "rbf", "matern12", "matern32", "matern52", "periodic", "linear", "arccosine0",
            "arccosine1", "arccosine2" (Cho & Saul 2009); or a tinygp kernel, or a gpytorch kernel
            with its current hyper-parameters.
        lengthscale: a positive number, a vector (one a column, ARD), or a law such as
            `bn.LogNormal(0.0, 0.5)`: then each drawn function has a kernel of its own, and the
            process is the hierarchical GP of Tran et al. 2022, section 5.1.
        outputscale: the variance of the function values (as in gpytorch), a number or a law.
        period: of "periodic".
        bias: the variance of the biases of the arc-cosine kernels, whose weights have the
            variance `1 / lengthscale^2`.
        columns: the input columns that the kernel sees, counted from 0; all if None.
        mean: a number; "linear" or `bn.LinearMean(slope, intercept)`, fixed or random; or a
            function `x (n, d) -> (n,) or (n, m)`.
        out_dim: m independent processes, one an output.
        units: "scaled" (inputs and targets at mean 0, sd 1) or "data".

    `a + b` and `a * b` are the processes with the sum and the product of the covariances; a sum
    adds the means. Added to any other object with `sample` it becomes a `bn.Sum`.
    `GaussianProcess.fit(X, y)` chooses the hyper-parameters by data; `empirical` then says how
    (an `EmpiricalBayes`), and is None for a process that was stated.

    Raises:
        InputError: unknown names, hyper-parameters that are not positive, laws that reach
            outside the positive axis.
    """

    covariance: Covariance
    mean: Any
    out_dim: int
    units: str
    empirical: EmpiricalBayes | None

    def __init__(
        self,
        kernel: Any = "matern52",
        lengthscale: Any = 1.0,
        outputscale: Any = 1.0,
        *,
        period: Any = 1.0,
        bias: Any = 1.0,
        columns: Any = None,
        mean: Any = 0.0,
        out_dim: int = 1,
        units: str = "scaled",
    ) -> None:
        if units not in UNITS:
            raise InputError(f"units must be one of {UNITS}, got {units!r}.")
        if out_dim < 1:
            raise InputError(f"out_dim must be at least 1, got {out_dim}.")
        covariance = as_covariance(
            kernel,
            lengthscale=lengthscale,
            outputscale=outputscale,
            period=period,
            bias=bias,
            columns=columns,
        )
        object.__setattr__(self, "covariance", covariance)
        object.__setattr__(self, "mean", as_mean(mean))
        object.__setattr__(self, "out_dim", int(out_dim))
        object.__setattr__(self, "units", units)
        object.__setattr__(self, "empirical", None)

    @classmethod
    def from_fields(
        cls, covariance: Any, mean: Any, out_dim: int, units: str, empirical: Any
    ) -> GaussianProcess:
        """The process with just these fields, as a file holds them."""
        process = cls(covariance, mean=mean, out_dim=out_dim, units=units)
        object.__setattr__(process, "empirical", empirical)
        return process

    @staticmethod
    def fit(
        X: ArrayLike, y: ArrayLike, kernel: Any = "matern52", **options: Any
    ) -> GaussianProcess:
        """A process whose hyper-parameters are chosen by the data: empirical Bayes.

        See `bayesnet.priors.fitted.fit_process` for the options (`method`, `ard`, `noise_std`,
        `restarts`, `units`, ...).
        """
        from bayesnet.priors.fitted import fit_process

        return fit_process(X, y, kernel, **options)

    def log_evidence(
        self, X: ArrayLike, y: ArrayLike, noise_std: ArrayLike, **options: Any
    ) -> LogEvidence:
        """The log density of `y` under this process and Gaussian noise; see `evidence.log_evidence`.

        X (n, d), y (n,) or (n, m) and `noise_std` are in the coordinates of `units`, and so is the density:
        of y scaled by its sd it is larger by n log(sd) than in the units of y, and, being of a table that
        was placed by itself, not to be compared with that of a process in other coordinates.
        """
        from bayesnet.priors.evidence import log_evidence

        return log_evidence(self, X, y, noise_std, **options)

    def condition(
        self, x: ArrayLike, y: ArrayLike, noise_std: ArrayLike = 0.0
    ) -> ConditionedProcess:
        """This process given values `y` at rows `x`, each known up to `noise_std`.

        All in the coordinates of `units`; see `bayesnet.priors.conditioned`.
        """
        from bayesnet.priors.conditioned import ConditionedProcess

        return ConditionedProcess(self, x, y, noise_std)

    @property
    def random(self) -> bool:
        """Whether draws have hyper-parameters (of kernel or mean) of their own."""
        return self.covariance.random or mean_object(self.mean).random

    def _combine(self, other: GaussianProcess, op: str) -> GaussianProcess:
        if not isinstance(other, GaussianProcess):
            if op == "product" or not hasattr(other, "sample"):
                return NotImplemented
            from bayesnet.priors.sums import Sum

            return Sum(self, other)
        if self.units != other.units or self.out_dim != other.out_dim:
            raise InputError("Processes that are combined must have the same units and out_dim.")
        if op == "product" and not (self.mean == 0.0 and other.mean == 0.0):
            raise InputError("A product of processes is defined for mean 0 only.")
        both = GaussianProcess(
            Combined(self.covariance, other.covariance, op),
            mean=add_means(self.mean, other.mean),
            out_dim=self.out_dim,
            units=self.units,
        )
        # What is partly chosen by data is chosen by data.
        object.__setattr__(both, "empirical", self.empirical or other.empirical)
        return both

    def __add__(self, other: Any) -> Any:
        return self._combine(other, "sum")

    def __radd__(self, other: Any) -> Any:
        if not hasattr(other, "sample"):
            return NotImplemented
        from bayesnet.priors.sums import Sum

        return Sum(other, self)

    def __mul__(self, other: Any) -> Any:
        return self._combine(other, "product")

    def kernel(self, x1: ArrayLike, x2: ArrayLike) -> Float[Array, "n k"]:
        """The covariance of function values at rows (n, d) and (k, d), computed in float64.

        Raises `InputError` if hyper-parameters are random: there is no one kernel then.
        """
        if self.random:
            raise InputError(
                "This process has random hyper-parameters, so it has no single kernel; draw "
                "functions with sample(), or state fixed hyper-parameters."
            )
        hyper = jax.tree.map(lambda a: a[0], self.covariance.draw(jax.random.key(0), 1))
        if not self.covariance.traceable:
            return jnp.asarray(self.covariance.matrix(hyper, x1, x2))
        a, b = (jnp.asarray(x, jnp.result_type(float)) for x in (x1, x2))
        return _matrix(self.covariance, hyper, a, b)

    @devices.single_precision()
    def sample(self, key: int | Key, x: ArrayLike, num_samples: int) -> Float[Array, "s n m"]:
        """`num_samples` joint draws at the rows of `x` (n, d), in the coordinates of `units`.

        `key` is an integer seed or a JAX key. Raises `InputError` if the covariance matrix is not positive definite.
        """
        x = jnp.asarray(as_matrix(x, "x"), jnp.float32)
        return self.sample_many(as_key(key), x[None], num_samples)[0]

    @devices.single_precision()
    def sample_many(
        self, key: Key, xs: Float[Array, "k n d"], num_samples: int
    ) -> Float[Array, "k s n m"]:
        """Independent draws for each of `k` sets of rows, in one program (see `sample`)."""
        key_mean = key
        if mean_object(self.mean).random:
            key, key_mean = jax.random.split(key)
        if self.covariance.traceable:
            draws = _draw_traced(self.covariance, num_samples * self.out_dim, key, xs)
        else:
            keys = jax.random.split(key, len(xs))
            draws = jnp.stack(
                [
                    self._draw_with_torch(k, x, num_samples * self.out_dim)
                    for k, x in zip(keys, xs, strict=True)
                ]
            )
        if not bool(jnp.isfinite(draws).all()):
            raise InputError(self._why_not_finite(xs[0]))
        split = draws.reshape(len(xs), num_samples, self.out_dim, xs.shape[1])
        return jnp.swapaxes(split, 2, 3) + self._means(key_mean, xs, num_samples)

    def _means(self, key: Key, xs: Array, num: int) -> Any:
        """The means of draws, broadcastable to (k, s, n, m)."""
        if isinstance(self.mean, float):
            return self.mean
        mean = self.mean
        if not mean.random:
            fixed = jax.tree.map(lambda a: a[0], mean.draw(key, 1))
            return jnp.stack([mean.values(fixed, x, self.out_dim) for x in xs])[:, None]
        keys = jax.random.split(key, len(xs))
        return jnp.stack(
            [
                jax.vmap(lambda h, x=x: mean.values(h, x, self.out_dim))(mean.draw(k, num))
                for k, x in zip(keys, xs, strict=True)
            ]
        )

    def _draw_with_torch(self, key: Key, x: Array, num: int) -> Array:
        hyper = jax.tree.map(lambda a: a[0], self.covariance.draw(key, 1))
        matrix = np.asarray(self.covariance.matrix(hyper, x, x))
        noise = np.asarray(jax.random.normal(key, (num, len(x))), np.float64)
        try:
            factor = np.linalg.cholesky(with_jitter(matrix, np))
        except np.linalg.LinAlgError as error:
            raise InputError(self._why_not_finite(x)) from error
        return jnp.asarray((noise @ factor.T).astype(np.float32))

    def _why_not_finite(self, x: Array) -> str:
        hyper = jax.tree.map(lambda a: a[0], self.covariance.draw(jax.random.key(0), 1))
        matrix = np.asarray(self.covariance.matrix(hyper, x, x), np.float64)
        smallest = np.linalg.eigvalsh(matrix)[0] if np.isfinite(matrix).all() else np.nan
        return (
            f"The covariance matrix of {len(x)} points is not positive definite (smallest eigenvalue "
            f"{smallest:.3g} of a typical draw): the kernel is not a covariance, or its "
            "hyper-parameters are extreme."
        )


def with_jitter(matrix: Any, xp: Any) -> Any:
    """A covariance matrix with the jitter that its factorisation needs; `xp`: NumPy or jax.numpy."""
    n = matrix.shape[-1]
    level = JITTER * xp.trace(matrix) / n
    return matrix + level * xp.eye(n, dtype=matrix.dtype)


@partial(jax.jit, static_argnums=0)
def _matrix(covariance: Covariance, hyper: Any, x1: Array, x2: Array) -> Array:
    return float64_island(covariance.matrix)(hyper, x1, x2)


@partial(jax.jit, static_argnums=(0, 1))
def _draw_traced(covariance: Covariance, num: int, key: Key, xs: Array) -> Array:
    """Draws (k, num, n): one factorisation a set of points, or one a draw if the kernel is random.

    A program of its own: LAPACK calls beside a large gradient can dead-lock XLA on CPU.
    """
    k, n, _ = xs.shape
    key_hyper, key_noise = jax.random.split(key)
    kernels = num if covariance.random else 1
    hyper = jax.vmap(lambda q: covariance.draw(q, kernels))(jax.random.split(key_hyper, k))
    noise = jax.random.normal(key_noise, (k, kernels, num // kernels, n))

    def draw(hyper: Any, x: Array, noise: Array) -> Array:
        def one(h: Any, e: Array) -> Array:
            factor = jnp.linalg.cholesky(with_jitter(covariance.matrix(h, x, x), jnp))
            return e @ factor.T

        return jax.lax.map(lambda a: one(*a), (hyper, noise), batch_size=min(kernels, 16))

    def draw_all(hyper: Any, xs: Array, noise: Array) -> Array:
        return jax.lax.map(lambda a: draw(*a), (hyper, xs, noise))

    return float64_island(draw_all)(hyper, xs, noise).reshape(k, num, n)
