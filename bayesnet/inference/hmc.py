"""Hamiltonian Monte Carlo with a tuned, jittered path length: the default for networks.

Neal 2011 ("MCMC using Hamiltonian dynamics"); the kernel is blackjax's. The number of
leapfrog steps of a draw is `round(u * path_length / step_size)` with u uniform in [0.5, 1.5],
which breaks the periodicity of fixed paths (Neal 2011, section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import blackjax
import jax
import jax.numpy as jnp

from bayesnet._types import Array, Key
from bayesnet.inference._hamiltonian import ChainState, HamiltonianChain
from bayesnet.inference._sampling import MetropolisAdjusted
from bayesnet.inference.model import LatentModel


@dataclass(frozen=True)
class HMC(MetropolisAdjusted):
    """Hamiltonian Monte Carlo in latent coordinates.

    Args:
        chains: independent chains, run beside each other (default 4).
        warmup: steps that tune step size, diagonal mass and path length, then are dropped.
        draws: kept draws a chain.
        thin: steps between two kept draws.
        target_acceptance: mean acceptance rate that the step size is tuned to.
        max_steps: most leapfrog steps of a trajectory. Rarely met but on a table that a network
            explains to a few percent: there the step size falls to 0.002, and trajectories
            cut short turn into a random walk.

    Conditions every `LatentPrior` under every likelihood.
    """

    max_steps: int = 1024

    def chain(self) -> HamiltonianChain:
        """The one-chain sampler of these settings."""
        return HMCChain(self.target_acceptance, self.max_steps)


@dataclass(frozen=True)
class HMCChain(HamiltonianChain):
    """One chain of `HMC`."""

    def transition(
        self, model: LatentModel, state: ChainState, key: Key, step_size: Array, path_length: Array
    ) -> tuple[Any, Any]:
        """A trajectory of jittered length, accepted or refused."""
        key_length, key_move = jax.random.split(key)
        jitter = jax.random.uniform(key_length, (), step_size.dtype, 0.5, 1.5)
        steps = jnp.clip(jnp.round(jitter * path_length / step_size), 1, self.max_steps)
        kernel = blackjax.hmc.build_kernel()
        return kernel(
            key_move,
            state.hmc,
            model.log_density,
            step_size,
            state.inverse_mass,
            steps.astype(jnp.int32),
        )
