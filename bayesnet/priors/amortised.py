"""A network prior whose weight law follows the hyper-parameters of a process, beside its weights."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError, unknown_name
from bayesnet._types import Array, ArrayLike, Float, Key, PyTree, as_key
from bayesnet.devices import as_points
from bayesnet.priors.laws import LogNormal
from bayesnet.priors.network import NetworkPrior
from bayesnet.priors.weights import WeightLaw


class ParameterMap(eqx.Module):
    """How far the parameters of a weight law are moved: `linear' z + outer' tanh(inner' z + bias)`.

    `z` (k,) are the standard normal latents of the hyper-parameters; the result has one number for
    each of the law's parameters.
    """

    linear: Float[Array, "k t"]
    inner: Float[Array, "k h"]
    bias: Float[Array, " h"]
    outer: Float[Array, "h t"]

    @staticmethod
    def create(key: Key, latents: int, parameters: int, hidden: int = 16) -> ParameterMap:
        """A map that moves nothing yet."""
        inner = jax.random.normal(key, (latents, hidden)) * latents**-0.5
        return ParameterMap(
            jnp.zeros((latents, parameters)),
            inner,
            jnp.zeros(hidden),
            jnp.zeros((hidden, parameters)),
        )

    def __call__(self, z: Float[Array, " k"]) -> Float[Array, " t"]:
        return z @ self.linear + jnp.tanh(z @ self.inner + self.bias) @ self.outer


class AmortisedPrior(eqx.Module):
    """Network functions whose weight law is `theta(h)`, the hyper-parameters h being latents too.

    Given h the weights follow the law of `base` with its parameters moved by `map`; h has its own
    law. So one training serves every process of a family, also where no rescaling of inputs and
    outputs turns one into another (`bn.RescaledPrior` is for where it does). `bn.match_family`
    makes one and states its gap.

    Attributes:
        base: the `bn.NetworkPrior` at the median hyper-parameters.
        map: the `ParameterMap`.
        names, laws: of the hyper-parameters, `bn.LogNormal` or `bn.Normal` each.

    Latents, in this order: those of `base`, those of the laws.
    """

    base: NetworkPrior
    map: ParameterMap
    names: tuple[str, ...] = eqx.field(static=True)
    laws: tuple[Any, ...] = eqx.field(static=True)

    def __repr__(self) -> str:
        return f"AmortisedPrior({self.base!r}, hyper-parameters {', '.join(self.names)})"

    @property
    def in_dim(self) -> int:
        return self.base.in_dim

    @property
    def out_dim(self) -> int:
        return self.base.out_dim

    @property
    def units(self) -> str:
        return self.base.units

    @property
    def network(self) -> Any:
        """The network of `base`."""
        return self.base.network

    @property
    def hyper_size(self) -> int:
        """How many of the latents are those of hyper-parameters."""
        return sum(_sizes(self.laws))

    @property
    def latent_size(self) -> int:
        return self.base.latent_size + self.hyper_size

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (self.latent_size,)

    def apply(self, z: Float[Array, " p"], x: Float[Array, "n d"]) -> Float[Array, "n m"]:
        """The function with latents `z` at the rows of `x`, in the prior's coordinates."""
        size = self.base.latent_size
        law = moved(self.base.law, self.map(z[size : size + self.hyper_size]))
        return self.base.network.apply(law.decode(z[:size]), x)

    def hyperparameters(self, z: ArrayLike) -> dict[str, np.ndarray]:
        """The values that latents stand for: a dictionary of arrays (..., components).

        Of a posterior: `post.prior.hyperparameters(post.latents)`.

        Args:
            z: latents (..., p); further columns (a likelihood's) are ignored.
        """
        z = jnp.asarray(z)
        if z.ndim == 0 or z.shape[-1] < self.latent_size:
            raise InputError(f"Latents (..., {self.latent_size}) are needed, got shape {z.shape}.")
        values, at = {}, self.base.latent_size
        for name, law, size in zip(self.names, self.laws, _sizes(self.laws), strict=True):
            values[name] = np.asarray(law.transport(z[..., at : at + size]))
            at += size
        return values

    def at(self, **values: Any) -> NetworkPrior:
        """The prior matched to the process with these hyper-parameters: no training.

        Those that are not named have their medians. Raises `InputError` for an unknown name, or a
        value of the wrong sign or shape.
        """
        for name in values:
            if name not in self.names:
                raise unknown_name("hyper-parameter", name, self.names)
        parts = [
            _latent(law, values[name], name) if name in values else np.zeros(size)
            for name, law, size in zip(self.names, self.laws, _sizes(self.laws), strict=True)
        ]
        z = jnp.asarray(np.concatenate(parts), jnp.float32)
        return eqx.tree_at(lambda p: p.law, self.base, moved(self.base.law, self.map(z)))

    def sample(self, key: int | Key, x: ArrayLike, num_samples: int) -> Float[Array, "s n m"]:
        """`num_samples` functions, each with hyper-parameters of its own, at the rows of `x` (n, d).

        `key` is an integer seed or a JAX key. Raises `InputError` for another number of columns.
        """
        x = as_points(x)
        if x.ndim != 2 or x.shape[1] != self.in_dim:
            raise InputError(f"x must have shape (n, {self.in_dim}), got {x.shape}.")
        return _sample(self, as_key(key), x, num_samples)

    def encode(self, params: PyTree) -> Float[Array, " p"]:
        """Latents of the function `base.network.apply(params, x)`, at the median hyper-parameters."""
        law = moved(self.base.law, self.map(jnp.zeros(self.hyper_size)))
        z = law.encode(params)
        return jnp.concatenate([z, jnp.zeros(self.hyper_size, z.dtype)])


def moved(law: WeightLaw, by: Float[Array, " t"]) -> WeightLaw:
    """The weight law with its parameters, in the order of its leaves, moved by `by`."""
    theta, rest = eqx.partition(law, eqx.is_inexact_array)
    leaves, tree = jax.tree.flatten(theta)
    out, at = [], 0
    for leaf in leaves:
        out.append(leaf + by[at : at + leaf.size].reshape(leaf.shape))
        at += leaf.size
    found: WeightLaw = eqx.combine(jax.tree.unflatten(tree, out), rest)
    return found


def count_parameters(law: WeightLaw) -> int:
    """How many parameters a weight law has."""
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(law, eqx.is_inexact_array)))


def _sizes(laws: tuple[Any, ...]) -> list[int]:
    return [int(np.prod(law.shape)) for law in laws]


def _latent(law: Any, value: Any, name: str) -> np.ndarray:
    """The standard normal latent of a value."""
    array = np.asarray(value, np.float64)
    if array.ndim and array.shape != law.shape:
        raise InputError(f"{name} must be a number or have shape {law.shape}, got {array.shape}.")
    positive = isinstance(law, LogNormal)
    if not np.isfinite(array).all() or (positive and (array <= 0).any()):
        raise InputError(
            f"{name} must be {'positive and ' if positive else ''}finite, got {value!r}."
        )
    free = np.log(array) if positive else array
    return np.ravel(
        np.broadcast_to((free - np.asarray(law.loc)) / np.asarray(law.scale), law.shape)
    )


@eqx.filter_jit
def _sample(prior: AmortisedPrior, key: Key, x: Array, num_samples: int) -> Array:
    z = jax.random.normal(key, (num_samples, prior.latent_size), x.dtype)
    return jax.lax.map(lambda zi: prior.apply(zi, x), z, batch_size=64)
