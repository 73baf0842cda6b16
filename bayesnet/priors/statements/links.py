"""The smooth clip that keeps values between bounds and leaves them alone well inside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Clip:
    """`low + s [softplus((u - low)/s) - softplus((u - high)/s)]`: increasing, from R onto (low, high).

    One bound may be infinite: then the other is a softplus. `width` = s is the distance from a
    bound at which the clip sets in. With neither bound finite it is the identity.
    """

    low: float = -np.inf
    high: float = np.inf
    width: float = 1.0

    @property
    def is_identity(self) -> bool:
        """Whether nothing is clipped."""
        return bool(np.isinf(self.low) and np.isinf(self.high))

    def __call__(self, u: np.ndarray) -> np.ndarray:
        """Clipped values, of any shape."""
        s = self.width
        if self.is_identity:
            return u
        if np.isinf(self.low):
            return self.high - s * np.logaddexp(0.0, (self.high - u) / s)
        if np.isinf(self.high):
            return self.low + s * np.logaddexp(0.0, (u - self.low) / s)
        inside = np.logaddexp(0.0, (u - self.low) / s) - np.logaddexp(0.0, (u - self.high) / s)
        return self.low + s * inside

    def inverse(self, y: np.ndarray) -> np.ndarray:
        """The `u` with `self(u) = y`, for y strictly between the bounds."""
        s = self.width
        if self.is_identity:
            return y
        if np.isinf(self.low):
            return self.high - s * _inverse_softplus((self.high - y) / s)
        if np.isinf(self.high):
            return self.low + s * _inverse_softplus((y - self.low) / s)
        # With a = exp((u - low)/s): exp((y - low)/s) = (1 + a) / (1 + a q), q = exp(-(high - low)/s).
        # Then a = expm1((y - low)/s) / (1 - exp((y - high)/s)).
        top = _log_expm1((y - self.low) / s)
        return self.low + s * (top - np.log(-np.expm1((y - self.high) / s)))

    def slope(self, u: np.ndarray) -> np.ndarray:
        """The derivative at `u`."""
        if self.is_identity:
            return np.ones_like(u)
        s = self.width
        if np.isinf(self.low):
            return _sigmoid((self.high - u) / s)
        lower = _sigmoid((u - self.low) / s)
        return lower if np.isinf(self.high) else lower - _sigmoid((u - self.high) / s)


def _sigmoid(t: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(t)))


def _log_expm1(t: np.ndarray) -> np.ndarray:
    return t + np.log(-np.expm1(-t))


_inverse_softplus = _log_expm1
