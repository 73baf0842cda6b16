"""A PFN averaged over views of a table: orders of its columns, monotone maps of columns and targets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from bayesnet import devices
from bayesnet._errors import InputError
from bayesnet._repr import fitted_to, typicality
from bayesnet._scales import check_near
from bayesnet._types import ArrayLike
from bayesnet.data import Data, Scaling, make_data
from bayesnet.pfn.bars import BarDistribution
from bayesnet.pfn.posterior import PFNPosterior, warn_of_far
from bayesnet.pfn.prediction import BarPrediction
from bayesnet.pfn.table_views import TableView, make_table_views

# Components of an average with weights, in whole numbers of which weights are told; at least two a view.
COMPONENTS = 16
# The power of the evidence by which views are weighed: maps are fitted to the table, which its evidence
# does not know, and nodes tell it roughly. On made-up tables a half is a little better than 1 (docs/benchmarks.md).
SHARPNESS = 0.5


@dataclass(frozen=True, eq=False)
class PFNEnsemble:
    """A table that conditions a PFN in `ensemble` views, whose predictive laws are averaged.

    Views of a quadrature (`bayesnet.pfn.quadrature`, the weights "gp") are weighed by the root of their
    evidence (with the derivative of the map of the targets); others equally.

    `data`: the table in scaled coordinates, as of `PFNPosterior`; `seed`: of orders of its columns where there
    are too many for all of them. See `bayesnet.pfn.table_views` for what a view is.
    """

    pfn: Any
    data: Data
    ensemble: int
    seed: int

    def __repr__(self) -> str:
        what = f"weights {self.pfn.card['name']!r} in {self.ensemble} views"
        table = (self.data.num_rows, self.data.in_dim, self.data.out_dim)
        return fitted_to(self, what, table, typicality(self))

    @cached_property
    @devices.single_precision()
    def members(self) -> list[tuple[TableView, PFNPosterior]]:
        """Each view, and the PFN conditioned on the table as seen in it."""
        x, y = self.data.x, self.data.y
        views = make_table_views(x, y, self.ensemble, self.seed)
        plain = Scaling.identity(self.data.in_dim, self.data.out_dim)
        return [
            (
                v,
                PFNPosterior(
                    self.pfn,
                    make_data(v.inputs(x), v.targets(y), None, plain, pad=False, host=True),
                ),
            )
            for v in views
        ]

    @devices.single_precision()
    def predict(self, x: ArrayLike, *, warn: bool = True) -> BarPrediction:
        """The predictive law at `x` (n, d), in the units of y: the mixture of what views say.

        Args:
            x: inputs in user units, n x d.
            warn: warn if rows lie far outside of what the PFN was trained on.

        Raises `InputError` for the wrong number of columns, NaN, or no rows.
        """
        scaled = self._scaled(x)
        if warn:
            warn_of_far(scaled)
        logits = [p.logits(v.inputs(scaled)) for v, p in self.members]
        return self.prediction(scaled, logits, self._components)

    @cached_property
    def _components(self) -> np.ndarray:
        return self.components([p.log_evidence for _, p in self.members])

    def components(self, log_evidence: list[np.ndarray | None]) -> np.ndarray:
        """Which view each component of the equal mixture is of, for every output: (s, m) whole numbers.

        `log_evidence`: of the table in each view (m,), as `PFNPosterior.log_evidence`. Without, every view is one
        component.
        """
        y, views = self.data.y, [v for v, _ in self.members]
        seen = [
            e + v.log_slope(y).sum(axis=0)
            for e, v in zip(log_evidence, views, strict=True)
            if e is not None
        ]
        if not seen:
            return np.repeat(np.arange(len(views))[:, None], y.shape[1], axis=1)
        log_weight = SHARPNESS * np.stack(seen)
        weight = np.exp(log_weight - log_weight.max(axis=0))
        size = max(COMPONENTS, 2 * len(views))
        return np.stack([allotted(w / w.sum(), size) for w in weight.T], axis=1)

    def prediction(
        self,
        scaled: np.ndarray,
        logits: list[tuple[np.ndarray, np.ndarray]],
        components: np.ndarray,
    ) -> BarPrediction:
        """The law in user units of logits (n, m, k) of y and of f, a pair a view, at scaled rows (n, d).

        `components` (s, m): the view of each component, as `components` gives.
        """
        views = [v for v, _ in self.members]
        y, f = (
            stack([moved(self.pfn.law(p[i]), v) for v, p in zip(views, logits, strict=True)], components)
            .affine(self.data.scaling.y_loc, self.data.scaling.y_scale)
            for i in range(2)
        )  # fmt: skip
        each = [cache(partial(p.correlations, v.inputs(scaled))) for v, p in self.members]

        def joint(row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            pairs = [each[view]() for view in row]
            of_f, of_y = (np.stack([p[i][j] for j, p in enumerate(pairs)]) for i in range(2))
            return of_f, of_y

        return BarPrediction(y, f.mean, f, tuple(partial(joint, row) for row in components))

    @devices.single_precision()
    def sample_paths(self, x: ArrayLike, num: int, seed: int = 0) -> np.ndarray:
        """`num` joint draws of new observations at `x` (n, d), point after point: (num, n, m).

        As `PFNPosterior.sample_paths`, each draw by one view, components in turn. Raises `InputError` as that.
        """
        scaled = self._scaled(x)
        if num < 1:
            raise InputError(f"num must be at least 1, got {num}.")
        out = np.empty((num, len(scaled), self.data.out_dim))
        turns = self._components[np.arange(num) % len(self._components)]
        for i, (view, posterior) in enumerate(self.members):
            mine = turns == i
            draws = mine.any(axis=1)
            if draws.any():
                # Seeds of their own: views would all use the same uniforms.
                own = int(np.random.SeedSequence([seed, i]).generate_state(1)[0])
                paths = posterior.sample_paths(view.inputs(scaled), int(draws.sum()), own)
                out[draws] = np.where(mine[draws][:, None], view.back(paths), out[draws])
        return self.data.scaling.y_out(out)

    @property
    @devices.single_precision()
    def surprise(self) -> float:
        """How unlike its training data the PFN finds the table as it is; see `PFNPosterior.surprise`."""
        return PFNPosterior(self.pfn, self.data).surprise

    def save(self, path: str | Path) -> None:
        """Write this posterior, weights included, to one file (never a pickle)."""
        from bayesnet.posterior.saving import save

        save(self, path)

    def _scaled(self, x: ArrayLike) -> np.ndarray:
        scaled = self.data.scaling.x_in(self.data.scaling.matrix(x))
        check_near(scaled, np.float32)
        return scaled


def check_ensemble(ensemble: Any) -> int:
    """A number of views. Raises `InputError` unless it is a whole number of at least 1."""
    whole = isinstance(ensemble, (int, np.integer)) and not isinstance(ensemble, bool)
    if not whole or ensemble < 1:
        raise InputError(f"ensemble is a whole number of at least 1, got {ensemble!r}.")
    return int(ensemble)


def moved(law: BarDistribution, view: TableView) -> BarDistribution:
    """The law of scaled targets where `law` (n, m) is one of the targets that `view` shows.

    Edges of bars are moved, and so are the points one scale beyond the outer ones; their probabilities stay, which
    is exact, and between two edges the density is as constant as it was before.
    """
    outputs = law.logits.shape[1]

    def back(a: np.ndarray) -> np.ndarray:
        """`a` (e,) for every output, (m, e)."""
        return view.back(np.repeat(a[:, None], outputs, axis=1)).T

    edges = back(law.edges)
    ends = back(np.array([law.edges[0] - law.tails[0], law.edges[-1] + law.tails[1]]))
    tails = np.stack([edges[:, 0] - ends[:, 0], ends[:, 1] - edges[:, -1]], axis=1)
    return BarDistribution(law.logits, edges, tails)


def stack(laws: list[BarDistribution], components: np.ndarray) -> BarDistribution:
    """Laws with leading axes (n, m) and edges of each output as one with leading axes (s, n, m), of which
    component i of output j is that of law `components[i, j]`."""
    outputs = np.arange(components.shape[1])
    logits = np.stack([law.logits for law in laws])[components, :, outputs]  # s m n k
    return BarDistribution(
        np.swapaxes(logits, 1, 2),
        np.stack([law.edges for law in laws])[components, outputs][:, None],
        np.stack([law.tails for law in laws])[components, outputs][:, None],
    )


def allotted(weight: np.ndarray, size: int) -> np.ndarray:
    """`size` whole numbers below k, each as often as its weight (k,) says, by largest remainders; mixed well."""
    share = weight * size
    count = np.floor(share).astype(int)
    count[np.argsort(count - share, kind="stable")[: size - count.sum()]] += 1
    place = np.concatenate([(np.arange(c) + 0.5) / c for c in count if c])
    return np.repeat(np.arange(len(weight)), count)[np.argsort(place, kind="stable")]
