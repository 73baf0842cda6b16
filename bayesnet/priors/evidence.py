"""The evidence of a table under a Gaussian process: closed form, or by importance sampling.

With fixed hyper-parameters and Gaussian noise the evidence is a normal density (Rasmussen &
Williams 2006, eq. 2.30). With random ones it is the mean of such densities over their law,
estimated by importance sampling around the modes of the posterior of the hyper-parameters.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg, optimize
from scipy.special import gammaln, logsumexp

from bayesnet._errors import ConvergenceWarning, InputError
from bayesnet._types import Array, ArrayLike, Key, as_key
from bayesnet.data import check_table
from bayesnet.priors.hyper import HALF_LOG_2PI, FreeHyper
from bayesnet.priors.laws import check_positive_law, is_law
from bayesnet.priors.means import mean_object

if TYPE_CHECKING:
    from bayesnet.priors.gaussian_process import GaussianProcess

# The proposal: a Student t with this many degrees of freedom at every mode, and the prior for
# the rest, so that weights stay bounded where the posterior has heavier tails than any mode says.
DEGREES, FROM_PRIOR, STARTS = 5.0, 0.2, 4
# Below this effective size neither the estimate nor its standard error means anything.
FEWEST_EFFECTIVE = 30.0


@dataclass(frozen=True)
class LogEvidence:
    """The log density of a table under a prior; `float(...)` is its value.

    Attributes:
        value: the log density, summed over outputs (nats), in the coordinates of the process.
        standard_error: of the Monte-Carlo estimate, in nats (delta method); 0 for a closed form.
        effective_size: effective number of draws behind an estimate; None for a closed form.
        method: "closed form", "importance sampling" or "prior sampling".
    """

    value: float
    standard_error: float
    effective_size: float | None
    method: str

    def __float__(self) -> float:
        return self.value


def log_evidence(
    process: GaussianProcess,
    X: ArrayLike,
    y: ArrayLike,
    noise_std: Any,
    *,
    num_samples: int = 2000,
    seed: int | Key = 0,
) -> LogEvidence:
    """The log evidence of a table under `process` and independent Gaussian noise.

    Args:
        process: its hyper-parameters may be fixed or random.
        X, y: (n, d) and (n,) or (n, m), in the coordinates of the process.
        noise_std: a positive number, an array (n,), (n, m) or (1, m), or a law of one number
            (integrated out), in the coordinates of the process.
        num_samples: draws of the estimate, used where something is random.
        seed: of those draws.

    Raises:
        InputError: data or noise that cannot be used, another number of outputs than the
            process has, a covariance that is not positive definite.

    Warns:
        ConvergenceWarning: fewer than 30 effective draws stand behind an estimate.
    """
    x, t, _ = check_table(X, y)
    if t.shape[1] != process.out_dim:
        raise InputError(f"y has {t.shape[1]} output(s), the process has {process.out_dim}.")
    if int(num_samples) != num_samples or num_samples < 100:
        raise InputError(f"num_samples must be a whole number of at least 100, got {num_samples}.")
    noise = _check_noise(noise_std, *t.shape)
    if not (process.random or is_law(noise)):
        return LogEvidence(_closed_form(process, x, t, noise), 0.0, None, "closed form")
    with jax.enable_x64(True):
        return _estimate(process, x, t, noise, int(num_samples), as_key(seed))


def _check_noise(noise: Any, n: int, m: int) -> Any:
    if is_law(noise):
        return check_positive_law(noise, "noise_std")
    try:
        array = np.asarray(noise, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"noise_std must be positive numbers or a positive law, got {noise!r}."
        ) from error
    if array.ndim == 1 and len(array) == n:
        array = array[:, None]
    if array.ndim and array.shape not in ((n, 1), (n, m), (1, m)):
        raise InputError(
            f"noise_std must be a number or have shape ({n},), ({n}, {m}) or (1, {m}), got {array.shape}."
        )
    if not (np.isfinite(array).all() and (array > 0).all()):
        raise InputError("noise_std must be positive and finite.")
    return np.broadcast_to(array, (n, m))


def _closed_form(
    process: GaussianProcess, x: np.ndarray, t: np.ndarray, noise: np.ndarray
) -> float:
    covariance, mean = process.covariance, mean_object(process.mean)
    with jax.enable_x64(True):
        hyper = jax.tree.map(lambda a: jnp.asarray(a[0]), covariance.draw(jax.random.key(0), 1))
        wide = jax.tree.map(lambda a: a.astype(jnp.float64), hyper)
        rows = jnp.asarray(x)
        matrix = np.asarray(covariance.matrix(_fixed(covariance.hyper, wide), rows, rows))
        values = np.asarray(mean.values(_fixed(mean.hyper, ()), rows, t.shape[1]))
    total = 0.0
    for j in range(t.shape[1]):
        try:
            factor = linalg.cholesky(matrix + np.diag(noise[:, j] ** 2), lower=True)
        except (linalg.LinAlgError, ValueError) as error:
            raise InputError(
                "The covariance of the table, noise included, is not positive definite: the kernel "
                "is not a covariance, or its hyper-parameters are extreme."
            ) from error
        white = linalg.solve_triangular(factor, t[:, j] - values[:, j], lower=True)
        total -= 0.5 * white @ white + np.log(np.diag(factor)).sum() + len(x) * HALF_LOG_2PI
    return float(total)


def _fixed(tree: Any, fallback: Any) -> Any:
    """Fixed hyper-parameters in full float64: draws of them pass through float32."""
    hyper = FreeHyper(tree)
    return hyper.tree(jnp.zeros(0)) if hyper.size == 0 and hyper.has_density else fallback


def _estimate(
    process: GaussianProcess, x: np.ndarray, t: np.ndarray, noise: Any, num: int, key: Key
) -> LogEvidence:
    covariance, mean = process.covariance, mean_object(process.mean)
    if not covariance.traceable:
        raise InputError(
            "With random noise or mean the evidence needs a kernel in JAX: state the gpytorch kernel "
            "by name instead."
        )
    free = FreeHyper((covariance.hyper, mean.hyper, noise if is_law(noise) else ()))
    rows, targets = jnp.asarray(x), jnp.asarray(t)

    def log_likelihood(tree: Any) -> Array:
        cov_hyper, mean_hyper, drawn_noise = tree
        level = drawn_noise if is_law(noise) else jnp.asarray(noise)
        matrix = covariance.matrix(cov_hyper, rows, rows)
        residual = targets - mean.values(mean_hyper, rows, targets.shape[1])
        return gaussian_log_density(matrix, jnp.broadcast_to(level, targets.shape) ** 2, residual)

    key_start, key_draw, key_prior = jax.random.split(key, 3)
    if not free.has_density:
        trees = free.draw_trees(key_prior, num)
        wide = jax.tree.map(lambda a: a.astype(jnp.float64), trees)
        logs = np.asarray(jax.jit(lambda q: jax.lax.map(log_likelihood, q))(wide))
        return _average(logs, "prior sampling")

    def log_joint(u: Array) -> Array:
        return log_likelihood(free.tree(u)) + free.log_density(u)

    start = np.asarray(free.draw(key_start, 200))
    proposal = StudentMixture.around_modes(log_joint, start)
    from_prior = round(FROM_PRIOR * num)
    drawn = proposal.draw(np.random.default_rng(_number(key_draw)), num - from_prior)
    u = np.concatenate([drawn, np.asarray(free.draw(key_prior, from_prior))])
    joint = np.asarray(jax.jit(lambda q: jax.lax.map(log_joint, q))(jnp.asarray(u)))
    prior = np.asarray(jax.jit(jax.vmap(free.log_density))(jnp.asarray(u)))
    share = from_prior / num
    mixture = np.logaddexp(np.log(share) + prior, np.log1p(-share) + proposal.log_density(u))
    return _average(joint - mixture, "importance sampling")


def gaussian_log_density(matrix: Array, noise_var: Array, residual: Array) -> Array:
    """The log density of residuals (n, m), independent columns, under K + diag(noise_var (n, m)).

    NaN, from a matrix that is not positive definite, is given as minus infinity.
    """

    def one(variance: Array, r: Array) -> Array:
        factor = jnp.linalg.cholesky(matrix + jnp.diag(variance))
        white = jax.scipy.linalg.solve_triangular(factor, r, lower=True)
        log_det = jnp.sum(jnp.log(jnp.diag(factor)))
        return -0.5 * white @ white - log_det - r.shape[0] * HALF_LOG_2PI

    total = jnp.sum(jax.vmap(one, in_axes=(1, 1))(noise_var, residual))
    return jnp.where(jnp.isnan(total), -jnp.inf, total)


def _number(key: Key) -> int:
    return int(jax.random.randint(key, (), 0, 2**31 - 1))


def _average(log_weights: np.ndarray, method: str) -> LogEvidence:
    num = len(log_weights)
    peak = log_weights.max()
    if not np.isfinite(peak):
        raise InputError(
            "The evidence could not be computed for any drawn hyper-parameters: the covariance is not "
            "positive definite, or the data lie far outside of what the prior can draw."
        )
    weights = np.exp(log_weights - peak)
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    error = float(weights.std(ddof=1) / weights.mean() / np.sqrt(num))
    if effective < FEWEST_EFFECTIVE:
        warnings.warn(
            f"The evidence rests on {effective:.1f} effective draws of {num} ({method}): neither it nor "
            "its standard error should be trusted. Raise num_samples, or give laws with a density.",
            ConvergenceWarning,
            stacklevel=5,
        )
    value = float(logsumexp(log_weights) - np.log(num))
    return LogEvidence(value, error, effective, method)


@dataclass(frozen=True)
class StudentMixture:
    """An equal mixture of multivariate Student t laws, one a mode."""

    locs: list[np.ndarray]
    factors: list[np.ndarray]

    @staticmethod
    def around_modes(log_joint: Any, starts: np.ndarray) -> StudentMixture:
        both = jax.jit(jax.value_and_grad(lambda u: -log_joint(u)))
        values = np.asarray(jax.jit(lambda q: jax.lax.map(log_joint, q))(jnp.asarray(starts)))
        spread = starts.std(axis=0) + 1e-12

        def objective(v: np.ndarray) -> tuple[float, np.ndarray]:
            value, slope = both(jnp.asarray(v * spread))
            if not np.isfinite(value):
                return 1e25, np.zeros_like(v)
            return float(value), np.asarray(slope) * spread

        locs: list[np.ndarray] = []
        factors = []
        order = np.argsort(-np.nan_to_num(values, nan=-np.inf))
        for i in order[:STARTS]:
            found = optimize.minimize(objective, starts[i] / spread, jac=True, method="L-BFGS-B")
            mode = found.x
            if any(np.abs(mode - other / spread).max() < 0.05 for other in locs):
                continue
            locs.append(mode * spread)
            factors.append(spread[:, None] * _factor(objective, mode))
        return StudentMixture(locs, factors)

    def draw(self, rng: np.random.Generator, num: int) -> np.ndarray:
        size = len(self.locs[0])
        which = rng.integers(len(self.locs), size=num)
        z = rng.normal(size=(num, size)) / np.sqrt(rng.chisquare(DEGREES, (num, 1)) / DEGREES)
        return np.stack([self.locs[i] + self.factors[i] @ e for i, e in zip(which, z, strict=True)])

    def log_density(self, u: np.ndarray) -> np.ndarray:
        parts, size = [], u.shape[1]
        constant = gammaln((DEGREES + size) / 2) - gammaln(DEGREES / 2)
        constant -= 0.5 * size * np.log(DEGREES * np.pi)
        for loc, factor in zip(self.locs, self.factors, strict=True):
            white = np.linalg.solve(factor, (u - loc).T)
            log_det = np.linalg.slogdet(factor)[1]
            tail = (DEGREES + size) / 2 * np.log1p((white**2).sum(axis=0) / DEGREES)
            parts.append(constant - log_det - tail)
        return logsumexp(np.stack(parts), axis=0) - np.log(len(parts))


def _factor(objective: Any, mode: np.ndarray) -> np.ndarray:
    """A root of the inverse Hessian at `mode`, which is in units of the prior's spread.

    By central differences of the gradient. Flat directions get at most the prior's spread.
    """
    size, step = len(mode), 1e-3
    rows = []
    for i in range(size):
        e = step * np.eye(size)[i]
        rows.append((objective(mode + e)[1] - objective(mode - e)[1]) / (2 * step))
    hessian = np.stack(rows)
    values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T))
    return vectors / np.sqrt(np.maximum(values, 1.0))
