"""What an exact posterior says about new rows: one normal or Student-t law, or a weighted mixture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import special
from scipy.special import gammaln, logsumexp

from bayesnet._types import ArrayLike
from bayesnet.likelihoods.gaussian import Normal
from bayesnet.likelihoods.student_t import StudentTLaw
from bayesnet.posterior.prediction import Prediction, check_level, generator, targets_like

# Components of the equal mixture that stands in for a weighted one in scores that need it.
EQUAL = 256
_LOG_2PI = float(np.log(2.0 * np.pi))


@dataclass(frozen=True, eq=False, repr=False)
class ProcessPrediction(Prediction):
    """The predictive law of y at n points, in the units of y; a `bn.Prediction`.

    A mixture over j nodes (scales, hyper-parameters), j = 1 for a Gaussian or Student-t process:
    `location`, `function_scale`, `noise_scale` (j, n, m), `log_weight` (j, m), `df` (m,) or None for
    normal laws; `tail` (m,): moments of order 2 * `tail` and beyond are infinite, and reported so.
    `joint_covariance(node, output)` gives the (n, n) matrix of f, df's scale matrix where Student-t;
    `member` (j,) numbers the hyper-parameters of a node, `shared` says that one scale serves all
    outputs, `noise_inside` that the noise has the scale of the function (and its tail). `components` and `values` are an equal mixture near to it, for scores that need one;
    made when they are asked for.
    """

    components: Any = field(init=False, repr=False)
    values: np.ndarray = field(init=False, repr=False)
    location: np.ndarray
    function_scale: np.ndarray
    noise_scale: np.ndarray
    log_weight: np.ndarray
    df: np.ndarray | None
    tail: np.ndarray
    member: np.ndarray
    shared: bool
    joint_covariance: Callable[[int, int], np.ndarray]
    noise_inside: bool = True

    def __getattr__(self, name: str) -> Any:
        # Reached for what is not there (yet): hundreds of components a point take longer to make
        # than all else in a prediction.
        if name not in ("components", "values"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        equal = equal_mixture(
            self.location, self.function_scale, self.noise_scale, self.df, self.log_weight
        )
        object.__setattr__(self, "components", equal)
        object.__setattr__(self, "values", equal.location)
        return getattr(self, name)

    @property
    def _law(self) -> Any:
        return law_of(self.location, self.function_scale, self.noise_scale, self.df)

    @property
    def _weight(self) -> np.ndarray:
        """(j, 1, m)."""
        return np.exp(self.log_weight)[:, None, :]

    @property
    def _inflation(self) -> np.ndarray:
        """The variance of a law over its squared scale, (m,): infinite where it has none."""
        if self.df is not None:
            excess = np.where(self.df > 2, self.df - 2, 1.0)
            return np.where(self.df > 2, self.df / excess, np.inf)
        return np.where(self.tail > 1, 1.0, np.inf)

    @property
    def mean(self) -> np.ndarray:
        """The predictive mean, (n, m); NaN where it does not exist."""
        mean = np.sum(self._weight * self.location, axis=0)
        return np.where(self.tail > 0.5, mean, np.nan)

    @property
    def epistemic_std(self) -> np.ndarray:
        """The sd of the function, (n, m); infinite where its variance is."""
        between = np.sum(self._weight * (self.location - self.mean) ** 2, axis=0)
        return np.sqrt(between + _inflate(self._weight, self.function_scale, self._inflation))

    @property
    def aleatoric_std(self) -> np.ndarray:
        """The root of the mean noise variance, (n, m)."""
        inflation = self._inflation if self.noise_inside else np.ones_like(self.tail)
        return np.sqrt(_inflate(self._weight, self.noise_scale, inflation))

    @property
    def std(self) -> np.ndarray:
        """The sd of a new observation, (n, m)."""
        return np.hypot(self.epistemic_std, self.aleatoric_std)

    def log_prob(self, y: ArrayLike) -> np.ndarray:
        """Log density at `y` (n, m), noise included, in the units of y; (n, m)."""
        terms = self._law.log_prob(self._targets(y)[None])
        return logsumexp(terms + self.log_weight[:, None, :], axis=0)

    def cdf(self, y: ArrayLike) -> np.ndarray:
        """Probability of an observation at or below `y`, (n, m)."""
        return np.sum(self._weight * self._law.cdf(self._targets(y)[None]), axis=0)

    def quantile(self, q: float) -> np.ndarray:
        """The predictive `q` quantile of a new observation, (n, m), by bisection over mixtures.

        Raises `InputError` unless 0 < q < 1.
        """
        check_level(q)
        law, weight = self._law, self._weight
        each = law.quantile(q)
        low, high = each.min(axis=0), each.max(axis=0)
        for _ in range(80):
            middle = 0.5 * (low + high)
            if np.all((middle <= low) | (middle >= high)):
                break
            above = np.sum(weight * law.cdf(middle[None]), axis=0) >= q
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        return 0.5 * (low + high)

    def expected_improvement(self, best: ArrayLike) -> np.ndarray:
        """`E[max(y - best, 0)]`, (n, m), in closed form; `best` in the units of y, a number or (n, m).

        Infinite where a Student-t law has no mean.
        """
        scale = np.hypot(self.function_scale, self.noise_scale)
        z = (self.location - self._targets(best)[None]) / scale
        if self.df is None:
            each = z * special.ndtr(z) + np.exp(-0.5 * z**2 - 0.5 * _LOG_2PI)
        else:
            df = np.where(self.df > 1, self.df, 2.0)
            density = np.exp(StudentTLaw(0.0 * z, 0.0 * z + 1.0, df).log_prob(z))
            each = z * special.stdtr(df, z) + (df + z**2) / (df - 1) * density
        found = np.sum(self._weight * scale * each, axis=0)
        return np.where(self.tail > 0.5, found, np.inf)

    def probability_of_improvement(self, best: ArrayLike) -> np.ndarray:
        """`P(y > best)`, (n, m); `best` in the units of y, a number or (n, m)."""
        return 1 - self.cdf(best)

    def sample(
        self, key: Any, num: int = 1, *, joint: bool = True, noise: bool = True
    ) -> np.ndarray:
        """`num` draws at the n points, (num, n, m).

        Args:
            key: an integer seed or a JAX key.
            joint: functions drawn jointly at all points; otherwise points are independent.
            noise: new observations; otherwise the function values.
        """
        rng = generator(key)
        n, m = self.location.shape[1:]
        if not joint:
            # The outputs of a point go together as they do jointly.
            node = self._joint_nodes(rng, num * n).reshape(num, n, m)
            pick = (node, np.arange(n)[None, :, None], np.arange(m)[None, None, :])
            spread = np.hypot(self.function_scale, self.noise_scale if noise else 0.0)[pick]
            chi = self._root_chi(rng, (num, n, 1 if self.shared else m))
            return self.location[pick] + spread * rng.standard_normal((num, n, m)) / chi
        node = self._joint_nodes(rng, num)
        chi = self._root_chi(rng, (num, 1, 1 if self.shared else m))
        out = np.empty((num, n, m))
        z, e = rng.standard_normal((2, num, n, m))
        for j in range(m):
            for k in np.unique(node[:, j]):
                chosen = np.flatnonzero(node[:, j] == k)
                root = covariance_root(self.joint_covariance(int(k), j))
                draw = z[chosen, :, j] @ root.T
                if noise:
                    draw = draw + self.noise_scale[k, :, j] * e[chosen, :, j]
                scale = np.broadcast_to(chi, (num, 1, m))[chosen, :, j]
                out[chosen, :, j] = self.location[k, :, j] + draw / scale
        return out

    def joint_log_prob(self, y: ArrayLike) -> float:
        """The log density of all of `y` (n, m) together, noise included, in the units of y."""
        targets = self._targets(y)
        n, m = targets.shape
        squares: Any = np.empty(self.log_weight.shape)
        dets: Any = np.empty(self.log_weight.shape)
        for j in range(m):
            for k in range(len(self.location)):
                total = self.joint_covariance(k, j) + np.diag(self.noise_scale[k, :, j] ** 2)
                factor = np.linalg.cholesky(total)
                white = np.linalg.solve(factor, targets[:, j] - self.location[k, :, j])
                squares[k, j], dets[k, j] = white @ white, 2 * np.log(np.diag(factor)).sum()
        if self.shared:
            squares, dets, count = squares.sum(1, keepdims=True), dets.sum(1, keepdims=True), n * m
        else:
            count = n
        groups = squares.shape[1]
        weight = self.log_weight[:, :groups]
        df = None if self.df is None else self.df[:groups]
        if df is None:
            terms = -0.5 * (squares + dets + count * _LOG_2PI)
        else:
            terms = gammaln((df + count) / 2) - gammaln(df / 2) - 0.5 * count * np.log(df * np.pi)
            terms = terms - 0.5 * dets - 0.5 * (df + count) * np.log1p(squares / df)
        if self.shared:
            return float(logsumexp(terms[:, 0] + weight[:, 0]))
        # Outputs are independent given the hyper-parameters.
        members = np.unique(self.member)
        share = [_log_share(self.log_weight[self.member == g, 0]) for g in members]
        parts = [
            share[i] + (logsumexp((terms + weight)[self.member == g], axis=0) - share[i]).sum()
            for i, g in enumerate(members)
        ]
        return float(logsumexp(parts))

    def _targets(self, y: ArrayLike) -> np.ndarray:
        return targets_like(y, *self.location.shape[1:])

    def _joint_nodes(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """The node of each draw and output (num, m): one for all outputs where the scale is shared."""
        m = self.location.shape[2]
        if self.shared:
            return np.repeat(_pick(rng, self.log_weight[:, 0], (num, 1)), m, axis=1)
        members = np.unique(self.member)
        shares = np.array([_log_share(self.log_weight[self.member == g, 0]) for g in members])
        which = members[_pick(rng, shares, (num,))]
        node = np.empty((num, m), int)
        for g in members:
            own, chosen = np.flatnonzero(self.member == g), np.flatnonzero(which == g)
            for j in range(m):
                node[chosen, j] = own[_pick(rng, self.log_weight[own, j], (len(chosen),))]
        return node

    def _root_chi(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """sqrt(chi^2_df / df) that turns normals into Student-t draws; 1 for normal laws."""
        if self.df is None:
            return np.ones(shape)
        df = self.df[: shape[-1]]
        return np.sqrt(rng.chisquare(np.broadcast_to(df, shape)) / df)


def law_of(
    location: np.ndarray, function: np.ndarray, noise: np.ndarray, df: np.ndarray | None
) -> Any:
    """The conditional laws (j, n, m) of observations."""
    scale = np.hypot(function, noise)
    if df is None:
        return Normal(location, scale)
    return StudentTLaw(location, scale, np.broadcast_to(df, location.shape))


def equal_mixture(
    location: np.ndarray,
    function: np.ndarray,
    noise: np.ndarray,
    df: np.ndarray | None,
    log_weight: np.ndarray,
) -> Any:
    """An equal mixture near to the weighted one: each node as often as its weight says."""
    if len(location) == 1:
        return law_of(location, function, noise, df)
    levels = (np.arange(EQUAL) + 0.5) / EQUAL
    edges = np.cumsum(np.exp(log_weight), axis=0)
    picked = [np.searchsorted(edges[:, j] / edges[-1, j], levels) for j in range(edges.shape[1])]
    index = np.stack(picked, axis=-1)[:, None, :]
    location, function, noise = (
        np.take_along_axis(a, index, axis=0) for a in (location, function, noise)
    )
    return law_of(location, function, noise, df)


def covariance_root(matrix: np.ndarray) -> np.ndarray:
    """A square root of a covariance that may be singular (points twice, points of the table)."""
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    return vectors * np.sqrt(np.maximum(values, 0.0))


def _inflate(weight: np.ndarray, scale: np.ndarray, inflation: np.ndarray) -> np.ndarray:
    """Mean variance (n, m); exactly 0 stays 0 where moments are infinite."""
    inside = np.sum(weight * scale**2, axis=0)
    with np.errstate(invalid="ignore"):
        return np.where(inside > 0, inside * inflation, 0.0)


def _pick(rng: np.random.Generator, log_weight: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    edges = np.cumsum(np.exp(log_weight - logsumexp(log_weight)))
    return np.minimum(np.searchsorted(edges, rng.uniform(size=shape)), len(edges) - 1)


def _log_share(log_weight: np.ndarray) -> float:
    return float(logsumexp(log_weight))
