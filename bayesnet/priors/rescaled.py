"""Length-scales and amplitude as latents of a network prior, beside its weights."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError, UnsupportedError
from bayesnet._repr import brief
from bayesnet._types import Array, ArrayLike, Float, Key, PyTree, as_key
from bayesnet.devices import as_points
from bayesnet.priors.base import LatentPrior
from bayesnet.priors.laws import LogNormal, check_positive_law, is_law


class RescaledPrior(eqx.Module):
    """The functions `sqrt(outputscale) * base(x / lengthscale)`.

    If `base` is matched to a process of lengthscale 1 and variance 1 on a wide enough region, this is
    matched to that process with any lengthscale and variance: one match serves all of them. Given
    as laws, both are latents, which every sampler draws with the weights, as a fully Bayesian
    Gaussian process draws its own. `bn.match_rescaled` makes one and states its gap.

    Args:
        base: a network prior (or any transport of latents).
        lengthscale: a `bn.LogNormal` or a positive number, one for all inputs or one a column.
        outputscale: the variance factor, a `bn.LogNormal` or a positive number.

    Latents, in this order: those of `base`, of the lengthscales, of the outputscale.

    Raises:
        InputError: a base without latents, laws other than `bn.LogNormal`, hyper-parameters that
            are not positive or of another shape.
    """

    base: Any
    lengthscale: Any = eqx.field(static=True)
    outputscale: Any = eqx.field(static=True)

    def __repr__(self) -> str:
        scales = f"lengthscale={brief(self.lengthscale)}, outputscale={brief(self.outputscale)}"
        return f"RescaledPrior({self.base!r}, {scales})"

    def __init__(self, base: Any, lengthscale: Any = 1.0, outputscale: Any = 1.0) -> None:
        if not isinstance(base, LatentPrior):
            raise InputError(
                f"RescaledPrior takes a bn.NetworkPrior, got {type(base).__name__}: match one first."
            )
        self.base = base
        self.lengthscale = _checked(lengthscale, "lengthscale")
        self.outputscale = _checked(outputscale, "outputscale")
        shape = _shape(self.lengthscale)
        if shape not in ((), (1,), (self.in_dim,)):
            raise InputError(
                f"lengthscale has shape {shape}; expected one value or one for each of the "
                f"{self.in_dim} inputs."
            )
        if _shape(self.outputscale) not in ((), (1,)):
            raise InputError(
                f"outputscale must be one value, got shape {_shape(self.outputscale)}."
            )

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
    def latent_size(self) -> int:
        return self.base.latent_size + _count(self.lengthscale) + _count(self.outputscale)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (self.latent_size,)

    def _values(self, z: Float[Array, "*s p"]) -> tuple[Array, Array]:
        """Lengthscales (*s, 1 or d) and outputscale (*s, 1)."""
        p, k = self.base.latent_size, _count(self.lengthscale)
        end = p + k + _count(self.outputscale)
        return _value(self.lengthscale, z[..., p : p + k]), _value(
            self.outputscale, z[..., p + k : end]
        )

    def apply(self, z: Float[Array, " p"], x: Float[Array, "n d"]) -> Float[Array, "n m"]:
        """The function with latents `z` at the rows of `x`, in the prior's coordinates."""
        lengthscale, outputscale = self._values(z)
        return jnp.sqrt(outputscale) * self.base.apply(z[: self.base.latent_size], x / lengthscale)

    def hyperparameters(self, z: ArrayLike) -> dict[str, np.ndarray]:
        """The values that latents stand for: "lengthscale" (..., 1 or d), "outputscale" (..., 1).

        Of a posterior: `post.prior.hyperparameters(post.latents)`, in the prior's coordinates (in
        the scaled ones a lengthscale counts standard deviations of its column).

        Args:
            z: latents (..., p); further columns (a likelihood's) are ignored.
        """
        z = jnp.asarray(z)
        if z.ndim == 0 or z.shape[-1] < self.latent_size:
            raise InputError(f"Latents (..., {self.latent_size}) are needed, got shape {z.shape}.")
        lengthscale, outputscale = (np.asarray(v) for v in self._values(z))
        return {"lengthscale": lengthscale, "outputscale": outputscale}

    def at(self, lengthscale: Any = None, outputscale: Any = None) -> RescaledPrior:
        """This prior with other hyper-parameters, fixed or laws; None keeps the present ones."""
        return RescaledPrior(
            self.base,
            self.lengthscale if lengthscale is None else lengthscale,
            self.outputscale if outputscale is None else outputscale,
        )

    def sample(self, key: int | Key, x: ArrayLike, num_samples: int) -> Float[Array, "s n m"]:
        """`num_samples` functions, each with hyper-parameters of its own, at the rows of `x` (n, d).

        `key` is an integer seed or a JAX key. Raises `InputError` for another number of columns.
        """
        x = as_points(x)
        if x.ndim != 2 or x.shape[1] != self.in_dim:
            raise InputError(f"x must have shape (n, {self.in_dim}), got {x.shape}.")
        return _sample(self, as_key(key), x, num_samples)

    def encode(self, params: PyTree) -> Float[Array, " p"]:
        """The latents of the function `base.network.apply(params, x)`: lengthscale and variance 1.

        Raises `UnsupportedError` if they are fixed at other values, where no latents give it.
        """
        ones = []
        for name, value in (("lengthscale", self.lengthscale), ("outputscale", self.outputscale)):
            if is_law(value):
                ones.append(
                    np.ravel(np.broadcast_to(-np.asarray(value.loc), value.shape) / value.scale)
                )
            elif not np.all(np.asarray(value) == 1.0):
                raise UnsupportedError(
                    f"Parameters of the network cannot be encoded: {name} is fixed at {value}, not 1."
                )
        z = self.base.encode(params)
        return jnp.concatenate([z, *(jnp.asarray(a, z.dtype) for a in ones)])

    def sampling_form(self) -> RescaledPrior | None:
        """See `NetworkPrior.sampling_form`; that of `base`, hyper-parameters as they are."""
        form = getattr(self.base, "sampling_form", lambda: None)()
        return None if form is None else eqx.tree_at(lambda p: p.base, self, form)

    def log_correction(self, z: Float[Array, " p"]) -> Float[Array, ""]:
        """See `NetworkPrior.log_correction`."""
        if hasattr(self.base, "log_correction"):
            return self.base.log_correction(z[: self.base.latent_size])
        return jnp.zeros((), z.dtype)

    @property
    def law(self) -> Any:
        """The weight law of `base`, acting on the latents of this prior."""
        law = self.base.law
        return _Leading(law, self.base.latent_size) if hasattr(law, "to_latents") else law


class _Leading(eqx.Module):
    """A sampling form's change of latents, applied to the first p of a longer vector."""

    inner: Any
    size: int = eqx.field(static=True)

    def to_latents(self, v: Array) -> Array:
        return jnp.concatenate([self.inner.to_latents(v[: self.size]), v[self.size :]])

    def from_latents(self, z: Array) -> Array:
        return jnp.concatenate([self.inner.from_latents(z[: self.size]), z[self.size :]])


def _checked(value: Any, name: str) -> Any:
    value = check_positive_law(value, name)
    if is_law(value) and not isinstance(value, LogNormal):
        raise InputError(
            f"The law of {name} must be a transport of normal latents: bn.LogNormal(loc, scale), got "
            f"{type(value).__name__}."
        )
    return value


def _shape(value: Any) -> tuple[int, ...]:
    return value.shape if is_law(value) else np.shape(value)


def _count(value: Any) -> int:
    """Latents of a hyper-parameter."""
    return int(np.prod(value.shape)) if is_law(value) else 0


def _value(value: Any, z: Float[Array, "*s k"]) -> Float[Array, "*s k"]:
    if is_law(value):
        return value.transport(z)
    fixed = jnp.atleast_1d(jnp.asarray(value, z.dtype))
    return jnp.broadcast_to(fixed, (*z.shape[:-1], fixed.size))


@eqx.filter_jit
def _sample(prior: RescaledPrior, key: Key, x: Array, num_samples: int) -> Array:
    z = jax.random.normal(key, (num_samples, prior.latent_size), x.dtype)
    return jax.lax.map(lambda zi: prior.apply(zi, x), z, batch_size=64)
