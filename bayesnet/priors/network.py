"""A prior over functions given by a network and a law of its weights."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from bayesnet._errors import InputError
from bayesnet._repr import brief
from bayesnet._types import Array, ArrayLike, Float, Key, PyTree, as_key
from bayesnet.devices import as_points
from bayesnet.networks import Network, as_network
from bayesnet.priors.weights import WeightLaw, WeightRecipe, create_weight_law

UNITS = ("scaled", "data")


class NetworkPrior(eqx.Module):
    """The functions `network(T_theta(z), x)` with `z` standard normal.

    Args:
        network: `bn.MLP`, an equinox or flax module, or a pair (init, apply).
        weights: the law of the weights: a name ("gaussian", "hierarchical", "flow", "laplace",
            "student_t", "horseshoe"), an object with knobs such as
            `bn.weights.Hierarchical(per="unit")`, or a `WeightLaw`.
        in_dim: d, the number of inputs.
        out_dim: m, the number of outputs.
        units: "scaled" (the default: inputs and targets at mean 0, sd 1 per column) or
            "data" (the user's own units; `bn.fit` then does not scale).

    Raises:
        InputError: unknown names, or dimensions below 1.

    A pytree: the parameters theta of the weight law are its array leaves. Not matched to any
    process, the weights are N(0, 1) in the network's own parameterisation ("ntk" for MLP).
    """

    law: WeightLaw
    network: Network = eqx.field(static=True)
    in_dim: int = eqx.field(static=True)
    out_dim: int = eqx.field(static=True)
    units: str = eqx.field(static=True)

    def __repr__(self) -> str:
        law, network = type(self.law).__name__, brief(self.network)
        return (
            f"NetworkPrior({network}, {law}, in_dim={self.in_dim}, out_dim={self.out_dim}, "
            f"units={self.units!r})"
        )

    def __init__(
        self,
        network: Any,
        weights: str | WeightRecipe | WeightLaw = "gaussian",
        in_dim: int = 1,
        out_dim: int = 1,
        units: str = "scaled",
    ) -> None:
        if in_dim < 1 or out_dim < 1:
            raise InputError(f"in_dim and out_dim must be at least 1, got {in_dim} and {out_dim}.")
        if units not in UNITS:
            raise InputError(f"units must be one of {UNITS}, got {units!r}.")
        self.network = as_network(network)
        self.in_dim = int(in_dim)
        self.out_dim = int(out_dim)
        self.units = units
        self.law = create_weight_law(weights, self.network, self.in_dim, self.out_dim)
        self._check_dimensions()

    def _check_dimensions(self) -> None:
        x = jax.ShapeDtypeStruct((2, self.in_dim), jnp.float32)
        z = jax.ShapeDtypeStruct((self.latent_size,), jnp.float32)
        try:
            out = jax.eval_shape(self.apply, z, x)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"The network cannot be applied to inputs of shape (n, {self.in_dim}): {error}"
            ) from error
        if out.shape != (2, self.out_dim):
            raise InputError(
                f"The network maps (2, {self.in_dim}) to {out.shape}; expected (2, {self.out_dim}). "
                "Set in_dim and out_dim to what the network takes and gives."
            )

    @property
    def latent_size(self) -> int:
        return self.law.latent_size

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (self.latent_size,)

    def apply(self, z: Float[Array, " p"], x: Float[Array, "n d"]) -> Float[Array, "n m"]:
        """The function with latents `z` at the rows of `x`, in the prior's coordinates."""
        return self.network.apply(self.law.decode(z), x)

    def sample(self, key: int | Key, x: ArrayLike, num_samples: int) -> Float[Array, "s n m"]:
        """`num_samples` functions drawn from the prior, at the rows of `x` (n, d).

        `key` is an integer seed or a JAX key. Raises `InputError` for another number of columns.
        """
        x = as_points(x)
        if x.ndim != 2 or x.shape[1] != self.in_dim:
            raise InputError(f"x must have shape (n, {self.in_dim}), got {x.shape}.")
        return _sample(self, as_key(key), x, num_samples)

    def encode(self, params: PyTree) -> Float[Array, " p"]:
        """The latents of given network parameters (for warm starts)."""
        return self.law.encode(params)

    def sampling_form(self) -> NetworkPrior | None:
        """This prior in latents that samplers move through more easily, or None.

        The latents of that form are not N(0, 1), which `log_correction` restores; its law maps
        them by `to_latents` to the latents of this prior and by `from_latents` back (see
        `bayesnet.priors.weights.centred`).
        """
        form = getattr(self.law, "sampling_form", lambda: None)()
        return None if form is None else eqx.tree_at(lambda p: p.law, self, form)

    def log_correction(self, z: Float[Array, " p"]) -> Float[Array, ""]:
        """What the log prior density of the latents adds to that of N(0, I): 0 but for a
        `sampling_form`."""
        if hasattr(self.law, "log_correction"):
            return self.law.log_correction(z)
        return jnp.zeros((), z.dtype)

    def infinite_width(self) -> Any:
        """The Gaussian process to which this prior tends as its hidden layers become infinitely
        wide, a `bn.kernels.NNGP`. Raises `UnsupportedError` where there is none; see
        `bayesnet.priors.infinite_width`.
        """
        from bayesnet.priors.infinite_width import infinite_width

        return infinite_width(self)

    def show(self, target: Any = None, **kwargs: Any) -> Any:
        """Draw functions of this prior (and of a matching target) with matplotlib."""
        from bayesnet.plots import show_prior

        return show_prior(self, target, **kwargs)


@eqx.filter_jit
def _sample(prior: NetworkPrior, key: Key, x: Array, num_samples: int) -> Array:
    z = jax.random.normal(key, (num_samples, prior.latent_size), x.dtype)
    return jax.lax.map(lambda zi: prior.apply(zi, x), z, batch_size=draws_at_once(prior, 64))


def draws_at_once(prior: Any, usual: int) -> int | None:
    """How many draws to evaluate in one batch: `usual`, or None (a plain loop) for networks with
    `loop_over_draws`, whose batches are slower and large."""
    network = getattr(getattr(prior, "base", prior), "network", None)
    return None if getattr(network, "loop_over_draws", False) else usual
