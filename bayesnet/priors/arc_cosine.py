"""The arc-cosine kernels of Cho & Saul (2009): infinitely wide networks of one hidden layer."""

from __future__ import annotations

import jax.numpy as jnp

from bayesnet._errors import InputError
from bayesnet._types import Array, Float

ORDERS = (0, 1, 2)


def arc_cosine(order: int, u: Float[Array, "n d"], v: Float[Array, "k d"]) -> Float[Array, "n k"]:
    """`2 E[a(w.u) a(w.v)]` with w ~ N(0, I) and `a(t) = t^order` for t > 0, else 0.

    Order 0 is a layer of steps, 1 of relu, 2 of squared relu units. Cho & Saul 2009, eq. 3-7:
    `|u|^n |v|^n J_n(angle) / pi`, so that order n has the variance `(2n - 1)!! |u|^(2n)`.
    """
    if order not in ORDERS:
        raise InputError(f"The arc-cosine kernel has order 0, 1 or 2, got {order!r}.")
    norms_u, norms_v = (jnp.sqrt(jnp.sum(a**2, axis=1)) for a in (u, v))
    norms = norms_u[:, None] * norms_v[None, :]
    cosine = jnp.clip(
        (u @ v.T) / jnp.maximum(norms, 1e-300 if u.dtype == "float64" else 1e-30), -1.0, 1.0
    )
    # The root is kept off zero, where its slope is infinite: a point with itself has angle 0.
    sine = jnp.sqrt(jnp.maximum(1.0 - cosine**2, 1e-24))
    angle = jnp.arctan2(sine, cosine)
    rest = jnp.pi - angle
    if order == 0:
        shape = rest
    elif order == 1:
        shape = sine + rest * cosine
    else:
        shape = 3.0 * sine * cosine + rest * (1.0 + 2.0 * cosine**2)
    return norms**order * shape / jnp.pi
