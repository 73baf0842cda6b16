"""Large kernel matrices: in blocks with progress, and products with vectors without the matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError
from bayesnet._matrix import as_matrix
from bayesnet._types import Array, ArrayLike
from bayesnet.data import pad_rows
from bayesnet.devices import available_memory
from bayesnet.kernels.propagation import check_rows, numbers_per_pair

# Bytes that one block may take while it is computed, and how many arrays of the size of its moments
# live at once (covariance, tangent kernel, angle, root and their products).
BLOCK_BYTES, LIVE = 256 * 2**20, 8
LARGEST_BLOCK = 2048
Progress = Callable[[int, int], None]


def kernel_matrix(
    kernel: Any,
    x1: ArrayLike,
    x2: ArrayLike | None = None,
    *,
    block: int | None = None,
    progress: bool | Progress = False,
) -> np.ndarray:
    """The matrix (n, k) of an `NNGP` or `NTK` in float64, computed block by block.

    Args:
        x1, x2: (n, d) and (k, d); with x2 None the square matrix of x1, of which only the blocks on
            and above the diagonal are computed.
        block: rows and columns a block; None chooses so that a block takes at most 256 MiB.
        progress: True prints a line as it goes; a function is called with (done, total) blocks.

    Raises:
        InputError: inputs that do not fit the network, or a matrix that does not fit into the memory
            that is free now; the message says how much is needed.
    """
    a, b = _tables(kernel, x1, x2)
    size = block_size(kernel, block, len(a), len(b))
    _check_memory(kernel, len(a), len(b), size)
    out = np.empty((len(a), len(b)))
    places = [
        (i, j)
        for i in range(0, len(a), size)
        for j in range(0, len(b), size)
        if x2 is not None or j >= i
    ]
    for (i, j), values in _blocks(kernel, a, b, places, size, progress):
        if x2 is None and i == j:
            values = 0.5 * (values + values.T)  # symmetric to the last digit
        out[i : i + size, j : j + size] = values
        if x2 is None and j > i:
            out[j : j + size, i : i + size] = values.T
    return out


def kernel_matvec(
    kernel: Any,
    x1: ArrayLike,
    v: ArrayLike,
    x2: ArrayLike | None = None,
    *,
    block: int | None = None,
    progress: bool | Progress = False,
) -> np.ndarray:
    """`kernel(x1, x2) @ v` in float64 with one block of the matrix at a time; x2 None means x1.

    v is (k,) or (k, c). Arguments and errors are otherwise those of `kernel_matrix`; half of the square
    matrix serves both sides.
    """
    a, b = _tables(kernel, x1, x2)
    right = np.asarray(v, np.float64)
    if right.ndim not in (1, 2) or len(right) != len(b):
        raise InputError(
            f"v must have shape ({len(b)},) or ({len(b)}, c), a row for each of x2, got {right.shape}."
        )
    size = block_size(kernel, block, len(a), len(b))
    out = np.zeros((len(a), *right.shape[1:]))
    places = [
        (i, j)
        for i in range(0, len(a), size)
        for j in range(0, len(b), size)
        if x2 is not None or j >= i
    ]
    for (i, j), values in _blocks(kernel, a, b, places, size, progress):
        out[i : i + size] += values @ right[j : j + size]
        if x2 is None and j > i:
            out[j : j + size] += values.T @ right[i : i + size]
    return out


def _tables(kernel: Any, x1: ArrayLike, x2: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    a = as_matrix(x1, "x1")
    b = a if x2 is None else as_matrix(x2, "x2", columns=a.shape[1])
    check_rows(kernel.layers, a.shape, "x1")
    return a, b


def block_size(kernel: Any, block: int | None, n: int, k: int) -> int:
    """Rows and columns of a block: as asked for, or what keeps it below `BLOCK_BYTES`."""
    if block is not None:
        if isinstance(block, bool) or int(block) != block or block < 1:
            raise InputError(f"block must be a whole number of at least 1, got {block!r}.")
        return min(int(block), max(n, k))
    pairs = BLOCK_BYTES / (8.0 * LIVE * numbers_per_pair(kernel.layers))
    return min(max(int(pairs**0.5), 1), LARGEST_BLOCK, max(n, k))


def _check_memory(kernel: Any, n: int, k: int, size: int) -> None:
    temporary = 8.0 * LIVE * numbers_per_pair(kernel.layers) * min(size, n) * min(size, k)
    needed, free = 8.0 * n * k + temporary, available_memory()
    if needed > free:
        raise InputError(
            f"The kernel matrix of {n} x {k} rows needs about {needed / 2**30:.1f} GiB in float64, and "
            f"{free / 2**30:.1f} GiB are free. Take fewer rows, or products with it that never hold it: "
            "kernel.matvec(x, v)."
        )


def check_direct(kernel: Any, n: int, k: int) -> None:
    """Raises `InputError` if `kernel.kernel` of n x k rows, all at once, cannot fit into memory."""
    numbers = numbers_per_pair(kernel.layers)
    needed, free = 8.0 * LIVE * numbers * n * k, available_memory()
    if needed > free:
        raise InputError(
            f"The kernel of {n} x {k} rows at once needs about {needed / 2**30:.1f} GiB ({numbers} numbers a "
            f"pair of rows), and {free / 2**30:.1f} GiB are free. Compute it in blocks, "
            "kernel.in_blocks(x1, x2), or take fewer rows."
        )


def _blocks(
    kernel: Any,
    a: np.ndarray,
    b: np.ndarray,
    places: list[tuple[int, int]],
    size: int,
    progress: bool | Progress,
) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Each place with its block; one program for all, as ragged ends are padded."""
    bare, total = kernel.bare(), len(places)
    rows, columns = min(size, len(a)), min(size, len(b))
    with jax.enable_x64(True):
        hyper = jax.tree.map(jnp.asarray, kernel.hyper)
    for done, (i, j) in enumerate(places):
        left, right = a[i : i + size], b[j : j + size]
        with jax.enable_x64(True):
            x1, x2 = jnp.asarray(pad_rows(left, rows)), jnp.asarray(pad_rows(right, columns))
            values = np.asarray(_block(bare, hyper, x1, x2))
        yield (i, j), values[: len(left), : len(right)]
        if callable(progress):
            progress(done + 1, total)
        elif progress and (done + 1 == total or (done + 1) % max(1, total // 20) == 0):
            print(f"kernel matrix: block {done + 1} of {total}", flush=True)


@partial(jax.jit, static_argnums=0)
def _block(kernel: Any, hyper: Any, x1: Array, x2: Array) -> Array:
    return kernel.matrix(hyper, x1, x2)
