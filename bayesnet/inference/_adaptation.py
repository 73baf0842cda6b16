"""Window adaptation for one chain of the HMC family, step by step, from blackjax's parts.

The schedule is Stan's (Carpenter et al. 2017): fast, doubling slow windows, fast. Dual
averaging (Hoffman & Gelman 2014, section 3.2) moves the step size at every step; Welford's
estimate of the diagonal of the posterior covariance replaces the inverse mass matrix at the
end of each slow window. blackjax's own driver runs to completion in one program; this one
takes a step at a time, so that the sampling loop can show progress and be interrupted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.adaptation.mass_matrix import mass_matrix_adaptation
from blackjax.adaptation.staged_adaptation import build_schedule
from blackjax.adaptation.step_size import dual_averaging_adaptation

from bayesnet._types import Array, Float

# A step size to begin with where none is known: small beside the unit scale of the latents.
FIRST_STEP_SIZE = 0.02
# How slowly dual averaging answers. With Stan's 0.05 the step size swings so widely that its
# average ends too small: acceptance 0.95 where 0.8 was asked for, and 1.2 to 1.5 times fewer
# effective function values a gradient; 1.0 answers too slowly for the last window.
REGULARIZATION = 0.3


class Adaptation(NamedTuple):
    """What is tuned while a chain warms up."""

    step: Any
    mass: Any
    inverse_mass: Float[Array, " p"]


def schedule(total: int) -> tuple[np.ndarray, np.ndarray]:
    """For each step: whether it lies in a slow window, and whether it ends one."""
    rows = np.asarray(build_schedule(total)).reshape(-1, 2)
    return rows[:, 0].astype(bool), rows[:, 1].astype(bool)


def start(size: int, step_size: Any, inverse_mass: Array | None, target: float) -> Adaptation:
    """The adaptation at its beginning, from a known step size and mass where there are."""
    mass_init, _, _ = mass_matrix_adaptation(True)
    step_init, _, _ = dual_averaging_adaptation(target, gamma=REGULARIZATION)
    mass = mass_init(size)
    if inverse_mass is None:
        inverse_mass = mass.inverse_mass_matrix
    return Adaptation(step_init(step_size), mass, inverse_mass)


def update(
    adaptation: Adaptation,
    position: Array,
    acceptance: Array,
    slow: Array,
    ends: Array,
    target: float,
) -> Adaptation:
    """The adaptation after a step: `slow` feeds the mass estimate, `ends` closes its window."""
    _, mass_update, mass_final = mass_matrix_adaptation(True)
    step_init, step_update, step_final = dual_averaging_adaptation(target, gamma=REGULARIZATION)
    step = step_update(adaptation.step, acceptance)
    mass = jax.lax.cond(
        slow, lambda: mass_update(adaptation.mass, position), lambda: adaptation.mass
    )

    def close_window() -> Adaptation:
        closed = mass_final(mass)
        size = step_final(step)
        # Search around the step size found so far, not around ten times it: the last window of
        # a short warm-up would end up there.
        restarted = step_init(size)._replace(mu=jnp.log(size))
        return Adaptation(restarted, closed, closed.inverse_mass_matrix)

    return jax.lax.cond(ends, close_window, lambda: Adaptation(step, mass, adaptation.inverse_mass))


def current_step_size(adaptation: Adaptation) -> Array:
    """The step size to use while adapting."""
    return jnp.exp(adaptation.step.log_step_size)


def final_step_size(adaptation: Adaptation) -> Array:
    """The averaged step size to sample with."""
    return jnp.exp(adaptation.step.log_step_size_avg)
