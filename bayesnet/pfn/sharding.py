"""Several devices: the tasks of a batch are shared out, the weights are on each of them.

Tasks are drawn as for one device, so that a step sees the same ones on any number of devices; the
loss is a mean over tasks, for which XLA adds up the devices' gradients. So results agree with those
of one device to rounding, and bit for bit between runs on the same layout.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bayesnet._errors import InputError
from bayesnet._types import PyTree
from bayesnet.devices import current_platform

_AXIS = "tasks"


def mesh_of(devices: int) -> Mesh | None:
    """The first `devices` devices of the platform where programs run now; None for one device.

    Raises `InputError` where there are not so many.
    """
    return None if devices == 1 else _mesh(current_platform(), devices)


@cache
def _mesh(platform: str, devices: int) -> Mesh:
    found = jax.devices(platform)
    if len(found) < devices:
        raise InputError(
            f"devices={devices}, but JAX sees {len(found)} of the kind {platform!r}: pass at most "
            "that many (see: bayesnet devices)."
        )
    return Mesh(np.array(found[:devices]), (_AXIS,))


def replicated(state: PyTree, devices: int) -> Any:
    """Arrays on every device; as they are for one. Also inside of a program."""
    mesh = mesh_of(devices)
    if mesh is None:
        return state
    everywhere = NamedSharding(mesh, PartitionSpec())

    def put(a: Any) -> Any:
        if not isinstance(a, jax.Array):
            return a
        if isinstance(a, jax.core.Tracer):
            return jax.lax.with_sharding_constraint(a, everywhere)
        return jax.device_put(a, everywhere)

    return jax.tree.map(put, state)


def shared_out(batch: PyTree, size: int, devices: int) -> Any:
    """A batch of `size` tasks: arrays with that many rows by equal parts, others on every device."""
    mesh = mesh_of(devices)
    if mesh is None:
        return batch

    def put(a: Any) -> Any:
        if not isinstance(a, (jax.Array, np.ndarray)):
            return a
        parts = PartitionSpec(_AXIS) if a.ndim and len(a) == size else PartitionSpec()
        return jax.device_put(a, NamedSharding(mesh, parts))

    return jax.tree.map(put, batch)


def gathered(state: PyTree, devices: int) -> Any:
    """Arrays of every device, as arrays of the one where programs run."""
    if devices == 1:
        return state
    return jax.tree.map(
        lambda a: jnp.asarray(np.asarray(a)) if isinstance(a, jax.Array) else a, state
    )
