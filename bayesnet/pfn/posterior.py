"""The posterior of a PFN: an encoded context that answers queries in one forward pass."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from scipy.special import ndtr, ndtri

from bayesnet import devices
from bayesnet._notices import said_if_slow
from bayesnet._repr import fitted_to, typicality
from bayesnet._scales import check_near
from bayesnet._types import Array, ArrayLike, Float
from bayesnet.data import Data
from bayesnet.pfn import quadrature_prediction as quadrature
from bayesnet.pfn.bars import Bars
from bayesnet.pfn.context import FIRST_PASS, chunks, pad_context
from bayesnet.pfn.nodes import Conditioned
from bayesnet.pfn.prediction import BarPrediction
from bayesnet.pfn.quadrature import QuadratureNetwork
from bayesnet.pfn.transformer import Transformer, pad_columns
from bayesnet.posterior.prediction import Prediction

# Scaled inputs beyond this were next to never seen in training.
FAR = 6.0


@dataclass(frozen=True, eq=False)
class PFNPosterior:
    """A table that conditions a PFN: the weights and the scaled training rows.

    There are no draws and no chains: `predict` is one forward pass over the cached context.
    """

    pfn: Any
    data: Data

    def __repr__(self) -> str:
        table = (self.data.num_rows, self.data.in_dim, self.data.out_dim)
        return fitted_to(self, f"weights {self.pfn.card['name']!r}", table, typicality(self))

    @cached_property
    def network(self) -> Any:
        """The network as it takes tables of these columns."""
        return self.pfn.network_for(self.data.in_dim)

    @cached_property
    @devices.single_precision()
    def _context(self) -> tuple[Any, Array, Array]:
        """The encoded context of every output (leading axis m), its mask, and the columns used."""
        x, y, mask, used = pad_context(self.pfn, self.data.x, self.data.y)
        return encode(self.network, x, y, mask, used), mask, used

    @cached_property
    def _processes(self) -> tuple[Any, Array, Array]:
        x, y, mask, used = pad_context(self.pfn, self.data.x, self.data.y)
        tables = quadrature.condition(self.network, x, y, mask, used, self.data.in_dim)
        return tables, mask, used

    @devices.single_precision()
    def processes(self) -> tuple[Any, Array, Array]:
        """Of a quadrature: its processes conditioned, the mask of the rows, and the columns used."""
        return self._processes

    @devices.single_precision()
    def predict(self, x: ArrayLike, *, warn: bool = True) -> Prediction:
        """The predictive law at `x` (n, d), in the units of y.

        A `BarPrediction`; of a quadrature (`bayesnet.pfn.quadrature`, the weights "gp") a
        `ProcessPrediction`, whose joint draws are those of the processes.

        Args:
            x: inputs in user units, n x d.
            warn: warn if rows lie far outside of what the PFN was trained on.

        Raises `InputError` for the wrong number of columns, NaN, or no rows.
        """
        matrix = self.data.scaling.matrix(x)
        scaling = self.data.scaling
        scaled = scaling.x_in(matrix)
        check_near(scaled, np.float32)
        if warn:
            warn_of_far(scaled)
        with said_if_slow(FIRST_PASS):
            if isinstance(self.network, QuadratureNetwork):
                tables, mask, used = self.processes()
                numbers = quadrature.at_rows(self.network, tables, mask, used, scaled)
                laws = quadrature.in_units(numbers, scaling.y_loc, scaling.y_scale)
                return quadrature.prediction(
                    laws, self.network, self.processes, scaled, scaling.y_scale
                )
            return self.prediction(matrix, *self.logits(scaled))

    def prediction(
        self, x: np.ndarray, logits_y: np.ndarray, logits_f: np.ndarray
    ) -> BarPrediction:
        """The law in user units that logits (n, m, k) of the bars stand for at `x` (n, d)."""
        scaling = self.data.scaling
        y, f = (
            self.pfn.law(a[None]).affine(scaling.y_loc, scaling.y_scale)
            for a in (logits_y, logits_f)
        )
        parted = self.pfn.card.get("latent", "f") is not None
        # Models of whole tables may have noise that differs from row to row; they keep their own units.
        even = parted and "scaling" not in self.pfn.card
        noise = self.noise_variance if even else None
        return BarPrediction(y, f.mean, f, (partial(self.correlations, x),), parted, noise)

    def noise_variance(self) -> np.ndarray:
        """The variance of the noise (m,), in the units of y squared, at a typical row of the table."""
        found: np.ndarray = self._noise * self.data.scaling.y_scale**2
        return found

    @cached_property
    def _noise(self) -> np.ndarray:
        """The variance of the noise (m,), scaled: the median over rows of the table of what y has beyond f."""
        y, f = (self.pfn.law(a).variance for a in self.logits(self.data.x))
        return np.median(np.maximum(y - f, 0.0), axis=0)

    @devices.single_precision()
    def logits(self, scaled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits (n, m, k) of the bars of y and of f at scaled inputs, by chunks."""
        y, f = self._decoded(*self._context, scaled)
        return np.swapaxes(y, 0, 1), np.swapaxes(f, 0, 1)

    @property
    def log_evidence(self) -> np.ndarray | None:
        """Log evidence of the table (m,), scaled, up to a constant that depends on its rows alone, as the nodes
        of a quadrature tell it; None of bars, which tell none."""
        found = evidence_of(self._context[0])
        return None if found is None else np.asarray(found, np.float64)

    def _decoded(
        self, cache: Any, mask: Any, used: Any, scaled: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logits (m, n, k) of the bars of y and of f at scaled inputs, given an encoded context."""
        network, bars = self.network, self.pfn.bars
        padded, _ = pad_columns(np.asarray(scaled, np.float32), network.max_dim)
        parts = [
            [np.asarray(a)[:, :count] for a in decode(network, bars, cache, mask, rows, used)]
            for rows, count in chunks(padded)
        ]
        y, f = (np.concatenate([p[i] for p in parts], axis=1) for i in range(2))
        return y, f

    @devices.single_precision()
    def correlations(self, x: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Correlations between the rows of `x` of the function and of y, (m, n, n) each.

        By looking one observation ahead; see `bayesnet.pfn.joint.correlations`.
        """
        from bayesnet.pfn.joint import correlations

        return correlations(self, self.data.scaling.matrix(x))

    @devices.single_precision()
    def sample_paths(self, x: ArrayLike, num: int, seed: int = 0) -> np.ndarray:
        """`num` joint draws of new observations at `x` (n, d), point after point: (num, n, m).

        See `bayesnet.pfn.joint.sample_paths`. Raises `InputError` where table and points together are
        more rows than the PFN was trained for.
        """
        from bayesnet.pfn.joint import sample_paths

        return sample_paths(self, self.data.scaling.matrix(x), num, seed)

    @devices.single_precision()
    def order_gap(
        self, x: ArrayLike, *, draws: int = 8, orders: int = 8, seed: int = 0
    ) -> np.ndarray:
        """How much the joint law of `x` (n, d) depends on the order of its points: (m,), nats a point.

        The log joint density of one set of targets, each point given those before it, differs
        between orders (it would not for an exact posterior). This is its sd over `orders` random
        orders divided by n, in the root mean square over `draws` sets of targets, which
        `sample_paths` draws: 0 at one point.

        Raises `InputError` where table and points together are more rows than the PFN was trained for,
        or for fewer than 1 draw or 2 orders.
        """
        from bayesnet.pfn.order_gap import order_gap

        matrix = self.data.scaling.matrix(x)
        return order_gap(self, matrix, draws, orders, seed)

    @cached_property
    @devices.single_precision()
    def surprise(self) -> float:
        """How unlike its training data the PFN finds this table: 1 is usual, NaN below 6 rows.

        Half of the rows (every other one) predict the other half, and the other way round; this
        is the mean square of the normal scores of the targets in their predicted laws.
        """
        n = self.data.num_rows
        if n < 6:
            return float("nan")
        scores = []
        for first in (0, 1):
            seen, hidden = np.arange(first, n, 2), np.arange(1 - first, n, 2)
            # Padded as the whole table is: no programs of its own.
            context = pad_context(
                self.pfn, self.data.x[seen], self.data.y[seen], extra=n - len(seen)
            )
            p = self._levels(context, self.data.x[hidden], self.data.y[hidden])
            scores.append(ndtri(np.clip(p, 1e-6, 1 - 1e-6)).ravel())
        return float(np.mean(np.concatenate(scores) ** 2))

    def _levels(self, context: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The probability transforms (m, q) of scaled targets y (q, m) at rows x, given a padded context."""
        rows, targets, mask, used = context
        network = self.network
        if isinstance(network, QuadratureNetwork):
            tables = quadrature.condition(network, rows, targets, mask, used, self.data.in_dim)
            laws = quadrature.at_rows(network, tables, mask, used, x)[:, :, 0]
            log_weight, mean, log_std = np.moveaxis(laws.astype(np.float64), 2, 0)
            each = ndtr((y.T[..., None] - mean) / np.exp(log_std))
            return np.sum(np.exp(log_weight) * each, axis=-1)
        cache = encode(network, rows, targets, mask, used)
        logits, _ = self._decoded(cache, mask, used, x)
        return self.pfn.law(logits).cdf(y.T)

    def save(self, path: str | Path) -> None:
        """Write this posterior, weights included, to one file (never a pickle)."""
        from bayesnet.posterior.saving import save

        save(self, path)


def warn_of_far(scaled: np.ndarray) -> None:
    """Warn if scaled rows (n, d) lie far outside of what a PFN was trained on."""
    farthest = np.abs(scaled).max(axis=1)
    row = int(np.argmax(farthest))
    if farthest[row] > FAR:
        warnings.warn(
            f"Row {row} lies {farthest[row]:.3g} standard deviations from the centre of "
            f"the table: the PFN was trained within about {FAR:.0f}, and extrapolates there.",
            stacklevel=4,
        )


def evidence_of(cache: Any) -> Any:
    """The log evidence that an encoded context tells of, or None."""
    return cache.log_evidence if isinstance(cache, Conditioned) else None


@eqx.filter_jit
def encode(
    network: Transformer, x: Float[Array, "n d"], y: Float[Array, "m n"], mask: Array, used: Array
) -> Any:
    """The encoded contexts of all outputs."""
    return jax.vmap(lambda column: network.encode(x, column, mask, used))(y)


@eqx.filter_jit
def decode(
    network: Transformer,
    bars: Bars,
    cache: Any,
    mask: Array,
    x: Float[Array, "q d"],
    used: Array,
) -> tuple[Float[Array, "m q k"], Float[Array, "m q k"]]:
    """Logits of y and f for every output."""
    return jax.vmap(lambda c: network.decode(c, mask, x, used, bars))(cache)
