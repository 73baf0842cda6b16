"""Duals in closed form: rectifiers, error functions, sines, Gaussians and monomials.

All are functions of the covariance k and the variances v1, v2 of a Gaussian pair of mean 0.
"""

from __future__ import annotations

from collections.abc import Callable
from math import factorial, pi

import jax
import jax.numpy as jnp

from bayesnet._types import Array
from bayesnet.kernels.activations.base import Dual, OfPair

# Largest error of v1 v2 - k^2, in units of v1 v2 and the last digit: 15 measured at 784 columns.
ROUNDING = 64.0


def _smooth(function: Callable[[Array], Array], value: OfPair) -> Dual:
    """The slope is the derivative of the value by the covariance (Price 1958)."""

    def slope(k: Array, v1: Array, v2: Array) -> Array:
        return jax.jvp(lambda c: value(c, v1, v2), (k,), (jnp.ones_like(k),))[1]

    return Dual(function, value, slope)


def identity() -> Dual:
    """`phi(u) = u`."""
    return Dual(lambda u: u, lambda k, v1, v2: k, lambda k, v1, v2: jnp.ones_like(k))


@jax.custom_jvp
def _root(k: Array, v1: Array, v2: Array) -> Array:
    """`sqrt(v1 v2 - k^2)`; 0, and so is its slope, where that is rounding: angles below 1e-7 are 0,
    and a row has the angle 0 with itself."""
    square = v1 * v2
    rest = square - k * k
    return jnp.sqrt(jnp.where(rest > ROUNDING * jnp.finfo(rest.dtype).eps * square, rest, 0.0))


@_root.defjvp
def _root_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    k, v1, v2 = primals
    dk, d1, d2 = tangents
    root = _root(k, v1, v2)
    safe = jnp.where(root > 0.0, root, 1.0)
    rate = jnp.where(root > 0.0, (0.5 * (v2 * d1 + v1 * d2) - k * dk) / safe, 0.0)
    return root, rate


@jax.custom_jvp
def _arcsine(k: Array, v1: Array, v2: Array) -> Array:
    """`asin(k / sqrt(v1 v2))` by arctan2, exact at both ends; 0 if a variance is 0."""
    return jnp.arctan2(k, _root(k, v1, v2))


@_arcsine.defjvp
def _arcsine_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    k, v1, v2 = primals
    dk, d1, d2 = tangents
    root = _root(k, v1, v2)
    good = (root > 0.0) & (v1 > 0.0) & (v2 > 0.0)
    safe, s1, s2 = (jnp.where(good, a, 1.0) for a in (root, v1, v2))
    # At an angle of 0 the slope of the angle is infinite, with either sign: 0 is between them.
    rate = jnp.where(good, (dk - 0.5 * k * (d1 / s1 + d2 / s2)) / safe, 0.0)
    return _arcsine(k, v1, v2), rate


@jax.custom_jvp
def _absolute(k: Array, v1: Array, v2: Array) -> Array:
    """`E|u||v| pi/2 = sqrt(v1 v2 - k^2) + k asin(k / sqrt(v1 v2))`."""
    root = _root(k, v1, v2)
    return root + k * jnp.arctan2(k, root)


@_absolute.defjvp
def _absolute_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    k, v1, v2 = primals
    dk, d1, d2 = tangents
    root = _root(k, v1, v2)
    safe1, safe2 = (jnp.where(v > 0.0, v, 1.0) for v in (v1, v2))
    # |u| has a corner at variance 0, where the slope by the variance is infinite: 0 is taken.
    by1, by2 = (jnp.where(v > 0.0, 0.5 * root / s, 0.0) for v, s in ((v1, safe1), (v2, safe2)))
    rate = jnp.arctan2(k, root) * dk + by1 * d1 + by2 * d2
    return _absolute(k, v1, v2), rate


def rectifier(slope: float) -> Dual:
    """`phi(u) = u` for u > 0, else `slope u`: relu (0), absolute value (-1), leaky relu.

    `phi(u) = (1+a)/2 u + (1-a)/2 |u|` and the arc-cosine kernel of order 1 (Cho & Saul 2009, eq. 6).
    """
    linear, corner = 0.25 * (1.0 + slope) ** 2, 0.25 * (1.0 - slope) ** 2 * 2.0 / pi

    def function(u: Array) -> Array:
        return jnp.where(u > 0.0, u, slope * u)

    def value(k: Array, v1: Array, v2: Array) -> Array:
        return linear * k + corner * _absolute(k, v1, v2)

    def tangent(k: Array, v1: Array, v2: Array) -> Array:
        return linear + corner * _arcsine(k, v1, v2)

    return Dual(function, value, tangent)


def erf() -> Dual:
    """Williams 1997, eq. 11: `(2/pi) asin(2k / sqrt((1+2v1)(1+2v2)))`."""

    def value(k: Array, v1: Array, v2: Array) -> Array:
        root = jnp.sqrt((1.0 + 2.0 * v1) * (1.0 + 2.0 * v2) - 4.0 * k * k)
        return 2.0 / pi * jnp.arctan2(2.0 * k, root)

    return _smooth(jax.scipy.special.erf, value)


def gelu() -> Dual:
    """`phi(u) = u Phi(u)` exactly (not its tanh approximation); Tsuchida et al. 2021.

    From `E[u v e(u) e(v)]`, e(u) = erf(u / sqrt 2), by Stein's lemma and
    `E[e(u) e(v)] = (2/pi) asin(k / sqrt((1+v1)(1+v2)))`.
    """

    def value(k: Array, v1: Array, v2: Array) -> Array:
        root = jnp.sqrt((1.0 + v1) * (1.0 + v2) - k * k)
        less = k * k * (v1 / (1.0 + v1) + v2 / (1.0 + v2))
        both = k * jnp.arctan2(k, root) + (v1 * v2 + k * k - less) / root
        return 0.25 * (k + 2.0 / pi * both)

    return _smooth(lambda u: jax.nn.gelu(u, approximate=False), value)


def _waves(k: Array, v1: Array, v2: Array) -> tuple[Array, Array]:
    """`E cos(u - v)` and `E cos(u + v)`."""
    mean = 0.5 * (v1 + v2)
    return jnp.exp(k - mean), jnp.exp(-k - mean)


def sin() -> Dual:
    """`E[sin u sin v] = (E cos(u-v) - E cos(u+v)) / 2`."""

    def value(k: Array, v1: Array, v2: Array) -> Array:
        minus, plus = _waves(k, v1, v2)
        return 0.5 * (minus - plus)

    return _smooth(jnp.sin, value)


def cos() -> Dual:
    """`E[cos u cos v] = (E cos(u-v) + E cos(u+v)) / 2`."""

    def value(k: Array, v1: Array, v2: Array) -> Array:
        minus, plus = _waves(k, v1, v2)
        return 0.5 * (minus + plus)

    return _smooth(jnp.cos, value)


def rbf(gamma: float) -> Dual:
    """`phi(u) = sqrt 2 sin(sqrt(2 gamma) u + pi/4)`: the kernel is `exp(-gamma E(u - v)^2)`."""

    def function(u: Array) -> Array:
        return 2.0**0.5 * jnp.sin((2.0 * gamma) ** 0.5 * u + 0.25 * pi)

    return _smooth(function, lambda k, v1, v2: jnp.exp(-gamma * (v1 + v2 - 2.0 * k)))


def gaussian(gamma: float) -> Dual:
    """`phi(u) = exp(-gamma u^2)`: `((1 + 2 g v1)(1 + 2 g v2) - 4 g^2 k^2)^(-1/2)`."""
    g = 2.0 * gamma

    def value(k: Array, v1: Array, v2: Array) -> Array:
        return ((1.0 + g * v1) * (1.0 + g * v2) - g * g * k * k) ** -0.5

    return _smooth(lambda u: jnp.exp(-gamma * u * u), value)


def monomial(degree: int) -> Dual:
    """`phi(u) = u^p`: `sum_j c_j k^j (v1 v2)^((p-j)/2)`, j of the parity of p (Isserlis 1918).

    `c_j = (p!)^2 / (j! (((p-j)/2)!)^2 2^(p-j))` counts the pairings with j mixed pairs.
    """

    def value(k: Array, v1: Array, v2: Array) -> Array:
        total = jnp.zeros_like(k * v1 * v2)
        for j in range(degree % 2, degree + 1, 2):
            rest = (degree - j) // 2
            pairings = factorial(degree) ** 2 / (factorial(j) * factorial(rest) ** 2 * 4**rest)
            total = total + pairings * k**j * (v1 * v2) ** rest
        return total

    return _smooth(lambda u: u**degree, value)
