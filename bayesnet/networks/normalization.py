"""Normalisations of the maps of one image, without running statistics.

Batch normalisation is left out on purpose: it makes the outputs at one image depend on the other
images of the batch. Such a network is no function of x: a prior over functions, a posterior
and a prediction would all change with how rows are put together, and its running averages are
state that no weight posterior holds. What is here acts on each image alone.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from bayesnet._errors import unknown_name
from bayesnet._types import Array, Float

# Added to variances, as the papers do.
EPSILON = 1e-5


def layer_norm(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Mean 0 and variance 1 over the pixels and channels of each image (Ba et al. 2016; group
    normalisation with one group, Wu & He 2018)."""
    centred = x - jnp.mean(x, axis=(1, 2, 3), keepdims=True)
    return centred * lax.rsqrt(jnp.mean(centred**2, axis=(1, 2, 3), keepdims=True) + EPSILON)


def filter_response_norm(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Mean square 1 over the pixels of each channel of each image (Singh & Krishnan 2020, eq. 1)."""
    return x * lax.rsqrt(jnp.mean(x**2, axis=(1, 2), keepdims=True) + EPSILON)


NORMALIZATIONS: dict[str, Callable[[Array], Array]] = {
    "layer": layer_norm,
    "filter_response": filter_response_norm,
}


def resolve_normalization(name: str) -> Callable[[Array], Array]:
    """The function that a name stands for; raises `InputError` for an unknown one."""
    if name not in NORMALIZATIONS:
        raise unknown_name("normalization", name, NORMALIZATIONS)
    return NORMALIZATIONS[name]
