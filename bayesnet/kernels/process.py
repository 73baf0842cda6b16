"""The Gaussian processes of infinitely wide networks: NNGP and NTK."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import ConvergenceWarning, InputError
from bayesnet._matrix import as_matrix
from bayesnet._types import Array, ArrayLike, Float, Key, as_key
from bayesnet.kernels.layers import check_std
from bayesnet.kernels.matrices import block_size, check_direct, kernel_matrix, kernel_matvec
from bayesnet.kernels.programs import (
    both_program,
    diagonal_program,
    draw_program,
    left_out_program,
    matrix_program,
)
from bayesnet.kernels.propagation import check_rows, expands, matrices
from bayesnet.kernels.serial import Serial, check_network, dense_network

UNITS = ("scaled", "data")
# A larger bound of the relative error of expansions is warned of.
INACCURATE = 1e-4
Stds = float | tuple[float, ...]


def _stds(what: str, value: Any, count: int, *, zero: bool = False) -> Stds:
    """A number for all layers with weights, or a tuple with one for each."""
    if isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value) == 1:
        if len(value) != count:
            raise InputError(
                f"{what} has {len(value)} numbers, but the network has {count} layers with weights "
                "(hidden ones and the last). Pass one number for all, or one for each."
            )
        return tuple(check_std(f"{what}[{i}]", v, zero=zero) for i, v in enumerate(value))
    return check_std(what, value, zero=zero)


@dataclass(frozen=True, init=False)
class InfiniteNetwork:
    """What `NNGP` and `NTK` share.

    Args:
        layers: the network as `Serial(Dense(), Activation("relu"), ..., Dense())`; or None for
            a fully connected one of `depth` hidden layers.
        depth: hidden layers (3 if neither is given), each with its activation; 0 is a linear model.
        activation: of these: a name in `bayesnet.kernels.ACTIVATIONS` or a function of arrays.
        weight_std: weights are N(0, weight_std^2 / fan_in): a number for all layers, or a tuple
            with one a layer with weights (`depth + 1`, the last being the linear layer), in the
            order of the description. None: 1.4, or what `layers` say.
        bias_std: biases are N(0, bias_std^2); 0 is without. None: 0.3, or what `layers` say.
        out_dim: m independent outputs with the same kernel.
        units: "scaled" (inputs and targets at mean 0, sd 1) or "data".

    Raises:
        InputError: unknown names, standard deviations that are not positive, descriptions that
            have no Gaussian limit, inputs that do not fit.

    The mean is 0. The first layer is `K(x, x') = weight_std^2 x.x' / d + bias_std^2`, so that kernels do
    not grow with the number d of columns. Kernels are computed in float64 and given back in the
    dtype of JAX; `matrix` is the same as a pure function of the variances.
    """

    layers: Serial
    weight_std: Stds
    bias_std: Stds
    out_dim: int
    units: str

    def __init__(
        self,
        layers: Serial | None = None,
        *,
        depth: int | None = None,
        activation: Any = None,
        weight_std: Any = None,
        bias_std: Any = None,
        out_dim: int = 1,
        units: str = "scaled",
    ) -> None:
        if units not in UNITS:
            raise InputError(f"units must be one of {UNITS}, got {units!r}.")
        if isinstance(out_dim, bool) or int(out_dim) != out_dim or out_dim < 1:
            raise InputError(f"out_dim must be a whole number of at least 1, got {out_dim!r}.")
        if layers is None:
            depth = 3 if depth is None else depth
            if isinstance(depth, bool) or int(depth) != depth or depth < 0:
                raise InputError(f"depth must be a whole number of at least 0, got {depth!r}.")
            layers = dense_network(int(depth), "relu" if activation is None else activation)
            weight_std = 1.4 if weight_std is None else weight_std
            bias_std = 0.3 if bias_std is None else bias_std
        elif depth is not None or activation is not None:
            raise InputError("depth and activation describe a network; layers do that already.")
        check_network(layers)
        own = layers.stds()
        if weight_std is None:
            weight_std = tuple(pair[0] for pair in own)
        if bias_std is None:
            bias_std = tuple(pair[1] for pair in own)
        weight_std = _stds("weight_std", weight_std, len(own))
        bias_std = _stds("bias_std", bias_std, len(own), zero=True)
        each = zip(_spread(weight_std, len(own)), _spread(bias_std, len(own)), strict=True)
        object.__setattr__(self, "layers", layers.with_stds(iter(list(each))))
        object.__setattr__(self, "weight_std", weight_std)
        object.__setattr__(self, "bias_std", bias_std)
        object.__setattr__(self, "out_dim", int(out_dim))
        object.__setattr__(self, "units", units)

    # What the exact methods ask of a process and of a covariance (`priors.covariance.Covariance`).
    mean = 0.0
    random = False
    traceable = True
    _which = "nngp"

    @property
    def hyper(self) -> dict[str, Array | np.ndarray]:
        """The variances: "weight" (weight_std^2) and "bias" (bias_std^2), in float64, each a number
        () for all layers or (layers,), as they were given."""
        return {
            "weight": np.square(np.asarray(self.weight_std, np.float64)),
            "bias": np.square(np.asarray(self.bias_std, np.float64)),
        }

    variances = hyper

    def with_variances(self, weight: Any = None, bias: Any = None) -> Any:
        """The same network with other variances: numbers, or one a layer with weights."""

        def root(what: str, value: Any, now: Stds) -> Any:
            if value is None:
                return now
            array = np.asarray(value, np.float64)
            if not np.isfinite(array).all() or (array < 0).any():
                raise InputError(
                    f"The {what} variances must be finite and positive, got {value!r}."
                )
            return float(np.sqrt(array)) if array.ndim == 0 else tuple(np.sqrt(array).tolist())

        return replace(
            self,
            weight_std=root("weight", weight, self.weight_std),
            bias_std=root("bias", bias, self.bias_std),
        )

    def draw(self, key: Key, num: int) -> Any:
        """`num` copies of the variances (they are fixed), as the `Covariance` protocol asks."""
        return jax.tree.map(lambda a: jnp.broadcast_to(a, (num, *np.shape(a))), self.hyper)

    def matrix(self, hyper: Any, x1: Float[Array, "n d"], x2: Float[Array, "k d"]) -> Array:
        """The kernel (n, k) for given variances (shaped as `hyper`), in the dtype at hand: a pure
        function, to be used inside `devices.float64_island` or `jax.enable_x64(True)`."""
        nngp, ntk = matrices(self.layers, hyper, x1, x2, ntk=self._which == "ntk")
        return nngp if ntk is None else ntk

    def kernel(self, x1: ArrayLike, x2: ArrayLike) -> Float[Array, "n k"]:
        """The covariance of function values at rows (n, d) and (k, d), computed in float64."""
        a, b = self._rows(x1, "x1"), self._rows(x2, "x2")
        if a.shape[1] != b.shape[1]:
            raise InputError(f"x1 has {a.shape[1]} columns, x2 has {b.shape[1]}.")
        check_direct(self, len(a), len(b))
        if self.expands and not any(isinstance(x, jax.core.Tracer) for x in (a, b)):
            self._warn_of_expansion(a, b)
        return matrix_program(self.bare(), self.hyper, a, b)

    @property
    def expands(self) -> bool:
        """Whether an activation has no closed form and is expanded (see `expansion_error`)."""
        return expands(self.layers)

    def _warn_of_expansion(self, *rows: Array) -> None:
        worst = max(float(jnp.max(self.expansion_error(x))) for x in rows)
        if worst > INACCURATE:
            warnings.warn(
                f"The kernel is accurate to a relative {worst:.0e} only at the outermost of these rows: an "
                "activation there has a corner, or bends much more sharply than its polynomials. Scale "
                "the inputs, lower weight_std, or take more terms: bn.kernels.Activation(name, terms=4096).",
                ConvergenceWarning,
                stacklevel=3,
            )

    def expansion_error(self, x: ArrayLike) -> Float[Array, " n"]:
        """A bound of the relative error of the kernel by expanding activations, at each row of x.

        0 for activations in closed form. Others are expanded in Hermite polynomials; the share of
        `E[phi^2]` (for the NTK also of `E[phi'^2]`) that this leaves out, the largest over layers,
        bounds the error that one layer makes.
        """
        return left_out_program(self.bare(), self.hyper, self._rows(x, "x"))

    def in_parts(self, n: int, k: int) -> bool:
        """Whether the matrix of n x k rows is too much for one block (see `in_blocks`)."""
        return max(n, k) > block_size(self, None, n, k)

    @property
    def diagonal_rows(self) -> int:
        """Rows whose variances are made at once."""
        return block_size(self, None, 10**9, 10**9) ** 2

    def in_blocks(self, x1: ArrayLike, x2: ArrayLike | None = None, **options: Any) -> np.ndarray:
        """The matrix (n, k), or the square one of x1, as float64 NumPy array, block by block; options
        `block` and `progress`: see `bayesnet.kernels.kernel_matrix`."""
        return kernel_matrix(self, x1, x2, **options)

    def matvec(
        self, x1: ArrayLike, v: ArrayLike, x2: ArrayLike | None = None, **options: Any
    ) -> np.ndarray:
        """`kernel(x1, x2) @ v` without the matrix (x2 None means x1), in float64; options `block` and
        `progress`: see `bayesnet.kernels.kernel_matvec`."""
        return kernel_matvec(self, x1, v, x2, **options)

    def as_gpytorch(self) -> Any:
        """This kernel as a gpytorch `Kernel` whose variances can be trained (needs torch and gpytorch);
        see `bayesnet.kernels.torch_kernel`."""
        from bayesnet.kernels.torch_kernel import as_gpytorch

        return as_gpytorch(self)

    def diagonal(self, x: ArrayLike) -> Float[Array, " n"]:
        """`kernel(x, x)` of each row of x (n, d) with itself."""
        return diagonal_program(self.bare(), self.hyper, self._rows(x, "x"))

    def sample(self, key: int | Key, x: ArrayLike, num_samples: int) -> Float[Array, "s n m"]:
        """`num_samples` joint draws of Gaussian processes with this kernel at the rows of `x` (n, d).

        `key` is an integer seed or a JAX key.
        """
        rows = self._rows(x, "x")
        check_direct(self, len(rows), len(rows))
        draws = draw_program(self.bare(), num_samples * self.out_dim, self.hyper, as_key(key), rows)
        if not bool(jnp.isfinite(draws).all()):
            raise InputError(
                f"The kernel matrix of {len(rows)} rows is not positive definite in float64: inputs or "
                "variances are extreme."
            )
        return jnp.swapaxes(draws.reshape(num_samples, self.out_dim, len(rows)), 1, 2)

    def finite(self, width: int, in_dim: int) -> Any:
        """The prior of the same network with `width` units (channels) a hidden layer.

        A `NetworkPrior` with Gaussian weights: N(0, 1) latents times `weight_std / sqrt(fan_in)` and
        `bias_std`. As the width grows it tends to the NNGP; its `infinite_width()` leads back.
        """
        from bayesnet.kernels.finite import WideNetwork
        from bayesnet.priors.network import NetworkPrior

        network = WideNetwork(self.layers, width)
        return NetworkPrior(network, "gaussian", in_dim, self.out_dim, self.units)

    def bare(self) -> Any:
        """This kernel with all standard deviations 1: the structure, on which programs are kept."""
        return replace(self, weight_std=1.0, bias_std=1.0, out_dim=1, units="scaled")

    def _rows(self, x: ArrayLike, name: str) -> Array:
        if not isinstance(x, jax.core.Tracer):
            x = x if isinstance(x, jax.Array) and x.ndim == 2 else as_matrix(x, name)
        check_rows(self.layers, x.shape, name)
        return jnp.asarray(x, jnp.result_type(float))


def _spread(stds: Stds, count: int) -> tuple[float, ...]:
    return stds if isinstance(stds, tuple) else (stds,) * count


@dataclass(frozen=True, init=False)
class NNGP(InfiniteNetwork):
    """The Gaussian process of functions of an infinitely wide network with random weights
    (Neal 1996; Lee et al. 2018, eq. 4-5). Arguments and errors: see `InfiniteNetwork`.
    """

    @property
    def ntk(self) -> NTK:
        """The tangent kernel of the same network."""
        return NTK(self.layers, **_settings(self))


@dataclass(frozen=True, init=False)
class NTK(InfiniteNetwork):
    """The Gaussian process whose covariance is the neural tangent kernel: the inner products of
    gradients of an infinitely wide network by its N(0, 1) latents (Jacot et al. 2018, theorem 1).

    It governs gradient descent in function space; functions before training have the covariance
    of `nngp`. Arguments and errors: see `InfiniteNetwork`.
    """

    _which = "ntk"

    @property
    def nngp(self) -> NNGP:
        """The process of the same network before training."""
        return NNGP(self.layers, **_settings(self))

    def both(self, x1: ArrayLike, x2: ArrayLike) -> tuple[Array, Array]:
        """The NNGP and the NTK matrices (n, k), in one pass."""
        return both_program(self.bare(), self.hyper, self._rows(x1, "x1"), self._rows(x2, "x2"))


def _settings(kernel: InfiniteNetwork) -> dict[str, Any]:
    return {name: getattr(kernel, name) for name in ("weight_std", "bias_std", "out_dim", "units")}
