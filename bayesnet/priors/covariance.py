"""Covariance functions with fixed or random hyper-parameters, computed by tinygp.

A covariance draws its hyper-parameters (`draw`) and evaluates the matrix for one draw of them
(`matrix`); sums and products compose. Evaluation is pure JAX, except for `FromGPyTorch`,
which calls torch on concrete arrays (`traceable = False`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from tinygp import kernels as tk
from tinygp.kernels.distance import Distance

from bayesnet._errors import InputError, MissingExtraError, unknown_name
from bayesnet._types import Array, Float, Key, PyTree
from bayesnet.priors.arc_cosine import arc_cosine
from bayesnet.priors.laws import check_positive_law, draw_law, is_law


class Euclidean(Distance):
    """The Euclidean distance with a finite gradient where it is zero.

    tinygp's own replaces exact zeros by ones before the root and puts them back after it. Where
    XLA computes the two comparisons in two fusions, inputs divided by a lengthscale may round to
    zero in one and not in the other, and a point is then at distance 1 from itself.
    """

    def distance(self, X1: Array, X2: Array) -> Array:
        """The distance of two points (d,)."""
        return jnp.sqrt(jnp.maximum(self.squared_distance(X1, X2), 1e-36))

    def squared_distance(self, X1: Array, X2: Array) -> Array:
        """Its square."""
        return jnp.sum(jnp.square(X1 - X2))


# Isotropic kernels of the Euclidean distance between inputs divided by their lengthscales.
STATIONARY = {
    "rbf": lambda: tk.ExpSquared(distance=Euclidean()),
    "matern12": lambda: tk.Exp(distance=Euclidean()),
    "matern32": lambda: tk.Matern32(distance=Euclidean()),
    "matern52": lambda: tk.Matern52(distance=Euclidean()),
}
ARC_COSINE = {"arccosine0": 0, "arccosine1": 1, "arccosine2": 2}
NAMES = (*STATIONARY, "periodic", "linear", *ARC_COSINE)
# The hyper-parameters of a kernel given by name, in the order in which their keys are split.
HYPER = ("lengthscale", "outputscale", "period", "bias")


@runtime_checkable
class Covariance(Protocol):
    """A covariance function whose hyper-parameters may be random."""

    @property
    def traceable(self) -> bool: ...

    @property
    def random(self) -> bool: ...

    @property
    def hyper(self) -> PyTree:
        """The hyper-parameters as they were given, numbers and laws, shaped as `draw` is."""
        ...

    def draw(self, key: Key, num: int) -> PyTree:
        """Hyper-parameters for `num` independent kernels (leading axis `num`)."""
        ...

    def matrix(self, hyper: PyTree, x1: Any, x2: Any) -> Any:
        """The covariance for one draw of the hyper-parameters."""
        ...


@dataclass(frozen=True)
class Named:
    """A kernel by name. `lengthscale` is a number, a vector (ARD) or a law; `outputscale` is
    the variance; `period` is used by "periodic" only, which is a product over columns of
    `exp(-2 sin^2(pi |x - x'| / period) / lengthscale^2)`; "linear" is `x . x' / lengthscale^2`;
    "arccosine0", 1, 2 are those of Cho & Saul (2009) on `(sqrt(bias), x / lengthscale)`: weights
    of variance `1 / lengthscale^2`, biases of variance `bias`, used by these only.
    `columns` are the input columns that the kernel sees (all if None)."""

    name: str
    lengthscale: Any = 1.0
    outputscale: Any = 1.0
    period: Any = 1.0
    bias: Any = 1.0
    columns: Any = None

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise unknown_name("kernel", self.name, NAMES)
        for field in HYPER:
            object.__setattr__(self, field, check_positive_law(getattr(self, field), field))
        if self.columns is not None:
            object.__setattr__(self, "columns", _column_numbers(self.columns))

    traceable = True

    @property
    def hyper(self) -> PyTree:
        return {name: getattr(self, name) for name in HYPER}

    @property
    def random(self) -> bool:
        return any(is_law(getattr(self, name)) for name in HYPER)

    def draw(self, key: Key, num: int) -> PyTree:
        keys = jax.random.split(key, len(HYPER))
        return {n: draw_law(getattr(self, n), k, num) for n, k in zip(HYPER, keys, strict=True)}

    def matrix(
        self, hyper: PyTree, x1: Float[Array, "n d"], x2: Float[Array, "k d"]
    ) -> Float[Array, "n k"]:
        if self.columns is not None:
            if max(self.columns) >= x1.shape[1]:
                raise InputError(
                    f"The kernel is on columns {list(self.columns)}, the inputs have {x1.shape[1]}."
                )
            x1, x2 = (x[:, list(self.columns)] for x in (x1, x2))
        scale = hyper["lengthscale"]
        if jnp.ndim(scale) == 1 and scale.shape[0] not in (1, x1.shape[1]):
            raise InputError(
                f"The kernel has {scale.shape[0]} lengthscales, the inputs have {x1.shape[1]} columns."
            )
        if self.name == "periodic":
            gamma = jnp.broadcast_to(2.0 / scale**2, (x1.shape[1],))
            cov = jnp.ones((x1.shape[0], x2.shape[0]), x1.dtype)
            for j in range(x1.shape[1]):
                column = tk.ExpSineSquared(scale=hyper["period"], gamma=gamma[j])
                cov = cov * column(x1[:, j], x2[:, j])
        elif self.name in ARC_COSINE:
            cov = arc_cosine(
                ARC_COSINE[self.name],
                *(_with_bias(x / scale, jnp.sqrt(hyper["bias"])) for x in (x1, x2)),
            )
        else:
            kernel = tk.DotProduct() if self.name == "linear" else STATIONARY[self.name]()
            cov = kernel(x1 / scale, x2 / scale)
        return hyper["outputscale"] * cov


def _with_bias(x: Array, bias: Any) -> Array:
    return jnp.concatenate([jnp.broadcast_to(bias, (x.shape[0], 1)).astype(x.dtype), x], axis=1)


def _column_numbers(columns: Any) -> tuple[int, ...]:
    numbers = np.atleast_1d(np.asarray(columns))
    if (
        numbers.ndim != 1
        or numbers.size == 0
        or numbers.dtype.kind not in "iu"
        or numbers.min() < 0
        or len(set(numbers.tolist())) != numbers.size
    ):
        raise InputError(
            f"columns must be distinct column numbers, counted from 0, got {columns!r}."
        )
    return tuple(numbers.tolist())


@dataclass(frozen=True, eq=False, repr=False)
class FromTinyGP:
    """A tinygp kernel as it is, hyper-parameters fixed inside it."""

    kernel: Any
    traceable = True
    random = False
    hyper = np.zeros(0)

    def __repr__(self) -> str:
        # Kernels print arrays by shape and functions by name; what prints alike must be alike,
        # because kept matches are told apart by what their target prints.
        values = [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(self.kernel)]
        text = f"FromTinyGP({self.kernel!r}, values={values})"
        return f"{text} at 0x{id(self):x}" if "<" in text else text

    def draw(self, key: Key, num: int) -> PyTree:
        return jnp.zeros((num, 0))

    def matrix(self, hyper: PyTree, x1: Array, x2: Array) -> Array:
        return self.kernel(x1, x2)


@dataclass(frozen=True, eq=False)
class FromGPyTorch:
    """A gpytorch kernel as it is (its current hyper-parameters), evaluated by torch in float64."""

    kernel: Any
    traceable = False
    random = False
    hyper = np.zeros(0)

    def draw(self, key: Key, num: int) -> PyTree:
        return jnp.zeros((num, 0))

    def matrix(self, hyper: PyTree, x1: Any, x2: Any) -> np.ndarray:
        import copy

        import torch

        # On a copy: `.double()` would convert the user's own kernel in place.
        kernel = copy.deepcopy(self.kernel).double()
        with torch.no_grad():
            a = torch.from_numpy(np.array(x1, np.float64))
            b = torch.from_numpy(np.array(x2, np.float64))
            return kernel(a, b).to_dense().numpy()


@dataclass(frozen=True)
class Combined:
    """The sum or product of two covariances; their hyper-parameters are drawn independently."""

    left: Covariance
    right: Covariance
    op: str

    @property
    def traceable(self) -> bool:
        return self.left.traceable and self.right.traceable

    @property
    def random(self) -> bool:
        return self.left.random or self.right.random

    @property
    def hyper(self) -> PyTree:
        return self.left.hyper, self.right.hyper

    def draw(self, key: Key, num: int) -> PyTree:
        k1, k2 = jax.random.split(key)
        return self.left.draw(k1, num), self.right.draw(k2, num)

    def matrix(self, hyper: PyTree, x1: Array, x2: Array) -> Array:
        a = self.left.matrix(hyper[0], x1, x2)
        b = self.right.matrix(hyper[1], x1, x2)
        return a + b if self.op == "sum" else a * b


def as_covariance(kernel: Any, **hyper: Any) -> Covariance:
    """A covariance from a name, a tinygp kernel, a gpytorch kernel, or a covariance."""
    if isinstance(kernel, str):
        return Named(kernel, **hyper)
    if any(value is not None for value in hyper.values() if not _is_one(value)):
        raise InputError(
            "lengthscale, outputscale, period, bias and columns belong to kernels given by name; a kernel object "
            "carries its own."
        )
    if isinstance(kernel, (Named, FromTinyGP, FromGPyTorch, Combined)):
        return kernel
    if isinstance(kernel, tk.Kernel):
        return FromTinyGP(kernel)
    if any(base.__module__.startswith("gpytorch.") for base in type(kernel).__mro__):
        try:
            import torch  # noqa: F401
        except ImportError as error:  # pragma: no cover - a gpytorch kernel implies torch
            raise MissingExtraError(
                "A gpytorch kernel needs torch: pip install bayesnet[bo]."
            ) from error
        return FromGPyTorch(kernel)
    raise InputError(
        f"Cannot use {type(kernel).__name__} as a kernel: pass one of {', '.join(NAMES)}, a tinygp "
        "kernel, or a gpytorch kernel."
    )


def _is_one(value: Any) -> bool:
    return isinstance(value, (int, float)) and value == 1
