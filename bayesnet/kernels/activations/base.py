"""The protocol of dual activations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bayesnet._types import Array

# (k, v1, v2): covariance and variances of a pair, in shapes that broadcast against k.
OfPair = Callable[[Array, Array, Array], Array]


@dataclass(frozen=True)
class Dual:
    """What the limit needs to know of an activation.

    Attributes:
        function: the activation itself.
        value: `E[phi(u) phi(v)]` for (u, v) Gaussian with mean 0.
        slope: `E[phi'(u) phi'(v)]`, which is the derivative of `value` by the covariance.
        missing: None for closed forms; else `v -> ` the share of `E[phi^2]` that the expansion
            leaves out at variance v, for value and slope: bounds of their relative errors.
        norms: a shorter way to `with_itself`, or None.
    """

    function: Callable[[Array], Array]
    value: OfPair
    slope: OfPair
    missing: Callable[[Array], tuple[Array, Array]] | None = None
    norms: Callable[[Array], tuple[Array, Array]] | None = None

    def with_itself(self, v: Array) -> tuple[Array, Array]:
        """`E[phi(u)^2]` and `E[phi'(u)^2]` at variances v."""
        if self.norms is not None:
            return self.norms(v)
        return self.value(v, v, v), self.slope(v, v, v)
