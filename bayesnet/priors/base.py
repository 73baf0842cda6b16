"""The prior protocols: what a matching target, a sampler and an exact method each need."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from bayesnet._types import Array, Float, Key, PyTree


@runtime_checkable
class FunctionPrior(Protocol):
    """A distribution over functions; enough to be a matching target."""

    def sample(self, key: Key, x: Float[Array, "n d"], num_samples: int) -> Float[Array, "s n m"]:
        """Joint draws of the function values at the rows of `x`."""
        ...


@runtime_checkable
class LatentPrior(FunctionPrior, Protocol):
    """A prior that is a transport of standard normal latents: samplers condition these."""

    @property
    def latent_size(self) -> int:
        """p, the number of latent coordinates, N(0, 1) each a priori."""
        ...

    def apply(self, z: Float[Array, " p"], x: Float[Array, "n d"]) -> Float[Array, "n m"]:
        """The function that the latents `z` stand for, at the rows of `x`."""
        ...

    def encode(self, params: PyTree) -> Float[Array, " p"]:
        """The latents that decode to the given parameters."""
        ...


@runtime_checkable
class KernelPrior(FunctionPrior, Protocol):
    """A prior given by its mean and covariance function."""

    def kernel(self, x1: Float[Array, "n d"], x2: Float[Array, "k d"]) -> Float[Array, "n k"]:
        """The covariance of the function values."""
        ...
