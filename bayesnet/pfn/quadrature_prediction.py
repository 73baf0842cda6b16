"""What a quadrature says about new rows: its mixture of Gaussian processes, without bars."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._types import Array, Float
from bayesnet.pfn.context import chunks
from bayesnet.pfn.node_algebra import joint_at
from bayesnet.pfn.nodes import Conditioned
from bayesnet.pfn.quadrature import QuadratureNetwork
from bayesnet.posterior.process_prediction import ProcessPrediction

# What a table leaves behind, the mask of its rows, and the columns used.
Processes = Callable[[], tuple[Conditioned, Any, Any]]


@partial(jax.jit, static_argnames="columns")
def _condition(
    network: QuadratureNetwork, x: Array, y: Array, mask: Array, used: Array, columns: int
) -> Conditioned:
    return jax.vmap(lambda a: network.encode(x[:, :columns], a, mask, used))(y)


def condition(
    network: QuadratureNetwork,
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "m n"],
    mask: np.ndarray,
    used: np.ndarray,
    columns: int,
) -> Conditioned:
    """The table of every output (leading axis m), conditioned; the first `columns` are real.

    In float64 but for the network: rows without noise need all digits.
    """
    with jax.enable_x64(True):
        x, y, used = (np.asarray(a, np.float64) for a in (x, y, used))
        found: Conditioned = _condition(network, x, y, mask, used, columns)
    return found


@jax.jit
def mixture(
    network: QuadratureNetwork,
    tables: Conditioned,
    mask: Array,
    used: Array,
    x: Float[Array, "q d"],
) -> Float[Array, "m q 2 3 c"]:
    """The mixtures of every output at queries without padding."""
    return jax.vmap(lambda t: network.mixture(t, mask, x, used))(tables)


def at_rows(
    network: QuadratureNetwork, tables: Conditioned, mask: Any, used: Any, x: np.ndarray
) -> Float[np.ndarray, "m q 2 3 c"]:
    """`mixture` at any number of scaled rows (q, d), chunk after chunk."""
    with jax.enable_x64(True):
        used = np.asarray(used, np.float64)
        found = [
            np.asarray(mixture(network, tables, mask, used, rows))[:, :count]
            for rows, count in chunks(np.asarray(x, np.float64))
        ]
    return np.concatenate(found, axis=1)


def many(
    network: QuadratureNetwork,
    mask: np.ndarray,
    used: np.ndarray,
    x: Float[np.ndarray, "t n d"],
    y: Float[np.ndarray, "t n"],
    queries: Float[np.ndarray, "t q d"],
) -> Float[Array, "t q 2 3 c"]:
    """The mixtures of tables of one shape at queries of their own (without padding), as above."""
    with jax.enable_x64(True):
        arrays = (np.asarray(a, np.float64) for a in (used, x, y, queries))
        found: Array = _many(network, mask, *arrays)
    return found


@jax.jit
def _many(
    network: QuadratureNetwork, mask: Array, used: Array, x: Array, y: Array, queries: Array
) -> Array:
    def one(rows: Array, targets: Array, new: Array) -> Array:
        table = network.encode(rows[:, : new.shape[1]], targets, mask, used)
        return network.mixture(table, mask, new, used)

    return jax.vmap(one)(x, y, queries)


def in_units(
    numbers: Float[np.ndarray, "m n 2 3 c"],
    loc: Float[np.ndarray, " m"],
    scale: Float[np.ndarray, " m"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Means, sds of f and of the noise (c, n, m), and log weights (c, m) of what `mixture` says, in units
    of targets with that location and scale."""
    a = np.moveaxis(np.asarray(numbers, np.float64), (4, 1, 0), (0, 1, 2))  # c n m 2 3
    variance = np.exp(2 * a[..., 2])
    function = np.sqrt(variance[..., 1])
    noise = np.sqrt(np.maximum(variance[..., 0] - variance[..., 1], 0.0))
    return a[..., 0, 1] * scale + loc, function * scale, noise * scale, a[:, 0, :, 0, 0]


def prediction(
    laws: tuple[np.ndarray, ...],
    network: QuadratureNetwork,
    processes: Processes,
    scaled: np.ndarray,
    scale: Float[np.ndarray, " m"],
) -> ProcessPrediction:
    """The law in user units at scaled rows (n, d), given what `in_units` says there; `scale`: of y.

    `processes` is called where joint laws are asked for: it gives what `condition` gives, the mask,
    and the columns used.
    """
    location, function, noise, weight = laws
    nodes, _, m = function.shape
    return ProcessPrediction(
        location,
        function,
        noise,
        weight,
        None,
        np.full(m, np.inf),
        # Outputs are conditioned by themselves: each weighs the nodes its own way.
        np.zeros(nodes, int),
        False,
        partial(joint_covariance, network, processes, scaled, scale),
    )


def joint_covariance(
    network: QuadratureNetwork,
    processes: Processes,
    scaled: np.ndarray,
    scale: Float[np.ndarray, " m"],
    node: int,
    output: int,
) -> np.ndarray:
    """The covariance (n, n) of f between scaled rows at one node, in the units of y squared."""
    tables, mask, used = processes()
    kind, at = divmod(node, tables.log_weight.shape[2])
    with jax.enable_x64(True):
        table = jax.tree.map(lambda a: jnp.asarray(np.asarray(a[output]), jnp.float64), tables)
        rows = jnp.asarray(scaled, jnp.float64)
        found = np.asarray(_covariance(network, table, mask, used, rows, kind, at))
    return found * float(scale[output]) ** 2


@partial(jax.jit, static_argnames=("kind", "at"))
def _covariance(
    network: QuadratureNetwork,
    table: Conditioned,
    mask: Array,
    used: Array,
    x: Float[Array, "q d"],
    kind: int,
    at: int,
) -> Float[Array, "q q"]:
    d = used.sum().astype(int)
    hyper, _ = network.hyper.hyper(kind, d, table.z[kind, at], table.gates[kind, at], x.shape[1])
    solve = joint_at(network.hyper.kernels[kind])
    return solve(hyper, table.solved[kind, at], table.root[kind, at], table.x, mask, x)[1]
