"""Moments of many members of a mixture of processes at new rows, in one program."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg

from bayesnet._types import Array, Float, PyTree
from bayesnet.data import bucket_size, pad_rows
from bayesnet.priors.kernel_model import KernelModel
from bayesnet.priors.process_solution import Solution

# Inverse factors of all members are kept up to this many numbers.
MOST_NUMBERS = 1 << 24
_NONE = np.zeros(0)


class Members:
    """Processes that differ in hyper-parameters only, conditioned on one complete table.

    `of` gives None where members are of other kinds; `moments` are those of `Solution.moments`, by one
    compiled program for all members instead of a call each.
    """

    def __init__(self, solved: Sequence[tuple[KernelModel, Solution]], x: np.ndarray) -> None:
        self._covariance = solved[0][0].covariance
        blocks = [solution.blocks[0] for _, solution in solved]
        n, size = len(x), bucket_size(len(x))
        self._x = pad_rows(np.asarray(x, np.float64), size)
        inverse = np.zeros((len(solved), size, size))
        weights = np.zeros((len(solved), size, blocks[0].weights.shape[1]))
        for i, block in enumerate(blocks):
            inverse[i, :n, :n] = linalg.solve_triangular(block.factor, np.eye(n), lower=True)
            weights[i, :n] = block.weights
        trees = [model._hyper(_NONE)[0] for model, _ in solved]
        with jax.enable_x64(True):
            self._hyper = jax.tree.map(lambda *a: jnp.stack([jnp.asarray(v) for v in a]), *trees)
            self._inverse, self._weights = jnp.asarray(inverse), jnp.asarray(weights)

    @staticmethod
    def of(solved: Sequence[tuple[KernelModel, Solution]], x: np.ndarray) -> Members | None:
        """The members, or None where one program cannot serve them."""
        first = solved[0][0].covariance
        alike = all(
            model.traceable
            and model.process is not None
            and model.covariance == first
            and solution.scale.law is None
            and len(solution.blocks) == 1
            and isinstance(solution.blocks[0].factor, np.ndarray)
            and len(solution.blocks[0].rows) == len(x)
            for model, solution in solved
        )
        few = len(solved) * bucket_size(len(x)) ** 2 <= MOST_NUMBERS
        return Members(solved, x) if alike and few and len(solved) > 1 else None

    def moments(
        self, new: np.ndarray
    ) -> tuple[Float[np.ndarray, "k q m"], Float[np.ndarray, "k q m"]]:
        """Residual mean and variance of f at scaled rows (q, d), for every member."""
        rows = pad_rows(np.asarray(new, np.float64), bucket_size(len(new)))
        with jax.enable_x64(True):
            mean, variance = _moments(
                self._covariance, self._hyper, self._inverse, self._weights, self._x, rows
            )
        out = np.asarray(mean)[:, : len(new)], np.asarray(variance)[:, : len(new)]
        return out[0], np.broadcast_to(out[1][..., None], out[0].shape)


@partial(jax.jit, static_argnums=0)
def _moments(
    covariance: Any, hyper: PyTree, inverse: Array, weights: Array, x: Array, new: Array
) -> tuple[Float[Array, "k q m"], Float[Array, "k q"]]:
    # Padded rows of the table have weight 0 and rows of the inverse 0.
    def one(args: tuple[PyTree, Array, Array]) -> tuple[Array, Array]:
        hyper, inverse, weights = args
        cross = covariance.matrix(hyper, new, x)
        prior = jax.vmap(lambda r: covariance.matrix(hyper, r[None], r[None])[0, 0])(new)
        explained = jnp.sum((cross @ inverse.T) ** 2, axis=1)
        return cross @ weights, jnp.maximum(prior - explained, 0.0)

    return jax.lax.map(one, (hyper, inverse, weights))
