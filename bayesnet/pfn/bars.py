"""The bar distribution: a histogram with half-normal tails, the predictive law of a PFN.

Mueller et al. (2022), "Transformers Can Do Bayesian Inference", section 4 ("Riemann
distribution"): a density that is constant between fixed edges; below the first and above the
last one it falls off like half a normal, so that it has all moments and no hard end.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax.scipy import special as jax_special

from bayesnet._errors import InputError
from bayesnet._types import Array, ArrayLike, Float

_HALF_NORMAL_MEAN = float(np.sqrt(2 / np.pi))
_HALF_NORMAL_VAR = 1.0 - 2 / np.pi
_LOG_2PI = float(np.log(2 * np.pi))


class BarDistribution(eqx.Module):
    """Laws with `k` bars each; NumPy arrays in, NumPy out; JAX arrays in, JAX out (differentiable).

    `logits` (..., k): unnormalised log probabilities of the bars. `edges` (..., k - 1),
    increasing, and `tails` (..., 2), positive: where bars end, and the scales of the half-normals
    below `edges[0]` and above `edges[-1]`; both broadcast against the leading axes of `logits`.
    """

    logits: Any
    edges: Any
    tails: Any
    discrete: ClassVar[bool] = False

    @property
    def _lib(self) -> tuple[Any, Any]:
        if all(isinstance(a, np.ndarray) for a in (self.logits, self.edges, self.tails)):
            return np, scipy.special
        return jnp, jax_special

    @property
    def log_probs(self) -> Any:
        """The log probabilities of the bars (..., k)."""
        _, special = self._lib
        return self.logits - special.logsumexp(self.logits, axis=-1, keepdims=True)

    @property
    def probs(self) -> Any:
        """The probabilities of the bars (..., k)."""
        return self._lib[0].exp(self.log_probs)

    def _cumulative(self) -> Any:
        """Probability below each edge, and 1 at the end: (..., k)."""
        return self._lib[0].cumsum(self.probs, axis=-1)

    def _pick(self, a: Any, index: Any) -> Any:
        """`a[..., index]` for an array (..., k) that broadcasts against `index` (...)."""
        xp = self._lib[0]
        shape = (*np.broadcast_shapes(a.shape[:-1], index.shape), a.shape[-1])
        index = xp.broadcast_to(index, shape[:-1])
        return xp.take_along_axis(xp.broadcast_to(a, shape), index[..., None], axis=-1)[..., 0]

    def _bar(self, index: Any) -> tuple[Any, Any, Any, Any]:
        """What bar `index` is: its lower edge, its width, and whether it is the left or right tail.

        The lower edge of the left tail is its upper one, `edges[0]`, and the width of a tail is
        its scale.
        """
        xp = self._lib[0]
        k = self.logits.shape[-1]
        inner = xp.clip(index - 1, 0, k - 3)
        low = self._pick(self.edges, xp.where(index == k - 1, k - 2, inner))
        width = self._pick(self.edges, inner + 1) - self._pick(self.edges, inner)
        left, right = index == 0, index == k - 1
        width = xp.where(left, self.tails[..., 0], xp.where(right, self.tails[..., 1], width))
        return low, width, left, right

    def _index(self, y: Any) -> Any:
        return (y[..., None] > self.edges).sum(axis=-1)

    def log_prob(self, y: ArrayLike) -> Any:
        """Log density at `y`, which broadcasts against the leading axes."""
        xp = self._lib[0]
        y = xp.asarray(y)
        index = self._index(y)
        low, width, left, right = self._bar(index)
        z = xp.where(left | right, (y - low) / width, 0.0)
        half_normal = xp.where(left | right, np.log(2.0) - 0.5 * _LOG_2PI, 0.0) - 0.5 * z**2
        return self._pick(self.log_probs, index) + half_normal - xp.log(width)

    def cdf(self, y: ArrayLike) -> Any:
        """Probability at or below `y`."""
        xp, special = self._lib
        y = xp.asarray(y)
        index = self._index(y)
        low, width, left, right = self._bar(index)
        z = (y - low) / width
        inside = xp.where(
            left,
            2 * special.ndtr(xp.minimum(z, 0.0)),
            xp.where(right, 2 * special.ndtr(xp.maximum(z, 0.0)) - 1, z),
        )
        mass = self._pick(self.probs, index)
        return self._pick(self._cumulative(), index) - mass * (1 - inside)

    def quantile(self, q: ArrayLike) -> Any:
        """The value with probability `q` at or below it; `q` broadcasts against the leading axes."""
        xp, special = self._lib
        probs, cumulative = self.probs, self._cumulative()
        shape = np.broadcast_shapes(np.shape(q), probs.shape[:-1])
        q = xp.broadcast_to(xp.asarray(q, probs.dtype), shape)
        index = xp.clip((q[..., None] > cumulative).sum(axis=-1), 0, probs.shape[-1] - 1)
        # Rounding may leave a level above the last sum.
        tiny = np.finfo(probs.dtype).tiny
        mass = xp.maximum(self._pick(probs, index), tiny)
        inside = 1 - (self._pick(cumulative, index) - q) / mass
        inside = xp.clip(inside, 1e-7, 1 - 1e-7)
        low, width, left, right = self._bar(index)
        z = xp.where(
            left,
            special.ndtri(xp.where(left, inside, 0.5) / 2),
            xp.where(right, -special.ndtri((1 - xp.where(right, inside, 0.5)) / 2), inside),
        )
        return low + width * z

    def sample(self, rng: np.random.Generator, draw: tuple[Any, ...]) -> np.ndarray:
        """New values of the laws that the index `draw` into the leading axes picks (NumPy)."""
        shape = np.broadcast_shapes(self.logits.shape[:-1], self.edges.shape[:-1])
        k = self.logits.shape[-1]
        picked = BarDistribution(
            np.broadcast_to(self.logits, (*shape, k))[draw],
            np.broadcast_to(self.edges, (*shape, k - 1))[draw],
            np.broadcast_to(self.tails, (*shape, 2))[draw],
        )
        return picked.quantile(rng.uniform(size=picked.logits.shape[:-1]))

    def _centres(self) -> tuple[Any, Any]:
        """The mean and the variance of each bar (..., k)."""
        xp = self._lib[0]
        edges, tails = self.edges, self.tails
        low = edges[..., :1] - _HALF_NORMAL_MEAN * tails[..., :1]
        high = edges[..., -1:] + _HALF_NORMAL_MEAN * tails[..., 1:]
        middle = 0.5 * (edges[..., 1:] + edges[..., :-1])
        mean = xp.concatenate([low, middle, high], axis=-1)
        tail = _HALF_NORMAL_VAR * tails**2
        inner = xp.diff(edges, axis=-1) ** 2 / 12
        return mean, xp.concatenate([tail[..., :1], inner, tail[..., 1:]], axis=-1)

    @property
    def mean(self) -> Any:
        """The mean (...)."""
        return (self.probs * self._centres()[0]).sum(axis=-1)

    @property
    def location(self) -> Any:
        """The mean: a histogram does not know which part of it is noise."""
        return self.mean

    @property
    def variance(self) -> Any:
        """The variance (...)."""
        centre, within = self._centres()
        probs = self.probs
        mean = (probs * centre).sum(axis=-1, keepdims=True)
        return (probs * (within + (centre - mean) ** 2)).sum(axis=-1)

    @property
    def entropy(self) -> Any:
        """The differential entropy in nats (...)."""
        xp = self._lib[0]
        half_normal = 0.5 + 0.5 * np.log(np.pi / 2) + xp.log(self.tails)
        inner = xp.log(xp.diff(self.edges, axis=-1))
        each = xp.concatenate([half_normal[..., :1], inner, half_normal[..., 1:]], axis=-1)
        log_probs = self.log_probs
        return (xp.exp(log_probs) * (each - log_probs)).sum(axis=-1)

    def expected_improvement(self, best: ArrayLike) -> Any:
        """`E[max(y - best, 0)]`, in closed form (maximisation)."""
        xp, special = self._lib
        best = xp.asarray(best)[..., None]
        low, high = self.edges[..., :-1], self.edges[..., 1:]
        # Of a bar only what lies above `best` counts.
        start = xp.clip(best, low, high)
        inner = (high - start) * (0.5 * (high + start) - best) / (high - low)
        inner = xp.where(best >= high, 0.0, inner)
        (s_left, s_right) = self.tails[..., :1], self.tails[..., 1:]
        t = xp.maximum((self.edges[..., :1] - best) / s_left, 0.0)
        left = t * (2 * special.ndtr(t) - 1) - 2 * (_phi(xp, 0.0 * t) - _phi(xp, t))
        # Below the edge the whole tail improves, and linearly.
        u = (best - self.edges[..., -1:]) / s_right
        above = xp.maximum(u, 0.0)
        right = 2 * (_phi(xp, above) - above * special.ndtr(-above)) - xp.minimum(u, 0.0)
        shape = np.broadcast_shapes(left.shape[:-1], right.shape[:-1], inner.shape[:-1])
        parts = [
            xp.broadcast_to(a, (*shape, a.shape[-1]))
            for a in (s_left * left, inner, s_right * right)
        ]
        return (self.probs * xp.concatenate(parts, axis=-1)).sum(axis=-1)

    def probability_of_improvement(self, best: ArrayLike) -> Any:
        """`P(y > best)`."""
        return 1 - self.cdf(best)

    def affine(self, loc: ArrayLike, scale: ArrayLike) -> BarDistribution:
        """The laws of `loc + scale * y`; `scale` positive; both (m,), the last leading axis."""
        xp = self._lib[0]
        loc, scale = xp.asarray(loc)[..., None], xp.asarray(scale)[..., None]
        return BarDistribution(self.logits, self.edges * scale + loc, self.tails * scale)


def _phi(xp: Any, z: Any) -> Any:
    return xp.exp(-0.5 * z**2 - 0.5 * _LOG_2PI)


class Bars(eqx.Module):
    """Where bars end, for all laws of one PFN: `edges` (k - 1,), `tails` (2,)."""

    edges: Float[Array, " e"]
    tails: Float[Array, " t"]

    @property
    def count(self) -> int:
        """k, the number of bars."""
        return self.edges.shape[0] + 1

    def law(self, logits: Float[Array, "*b k"]) -> BarDistribution:
        """The laws with these logits."""
        return BarDistribution(logits, self.edges, self.tails)

    def places(self) -> tuple[Array, Array, Array]:
        """The mean, the variance and the width (for tails the scale) of every bar, (k,) each."""
        mean, variance = self.law(jnp.zeros(self.count))._centres()
        width = jnp.concatenate([self.tails[:1], jnp.diff(self.edges), self.tails[1:]])
        return mean, variance, width

    @staticmethod
    def from_values(values: ArrayLike, count: int) -> Bars:
        """`count` bars for targets such as `values` (n,).

        Half of the edges are quantiles of the values, half are spread evenly over all but the
        outer 2/1000 of them, so that bars are fine where targets are, and nowhere very wide; tails have the
        root mean square of the excesses beyond the outer edges, or the width of the bar beside them.

        Raises `InputError` for fewer than 8 bars, or values too few or equal.
        """
        values = np.sort(np.asarray(values, np.float64).ravel())
        if count < 8:
            raise InputError(f"A bar distribution needs at least 8 bars, got {count}.")
        if len(values) < 10 * count or not np.isfinite(values).all() or values[0] == values[-1]:
            raise InputError(
                f"Bars are placed by at least {10 * count} finite values that differ, "
                f"got {len(values)}."
            )
        low, high = np.quantile(values, [0.001, 0.999])
        # The quantiles of the even mixture of the values and a uniform law.
        grid = np.quantile(values, np.linspace(0.001, 0.999, 4096))
        grid = np.unique(np.concatenate([grid, np.linspace(low, high, 4096)]))
        mass = np.searchsorted(values, grid) / len(values)
        mixture = 0.5 * mass + 0.5 * (grid - low) / (high - low)
        levels = np.linspace(mixture[0], mixture[-1], count - 1)
        edges = np.interp(levels, mixture, grid)
        if not (np.diff(edges) > 0).all():
            raise InputError("The values have too many ties to place bars by them.")
        below, above = values[values < edges[0]], values[values > edges[-1]]
        # Nothing lies beyond where many values are the least, or the largest, as counts of 0.
        tails = [
            np.sqrt(np.mean((end - beyond) ** 2)) if len(beyond) else bar
            for end, beyond, bar in (
                (edges[0], below, edges[1] - edges[0]),
                (edges[-1], above, edges[-1] - edges[-2]),
            )
        ]
        return Bars(jnp.asarray(edges, jnp.float32), jnp.asarray(tails, jnp.float32))

    def probabilities(
        self, mean: Float[Array, "*b"], std: Float[Array, "*b"]
    ) -> Float[Array, "*b k"]:
        """The probability that each bar has under N(mean, std^2)."""
        z = (self.edges - mean[..., None]) / std[..., None]
        tail = jax_special.ndtr(-jnp.abs(z))
        # Differences of the smaller tail: exact on both sides of the mean.
        low, high = z[..., :-1], z[..., 1:]
        lower, upper = tail[..., :-1], tail[..., 1:]
        inner = jnp.where(
            high < 0, upper - lower, jnp.where(low > 0, lower - upper, 1 - lower - upper)
        )
        first = jnp.where(z[..., :1] < 0, tail[..., :1], 1 - tail[..., :1])
        last = jnp.where(z[..., -1:] > 0, tail[..., -1:], 1 - tail[..., -1:])
        return jnp.concatenate([first, inner, last], axis=-1)
