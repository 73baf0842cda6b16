"""Many tables of one shape, conditioned in one program."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import jax
import numpy as np

from bayesnet._columns import Names, names_at_fit, names_of
from bayesnet._errors import InputError
from bayesnet._matrix import as_matrix, as_numbers, on_host, widened
from bayesnet._scales import affine_in, check_near, check_targets, check_y_scale, standardization
from bayesnet._types import Array, ArrayLike, Float
from bayesnet.pfn import quadrature_prediction as quadrature
from bayesnet.pfn.bars import Bars
from bayesnet.pfn.context import CHUNKS, in_blocks, pad_context
from bayesnet.pfn.ensemble import PFNEnsemble
from bayesnet.pfn.posterior import PFNPosterior, evidence_of
from bayesnet.pfn.quadrature import QuadratureNetwork
from bayesnet.pfn.transformer import Transformer, pad_columns
from bayesnet.posterior.prediction import Prediction

# Sizes to which queries are padded.
SIZES = (16, *CHUNKS)


@jax.jit
def _bars(
    network: Transformer,
    bars: Bars,
    mask: Array,
    used: Array,
    x: Float[Array, "t n d"],
    y: Float[Array, "t n"],
    queries: Float[Array, "t q d"],
) -> tuple[Float[Array, "t q k"], Float[Array, "t q k"], Any]:
    def one(rows: Array, targets: Array, new: Array) -> Any:
        cache = network.encode(rows, targets, mask, used)
        return *network.decode(cache, mask, new, used, bars), evidence_of(cache)

    found: tuple[Array, Array, Any] = jax.vmap(one)(x, y, queries)
    return found


def tables_of(
    X: ArrayLike, y: ArrayLike, X_new: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X (t, n, d), y (t, n) and X_new (t, q, d) as arrays, X and X_new finite.

    Raises `InputError` for other shapes, and for what is not a number.
    """
    x, targets = _tables("X", X, None), widened(np.asarray(on_host(y)))
    new = _tables("X_new", X_new, _names(X))
    shapes = f"got X {x.shape}, y {targets.shape}, X_new {new.shape}"
    if x.ndim != 3 or targets.shape != x.shape[:2] or new.ndim != 3:
        raise InputError(f"X must be (t, n, d), y (t, n), X_new (t, q, d); {shapes}.")
    if len(new) != len(x) or new.shape[2] != x.shape[2] or 0 in (*x.shape, new.shape[1]):
        raise InputError(f"X, y and X_new must agree in tables and columns; {shapes}.")
    return x, targets, new


def _names(tables: Any) -> list[Names | None] | None:
    """The names of columns of each of some frames."""
    return [names_at_fit(t, "X") for t in tables] if _are_frames(tables) else None


def _are_frames(tables: Any) -> bool:
    return isinstance(tables, (list, tuple)) and any(names_of(t) is not None for t in tables)


def _tables(name: str, tables: ArrayLike, known: list[Names | None] | None) -> np.ndarray:
    """Tables (t, n, d), frames among them in the order of the `known` names of each."""
    if _are_frames(tables):
        orders = known if known is not None and len(known) == len(tables) else [None] * len(tables)
        tables = [as_matrix(t, name, known=o) for t, o in zip(tables, orders, strict=True)]
    return _numbers(name, tables)


def _numbers(name: str, a: ArrayLike) -> np.ndarray:
    try:
        array = as_numbers(a)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be an array of numbers: {error}.") from error
    bad = ~np.isfinite(array)
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"{name} holds NaN or infinity (first at {at}: table, row). Drop or impute those rows first."
        )
    return array


def predict_many(
    pfn: Any, X: ArrayLike, y: ArrayLike, X_new: ArrayLike, ensemble: int
) -> list[Prediction]:
    """See `PFN.predict_many`."""
    x, targets, new = tables_of(X, _numbers("y", y), X_new)
    check_targets(targets)
    if isinstance(pfn.network, QuadratureNetwork) and ensemble == 1:
        return _mixtures(pfn, x, targets, new)
    posteriors = [
        pfn.fit(a, b, warn=False, ensemble=ensemble) for a, b in zip(x, targets, strict=True)
    ]
    scaled = [p.data.scaling.x_in(a) for p, a in zip(posteriors, new, strict=True)]
    check_near(np.stack(scaled), np.float32)
    # One table after the other, and of each its views.
    seen = [pair for p, rows in zip(posteriors, scaled, strict=True) for pair in _views(p, rows)]
    contexts = [pad_context(pfn, p.data.x, p.data.y) for p, _ in seen]
    q = new.shape[1]
    rows = np.stack([rows for _, rows in seen]).astype(np.float32)
    queries, used = pad_columns(wide(rows), pfn.max_dim)
    x, targets = np.stack([c[0] for c in contexts]), np.stack([c[1][0] for c in contexts])
    mask = contexts[0][2]  # that of all
    program = partial(_bars, pfn.network_for(new.shape[2]), pfn.bars, mask, used)
    *logits, evidence = in_blocks(program, x, targets, queries)
    of_y, of_f = (np.asarray(a)[:, :q, None] for a in logits)
    found: list[Prediction] = []
    for i, posterior in enumerate(posteriors):
        at = range(i * ensemble, (i + 1) * ensemble)
        pairs = [(of_y[j], of_f[j]) for j in at]
        if isinstance(posterior, PFNEnsemble):
            known = [None if evidence is None else evidence[j : j + 1] for j in at]
            found.append(posterior.prediction(scaled[i], pairs, posterior.components(known)))
        else:
            found.append(posterior.prediction(new[i], *pairs[0]))
    return found


def wide(rows: np.ndarray) -> np.ndarray:
    """Query rows (t, q, d), padded to one of a few sizes."""
    q = rows.shape[1]
    size = next((c for c in SIZES if q <= c), q)
    return np.pad(rows, ((0, 0), (0, size - q), (0, 0)))


def _mixtures(pfn: Any, x: np.ndarray, y: np.ndarray, new: np.ndarray) -> list[Prediction]:
    """The predictions of a quadrature; tables are scaled together, for one by one takes a tenth of it all."""
    pfn.limits.check_columns(x.shape[2])
    pfn.limits.check_rows(x.shape[1])
    x_loc, x_scale = (a[:, None] for a in standardization(x))
    loc, scale = standardization(y[..., None])
    check_y_scale(scale)
    targets = (y - loc) / scale
    rows, targets, mask, used = pad_context(pfn, affine_in(x, x_loc, x_scale), targets[..., None])
    scaled = affine_in(new, x_loc, x_scale)
    check_near(scaled, np.float32)
    network = pfn.network_for(x.shape[2])
    program = partial(quadrature.many, network, mask, used)
    found = in_blocks(program, rows, targets[:, 0], wide(scaled))
    laws = quadrature.in_units(found[:, : new.shape[1]], loc[:, 0], scale[:, 0])

    def one(i: int) -> Prediction:
        # Asked for joint laws, a prediction conditions its table anew, once.
        processes = cache(lambda: pfn.fit(x[i], y[i], warn=False).processes())
        own = tuple(a[..., i : i + 1] for a in laws)
        return quadrature.prediction(own, network, processes, scaled[i], scale[i])

    return [one(i) for i in range(len(x))]


def _views(posterior: Any, scaled: np.ndarray) -> list[tuple[PFNPosterior, np.ndarray]]:
    """What is asked of the network: conditioned tables, and scaled new rows as each sees them."""
    if isinstance(posterior, PFNEnsemble):
        return [(p, v.inputs(scaled)) for v, p in posterior.members]
    return [(posterior, scaled)]
