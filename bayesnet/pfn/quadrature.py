"""A PFN for Gaussian processes with random hyper-parameters: a learned quadrature over these.

A transformer reads a table and states a few sets of hyper-parameters, the nodes; at each of them
the process is conditioned in closed form, and the predictive law is the mixture over nodes. A
node's weight is its exact evidence times prior density over proposal density, as in importance sampling
(`importance`), times a learned factor; the places of the nodes within the proposal are learned too. All
is trained together on the predictive law (`quadrature_training`), so that 16 nodes do what
hundreds of random draws are needed for. What plain transformers learn worst, interpolation
where there is little noise, is left to linear algebra.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logit, ndtri
from scipy.stats import qmc

from bayesnet._types import Array, Bool, Float, Key
from bayesnet.devices import float64_island
from bayesnet.pfn.bars import Bars
from bayesnet.pfn.family import ProcessFamily
from bayesnet.pfn.hyper_map import HyperMap
from bayesnet.pfn.importance import WIDER
from bayesnet.pfn.node_algebra import (
    at_every,
    climb,
    evidence_of,
    joint_at,
    law_at,
    solved_of,
    totals,
)
from bayesnet.pfn.proposal import COMPONENTS, ProposalNetwork
from bayesnet.pfn.transformer import mixture_logits

# Gates of columns: how soft the choice between effect and none is, and the least of them.
_SOFT, _LEAST = 0.3, 1e-6
_HALF_LOG_2PI = 0.9189385332046727
# Tables of more rows than FEW are answered by KEPT nodes of each kind, moved further up.
FEW, KEPT = 20, 3


class Nodes(eqx.Module):
    """Hyper-parameters of p kinds of processes at n nodes each.

    `log_share` (p, n): log weights without the evidence; `z` (p, n, k): latents in the slots of the
    family; `gates` (p, n, d): how much of an effect each column has; `std` (p, n, k): how far the
    reader is from sure of the latents.
    """

    log_share: Float[Array, "p n"]
    z: Float[Array, "p n k"]
    gates: Float[Array, "p n d"]
    std: Float[Array, "p n k"]


class Conditioned(eqx.Module):
    """What a table leaves behind: nodes with their weights, and the solved covariances.

    `log_weight` (p, n), normalised; `solved` (p, n, r): the inverse covariance of the rows times y;
    `root` (p, n, r, r): the inverse of its Cholesky factor; `x` (r, d): the rows.
    """

    log_weight: Float[Array, "p n"]
    nodes: Nodes
    solved: Float[Array, "p n r"]
    root: Float[Array, "p n r r"]
    x: Float[Array, "r d"]


class QuadratureNetwork(eqx.Module):
    """`reader` proposes a law of the hyper-parameters; nodes are fixed places in it, learned.

    Fields: `places` (p, n, k), in standard deviations of the components; `leans` (p, n, d), added to
    the log odds that a column has an effect; `factors` (p, n), logs, on top of importance weights.
    """

    reader: ProposalNetwork
    hyper: HyperMap
    places: Float[Array, "p n k"]
    leans: Float[Array, "p n d"]
    factors: Float[Array, "p n"]
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
        reader: ProposalNetwork | None = None,
    ) -> QuadratureNetwork:
        """`nodes` for each of the reader's components and each kind of process, evenly spread.

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
        each = COMPONENTS * nodes
        sobol = qmc.Sobol(slots + d, seed=0).random(1 << (kinds * each - 1).bit_length())
        points = np.clip(sobol[: kinds * each], 1e-3, 1 - 1e-3).reshape(kinds, each, slots + d)
        return QuadratureNetwork(
            reader,
            HyperMap.of(family),
            jnp.asarray(ndtri(points[..., :slots]), jnp.float32),
            jnp.asarray(logit(points[..., slots:]), jnp.float32),
            jnp.zeros((kinds, each)),
            tuple(float(w) for w in family.weights),
            float(family.unused),
        )

    @property
    def max_dim(self) -> int:
        """The largest number of columns."""
        return self.reader.max_dim

    def nodes(
        self,
        x: Float[Array, "r d"],
        y: Float[Array, " r"],
        mask: Bool[Array, " r"],
        used: Float[Array, " d"],
    ) -> Nodes:
        """The nodes for a table; arguments as of `Transformer.encode`."""
        law = self.reader(x, y, mask, used)
        d = used.sum().astype(int)
        # Laws of the prior are not learned.
        hyper = jax.lax.stop_gradient(self.hyper)
        kinds, each, _ = self.places.shape
        component = np.arange(each) % COMPONENTS
        std = WIDER * jnp.exp(law.log_std)
        z = law.mean[component] + std[component] * self.places
        gates = jnp.ones((kinds, each, len(used)))
        if self.unused > 0:
            gates = jax.nn.sigmoid((law.relevance + self.leans) / _SOFT)
            # The only column of a table has an effect.
            gates = jnp.where(d > 1, jnp.maximum(gates, _LEAST), 1.0)
        log_shares = []
        for kind in range(kinds):
            counts = hyper.counts(kind, d, gates[kind])
            prior = jnp.sum(counts * (-0.5 * z[kind] ** 2 - _HALF_LOG_2PI), axis=-1)
            e = (z[kind][:, None] - law.mean) / std
            normal = -0.5 * e**2 - jnp.log(std) - _HALF_LOG_2PI
            each_component = jnp.sum(counts[:, None] * normal, axis=-1)
            proposal = jax.nn.logsumexp(
                law.log_weight + law.log_part[:, kind] + each_component, axis=-1
            )
            log_shares.append(np.log(self.shares[kind]) + prior - proposal)
        log_share = jnp.stack(log_shares) + self.factors
        if self.unused > 0:
            on = np.log1p(-self.unused) - jax.nn.log_sigmoid(law.relevance)
            off = np.log(self.unused) - jax.nn.log_sigmoid(-law.relevance)
            ratio = jnp.sum(used * (gates * on + (1 - gates) * off), axis=-1)
            log_share = log_share + jnp.where(d > 1, ratio, 0.0)
        return Nodes(log_share, z, gates, jnp.broadcast_to(std[component], z.shape))

    def condition(
        self,
        nodes: Nodes,
        x: Float[Array, "r d"],
        y: Float[Array, " r"],
        mask: Bool[Array, " r"],
        used: Float[Array, " d"],
    ) -> Conditioned:
        """The processes at the nodes, conditioned on a table; in float64 inside.

        `x` here and in `mixture` may be without the columns of padding.
        """
        x = x * used[: x.shape[1]]
        evidence, solved, root = self._at_nodes(solved_of, nodes, x, y, mask, used)
        log_weight = nodes.log_share + evidence
        log_weight = log_weight - jax.nn.logsumexp(log_weight)
        return Conditioned(log_weight, nodes, solved, root, x)

    def refined(
        self,
        nodes: Nodes,
        x: Float[Array, "r d"],
        y: Float[Array, " r"],
        mask: Bool[Array, " r"],
        used: Float[Array, " d"],
    ) -> Nodes:
        """For tables of more than `FEW` rows, fewer nodes, each a little further up the posterior.

        Kept are the `KEPT` of each kind with the largest weights: with many rows the others have next to
        none. They take steps (`node_algebra.climb`) along the gradient of log evidence and log prior, of the proposal's
        own size and at most one of its sds, where that is larger afterwards. Such steps contract
        a proposal that was right without changing its shape, so that weights stay; one that was off
        is moved to where the evidence is. With few rows, where it is spread that counts, nothing is
        changed. The choice and the steps are constants to derivatives, and have no part in training:
        gradients that pass them by make the proposal worse.
        """
        if len(x) <= FEW:
            return nodes
        fixed, (rows, targets) = jax.lax.stop_gradient((nodes, (x * used[: x.shape[1]], y)))
        if nodes.log_share.shape[1] > KEPT:
            (evidence,) = self._at_nodes(evidence_of, fixed, rows, targets, mask, used)
            index = jax.lax.top_k(fixed.log_share + evidence, KEPT)[1]
            nodes, fixed = jax.tree.map(
                lambda a: jnp.take_along_axis(
                    a, index.reshape(index.shape + (1,) * (a.ndim - 2)), axis=1
                ),
                (nodes, fixed),
            )
        d = used.sum().astype(int)
        hyper = jax.lax.stop_gradient(self.hyper)
        counts = jnp.stack([hyper.counts(k, d, g) for k, g in enumerate(fixed.gates)])
        found = float64_island(climb)(
            hyper, fixed.z, fixed.std, fixed.gates, counts, rows, targets, mask, d
        )
        # Padded tables may have fewer rows than that.
        found = jnp.where(mask.sum() > FEW, found, fixed.z)
        gain = -0.5 * jnp.sum(counts * (found**2 - fixed.z**2), axis=-1)
        z = nodes.z + (found - fixed.z)
        return Nodes(nodes.log_share + gain, z, nodes.gates, nodes.std)

    def mixture(
        self,
        table: Conditioned,
        mask: Bool[Array, " r"],
        x: Float[Array, "q d"],
        used: Float[Array, " d"],
    ) -> Float[Array, "q 2 3 c"]:
        """Log weights, means and log sds of the mixtures that are the laws of y and of f at queries."""
        columns = x.shape[1]
        x = x * used[:columns]
        means, variances, noises = [], [], []
        for kind, kernel in enumerate(self.hyper.kernels):
            at = jax.vmap(law_at(kernel), in_axes=(0, 0, 0, None, None, None))
            hyper, noise = self._hyper(kind, table.nodes, used, columns)
            mean, variance = at(hyper, table.solved[kind], table.root[kind], table.x, mask, x)
            means.append(mean)
            variances.append(variance)
            noises.append(jnp.broadcast_to(noise[:, None] ** 2, mean.shape))
        mean, variance, noise = (jnp.concatenate(a) for a in (means, variances, noises))
        log_weight = jnp.broadcast_to(table.log_weight.reshape(-1, 1), mean.shape)
        laws = [
            jnp.stack([log_weight, mean, 0.5 * jnp.log(v)]) for v in (variance + noise, variance)
        ]
        return jnp.moveaxis(jnp.stack(laws), 3, 0)

    def covariance(
        self,
        table: Conditioned,
        mask: Bool[Array, " r"],
        x: Float[Array, "q d"],
        used: Float[Array, " d"],
    ) -> tuple[Float[Array, "q q"], Float[Array, ""]]:
        """The covariance of f between queries under the whole mixture, and the mean noise variance."""
        columns = x.shape[1]
        x = x * used[:columns]
        within, means, noises = [], [], []
        for kind, kernel in enumerate(self.hyper.kernels):
            at = jax.vmap(joint_at(kernel), in_axes=(0, 0, 0, None, None, None))
            hyper, noise = self._hyper(kind, table.nodes, used, columns)
            mean, matrices = at(hyper, table.solved[kind], table.root[kind], table.x, mask, x)
            means.append(mean)
            within.append(matrices)
            noises.append(noise**2)
        weight = jnp.exp(table.log_weight.reshape(-1))
        mean = jnp.concatenate(means)
        centred = mean - weight @ mean
        between = jnp.einsum("c,ci,cj->ij", weight, centred, centred)
        inside = jnp.einsum("c,cij->ij", weight, jnp.concatenate(within))
        return inside + between, weight @ jnp.concatenate(noises)

    def encode(self, x: Array, y: Array, mask: Array, used: Array) -> Conditioned:
        """What is kept of a table; arguments as of `Transformer.encode`."""
        nodes = self.refined(self.nodes(x, y, mask, used), x, y, mask, used)
        return self.condition(nodes, x, y, mask, used)

    def decode(
        self,
        cache: Conditioned,
        mask: Bool[Array, " r"],
        x: Float[Array, "q d"],
        used: Float[Array, " d"],
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

    def _at_nodes(
        self, solve: Any, nodes: Nodes, x: Array, y: Array, mask: Array, used: Array
    ) -> tuple[Array, ...]:
        """What `solve` makes of the covariance of a table at every node, (p, n, ...), by float64."""
        kinds = range(len(self.hyper.kernels))
        hyper = [self._hyper(kind, nodes, used, x.shape[1]) for kind in kinds]
        kernels = self.hyper.kernels

        def at_all(hyper: Any, x: Array, y: Array, mask: Array) -> Any:
            return at_every(solve, totals(kernels, hyper, x, mask), y, mask)

        found: tuple[Array, ...] = float64_island(at_all)(hyper, x, y, mask)
        return found

    def _hyper(self, kind: int, nodes: Nodes, used: Array, columns: int) -> tuple[Any, Array]:
        d = used.sum().astype(int)
        fixed = jax.lax.stop_gradient(self.hyper)
        return jax.vmap(lambda z, g: fixed.hyper(kind, d, z, g, columns))(
            nodes.z[kind], nodes.gates[kind]
        )
