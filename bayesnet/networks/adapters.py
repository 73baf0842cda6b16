"""Adapters: an equinox module, a flax module, or a bare (init, apply) pair as a `Network`.

Only trainable parameters become latents. A module that carries other state that changes
while it runs (batch statistics, dropout streams) is refused by name: a posterior over
weights has no single value for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError
from bayesnet._types import Array, Float, Key, PyTree
from bayesnet.networks.base import Network


@dataclass(frozen=True, eq=False)
class ForeignNetwork:
    """A network of another library, as functions of a pytree of parameters.

    `init_fn(key, in_dim, out_dim) -> params` and `apply_fn(params, x) -> (n, m)`;
    `fan_in(shape)` reads a leaf's fan-in from its shape in that library's layout. Equality is
    identity, so that compiled programs are cached per wrapped object. `source` is what was
    wrapped: pickling keeps it and wraps it again.
    """

    kind: str
    init_fn: Callable[[Key, int, int], PyTree]
    apply_fn: Callable[[PyTree, Any], Any]
    fan_in: Callable[[tuple[int, ...]], int]
    source: Any

    def __reduce__(self) -> tuple[Any, ...]:
        return as_network, (self.source,)

    @property
    def output_axis(self) -> int:
        """The axis of weight arrays that runs over output units."""
        return 0 if self.fan_in is _first_axis_is_output else -1

    def __deepcopy__(self, memo: Any) -> ForeignNetwork:
        return self  # nothing in it changes, and programs are cached on its identity

    def param_shapes(self, in_dim: int, out_dim: int) -> PyTree:
        return jax.eval_shape(lambda key: self.init_fn(key, in_dim, out_dim), jax.random.key(0))

    def base_law(self, in_dim: int, out_dim: int) -> tuple[PyTree, PyTree]:
        """Weights N(0, 1/fan_in), vectors N(0, 1); a leaf that starts at a constant other
        than 0 (the gain of a normalisation layer) is centred there."""
        start = self.init(jax.random.key(0), in_dim, out_dim)

        def loc(leaf: Any) -> float:
            values = np.asarray(leaf)
            if values.size == 0 or not np.all(values == values.flat[0]):
                return 0.0
            # A single number may be a random start (the bias of one output), unless it is a gain.
            return float(values.flat[0]) if values.size > 1 or values.flat[0] == 1.0 else 0.0

        def scale(leaf: Any) -> float:
            return float(self.fan_in(leaf.shape)) ** -0.5 if leaf.ndim > 1 else 1.0

        return jax.tree.map(loc, start), jax.tree.map(scale, start)

    def init(self, key: Key, in_dim: int, out_dim: int) -> PyTree:
        return self.init_fn(key, in_dim, out_dim)

    def apply(self, params: PyTree, x: Float[Array, "n d"]) -> Float[Array, "n m"]:
        out = self.apply_fn(params, x)
        return out[:, None] if out.ndim == 1 else out


def _last_axis_is_output(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape[:-1]))


def _first_axis_is_output(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape[1:]))


def from_functions(
    init: Callable[[Key], PyTree], apply: Callable[[PyTree, Array], Array]
) -> ForeignNetwork:
    """A network from a bare pair `init(key) -> params`, `apply(params, x (n, d)) -> (n, m)`.

    Parameters must be floating-point arrays; matrices are read as (inputs, outputs).
    """

    def init_fn(key: Key, in_dim: int, out_dim: int) -> PyTree:
        params = init(key)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                raise InputError(
                    f"Parameter {jax.tree_util.keystr(path)} of the network is not a floating-point "
                    "array: keep state and settings out of the parameters that init returns."
                )
        return params

    return ForeignNetwork("functions", init_fn, apply, _last_axis_is_output, (init, apply))


def from_equinox(module: eqx.Module) -> ForeignNetwork:
    """A network from an equinox module that maps one row (d,) to (m,); it is vmapped over rows.

    Raises `InputError` for a module with state (`eqx.nn.StateIndex`, as in BatchNorm) or
    active dropout.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(
        module, is_leaf=lambda a: isinstance(a, (eqx.nn.StateIndex, eqx.nn.Dropout))
    ):
        where = jax.tree_util.keystr(path)
        if isinstance(leaf, eqx.nn.StateIndex):
            raise InputError(
                f"The equinox module keeps state at {where} (batch statistics?): a weight posterior "
                "cannot hold it. Use a normalisation without running statistics (LayerNorm, GroupNorm)."
            )
        if isinstance(leaf, eqx.nn.Dropout) and not leaf.inference:
            raise InputError(f"Dropout at {where} is active: remove it or set inference mode.")
    start, static = eqx.partition(module, eqx.is_inexact_array)

    def apply_fn(params: PyTree, x: Array) -> Array:
        return jax.vmap(eqx.combine(params, static))(x)

    def init_fn(key: Key, in_dim: int, out_dim: int) -> PyTree:
        # An equinox module is built already initialised; the key has nothing left to draw.
        del key
        return start

    return ForeignNetwork("equinox", init_fn, apply_fn, _first_axis_is_output, module)


def from_flax(module: Any) -> ForeignNetwork:
    """A network from a flax linen or nnx module that maps a batch (n, d) to (n, m).

    Raises `InputError`, naming the collection, if the module has variables other than
    trainable parameters (batch statistics, caches, random streams).
    """
    from flax import nnx
    from flax.errors import InvalidRngError

    if isinstance(module, nnx.Module):
        return _from_nnx(module)

    def init_fn(key: Key, in_dim: int, out_dim: int) -> PyTree:
        variables = module.init(key, jnp.zeros((1, in_dim)))
        _refuse_state(sorted(set(variables) - {"params"}))
        return variables["params"]

    def apply_fn(params: PyTree, x: Array) -> Array:
        try:
            return module.apply({"params": params}, x)
        except InvalidRngError as error:
            raise InputError(
                f"The flax module draws random numbers while it runs (dropout?): {error}. Remove "
                "that layer or make it deterministic."
            ) from error

    return ForeignNetwork("flax", init_fn, apply_fn, _last_axis_is_output, module)


def _from_nnx(module: Any) -> ForeignNetwork:
    from flax import nnx

    graph, params, rest = nnx.split(module, nnx.Param, ...)  # type: ignore[misc]
    kinds = {type(v).__name__ for _, v in nnx.to_flat_state(rest)}
    _refuse_state(sorted(kinds))
    start = nnx.to_pure_dict(params)

    def apply_fn(leaves: PyTree, x: Array) -> Array:
        state = jax.tree.map(lambda a: a, params)
        nnx.replace_by_pure_dict(state, leaves)
        return nnx.merge(graph, state)(x)

    def init_fn(key: Key, in_dim: int, out_dim: int) -> PyTree:
        del key  # an nnx module is built already initialised
        return start

    return ForeignNetwork("flax-nnx", init_fn, apply_fn, _last_axis_is_output, module)


def _refuse_state(names: list[str]) -> None:
    if names:
        raise InputError(
            f"The flax module carries state besides its parameters: {', '.join(names)}. A weight "
            "posterior cannot hold it; use layers without running statistics (LayerNorm, GroupNorm) "
            "and no dropout."
        )


def as_network(network: Any) -> Network:
    """`network` itself if it follows the protocol, else wrapped by the adapter that fits."""
    if isinstance(network, type):
        raise InputError(f"Pass a network, not its class: {network.__name__}(...).")
    if isinstance(network, Network):
        return network
    if isinstance(network, eqx.Module):
        return from_equinox(network)
    if type(network).__module__.split(".")[0] == "flax" or any(
        base.__module__.startswith("flax.") for base in type(network).__mro__
    ):
        return from_flax(network)
    if isinstance(network, tuple) and len(network) == 2 and all(map(callable, network)):
        return from_functions(*network)
    raise InputError(
        f"Cannot use {type(network).__name__} as a network: pass bn.MLP(...), an equinox or flax "
        "module, or a pair (init, apply)."
    )
