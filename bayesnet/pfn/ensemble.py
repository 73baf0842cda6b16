"""A PFN averaged over views of a table: orders of its columns, monotone maps of columns and targets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from bayesnet._errors import InputError
from bayesnet._types import ArrayLike
from bayesnet.data import Data, Scaling, as_matrix, make_data
from bayesnet.pfn.bars import BarDistribution
from bayesnet.pfn.posterior import PFNPosterior, warn_of_far
from bayesnet.pfn.prediction import BarPrediction
from bayesnet.pfn.table_views import TableView, make_table_views


@dataclass(frozen=True, eq=False)
class PFNEnsemble:
    """A table that conditions a PFN in `ensemble` views, whose predictive laws are averaged.

    `data`: the table in scaled coordinates, as of `PFNPosterior`; `seed`: of orders of its columns where there
    are too many for all of them. See `bayesnet.pfn.table_views` for what a view is.
    """

    pfn: Any
    data: Data
    ensemble: int
    seed: int

    @cached_property
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

    def predict(self, x: ArrayLike, *, warn: bool = True) -> BarPrediction:
        """The predictive law at `x` (n, d), in the units of y: the equal mixture of what views say.

        Args:
            x: inputs in user units, n x d.
            warn: warn if rows lie far outside of what the PFN was trained on.

        Raises `InputError` for the wrong number of columns, NaN, or no rows.
        """
        scaled = self._scaled(x)
        if warn:
            warn_of_far(scaled)
        return self.prediction(scaled, [p.logits(v.inputs(scaled)) for v, p in self.members])

    def prediction(
        self, scaled: np.ndarray, logits: list[tuple[np.ndarray, np.ndarray]]
    ) -> BarPrediction:
        """The law in user units of logits (n, m, k) of y and of f, a pair a view, at scaled rows (n, d)."""
        y, f = (
            stack(
                [moved(self.pfn.law(pair[i]), v) for (v, _), pair in zip(self.members, logits, strict=True)]
            ).affine(self.data.scaling.y_loc, self.data.scaling.y_scale)
            for i in range(2)
        )  # fmt: skip
        joint = tuple(partial(p.correlations, v.inputs(scaled)) for v, p in self.members)
        return BarPrediction(y, f.mean, f, joint)

    def sample_paths(self, x: ArrayLike, num: int, seed: int = 0) -> np.ndarray:
        """`num` joint draws of new observations at `x` (n, d), point after point: (num, n, m).

        As `PFNPosterior.sample_paths`, each draw by one view, views in turn. Raises `InputError` as that.
        """
        scaled = self._scaled(x)
        if num < 1:
            raise InputError(f"num must be at least 1, got {num}.")
        out = np.empty((num, len(scaled), self.data.out_dim))
        for i, (view, posterior) in enumerate(self.members):
            mine = np.arange(i, num, self.ensemble)
            if len(mine):
                # Seeds of their own: views would all use the same uniforms.
                own = int(np.random.SeedSequence([seed, i]).generate_state(1)[0])
                out[mine] = view.back(posterior.sample_paths(view.inputs(scaled), len(mine), own))
        return self.data.scaling.y_out(out)

    @property
    def surprise(self) -> float:
        """How unlike its training data the PFN finds the table as it is; see `PFNPosterior.surprise`."""
        return PFNPosterior(self.pfn, self.data).surprise

    def save(self, path: str | Path) -> None:
        """Write this posterior, weights included, to one file (never a pickle)."""
        from bayesnet.posterior.saving import save

        save(self, path)

    def _scaled(self, x: ArrayLike) -> np.ndarray:
        return self.data.scaling.x_in(as_matrix(x, "X", columns=self.data.in_dim))


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


def stack(laws: list[BarDistribution]) -> BarDistribution:
    """Laws with leading axes (n, m) and edges of each output as one with leading axes (k, n, m)."""
    return BarDistribution(
        np.stack([law.logits for law in laws]),
        np.stack([law.edges for law in laws])[:, None],
        np.stack([law.tails for law in laws])[:, None],
    )
