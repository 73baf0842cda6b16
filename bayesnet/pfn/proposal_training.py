"""Training a proposal: maximum likelihood of the hyper-parameters that made each table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._types import Array
from bayesnet.pfn.descent import descend
from bayesnet.pfn.family import ProcessFamily
from bayesnet.pfn.proposal import Examples, ProposalNetwork, losses
from bayesnet.pfn.settings import Training
from bayesnet.pfn.sharding import shared_out
from bayesnet.pfn.tasks import Tasks, described
from bayesnet.pfn.transformer import pad_columns

# Tables of one evaluation, for each number of columns.
_EVALUATED = 256


class ProposalState(eqx.Module):
    """What a checkpoint of a proposal holds."""

    network: ProposalNetwork
    optimiser: Any


@dataclass(frozen=True, eq=False)
class ProposalObjective:
    """A `ProposalNetwork` by neural posterior estimation: the expected log density that it gives to
    the true hyper-parameters is largest when it is their posterior (Papamakarios & Murray 2016).

    `least`: the fewest rows of a table."""

    tasks: Tasks
    family: ProcessFamily
    training: Training
    least: int = 1
    losses = ("recent_hyper", "recent_columns")

    def identity(self) -> str:
        """What a checkpoint must agree with."""
        return json.dumps(
            ["proposal", self.training.identity(), repr(self.family), described(self.tasks.inputs)]
        )

    def start(self) -> ProposalState:
        """Random weights."""
        t = self.training
        network = ProposalNetwork.create(
            jax.random.key(t.seed),
            slots=self.family.size,
            parts=self.family.num_parts,
            max_dim=t.max_dim,
            width=t.width,
            depth=t.depth,
            heads=t.heads,
            hidden=t.hidden,
        )
        return ProposalState(network, t.optimiser().init(eqx.filter(network, eqx.is_array)))

    def step(self, state: ProposalState, number: int) -> tuple[ProposalState, np.ndarray]:
        """One step of Adam."""
        examples = self.examples(number)
        examples = shared_out(examples, self.training.batch, self.training.devices)
        network, optimiser, parts = _update(self.training, state.network, state.optimiser, examples)
        return ProposalState(network, optimiser), np.asarray(parts)

    def evaluate(self, state: ProposalState) -> dict[str, Any]:
        """The mean loss over tables that no step draws, by number of columns."""
        found = {}
        for d, examples in self._held_out.items():
            hyper, columns = _evaluate(state.network, examples)
            found[str(d)] = round(float(hyper.mean() + columns.mean()), 4)
        return {"held_out": found}

    def examples(self, number: int) -> Examples:
        """The tables of a step: always the same for the same seed and step."""
        t = self.training
        rng = np.random.default_rng([t.seed, 3, number])
        d, part, counts, rows = t.draw_sizes(rng, self.tasks.weights, least=self.least)
        key = jax.random.fold_in(jax.random.key(t.seed + 77), number)
        return self._draw(key, counts, d, part, rows)

    def _draw(self, key: Any, counts: np.ndarray, d: int, part: int, rows: int) -> Examples:
        batch = self.tasks.draw(key, len(counts), counts, d, part).rows(rows)
        z = self.family.latents(part, d, batch.hyper, np.asarray(batch.noise))
        relevant, _ = pad_columns(np.asarray(batch.relevant), self.training.max_dim)
        column = self.family.column_of_slot()
        # The lengthscale of a column without effect leaves no trace.
        counted = self.family.slots(part, d) & ((column < 0) | relevant[:, column])
        x, used = pad_columns(np.asarray(batch.x), self.training.max_dim)
        return Examples(
            jnp.asarray(x),
            batch.y,
            batch.mask,
            jnp.asarray(used),
            jnp.asarray(z, jnp.float32),
            jnp.asarray(counted),
            jnp.asarray(part),
            jnp.asarray(relevant),
        )

    @cached_property
    def _held_out(self) -> dict[int, Examples]:
        found = {}
        for i, d in enumerate(self.training.dims):
            counts = np.linspace(self.least, self.training.buckets[-1], _EVALUATED).astype(int)
            key = jax.random.fold_in(jax.random.key(self.training.seed + 2_000_003), i)
            part = i % self.family.num_parts
            found[d] = self._draw(key, counts, d, part, self.training.buckets[-1])
        return found


@eqx.filter_jit(donate="all-except-first")
def _update(
    training: Training, network: ProposalNetwork, optimiser: Any, examples: Examples
) -> tuple[ProposalNetwork, Any, Array]:
    def loss(network: ProposalNetwork) -> tuple[Array, Array]:
        hyper, columns = losses(network, examples)
        both = jnp.stack([hyper.mean(), columns.mean()])
        return both.sum(), both

    return descend(training, loss, network, optimiser)


@eqx.filter_jit
def _evaluate(network: ProposalNetwork, examples: Examples) -> tuple[Array, Array]:
    return losses(network, examples)
