"""Activation functions by name."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bayesnet._errors import InputError, unknown_name
from bayesnet._types import Array

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "sigmoid": jax.nn.sigmoid,
    "erf": jax.scipy.special.erf,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "abs": jnp.abs,
    "identity": lambda a: a,
}


def resolve_activation(activation: str) -> Callable[[Array], Array]:
    """The function that a name stands for; raises `InputError` for an unknown name."""
    if not isinstance(activation, str):
        raise InputError(
            f"activation must be a name (got {type(activation).__name__}); for a function of your "
            "own, wrap your network with bn.networks.from_functions(init, apply)."
        )
    if activation not in ACTIVATIONS:
        raise unknown_name("activation", activation, ACTIVATIONS)
    return ACTIVATIONS[activation]
