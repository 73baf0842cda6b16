"""What a PFN says about new rows: bars for y, bars for the function, joint draws by a copula."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr

from bayesnet._errors import InputError, UnsupportedError
from bayesnet._types import ArrayLike
from bayesnet.pfn.bars import BarDistribution
from bayesnet.posterior.prediction import Prediction, check_level, generator

# Rows of which joint draws are made: the copula needs two encoded contexts for each.
MOST_JOINT = 256


@dataclass(frozen=True, eq=False, repr=False)
class BarPrediction(Prediction):
    """The predictive law of y at n points, as bars in the units of y: an equal mixture over k views.

    `components`: the laws of y, a `BarDistribution` with leading axes (k, n, m), k = 1 but for an
    ensemble of views; `latent`: the laws of the function, without noise; `values` (k, n, m): their means.
    `joint`: for each view the correlations of the function and of y between the points,
    (m, n, n) each, when called. `noise`: the variance (m,) of the noise at rows of the table, when called, if
    it is known to be the same everywhere. `parted`: whether there is a law of the function at all; where a
    `NumpyroModel` names no such site, `latent` is the law of y, and what asks for the function
    raises `UnsupportedError`.
    """

    latent: BarDistribution
    joint: tuple[Callable[[], tuple[np.ndarray, np.ndarray]], ...]
    parted: bool = True
    noise: Callable[[], np.ndarray] | None = None

    def _needs_function(self) -> None:
        if not self.parted:
            raise UnsupportedError(
                "This PFN was trained on a model that names no function without noise, and cannot tell "
                "the two apart: train it on bn.pfn.NumpyroModel(model, f=...)."
            )

    @property
    def epistemic_std(self) -> np.ndarray:
        """The sd of the function, (n, m), from the head that was trained on noise-free values.

        The two heads are not quite of one mind: it is at most what leaves an observation as much noise
        as rows of the table have, or half of its variance.
        """
        self._needs_function()
        whole = _variance(self.components)
        noise = 0.0 if self.noise is None else np.minimum(self.noise(), 0.5 * whole)
        return np.sqrt(np.minimum(_variance(self.latent), whole - noise))

    @property
    def aleatoric_std(self) -> np.ndarray:
        """The root of what the variance of y has beyond that of the function, (n, m)."""
        self._needs_function()
        return np.sqrt(np.maximum(self.std**2 - self.epistemic_std**2, 0.0))

    @property
    def std(self) -> np.ndarray:
        """The sd of a new observation, (n, m)."""
        return np.sqrt(_variance(self.components))

    def quantile(self, q: float) -> np.ndarray:
        """The predictive `q` quantile of a new observation, (n, m).

        Raises `InputError` unless 0 < q < 1.
        """
        check_level(q)
        if len(self.values) == 1:
            return super().quantile(q)
        return mixture_quantile(self.components, q)

    def expected_improvement(self, best: ArrayLike) -> np.ndarray:
        """`E[max(y - best, 0)]`, (n, m), in closed form; `best` in the units of y, a number or (n, m)."""
        return self.components.expected_improvement(self._targets(best)[None]).mean(axis=0)

    def probability_of_improvement(self, best: ArrayLike) -> np.ndarray:
        """`P(y > best)`, (n, m); `best` in the units of y, a number or (n, m)."""
        return 1 - self.cdf(best)

    def sample(
        self, key: Any, num: int = 1, *, joint: bool = True, noise: bool = True
    ) -> np.ndarray:
        """`num` draws at the n points, (num, n, m).

        Joint draws have the predictive law of every point and the correlations of a Gaussian
        copula (see `PFNPosterior.correlations`); `PFNPosterior.sample_paths` draws one point after
        the other instead. Of an ensemble each draw is one of a random view. Draws of the function are
        drawn together to the sd `epistemic_std`. Raises `InputError` for
        joint draws at more than 256 points.
        """
        if not noise:
            self._needs_function()
        rng = generator(key)
        law = self.components if noise else self.latent
        k, n, m = self.values.shape
        if joint and n > MOST_JOINT:
            raise InputError(
                f"Joint draws are made at most at {MOST_JOINT} points at once, got {n}; pass fewer, or "
                "joint=False for independent ones."
            )
        view = rng.integers(k, size=(num, 1 if joint else n)) if k > 1 else np.zeros((num, 1), int)
        out = np.empty((num, n, m))
        if not joint:
            u = rng.uniform(size=(num, n, m))
            for v in np.unique(view):
                drawn = _component(law, v).quantile(u)
                out = np.where((view == v)[..., None], drawn, out)
            return out if noise else self._drawn_together(out)
        for v in np.unique(view):
            mine = view[:, 0] == v
            correlation = self.joint[v]()[1 if noise else 0]
            roots = [_root(correlation[j]) for j in range(m)]
            z = np.stack([rng.standard_normal((mine.sum(), n)) @ r.T for r in roots], axis=-1)
            out[mine] = _component(law, v).quantile(ndtr(z))
        return out if noise else self._drawn_together(out)

    def _drawn_together(self, draws: np.ndarray) -> np.ndarray:
        """Draws of the function (num, n, m) about its mean, where the law of y is narrower than its own."""
        centre = self.latent.mean.mean(axis=0)
        share = self.epistemic_std / np.sqrt(_variance(self.latent))
        return centre + share * (draws - centre)


def mixture_quantile(law: BarDistribution, q: float) -> np.ndarray:
    """The `q` quantile (n, m) of the equal mixture over the first of the leading axes (k, n, m) of `law`.

    Between two neighbours among the edges of all components the distribution function is linear, but for
    tails: these are found first, then false position (the Illinois rule) goes on to 1e-10 in probability.
    """
    groups = _by_edges(law)

    def excess(y: np.ndarray) -> np.ndarray:
        return sum(share * part.cdf(y[None])[0] for part, share in groups) - q

    each = np.stack([part.quantile(q)[0] for part, _ in groups])
    low, high = _between_edges(groups, q, each.min(axis=0), each.max(axis=0))
    below, above = excess(low), excess(high)
    for _ in range(200):
        rise = above - below
        share = np.where(rise > 0, -below / np.where(rise > 0, rise, 1.0), 0.5)
        middle = low + np.clip(share, 0.0, 1.0) * (high - low)
        value = excess(middle)
        if np.all((np.abs(value) <= 1e-10) | (high <= low)):
            break
        up = value >= 0
        # An end that stays counts half from now on, or it would stay for ever.
        low, high = np.where(up, low, middle), np.where(up, middle, high)
        below, above = np.where(up, 0.5 * below, value), np.where(up, value, 0.5 * above)
    return middle


def _between_edges(
    groups: list[tuple[BarDistribution, float]], q: float, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`low` and `high` (n, m), drawn together to the edges of any component around the quantile."""
    low, high = low.copy(), high.copy()
    for j in range(low.shape[1]):
        grid = np.sort(np.concatenate([part.edges[0, 0, j] for part, _ in groups]))
        total = np.zeros((len(low), len(grid)))
        for part, share in groups:
            # Edges do not depend on the point: one search in the grid serves all.
            one = BarDistribution(
                part.logits[0, :, j, None], part.edges[0, 0, j], part.tails[0, 0, j]
            )
            total = total + share * one.cdf(grid[None])
        index = (total < q).sum(axis=1)
        ends = np.concatenate([[-np.inf], grid, [np.inf]])
        low[:, j] = np.maximum(low[:, j], ends[index])
        high[:, j] = np.minimum(high[:, j], ends[index + 1])
    return low, high


def _by_edges(law: BarDistribution) -> list[tuple[BarDistribution, float]]:
    """The mixture over the first leading axis with components of the same edges taken together, each
    with its share: mixtures of these are bars again."""
    shape = law.logits.shape
    edges = np.broadcast_to(law.edges, (len(law.logits), *law.edges.shape[-3:]))
    tails = np.broadcast_to(law.tails, (len(law.logits), *law.tails.shape[-3:]))
    groups: dict[bytes, list[int]] = {}
    for i in range(shape[0]):
        groups.setdefault(edges[i].tobytes() + tails[i].tobytes(), []).append(i)
    probs = law.probs
    return [
        (
            BarDistribution(
                np.log(np.maximum(probs[at].mean(axis=0, keepdims=True), 1e-300)),
                edges[at[:1]],
                tails[at[:1]],
            ),
            len(at) / shape[0],
        )
        for at in groups.values()
    ]


def _variance(law: BarDistribution) -> np.ndarray:
    """The variance (n, m) of the equal mixture over the first leading axis."""
    return law.variance.mean(axis=0) + law.mean.var(axis=0)


def _component(law: BarDistribution, index: int) -> BarDistribution:
    """One of the laws along the first leading axis, which stays, of length 1."""
    lead = law.logits.ndim

    def pick(a: np.ndarray) -> np.ndarray:
        return a[index : index + 1] if a.ndim == lead and len(a) > 1 else a

    return BarDistribution(pick(law.logits), pick(law.edges), pick(law.tails))


def _root(correlation: np.ndarray) -> np.ndarray:
    """A matrix R with unit rows and R R' the nearest correlation matrix by clipped eigenvalues."""
    values, vectors = np.linalg.eigh(correlation)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    return root / np.linalg.norm(root, axis=1, keepdims=True)
