"""Views of a table of labels: an order of its classes, an order and a scale of its columns.

A network is not indifferent to the order of columns and classes, nor to monotone maps of a column;
averages over views are. View number m has class order m mod K! and column view m // K!, so that
an ensemble of a multiple of K! views treats all names of the classes alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np

from bayesnet._scales import affine_in, standardization
from bayesnet.pfn.class_tasks import FAR
from bayesnet.pfn.squash import robust_scale, squash

# What to do with tables of more columns than the network accepts.
WIDER = ("error", "project", "subsample")


@dataclass(frozen=True)
class View:
    """One way to look at a table.

    `project` (d, r): columns in user units, less `loc` and over `scale`, times this; or None.
    `columns`: which of them in which order; `squash`: take asinh of twice the robustly scaled column;
    `centre` and `spread`: what standardises the result. `order` (K,): slot j holds class order[j].
    """

    loc: np.ndarray
    scale: np.ndarray
    project: np.ndarray | None
    columns: np.ndarray
    squash: np.ndarray | None
    centre: np.ndarray
    spread: np.ndarray
    order: np.ndarray

    def inputs(self, x: np.ndarray) -> np.ndarray:
        """User rows (n, d) as the network sees them."""
        return np.clip((self._raw(x) - self.centre) / self.spread, -FAR, FAR)

    def _raw(self, x: np.ndarray) -> np.ndarray:
        scaled = affine_in(x, self.loc, self.scale)
        if self.project is not None:
            scaled = scaled @ self.project
        scaled = scaled[:, self.columns]
        if self.squash is None:
            return scaled
        return squash(scaled, self.squash)

    @property
    def slots(self) -> np.ndarray:
        """The slot of each class, (K,)."""
        return np.argsort(self.order)


def make_views(
    x: np.ndarray, classes: int, max_dim: int, ensemble: int, wider: str, seed: int
) -> list[View]:
    """`ensemble` views of a table `x` (n, d); the first one is the table as it is.

    Every other column view is squashed, which draws outliers near. Of more than `max_dim` columns
    "project" keeps the first principal components, in their order, with signs of each view's own;
    "subsample" a random choice for each view.
    """
    loc, scale = standardization(x)
    scaled = affine_in(x, loc, scale)
    d, project = x.shape[1], None
    if d > max_dim and wider == "project":
        _, _, right = np.linalg.svd(scaled, full_matrices=True)
        project, d = right[:max_dim].T, max_dim
    kept = min(d, max_dim)
    orders = _orders(classes, seed)
    views = []
    for m in range(ensemble):
        turn = m // len(orders)
        rng = np.random.default_rng([seed, turn, 1])
        chosen, components = np.arange(d), project
        if project is not None:
            # Their order tells of their variance; their signs tell nothing.
            components = project * (rng.choice([-1.0, 1.0], size=d) if turn else 1.0)
        elif turn or kept < d:
            chosen = rng.permutation(d)[:kept]
        source = (scaled if components is None else scaled @ components)[:, chosen]
        robust = robust_scale(source) if turn % 2 else None
        view = View(
            loc,
            scale,
            components,
            chosen,
            robust,
            np.zeros(kept),
            np.ones(kept),
            orders[m % len(orders)],
        )
        centre, spread = standardization(view._raw(x))
        # Projections on nothing are 0 up to rounding: they have no scale.
        spread = np.where(spread > 1e-9, spread, 1.0)
        views.append(replace(view, centre=centre, spread=spread))
    return views


def _orders(classes: int, seed: int) -> list[np.ndarray]:
    """Every order of the classes, or 1,000 random ones; the given order first."""
    rng = np.random.default_rng([seed, classes])
    if math.factorial(classes) <= 1000:
        found = [np.array(p) for p in permutations(range(classes))]
        rest = rng.permutation(len(found) - 1) + 1
        return [found[0], *(found[i] for i in rest)]
    return [np.arange(classes), *(rng.permutation(classes) for _ in range(999))]
