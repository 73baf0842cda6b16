"""Array and key aliases with shapes, shared by all rooms.

Dimension words, used in every docstring: n points, d inputs, m outputs, s samples,
c chains, q candidates, b batch, p latent coordinates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from bayesnet._errors import InputError

__all__ = [
    "Array",
    "ArrayLike",
    "Bool",
    "Float",
    "Int",
    "Key",
    "OnHost",
    "PyTree",
    "as_key",
    "as_seed",
]

ArrayLike: TypeAlias = Any
PyTree: TypeAlias = Any
# Arrays that programs take from NumPy as well; what reads them treats them as JAX's.
if TYPE_CHECKING:
    OnHost: TypeAlias = Array
else:
    OnHost = Array | np.ndarray
Key: TypeAlias = PRNGKeyArray | UInt32[Array, "2"]


def as_key(seed: int | Key) -> Key:
    """A JAX key from an integer seed; a key passes through unchanged.

    Raises `InputError` for anything else.
    """
    if isinstance(seed, (int, np.integer)):
        return jax.random.key(int(seed))
    dtype = getattr(seed, "dtype", None)
    if dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        return seed
    if dtype == np.uint32 and seed.shape == (2,):
        return seed
    raise InputError(f"seed must be an integer or a JAX key, got {seed!r}.")


def as_seed(seed: int | Key) -> int:
    """An integer seed as it is; of a JAX key one made of its words.

    Raises `InputError` for anything else.
    """
    if isinstance(seed, (int, np.integer)):
        return int(seed) % 2**63  # NumPy takes no negative ones
    words = np.asarray(jax.random.key_data(as_key(seed)))
    return int(np.random.SeedSequence(words.tolist()).generate_state(1)[0])
