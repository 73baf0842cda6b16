"""Dual activations: `E[phi(u) phi(v)]` and `E[phi'(u) phi'(v)]` of Gaussian pairs, by name.

Closed forms are in `closed_forms`; any other function is expanded in Hermite polynomials
(`hermite`). The names are those of `bayesnet.networks.ACTIVATIONS`, and some more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError, unknown_name
from bayesnet._types import Array
from bayesnet.kernels.activations import closed_forms as closed
from bayesnet.kernels.activations.base import Dual
from bayesnet.kernels.activations.hermite import by_expansion

__all__ = ["ACTIVATIONS", "PARAMETERS", "Dual", "resolve_dual"]


def _number(name: str, value: Any, default: float, low: float) -> float:
    if value is None:
        return default
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value)
    if not good or value <= low:
        raise InputError(
            f"The parameter of {name!r} must be a number above {low:g}, got {value!r}."
        )
    return float(value)


def _degree(value: Any) -> int:
    degree = 2 if value is None else value
    if isinstance(degree, bool) or int(degree) != degree or not 1 <= degree <= 20:
        raise InputError(
            f"The degree of 'monomial' must be a whole number from 1 to 20, got {value!r}."
        )
    return int(degree)


# Names with a parameter, and what it is.
PARAMETERS: dict[str, Callable[[Any], Dual]] = {
    "leaky_relu": lambda p: closed.rectifier(_number("leaky_relu", p, 0.01, -1e9)),
    "monomial": lambda p: closed.monomial(_degree(p)),
    "rbf": lambda p: closed.rbf(_number("rbf", p, 1.0, 0.0)),
    "gaussian": lambda p: closed.gaussian(_number("gaussian", p, 1.0, 0.0)),
}
CLOSED: dict[str, Callable[[], Dual]] = {
    "relu": lambda: closed.rectifier(0.0),
    "abs": lambda: closed.rectifier(-1.0),
    "identity": closed.identity,
    "erf": closed.erf,
    "gelu": closed.gelu,
    "sin": closed.sin,
    "cos": closed.cos,
}
EXPANDED: dict[str, Callable[[Array], Array]] = {
    # The approximation that most libraries, and bn.MLP, mean by "gelu".
    "gelu_tanh": jax.nn.gelu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "elu": jax.nn.elu,
}
ACTIVATIONS = tuple(sorted((*CLOSED, *PARAMETERS, *EXPANDED)))


def resolve_dual(fn: Any, parameter: float | None = None, terms: int | None = None) -> Dual:
    """The dual of a name (with its parameter) or of a function (by `terms` polynomials).

    Raises `InputError` for an unknown name, a parameter that does not fit, or a function that
    does not map arrays to arrays of the same shape.
    """
    own = callable(fn) and not isinstance(fn, type)
    if not own and not isinstance(fn, str):
        raise InputError(f"An activation is a name or a function of arrays, got {fn!r}.")
    if not own and fn not in ACTIVATIONS:
        raise unknown_name("activation", fn, ACTIVATIONS)
    if parameter is not None and (own or fn not in PARAMETERS):
        what = "A function of your own" if own else repr(fn)
        raise InputError(f"{what} has no parameter; those that have: {', '.join(PARAMETERS)}.")
    if own or fn in EXPANDED:
        if own:
            _check_function(fn)
        return by_expansion(fn if own else EXPANDED[fn], terms)
    if terms is not None:
        raise InputError(f"{fn!r} has a closed form: terms is for the others.")
    return PARAMETERS[fn](parameter) if fn in PARAMETERS else CLOSED[fn]()


def _check_function(fn: Any) -> None:
    probe = jax.ShapeDtypeStruct((3,), jnp.float32)
    try:
        out = jax.eval_shape(fn, probe)
    except Exception as error:
        raise InputError(
            f"The activation cannot be applied to an array: {error}. Write it with jax.numpy."
        ) from error
    if getattr(out, "shape", None) != (3,):
        raise InputError(
            "An activation maps an array to one of the same shape, element by element."
        )
