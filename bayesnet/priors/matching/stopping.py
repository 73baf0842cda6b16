"""When a match has come as close as it will: a plateau of the held-out distance, then an end.

A run is not cut off where its distance stops falling: at the learning rate of that moment theta
still jitters. The rate first falls to zero over the last `COOL_DOWN` steps.
"""

from __future__ import annotations

import numpy as np

COOL_DOWN = 100
# Falls smaller than this fraction of the best distance are no reason to go on.
SMALLEST_FALL = 0.01


def cosine(learning_rate: float, steps: int) -> np.ndarray:
    """The learning rate of each step (steps,): from `learning_rate` to zero along half a cosine."""
    return 0.5 * learning_rate * (1.0 + np.cos(np.pi * np.arange(steps) / steps))


class Plateau:
    """Notices that the held-out distance has not fallen for `patience` steps (None: never).

    A fall counts if it exceeds its own standard error: held-out points and latents are the same
    at every look, so the falls on the separate sets of points are paired.
    """

    def __init__(self, patience: int | None, first: np.ndarray) -> None:
        self.patience = patience
        self.reached = False
        self._best, self._best_step = first, 0

    def sees(self, step: int, by_set: np.ndarray) -> bool:
        """Whether the plateau is reached now, given the distance on each set of points (k,)."""
        fall = self._best - by_set
        error = fall.std(ddof=1) / len(fall) ** 0.5
        if fall.mean() > max(error, SMALLEST_FALL * abs(self._best.mean())):
            self._best, self._best_step = by_set, step
        if self.reached or self.patience is None or step - self._best_step < self.patience:
            return False
        self.reached = True
        return True

    @staticmethod
    def shortened(rates: np.ndarray, done: int) -> np.ndarray:
        """`rates` with the steps after `done` replaced by a cool-down, if that is shorter."""
        if len(rates) - done <= COOL_DOWN:
            return rates
        return np.concatenate([rates[:done], cosine(rates[done], COOL_DOWN)])
