"""Where the functions of a stated prior come from, before bounds and filters: latent processes.

A latent draws values in the inner coordinates of a stated prior, with the log probability at
which each draw is to be kept (None where every draw is).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError
from bayesnet._types import Key
from bayesnet.data import Scaling
from bayesnet.priors.covariance import Covariance
from bayesnet.priors.gaussian_process import JITTER
from bayesnet.priors.hyper import FreeHyper

# The sd of the logarithm of the slope of a monotone function: 1 gives steps and plateaus, the
# steepest tenth of a function being about 13 times as steep as the flattest.
LOG_SLOPE_SD = 1.0
# Sd of the logarithm of the mean slope over draws, where the rise is not stated.
RISE_SPREAD = 0.5


class Latent(Protocol):
    """A source of draws in inner coordinates."""

    def draw(self, key: Key, x: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray | None]:
        """`num` draws (num, n) at rows `x` (n, d), and the log probability of keeping each."""
        ...


@dataclass(frozen=True)
class ProcessLatent:
    """A process of one output; if it is stated in units of the data, `scaling` maps it inside."""

    process: Any
    scaling: Scaling | None = None

    def draw(self, key: Key, x: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray | None]:
        at = x if self.scaling is None else x * self.scaling.x_scale + self.scaling.x_loc
        drawn = np.asarray(self.process.sample(key, jnp.asarray(at, jnp.float32), num), np.float64)
        if drawn.shape != (num, len(x), 1):
            raise InputError(
                f"The base process gave draws of shape {drawn.shape}, expected {(num, len(x), 1)}: "
                "statements are about one output."
            )
        values = drawn[..., 0]
        return (
            values if self.scaling is None else self.scaling.y_in(values[..., None])[..., 0]
        ), None


@dataclass(frozen=True)
class Rise:
    """The part of a function that is monotone along one column: sign, scale of the slope."""

    column: int
    sign: float
    slope: float
    random: bool
    covariance: Covariance
    low: float
    high: float
    nodes: int


@dataclass(frozen=True, eq=False)
class MonotoneLatent:
    """`level(rest) + sum_j sign_j slope_j integral exp(g_j(t, rest) - 1/2) dt` along each column j.

    `level` is a Gaussian process of the columns that are not monotone, g_j one of column j and
    those, of variance 1; the integral runs from 0, the middle of the data. Between nodes the
    slope is linear in t, beyond them constant, so that it is positive everywhere.
    (Positive slopes as the exponential of a Gaussian process: Ramsay 1998, made random.)

    Known values condition it exactly: the level is Gaussian given the integrals, and draws are
    kept with the probability of what it then has to make up for.
    """

    rises: tuple[Rise, ...]
    rest: tuple[int, ...]
    rest_covariance: Covariance | None
    level_mean: float
    level_sd: float
    known_x: np.ndarray
    known_y: np.ndarray
    known_sd: np.ndarray

    def draw(self, key: Key, x: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray | None]:
        rng = np.random.default_rng(np.asarray(jax.random.bits(key, (4,))))
        n, k = len(x), len(self.known_x)
        rows = np.concatenate([x, self.known_x])
        # Rows that agree in the other columns share one slope process: lines stay monotone.
        others = rows.copy()
        others[:, [rise.column for rise in self.rises]] = 0.0
        rest, which = np.unique(others, axis=0, return_inverse=True)
        matrix = self._rest_matrix(rest)
        root = _root(matrix)
        values = np.zeros((num, n + k))
        for rise in self.rises:
            values += self._integral(rng, rise, rows, root, which.ravel(), num)
        level = (rng.normal(size=(num, len(rest))) * self.level_sd) @ root.T
        level, matrix = level[:, which.ravel()], matrix[which.ravel()][:, which.ravel()]
        matrix = self.level_sd**2 * matrix
        if not k:
            return values + level + self.level_mean, None
        needed = self.known_y - values[:, n:] - self.level_mean
        jitter = JITTER * self.level_sd**2
        inner = matrix[n:, n:] + np.diag(self.known_sd**2 + jitter)
        errors = rng.normal(size=(num, k)) * np.sqrt(self.known_sd**2 + jitter)
        missing = needed - level[:, n:] - errors
        level = level + np.linalg.solve(inner, missing.T).T @ matrix[n:, :]
        log_accept = -0.5 * (needed * np.linalg.solve(inner, needed.T).T).sum(axis=1)
        return values[:, :n] + level[:, :n] + self.level_mean, log_accept

    def _rest_matrix(self, rest: np.ndarray) -> np.ndarray:
        if self.rest_covariance is None:
            return np.ones((1, 1))
        return _matrix(self.rest_covariance, rest)

    def _integral(
        self,
        rng: np.random.Generator,
        rise: Rise,
        rows: np.ndarray,
        root: np.ndarray,
        which: np.ndarray,
        num: int,
    ) -> np.ndarray:
        """The monotone part along one column, at all rows: (num, n)."""
        nodes = np.linspace(rise.low, rise.high, rise.nodes)
        along = _root(_matrix(rise.covariance, nodes[:, None]))
        noise = rng.normal(size=(num, len(root), len(nodes)))
        g = np.einsum("ab,sbt,ut->sau", root, noise, along, optimize=True)
        slope = np.exp(LOG_SLOPE_SD * g - 0.5 * LOG_SLOPE_SD**2)
        scale = np.full(num, rise.slope)
        if rise.random:
            scale = scale * np.exp(RISE_SPREAD * rng.normal(size=num))
        step = nodes[1] - nodes[0]
        area = np.cumsum(0.5 * step * (slope[..., 1:] + slope[..., :-1]), axis=-1)
        area = np.concatenate([np.zeros((*area.shape[:2], 1)), area], axis=-1)
        at = _integrate_to(rows[:, rise.column], nodes, slope[:, which], area[:, which])
        origin = _integrate_to(np.zeros(len(rows)), nodes, slope[:, which], area[:, which])
        return rise.sign * scale[:, None] * (at - origin)


def _integrate_to(
    t: np.ndarray, nodes: np.ndarray, slope: np.ndarray, area: np.ndarray
) -> np.ndarray:
    """The integral of a piecewise linear slope (s, n, nodes) from the first node to t (n,)."""
    step = nodes[1] - nodes[0]
    cell = np.clip(((t - nodes[0]) / step).astype(int), 0, len(nodes) - 2)
    inside = np.clip(t - nodes[cell], 0.0, step)
    rows = np.arange(len(t))
    first, second = slope[:, rows, cell], slope[:, rows, cell + 1]
    value = area[:, rows, cell] + first * inside + 0.5 * (second - first) / step * inside**2
    below, above = np.minimum(t - nodes[0], 0.0), np.maximum(t - nodes[-1], 0.0)
    return value + below * slope[:, :, 0] + above * slope[:, :, -1]


def _matrix(covariance: Covariance, rows: np.ndarray) -> np.ndarray:
    """The covariance at fixed hyper-parameters, in float64."""
    with jax.enable_x64(True):
        hyper = FreeHyper(covariance.hyper).tree(jnp.zeros(0))
        x = jnp.asarray(rows)
        return np.asarray(covariance.matrix(hyper, x, x))


def _root(matrix: np.ndarray) -> np.ndarray:
    n = len(matrix)
    return np.linalg.cholesky(matrix + JITTER * np.trace(matrix) / n * np.eye(n))
