"""The likelihood protocols: stated in user units, bound to a scaling before inference."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from bayesnet._types import Array, Float
from bayesnet.data import Rows, Scaling


@runtime_checkable
class Conditional(Protocol):
    """The law of y given function values: one component of a mixture for each draw.

    Arrays are NumPy float64 with leading axes (s draws, n points, m outputs).
    """

    @property
    def mean(self) -> np.ndarray: ...

    @property
    def variance(self) -> np.ndarray: ...

    def log_prob(self, y: np.ndarray) -> np.ndarray: ...

    def cdf(self, y: np.ndarray) -> np.ndarray: ...

    def quantile(self, q: float) -> np.ndarray: ...

    def sample(self, rng: np.random.Generator, draw: tuple[Any, ...]) -> np.ndarray:
        """New targets of the components that the index `draw` into (s, n, m) picks."""
        ...


@runtime_checkable
class BoundLikelihood(Protocol):
    """A likelihood in scaled coordinates; a pytree, with its own noise latents (k, N(0, 1) each)."""

    @property
    def latent_size(self) -> int: ...

    def log_prob(
        self, z: Float[Array, " k"], f: Float[Array, "n m"], rows: Rows
    ) -> Float[Array, " n"]:
        """The log density of each row's targets given the function values `f`."""
        ...

    def conditional(self, z: np.ndarray, f: np.ndarray, y_var: np.ndarray | None) -> Conditional:
        """The law of new targets, in scaled coordinates, for latents (s, k) and f (s, n, m)."""
        ...

    def summary(self, z: np.ndarray) -> dict[str, np.ndarray]:
        """Named scalar quantities (..., m) of the noise latents (..., k), for diagnostics."""
        ...


@runtime_checkable
class Likelihood(Protocol):
    """What the user states: frozen, in the units of y."""

    scales_targets: bool

    def bind(self, scaling: Scaling, rows: Rows) -> Any:
        """The likelihood in the coordinates of `scaling`, for the given rows."""
        ...
