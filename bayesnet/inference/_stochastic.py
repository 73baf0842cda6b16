"""What samplers on minibatches share: settings, minibatches, gradients, refused steps.

A method is one file: a frozen dataclass of settings (subclass of `StochasticGradientMCMC`) and
one chain of it (a `ChainSampler`) whose moves call `minibatch_gradient` and end in `refuse`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError
from bayesnet._types import Array, Float, Key, PyTree
from bayesnet.data import Rows
from bayesnet.inference._sampling import MarkovChainMonteCarlo
from bayesnet.inference.model import LatentModel

# Latents are N(0, 1) a priori: a chain that comes here has diverged, though still finite.
FARTHEST = 1e3
# Steps of a compiled piece of the warm-up. Steps on minibatches are short (25 us for a small
# network): with the 25 of HMC the pieces would cost less than calling them.
CHUNK = 500


@dataclass(frozen=True)
class StochasticGradientMCMC(MarkovChainMonteCarlo):
    """Settings common to the samplers on minibatches; see `SGHMC`."""

    warmup: int = 10_000
    draws: int = 250
    thin: int = 100
    batch_size: int = 128
    step_size: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step_size is not None:
            require_between("step_size", self.step_size, 0, np.inf)


def require_between(name: str, value: Any, low: float, high: float) -> None:
    """Raise `InputError` unless `value` is a number strictly between `low` and `high`."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and value is not True
    if not number or not low < value < high:
        bounds = f"above {low:g}" if np.isinf(high) else f"between {low:g} and {high:g}"
        raise InputError(f"{name} must be a number {bounds}, got {value!r}.")


def minibatch(
    rows: Rows, key: Key, size: int, also: PyTree = None
) -> tuple[Rows, PyTree, Float[Array, ""]]:
    """`size` true rows chosen afresh, and the factor N / size of their sum of log likelihoods.

    Between them: the rows of `also`, arrays beside the table.

    The N true rows (the first ones; the rest is padding) are cut into `size` equal strata and
    one row is drawn from each: every row is as likely as any other, so that sums are unbiased,
    and their variance is at most that of rows drawn at random with or without replacement of
    a shuffled table. With `size >= N` it is the whole table, and the factor is 1.
    """
    if size >= rows.x.shape[0]:
        return rows, also, jnp.ones((), rows.y.dtype)
    n = jnp.sum(rows.mask)
    offsets = jax.random.uniform(key, (size,), jnp.float32)
    strata = jnp.arange(size)
    chosen = jnp.floor((strata + offsets) * (n / size)).astype(jnp.int32)
    # Rounding may reach n itself; a table of fewer rows than the batch is taken as it is.
    chosen = jnp.where(n <= size, strata, jnp.minimum(chosen, n - 1))
    factor = jnp.where(n <= size, 1.0, n / size).astype(rows.y.dtype)
    batch, beside = jax.tree.map(lambda a: a[chosen], (rows, also))
    return batch, beside, factor


def missing_share(rows: Rows, size: int) -> Float[Array, ""]:
    """1 - size / N, the share of the table that a minibatch leaves out; 0 if it is all there."""
    n = jnp.sum(rows.mask).astype(rows.y.dtype)
    return jnp.maximum(1 - size / n, 0.0)


def batch_log_density(
    model: LatentModel, z: Float[Array, " p"], rows: Rows, factor: Float[Array, ""]
) -> Float[Array, ""]:
    """`N / size * sum over the batch of log p(y | z) - |z|^2 / 2`: unbiased for the posterior's."""
    batch = eqx.tree_at(lambda m: m.rows, model, rows, is_leaf=lambda a: isinstance(a, Rows))
    return factor * batch.log_likelihood(z) + batch.log_prior(z)


def minibatch_gradient(
    model: LatentModel, z: Float[Array, " p"], key: Key, size: int
) -> tuple[Float[Array, ""], Float[Array, " p"]]:
    """The log density on a fresh minibatch, and its gradient."""
    rows, _, factor = minibatch(model.rows, key, size)
    return jax.value_and_grad(lambda at: batch_log_density(model, at, rows, factor))(z)


def is_sound(z: Float[Array, " p"], gradient: Float[Array, " p"]) -> Any:
    """Whether a chain may go to `z`: finite, not absurdly far out, and come by a finite force."""
    near = jnp.all(jnp.abs(z) < FARTHEST)  # False for NaN
    return near & jnp.all(jnp.isfinite(gradient))


def refuse(sound: Any, new: Any, old: Any) -> Any:
    """The state `new` where the step was sound, else `old`, leaf by leaf.

    A chain that has left the finite numbers never comes back; refused steps are counted as
    divergent, which the diagnostics say.
    """
    return jax.tree.map(lambda a, b: jnp.where(sound, a, b), new, old)
