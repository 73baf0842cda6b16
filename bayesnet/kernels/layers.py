"""Layers of a network described once: its infinitely wide limit and finite networks follow.

A layer says how it changes second moments (`moments`), and which parameters and operations it
stands for in a network of finite width (`shapes`, `apply`). `check` finds descriptions without a
limit before anything is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bayesnet._errors import InputError
from bayesnet._types import Array, PyTree
from bayesnet.kernels.activations import Dual, resolve_dual
from bayesnet.kernels.state import Moments, Signal

# Variances (weight, bias) of layers with weights, in the order of the description.
Variances = Iterator[tuple[Any, Any]]
EPSILON = 1e-5


def check_std(what: str, value: Any, *, zero: bool = False) -> float:
    """`value` as a float; raises `InputError` unless it is finite and positive (or 0 if `zero`)."""
    number = isinstance(value, (int, float, np.integer, np.floating))
    if isinstance(value, bool) or not number or not np.isfinite(value):
        raise InputError(f"{what} must be a finite number, got {value!r}.")
    if value < 0 or (value == 0 and not zero):
        least = "at least 0" if zero else "above 0"
        raise InputError(f"{what} is a standard deviation and must be {least}, got {value!r}.")
    return float(value)


class KernelLayer:
    """What every layer offers; the defaults are those of a layer without weights."""

    # Whether units at different pixels meet, so that all pairs of pixels must be followed.
    pools = False

    def check(self, signal: Signal) -> Signal:
        """The signal after this layer. Raises `InputError` where it has no limit."""
        raise NotImplementedError

    def moments(self, moments: Moments, variances: Variances) -> Moments:
        """Second moments after this layer, taking its variances from the iterator."""
        raise NotImplementedError

    def stds(self) -> list[tuple[float, float]]:
        """(weight_std, bias_std) of the layers with weights inside, in order."""
        return []

    def with_stds(self, stds: Iterator[tuple[float, float]]) -> KernelLayer:
        """The same layer with other standard deviations, taken from the iterator."""
        return self

    def shapes(self, shape: tuple[int, ...], width: int) -> tuple[PyTree, tuple[int, ...]]:
        """Parameters of a finite network for units of `shape` ((features,) or (h, w, channels)),
        and the shape of its outputs."""
        return (), shape

    def apply(self, params: PyTree, h: Array) -> Array:
        """The layer of a finite network; weights are divided by the root of their fan-in here."""
        raise NotImplementedError


def weight_shapes(shape: tuple[int, ...], bias_std: float) -> PyTree:
    """Parameters of one product; a layer whose biases are all 0 has none."""
    shapes = {"w": jax.ShapeDtypeStruct(shape, jnp.float32)}
    if bias_std > 0.0:
        shapes["b"] = jax.ShapeDtypeStruct(shape[-1:], jnp.float32)
    return shapes


@dataclass(frozen=True)
class Dense(KernelLayer):
    """A fully connected layer: weights N(0, weight_std^2 / fan_in), biases N(0, bias_std^2).

    `K' = weight_std^2 K + bias_std^2`; the first layer has `K = x.x' / d` (Lee et al. 2018, eq. 5).
    """

    weight_std: float = 1.4
    bias_std: float = 0.3

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight_std", check_std("weight_std", self.weight_std))
        object.__setattr__(self, "bias_std", check_std("bias_std", self.bias_std, zero=True))

    def check(self, signal: Signal) -> Signal:
        if signal.image is not None:
            raise InputError(
                "A Dense layer takes vectors: put Flatten() or GlobalAveragePool() before it."
            )
        return Signal(None, gaussian=True, raw=False)

    def moments(self, moments: Moments, variances: Variances) -> Moments:
        return moments.weighted(*next(variances))

    def stds(self) -> list[tuple[float, float]]:
        return [(self.weight_std, self.bias_std)]

    def with_stds(self, stds: Iterator[tuple[float, float]]) -> Dense:
        return replace(self, **dict(zip(("weight_std", "bias_std"), next(stds), strict=True)))

    def shapes(self, shape: tuple[int, ...], width: int) -> tuple[PyTree, tuple[int, ...]]:
        return weight_shapes((*shape, width), self.bias_std), (width,)

    def apply(self, params: PyTree, h: Array) -> Array:
        w = params["w"]
        return h @ (w * w.shape[0] ** -0.5) + params.get("b", 0.0)


@dataclass(frozen=True)
class Activation(KernelLayer):
    """An activation function, unit by unit.

    Args:
        fn: a name in `bayesnet.kernels.ACTIVATIONS`, or a function of arrays (made of jax.numpy),
            whose kernel is then found by expansion and quadrature.
        parameter: the slope of "leaky_relu" at negative values (0.01 if None), the degree of
            "monomial" (2), the gamma of "rbf" and "gaussian" (1).
        terms: at most, of the expansion of a function without a closed form (1024 if None, up to 4096): more
            where `kernel.expansion_error(x)` is too large.

    Raises:
        InputError: an unknown name, a parameter outside its range, a function of another shape.
    """

    fn: Any = "relu"
    parameter: float | None = None
    terms: int | None = None

    def __post_init__(self) -> None:
        self.dual()

    def dual(self) -> Dual:
        """Its expectations under Gaussian pairs."""
        return resolve_dual(self.fn, self.parameter, self.terms)

    def check(self, signal: Signal) -> Signal:
        if not signal.gaussian:
            raise InputError(
                "An activation needs Gaussian units: put a Dense or Conv layer before it (not the "
                "inputs themselves, nor another activation)."
            )
        return replace(signal, gaussian=False)

    def moments(self, moments: Moments, variances: Variances) -> Moments:
        dual = self.dual()
        if moments.left_out is not None and dual.missing is not None:
            share = dual.missing(moments.variances()[0])[moments.ntk is not None]
            share = jnp.max(share.reshape(len(share), -1), axis=1)
            moments = replace(moments, left_out=jnp.maximum(moments.left_out, share))
        if moments.paired and not moments.full:
            value, slope = dual.with_itself(moments.cov)
            ntk = None if moments.ntk is None else moments.ntk * slope
            return replace(moments, cov=value, left=value, right=value, ntk=ntk)
        v1, v2 = moments.variances()
        own = [
            dual.value(m.cov, *m.variances()) if m.full else dual.with_itself(m.cov)[0]
            for m in moments.self_pairs()
        ]
        ntk = moments.ntk
        if ntk is not None:
            ntk = ntk * dual.slope(moments.cov, v1, v2)
        cov = dual.value(moments.cov, v1, v2)
        return replace(moments, cov=cov, left=own[0], right=own[1], ntk=ntk)

    def apply(self, params: PyTree, h: Array) -> Array:
        return self.dual().function(h)


@dataclass(frozen=True)
class LayerNorm(KernelLayer):
    """Mean 0 and variance 1 over the units of a row (maps: pixels and channels; Ba et al. 2016),
    without trained gains. In the limit `K'(x, x') = K(x, x') / sqrt(v(x) v(x'))`, v being the
    mean of the variances over pixels.
    """

    def check(self, signal: Signal) -> Signal:
        if not signal.gaussian:
            raise InputError(
                "LayerNorm needs Gaussian units, whose mean is 0 in the limit: put it after a Dense "
                "or Conv layer and before the activation."
            )
        return signal

    def moments(self, moments: Moments, variances: Variances) -> Moments:
        def factor(own: Array) -> Array:
            if moments.full:
                own = jnp.einsum("nhhww->nhw", own)
            return lax.rsqrt(jnp.mean(own.reshape(len(own), -1), axis=1) + EPSILON)

        a, b = factor(moments.left), factor(moments.right)

        def spread(f: Array, like: Array) -> Array:
            return f.reshape(f.shape + (1,) * (like.ndim - f.ndim))

        pair = a * b if moments.paired else a[:, None] * b[None]
        both = spread(pair, moments.cov)
        return replace(
            moments,
            cov=moments.cov * both,
            left=moments.left * spread(a**2, moments.left),
            right=moments.right * spread(b**2, moments.right),
            ntk=None if moments.ntk is None else moments.ntk * both,
        )

    def apply(self, params: PyTree, h: Array) -> Array:
        axes = tuple(range(1, h.ndim))
        h = h - jnp.mean(h, axis=axes, keepdims=True)
        return h * lax.rsqrt(jnp.mean(h**2, axis=axes, keepdims=True) + EPSILON)
