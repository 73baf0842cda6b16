"""A PFN for Gaussian processes with random hyper-parameters: a learned quadrature over these.

A transformer reads a table and states a few sets of hyper-parameters, the nodes; each takes
learned steps up its posterior density (`stepper`); there the process is conditioned in closed form, and
the predictive law is the mixture over nodes. A node's weight is its exact evidence times prior density
over proposal density, as in importance sampling (`importance`), times a learned factor; the places of
the nodes within the proposal are learned too. All is trained together on the predictive law
(`quadrature_training`), so that a few nodes do what hundreds of random draws are needed for.
What plain transformers learn worst, interpolation where there is little noise, is left to linear
algebra.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._types import Array, Bool, Float, Key
from bayesnet.devices import float64_island
from bayesnet.pfn.bars import Bars
from bayesnet.pfn.family import ProcessFamily
from bayesnet.pfn.hyper_map import HyperMap
from bayesnet.pfn.importance import WIDER
from bayesnet.pfn.level import Level
from bayesnet.pfn.node_algebra import (
    at_every,
    evidence_of,
    joint_at,
    law_at,
    slopes,
    solved_of,
    totals,
)
from bayesnet.pfn.node_laws import NodeLaws
from bayesnet.pfn.nodes import Conditioned, Nodes
from bayesnet.pfn.proposal import COMPONENTS, ProposalNetwork
from bayesnet.pfn.transformer import mixture_logits

# Rows up to which tables have as many nodes as asked for; beyond, where hyper-parameters are better
# known, KEPT of each kind.
FEW, KEPT = 20, 3
# From so many columns on, of whose lengthscales rows tell less, the first level goes on in the place of
# the second: 0.01 to 0.03 nats closer to the exact law.
WIDE = 4


class QuadratureNetwork(eqx.Module):
    """A reader proposes a law of the hyper-parameters; nodes are fixed places in it, learned.

    Fields: `readers`; `levels`, by rising numbers of rows, the last for longer tables as well;
    `shares` of the kinds of processes; `unused`, how probable a column without effect is.
    """

    readers: tuple[ProposalNetwork, ...]
    hyper: HyperMap
    levels: tuple[Level, ...]
    shares: tuple[float, ...] = eqx.field(static=True)
    unused: float = eqx.field(static=True)

    @staticmethod
    def create(
        key: Key,
        family: ProcessFamily,
        *,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        nodes: int = 2,
        kept: int = KEPT,
        max_rows: int,
        reader: ProposalNetwork | None = None,
    ) -> QuadratureNetwork:
        """`nodes` for each of the reader's components and each kind of process, evenly spread; `kept` of
        each kind where rows are many.

        A `reader` that was trained to propose hyper-parameters saves most of the training.
        """
        kinds, slots, d = family.num_parts, family.size, family.max_dim
        if reader is None:
            reader = ProposalNetwork.create(
                key,
                slots=slots,
                parts=kinds,
                max_dim=d,
                width=width,
                depth=depth,
                heads=heads,
                hidden=hidden,
            )
        sizes = {"kinds": kinds, "slots": slots, "columns": d, "width": reader.width}
        return QuadratureNetwork(
            (reader,),
            HyperMap.of(family),
            tuple(
                Level.create(jax.random.fold_in(key, 1), nodes=each, rows=rows, **sizes)
                for each, rows in ((COMPONENTS * nodes, FEW), (kept, max_rows))
            ),
            tuple(float(w) for w in family.weights),
            float(family.unused),
        )

    @property
    def max_dim(self) -> int:
        """The largest number of columns."""
        return self.readers[0].max_dim

    @property
    def laws(self) -> NodeLaws:
        """The prior of nodes, which is not learned."""
        return NodeLaws(jax.lax.stop_gradient(self.hyper), self.shares, self.unused)

    def for_columns(self, d: int) -> QuadratureNetwork:
        """This network as it takes tables of `d` columns: with more nodes if these are many."""
        if d < WIDE or len(self.levels) == 1:
            return self
        first, second, *others = self.levels
        return replace(self, levels=(replace(first, rows=second.rows), *others))

    def level(self, rows: int) -> Level:
        """How tables of so many rows, padding included, are treated."""
        return next((level for level in self.levels if rows <= level.rows), self.levels[-1])

    def nodes(
        self,
        x: Float[Array, "r d"],
        y: Float[Array, " r"],
        mask: Bool[Array, " r"],
        used: Float[Array, " D"],
    ) -> Nodes:
        """Where the reader places nodes for a table; arguments as of `Transformer.encode`.

        `x`, here and in what follows, may be without the columns of padding; `used` is of all columns.
        """
        columns = x.shape[1]
        level = self.level(len(x))
        x, y, used = (a.astype(self.readers[0].embed_y.dtype) for a in (x, y, used))
        law, told = self.readers[level.reader].narrowed(columns).read(x, y, mask, used[:columns])
        places = level.places
        d = used.sum().astype(int)
        each = places.z.shape[1]
        std = WIDER * jnp.exp(law.log_std)
        # Of every kind the most probable components, in this order, over and over; nodes that share
        # slopes share the component.
        rank = jnp.argsort(-(law.log_weight[:, None] + law.log_part), axis=0)
        component = rank[np.arange(each) % min(COMPONENTS, level.probes)].T
        own = std[component]
        z = law.mean[component] + own * places.z
        odds = law.relevance + places.leans
        gates = self.laws.gates(odds, d)
        log_share = places.factors - self.laws.proposed(law, std, z, gates, used)
        return Nodes(log_share, z, odds, own, told)

    def moved(
        self, nodes: Nodes, x: Float[Array, "r d"], y: Array, mask: Array, used: Array
    ) -> Nodes:
        """The nodes after the learned steps along the slopes of their log posterior density."""
        rows, d = x * used[: x.shape[1]], used.sum().astype(int)

        def density(z: Array, odds: Array, *table: Any) -> Array:
            rows, y, mask, used, d = table
            gates = self.laws.gates(odds, d)
            hyper = self.laws.hypers(z, gates, d, rows.shape[1])
            total = totals(self.hyper.kernels, hyper, rows, mask)
            evidence: Array = at_every(evidence_of, total, y, mask)
            return evidence + self.laws.prior(z, gates, used)

        def slope(z: Array, odds: Array) -> tuple[Array, Array]:
            wide = (a.astype(rows.dtype) for a in (z, odds))
            by_z, by_odds = _in_float64(slopes(density), rows)(*wide, rows, y, mask, used, d)
            return by_z.astype(z.dtype), by_odds.astype(odds.dtype)

        return self.level(len(x)).moved(nodes, slope)

    def condition(
        self,
        nodes: Nodes,
        x: Float[Array, "r d"],
        y: Float[Array, " r"],
        mask: Bool[Array, " r"],
        used: Float[Array, " D"],
    ) -> Conditioned:
        """The processes at the nodes, conditioned on a table; in float64 inside."""
        x, d = x * used[: x.shape[1]], used.sum().astype(int)
        z = nodes.z.astype(x.dtype)
        gates = self.laws.gates(nodes.odds.astype(x.dtype), d)
        hyper = self.laws.hypers(z, gates, d, x.shape[1])
        kernels = self.hyper.kernels

        def at_all(hyper: Any, x: Array, y: Array, mask: Array) -> Any:
            return at_every(solved_of, totals(kernels, hyper, x, mask), y, mask)

        evidence, solved, root = _in_float64(at_all, x)(hyper, x, y, mask)
        log_weight = nodes.log_share + self.laws.prior(z, gates, used) + evidence
        total = jax.nn.logsumexp(log_weight)
        return Conditioned(log_weight - total, z, gates, solved, root, x, total)

    def encode(self, x: Array, y: Array, mask: Array, used: Array) -> Conditioned:
        """What is kept of a table; arguments as of `Transformer.encode`."""
        nodes = self.moved(self.nodes(x, y, mask, used), x, y, mask, used)
        return self.condition(nodes, x, y, mask, used)

    def _at_nodes(
        self, at: Any, table: Conditioned, mask: Array, x: Array, used: Array
    ) -> tuple[Array, Array, Array]:
        """What `at` makes of every node at queries, its two parts, and the noise variances (c,)."""
        x = x * used[: x.shape[1]]
        d = used.sum().astype(int)
        hypers = self.laws.hypers(table.z, table.gates, d, x.shape[1])
        # In full float32: what is explained is subtracted from what there is.
        with jax.default_matmul_precision("highest"):
            pairs = [
                jax.vmap(at(kernel), in_axes=(0, 0, 0, None, None, None))(
                    hyper, table.solved[kind], table.root[kind], table.x, mask, x
                )
                for kind, (kernel, (hyper, _)) in enumerate(
                    zip(self.hyper.kernels, hypers, strict=True)
                )
            ]
        mean, spread = (jnp.concatenate([pair[i] for pair in pairs]) for i in range(2))
        return mean, spread, jnp.concatenate([noise**2 for _, noise in hypers])

    def mixture(
        self,
        table: Conditioned,
        mask: Bool[Array, " r"],
        x: Float[Array, "q d"],
        used: Float[Array, " D"],
    ) -> Float[Array, "q 2 3 c"]:
        """Log weights, means and log sds of the mixtures that are the laws of y and of f at queries."""
        mean, variance, noise = self._at_nodes(law_at, table, mask, x, used)
        log_weight = jnp.broadcast_to(table.log_weight.reshape(-1, 1), mean.shape)
        laws = [
            jnp.stack([log_weight, mean, 0.5 * jnp.log(v)])
            for v in (variance + noise[:, None], variance)
        ]
        return jnp.moveaxis(jnp.stack(laws), 3, 0)

    def covariance(
        self,
        table: Conditioned,
        mask: Bool[Array, " r"],
        x: Float[Array, "q d"],
        used: Float[Array, " D"],
    ) -> tuple[Float[Array, "q q"], Float[Array, ""]]:
        """The covariance of f between queries under the whole mixture, and the mean noise variance."""
        mean, within, noise = self._at_nodes(joint_at, table, mask, x, used)
        weight = jnp.exp(table.log_weight.reshape(-1))
        centred = mean - weight @ mean
        between = jnp.einsum("c,ci,cj->ij", weight, centred, centred)
        return jnp.einsum("c,cij->ij", weight, within) + between, weight @ noise

    def decode(
        self,
        cache: Conditioned,
        mask: Bool[Array, " r"],
        x: Float[Array, "q d"],
        used: Float[Array, " D"],
        bars: Bars,
    ) -> tuple[Float[Array, "q k"], Float[Array, "q k"]]:
        """Logits of the bars of y and of f at query inputs, given an encoded table."""
        logits = mixture_logits(self.mixture(cache, mask, x, used), bars)
        return logits[:, 0], logits[:, 1]

    def __call__(
        self, x: Array, y: Array, mask: Array, queries: Array, used: Array, bars: Bars
    ) -> tuple[Float[Array, "q k"], Float[Array, "q k"]]:
        """`decode` after `encode`."""
        return self.decode(self.encode(x, y, mask, used), mask, queries, used, bars)


def _in_float64(fn: Any, x: Array) -> Any:
    """`fn`, which takes `x`, in float64. Where `x` is, the program is: an island in it would be of no use,
    and JAX cannot lower its derivatives in a loop over tables."""
    return fn if x.dtype == jnp.float64 else float64_island(fn)
