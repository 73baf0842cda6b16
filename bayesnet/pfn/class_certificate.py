"""How good a classifier is, measured on tables that it has not seen: what its card holds.

The excess is the mean over tables and queries of the KL divergence, in nats, from the probabilities
that the prior gives knowing the function behind that very table: more than any method can know, so
that the excess of a perfect PFN is not zero but the price of not knowing the function.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import numpy as np

from bayesnet.pfn.class_tasks import ClassBatch, ClassTasks
from bayesnet.pfn.class_training import padded

# Seeds of certificates, far from those of training.
_SEED = 7_000_003


@eqx.filter_jit
def _probabilities(network: Any, batch: ClassBatch) -> Any:
    def one(x: Any, codes: Any, mask: Any, queries: Any, classes: Any) -> Any:
        return network(x, codes, mask, queries, batch.used, classes)[0]

    b = batch
    return jax.nn.softmax(jax.vmap(one)(b.x, b.codes, b.mask, b.queries, b.classes))


def score(
    pfn: Any, tasks: ClassTasks, d: int, n: int, tables: int = 128, seed: int = 0
) -> dict[str, Any]:
    """Scores of a classifier on tables of `d` columns and `n` rows, parts of the prior by weight.

    `excess`, with its 95 % interval, as said above; `shares`: that of predicting the true mean shares
    of the classes, the same everywhere; `accuracy`: the mean probability of being right, and
    `most`: the highest that a method knowing the function has; `ece`: the expected calibration error
    of the most probable class, in 15 bins of equal size.
    """
    counts = np.maximum(1, np.round(tables * tasks.weights)).astype(int)
    rows: list[np.ndarray] = []
    confidence, right = [], []
    for part, each in enumerate(counts):
        key = jax.random.key(_SEED + seed)
        for value in (d, n, part):
            key = jax.random.fold_in(key, value)
        batch = padded(tasks.draw(key, int(each), np.full(each, n), d, part), pfn.max_dim)
        p = np.asarray(_probabilities(pfn.network, batch), np.float64)
        target = np.asarray(batch.target, np.float64)
        chosen = p.argmax(axis=-1)[..., None]
        hit = np.take_along_axis(target, chosen, axis=-1)[..., 0]
        mean = target.mean(axis=1, keepdims=True)
        rows.append(
            np.stack(
                [
                    _kl(target, p).mean(axis=1),
                    _kl(target, np.broadcast_to(mean, target.shape)).mean(axis=1),
                    hit.mean(axis=1),
                    target.max(axis=-1).mean(axis=1),
                ],
                axis=1,
            )
        )
        confidence.append(p.max(axis=-1).ravel())
        right.append(hit.ravel())
    table = np.concatenate(rows)
    return {
        "d": d,
        "n": n,
        "tables": len(table),
        "excess": _rounded(table[:, 0].mean()),
        "interval": _rounded(1.96 * table[:, 0].std(ddof=1) / np.sqrt(len(table))),
        "shares": _rounded(table[:, 1].mean()),
        "accuracy": _rounded(table[:, 2].mean()),
        "most": _rounded(table[:, 3].mean()),
        "ece": _rounded(calibration_error(np.concatenate(confidence), np.concatenate(right))),
    }


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """Mean distance of confidence (n,) and share of right answers (n,), in bins of equal size.

    Guo et al. (2017), eq. 3, with equal-mass bins; `right` may be probabilities of being right.
    """
    order = np.argsort(confidence, kind="stable")
    gaps = [
        len(part) * abs(confidence[part].mean() - right[part].mean())
        for part in np.array_split(order, bins)
        if len(part)
    ]
    return float(np.sum(gaps) / len(confidence))


def surprise_limit(pfn: Any, tasks: ClassTasks, dims: tuple[int, ...], each: int = 64) -> float:
    """The `surprise` that 1 in 200 tables of the prior exceed."""
    rng = np.random.default_rng(_SEED)
    found = []
    for i, d in enumerate(dims):
        counts = rng.integers(6, tasks.max_rows + 1, size=each)
        part = int(rng.choice(len(tasks.weights), p=tasks.weights))
        key = jax.random.fold_in(jax.random.key(_SEED), 1000 + i)
        batch = tasks.draw(key, each, counts, d, part)
        for x, codes, n in zip(np.asarray(batch.x), np.asarray(batch.codes), counts, strict=True):
            if len(np.unique(codes[:n])) > 1:
                fitted = pfn.fit(x[:n], codes[:n], wider="project", warn=False)
                found.append(fitted.surprise)
    return float(np.quantile(found, 0.995))


def certify(
    pfn: Any,
    tasks: ClassTasks,
    *,
    dims: tuple[int, ...] = (1, 2, 5, 10),
    counts: tuple[int, ...] = (10, 30, 100),
    tables: int = 128,
) -> Any:
    """The classifier with a certificate in its card: rows of `score`, by columns and rows."""
    rows = [score(pfn, tasks, d, n, tables) for d in dims for n in counts]
    limit = surprise_limit(pfn, tasks, dims, tables)
    return type(pfn)(pfn.network, pfn.card | {"certificate": rows, "surprise_limit": limit})


def _kl(target: np.ndarray, p: np.ndarray) -> np.ndarray:
    safe = np.where(target > 0, target, 1.0)
    return np.sum(target * (np.log(safe) - np.log(np.maximum(p, 1e-30))), axis=-1)


def _rounded(value: Any) -> float:
    return round(float(value), 4)
