"""How a quadrature treats tables of up to so many rows."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from bayesnet._types import Array, Key
from bayesnet.pfn.nodes import Nodes
from bayesnet.pfn.places import Places
from bayesnet.pfn.stepper import Stepper

Slopes = Callable[[Array, Array], tuple[Array, Array]]


class Level(eqx.Module):
    """Nodes for tables of up to `rows` rows: the fewer, the more rows tell of the hyper-parameters.

    Fields: `places` of the nodes in the law that the network's reader number `reader` proposes;
    `steppers`, which move them in turn, along slopes taken at the first `probes` nodes of a kind.
    """

    places: Places
    steppers: tuple[Stepper, ...]
    rows: int = eqx.field(static=True)
    probes: int = eqx.field(static=True)
    reader: int = eqx.field(static=True)

    @staticmethod
    def create(
        key: Key,
        *,
        kinds: int,
        nodes: int,
        slots: int,
        columns: int,
        width: int,
        rows: int,
        probes: int | None = None,
        reader: int = 0,
    ) -> Level:
        """`nodes` of each kind of process, evenly spread, for a reader of that `width`."""
        first, second = jax.random.split(key)
        sizes = kinds, slots, columns, width
        return Level(
            Places.create(kinds, nodes, slots, columns),
            (Stepper.create(first, *sizes), Stepper.create(second, *sizes, first=False)),
            rows,
            nodes if probes is None else probes,
            reader,
        )

    def moved(self, nodes: Nodes, slopes: Slopes) -> Nodes:
        """`nodes` after all steps; `slopes(z, odds)` are those of the log posterior density.

        Nodes that are not probed take the slopes of those that are, in turn.
        """
        turn = jnp.asarray([i % self.probes for i in range(nodes.z.shape[1])])
        past: tuple[Array, ...] = ()
        for stepper in self.steppers:
            by_z, by_odds = slopes(nodes.z[:, : self.probes], nodes.odds[:, : self.probes])
            nodes, past = stepper(nodes, by_z[:, turn], by_odds[:, turn], past)
        return nodes
