"""Weight laws: trainable transports from standard normal latents to a network's parameters."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._types import Array, Float, PyTree


@runtime_checkable
class WeightLaw(Protocol):
    """A pytree whose array leaves are the trainable parameters theta of the transport."""

    @property
    def latent_size(self) -> int: ...

    def decode(self, z: Float[Array, " p"]) -> PyTree:
        """Network parameters `T_theta(z)`."""
        ...

    def encode(self, params: PyTree) -> Float[Array, " p"]:
        """Latents with `decode(z) = params`."""
        ...


class Layout:
    """How a flat latent vector is cut into the leaves of a parameter pytree (static, hashable)."""

    def __init__(self, shapes: PyTree) -> None:
        leaves, self.treedef = jax.tree.flatten(shapes)
        self.shapes = tuple(tuple(leaf.shape) for leaf in leaves)
        self.sizes = tuple(int(np.prod(shape)) for shape in self.shapes)
        self.size = sum(self.sizes)

    def _key(self) -> tuple[Any, ...]:
        return (self.treedef, self.shapes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self._key() == other._key()

    def __reduce__(self) -> tuple[Any, ...]:
        # By a tree of its shapes: the treedef of an equinox module does not survive pickling.
        shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in self.shapes]
        return Layout, (jax.tree.unflatten(self.treedef, shapes),)

    def __deepcopy__(self, memo: Any) -> Layout:
        return self  # nothing in it changes

    def __hash__(self) -> int:
        return hash(self._key())

    def split(self, z: Float[Array, " p"]) -> list[Array]:
        """One array per leaf, in the order of the flattened tree."""
        # The transpose of lax.split is one concatenation; that of slices pads each gradient to
        # full length and adds them up: 1.4 times slower for the whole gradient of
        # 6-128-128-128-1 (benchmarks/gradient.py).
        pieces = jax.lax.split(z, self.sizes)
        return [a.reshape(shape) for a, shape in zip(pieces, self.shapes, strict=True)]

    def join(self, pieces: list[Array]) -> Float[Array, " p"]:
        """The inverse of `split`."""
        return jnp.concatenate([jnp.ravel(piece) for piece in pieces])
