"""Weight laws: trainable transports from standard normal latents to a network's parameters."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError, unknown_name
from bayesnet._types import Array, Float, PyTree
from bayesnet.networks.base import Network

# How many weights share a scale: all of an array, those into one output unit, or none.
GRANULARITIES = ("layer", "unit", "parameter")
# Laws with one scale a group, and nothing else a group, may share it over arrays too.
BLOCK = "block"

Shapes = tuple[tuple[int, ...], ...]


@runtime_checkable
class WeightLaw(Protocol):
    """A pytree whose array leaves are the trainable parameters theta of the transport.

    A law may also offer `sampling_form()`: the same law in latents that samplers move through
    more easily (see `hierarchical`).
    """

    @property
    def latent_size(self) -> int: ...

    def decode(self, z: Float[Array, " p"]) -> PyTree:
        """Network parameters `T_theta(z)`."""
        ...

    def encode(self, params: PyTree) -> Float[Array, " p"]:
        """Latents with `decode(z) = params`."""
        ...


@runtime_checkable
class WeightRecipe(Protocol):
    """A weight law with its knobs, before it knows its network: what users write."""

    def build(self, network: Network, in_dim: int, out_dim: int) -> WeightLaw:
        """The law for a network, at its base parameters."""
        ...


class Layout:
    """How a flat latent vector is cut into the leaves of a parameter pytree (static, hashable).

    Args:
        shapes: the pytree of the parameters' shapes.
        output_axis: the axis of weight arrays that runs over output units (channels).
    """

    def __init__(self, shapes: PyTree, output_axis: int = -1) -> None:
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
        leaves, self.treedef = jax.tree.flatten(shapes)
        self.blocks = _blocks(paths, [len(leaf.shape) for leaf in leaves])
        self.shapes: Shapes = tuple(tuple(leaf.shape) for leaf in leaves)
        self.output_axis = output_axis
        self.sizes = _sizes(self.shapes)
        self.size = sum(self.sizes)

    @staticmethod
    def of(network: Network, in_dim: int, out_dim: int) -> Layout:
        """The layout of a network's parameters."""
        return Layout(network.param_shapes(in_dim, out_dim), getattr(network, "output_axis", -1))

    def _key(self) -> tuple[Any, ...]:
        return (self.treedef, self.shapes, self.output_axis)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self._key() == other._key()

    def __reduce__(self) -> tuple[Any, ...]:
        # By a tree of its shapes: the treedef of an equinox module does not survive pickling.
        shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in self.shapes]
        return Layout, (jax.tree.unflatten(self.treedef, shapes), self.output_axis)

    def __deepcopy__(self, memo: Any) -> Layout:
        return self  # nothing in it changes

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Layout({list(self.shapes)}, output_axis={self.output_axis})"

    def split(self, z: Float[Array, " p"]) -> list[Array]:
        """One array per leaf, in the order of the flattened tree."""
        return self.split_more(z, ())[0]

    def split_more(self, z: Float[Array, " q"], more: Shapes) -> tuple[list[Array], list[Array]]:
        """One array per leaf from the first p latents, and arrays of shapes `more` from the rest."""
        # The transpose of lax.split is one concatenation; that of slices pads each gradient to
        # full length and adds them up: 1.4 times slower for the whole gradient of
        # 6-128-128-128-1 (benchmarks/gradient.py).
        shapes = (*self.shapes, *more)
        pieces = jax.lax.split(z, _sizes(shapes))
        arrays = [a.reshape(shape) for a, shape in zip(pieces, shapes, strict=True)]
        return arrays[: len(self.shapes)], arrays[len(self.shapes) :]

    def join(self, pieces: list[Array]) -> Float[Array, " p"]:
        """The inverse of `split` and, with the further arrays appended, of `split_more`."""
        return jnp.concatenate([jnp.ravel(piece) for piece in pieces])

    def groups(self, per: str) -> Shapes:
        """For each leaf, the shape (broadcasting against it) of one number a group."""
        check_granularity(per)
        return tuple(self._group(shape, per) for shape in self.shapes)

    def _group(self, shape: tuple[int, ...], per: str) -> tuple[int, ...]:
        if per == "parameter" or (per == "unit" and len(shape) < 2):
            return shape
        if per == "layer":
            return (1,) * len(shape)
        axis = self.output_axis % len(shape)
        return tuple(n if i == axis else 1 for i, n in enumerate(shape))

    def num_groups(self, per: str) -> int:
        """How many numbers there are, one a group."""
        return sum(_sizes(self.groups(per)))

    def expand(self, values: Float[Array, " g"], per: str) -> list[Array]:
        """Numbers, one a group, as one array per leaf that broadcasts against it."""
        if per == "layer":
            return [values[i] for i in range(len(self.shapes))]
        if per == BLOCK:
            return [values[i] for i in self.blocks]
        shapes = self.groups(per)
        pieces = jax.lax.split(values, _sizes(shapes))
        return [a.reshape(shape) for a, shape in zip(pieces, shapes, strict=True)]

    def repeat(self, values: Any, per: str) -> np.ndarray:
        """Numbers, one a leaf, as numbers one a group (g,).

        Raises `InputError` for "block" if leaves that share a number have different ones.
        """
        if per == BLOCK:
            return self._shared(np.asarray(values, np.float32))
        return np.repeat(np.asarray(values, np.float32), _sizes(self.groups(per)))

    def _shared(self, values: np.ndarray) -> np.ndarray:
        """Numbers, one a leaf, as one a block."""
        shared = np.zeros(max(self.blocks) + 1, np.float32)
        shared[list(self.blocks)] = values
        if not np.allclose(shared[list(self.blocks)], values):
            raise InputError(
                'per="block" shares one scale between the arrays of a block, but those of this '
                'network differ in their own scales (1/sqrt(fan_in)). Use parameterization="ntk", '
                'where all are 1, or per="layer".'
            )
        return shared


def _blocks(paths: list[Any], ranks: list[int]) -> tuple[int, ...]:
    """For each leaf the number of its block, weight arrays and vectors (biases, gains) apart.

    A block is an entry of the innermost tuple or list on the way to a leaf (the layer of an MLP, the
    residual block of a ResNet), or of the outermost dictionary if there is none.
    """
    known: dict[Any, int] = {}
    numbers = []
    for path, rank in zip(paths, ranks, strict=True):
        places = [i for i, key in enumerate(path) if isinstance(key, jax.tree_util.SequenceKey)]
        block = path[: places[-1] + 1 if places else 1]
        name = (jax.tree_util.keystr(tuple(block)), rank > 1)
        numbers.append(known.setdefault(name, len(known)))
    return tuple(numbers)


def _sizes(shapes: Shapes) -> tuple[int, ...]:
    return tuple(int(np.prod(shape)) for shape in shapes)


def check_granularity(per: str, known: tuple[str, ...] = GRANULARITIES) -> None:
    """Raises `InputError` unless `per` is one of `known`."""
    if per not in known:
        raise unknown_name("granularity (per=)", per, known)
