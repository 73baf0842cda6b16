"""What flows through the layers of an infinitely wide network: second moments of pairs of inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax.numpy as jnp

from bayesnet._types import Array


@dataclass(frozen=True)
class Signal:
    """What a layer hands on, without numbers: the check of a description runs on these.

    Attributes:
        image: (height, width) of maps, or None for vectors.
        gaussian: whether the units are jointly Gaussian in the limit (outputs of a layer with
            weights), as activations and normalisations need.
        raw: whether no weights have been met yet, so that the units are the inputs themselves.
        channels: the channels of raw images, else None.
    """

    image: tuple[int, int] | None = None
    gaussian: bool = False
    raw: bool = True
    channels: int | None = None


@dataclass(frozen=True)
class Moments:
    """Second moments `E[h(x) h(x')]` of one unit (channel) at a layer, and the tangent kernel.

    Fields, `space` being () for vectors, (h, w) for maps whose pixels meet only their own, or
    (h, h, w, w) for all pairs of pixels (what pooling needs):
        cov: (n, k, *space) for all pairs of rows, or (n, *space) for rows with themselves.
        left, right: (n, *space) and (k, *space), of rows with themselves.
        ntk: as `cov`, or None if it is not asked for.
        paired: which of the two forms `cov` has; in the second, left and right equal it.
        full: whether maps have all pairs of pixels.
        left_out: (n,) the largest share of a second moment that expansions of activations have
            left out so far, or None if it is not asked for.
    """

    cov: Array
    left: Array
    right: Array
    ntk: Array | None
    paired: bool = False
    full: bool = False
    left_out: Array | None = None

    def linear(self, fn: Callable[[Array], Array]) -> Moments:
        """A map that is linear in the moments, and acts on their trailing (space) axes only."""
        return replace(
            self,
            cov=fn(self.cov),
            left=fn(self.left),
            right=fn(self.right),
            ntk=None if self.ntk is None else fn(self.ntk),
        )

    def plus(self, other: Moments) -> Moments:
        """Of the sum with units that are uncorrelated with these."""
        ntk = None if self.ntk is None or other.ntk is None else self.ntk + other.ntk
        left_out = self.left_out
        if left_out is not None and other.left_out is not None:
            left_out = jnp.maximum(left_out, other.left_out)
        return replace(
            self,
            cov=self.cov + other.cov,
            left=self.left + other.left,
            right=self.right + other.right,
            ntk=ntk,
            left_out=left_out,
        )

    def weighted(self, weight: Array, bias: Array) -> Moments:
        """After weights and biases of the given variances: `K' = weight K + bias`, and
        `ntk' = weight ntk + K'`, all of them being trained (Jacot et al. 2018, theorem 1)."""
        cov, left, right = (weight * a + bias for a in (self.cov, self.left, self.right))
        ntk = None if self.ntk is None else weight * self.ntk + cov
        return replace(self, cov=cov, left=left, right=right, ntk=ntk)

    def variances(self) -> tuple[Array, Array]:
        """Of both units of every entry of `cov`, in shapes that broadcast against it."""
        a, b = self.left, self.right
        if self.full:
            a, b = (jnp.einsum("nhhww->nhw", v) for v in (a, b))
            a, b = a[:, :, None, :, None], b[:, None, :, None, :]
        return (a, b) if self.paired else (a[:, None], b[None])

    def self_pairs(self) -> tuple[Moments, Moments]:
        """The rows of the left with themselves, and those of the right."""
        return tuple(  # type: ignore[return-value]
            Moments(v, v, v, None, paired=True, full=self.full) for v in (self.left, self.right)
        )
