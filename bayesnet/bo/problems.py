"""Problems to try an optimizer on: standard functions, and tables of designs already measured.

The functions are BoTorch's, as objectives of a dictionary with a space, to be minimised. A `Pool` is
a table of designs with known outcomes: an optimizer chooses the next row, nothing in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from botorch.test_functions import Ackley, Branin, Hartmann

from bayesnet._errors import InputError, unknown_name
from bayesnet.data import check_table
from bayesnet.surrogates.tensors import as_tensor

FUNCTIONS: dict[str, Any] = {
    "branin": Branin,
    "hartmann6": partial(Hartmann, dim=6),
    "ackley2": partial(Ackley, dim=2),
    "ackley5": partial(Ackley, dim=5),
}


@dataclass(frozen=True, eq=False)
class Problem:
    """A function of `space` to minimise, itself the objective; `optimum` is its least value."""

    name: str
    space: dict[str, tuple[float, float]]
    optimum: float
    function: Any

    def __call__(self, params: dict[str, float]) -> float:
        """The value at `params`, without noise."""
        x = as_tensor([float(params[name]) for name in self.space])
        return float(self.function(x.unsqueeze(0)))


def problem(name: str) -> Problem:
    """The standard problem `name`: "branin", "hartmann6", "ackley2" or "ackley5".

    Raises `InputError` for an unknown name.
    """
    if name not in FUNCTIONS:
        raise unknown_name("problem", name, FUNCTIONS)
    function = FUNCTIONS[name]()
    space = {f"x{i}": (float(a), float(b)) for i, (a, b) in enumerate(function.bounds.T.tolist())}
    return Problem(name, space, float(function.optimal_value), function)


@dataclass(frozen=True, eq=False)
class Pool:
    """Designs `X` (n, d) with outcomes `y` (n,), in user units; one row is chosen at a time."""

    X: np.ndarray
    y: np.ndarray
    maximize: bool = True

    @staticmethod
    def of(X: Any, y: Any, *, maximize: bool = True) -> Pool:
        """A pool from a table, equal designs averaged to one.

        Raises `InputError` for a table that cannot be used or has a single design.
        """
        x_matrix, y_matrix, _ = check_table(X, y)
        if y_matrix.shape[1] != 1:
            raise InputError(f"A pool has one outcome; y has {y_matrix.shape[1]} columns.")
        designs, which = np.unique(x_matrix, axis=0, return_inverse=True)
        if len(designs) < 2:
            raise InputError("A pool needs at least two different designs.")
        which = which.ravel()
        means = np.bincount(which, weights=y_matrix[:, 0]) / np.bincount(which)
        return Pool(designs, means, maximize)

    @property
    def bounds(self) -> np.ndarray:
        """The range of the designs, (2, d); a constant column gets the width 1."""
        low, high = self.X.min(axis=0), self.X.max(axis=0)
        return np.stack([low, np.where(high > low, high, low + 1.0)])

    def top(self, share: float = 0.05) -> np.ndarray:
        """Which designs are among the best `share` (at least one), (n,) booleans."""
        up = self.y if self.maximize else -self.y
        count = max(1, round(share * len(up)))
        return up >= np.sort(up)[-count]

    def regret(self, chosen: np.ndarray) -> np.ndarray:
        """How far the best outcome is from the best so far, after each of `chosen` (k,)."""
        up = self.y if self.maximize else -self.y
        return up.max() - np.maximum.accumulate(up[chosen])

    def start(self, num: int, seed: int) -> np.ndarray:
        """`num` random designs to begin with, (num,) indices."""
        return np.random.default_rng(seed).permutation(len(self.y))[:num]
