"""A narrow proposal network that says what a wide one says (Hinton et al. 2015), and reads faster.

A table has a whole law as its target, the teacher's, not just the hyper-parameters that made it: fewer
tables do than the teacher took.
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

from bayesnet._types import Array, Bool, Float, Key
from bayesnet.pfn.descent import descend
from bayesnet.pfn.proposal import Examples, ProposalNetwork, ProposedLaw
from bayesnet.pfn.proposal_training import ProposalObjective, ProposalState

# Draws of the teacher's law of each table.
DRAWS = 8


@dataclass(frozen=True, eq=False)
class DistilledObjective(ProposalObjective):
    """The cross-entropy of a `ProposalNetwork`'s law under that of `teacher`, for the same tables."""

    teacher: Any = None

    def identity(self) -> str:
        """What a checkpoint must agree with."""
        return json.dumps(["distilled", super().identity()])

    def step(self, state: ProposalState, number: int) -> tuple[ProposalState, np.ndarray]:
        """One step of Adam."""
        examples = self.examples(number)
        d = int(examples.used.sum())
        key = jax.random.fold_in(jax.random.key(self.training.seed + 99), number)
        laws = _laws(self.teacher, examples, d)
        network, optimiser, parts = _update(
            self.training, state.network, state.optimiser, examples, laws, self._slots[d], key, d
        )
        return ProposalState(network, optimiser), np.asarray(parts)

    @cached_property
    def _slots(self) -> dict[int, Bool[Array, "p k"]]:
        """By number of columns, the slots that each kind of process uses."""
        family = self.family
        kinds = range(family.num_parts)
        return {
            d: jnp.asarray(np.stack([family.slots(part, d) for part in kinds]))
            for d in self.training.dims
        }


@eqx.filter_jit
def _laws(teacher: ProposalNetwork, examples: Examples, columns: int) -> ProposedLaw:
    network, used = teacher.narrowed(columns), examples.used[:columns]
    laws = jax.vmap(lambda x, y, mask: network(x, y, mask, used))
    found: ProposedLaw = laws(examples.x[:, :, :columns], examples.y, examples.mask)
    return found


@eqx.filter_jit
def _update(
    training: Any,
    network: ProposalNetwork,
    optimiser: Any,
    examples: Examples,
    laws: ProposedLaw,
    slots: Array,
    key: Key,
    columns: int,
) -> tuple[ProposalNetwork, Any, Array]:
    def loss(network: ProposalNetwork) -> tuple[Array, Array]:
        own = _laws(network, examples, columns)
        keys = jax.random.split(key, len(examples.x))
        hyper, relevant = jax.vmap(cross_entropy, in_axes=(0, 0, None, None, 0))(
            laws, own, slots, examples.used, keys
        )
        both = jnp.stack([hyper.mean(), relevant.mean()])
        return both.sum(), both

    return descend(training, loss, network, optimiser)


def cross_entropy(
    law: ProposedLaw,
    own: ProposedLaw,
    slots: Bool[Array, "p k"],
    used: Float[Array, " d"],
    key: Key,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Minus the mean log density of `own` under `law`: of the latents that count and the kind of
    process, by draws; of the columns with an effect, in closed form."""
    k_component, k_part, k_z = jax.random.split(key, 3)
    component = jax.random.categorical(k_component, law.log_weight, shape=(DRAWS,))
    part = jax.random.categorical(k_part, law.log_part[component])
    e = jax.random.normal(k_z, (DRAWS, law.mean.shape[-1]))
    z = law.mean[component] + jnp.exp(law.log_std[component]) * e
    hyper = -jax.vmap(own.log_prob)(z, part, slots[part]).mean()
    on = jax.nn.sigmoid(law.relevance)
    each = on * jax.nn.log_sigmoid(own.relevance) + (1 - on) * jax.nn.log_sigmoid(-own.relevance)
    return hyper, -jnp.sum(used * each)
