"""A Gaussian process given known values: exact conditioning, as a source of function draws.

Draws are made pathwise (Matheron's rule; Wilson et al. 2020, eq. 9): a joint draw of the prior
is corrected by the kernel interpolant of what it misses,
`f(x) + K(x, x0) (K(x0, x0) + S)^-1 (y0 - f(x0) - e)` with e ~ N(0, S).
Random hyper-parameters are drawn from their law given the values too: by importance resampling,
each candidate weighed by its evidence of the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet import devices
from bayesnet._columns import Names, names_at_fit
from bayesnet._errors import InputError
from bayesnet._matrix import as_matrix
from bayesnet._types import Array, ArrayLike, Float, Key, as_key
from bayesnet.devices import float64_island
from bayesnet.priors.covariance import Covariance
from bayesnet.priors.evidence import gaussian_log_density
from bayesnet.priors.gaussian_process import JITTER, GaussianProcess
from bayesnet.priors.hyper import FreeHyper
from bayesnet.priors.means import mean_object

# Candidates of random hyper-parameters for every one that is used.
CANDIDATES = 16


@dataclass(frozen=True, init=False, eq=False)
class ConditionedProcess:
    """`process` given that its value at row k of `x` is `y[k]`, up to `noise_std[k]`.

    Args:
        process: a `bn.GaussianProcess` whose kernel is JAX code.
        x: rows (k, d); y: values (k,) or (k, m), in the coordinates of the process.
        noise_std: how closely, a number, (k,) or (k, m); 0 is exactly (up to a jitter of 1e-6 of
            the variance).
    `names` are those of the columns of x, if it is a data frame: later frames are put in their order.

    Raises:
        InputError: shapes that do not agree, values that contradict each other.
    """

    process: GaussianProcess
    x: np.ndarray
    y: np.ndarray
    noise_std: np.ndarray
    names: Names | None

    def __init__(
        self, process: GaussianProcess, x: ArrayLike, y: ArrayLike, noise_std: ArrayLike = 0.0
    ) -> None:
        if not isinstance(process, GaussianProcess) or not process.covariance.traceable:
            raise InputError(
                "Only a bn.GaussianProcess with a kernel by name or of tinygp can be conditioned."
            )
        rows, values = as_matrix(x, "x"), as_matrix(y, "y")
        m = process.out_dim
        if len(rows) != len(values) or values.shape[1] != m:
            raise InputError(
                f"Known values: x has {len(rows)} rows and y has shape {values.shape}; expected "
                f"({len(rows)}, {m})."
            )
        noise = np.asarray(noise_std, np.float64)
        noise = noise[:, None] if noise.ndim == 1 else noise
        if noise.ndim not in (0, 2) or (
            noise.ndim and noise.shape not in ((len(rows), 1), values.shape)
        ):
            raise InputError(
                f"noise_std must be a number or have shape ({len(rows)},), got {np.shape(noise_std)}."
            )
        if not (np.isfinite(noise).all() and (noise >= 0).all()):
            raise InputError("noise_std of known values must be finite and not negative.")
        noise = np.broadcast_to(noise, values.shape)
        first: dict[bytes, int] = {}
        for k, row in enumerate(rows):
            other = first.setdefault(row.tobytes(), k)
            exact = noise[k].max() == 0 and noise[other].max() == 0
            if exact and not np.allclose(values[k], values[other]):
                raise InputError(
                    f"Two different values are stated for one point, {row.tolist()}: {values[other]} and "
                    f"{values[k]}. Give a tolerance, or drop one."
                )
        for name, value in (("process", process), ("x", rows), ("y", values), ("noise_std", noise)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "names", names_at_fit(x, "x"))

    @property
    def units(self) -> str:
        return self.process.units

    @property
    def out_dim(self) -> int:
        return self.process.out_dim

    def moments(self, x: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Mean (n, m) and covariance (m, n, n) at the rows of `x`, in float64.

        Rasmussen & Williams 2006, eq. 2.23-24. Raises `InputError` if hyper-parameters are random.
        """
        process, new = self.process, as_matrix(x, "x", columns=self.x.shape[1], known=self.names)
        if process.random:
            raise InputError(
                "With random hyper-parameters there is no one covariance: use sample()."
            )
        n = len(new)
        with jax.enable_x64(True):
            rows = jnp.asarray(np.concatenate([new, self.x]))
            hyper = FreeHyper(process.covariance.hyper).tree(jnp.zeros(0))
            matrix = np.asarray(process.covariance.matrix(hyper, rows, rows))
            means = np.asarray(_means(process, rows))
        cross = matrix[:n, n:]
        jitter = JITTER * np.trace(matrix) / len(matrix)
        mean, covariance = [], []
        for j in range(self.out_dim):
            known = matrix[n:, n:] + np.diag(self.noise_std[:, j] ** 2 + jitter)
            weights = np.linalg.solve(known, cross.T).T
            mean.append(means[:n, j] + weights @ (self.y[:, j] - means[n:, j]))
            covariance.append(matrix[:n, :n] - weights @ cross.T)
        return np.stack(mean, axis=1), np.stack(covariance)

    @devices.single_precision()
    def sample(self, key: int | Key, x: ArrayLike, num_samples: int) -> Float[Array, "s n m"]:
        """`num_samples` joint draws at the rows of `x` (n, d).

        Raises `InputError` for another number of columns, or a covariance that is not positive
        definite.
        """
        process = self.process
        new = as_matrix(x, "x", columns=self.x.shape[1], known=self.names)
        rows = jnp.asarray(np.concatenate([new, self.x]), jnp.float32)
        key_hyper, key_pick, key_noise, key_error = jax.random.split(as_key(key), 4)
        mean = mean_object(process.mean)
        count = num_samples if process.random else 1
        known_y, known_noise = (jnp.asarray(a, jnp.float32) for a in (self.y, self.noise_std))
        candidates = count * CANDIDATES if process.random else 1
        k1, k2 = jax.random.split(key_hyper)
        hyper = (process.covariance.draw(k1, candidates), mean.draw(k2, candidates))
        x0 = jnp.asarray(self.x, jnp.float32)
        if process.random:
            missed = known_y - _mean_values(process, hyper[1], x0, candidates)
            weights = _log_weights(process.covariance, hyper[0], x0, missed, known_noise)
            picked = jax.random.categorical(key_pick, weights, shape=(count,))
            hyper = jax.tree.map(lambda a: a[picked], hyper)
            means = _mean_values(process, hyper[1], rows, count)
        else:
            means = _mean_values(process, hyper[1], rows, 1)
        m = process.out_dim
        noise = jax.random.normal(key_noise, (count, num_samples // count, m, len(rows)))
        error = jax.random.normal(key_error, (count, num_samples // count, m, len(x0)))
        residual = jnp.swapaxes(known_y - means[:, len(new) :], 1, 2)
        drawn = _draw(
            process.covariance, hyper[0], rows, noise, error, residual, known_noise.T
        ).reshape(num_samples, m, len(new))
        if not bool(jnp.isfinite(drawn).all()):
            raise InputError(
                f"The covariance matrix of {len(rows)} points is not positive definite: the kernel is "
                "not a covariance, or its hyper-parameters are extreme."
            )
        return jnp.swapaxes(drawn, 1, 2) + means[:, : len(new)]


def _mean_values(process: GaussianProcess, hyper: Any, x: Array, num: int) -> Float[Array, "c n m"]:
    mean = mean_object(process.mean)
    return jax.vmap(lambda h: mean.values(h, x, process.out_dim), axis_size=num)(hyper)


def _means(process: GaussianProcess, rows: Array) -> Array:
    mean = mean_object(process.mean)
    return mean.values(FreeHyper(mean.hyper).tree(jnp.zeros(0)), rows, process.out_dim)


@partial(jax.jit, static_argnums=0)
def _log_weights(
    covariance: Covariance, hyper: Any, x: Array, missed: Array, noise: Array
) -> Float[Array, " c"]:
    """The evidence of the known values for every candidate of the hyper-parameters."""

    def all_of(hyper: Any, x: Array, missed: Array, noise: Array) -> Array:
        def one(args: Any) -> Array:
            h, r = args
            matrix = covariance.matrix(h, x, x)
            jitter = JITTER * jnp.trace(matrix) / len(matrix)
            return gaussian_log_density(matrix, noise**2 + jitter, r)

        return jax.lax.map(one, (hyper, missed), batch_size=256)

    return float64_island(all_of)(hyper, x, missed, noise)


@partial(jax.jit, static_argnums=0)
def _draw(
    covariance: Covariance,
    hyper: Any,
    rows: Float[Array, "n d"],
    noise: Float[Array, "c s m n"],
    error: Float[Array, "c s m k"],
    residual: Float[Array, "r m k"],
    known_noise: Float[Array, "m k"],
) -> Float[Array, "c s m q"]:
    """Pathwise draws without their means, for each of `c` kernels."""
    k = residual.shape[-1]
    residual = jnp.broadcast_to(residual, (noise.shape[0], *residual.shape[1:]))

    def draw(
        hyper: Any, rows: Array, noise: Array, error: Array, residual: Array, sd: Array
    ) -> Array:
        def one(args: Any) -> Array:
            h, e, e0, r = args
            matrix = covariance.matrix(h, rows, rows)
            jitter = JITTER * jnp.trace(matrix) / matrix.shape[0]
            matrix = matrix + jitter * jnp.eye(matrix.shape[0], dtype=matrix.dtype)
            prior = e @ jnp.linalg.cholesky(matrix).T
            cross, inner = matrix[:-k, -k:], matrix[-k:, -k:]

            def correct(f: Array, e0: Array, r: Array, sd: Array) -> Array:
                missing = r - f[:, -k:] - sd * e0
                known = jnp.linalg.cholesky(inner + jnp.diag(sd**2))
                solved = jax.scipy.linalg.cho_solve((known, True), missing.T)
                return f[:, :-k] + (cross @ solved).T

            return jax.vmap(correct, in_axes=(1, 1, 0, 0), out_axes=1)(prior, e0, r, sd)

        return jax.lax.map(one, (hyper, noise, error, residual), batch_size=16)

    return float64_island(draw)(hyper, rows, noise, error, residual, known_noise)
