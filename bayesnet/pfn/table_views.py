"""Views of a table of numbers: an order of its columns, monotone maps of columns and targets.

A network is not indifferent to the order of columns, nor a stationary prior to the scale in which a
column or the target is told; averages over views are less so. Views come in turns, each turn with
one pair of maps: for up to 3 columns a turn has every order of the columns, so that an ensemble of a multiple
of d! views treats all columns alike; for more columns a turn is one random order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from bayesnet.data import standardization
from bayesnet.pfn.power_map import PowerMap
from bayesnet.pfn.squash import robust_scale, squash

# Whether columns are squashed and targets mapped, turn after turn; then again from the start.
TURNS = ((False, False), (True, True), (False, True), (True, False))
# Numbers of columns of which a turn takes all orders.
MOST_ORDERED = 3


@dataclass(frozen=True)
class TableView:
    """One way to look at a table in scaled coordinates.

    `columns` (d,): their order; `squash` (2, d): the robust scale by which they are squashed, or None; `loc` and `scale`
    (d,): what standardises the result. `target`: the map of the targets, or None.
    """

    columns: np.ndarray
    squash: np.ndarray | None
    loc: np.ndarray
    scale: np.ndarray
    target: PowerMap | None

    def inputs(self, x: np.ndarray) -> np.ndarray:
        """Scaled rows (n, d) as the network sees them."""
        x = np.asarray(x, np.float64)[:, self.columns]
        return ((x if self.squash is None else squash(x, self.squash)) - self.loc) / self.scale

    def targets(self, y: np.ndarray) -> np.ndarray:
        """Scaled targets (n, m) as the network sees them."""
        return y if self.target is None else self.target.forward(y)

    def log_slope(self, y: np.ndarray) -> np.ndarray:
        """The log derivative of what the network sees in scaled targets (n, m)."""
        return np.zeros(np.shape(y)) if self.target is None else self.target.log_slope(y)

    def back(self, z: np.ndarray) -> np.ndarray:
        """Scaled targets (..., m) from what the network sees."""
        return z if self.target is None else self.target.inverse(z)


def make_table_views(x: np.ndarray, y: np.ndarray, ensemble: int, seed: int) -> list[TableView]:
    """`ensemble` views of a table x (n, d), y (n, m) in scaled coordinates; the first one is the table as it is."""
    x, d = np.asarray(x, np.float64), x.shape[1]
    target = PowerMap.fit(y)
    views = []
    for number in range(ensemble):
        order, turn = _order(d, number, seed)
        squashed, mapped = TURNS[turn % len(TURNS)]
        columns = x[:, order]
        robust = robust_scale(columns) if squashed else None
        loc, scale = np.zeros(d), np.ones(d)
        if robust is not None:
            loc, scale = standardization(squash(columns, robust))
        views.append(TableView(order, robust, loc, scale, target if mapped else None))
    return views


def _order(d: int, number: int, seed: int) -> tuple[np.ndarray, int]:
    """The order of d columns in view `number`, and its turn."""
    if d <= MOST_ORDERED:
        orders = list(permutations(range(d)))
        return np.array(orders[number % len(orders)]), number // math.factorial(d)
    if number == 0:
        return np.arange(d), 0
    return np.random.default_rng([seed, number, d]).permutation(d), number
