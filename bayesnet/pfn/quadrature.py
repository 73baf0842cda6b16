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
from bayesnet.pfn.proposal import COMPONENTS, ProposalNetwork
from bayesnet.pfn.transformer import mixture_logits
from bayesnet.priors.covariance import Named

# Gates of columns: how soft the choice between effect and none is, and the least of them.
_SOFT, _LEAST = 0.3, 1e-6
# Added to the variance of the noise, relative to that of the function, as in the training tasks.
_JITTER = 1e-7
# The least variance of the function at a query, relative to its prior variance: float32 tells no less.
_LEAST_VARIANCE = 1e-6
_HALF_LOG_2PI = 0.9189385332046727
# Tables of more rows than FEW are answered by KEPT nodes of each kind. Every node takes CLIMBS
# steps, of the better of two SIZES.
FEW, KEPT, CLIMBS, SIZES = 20, 3, 2, (1.0, 0.3)
# Rows of a block of the factorisation.
BLOCK = 20


def _matern52(square: Array) -> Array:
    r = jnp.sqrt(5 * square)
    return (1 + r + r**2 / 3) * jnp.exp(-r)


# Stationary kernels as functions of the squared distance in lengthscales.
RADIAL = {"rbf": lambda square: jnp.exp(-0.5 * square), "matern52": _matern52}


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
        evidence, solved, root = self._each_kind(_solver, nodes, x, y, mask, used)
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
        none. They take `CLIMBS` steps along the gradient of log evidence and log prior, of the proposal's
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
            (evidence,) = self._each_kind(_evidence, fixed, rows, targets, mask, used)
            index = jax.lax.top_k(fixed.log_share + evidence, KEPT)[1]
            nodes, fixed = jax.tree.map(
                lambda a: jnp.take_along_axis(
                    a, index.reshape(index.shape + (1,) * (a.ndim - 2)), axis=1
                ),
                (nodes, fixed),
            )
        d = used.sum().astype(int)
        z, log_share = [], []
        for kind, kernel in enumerate(self.hyper.kernels):
            counts = self.hyper.counts(kind, d, fixed.gates[kind])
            climb = float64_island(
                jax.vmap(_climb(kernel, kind), in_axes=(None, 0, 0, 0, 0, None, None, None, None))
            )
            found = climb(
                jax.lax.stop_gradient(self.hyper),
                fixed.z[kind],
                fixed.std[kind],
                fixed.gates[kind],
                counts,
                rows,
                targets,
                mask,
                d,
            )
            # Padded tables may have fewer rows than that.
            found = jnp.where(mask.sum() > FEW, found, fixed.z[kind])
            gain = -0.5 * jnp.sum(counts * (found**2 - fixed.z[kind] ** 2), axis=-1)
            z.append(nodes.z[kind] + (found - fixed.z[kind]))
            log_share.append(nodes.log_share[kind] + gain)
        return Nodes(jnp.stack(log_share), jnp.stack(z), nodes.gates, nodes.std)

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
            at = jax.vmap(_law_at(kernel), in_axes=(0, 0, 0, None, None, None))
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

    def _each_kind(
        self, solver: Any, nodes: Nodes, x: Array, y: Array, mask: Array, used: Array
    ) -> tuple[Array, ...]:
        """What `solver(kernel)` makes of a table at every node, (p, n, ...) each, by float64."""
        found = []
        for kind, kernel in enumerate(self.hyper.kernels):
            solve = float64_island(jax.vmap(solver(kernel), in_axes=(0, 0, None, None, None)))
            found.append(solve(*self._hyper(kind, nodes, used, x.shape[1]), x, y, mask))
        return tuple(jnp.stack(a) for a in zip(*found, strict=True))

    def _hyper(self, kind: int, nodes: Nodes, used: Array, columns: int) -> tuple[Any, Array]:
        d = used.sum().astype(int)
        fixed = jax.lax.stop_gradient(self.hyper)
        return jax.vmap(lambda z, g: fixed.hyper(kind, d, z, g, columns))(
            nodes.z[kind], nodes.gates[kind]
        )


def matrix(
    kernel: Any, hyper: Any, x1: Float[Array, "n d"], x2: Float[Array, "k d"]
) -> Float[Array, "n k"]:
    """The covariance; of stationary kernels in float64 by |a|^2 + |b|^2 - 2ab.

    That has gradients six times faster than differences of all pairs; in float32 it loses digits.
    """
    named = isinstance(kernel, Named) and kernel.name in RADIAL and kernel.columns is None
    if not named or x1.dtype != jnp.float64:
        found: Array = kernel.matrix(hyper, x1, x2)
        return found
    a, b = x1 / hyper["lengthscale"], x2 / hyper["lengthscale"]
    square = jnp.sum(a**2, axis=1)[:, None] + jnp.sum(b**2, axis=1) - 2 * a @ b.T
    return hyper["outputscale"] * RADIAL[kernel.name](jnp.maximum(square, 1e-30))


@jax.custom_vjp
def inverse_root(gram: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """R = L^-1 with L L' = gram, lower triangular; NaN where gram is not positive definite.

    By blocks of rows, and in these row by row, in products of matrices alone: LAPACK beside other
    work of a program can dead-lock XLA on CPU (seen here with two threads), and gains next to
    nothing on matrices as small as these. With R of the rows before, the next block of L is
    K_21 R', that of R is R_22 [-L_21 R, I], R_22 that of K_22 - L_21 L_21'.
    """
    n = len(gram)
    root = _by_rows(gram[:BLOCK, :BLOCK])
    for start in range(BLOCK, n, BLOCK):
        end = min(start + BLOCK, n)
        below = gram[start:end, :start] @ root.T
        own = _by_rows(gram[start:end, start:end] - below @ below.T)
        top = jnp.concatenate([root, jnp.zeros((start, end - start), gram.dtype)], axis=1)
        root = jnp.concatenate([top, jnp.concatenate([-own @ (below @ root), own], axis=1)])
    return root


def _by_rows(gram: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """`inverse_root` of a small matrix."""

    def step(root: Array, own: Array) -> tuple[Array, None]:
        # `own` marks the row: no index, whose integer type would depend on the scope.
        row = own @ gram
        below = root @ row  # 0 from the row on
        scale = jax.lax.rsqrt(row @ own - below @ below)
        return root + own[:, None] * (scale * (own - below @ root)), None

    found: Array = jax.lax.scan(step, jnp.zeros_like(gram), jnp.eye(len(gram), dtype=gram.dtype))[0]
    return found


def _inverse_root_forward(gram: Array) -> tuple[Array, Array]:
    root = inverse_root(gram)
    return root, root


def _inverse_root_backward(root: Array, by: Array) -> tuple[Array]:
    # dR = -low(R dK R') R, low() being the lower half with half of the diagonal (Murray 2016, 3.1).
    inner = jnp.tril(by @ root.T)
    inner = inner - 0.5 * jnp.diag(jnp.diagonal(inner))
    slope = -root.T @ inner @ root
    return (0.5 * (slope + slope.T),)


inverse_root.defvjp(_inverse_root_forward, _inverse_root_backward)


def _total(kernel: Any, hyper: Any, noise: Array, x: Array, mask: Array) -> Array:
    """The covariance of observations at rows; padded ones are independent, of unit variance."""
    gram = matrix(kernel, hyper, x, x) * (mask[:, None] & mask)
    variance = jnp.diagonal(gram).max()
    ridge = noise**2 + _JITTER * jnp.where(variance > 0, variance, 1.0)
    return gram + jnp.diag(jnp.where(mask, ridge, 1.0))


def _evidence(kernel: Any) -> Any:
    """Log evidence of a table at one node, up to a constant."""

    def evidence(hyper: Any, noise: Array, x: Array, y: Array, mask: Array) -> tuple[Array]:
        root = inverse_root(_total(kernel, hyper, noise, x, mask))
        e = root @ jnp.where(mask, y, 0.0)
        return (-0.5 * e @ e + jnp.sum(jnp.log(jnp.diagonal(root))),)

    return evidence


def _climb(kernel: Any, kind: int) -> Any:
    """The latents of a node after steps up the log posterior density; see `QuadratureNetwork.refined`."""

    def climb(
        hyper: HyperMap,
        z: Array,
        std: Array,
        gates: Array,
        counts: Array,
        x: Array,
        y: Array,
        mask: Array,
        d: Array,
    ) -> Array:
        def density(z: Array) -> Array:
            values, noise = hyper.hyper(kind, d, z, gates, x.shape[1])
            (evidence,) = _evidence(kernel)(values, noise, x, y, mask)
            return evidence - 0.5 * jnp.sum(counts * z**2)

        def step(z: Array, _: None) -> tuple[Array, None]:
            value, slope = jax.value_and_grad(density)(z)
            slope = jnp.where(jnp.isfinite(slope), slope, 0.0)
            best = z
            for size in SIZES:
                tried = z + jnp.clip(size * std**2 * slope, -std, std)
                found = density(tried)
                # False where a covariance is not positive definite. No argmax: outside of the scope
                # `vmap` would make it float32.
                better = found > value
                best, value = jnp.where(better, tried, best), jnp.where(better, found, value)
            return best, None

        return jax.lax.scan(step, z, length=CLIMBS)[0]

    return climb


def _solver(kernel: Any) -> Any:
    """Log evidence up to a constant, K^-1 y and L^-1 of a table at one node (K = L L')."""

    def solve(hyper: Any, noise: Array, x: Array, y: Array, mask: Array) -> Any:
        root = inverse_root(_total(kernel, hyper, noise, x, mask))
        e = root @ jnp.where(mask, y, 0.0)
        evidence = -0.5 * e @ e + jnp.sum(jnp.log(jnp.diagonal(root)))
        return evidence, root.T @ e, root

    return solve


def joint_at(kernel: Any) -> Any:
    """Mean and covariance of the function between queries, at one node."""

    def joint(hyper: Any, solved: Array, root: Array, rows: Array, mask: Array, x: Array) -> Any:
        cross = matrix(kernel, hyper, rows, x) * mask[:, None]
        half = root @ cross
        return solved @ cross, matrix(kernel, hyper, x, x) - half.T @ half

    return joint


def _law_at(kernel: Any) -> Any:
    """Mean and variance of the function at queries (q,), at one node."""

    def law(hyper: Any, solved: Array, root: Array, rows: Array, mask: Array, x: Array) -> Any:
        cross = matrix(kernel, hyper, rows, x) * mask[:, None]
        prior = jax.vmap(lambda q: kernel.matrix(hyper, q[None], q[None])[0, 0])(x)
        explained = jnp.sum((root @ cross) ** 2, axis=0)
        return solved @ cross, jnp.maximum(prior - explained, _LEAST_VARIANCE * prior)

    return law
