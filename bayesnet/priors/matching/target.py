"""Draws from a matching target, checked: any object with `sample(key, x, num_samples)`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError
from bayesnet._types import Array, Float, Key


def draw_target(
    target: Any, key: Key, xs: Float[Array, "k n d"], num_samples: int
) -> Float[Array, "k s n m"]:
    """`num_samples` draws for each of `k` sets of points, in float32.

    One program for all sets where the target offers `sample_many`; else one call a set, which
    need not be JAX code.
    """
    if hasattr(target, "sample_many"):
        return jnp.asarray(target.sample_many(key, xs, num_samples), jnp.float32)
    keys = jax.random.split(key, len(xs))
    draws = [target.sample(k, x, num_samples) for k, x in zip(keys, xs, strict=True)]
    if all(isinstance(d, jax.Array) for d in draws):
        return jnp.stack(draws).astype(jnp.float32)
    return jnp.asarray(np.stack([np.asarray(d, np.float32) for d in draws]))


def check_target(prior: Any, target: Any, key: Key, x: Float[Array, "n d"]) -> None:
    """Raise `InputError` unless `target` gives finite draws (s, n, m) that fit the prior."""
    if not hasattr(target, "sample"):
        raise InputError(
            f"A matching target needs a method sample(key, x, num_samples) -> (s, n, m); "
            f"{type(target).__name__} has none. Use for example bn.GaussianProcess('rbf')."
        )
    units = getattr(target, "units", prior.units)
    if units != prior.units:
        raise InputError(
            f"The prior is stated in units={prior.units!r}, the target in units={units!r}: make "
            "both with the same units=."
        )
    draws = np.asarray(target.sample(key, x, 2))
    expected = (2, len(x), prior.out_dim)
    if draws.ndim == 3 and draws.shape[:2] == expected[:2] and draws.shape != expected:
        raise InputError(
            f"The target has {draws.shape[2]} output(s), the network prior has {prior.out_dim}: "
            "set out_dim= to the same number on both."
        )
    if draws.shape != expected:
        raise InputError(
            f"target.sample(key, x, 2) at {len(x)} points gave shape {draws.shape}; expected "
            f"{expected} (draws, points, outputs)."
        )
    if not np.isfinite(draws).all():
        raise InputError("The target's draws hold NaN or infinity at the given inputs.")
