"""Many tables of one shape, conditioned in one program."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError
from bayesnet._types import Array, ArrayLike, Float
from bayesnet.data import as_matrix
from bayesnet.pfn.bars import Bars
from bayesnet.pfn.posterior import CHUNKS, pad_context
from bayesnet.pfn.prediction import BarPrediction
from bayesnet.pfn.transformer import Transformer, pad_columns


@eqx.filter_jit
def _many(
    network: Transformer,
    bars: Bars,
    x: Float[Array, "t n d"],
    y: Float[Array, "t n"],
    mask: Array,
    queries: Float[Array, "t q d"],
    used: Array,
) -> tuple[Float[Array, "t q k"], Float[Array, "t q k"]]:
    return jax.lax.map(
        lambda a: network(a[0], a[1], mask, a[2], used, bars), (x, y, queries), batch_size=16
    )


def predict_many(pfn: Any, X: ArrayLike, y: ArrayLike, X_new: ArrayLike) -> list[BarPrediction]:
    """See `PFN.predict_many`."""
    x, targets, new = (np.asarray(a, np.float64) for a in (X, y, X_new))
    shapes = f"got X {x.shape}, y {targets.shape}, X_new {new.shape}"
    if x.ndim != 3 or targets.shape != x.shape[:2] or new.ndim != 3:
        raise InputError(f"X must be (t, n, d), y (t, n), X_new (t, q, d); {shapes}.")
    if new.shape[0] != x.shape[0] or new.shape[2] != x.shape[2] or 0 in (*x.shape, new.shape[1]):
        raise InputError(f"X, y and X_new must agree in tables and columns; {shapes}.")
    posteriors = [pfn.fit(a, b, warn=False) for a, b in zip(x, targets, strict=True)]
    contexts = [pad_context(pfn, p.data.x, p.data.y) for p in posteriors]
    scaled = [
        p.data.scaling.x_in(as_matrix(rows, "X_new"))
        for p, rows in zip(posteriors, new, strict=True)
    ]
    queries, used = pad_columns(np.stack(scaled).astype(np.float32), pfn.network.max_dim)
    size = next((c for c in CHUNKS if new.shape[1] <= c), new.shape[1])
    queries = np.pad(queries, ((0, 0), (0, size - new.shape[1]), (0, 0)))
    logits_y, logits_f = _many(
        pfn.network,
        pfn.bars,
        jnp.stack([c[0] for c in contexts]),
        jnp.stack([c[1][0] for c in contexts]),
        contexts[0][2],
        jnp.asarray(queries),
        jnp.asarray(used),
    )
    q = new.shape[1]
    pairs = zip(np.asarray(logits_y)[:, :q, None], np.asarray(logits_f)[:, :q, None], strict=True)
    return [p.prediction(rows, *pair) for p, rows, pair in zip(posteriors, new, pairs, strict=True)]
