"""What a corner at 0 leaves of an expansion: the tail is known, up to one number a row.

Around a jump of the k-th derivative at 0 a function is a smooth one plus a multiple of
`g_k(u) = |u|^k sign(u)^(k + 1)` and of the next orders. Its Hermite coefficients tend to that multiple
of those of g_k, whose dual `D_k` has a closed form (Cho & Saul 2009, section 2). So the dual of what
`terms` polynomials leave out is proportional to `D_k(rho) - sum_{j < terms} q_kj^2 rho^j`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._types import Array
from bayesnet.kernels.activations.closed_forms import _absolute, _arcsine

Function = Callable[[Array], Array]

# Orders of corners whose tails are summed in closed form: those of higher ones are too small.
ORDERS = (0, 1, 2)
# Where derivatives are compared: jumps are equal at both distances, slopes grow with them.
NEAR, FAR = 1e-7, 1e-6


def derivative_of(phi: Function) -> Function:
    """`phi'`, element by element."""
    return lambda u: jax.jvp(phi, (u,), (jnp.ones_like(u),))[1]


def corner_order(phi: Function) -> int | None:
    """The lowest order (0, 1, 2) of a derivative that jumps at 0; None if there is none, or none that
    JAX can take."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        at = jnp.asarray([NEAR, FAR, -NEAR, -FAR])
        for order in ORDERS:
            try:
                value = np.asarray(phi(at), np.float64)
            except (TypeError, NotImplementedError):  # a custom_vjp: good for the NNGP, not the NTK
                return None
            near, far = value[0] - value[2], value[1] - value[3]
            if abs(near) > 1e-5 * np.abs(value).max() and abs(far - near) < 0.1 * abs(near):
                return order
            phi = derivative_of(phi)
    return None


def squared_coefficients(order: int, terms: int) -> np.ndarray:
    """`q_kj^2` of g_k, j < terms: the Taylor coefficients of `D_k`."""
    squares = np.zeros(terms)
    squares[1] = 2.0 / pi  # of the arcsine
    for j in range(3, terms, 2):
        squares[j] = squares[j - 2] * (j - 2) ** 2 / ((j - 1) * j)
    for k in range(1, order + 1):  # D_k' = k^2 D_{k-1}
        shifted = k**2 * squares[:-1] / np.arange(1, terms)
        squares = np.concatenate([[2.0 / pi if k == 1 else 0.0], shifted])
    return squares


def tail_at_one(order: int, terms: int) -> float:
    """`D_k(1) - sum_{j < terms} q_kj^2`."""
    return (1.0, 1.0, 3.0)[order] - float(squared_coefficients(order, terms).sum())


def dual_of_corner(order: int, rho: Array) -> Array:
    """`D_k(rho) = E[g_k(u) g_k(v)]` of a pair of variance 1."""
    one = jnp.ones_like(rho)
    if order == 0:
        return 2.0 / pi * _arcsine(rho, one, one)
    if order == 1:
        return 2.0 / pi * _absolute(rho, one, one)
    return _second(rho)


@jax.custom_jvp
def _second(rho: Array) -> Array:
    one = jnp.ones_like(rho)
    # 3 rho sqrt(1 - rho^2) + (1 + 2 rho^2) asin(rho), in terms that lose no digits at rho = 1.
    angle = _arcsine(rho, one, one)
    return 2.0 / pi * (3.0 * rho * _absolute(rho, one, one) + (1.0 - rho * rho) * angle)


@_second.defjvp
def _second_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (rho,), (rate,) = primals, tangents
    return _second(rho), 4.0 * dual_of_corner(1, rho) * rate
