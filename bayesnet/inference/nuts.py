"""The No-U-Turn sampler (Hoffman & Gelman 2014), blackjax's kernel.

On network posteriors it doubles to its depth limit for most draws and gives several times
fewer effective samples a second than `HMC` (docs/benchmarks.md); it is here as the
familiar reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import blackjax

from bayesnet._types import Array, Key
from bayesnet.inference._hamiltonian import ChainState, HamiltonianChain
from bayesnet.inference._sampling import MetropolisAdjusted
from bayesnet.inference.model import LatentModel


@dataclass(frozen=True)
class NUTS(MetropolisAdjusted):
    """The No-U-Turn sampler in latent coordinates.

    Args:
        chains, warmup, draws, thin, target_acceptance: as for `HMC`.
        max_depth: most doublings of a trajectory (at most 2^max_depth - 1 gradients a draw).
    """

    max_depth: int = 10

    def chain(self) -> HamiltonianChain:
        """The one-chain sampler of these settings."""
        return NUTSChain(self.target_acceptance, self.max_depth)


@dataclass(frozen=True)
class NUTSChain(HamiltonianChain):
    """One chain of `NUTS`; `max_steps` holds the depth."""

    def transition(
        self, model: LatentModel, state: ChainState, key: Key, step_size: Array, path_length: Array
    ) -> tuple[Any, Any]:
        """A trajectory that doubles until it turns; it has no path length to tune."""
        del path_length
        kernel = blackjax.nuts.build_kernel()
        return kernel(
            key, state.hmc, model.log_density, step_size, state.inverse_mass, self.max_steps
        )
