"""Monotone maps of a standard normal latent to heavy-tailed laws, accurate in float32.

None of them passes through a probability near 1, where float32 cannot tell the tail from 1
(the half-Cauchy by `tan` changes sign at z = 5.6). The Laplace and half-Cauchy laws have log-space
formulas. The quantiles of Student-t and gamma laws have none that is cheap and differentiable in
the shape; they are series of Chebyshev polynomials in z and in the shape, fitted to scipy's float64
quantiles when they are first used. On a scale on which the law tends to the normal as its shape
grows, both are so smooth that the relative error in |z| <= 8 stays below 3e-5, float32 rounding
included (tested). Beyond |z| = 8.5 the series goes on along its last slope.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._types import Array, Float

# The latents that the series cover, and the step over which the slope at their end is taken.
REACH, SLOPE_STEP = 8.5, 0.25
# Shapes that the series cover.
SMALLEST_DF, SMALLEST_SHAPE = 1.0, 0.5
# Terms in z and in the shape.
T_TERMS, GAMMA_TERMS = (26, 36), (48, 32)
# Where the inverses look for a latent, and how often they halve the interval.
FARTHEST, HALVINGS = 40.0, 48

# Beyond this float32 has no erfc.
FARTHEST_TAIL = 12.0
# Terms of a series with a known shape that are smaller than this are left out.
NEGLIGIBLE = 1e-7

SQRT_2 = 2.0**0.5


def student_t_quantile(z: Float[Array, ...], df: Any) -> Float[Array, ...]:
    """The quantile of Student's t at probability Phi(z); odd and increasing in z.

    `df` is a Python float or an array that broadcasts against z, at least `SMALLEST_DF`;
    differentiable in both.
    """
    root = df**0.5
    return root * jnp.sinh(student_t_curve(z, df) / root)


def student_t_curve(z: Float[Array, ...], df: Any) -> Float[Array, ...]:
    """`sqrt(df) asinh(t / sqrt(df))` of the quantile t: z itself as df grows, z^2 / (2 sqrt(df))
    far out."""
    terms = _terms(_student_t_table(), 1.0 / df, 1.0 / SMALLEST_DF, z.dtype)

    def curve(a: Any) -> Any:
        return a, 2.0 * (a / REACH) ** 2 - 1.0

    return _series(terms, curve, z)


def log_gamma_quantile(z: Float[Array, ...], shape: Any) -> Float[Array, ...]:
    """The log of the quantile of Gamma(shape, 1) at probability Phi(z); increasing in z.

    `shape` is a Python float or an array that broadcasts against z, at least `SMALLEST_SHAPE`;
    differentiable in both. An inverse-gamma variable IG(a, b) with the same latent is `b / quantile(-z, a)`.
    """
    root = shape**-0.5
    terms = _terms(_gamma_table(), root, SMALLEST_SHAPE**-0.5, z.dtype)
    curve = _series(terms, lambda a: (1.0, a / REACH), z)
    log = np.log if isinstance(shape, float) else jnp.log
    return log(shape) + root * curve


def laplace_quantile(z: Float[Array, ...]) -> Float[Array, ...]:
    """The quantile of the Laplace law (density exp(-|x|) / 2) at probability Phi(z).

    -sign(z) log(2 Phi(-|z|)), near zero by way of erf, which is exact there.
    """
    sign, a = _sign_and_size(z)
    near = a < 1.0
    inner = jax.scipy.special.erf(jnp.where(near, a, 0.0) / SQRT_2)
    return sign * jnp.where(near, -jnp.log1p(-inner), -_log_tails(a))


def log_half_cauchy_quantile(z: Float[Array, ...]) -> Float[Array, ...]:
    """The log of the quantile of the half-Cauchy law at probability Phi(z); odd in z.

    log tan(pi Phi(z) / 2): the law of 1/x is that of x, so that only z <= 0 is needed, where
    Phi(z) is small and exact.
    """
    sign, a = _sign_and_size(z)
    log_angle = _log_tails(a) + float(np.log(0.25 * np.pi))
    angle = jnp.exp(log_angle)
    safe = jnp.maximum(angle, 1e-4)  # below, tan is the angle, which may underflow
    return -sign * (log_angle + jnp.log(jnp.tan(safe) / safe))


def _log_tails(a: Array) -> Array:
    """log(2 Phi(-a)) for a >= 0; beyond `FARTHEST_TAIL`, where float32 underflows, a line."""
    inside = jnp.minimum(a, FARTHEST_TAIL)
    return jnp.log(jax.scipy.special.erfc(inside / SQRT_2)) - FARTHEST_TAIL * (a - inside)


def _sign_and_size(z: Array) -> tuple[Array, Array]:
    """Of which `abs` and `sign` of JAX would have slope 0 at 0, and with them the quantile."""
    negative = z < 0
    return jnp.where(negative, -1.0, 1.0).astype(z.dtype), jnp.where(negative, -z, z)


def _log_tan(angle: Array) -> Array:
    """log tan of small angles, without the underflow of tan itself far out."""
    return jnp.log(angle) + jnp.log(jnp.tan(angle) / angle)


def invert(curve: Callable[[Array], Array], y: Float[Array, ...]) -> Float[Array, ...]:
    """The latents z with `curve(z) = y` for an increasing, element-wise curve, by bisection.

    Values beyond the curve at |z| = `FARTHEST` give that end.
    """
    ends = jnp.full(y.shape, -FARTHEST, y.dtype), jnp.full(y.shape, FARTHEST, y.dtype)
    # Bisection from a bracket around zero keeps small latents exact relative to their size.
    middle = curve(jnp.zeros_like(y)) < y
    low = jnp.where(middle, 0.0, ends[0])
    high = jnp.where(middle, ends[1], 0.0)

    def halve(_: Any, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        at = 0.5 * (low + high)
        below = curve(at) < y
        return jnp.where(below, at, low), jnp.where(below, high, at)

    low, high = jax.lax.fori_loop(0, HALVINGS, halve, (low, high))
    return 0.5 * (low + high)


def _series(terms: Any, curve: Callable[[Any], tuple[Any, Any]], z: Array) -> Array:
    """factor * sum_k terms[k] T_k(x) with (factor, x) = `curve(z)`; beyond |z| = `REACH`, where
    the series is not fitted, along the slope of its end."""
    ends = np.array([-REACH, SLOPE_STEP - REACH, REACH - SLOPE_STEP, REACH])
    factor, x = curve(ends)
    basis = np.polynomial.chebyshev.chebvander(x, len(terms) - 1) * np.reshape(factor, (-1, 1))
    at: Any = basis @ terms if isinstance(terms, np.ndarray) else _product(basis, terms)
    slope = jnp.where(z < 0, at[1] - at[0], at[3] - at[2]) / SLOPE_STEP
    inside = jnp.clip(z, -REACH, REACH)
    factor, x = curve(inside)
    each = terms.tolist() if isinstance(terms, np.ndarray) else list(terms)
    return factor * _clenshaw(each, x) + jnp.asarray(slope, z.dtype) * (z - inside)


def _clenshaw(terms: Sequence[Any], x: Array) -> Array:
    """sum_k terms[k] T_k(x). Unrolled: XLA makes one loop over the elements of it all."""
    later: Any = 0.0
    last: Any = 0.0
    for term in reversed(terms[1:]):
        later, last = last, 2.0 * x * last - later + term
    return x * last - later + terms[0]


def _terms(table: np.ndarray, s: Any, largest: float, dtype: Any) -> Any:
    """The terms in z at the shape `s` in (0, largest]: (k,) in NumPy if it is a number, else
    (k, *s)."""
    at = 2.0 * s / largest - 1.0
    if isinstance(s, float):
        terms = np.polynomial.chebyshev.chebval(at, table.T)
        # The tail of the series: its sum is what leaving it out costs.
        left = np.cumsum(np.abs(terms[::-1]))[::-1]
        return terms[: max(2, int((left > NEGLIGIBLE).sum()))]
    at = jnp.asarray(at, dtype)
    powers = [jnp.ones_like(at), at]
    while len(powers) < table.shape[1]:
        powers.append(2.0 * at * powers[-1] - powers[-2])
    return _product(table, jnp.stack(powers))


def _product(matrix: np.ndarray, terms: Array) -> Array:
    # Accelerators multiply float32 matrices in fewer bits unless told otherwise.
    return jnp.tensordot(jnp.asarray(matrix, terms.dtype), terms, 1, precision="highest")


def _fit(curve: Callable[[np.ndarray, np.ndarray], np.ndarray], terms: tuple[int, int]) -> Any:
    """Chebyshev terms (k_z, k_s) of a function of two variables on [-1, 1], by interpolation."""
    nodes = [np.cos(np.pi * (np.arange(k) + 0.5) / k) for k in terms]
    bases = [
        np.polynomial.chebyshev.chebvander(x, k - 1) * (2.0 / k)
        for x, k in zip(nodes, terms, strict=True)
    ]
    for basis in bases:
        basis[:, 0] *= 0.5
    values = curve(nodes[0][:, None], nodes[1][None, :])
    return bases[0].T @ values @ bases[1]


@lru_cache(maxsize=1)
def _student_t_table() -> np.ndarray:
    from scipy.special import ndtr, stdtrit

    def ratio(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """The curve divided by z, an even function, in u = 2 (z / REACH)^2 - 1."""
        z = REACH * np.sqrt(0.5 * (u + 1.0))
        root = (0.5 * (v + 1.0) / SMALLEST_DF) ** -0.5
        return root * np.arcsinh(-stdtrit(root**2, ndtr(-z)) / root) / z

    return _fit(ratio, T_TERMS)


@lru_cache(maxsize=1)
def _gamma_table() -> np.ndarray:
    from scipy.special import gammainccinv, gammaincinv, ndtr

    def curve(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        z, root = np.broadcast_arrays(REACH * u, 0.5 * (v + 1.0) * SMALLEST_SHAPE**-0.5)
        shape = root**-2
        low = gammaincinv(shape, ndtr(np.minimum(z, 0.0)))
        high = gammainccinv(shape, ndtr(-np.maximum(z, 0.0)))
        return np.log(np.where(z < 0, low, high) / shape) / root

    return _fit(curve, GAMMA_TERMS)
