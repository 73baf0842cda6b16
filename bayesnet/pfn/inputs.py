"""Laws of the inputs of training tasks, in scaled coordinates (about mean 0 and sd 1 a column)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError
from bayesnet._types import Array, Float, Key
from bayesnet.pfn.warps import warped
from bayesnet.priors.matching.points import as_point_law

KINDS = ("uniform", "normal", "clustered", "skewed", "binary")
# Queries beyond the context are drawn from this box around it.
WIDE = 2.5
# Far from the indices of keys that are split off: `fold_in(key, i)` is `split(key, n)[i]`.
WARP = 1_000_003


class InputLaw(Protocol):
    """Inputs of `size` tasks."""

    def draw(
        self, key: Key, size: int, rows: int, queries: int, d: int
    ) -> tuple[Float[Array, "b n d"], Float[Array, "b n d"]]:
        """Inputs, the last `queries` of the `rows` being queries, and what the prior sees of them."""
        ...


@dataclass(frozen=True)
class MixedInputs:
    """Every column of every task has a law of its own.

    Args:
        weights: how often a column is uniform, normal, in three clusters (the same for all
            clustered columns of a task), skewed (log-normal), or binary.
        unused: the probability that the function ignores a column. Columns are independent of each
            other but for this: tables whose columns would all be ignored are left out.
        wide: the probability that a task's queries are uniform in the box [-2.5, 2.5] instead of
            following the law of the context.
        warped: the probability that the prior sees a column through a random monotone map
            (`bayesnet.pfn.warps`), which makes functions that are not stationary.

    Raises `InputError` for weights or probabilities out of range.
    """

    weights: tuple[float, ...] = (0.35, 0.35, 0.1, 0.1, 0.1)
    unused: float = 0.15
    wide: float = 0.3
    warped: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(float(w) for w in self.weights))
        if len(self.weights) != len(KINDS) or min(self.weights) < 0 or sum(self.weights) <= 0:
            raise InputError(
                f"weights are {len(KINDS)} numbers, 0 or more, for {', '.join(KINDS)}."
            )
        if not (0 <= self.unused < 1 and 0 <= self.wide <= 1 and 0 <= self.warped <= 1):
            raise InputError("unused, wide and warped are probabilities.")

    def __repr__(self) -> str:
        # Checkpoints and cards name inputs as they did before there were warps.
        last = f", warped={self.warped}" if self.warped else ""
        return f"MixedInputs(weights={self.weights}, unused={self.unused}, wide={self.wide}{last})"

    def draw(self, key: Key, size: int, rows: int, queries: int, d: int) -> tuple[Array, Array]:
        """See `InputLaw`."""
        x, seen = _mixed(replace(self, warped=0.0), size, rows, queries, d, key)
        if self.warped:
            # A key of its own: what is drawn without warps stays what it was.
            seen = warped(self.warped, jax.random.fold_in(key, WARP), seen)
        return x, seen


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _mixed(
    law: MixedInputs, size: int, rows: int, queries: int, d: int, key: Key
) -> tuple[Array, Array]:
    k = jax.random.split(key, 9)
    shape = (size, rows, d)
    u = jax.random.uniform(k[0], shape, minval=-1.0, maxval=1.0)
    z = jax.random.normal(k[1], shape)
    centres = jax.random.normal(k[2], (size, 3, d))
    which = jax.random.randint(k[3], (size, rows), 0, 3)
    clustered = jnp.take_along_axis(centres, which[..., None], axis=1) + 0.25 * z
    skewed = (jnp.exp(0.7 * z) - np.exp(0.245)) / np.sqrt(np.exp(0.98) - np.exp(0.49))
    columns = jnp.stack([np.sqrt(3.0) * u, z, clustered, skewed, jnp.where(z > 0, 1.0, -1.0)])
    weights = jnp.asarray(law.weights)
    if d == 1:  # a function of one binary column is two numbers
        weights = weights.at[KINDS.index("binary")].set(0.0)
    kind = jax.random.choice(k[4], len(KINDS), (size, 1, d), p=weights / weights.sum())
    x = jnp.take_along_axis(columns, kind[None], axis=0)[0]
    beyond = jax.random.uniform(k[5], (size, 1, 1)) < law.wide
    late = jnp.arange(rows)[:, None] >= rows - queries
    x = jnp.where(beyond & late & (kind != KINDS.index("binary")), WIDE * u, x)
    # The first column with an effect is number j in proportion to unused^j; those after it are free.
    column = jnp.arange(d)
    share = jnp.asarray(law.unused, jnp.float32) ** column
    first = jax.random.choice(k[7], d, (size, 1, 1), p=share / share.sum())
    later = jax.random.uniform(k[6], (size, 1, d)) >= law.unused
    return x, x * jnp.where(column > first, later, column == first)


def log_prob_relevant(relevant: np.ndarray, unused: float) -> np.ndarray:
    """The log probability (s,) that just the columns `relevant` (s, d) have an effect in a task of
    `MixedInputs` with that `unused`; -inf where none has."""
    d = relevant.shape[1]
    count = relevant.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        without = np.where(count < d, (d - count) * np.log(unused), 0.0)
    free = count * np.log1p(-unused) + without - np.log1p(-(unused**d))
    found: np.ndarray = np.where(count > 0, free, -np.inf)
    return found


@dataclass(frozen=True)
class PointInputs:
    """Inputs as `bn.match_prior` takes them: a table of rows, or `bn.Box`, `bn.Near`, `bn.Mix`."""

    points: Any

    def draw(self, key: Key, size: int, rows: int, queries: int, d: int) -> tuple[Array, Array]:
        """See `InputLaw`. Raises `InputError` where the points have not d columns."""
        x = _points(as_point_law(self.points, d), size, rows, key)
        return x, x


@eqx.filter_jit
def _points(law: Any, size: int, rows: int, key: Key) -> Array:
    return jax.vmap(lambda q: law.draw(q, rows))(jax.random.split(key, size))


def as_input_law(inputs: Any) -> InputLaw:
    """The law that `inputs` of `PFN.train` stands for; `MixedInputs()` if None."""
    if inputs is None:
        return MixedInputs()
    if isinstance(inputs, (MixedInputs, PointInputs)):
        return inputs
    return PointInputs(inputs)
