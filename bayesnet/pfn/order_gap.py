"""How much the law of several points depends on the order in which a PFN is asked for them.

For an exact posterior `log p(y_1) + log p(y_2 | y_1) + ...` is the same in every order. A network's is not
quite, and the difference says how far its joint law is from being one.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError
from bayesnet._scales import as_single
from bayesnet._types import Array, Float
from bayesnet.pfn.context import pad_context
from bayesnet.pfn.joint import check_room, sample_paths
from bayesnet.pfn.transformer import Transformer, pad_columns

# Tables of one call of the program.
BLOCK = 32


def order_gap(posterior: Any, matrix: np.ndarray, draws: int, orders: int, seed: int) -> np.ndarray:
    """See `PFNPosterior.order_gap`; rows (n, d) in user units."""
    if draws < 1 or orders < 2:
        raise InputError(
            f"A gap needs at least 1 draw and 2 orders, got draws={draws} and orders={orders}."
        )
    check_room(posterior, len(matrix))
    data, n = posterior.data, len(matrix)
    paths = data.scaling.y_in(sample_paths(posterior, matrix, draws, seed))
    rng = np.random.default_rng([seed, n])
    order = np.argsort(rng.uniform(size=(draws, orders, n)), axis=-1)
    gaps = []
    for j in range(data.out_dim):
        targets = np.broadcast_to(paths[:, None, :, j], order.shape)
        targets = np.take_along_axis(targets, order, axis=-1)
        found = log_density(posterior, j, matrix, order.reshape(-1, n), targets.reshape(-1, n))
        variance = found.reshape(draws, orders).var(axis=1, ddof=1)
        gaps.append(np.sqrt(variance.mean()) / n)
    return np.array(gaps)


def log_density(
    posterior: Any, output: int, matrix: np.ndarray, order: np.ndarray, targets: np.ndarray
) -> np.ndarray:
    """Log joint density (s,), in scaled coordinates, of targets (s, n) at rows `matrix[order]`, order (s, n),
    asked for one after the other, for one output."""
    pfn, data, (sets, n) = posterior.pfn, posterior.data, order.shape
    points, _ = pad_columns(as_single(data.scaling.x_in(matrix)), pfn.max_dim)
    x, y, _, used = pad_context(pfn, data.x, data.y[:, output : output + 1], extra=n)
    rows, base_x, base_y = data.num_rows, np.asarray(x), np.asarray(y[0])
    out = np.empty(sets * n)
    # Point i of a set is asked for when those before it are in the table: sets * n tables, in blocks of
    # one size, so that the program depends on the bucket of rows alone.
    for start in range(0, sets * n, BLOCK):
        item = np.minimum(np.arange(start, start + BLOCK), sets * n - 1)
        at, i = item // n, item % n
        tables, values = np.repeat(base_x[None], BLOCK, 0), np.repeat(base_y[None], BLOCK, 0)
        tables[:, rows : rows + n] = points[order[at]]
        values[:, rows : rows + n] = targets[at]
        mask = np.arange(len(base_y)) < (rows + i)[:, None]
        given = [jnp.asarray(a) for a in (tables, values, mask, points[order[at, i]])]
        value = jnp.asarray(targets[at, i], jnp.float32)
        found = _log_density(posterior.network, pfn.bars, given, used, value)
        out[start : start + BLOCK] = np.asarray(found)[: len(out) - start]
    return out.reshape(sets, n).sum(axis=1)


@eqx.filter_jit
def _log_density(
    network: Transformer, bars: Any, given: list[Array], used: Array, value: Float[Array, " b"]
) -> Float[Array, " b"]:
    def one(item: Any) -> Array:
        (x, y, mask, query), target = item
        logits, _ = network(x, y, mask, query[None], used, bars)
        return bars.law(logits[0]).log_prob(target)

    return jax.lax.map(one, (given, value))
