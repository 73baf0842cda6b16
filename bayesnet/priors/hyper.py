"""Random hyper-parameters as one unconstrained vector with a density, for optimisers and
importance samplers; everything here runs in float64 inside the caller's scope."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._types import Array, Key, PyTree
from bayesnet.priors.laws import LogNormal, Normal, is_law

HALF_LOG_2PI = 0.5 * float(np.log(2.0 * np.pi))


def is_leaf(value: Any) -> bool:
    """Whether a node of a hyper tree is one hyper-parameter: a law, a number, or a vector."""
    vector = isinstance(value, tuple) and value and all(isinstance(v, float) for v in value)
    return is_law(value) or bool(vector)


@dataclass(frozen=True)
class FreeLaw:
    """A law on the whole line of `u`: `value(u)` has the law, `log_density(u)` is that of `u`."""

    shape: tuple[int, ...]
    value: Callable[[Array], Array]
    free: Callable[[Array], Array]
    log_density: Callable[[Array], Array]


def free_law(law: Any) -> FreeLaw | None:
    """`law` on an unconstrained axis, or None where it has no density."""
    if isinstance(law, (LogNormal, Normal)):
        loc, scale = np.asarray(law.loc), np.asarray(law.scale)

        def log_density(u: Array) -> Array:
            return jnp.sum(-0.5 * ((u - loc) / scale) ** 2 - jnp.log(scale) - HALF_LOG_2PI)

        if isinstance(law, Normal):
            return FreeLaw(law.shape, lambda u: u, lambda v: v, log_density)
        return FreeLaw(law.shape, jnp.exp, jnp.log, log_density)
    if not (hasattr(law, "log_prob") and hasattr(law, "support")):
        return None
    from numpyro.distributions import biject_to

    bijection = biject_to(law.support)

    def log_density_of(u: Array) -> Array:
        value = bijection(u)
        jacobian = bijection.log_abs_det_jacobian(u, value)
        return jnp.sum(law.log_prob(value)) + jnp.sum(jacobian)

    return FreeLaw(tuple(law.shape()), bijection, bijection.inv, log_density_of)


class FreeHyper:
    """The random hyper-parameters of a tree of numbers and laws as one vector `u`."""

    def __init__(self, tree: PyTree) -> None:
        self._leaves, self._structure = jax.tree.flatten(tree, is_leaf=is_leaf)
        self._free = [free_law(leaf) if is_law(leaf) else None for leaf in self._leaves]
        self.has_density = all(
            f is not None for f, leaf in zip(self._free, self._leaves, strict=True) if is_law(leaf)
        )
        self.size = sum(int(np.prod(f.shape)) for f in self._free if f is not None)

    def tree(self, u: Array) -> PyTree:
        """The hyper-parameters that `u` (size,) stands for."""
        out, at = [], 0
        for leaf, free in zip(self._leaves, self._free, strict=True):
            if free is None:
                out.append(jnp.asarray(leaf))
                continue
            size = int(np.prod(free.shape))
            out.append(free.value(u[at : at + size].reshape(free.shape)))
            at += size
        return jax.tree.unflatten(self._structure, out)

    def log_density(self, u: Array) -> Array:
        """The log prior density of `u`."""
        total, at = jnp.zeros(()), 0
        for free in self._free:
            if free is None:
                continue
            size = int(np.prod(free.shape))
            total = total + free.log_density(u[at : at + size].reshape(free.shape))
            at += size
        return total

    def draw(self, key: Key, num: int) -> Array:
        """`num` prior draws of `u` (num, size)."""
        columns = []
        for i, (leaf, free) in enumerate(zip(self._leaves, self._free, strict=True)):
            if free is not None:
                drawn = jnp.asarray(leaf.sample(jax.random.fold_in(key, i), (num,)))
                columns.append(free.free(drawn).reshape(num, -1))
        return jnp.concatenate(columns, axis=1)

    def draw_trees(self, key: Key, num: int) -> PyTree:
        """`num` prior draws as trees with a leading axis; needs no density."""
        out = []
        for i, leaf in enumerate(self._leaves):
            if is_law(leaf):
                out.append(jnp.asarray(leaf.sample(jax.random.fold_in(key, i), (num,))))
            else:
                value = jnp.asarray(leaf)
                out.append(jnp.broadcast_to(value, (num, *value.shape)))
        return jax.tree.unflatten(self._structure, out)
