"""One transition of the No-U-Turn sampler, in NumPy: for few coordinates and costly densities.

The trajectory is doubled until it turns around; its states are drawn in proportion to their density,
later halves preferred (Hoffman & Gelman 2014, algorithm 3; Betancourt 2017, appendix A). The mass is
the identity: the caller whitens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

LogDensity = Callable[[np.ndarray], tuple[float, np.ndarray]]
# Doublings at most (63 gradients a draw), and the fall in log density that counts as a divergence.
DEPTH, DIVERGENCE = 6, 1000.0


@dataclass(frozen=True, eq=False)
class _State:
    """A point of phase space: position, momentum, log density and its gradient."""

    at: np.ndarray
    momentum: np.ndarray
    value: float
    slope: np.ndarray

    @property
    def energy(self) -> float:
        return self.value - 0.5 * float(self.momentum @ self.momentum)


@dataclass(frozen=True, eq=False)
class _Tree:
    """A piece of trajectory: its ends in time, the state drawn from it, and the log of its weight."""

    first: _State
    last: _State
    chosen: _State
    log_weight: float
    stopped: bool


@dataclass(eq=False)
class _Trajectory:
    log_density: LogDensity
    step: float
    rng: np.random.Generator
    start: float
    rates: list[float] = field(default_factory=list)

    def leap(self, state: _State, direction: int) -> _State:
        half = 0.5 * direction * self.step
        momentum = state.momentum + half * state.slope
        at = state.at + 2.0 * half * momentum
        value, slope = self.log_density(at)
        return _State(at, momentum + half * slope, value, slope)

    def build(self, state: _State, direction: int, depth: int) -> _Tree:
        """The `2^depth` states that follow `state`."""
        if depth == 0:
            new = self.leap(state, direction)
            weight = new.energy - self.start if np.isfinite(new.value) else -np.inf
            self.rates.append(float(np.exp(min(0.0, weight))))
            return _Tree(new, new, new, weight, weight < -DIVERGENCE)
        one = self.build(state, direction, depth - 1)
        if one.stopped:
            return one
        two = self.build(one.last if direction > 0 else one.first, direction, depth - 1)
        weight = float(np.logaddexp(one.log_weight, two.log_weight))
        # Within a new piece, states in proportion to their density.
        swap = not two.stopped and np.log(self.rng.uniform()) < two.log_weight - weight
        return self.join(one, two, direction, two.chosen if swap else one.chosen, weight)

    def join(
        self, old: _Tree, new: _Tree, direction: int, chosen: _State, log_weight: float
    ) -> _Tree:
        first, last = (old.first, new.last) if direction > 0 else (new.first, old.last)
        return _Tree(first, last, chosen, log_weight, new.stopped or _turned(first, last))


def _turned(first: _State, last: _State) -> bool:
    apart = last.at - first.at
    return bool(apart @ first.momentum < 0 or apart @ last.momentum < 0)


def nuts_transition(
    log_density: LogDensity,
    at: np.ndarray,
    value: float,
    slope: np.ndarray,
    step: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, float, np.ndarray, float]:
    """From a position with its log density and gradient to the next, and the mean acceptance rate."""
    state = _State(at, rng.normal(size=len(at)), value, slope)
    path = _Trajectory(log_density, step, rng, state.energy)
    tree = _Tree(state, state, state, 0.0, False)
    for depth in range(DEPTH):
        direction = 1 if rng.uniform() < 0.5 else -1
        new = path.build(tree.last if direction > 0 else tree.first, direction, depth)
        if new.stopped:
            break
        # Between halves, the new one whenever it weighs more.
        chosen = (
            new.chosen if np.log(rng.uniform()) < new.log_weight - tree.log_weight else tree.chosen
        )
        weight = float(np.logaddexp(tree.log_weight, new.log_weight))
        tree = path.join(tree, new, direction, chosen, weight)
        if tree.stopped:
            break
    chosen = tree.chosen
    return chosen.at, chosen.value, chosen.slope, float(np.mean(path.rates))
