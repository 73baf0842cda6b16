"""The processes of a family as one target: hyper-parameters come as further columns of the points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._types import Array, Float, Key
from bayesnet.devices import float64_island
from bayesnet.priors.gaussian_process import GaussianProcess, with_jitter
from bayesnet.priors.hyper import is_leaf
from bayesnet.priors.laws import is_law
from bayesnet.priors.matching.points import PointLaw


class FamilyPoints(PointLaw):
    """Points with latents of hyper-parameters as further columns, the same for one set of points."""

    points: PointLaw
    loc: Float[Array, " k"]
    scale: Float[Array, " k"]

    def draw(self, key: Key, num: int) -> Float[Array, "n d+k"]:
        return self._with(key, self.points.draw(key, num))

    def draw_ends(self, key: Key, num: int) -> tuple[Array, Array]:
        start, towards = self.points.draw_ends(key, num)
        return self._with(key, start), self._with(key, towards)

    def _with(self, key: Key, x: Float[Array, "n d"]) -> Float[Array, "n d+k"]:
        z = jax.random.normal(jax.random.fold_in(key, 1), self.loc.shape)
        columns = jnp.broadcast_to(self.loc + self.scale * z, (len(x), len(self.loc)))
        return jnp.concatenate([x, columns], axis=1)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = self.points.bounds()
        reach = 2 * np.asarray(self.scale)
        loc = np.asarray(self.loc)
        return np.concatenate([low, loc - reach]), np.concatenate([high, loc + reach])


class FamilyTarget:
    """The processes of a family; the latents of the hyper-parameters come as further columns."""

    def __init__(self, process: GaussianProcess) -> None:
        self.process = process
        self.units, self.out_dim = process.units, process.out_dim
        leaves, self._structure = jax.tree.flatten(process.covariance.hyper, is_leaf=is_leaf)
        self._leaves = tuple(leaves)
        self.size = sum(int(np.prod(leaf.shape)) for leaf in leaves if is_law(leaf))

    def hyper(self, z: Float[Array, " k"]) -> Any:
        """The hyper-parameters, shaped as those of the covariance, with latents `z`."""
        out, at = [], 0
        for leaf in self._leaves:
            if not is_law(leaf):
                out.append(jnp.asarray(leaf, z.dtype))
                continue
            size = int(np.prod(leaf.shape))
            out.append(leaf.transport(z[at : at + size].reshape(leaf.shape)))
            at += size
        return jax.tree.unflatten(self._structure, out)

    def at_median(self) -> Any:
        """The process with all hyper-parameters at their medians, as a target."""
        return _AtMedian(self)

    def sample(self, key: Key, x: Float[Array, "n d+k"], num_samples: int) -> Array:
        """Draws (s, n, m) of the process whose latents are the last columns of `x`."""
        return self.sample_many(key, x[None], num_samples)[0]

    def sample_many(self, key: Key, xs: Float[Array, "c n d+k"], num_samples: int) -> Array:
        """Draws (c, s, n, m), with hyper-parameters of its own for each set of rows."""
        draws = _draw(self, num_samples * self.out_dim, key, xs)
        split = draws.reshape(len(xs), num_samples, self.out_dim, xs.shape[1])
        return jnp.swapaxes(split, 2, 3) + self.process.mean


@dataclass(frozen=True)
class _AtMedian:
    family: FamilyTarget

    @property
    def units(self) -> str:
        return self.family.units

    def sample(self, key: Key, x: Array, num_samples: int) -> Array:
        return self.sample_many(key, jnp.asarray(x)[None], num_samples)[0]

    def sample_many(self, key: Key, xs: Array, num_samples: int) -> Array:
        zeros = jnp.zeros((*xs.shape[:2], self.family.size), xs.dtype)
        return self.family.sample_many(key, jnp.concatenate([xs, zeros], axis=2), num_samples)


@partial(jax.jit, static_argnums=(0, 1))
def _draw(family: FamilyTarget, num: int, key: Key, xs: Array) -> Float[Array, "c s n"]:
    """A program of its own: LAPACK calls beside a large gradient can dead-lock XLA on CPU."""
    noise = jax.random.normal(key, (len(xs), num, xs.shape[1]))
    d = xs.shape[2] - family.size

    def one(x: Array, noise: Array) -> Array:
        hyper = family.hyper(x[0, d:])
        matrix = family.process.covariance.matrix(hyper, x[:, :d], x[:, :d])
        return noise @ jnp.linalg.cholesky(with_jitter(matrix, jnp)).T

    return float64_island(lambda xs, noise: jax.lax.map(lambda a: one(*a), (xs, noise)))(xs, noise)
