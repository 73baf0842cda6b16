"""bfloat16 in training: the large products only, everything that adds up small things in float32.

Weights, Adam and the residual stream stay float32. Inside the loss the matrices of attention layers
are rounded to bfloat16, and the products with them, forward and backward, are made in it
(Micikevicius et al. 2018, "Mixed Precision Training", with bfloat16, which needs no loss scaling).
Norms, scores with their distances, softmax, the embedding of inputs, heads and loss stay in float32: a bar is
narrower than the rounding of a bfloat16.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from bayesnet._types import Array, PyTree

PRECISIONS = ("float32", "bfloat16")


def cast(tree: PyTree, dtype: Any) -> Any:
    """The tree with its float arrays in another precision."""
    return jax.tree.map(lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a, tree)


def alike(a: Array, weights: Array) -> Array:
    """`a` in bfloat16 where `weights` are, else as it is."""
    return a.astype(jnp.bfloat16) if weights.dtype == jnp.bfloat16 else a


def product(a: Array, weights: Array) -> Array:
    """`a @ weights`, in bfloat16 where `weights` are."""
    return alike(a, weights) @ weights


def rounded(network: PyTree, kind: type, fields: tuple[str, ...]) -> Any:
    """The network with these fields of all of its layers of one kind in bfloat16."""

    def cast(node: Any) -> Any:
        if not isinstance(node, kind):
            return node
        layer: Any = node
        return replace(layer, **{name: getattr(node, name).astype(jnp.bfloat16) for name in fields})

    return jax.tree.map(cast, network, is_leaf=lambda node: isinstance(node, kind))
