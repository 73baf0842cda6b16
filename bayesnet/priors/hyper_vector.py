"""Random hyper-parameters as one vector, in NumPy: for searches that evaluate them many times."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._types import Key, PyTree
from bayesnet.priors.hyper import HALF_LOG_2PI, FreeHyper, FreeLaw, free_law, is_leaf
from bayesnet.priors.laws import LogNormal, Normal, is_law


class HyperVector:
    """The random ones of a tree of numbers and laws as a vector `u`, as in `FreeHyper`.

    In these coordinates a log-normal law is normal. Gradients are by hand for the laws of the
    library and by JAX for others.
    """

    proper = True

    def __init__(self, tree: PyTree) -> None:
        flat, structure = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)
        self._structure: Any = structure
        self._names = [jax.tree_util.keystr(path) for path, _ in flat]
        self._leaves = [leaf for _, leaf in flat]
        self._free = [free_law(leaf) if is_law(leaf) else None for leaf in self._leaves]
        self._source = FreeHyper(tree)
        self.has_density = self._source.has_density
        self.size = self._source.size if self.has_density else 0

    def _pieces(self, u: np.ndarray) -> list[Any]:
        """For each leaf the part of `u` that is its, or None."""
        out: list[Any] = []
        at = 0
        for free in self._free:
            if free is None:
                out.append(None)
                continue
            size = int(np.prod(free.shape))
            out.append(u[at : at + size].reshape(free.shape))
            at += size
        return out

    def tree(self, u: np.ndarray) -> PyTree:
        """The hyper-parameters that `u` (size,) stands for, as float64 arrays."""
        leaves = [
            np.asarray(leaf, np.float64) if free is None else _value(leaf, free, part)
            for leaf, free, part in zip(self._leaves, self._free, self._pieces(u), strict=True)
        ]
        return jax.tree.unflatten(self._structure, leaves)

    def pull(self, u: np.ndarray, by: PyTree) -> np.ndarray:
        """The gradient in `u` of something whose gradient in the hyper-parameters is `by`."""
        slopes = self._structure.flatten_up_to(by)
        parts = [
            np.ravel(_pull(leaf, free, part, np.asarray(slope)))
            for leaf, free, part, slope in zip(
                self._leaves, self._free, self._pieces(u), slopes, strict=True
            )
            if free is not None
        ]
        return np.concatenate(parts) if parts else np.zeros(0)

    def log_density(self, u: np.ndarray) -> tuple[float, np.ndarray]:
        """The log density of `u` and its gradient."""
        total, slopes = 0.0, [np.zeros(0)]
        for leaf, free, part in zip(self._leaves, self._free, self._pieces(u), strict=True):
            if free is None:
                continue
            if isinstance(leaf, (LogNormal, Normal)):
                scale = np.broadcast_to(leaf.scale, free.shape)
                z = (part - leaf.loc) / scale
                total += float(np.sum(-0.5 * z**2 - np.log(scale) - HALF_LOG_2PI))
                slopes.append(np.ravel(-z / scale))
                continue
            with jax.enable_x64(True):
                value, slope = jax.value_and_grad(free.log_density)(jnp.asarray(part))
                total += float(value)
                slopes.append(np.ravel(np.asarray(slope)))
        return total, np.concatenate(slopes)

    def draw(self, key: Key, num: int) -> np.ndarray:
        """`num` prior draws of `u` (num, size)."""
        with jax.enable_x64(True):
            return np.asarray(self._source.draw(key, num), np.float64)

    def named(self, u: np.ndarray) -> dict[str, Any]:
        """The values that are random, by name."""
        return {
            _label(name): np.asarray(_value(leaf, free, part)).tolist()
            for name, leaf, free, part in zip(
                self._names, self._leaves, self._free, self._pieces(u), strict=True
            )
            if free is not None
        }


class VarianceVector:
    """The positive ones of a dictionary of variances, as the vector of their logarithms.

    They have no law: their log density is 0, and searches start within a factor of about e of the
    stated ones. Zeros stay zero.
    """

    has_density = True
    proper = False

    def __init__(self, tree: dict[str, Any]) -> None:
        self._tree = {name: np.asarray(value, np.float64) for name, value in tree.items()}
        flat = [np.ravel(value) for value in self._tree.values()]
        self._start = np.concatenate([np.log(v[v > 0]) for v in flat])
        self.size = len(self._start)

    def tree(self, u: np.ndarray) -> PyTree:
        """The variances that `u` stands for, and nothing for the mean."""
        found, at = {}, 0
        for name, value in self._tree.items():
            out = np.array(value)
            count = int((value > 0).sum())
            out[value > 0] = np.exp(u[at : at + count])
            found[name] = out
            at += count
        return found, ()

    def pull(self, u: np.ndarray, by: PyTree) -> np.ndarray:
        """The gradient in `u` of something whose gradient in the variances is `by`."""
        values = self.tree(u)[0]
        slopes = by[0]
        return np.concatenate(
            [
                np.ravel((np.asarray(slopes[name]) * values[name])[value > 0])
                for name, value in self._tree.items()
            ]
        )

    def log_density(self, u: np.ndarray) -> tuple[float, np.ndarray]:
        """0, and its gradient."""
        return 0.0, np.zeros(self.size)

    def draw(self, key: Key, num: int) -> np.ndarray:
        """Where searches start."""
        return self._start + np.asarray(jax.random.normal(key, (num, self.size)), np.float64)

    def named(self, u: np.ndarray) -> dict[str, Any]:
        """The variances by name."""
        return {name: value.tolist() for name, value in self.tree(u)[0].items()}


def _label(path: str) -> str:
    """A readable name of a leaf of the trees of covariance and mean."""
    first, *rest = re.findall(r"\w+", path)
    return ".".join((["mean"] if first == "1" else []) + rest)


def _value(law: Any, free: FreeLaw, part: np.ndarray) -> np.ndarray:
    if isinstance(law, LogNormal):
        return np.exp(part)
    if isinstance(law, Normal):
        return part
    with jax.enable_x64(True):
        return np.asarray(free.value(jnp.asarray(part)), np.float64)


def _pull(law: Any, free: FreeLaw | None, part: np.ndarray, slope: np.ndarray) -> np.ndarray:
    if isinstance(law, LogNormal):
        return slope * np.exp(part)
    if isinstance(law, Normal):
        return slope
    assert free is not None
    with jax.enable_x64(True):
        _, back = jax.vjp(free.value, jnp.asarray(part))
        return np.asarray(back(jnp.asarray(slope))[0])
