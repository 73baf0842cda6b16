"""The network protocol: a pure pair (shapes of the parameters, apply)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import jax

from bayesnet._types import Array, Float, Key, PyTree


@runtime_checkable
class Network(Protocol):
    """A function family with no state of its own: hashable, so that programs are cached on it.

    `param_shapes` tells the parameters as a pytree of `jax.ShapeDtypeStruct`; `base_scale`
    and `base_loc` give, leaf by leaf, the law N(loc, scale^2) that an unmatched prior uses.
    """

    def param_shapes(self, in_dim: int, out_dim: int) -> PyTree:
        """Shapes of the parameters for `in_dim` inputs and `out_dim` outputs."""
        ...

    def base_law(self, in_dim: int, out_dim: int) -> tuple[PyTree, PyTree]:
        """Location (arrays or floats) and scale (floats) of each leaf of the parameters."""
        ...

    def init(self, key: Key, in_dim: int, out_dim: int) -> PyTree:
        """Parameters from the network's usual initialisation, a start for optimisers."""
        ...

    def apply(self, params: PyTree, x: Float[Array, "n d"]) -> Float[Array, "n m"]:
        """The network's outputs at `x`."""
        ...


def draw_from_base(network: Network, key: Key, in_dim: int, out_dim: int) -> PyTree:
    """Parameters drawn from the base law of a network, leaf by leaf."""
    shapes = network.param_shapes(in_dim, out_dim)
    locs, scales = network.base_law(in_dim, out_dim)
    leaves, treedef = jax.tree.flatten(shapes)
    keys = jax.tree.unflatten(treedef, list(jax.random.split(key, len(leaves))))
    return jax.tree.map(
        lambda k, s, loc, scale: loc + scale * jax.random.normal(k, s.shape, s.dtype),
        keys,
        shapes,
        locs,
        scales,
    )
