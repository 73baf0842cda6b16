"""Where programs run: accelerators, the layout of chains, and the float64 island.

Nothing here changes a global JAX setting: devices are chosen by `jax.default_device` as a
context, and widths of numbers by `jax.enable_x64`, which is thread-local. Programs of networks are
float32 whatever the user has set (`single_precision`); what needs float64 opens its own scope.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError

# For users; the other names serve the rooms of the library.
__all__ = ["describe", "resolve", "using"]

T = TypeVar("T")
R = TypeVar("R")


def resolve(device: str | jax.Device = "auto") -> jax.Device:
    """The JAX device that a name means: "auto", "cpu", "gpu", "tpu", "gpu:1", or a device.

    "auto" is JAX's own first choice, an accelerator where there is one. Raises `InputError`
    if the named device is not there.
    """
    if isinstance(device, jax.Device):
        return device
    if device == "auto":
        return jax.devices()[0]
    platform, _, index = str(device).partition(":")
    if index and not index.isdigit():
        raise InputError(f"Device {device!r}: expected a number after the colon, as in 'gpu:0'.")
    try:
        found = jax.devices(platform or "unnamed")
    except RuntimeError as error:
        present = sorted({d.platform for d in jax.devices()} | {"cpu"})
        raise InputError(
            f"Device {device!r} is not available here; JAX sees: {', '.join(present)}."
        ) from error
    position = int(index) if index else 0
    if position >= len(found):
        raise InputError(
            f"Device {device!r} is not available: there are {len(found)} {platform}(s)."
        )
    return found[position]


@contextmanager
def using(device: str | jax.Device = "auto") -> Iterator[jax.Device]:
    """Run the enclosed code on `device`; arrays made inside live there."""
    chosen = resolve(device)
    with jax.default_device(chosen):
        yield chosen


@contextmanager
def single_precision() -> Iterator[None]:
    """Run the enclosed code, or the decorated function, under JAX's own default widths (32 bits).

    A user may have set `jax_enable_x64`: globally, by environment variable or as a context. Inside,
    arrays without a stated dtype are float32 and int32 all the same, so that programs, kept
    compilations and the draws of a seed are those of everybody else. As a decorator it is one frame more
    between a warning and the user (`stacklevel`).
    """
    with jax.enable_x64(False):
        yield


def as_points(x: Any) -> jax.Array:
    """Inputs of a network as JAX's array: float32, or float64 if `x` is a float64 array of JAX.

    So that arrays of NumPy, which are float64 unless one says otherwise, ask for nothing, whether or
    not `jax_enable_x64` is set.
    """
    wide = isinstance(x, jax.Array) and x.dtype == jnp.float64
    return jnp.asarray(x, jnp.float64 if wide else jnp.float32)


def describe() -> list[dict[str, Any]]:
    """One row per device that JAX sees: name, kind, and whether "auto" picks it."""
    everything = list(jax.devices())
    everything += [d for d in jax.devices("cpu") if d not in everything]
    chosen = jax.devices()[0]
    return [
        {"name": f"{d.platform}:{d.id}", "kind": d.device_kind, "used": d == chosen}
        for d in everything
    ]


def cpu_count() -> int:
    """The cores this process may use (its affinity, not the size of the machine)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory() -> float:
    """Bytes of main memory that programs can still take; infinity where the system does not say."""
    try:
        with open("/proc/meminfo") as table:
            for line in table:
                if line.startswith("MemAvailable"):
                    return 1024.0 * float(line.split()[1])
    except OSError:
        pass
    return float("inf")


def current_platform() -> str:
    """The platform on which a program called now would run."""
    default = jax.config.jax_default_device  # type: ignore[attr-defined]
    if isinstance(default, jax.Device):
        return default.platform
    return jax.default_backend()


def chain_layout() -> str:
    """How to run chains or members beside each other: "threads" on CPU, "vmap" elsewhere.

    Measured (docs/benchmarks.md): on a CPU core `vmap` over chains neither gains nor loses
    per gradient, but it makes every chain wait for the longest trajectory; one program a
    chain, run from one thread a core, gains 1.6 to 1.8 times on two cores.
    """
    return "threads" if current_platform() == "cpu" else "vmap"


def run_side_by_side(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """`[work(item) for item in items]`, from as many threads as there are cores.

    JAX releases the interpreter lock while a program runs. The thread-local settings of the
    caller (device, float64) are carried into the threads.
    """
    workers = min(cpu_count(), len(items))
    work = with_settings(work)
    if workers <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, items))


def with_settings(work: Callable[[T], R]) -> Callable[[T], R]:
    """`work` under the caller's device and float64 setting, stated outright, on any thread.

    JAX keys compiled programs by these settings, and one that is stated is another key than one
    that is inherited: a program compiled outside such a scope is compiled again inside it.
    """
    device = jax.config.jax_default_device  # type: ignore[attr-defined]
    x64 = bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]

    def scoped(item: T) -> R:
        with jax.default_device(device), jax.enable_x64(x64):
            return work(item)

    return scoped


def float64_island(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Run `fn(*arrays) -> pytree of arrays` in float64 inside a float32 program.

    Float inputs are cast to float64 at the border and float outputs back to the widest float
    type of the inputs. Works under `jit`, `grad`, `vmap` and `scan`: the forward and the
    backward pass each open their own scope (autodiff through an open scope breaks on the
    border; see docs/architecture.md). `fn` must be pure, take arrays (or pytrees of arrays)
    only, and must not be jitted itself. Not differentiable twice.
    """

    def is_float(a: Any) -> bool:
        return jnp.issubdtype(jnp.result_type(a), jnp.floating)

    def up(tree: Any) -> Any:
        return jax.tree.map(lambda a: jnp.asarray(a, jnp.float64) if is_float(a) else a, tree)

    def like(tree: Any, reference: Any) -> Any:
        def cast(a: Any, r: Any) -> Any:
            return a.astype(jnp.result_type(r)) if is_float(r) else a

        return jax.tree.map(cast, tree, reference)

    def border_dtype(args: Any) -> Any:
        floats = [jnp.result_type(a) for a in jax.tree.leaves(args) if is_float(a)]
        return jnp.result_type(*floats) if floats else jnp.float32

    def down(tree: Any, dtype: Any) -> Any:
        return jax.tree.map(lambda a: a.astype(dtype) if is_float(a) else a, tree)

    @jax.custom_vjp
    def island(*args: Any) -> Any:
        dtype = border_dtype(args)
        with jax.enable_x64(True):
            return down(fn(*up(args)), dtype)

    def forward(*args: Any) -> tuple[Any, Any]:
        return island(*args), args

    def backward(args: Any, cotangent: Any) -> Any:
        with jax.enable_x64(True):
            wide = up(args)
            floats, rest = _partition(wide, is_float)
            _, pullback = jax.vjp(lambda f: fn(*_combine(f, rest)), floats)
            (gradient,) = pullback(up(cotangent))
            return like(_zeros_for_rest(gradient, wide), args)

    island.defvjp(forward, backward)
    return island


def _partition(tree: Any, keep: Callable[[Any], bool]) -> tuple[Any, Any]:
    kept = jax.tree.map(lambda a: a if keep(a) else None, tree)
    rest = jax.tree.map(lambda a: None if keep(a) else a, tree)
    return kept, rest


def _combine(kept: Any, rest: Any) -> Any:
    return jax.tree.map(lambda a, b: b if a is None else a, kept, rest, is_leaf=lambda a: a is None)


def _zeros_for_rest(gradient: Any, reference: Any) -> Any:
    """Integer inputs (keys, indices) get the symbolic zero tangent that JAX asks for."""

    def fill(g: Any, r: Any) -> Any:
        if g is not None:
            return g
        return np.zeros(jnp.shape(r), jax.dtypes.float0)

    return jax.tree.map(fill, gradient, reference, is_leaf=lambda a: a is None)
