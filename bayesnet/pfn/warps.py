"""Monotone warps of columns: functions that change fast in one part of a column and slowly elsewhere.

The prior sees a warped column, the network the column itself, so that a stationary process becomes
one that is not (Snoek, Swersky, Zemel & Adams 2014, "Input Warping for Bayesian Optimization of
Non-Stationary Functions"; in the prior of a PFN: Mueller et al. 2023, "PFNs4BO").
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from bayesnet._types import Array, Float, Key

# The sd of the logs of both exponents, around 0: that of Snoek et al. (2014).
SPREAD = 0.75**0.5


def kumaraswamy(u: Array, a: Array, b: Array) -> Array:
    """`1 - (1 - u^a)^b`, an increasing map of [0, 1] onto itself for positive a and b."""
    # By logarithms of one minus a power: differences of numbers near 1 lose all digits in float32.
    return -jnp.expm1(b * jnp.log(-jnp.expm1(a * jnp.log(u))))


@partial(jax.jit, static_argnums=0)
def warped(probability: float, key: Key, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
    """Columns of b tasks, each warped with this probability within its own range over the n rows.

    The ends of a column stay where they are, and so do columns of one value or two.
    """
    k_which, k_a, k_b = jax.random.split(key, 3)
    shape = (x.shape[0], 1, x.shape[2])
    a, b = (jnp.exp(SPREAD * jax.random.normal(k, shape)) for k in (k_a, k_b))
    low, high = x.min(axis=1, keepdims=True), x.max(axis=1, keepdims=True)
    size = high - low
    u = jnp.clip((x - low) / jnp.where(size > 0, size, 1.0), 0.0, 1.0)
    # A last digit below 1 is far from 1 where b is small.
    u = jnp.where(x >= high, 1.0, u)
    chosen = (jax.random.uniform(k_which, shape) < probability) & (size > 0)
    return jnp.where(chosen, low + size * kumaraswamy(u, a, b), x)
