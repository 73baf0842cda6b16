"""Training a quadrature: nodes and weights together, on the predictive law that they make.

A step is three programs: the nodes of all tables; the loss and its gradient in the nodes and in what
moves them, which is linear algebra in float64; the gradient carried on into the network, in float32.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._types import Array, Float
from bayesnet.pfn.bars import Bars
from bayesnet.pfn.checkpoint import signature
from bayesnet.pfn.family import ProcessFamily
from bayesnet.pfn.nodes import Nodes
from bayesnet.pfn.precision import cast
from bayesnet.pfn.proposal import ProposalNetwork
from bayesnet.pfn.quadrature import QuadratureNetwork
from bayesnet.pfn.settings import State, Training
from bayesnet.pfn.tasks import Batch, Tasks
from bayesnet.pfn.train import (
    WEIGHT_F,
    draw_batch,
    evaluate,
    held_out,
    targets_of_prior,
)

# Nodes of the integrals over targets, and the sds to which functions and observations are told apart.
POINTS, FINEST, FINEST_Y = 10, 0.01, 0.003


@dataclass(frozen=True, eq=False)
class QuadratureObjective:
    """A `QuadratureNetwork` whose mixtures follow the prior's own law of y and of f.

    `nodes`: of each component and kind of process; `reader`: where training starts, if not at random;
    or `base`, a whole network, of which `learn` is trained: "all"; "levels", of every level the places
    and the steps; "last", the last level with its reader. `least`: the fewest rows of a table.
    `wide`: other tasks for a `share` of the steps, standardised as users' tables are: those are often
    smoother and have less noise than most of the prior, and nodes must find the way there.
    """

    tasks: Tasks
    family: ProcessFamily
    training: Training
    nodes: int = 2
    reader: ProposalNetwork | None = None
    base: QuadratureNetwork | None = None
    learn: str = "all"
    least: int = 0
    wide: Tasks | None = None
    share: float = 0.0
    losses = ("recent_y", "recent_f")

    def identity(self) -> str:
        """What a checkpoint must agree with."""
        wide = None if self.wide is None else [signature(self.wide, self.training), self.share]
        knobs = [self.nodes, self.learn, self.least, wide]
        return json.dumps(["quadrature", *knobs, signature(self.tasks, self.training)])

    def start(self) -> State:
        """The network as it is given, or random; bars placed by targets of the prior."""
        t, network = self.training, self._network()
        bars = Bars.from_values(targets_of_prior(self.tasks, t), t.bars)
        return State(network, t.optimiser().init(self.learned(network)), bars)

    def _network(self) -> QuadratureNetwork:
        t = self.training
        if self.base is not None:
            return self.base
        return QuadratureNetwork.create(
            jax.random.key(t.seed),
            self.family,
            width=t.width,
            depth=t.depth,
            heads=t.heads,
            hidden=t.hidden,
            nodes=self.nodes,
            max_rows=t.buckets[-1],
            reader=self.reader,
        )

    def learned(self, network: QuadratureNetwork) -> QuadratureNetwork:
        """`network` without what training leaves as it is."""
        if self.learn == "all":
            return eqx.filter(network, eqx.is_inexact_array)

        def of(n: QuadratureNetwork) -> Any:
            return n.levels if self.learn == "levels" else (n.readers[-1], n.levels[-1])

        chosen = jax.tree.map(eqx.is_inexact_array, of(network))
        none = jax.tree.map(lambda _: False, network)
        return eqx.filter(network, eqx.tree_at(of, none, chosen))

    def step(self, state: State, number: int) -> tuple[State, np.ndarray]:
        """One step of Adam on a batch of tasks."""
        batch = self._batch(number)
        network: Any = state.network
        nodes = jax.block_until_ready(_nodes(network, batch))
        parts, *by = _by_nodes(network, nodes, batch)
        learned = self.learned(network)
        network, optimiser = _update(self.training, network, learned, state.optimiser, batch, *by)
        return State(network, optimiser, state.bars), np.asarray(parts)

    def _batch(self, number: int) -> Batch:
        rng = np.random.default_rng([self.training.seed, 5, number])
        if self.wide is not None and rng.random() < self.share:
            batch = draw_batch(self.wide, self.training, number, self.least)
            return batch.standardised()
        return draw_batch(self.tasks, self.training, number, self.least)

    @cached_property
    def _batches(self) -> dict[int, Batch]:
        return held_out(self.tasks, self.training, self.least)

    def evaluate(self, state: State) -> dict[str, Any]:
        """The excess over the prior's own law of y given its hyper-parameters, by columns."""
        return {"excess": evaluate(state.network, state.bars, self._batches)}


def _of_tables(network: QuadratureNetwork, batch: Batch) -> Nodes:
    tables = jax.vmap(network.nodes, in_axes=(0, 0, 0, None))
    found: Nodes = tables(batch.x, batch.y, batch.mask, batch.used)
    return found


@eqx.filter_jit
def _nodes(network: QuadratureNetwork, batch: Batch) -> Nodes:
    return _of_tables(network, batch)


def _by_nodes(network: QuadratureNetwork, nodes: Nodes, batch: Batch) -> tuple[Array, Nodes, Any]:
    """The losses of y and of f, and the gradient of what is minimised in the nodes and in the steppers; in
    float64."""
    with jax.enable_x64(True):
        wide = cast((network, nodes, batch), jnp.float64)
        return jax.block_until_ready(_loss_gradient(*wide))  # type: ignore[no-any-return]


@eqx.filter_jit
def _loss_gradient(
    network: QuadratureNetwork, nodes: Nodes, batch: Batch
) -> tuple[Array, Nodes, Any]:
    def loss(free: tuple[Nodes, Any]) -> tuple[Array, Array]:
        nodes, steppers = free
        moving = eqx.tree_at(_steppers, network, steppers)

        def law(nodes: Nodes, x: Array, y: Array, mask: Array, queries: Array) -> Array:
            moved = moving.moved(nodes, x, y, mask, batch.used)
            table = network.condition(moved, x, y, mask, batch.used)
            return network.mixture(table, mask, queries, batch.used)

        laws = jax.vmap(law)(nodes, batch.x, batch.y, batch.mask, batch.queries)
        y = divergence(batch.f_mean, batch.y_std, laws[:, :, 0], FINEST_Y).mean()
        f = divergence(batch.f_mean, batch.f_std, laws[:, :, 1], FINEST).mean()
        return y + WEIGHT_F * f, jnp.stack([y, f])

    (_, parts), gradient = jax.value_and_grad(loss, has_aux=True)((nodes, _steppers(network)))
    return jax.tree.map(lambda a: a.astype(jnp.float32), (parts, *gradient))  # type: ignore[no-any-return]


def divergence(
    mean: Float[Array, "b q"],
    std: Float[Array, "b q"],
    law: Float[Array, "b q 3 c"],
    blur: float = 0.0,
) -> Float[Array, "b q"]:
    """KL from N(mean, std^2) to mixtures of Gaussians by Gauss-Hermite quadrature, in nats.

    `law`: log weights, means, log sds; with `blur` noise of that sd is added on both sides, so that
    a function that is known exactly does not make it infinite.
    """
    log_weight, means, log_std = (law[:, :, i] for i in range(3))
    variance = std**2 + blur**2
    t, w = (jnp.asarray(a, mean.dtype) for a in np.polynomial.hermite_e.hermegauss(POINTS))
    at = mean[..., None] + jnp.sqrt(variance)[..., None] * t
    variances = jnp.exp(2 * log_std) + blur**2
    e2 = (at[..., None] - means[:, :, None]) ** 2 / variances[:, :, None]
    each = log_weight[:, :, None] - 0.5 * (e2 + jnp.log(variances)[:, :, None])
    cross = jnp.sum(w / w.sum() * jax.nn.logsumexp(each, axis=-1), axis=-1)
    return -0.5 - 0.5 * jnp.log(variance) - cross


def _steppers(network: QuadratureNetwork) -> list[Any]:
    return [level.steppers for level in network.levels]


@eqx.filter_jit
def _update(
    training: Training,
    network: QuadratureNetwork,
    learned: QuadratureNetwork,
    optimiser: Any,
    batch: Batch,
    by: Nodes,
    by_steppers: list[Any],
) -> tuple[QuadratureNetwork, Any]:
    _, pull = jax.vjp(lambda n: _of_tables(eqx.combine(n, network), batch), learned)
    (gradient,) = pull(by)
    # Steps are not learned through nodes; None marks those that are not learned at all.
    own = jax.tree.map(
        lambda a, by: None if a is None else by, _steppers(gradient), by_steppers, is_leaf=_is_none
    )
    both = eqx.tree_at(_steppers, gradient, own, is_leaf=_is_none)
    # Once in thousands of steps a table has a loss but no second derivatives: such a step is left out.
    finite = jnp.stack([jnp.isfinite(a).all() for a in jax.tree.leaves(both)]).all()
    both = jax.tree.map(lambda a: jnp.where(finite, a, 0.0), both)
    updates, optimiser = training.optimiser().update(both, optimiser)
    return eqx.apply_updates(network, updates), optimiser


def _is_none(a: Any) -> bool:
    return a is None
