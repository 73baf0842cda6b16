"""Joint draws of a PFN at several rows: by a Gaussian copula, or point after point."""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError
from bayesnet._scales import as_single
from bayesnet._types import Array, Float
from bayesnet.pfn.context import in_blocks, pad, pad_context
from bayesnet.pfn.transformer import Transformer, pad_columns

# Numbers of points to which joint laws are padded.
SIZES = (8, 32, 128, 256)


def correlations(posterior: Any, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlations between rows (n, d) in user units of the function and of y, (m, n, n) each.

    If y at row i were one predictive sd above or below its mean, the mean of f at row j would move
    by half of the difference d_ij, and `cov(f_i, f_j) = d_ij sd(y_i)`: exact where all is Gaussian.
    Both orders of i and j are averaged.
    """
    pfn, data = posterior.pfn, posterior.data
    scaled = as_single(data.scaling.x_in(matrix))
    n, at = len(scaled), data.num_rows
    logits_y, logits_f = posterior.logits(scaled)
    law_y, law_f = pfn.law(logits_y), pfn.law(logits_f)
    mean_y, sd_y, sd_f = law_y.mean, np.sqrt(law_y.variance), np.sqrt(law_f.variance)
    size = next((c for c in SIZES if n <= c), n)
    queries = jnp.asarray(pad(pad_columns(scaled, pfn.max_dim)[0], size))
    out_f: list[np.ndarray] = []
    out_y: list[np.ndarray] = []
    for j in range(data.out_dim):
        x, y, mask, used = map(jnp.asarray, pad_context(pfn, data.x, data.y[:, j : j + 1], extra=1))
        new_y = np.stack([mean_y[:, j] + s * sd_y[:, j] for s in (1.0, -1.0)], axis=1)
        moved = np.asarray(
            _look_ahead(
                posterior.network,
                pfn.bars,
                (x, y[0], mask.at[at].set(True), used),
                jnp.asarray(at),
                queries,
                jnp.asarray(pad(new_y, size), jnp.float32),
            )
        )
        covariance = 0.5 * (moved[:n, 0, :n] - moved[:n, 1, :n]) * sd_y[:, j][:, None]
        covariance = 0.5 * (covariance + covariance.T)
        for sd, out in ((sd_f[:, j], out_f), (sd_y[:, j], out_y)):
            correlation = np.clip(covariance / np.outer(sd, sd), -0.9999, 0.9999)
            np.fill_diagonal(correlation, 1.0)
            out.append(correlation.astype(np.float64))
    return np.stack(out_f), np.stack(out_y)


def sample_paths(posterior: Any, matrix: np.ndarray, num: int, seed: int) -> np.ndarray:
    """`num` joint draws of new observations at rows (n, d) in user units: (num, n, m).

    Each point is drawn from the prediction that is conditioned on those drawn before it, in a
    random order for every draw: the order matters a little, as the network is no exact
    posterior, and draws average over it. The uniforms behind the draws are fixed by `seed`.
    """
    pfn, data = posterior.pfn, posterior.data
    n, rows = len(matrix), data.num_rows
    if num < 1:
        raise InputError(f"num must be at least 1, got {num}.")
    check_room(posterior, n)
    scaled = as_single(data.scaling.x_in(matrix))
    points, _ = pad_columns(scaled, pfn.max_dim)
    rng = np.random.default_rng(seed)
    order = np.argsort(rng.uniform(size=(num, n)), axis=1)
    uniforms = rng.uniform(size=(num, n)).astype(np.float32)
    out = []
    for j in range(data.out_dim):
        x, y, mask, used = pad_context(pfn, data.x, data.y[:, j : j + 1], extra=n)
        context = (x, y[0], mask, used)
        # An array, so that a program is not of one number of rows.
        at = np.asarray(rows)
        program = partial(path_values, posterior.network, pfn.bars, context, at)
        drawn = in_blocks(program, points[order], uniforms)
        unsorted = np.empty_like(drawn)
        np.put_along_axis(unsorted, order, drawn, axis=1)
        out.append(unsorted)
    return data.scaling.y_out(np.stack(out, axis=-1).astype(np.float64))


def check_room(posterior: Any, n: int) -> None:
    """Raises `InputError` if the table with `n` more rows is longer than the PFN was trained for."""
    rows, most = posterior.data.num_rows, posterior.pfn.max_rows
    if rows + n > most:
        raise InputError(
            f"Point after point needs {rows} + {n} rows of context, the PFN was trained for "
            f"{most}: use predict(x).sample(seed, num), or fewer points."
        )


@eqx.filter_jit
def _look_ahead(
    network: Transformer,
    bars: Any,
    context: tuple[Array, Array, Array, Array],
    at: Array,
    queries: Array,
    new_y: Float[Array, "q 2"],
) -> Float[Array, "q 2 q"]:
    """The mean of f at all queries if row `at` of the context were query i with target `new_y[i]`."""
    x, y, mask, used = context

    def one(query: Array, target: Array) -> Array:
        _, logits = network(x.at[at].set(query), y.at[at].set(target), mask, queries, used, bars)
        return bars.law(logits).mean

    def both(item: tuple[Array, Array]) -> Array:
        return jax.vmap(lambda t: one(item[0], t))(item[1])

    return jax.lax.map(both, (queries, new_y), batch_size=8)


@eqx.filter_jit
def path_values(
    network: Transformer,
    bars: Any,
    context: tuple[Array, Array, Array, Array],
    rows: Any,
    points: Float[Array, "s n d"],
    uniforms: Float[Array, "s n"],
) -> Float[Array, "s n"]:
    """Draws at scaled points, one given those before it, as functions of their uniforms.

    `context`: x (b, d), y (b,), mask (b,) and used columns (d,), with room for n rows behind the first
    `rows`. Differentiable in the points, also through what was drawn at earlier ones.
    """
    x, y, mask, used = context
    draws = len(points)

    def one(x: Array, y: Array, mask: Array, point: Array, u: Array) -> Array:
        logits, _ = network(x, y, mask, point[None], used, bars)
        return bars.law(logits[0]).quantile(u)

    def step(state: Any, now: Any) -> Any:
        x, y, mask = state
        i, point, u = now
        # Draws side by side in here, not scans of them: a scan's float64 does not survive `vmap`.
        drawn = jax.vmap(one)(x, y, mask, point, u)
        at = rows + i
        state = x.at[:, at].set(point), y.at[:, at].set(drawn), mask.at[:, at].set(True)
        return state, drawn

    tables = tuple(jnp.broadcast_to(a, (draws, *a.shape)) for a in (x, y, mask))
    steps = (jnp.arange(points.shape[1]), jnp.swapaxes(points, 0, 1), uniforms.T)
    drawn: Array = jax.lax.scan(step, tables, steps)[1]
    return drawn.T
