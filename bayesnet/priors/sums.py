"""Sums of independent function priors of any kind."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from bayesnet import devices
from bayesnet._errors import InputError
from bayesnet._types import Array, ArrayLike, Float, Key, as_key


class Sum:
    """The sum of independent draws of several priors: a process again.

    Args:
        parts: objects with `sample(key, x (n, d), s) -> (s, n, m)`: processes, network priors,
            stated priors, objects of your own. `a + b` makes one where either is a
            `bn.GaussianProcess`, a `bn.Sum` or a stated prior; two Gaussian processes add up to
            a Gaussian process.

    Attributes:
        parts: the summands.
        units: "scaled" or "data", the same for all that state it.

    Raises:
        InputError: fewer than two parts, a part without `sample`, or parts in different units,
            of different numbers of outputs; more than one part made by `bn.elicit`.
    """

    parts: tuple[Any, ...]
    units: str

    def __init__(self, *parts: Any) -> None:
        flat: list[Any] = []
        for part in parts:
            flat += part.parts if isinstance(part, Sum) else [part]
        if len(flat) < 2:
            raise InputError(f"A sum takes at least two priors, got {len(flat)}.")
        for part in flat:
            if not hasattr(part, "sample") or isinstance(part, type):
                raise InputError(
                    f"A sum is of objects with sample(key, x, num_samples); {part!r} has none."
                )
        for name in ("units", "in_dim", "out_dim"):
            stated = {getattr(part, name) for part in flat if getattr(part, name, None) is not None}
            if len(stated) > 1:
                raise InputError(
                    f"The parts of a sum differ in {name}: {sorted(map(str, stated))}. They must agree."
                )
        self.parts = tuple(flat)
        self.units = next((p.units for p in flat if hasattr(p, "units")), "scaled")
        _ = self.scaling  # refuses two stated priors

    @property
    def scaling(self) -> Any:
        """The coordinate map of the part that was stated in units of the data, or None."""
        found = [
            s for s in (getattr(part, "scaling", None) for part in self.parts) if s is not None
        ]
        if len(found) > 1:
            raise InputError(
                "A sum can hold one prior made by bn.elicit: each has the level of the data in it. Make "
                "all statements in one call."
            )
        return found[0] if found else None

    def with_scaling(self, scaling: Any, units: str = "scaled") -> Sum:
        """The same sum, with the part that was stated in units of the data in other coordinates."""
        return Sum(
            *(
                part.with_scaling(scaling, units) if hasattr(part, "with_scaling") else part
                for part in self.parts
            )
        )

    def __add__(self, other: Any) -> Sum:
        return Sum(self, other) if hasattr(other, "sample") else NotImplemented

    def __radd__(self, other: Any) -> Sum:
        return Sum(other, self) if hasattr(other, "sample") else NotImplemented

    def __repr__(self) -> str:
        return f"Sum({', '.join(map(repr, self.parts))})"

    @devices.single_precision()
    def sample(self, key: int | Key, x: ArrayLike, num_samples: int) -> Float[Array, "s n m"]:
        """`num_samples` draws at the rows of `x` (n, d): one of each part, added.

        Raises `InputError` if the parts give draws of different shapes.
        """
        keys = jax.random.split(as_key(key), len(self.parts))
        x = jnp.asarray(x)
        draws = [
            jnp.asarray(part.sample(k, x, num_samples), jnp.float32)
            for part, k in zip(self.parts, keys, strict=True)
        ]
        return _total(draws)

    @devices.single_precision()
    def sample_many(
        self, key: Key, xs: Float[Array, "k n d"], num_samples: int
    ) -> Float[Array, "k s n m"]:
        """Independent draws for each of `k` sets of rows (see `sample`)."""
        # Imported here: the rooms of matching and of sums are one room, and matching sees sums.
        from bayesnet.priors.matching.target import draw_target

        keys = jax.random.split(key, len(self.parts))
        return _total(
            [
                draw_target(part, k, xs, num_samples)
                for part, k in zip(self.parts, keys, strict=True)
            ]
        )


def _total(draws: list[Array]) -> Array:
    shapes = {d.shape for d in draws}
    if len(shapes) > 1:
        raise InputError(f"The parts of a sum gave draws of different shapes: {sorted(shapes)}.")
    return sum(draws[1:], draws[0])
