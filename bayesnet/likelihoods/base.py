"""The likelihood protocols: stated in user units, bound to a scaling before inference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np

from bayesnet._errors import UnsupportedError
from bayesnet._matrix import as_matrix
from bayesnet._types import Array, ArrayLike, Float
from bayesnet.data import Rows, Scaling


@runtime_checkable
class Conditional(Protocol):
    """The law of y given function values: one component of a mixture for each draw.

    Arrays are NumPy float64 with leading axes (s draws, n points, m outputs). `location` is
    what is left of y without noise; `discrete` says that y takes whole numbers only.
    """

    discrete: ClassVar[bool]

    @property
    def location(self) -> np.ndarray: ...

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

    def affine(self, loc: np.ndarray, scale: np.ndarray) -> Any:
        """The law of `loc + scale * y`."""
        ...


@dataclass(frozen=True, eq=False)
class LocationScale:
    """What conditionals `loc + scale * standard` share: loc (s, n, m), the others broadcastable."""

    loc: np.ndarray
    scale: np.ndarray
    discrete: ClassVar[bool] = False

    def affine(self, loc: np.ndarray, scale: np.ndarray) -> Any:
        """The law of `loc + scale * y`."""
        return replace(self, loc=self.loc * scale + loc, scale=self.scale * scale)

    @property
    def location(self) -> np.ndarray:
        return self.loc

    @property
    def mean(self) -> np.ndarray:
        return self.loc


@runtime_checkable
class BoundLikelihood(Protocol):
    """A likelihood in scaled coordinates; a pytree, with its own noise latents (k, N(0, 1) each).

    One whose noise is Gaussian also has `randomised_log_prob(z, f, rows, scores)` -> (n,), of which
    only the gradient means anything: that of the function towards targets plus `scores` (n, m) times the
    sd of the noise, and that of the level of the noise at the targets themselves.
    """

    @property
    def latent_size(self) -> int: ...

    def log_prob(
        self, z: Float[Array, " k"], f: Float[Array, "n o"], rows: Rows
    ) -> Float[Array, " n"]:
        """The log density of each row's observed targets given the network's outputs `f`.

        Weights of rows and padding are the caller's business (`LatentModel`).
        """
        ...

    def conditional(self, z: np.ndarray, f: np.ndarray, y_var: np.ndarray | None) -> Any:
        """The law of new targets, in scaled coordinates, for latents (s, k) and f (s, n, o).

        A `Conditional`, or for labels a `LabelLaw`.
        """
        ...

    def summary(self, z: np.ndarray) -> dict[str, np.ndarray]:
        """Named positive quantities (..., m) of the noise latents (..., k), for diagnostics."""
        ...


@runtime_checkable
class Likelihood(Protocol):
    """What the user states: frozen, in the units of y.

    `scales_targets`: y is standardised before inference. `row_variances`: known noise
    variances of rows (`y_var`) have a meaning.
    """

    scales_targets: ClassVar[bool]
    row_variances: ClassVar[bool]

    def encode(self, y: ArrayLike, *, missing: bool = False) -> tuple[Any, np.ndarray]:
        """The likelihood with what it reads off the targets, and these as numbers (n, m)."""
        ...

    def num_outputs(self, columns: int) -> int:
        """The number of network outputs for `columns` columns of (encoded) targets."""
        ...

    def output_units(self, scaling: Scaling) -> tuple[np.ndarray, np.ndarray]:
        """`(loc, scale)`: a network output `f` is `loc + scale * f` to the user."""
        ...

    def bind(self, scaling: Scaling, rows: Rows) -> Any:
        """The likelihood in the coordinates of `scaling`, for the given rows."""
        ...


class LikelihoodDefaults:
    """What most likelihoods share: y in its own units, one network output for each target."""

    scales_targets: ClassVar[bool] = True
    row_variances: ClassVar[bool] = False

    def encode(
        self, y: ArrayLike, *, missing: bool = False
    ) -> tuple[LikelihoodDefaults, np.ndarray]:
        """The targets as a float64 matrix (n, m); NaN is an error unless `missing`."""
        return self, as_matrix(y, "y", missing=missing)

    def num_outputs(self, columns: int) -> int:
        """One for each column of y."""
        return columns

    def output_units(self, scaling: Scaling) -> tuple[np.ndarray, np.ndarray]:
        """The units of y."""
        return scaling.y_loc, scaling.y_scale


def sum_outputs(terms: Float[Array, "n m"], rows: Rows) -> Float[Array, " n"]:
    """Log densities of single targets to those of rows, missing targets left out."""
    if rows.observed is not None:
        terms = jnp.where(rows.observed, terms, 0.0)
    return jnp.sum(terms, axis=-1)


def refuse_y_var(likelihood: str, y_var: Any) -> None:
    """Raise `UnsupportedError` if there are variances of rows."""
    if y_var is not None:
        raise UnsupportedError(
            f"{likelihood} has no use for y_var: known variances of rows are those of Gaussian "
            "noise. Use bn.GaussianLikelihood or bn.HeteroscedasticLikelihood, or leave y_var out."
        )
