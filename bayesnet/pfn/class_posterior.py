"""The posterior of a classifier: encoded contexts, one a view, that answer queries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from bayesnet import devices
from bayesnet._columns import Names
from bayesnet._errors import UnsupportedError
from bayesnet._matrix import as_matrix
from bayesnet._notices import said_if_slow
from bayesnet._repr import fitted_to, typicality
from bayesnet._types import Array, ArrayLike
from bayesnet.likelihoods.labels import LabelLaw
from bayesnet.pfn.class_network import ClassTransformer
from bayesnet.pfn.class_views import View, make_views
from bayesnet.pfn.context import FIRST_PASS, chunks, in_blocks
from bayesnet.pfn.many import wide
from bayesnet.pfn.transformer import pad_columns
from bayesnet.posterior import ClassPrediction

# A view, and of each row asked the logits (q, K) of its slots and of the share of entropy (q,).
Answer = tuple[View, np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False, repr=False)
class PFNClassPrediction(ClassPrediction):
    """What a PFN says about the class of new rows: `components` is one law, the predictive one.

    `expected_entropy` (n,): the entropy that the label would keep if the function were known, from a
    head that was trained for it. There are no draws of the function: labels are drawn point by point.
    """

    expected_entropy: np.ndarray

    @property
    def aleatoric(self) -> np.ndarray:
        """Expected entropy of the label given the function (n,): more data would not reduce it."""
        return np.minimum(self.expected_entropy, self.entropy)

    def sample(
        self, key: Any, num: int = 1, *, joint: bool = False, noise: bool = True
    ) -> np.ndarray:
        """`num` draws of the labels, (num, n), independent between points.

        Raises `UnsupportedError` for `joint=True` and for `noise=False`: a PFN has no draws of
        the function behind the labels.
        """
        if joint or not noise:
            raise UnsupportedError(
                "A PFN gives the class law of each new row, not functions: labels are drawn row by row "
                "(joint=False, noise=True). For joint draws use bn.BNNClassifier."
            )
        return super().sample(key, num, joint=False)


@dataclass(frozen=True, eq=False)
class ClassPosterior:
    """A table of labels that conditions a `ClassPFN`.

    `x` (n, d) in user units; `codes` (n,) the index of each label among `labels`; `ensemble`: how
    many views are averaged; `wider`: as of `ClassPFN.fit`; `temperature`: what the log probabilities
    are divided by; `names`: of the d columns, if the table was a data frame.
    """

    pfn: Any
    x: np.ndarray
    codes: np.ndarray
    labels: tuple[Any, ...]
    ensemble: int
    wider: str
    seed: int
    temperature: float = 1.0
    names: Names | None = None

    def __repr__(self) -> str:
        what = f"weights {self.pfn.card['name']!r} in {self.ensemble} views, {len(self.labels)} classes"
        return fitted_to(self, what, (*self.x.shape, 1), typicality(self))

    @property
    def in_dim(self) -> int:
        """d, the number of input columns."""
        return int(self.x.shape[1])

    def contexts(self, rows: np.ndarray | None = None) -> list[tuple[View, tuple[Any, ...]]]:
        """Each view, and what the network is given: x (b, D), codes (b,), mask (b,), used (D,) and
        classes (K,), of all rows or of some of them."""
        x = self.x if rows is None else self.x[rows]
        codes = np.asarray(self.codes if rows is None else self.codes[rows], int)
        k, network = len(self.labels), self.pfn.network
        views = make_views(x, k, network.max_dim, self.ensemble, self.wider, self.seed)
        size = next((b for b in self.pfn.card["buckets"] if len(x) <= b), len(x))
        mask = np.arange(size) < len(x)
        classes = np.arange(network.max_classes) < k
        found: list[tuple[View, tuple[Any, ...]]] = []
        for view in views:
            matrix, used = pad_columns(view.inputs(x).astype(np.float32), network.max_dim)
            filled = np.pad(matrix, ((0, size - len(x)), (0, 0)))
            slots = np.pad(view.slots[codes], (0, size - len(x)))
            found.append((view, (filled, slots, mask, used, classes)))
        return found

    @cached_property
    def _members(self) -> list[tuple[View, Any, tuple[Any, ...]]]:
        """Views with their encoded contexts, and mask, used and classes."""
        return [(v, encode(self.pfn.network, *g), g[2:]) for v, g in self.contexts()]

    @devices.single_precision()
    def predict(self, x: ArrayLike) -> PFNClassPrediction:
        """The predictive law of the label at `x` (n, d) in user units.

        Inputs beyond 8 sd of the table's columns count as at 8. Raises `InputError` for the wrong
        number of columns, NaN, or no rows.
        """
        matrix = as_matrix(x, "X", columns=self.in_dim, known=self.names)
        with said_if_slow(FIRST_PASS):
            return self._predict(matrix, self._members, self.temperature)

    def _predict(
        self, matrix: np.ndarray, members: Any, temperature: float = 1.0
    ) -> PFNClassPrediction:
        network = self.pfn.network
        each = []
        for view, cache, (mask, used, classes) in members:
            rows, _ = pad_columns(view.inputs(matrix).astype(np.float32), network.max_dim)
            parts = [
                [np.asarray(a)[:count] for a in decode(network, cache, mask, q, used, classes)]
                for q, count in chunks(rows)
            ]
            logits, share = (np.concatenate([p[i] for p in parts]) for i in range(2))
            each.append((view, logits, share))
        return average(each, self.labels, temperature)

    @cached_property
    @devices.single_precision()
    def surprise(self) -> float:
        """How unlike its training data the PFN finds this table: about 0 is usual, NaN below 6 rows.

        Half of the rows (every other one) predict the other half, and the other way round; this is
        the sum of `-log p(label)` less its expectation under the prediction, over its own sd.
        """
        n = len(self.x)
        if n < 6:
            return float("nan")
        excess, variance = 0.0, 0.0
        for first in (0, 1):
            seen, hidden = np.arange(first, n, 2), np.arange(1 - first, n, 2)
            members = [(v, encode(self.pfn.network, *g), g[2:]) for v, g in self.contexts(seen)]
            p = self._predict(self.x[hidden], members[:1]).mean
            loss = -np.log(np.maximum(p, 1e-9))
            expected = (p * loss).sum(axis=1)
            codes = np.asarray(self.codes, int)[hidden]
            excess += float((loss[np.arange(len(hidden)), codes] - expected).sum())
            variance += float(((p * loss**2).sum(axis=1) - expected**2).sum())
        return excess / math.sqrt(variance + 0.1)

    def save(self, path: str | Path) -> None:
        """Write this posterior, weights included, to one file (never a pickle)."""
        from bayesnet.posterior.saving import save

        save(self, path)


def average(
    members: list[Answer], labels: tuple[Any, ...], temperature: float = 1.0
) -> PFNClassPrediction:
    """The mean of what views say, its log over `temperature`; the share of entropy stays."""
    k = len(labels)
    queries = len(members[0][1])
    total, share = np.zeros((queries, k)), np.zeros(queries)
    for view, logits, odds in members:
        p = np.asarray(jax.nn.softmax(np.asarray(logits, np.float32)[:, :k], axis=-1), np.float64)
        p = p / p.sum(axis=1, keepdims=True)
        total = total + p[:, view.slots] / len(members)
        share = share + 1 / (1 + np.exp(-np.asarray(odds, np.float64))) / len(members)
    log_p = np.log(np.maximum(total, 1e-30))
    inside = share * math.log(k)
    if temperature != 1.0:
        before = -(total * log_p).sum(axis=1)
        log_p = log_p / temperature
        log_p = log_p - np.logaddexp.reduce(log_p, axis=1, keepdims=True)
        after = -(np.exp(log_p) * log_p).sum(axis=1)
        inside = inside * after / np.maximum(before, 1e-12)
    return PFNClassPrediction(LabelLaw(log_p[None], np.exp(log_p)[None]), labels, inside)


def answers(
    network: ClassTransformer, asked: list[tuple[View, tuple[Any, ...], np.ndarray]]
) -> list[Answer]:
    """What each view says of rows (q, d), q the same for all, given the context beside it; in few programs."""
    rows = [
        pad_columns(view.inputs(rows).astype(np.float32), network.max_dim)[0]
        for view, _, rows in asked
    ]
    contexts = [np.stack(a) for a in zip(*(context for _, context, _ in asked), strict=True)]
    logits, share = in_blocks(partial(many, network), *contexts, wide(np.stack(rows)))
    q = len(rows[0])
    return [(view, logits[i, :q], share[i, :q]) for i, (view, _, _) in enumerate(asked)]


@eqx.filter_jit
def encode(
    network: ClassTransformer, x: Array, codes: Array, mask: Array, used: Array, classes: Array
) -> Any:
    """The encoded context."""
    return network.encode(x, codes, mask, used, classes)


@eqx.filter_jit
def decode(
    network: ClassTransformer, cache: Any, mask: Array, x: Array, used: Array, classes: Array
) -> Any:
    """Logits of the classes, and of the share of entropy."""
    return network.decode(cache, mask, x, used, classes)


@eqx.filter_jit
def many(
    network: ClassTransformer,
    x: Array,
    codes: Array,
    mask: Array,
    used: Array,
    classes: Array,
    queries: Array,
) -> Any:
    """The same for tables of one shape, (t, ...) each, in one program."""

    def one(x: Array, codes: Array, mask: Array, used: Array, classes: Array, new: Array) -> Any:
        return network(x, codes, mask, new, used, classes)

    return jax.vmap(one)(x, codes, mask, used, classes, queries)
