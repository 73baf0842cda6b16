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
from bayesnet.pfn import quadrature_prediction as quadrature
from bayesnet.pfn.bars import Bars
from bayesnet.pfn.ensemble import PFNEnsemble
from bayesnet.pfn.posterior import CHUNKS, PFNPosterior, pad_context
from bayesnet.pfn.quadrature import QuadratureNetwork
from bayesnet.pfn.transformer import Transformer, pad_columns
from bayesnet.posterior.prediction import Prediction


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


def predict_many(
    pfn: Any, X: ArrayLike, y: ArrayLike, X_new: ArrayLike, ensemble: int
) -> list[Prediction]:
    """See `PFN.predict_many`."""
    x, targets, new = (np.asarray(a, np.float64) for a in (X, y, X_new))
    shapes = f"got X {x.shape}, y {targets.shape}, X_new {new.shape}"
    if x.ndim != 3 or targets.shape != x.shape[:2] or new.ndim != 3:
        raise InputError(f"X must be (t, n, d), y (t, n), X_new (t, q, d); {shapes}.")
    if new.shape[0] != x.shape[0] or new.shape[2] != x.shape[2] or 0 in (*x.shape, new.shape[1]):
        raise InputError(f"X, y and X_new must agree in tables and columns; {shapes}.")
    posteriors = [
        pfn.fit(a, b, warn=False, ensemble=ensemble) for a, b in zip(x, targets, strict=True)
    ]
    matrices = [as_matrix(rows, "X_new") for rows in new]
    scaled = [p.data.scaling.x_in(a) for p, a in zip(posteriors, matrices, strict=True)]
    # One table after the other, and of each its views.
    seen = [pair for p, rows in zip(posteriors, scaled, strict=True) for pair in _views(p, rows)]
    contexts = [pad_context(pfn, p.data.x, p.data.y) for p, _ in seen]
    rows = np.stack([rows for _, rows in seen]).astype(np.float32)
    queries, used = pad_columns(rows, pfn.network.max_dim)
    q = new.shape[1]
    size = next((c for c in CHUNKS if q <= c), q)
    queries = np.pad(queries, ((0, 0), (0, size - q), (0, 0)))
    if isinstance(pfn.network, QuadratureNetwork) and ensemble == 1:
        return _mixtures(pfn, posteriors, contexts, np.stack(scaled), size)
    logits = _many(
        pfn.network,
        pfn.bars,
        jnp.stack([c[0] for c in contexts]),
        jnp.stack([c[1][0] for c in contexts]),
        contexts[0][2],
        jnp.asarray(queries),
        jnp.asarray(used),
    )
    of_y, of_f = (np.asarray(a)[:, :q, None] for a in logits)
    found: list[Prediction] = []
    for i, posterior in enumerate(posteriors):
        pairs = [(of_y[j], of_f[j]) for j in range(i * ensemble, (i + 1) * ensemble)]
        if isinstance(posterior, PFNEnsemble):
            found.append(posterior.prediction(scaled[i], pairs))
        else:
            found.append(posterior.prediction(matrices[i], *pairs[0]))
    return found


def _mixtures(
    pfn: Any, posteriors: list[Any], contexts: list[Any], scaled: np.ndarray, size: int
) -> list[Prediction]:
    """The predictions at scaled rows (t, q, d), padded to `size`, of tables of a quadrature."""
    q = scaled.shape[1]
    queries = np.pad(scaled.astype(np.float32), ((0, 0), (0, size - q), (0, 0)))
    _, _, mask, used = contexts[0]
    x, y = (jnp.stack(a) for a in ([c[0] for c in contexts], [c[1][0] for c in contexts]))
    tables, numbers = quadrature.many(pfn.network, x, y, mask, used, jnp.asarray(queries))
    tables, numbers = jax.tree.map(np.asarray, (tables, numbers[:, :q]))
    found: list[Prediction] = []
    for i, posterior in enumerate(posteriors):
        own = jax.tree.map(lambda a, i=i: a[i : i + 1], tables)
        found.append(
            quadrature.prediction(
                posterior.data, pfn.network, own, mask, used, scaled[i], numbers[i : i + 1]
            )
        )
    return found


def _views(posterior: Any, scaled: np.ndarray) -> list[tuple[PFNPosterior, np.ndarray]]:
    """What is asked of the network: conditioned tables, and scaled new rows as each sees them."""
    if isinstance(posterior, PFNEnsemble):
        return [(p, v.inputs(scaled)) for v, p in posterior.members]
    return [(posterior, scaled)]
