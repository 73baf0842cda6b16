"""Tasks drawn from a prior: what a PFN is trained on.

A task is a context (x, y), query inputs, and the law of f at the queries as far as the prior
tells it: for a Gaussian process given its own hyper-parameters and the context in closed form
(`f_std` > 0), for any other prior the function value that was drawn (`f_std` = 0). The law of y
adds the noise. Training on these laws instead of on a sampled y has the same expected gradient
with less variance (Rao-Blackwell).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError, UnsupportedError
from bayesnet._types import Array, ArrayLike, Key
from bayesnet.devices import float64_island
from bayesnet.likelihoods import GaussianLikelihood
from bayesnet.likelihoods.levels import DEFAULT_NOISE
from bayesnet.pfn.batch import Batch
from bayesnet.pfn.inputs import InputLaw, PointInputs
from bayesnet.pfn.numpyro_model import NumpyroModel
from bayesnet.priors import FunctionPrior, GaussianProcess, LatentPrior, Mix, Near
from bayesnet.priors.laws import draw_law

# Sets of inputs that share one call of a prior's own `sample`: its draws within a call share x.
_GROUPS = 8
# Added to the variance of the noise in the exact predictive, relative to that of the function.
_JITTER = 1e-7


@dataclass(frozen=True)
class Mixture:
    """A prior chosen at random for every batch of tasks.

    Args:
        parts: priors, or functions `d -> prior` of the number of columns.
        weights: how often each is chosen, relative to each other; equally often if None.

    Raises `InputError` for no parts, or weights that are not positive numbers, one a part.
    """

    parts: tuple[Any, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        weights = self.weights if self.weights is not None else (1.0,) * len(self.parts)
        object.__setattr__(self, "weights", tuple(float(w) for w in weights))
        if not self.parts or len(weights) != len(self.parts) or min(weights, default=0) <= 0:
            raise InputError("A mixture needs parts, and one positive weight for each of them.")


@dataclass(frozen=True)
class Tasks:
    """Where batches come from: a prior, the law of the noise, inputs, and the sizes of tables.

    Args:
        prior: an object with `sample(key, x (n, d), s) -> (s, n, 1)`; a function `d -> prior`,
            for tables of several widths; or a `Mixture` of these. In scaled coordinates.
        likelihood: `bn.GaussianLikelihood()`, with `noise_std` in scaled coordinates.
        inputs: the law of inputs.
        dims: the numbers of columns d.
        max_rows: the size to which contexts are padded.
        queries: the number of query rows of a task.

    Raises:
        InputError: sizes that are not positive, a prior that cannot draw functions.
        UnsupportedError: another likelihood, or a prior with several outputs.
    """

    prior: Any
    likelihood: Any
    inputs: InputLaw
    dims: tuple[int, ...]
    max_rows: int
    queries: int = 32

    def __post_init__(self) -> None:
        if not self.dims or min(self.dims) < 1 or self.max_rows < 1 or self.queries < 1:
            raise InputError(
                f"Tables need at least one column, row and query, got dims={self.dims}, "
                f"max_rows={self.max_rows}, queries={self.queries}."
            )
        if not isinstance(self.likelihood, GaussianLikelihood):
            raise UnsupportedError(
                "A PFN is trained with bn.GaussianLikelihood, got "
                f"{type(self.likelihood).__name__}."
            )
        for d in self.dims:
            for part in self.parts(d):
                check_prior(part, d)

    def parts(self, d: int) -> tuple[Any, ...]:
        """The priors of tables with `d` columns."""
        parts: Sequence[Any] = (
            self.prior.parts if isinstance(self.prior, Mixture) else (self.prior,)
        )
        return tuple(
            part if hasattr(part, "sample") or not callable(part) else part(d) for part in parts
        )

    def in_user_units(self, d: int, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows and targets of a batch as those of a user's table, which is scaled by itself."""
        return x, y

    @property
    def weights(self) -> np.ndarray:
        """How often each part of the prior is chosen."""
        weights = self.prior.weights if isinstance(self.prior, Mixture) else (1.0,)
        array = np.asarray(weights, np.float64)
        return array / array.sum()

    def draw(self, key: Key, size: int, counts: ArrayLike, d: int, part: int = 0) -> Batch:
        """`size` tasks of width `d` with `counts` (b,) context rows each; their x has d columns.

        A call of several programs, each waited for: LAPACK beside a training step can dead-lock
        XLA on CPU.
        """
        k_inputs, k_noise, k_task = jax.random.split(key, 3)
        total = self.max_rows + self.queries
        x, seen = self.inputs.draw(k_inputs, size, total, self.queries, d)
        law = self.likelihood.noise_std
        noise = draw_law(DEFAULT_NOISE if law is None else law, k_noise, size).astype(jnp.float32)
        mask = jnp.arange(self.max_rows) < jnp.asarray(counts)[:, None]
        prior = self.parts(d)[part]
        draw = _gaussian if has_exact_law(prior) else _drawn
        if draw is _drawn and not isinstance(prior, LatentPrior):
            x, seen = _share_inputs(x), _share_inputs(seen)
        y, f_mean, f_std, hyper = draw(prior, k_task, seen, noise, mask)
        batch = Batch(
            x=x[:, : self.max_rows],
            y=y,
            mask=mask,
            queries=x[:, self.max_rows :],
            used=jnp.ones(d),
            f_mean=f_mean,
            f_std=f_std,
            noise=noise,
            relevant=(seen != 0).any(axis=1),
            hyper=hyper,
        )
        return jax.block_until_ready(batch)


def described(stated: Any) -> str:
    """All that is stated of a prior or of inputs, which a `repr` may sum up: it tells runs apart."""
    if isinstance(stated, eqx.Module):
        return eqx.tree_pformat(stated)
    if isinstance(stated, tuple):
        return f"({', '.join(map(described, stated))}{',' if len(stated) == 1 else ''})"
    if isinstance(stated, (Mixture, PointInputs, Near, Mix)):
        parts = (f"{f.name}={described(getattr(stated, f.name))}" for f in fields(stated))
        return f"{type(stated).__name__}({', '.join(parts)})"
    return repr(stated)


def check_prior(prior: Any, d: int) -> None:
    """Raise unless `prior` draws functions of `d` columns with one output."""
    if isinstance(prior, NumpyroModel):
        raise UnsupportedError(
            "A NumpyroModel draws inputs and noise of its own: it is a prior by itself of bn.PFN.train, no "
            "part of a mixture, and no prior for classes or hyper-parameters."
        )
    if not isinstance(prior, FunctionPrior) or isinstance(prior, type):
        raise InputError(
            "A PFN is trained on draws of a prior, an object with sample(key, x, num_samples), or "
            f"on a function that makes one for d columns; got {prior!r}."
        )
    if getattr(prior, "out_dim", 1) != 1:
        raise UnsupportedError("A PFN is trained on priors with one output (out_dim=1).")
    columns = getattr(prior, "in_dim", d)
    if columns != d:
        raise InputError(
            f"The prior is for {columns} columns, the tasks have {d}: pass dims=({columns},), "
            "or a function d -> prior."
        )
    if getattr(prior, "units", "scaled") != "scaled":
        raise InputError(
            'A PFN is trained in scaled coordinates: make the prior with units="scaled".'
        )


def has_exact_law(prior: Any) -> bool:
    """Whether the prior gives the law of f at new rows, given its own hyper-parameters."""
    return (
        isinstance(prior, GaussianProcess)
        and prior.covariance.traceable
        and isinstance(prior.mean, float)
    )


def _gaussian(
    prior: GaussianProcess, key: Key, x: Array, noise: Array, mask: Array
) -> tuple[Array, Array, Array, Any]:
    return gaussian_task(prior.covariance, prior.mean, key, x, noise, mask)


@partial(jax.jit, static_argnums=(0, 1))
def gaussian_task(
    covariance: Any, level: float, key: Key, x: Array, noise: Array, mask: Array
) -> tuple[Array, Array, Array, Any]:
    """Context targets (b, n), mean and sd of f at the queries (b, q), and the hyper-parameters.

    `x` (b, n + q, d): context rows, of which `mask` (b, n) are real, then queries. With the Cholesky
    factor L of the context's covariance and e ~ N(0, I), y = L e, and the mean at a query is
    (L^-1 k)' e: one factorisation draws the task and solves it (Rasmussen & Williams 2006, 2.25-26).
    """
    b, n = mask.shape
    k_hyper, k_noise = jax.random.split(key)
    hyper = covariance.draw(k_hyper, b)
    e = jax.random.normal(k_noise, (b, n))

    def one(hyper: Any, x: Array, noise: Array, mask: Array, e: Array) -> Any:
        context, queries = x[:n], x[n:]
        real = mask[:, None] * mask[None, :]
        gram = covariance.matrix(hyper, context, context) * real
        variance = jnp.diagonal(gram).max()
        ridge = noise**2 + _JITTER * jnp.where(variance > 0, variance, 1.0)
        # Padded rows are independent of all others, and of unit variance.
        gram = gram + jnp.diag(jnp.where(mask, ridge, 1.0))
        factor = jnp.linalg.cholesky(gram)
        cross = covariance.matrix(hyper, context, queries) * mask[:, None]
        solved = jax.scipy.linalg.solve_triangular(factor, cross, lower=True)
        prior_var = jax.vmap(lambda q: covariance.matrix(hyper, q[None], q[None])[0, 0])(queries)
        left = jnp.maximum(prior_var - jnp.sum(solved**2, axis=0), 1e-10 * prior_var)
        return factor @ e, solved.T @ e, jnp.sqrt(left)

    def all_of_them(hyper: Any, x: Array, noise: Array, mask: Array, e: Array) -> Any:
        return jax.vmap(one)(hyper, x, noise, mask.astype(x.dtype), e)

    y, mean, std = float64_island(all_of_them)(hyper, x, noise, mask, e)
    return jnp.where(mask, y + level, 0.0), mean + level, std, hyper


def _drawn(
    prior: Any, key: Key, x: Array, noise: Array, mask: Array
) -> tuple[Array, Array, Array, None]:
    """As `gaussian_task` for any prior: the drawn function is the law."""
    b, n = mask.shape
    k_function, k_noise = jax.random.split(key)
    if isinstance(prior, LatentPrior):
        f = _latent_draws(prior, k_function, x)
    else:
        f = _sampled_draws(prior, k_function, x)
    if not bool(jnp.isfinite(f).all()):
        raise InputError(f"{type(prior).__name__} drew function values that are not finite.")
    y = f[:, :n] + noise[:, None] * jax.random.normal(k_noise, (b, n))
    return jnp.where(mask, y, 0.0), f[:, n:], jnp.zeros_like(f[:, n:]), None


@eqx.filter_jit
def _latent_draws(prior: Any, key: Key, x: Array) -> Array:
    z = jax.random.normal(key, (len(x), prior.latent_size))
    return jax.vmap(prior.apply)(z, x)[..., 0]


def _sampled_draws(prior: Any, key: Key, x: Array) -> Array:
    """One call of the prior for each group of tasks with the same inputs (`_share_inputs`)."""
    starts = range(0, len(x), _group_size(len(x)))
    ends = [*starts[1:], len(x)]
    keys = jax.random.split(key, len(starts))
    draws = [
        jnp.asarray(prior.sample(k, x[i], j - i), jnp.float32)
        for k, i, j in zip(keys, starts, ends, strict=True)
    ]
    f = jnp.concatenate(draws)
    if f.shape != (len(x), x.shape[1], 1):
        raise InputError(
            f"{type(prior).__name__}.sample(key, x, s) must give (s, n, 1), here "
            f"({ends[0]}, {x.shape[1]}, 1); it gave {draws[0].shape}."
        )
    return f[..., 0]


def _group_size(size: int) -> int:
    return -(-size // _GROUPS)


def _share_inputs(x: Array) -> Array:
    """The inputs of the first task of each group, for all of its tasks."""
    step = _group_size(len(x))
    return jnp.repeat(x[::step], step, axis=0)[: len(x)]
