"""What HMC and NUTS share: the state of a chain, its warm-up, and its draws."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._types import Array, Key, PyTree
from bayesnet.inference import _adaptation as adaptation
from bayesnet.inference._path_length import FIRST_PATH_LENGTH, Jumps, probe_points
from bayesnet.inference._run import CHUNK
from bayesnet.inference.model import LatentModel

# Mean leapfrog steps of a trajectory, at most, in the first half of the warm-up: the step size
# is still small for want of a mass, and full trajectories would cost more than they teach.
EARLY_STEPS = 256


class ChainState(NamedTuple):
    """One chain: where it is, how it moves, and what it has learned about moving."""

    hmc: Any
    step_size: Array
    inverse_mass: Array
    path_length: Array
    adapting: adaptation.Adaptation
    jumps: Jumps
    # A warm start keeps its mass and path length; only the step size is tuned again.
    cold: Array
    # Gradients of the warm-up; those of draws are in their statistics.
    gradients: Array


class Tuning(NamedTuple):
    """The settings of a chain that a warm start hands on."""

    step_size: Array
    inverse_mass: Array
    path_length: Array
    cold: Array


@dataclass(frozen=True)
class HamiltonianChain:
    """A `ChainSampler`; `transition` is what distinguishes its subclasses."""

    target_acceptance: float
    max_steps: int
    chunk: int = field(default=CHUNK, init=False)

    def transition(
        self, model: LatentModel, state: ChainState, key: Key, step_size: Array, path_length: Array
    ) -> tuple[Any, Any]:
        """One Metropolis-adjusted move: the new blackjax state and its info."""
        raise NotImplementedError

    def tuning(self, model: LatentModel, earlier: ChainState | None) -> Tuning:
        """What a chain starts with: untuned, or as an earlier chain was tuned."""
        dtype = model.rows.y.dtype
        if earlier is not None:
            kept = earlier.step_size, earlier.inverse_mass, earlier.path_length
            return Tuning(*kept, cold=jnp.asarray(False))
        return Tuning(
            jnp.asarray(adaptation.FIRST_STEP_SIZE, dtype),
            jnp.ones(model.size, dtype),
            jnp.asarray(FIRST_PATH_LENGTH, dtype),
            cold=jnp.asarray(True),
        )

    def init(self, model: LatentModel, z: Array, tuning: Tuning) -> ChainState:
        """A chain at latents `z` (p,)."""
        step, mass = tuning.step_size, tuning.inverse_mass
        return ChainState(
            hmc=blackjax.hmc.init(z, model.log_density),
            step_size=step,
            inverse_mass=mass,
            path_length=tuning.path_length,
            adapting=adaptation.start(z.shape[0], step, mass, self.target_acceptance),
            jumps=Jumps.start(jnp.zeros(self._probe(model, z).shape, z.dtype)),
            cold=tuning.cold,
            gradients=jnp.zeros((), jnp.int32),
        )

    def plan(self, total: int) -> dict[str, np.ndarray]:
        """For each of `total` warm-up steps, what is tuned in it."""
        slow, ends = adaptation.schedule(total)
        return {"slow": slow, "ends": ends, "path": np.arange(total) >= total // 2}

    def warm(
        self, model: LatentModel, state: ChainState, key: Key, t: Array, row: dict[str, Array]
    ) -> ChainState:
        """Move, then tune the step size and (from cold) the mass and the path length."""
        tuning = state.cold & row["path"]
        step_size = adaptation.current_step_size(state.adapting)
        early = jnp.minimum(state.path_length, EARLY_STEPS * step_size)
        path = jnp.where(row["path"], state.path_length, early)
        path = jnp.where(tuning, state.jumps.candidate(t), path)
        hmc, info = self.transition(model, state, key, step_size, path)
        adapting = adaptation.update(
            state.adapting,
            hmc.position,
            info.acceptance_rate,
            state.cold & row["slow"],
            state.cold & row["ends"],
            self.target_acceptance,
        )
        jumps = jax.lax.cond(
            tuning,
            lambda: state.jumps.record(
                t,
                self._probe(model, state.hmc.position),
                self._probe(model, hmc.position),
                info.num_integration_steps,
            ),
            lambda: state.jumps,
        )
        return state._replace(
            hmc=hmc,
            step_size=adaptation.final_step_size(adapting),
            inverse_mass=adapting.inverse_mass,
            adapting=adapting,
            jumps=jumps,
            gradients=state.gradients + jnp.asarray(info.num_integration_steps, jnp.int32),
        )

    def pool(self, model: LatentModel, states: list[ChainState]) -> list[ChainState]:
        """One path length for all chains, from the jumps of all of them."""
        if not bool(np.asarray(states[0].cold)):
            return states
        path = Jumps.best([state.jumps for state in states], model.likelihood.latent_size)
        dtype = states[0].path_length.dtype
        return [state._replace(path_length=jnp.asarray(path, dtype)) for state in states]

    def step(self, model: LatentModel, state: ChainState, key: Key) -> tuple[ChainState, PyTree]:
        """One draw at the tuned settings."""
        hmc, info = self.transition(model, state, key, state.step_size, state.path_length)
        stats = {
            "acceptance_rate": info.acceptance_rate,
            "divergent": info.is_divergent.astype(jnp.int32),
            "num_gradients": jnp.asarray(info.num_integration_steps, jnp.int32),
            "log_density": hmc.logdensity,
        }
        return state._replace(hmc=hmc), stats

    def position(self, state: ChainState) -> Array:
        """The latents of a state."""
        return state.hmc.position

    def _probe(self, model: LatentModel, z: Array) -> Array:
        """Function values at a few points, and the noise latents: what users look at."""
        z_prior, z_noise = model.split(z)
        values = model.prior.apply(z_prior, probe_points(model.rows.x))
        return jnp.concatenate([jnp.ravel(values), z_noise])
