"""Tables and queries as a compiled network takes them: padded to few sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from bayesnet.devices import current_platform, run_side_by_side
from bayesnet.pfn.transformer import pad_columns

# Query rows of one call of the compiled program; what is left is padded to the smaller one. Few
# sizes, so that a row has the same answer (to the last bit, below 129 rows) whatever comes with it.
CHUNKS = (128, 1024)
# Tables, or draws, of one call of a program.
ON_CPU, ELSEWHERE = 8, 256
# What is said of passes that take long; see `_notices`.
FIRST_PASS = (
    "Conditioning trained weights on the table: the first pass in a process also compiles its programs, once for each "
    "number of columns and bucket of rows; later ones are quicker."
)


def pad_context(
    pfn: Any, x: np.ndarray, y: np.ndarray, extra: int = 0
) -> tuple[Any, Any, Any, Any]:
    """Of x (..., n, d) and y (..., n, m): x (..., b, D), y (..., m, b), mask (b,) and used columns (D,),
    b the bucket of n + extra rows."""
    *tables, n, _ = x.shape
    size = next((b for b in pfn.card["buckets"] if n + extra <= b), n + extra)
    padded, used = pad_columns(np.asarray(x, np.float32), pfn.max_dim)
    rows = np.zeros((*tables, size, pfn.max_dim), np.float32)
    rows[..., :n, :] = padded
    targets = np.zeros((*tables, y.shape[-1], size), np.float32)
    targets[..., :n] = np.swapaxes(y, -1, -2)
    return rows, targets, np.arange(size) < n, used


def in_blocks(program: Any, *arrays: np.ndarray) -> Any:
    """`program(*arrays)`, block after block of tables or draws (leading axes), side by side on the cores.

    Blocks have one size, so that one program is compiled whatever their number. On CPU small
    ones are quickest, and a core each: two threads on one program wait for each other.
    """
    count = len(arrays[0])
    size = min(count, ON_CPU if current_platform() == "cpu" else ELSEWHERE)
    blocks = [tuple(pad(a[at : at + size], size) for a in arrays) for at in range(0, count, size)]

    def run(block: tuple[np.ndarray, ...]) -> Any:
        return jax.tree.map(np.asarray, program(*block))

    # The first alone: it is compiled once, and under the settings of the others.
    parts = run_side_by_side(run, blocks[:1]) + run_side_by_side(run, blocks[1:])
    return jax.tree.map(lambda *a: np.concatenate(a)[:count], *parts)


def chunks(x: np.ndarray) -> Iterator[tuple[Any, int]]:
    """The rows of `x` in blocks of a few sizes, the last one padded, each with its number of rows."""
    for start in range(0, len(x), CHUNKS[-1]):
        rows = x[start : start + CHUNKS[-1]]
        yield pad(rows, next(c for c in CHUNKS if len(rows) <= c)), len(rows)


def pad(a: np.ndarray, size: int) -> np.ndarray:
    """`a` (n, ...) with zeros up to `size` rows."""
    return np.concatenate([a, np.zeros((size - len(a), *a.shape[1:]), a.dtype)])
