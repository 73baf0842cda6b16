"""A monotone map of targets towards a Gaussian, with an exact inverse.

Yeo & Johnson (2000), "A new family of power transformations to improve normality or symmetry".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from bayesnet.data import standardization

# Outside of [0, 2] the map does not reach all numbers: a predicted value could have no inverse.
POWERS = (0.0, 2.0)
# The law of the power before the table is seen: N(1, sd^2), 1 being no map at all. Five rows say little
# about it.
POWER_SD = 0.5


@dataclass(frozen=True, eq=False)
class PowerMap:
    """`(yeo_johnson(y; power) - loc) / scale` of m columns: increasing, from all numbers onto all.

    `power`, `loc` and `scale` are (m,): the power in [0, 2], and what standardises the result.
    """

    power: np.ndarray
    loc: np.ndarray
    scale: np.ndarray

    @staticmethod
    def fit(y: np.ndarray) -> PowerMap:
        """The most probable map for columns of `y` (n, m), standardised before: Gaussian likelihood,
        and a Gaussian law of the power around 1; a constant column keeps power 1."""
        power = np.array([_best_power(column) for column in np.asarray(y, np.float64).T])
        return PowerMap(power, *standardization(_forward(np.asarray(y, np.float64), power)))

    def forward(self, y: np.ndarray) -> np.ndarray:
        """The map at `y` (..., m)."""
        return (_forward(np.asarray(y, np.float64), self.power) - self.loc) / self.scale

    def log_slope(self, y: np.ndarray) -> np.ndarray:
        """The log derivative of the map at `y` (..., m)."""
        y = np.asarray(y, np.float64)
        return np.sign(y) * (self.power - 1) * np.log1p(np.abs(y)) - np.log(self.scale)

    def inverse(self, z: np.ndarray) -> np.ndarray:
        """What is mapped to `z` (..., m)."""
        return _inverse(np.asarray(z, np.float64) * self.scale + self.loc, self.power)


def _forward(y: np.ndarray, power: np.ndarray) -> np.ndarray:
    # Below 0 it is the map of -y with power 2 - power, turned round.
    above = y >= 0
    p, size = np.where(above, power, 2 - power), np.log1p(np.abs(y))
    curved = np.expm1(p * size) / np.where(p == 0, 1.0, p)
    return np.where(above, 1.0, -1.0) * np.where(p == 0, size, curved)


def _inverse(z: np.ndarray, power: np.ndarray) -> np.ndarray:
    above = z >= 0
    p, size = np.where(above, power, 2 - power), np.abs(z)
    curved = np.log1p(p * size) / np.where(p == 0, 1.0, p)
    return np.where(above, 1.0, -1.0) * np.expm1(np.where(p == 0, size, curved))


def _best_power(y: np.ndarray) -> float:
    if np.ptp(y) <= 1e-9 * max(1.0, float(np.abs(y).max())):
        return 1.0
    slope = float((np.sign(y) * np.log1p(np.abs(y))).sum())

    def loss(power: float) -> float:
        spread = _forward(y, np.asarray(power)).std()
        likelihood = -len(y) * np.log(spread) + (power - 1) * slope
        return 0.5 * ((power - 1) / POWER_SD) ** 2 - likelihood

    found = minimize_scalar(loss, bounds=POWERS, method="bounded", options={"xatol": 1e-6})
    return float(found.x)
