"""Stochastic gradient Hamiltonian Monte Carlo: plain, and with mass and friction estimated.

Chen, Fox & Guestrin 2014 (eq. 15) and, the default, the scale-adapted form of Springenberg et al.
2016 (eqs. 8-10) with which Tran et al. 2022 sample. Equations: `SGHMC`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError
from bayesnet._types import Array, Float, Key
from bayesnet.inference._gradient_estimates import (
    FIRST_PROBES,
    PROBE_EVERY,
    Correlation,
    Moments,
    Stiffness,
    power_iteration,
    unit,
)
from bayesnet.inference._stochastic import (
    CHUNK,
    StochasticGradientMCMC,
    batch_log_density,
    is_sound,
    minibatch,
    minibatch_gradient,
    missing_share,
    refuse,
    require_between,
)
from bayesnet.inference.model import LatentModel

# The largest step sizes while burning in and while sampling, whatever the curvature.
MOST_BURNING, MOST_SAMPLING = 0.05, 0.1
# Step size squared times the largest curvature: unstable at 4, and a variance is too large by
# about a quarter of it in that direction. Loose while burning in, tight while sampling.
LOOSE, TIGHT = 1.0, 0.2
# Of the noise that friction asks for, what gradients may bring; the rest is injected.
GRADIENT_PART = 0.8
# In the directions in which gradients are noisiest they bring more, for their noise is correlated
# between coordinates: by so much the temperature may rise there.
CORRELATED_PART = 0.3
UNTUNED_STEP_SIZE = 0.01


@dataclass(frozen=True)
class SGHMC(StochasticGradientMCMC):
    r"""Stochastic gradient HMC in latent coordinates, on a fresh minibatch in every step.

    Args:
        chains: independent chains, run beside each other (default 4).
        warmup: steps of burn-in that estimate mass, friction and step size, then are dropped.
        draws: kept draws a chain.
        thin: steps between two kept draws; raise it for thousands of rows (see below).
        batch_size: rows of a minibatch; with as many as the table has, gradients are exact.
        step_size: epsilon below, in the units of the latents (prior sd 1) where the mass is 1:
            a step moves a latent of inverse mass 1/m by about epsilon / sqrt(m). Its square is
            the learning rate eta of Chen et al. None: tuned in the burn-in (needs `adapt`).
        friction: alpha in (0, 1), the share of the velocity lost in a step.
        adapt: estimate mass and friction in the burn-in; False for plain SGHMC, whose mass is 1.

    With U the negative log posterior of the latents, g the gradient of its estimate
    `-N/b sum_batch log p(y | z) + |z|^2/2`, each step is, coordinate by coordinate,

        v <- (1 - alpha) v - epsilon^2 M g + N(0, max(2 alpha epsilon^2 M - B, 0)),   z <- z + v.

    Plain: M = 1 and B = 0 (Chen et al. 2014, eq. 15, their beta = 0). Scale-adapted: in the burn-in
    the running mean m of the gradient, V of its square, and their window tau are

        tau <- tau (1 - m^2 / V) + 1,    m <- m + (g - m) / tau,    V <- V + (g^2 - V) / tau,

    and M = V^(-1/2), then fixed (Springenberg et al. 2016, eqs. 8-10). Four things differ from the paper:
    B = epsilon^4 (1 - b/N) instead of epsilon^4, since of V only that part is noise of the minibatch
    (none for a full batch); tau is held between 100 steps and a fifth of those done; V is at least
    1, the curvature of the prior; and epsilon is tuned: to keep stable in the direction of the
    largest curvature (found by power iterations on differences of gradients), then lowered until
    the discretisation makes the variance in that direction about 5 % too large, gradients bring at
    most 0.8 of the noise that friction asks for in every coordinate, and, where their noise is
    correlated between coordinates, raise the temperature by at most 0.3.

    What bias remains is measured: `temperature` in the statistics is the kinetic energy over its
    expected value, 1 if all is well, and `gradient_temperature` that along the current gradient,
    the first to suffer from noisy gradients or a large step. The diagnostics warn; they leave the
    square of the mean velocity there (`gradient_velocity`) out, which is no heat: it is small for small
    networks, and 40 for one of 20,000 weights. On a network
    with 90 rows in batches of 32 the default gave 1.34 there and sds of function values that were
    6 % too large (median; 20 % at most); full batches 1.14, without bias to be seen.

    Minibatches cost mixing: a direction whose temperature they raise by a tenth takes 5 N / b steps
    to forget where it was, others more. Below about a thousand rows `HMC` or a large
    batch is the better choice.

    Conditions every `LatentPrior` under every likelihood. A step that leaves the finite numbers
    is refused and counted as divergent.

    Raises:
        InputError: counts below 1, a step size or friction out of range, `adapt=False` without a
            step size.
    """

    friction: float = 0.05
    adapt: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between("friction", self.friction, 0, 1)
        if not isinstance(self.adapt, bool):
            raise InputError(f"adapt must be True or False, got {self.adapt!r}.")
        if self.step_size is None and not self.adapt:
            raise InputError(
                "SGHMC(adapt=False) tunes nothing: pass step_size, say 0.1 / sqrt(number of rows)."
            )

    def chain(self) -> SGHMCChain:
        """The one-chain sampler of these settings."""
        return SGHMCChain(self.batch_size, self.step_size, self.friction, self.adapt)


class Tuning(NamedTuple):
    """What a warm start hands on."""

    step_size: Array
    moments: Moments
    stiffness: Stiffness
    correlation: Correlation
    cold: Array


class ChainState(NamedTuple):
    """One chain: where it is, how fast it moves, and what it has learned about moving."""

    position: Array
    velocity: Array
    tuning: Tuning


@dataclass(frozen=True)
class SGHMCChain:
    """One chain of `SGHMC`: a `ChainSampler`."""

    batch_size: int
    step_size: float | None
    friction: float
    adapt: bool
    chunk: int = field(default=CHUNK, init=False)

    def tuning(self, model: LatentModel, earlier: ChainState | None) -> Tuning:
        """Untuned, or as an earlier chain was."""
        dtype = model.rows.y.dtype
        if earlier is not None:
            kept = earlier.tuning._replace(cold=jnp.asarray(False))
            if self.step_size is not None:
                kept = kept._replace(step_size=jnp.asarray(self.step_size, dtype))
            return kept
        direction = jax.random.normal(jax.random.key(0), (model.size,), dtype)
        zero = jnp.zeros((), dtype)
        direction = unit(direction)
        return Tuning(
            step_size=jnp.asarray(self.step_size or UNTUNED_STEP_SIZE, dtype),
            moments=Moments.start(direction),
            stiffness=Stiffness(direction, zero),
            correlation=Correlation(direction, zero),
            cold=jnp.asarray(True),
        )

    def init(self, model: LatentModel, z: Array, tuning: Tuning) -> ChainState:
        """A chain at rest at latents `z` (p,)."""
        return ChainState(z, jnp.zeros_like(z), tuning)

    def plan(self, total: int) -> dict[str, np.ndarray]:
        """In which steps curvature is probed, and how far epsilon has come to its last value."""
        t = np.arange(total)
        return {
            "probe": (t < FIRST_PROBES) | (t % PROBE_EVERY == 0),
            "settled": np.clip(4 * t / total - 2, 0, 1).astype(np.float32),
        }

    def warm(
        self, model: LatentModel, state: ChainState, key: Key, t: Array, row: dict[str, Array]
    ) -> ChainState:
        """A step whose gradient also feeds the estimates."""
        key_batch, key_noise = jax.random.split(key)
        rows, _, factor = minibatch(model.rows, key_batch, self.batch_size)
        missing = missing_share(model.rows, self.batch_size)
        z, old = state.position, state.tuning

        def force(at: Array) -> Array:
            return -jax.grad(batch_log_density, argnums=1)(model, at, rows, factor)

        g = force(z)
        moments = old.moments.update(g, t)
        inverse_mass = self.inverse_mass(moments)
        stiffness = jax.lax.cond(
            row["probe"],
            lambda: power_iteration(force, z, g, inverse_mass, old.stiffness, t),
            lambda: old.stiffness,
        )
        correlation = old.correlation.update(jnp.sqrt(inverse_mass) * g, t)
        step_size = old.step_size
        tuning = Tuning(step_size, moments, stiffness, correlation, old.cold)
        if self.step_size is None:
            tuning = tuning._replace(step_size=self._tuned(tuning, missing, row["settled"]))
        velocity = self._pushed(
            state.velocity, g, inverse_mass, tuning.step_size, missing, key_noise
        )
        new = ChainState(z + velocity, velocity, tuning)
        rest = state._replace(velocity=jnp.zeros_like(velocity))
        return refuse(is_sound(new.position, g), new, rest)

    def pool(self, model: LatentModel, states: list[ChainState]) -> list[ChainState]:
        """Each chain keeps what it has learned."""
        return states

    def step(
        self, model: LatentModel, state: ChainState, key: Key
    ) -> tuple[ChainState, dict[str, Array]]:
        """One step at the settled mass, friction and step size."""
        key_batch, key_noise = jax.random.split(key)
        log_density, ascent = minibatch_gradient(model, state.position, key_batch, self.batch_size)
        inverse_mass = self.inverse_mass(state.tuning.moments)
        step_size = state.tuning.step_size
        missing = missing_share(model.rows, self.batch_size)
        velocity = self._pushed(
            state.velocity, -ascent, inverse_mass, step_size, missing, key_noise
        )
        sound = is_sound(state.position + velocity, ascent)
        # The velocity in units of its law N(0, step_size^2 M / (1 - friction / 2)), before this
        # gradient, of whose noise it is independent.
        scale = (1 - self.friction / 2) ** 0.5 / step_size
        before = state.velocity * jax.lax.rsqrt(inverse_mass) * scale
        steepest = unit(ascent * jnp.sqrt(inverse_mass))
        # It ends where the gradient is taken, so that its mean along it is not 0: each of p latents
        # adds to it, and their sum grows like step_size * sqrt(p) / 2. Heat is what varies.
        along = jnp.dot(steepest, before)
        stats = {
            "log_density": log_density,
            "temperature": jnp.mean(before**2),
            "gradient_temperature": along**2,
            "gradient_velocity": along,
            "divergent": jnp.asarray(~sound, jnp.int32),
            "num_gradients": jnp.ones((), jnp.int32),
        }
        velocity = jnp.where(sound, velocity, 0.0)
        return state._replace(position=state.position + velocity, velocity=velocity), stats

    def position(self, state: ChainState) -> Array:
        """The latents of a state."""
        return state.position

    def inverse_mass(self, moments: Moments) -> Float[Array, " p"]:
        """M: V^(-1/2), or 1."""
        return jax.lax.rsqrt(moments.square) if self.adapt else jnp.ones_like(moments.square)

    def _pushed(
        self, v: Array, g: Array, inverse_mass: Array, step_size: Array, missing: Array, key: Key
    ) -> Array:
        square = step_size**2
        variance = 2 * self.friction * square * inverse_mass
        if self.adapt:
            variance = jnp.maximum(variance - square**2 * missing, 0.0)
        noise = jnp.sqrt(variance) * jax.random.normal(key, v.shape, v.dtype)
        return (1 - self.friction) * v - square * inverse_mass * g + noise

    def _tuned(self, tuning: Tuning, missing: Array, settled: Array) -> Array:
        """The step size on its way from the burn-in's to the sampler's."""
        curvature = tuning.stiffness.curvature
        burning = jnp.minimum(MOST_BURNING, jnp.sqrt(LOOSE / curvature))
        sampling = jnp.minimum(MOST_SAMPLING, jnp.sqrt(TIGHT / curvature))
        noise = missing * jnp.sqrt(jnp.max(tuning.moments.square))
        # What the correction of the single coordinates leaves of the noise.
        correlated = missing * jnp.maximum(tuning.correlation.square - 1, 0.0)
        for part, brought in ((GRADIENT_PART, noise), (CORRELATED_PART, correlated)):
            sampling = jnp.minimum(sampling, jnp.sqrt(2 * self.friction * part / brought))
        settled = jnp.where(tuning.cold, settled, 1.0)
        return burning ** (1 - settled) * sampling**settled
