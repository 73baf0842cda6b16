"""A posterior held as draws of the latents: a stack of functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet import devices
from bayesnet._errors import InputError
from bayesnet._matrix import as_matrix
from bayesnet._repr import fitted_to, judged, method_name
from bayesnet._scales import check_near, check_range
from bayesnet._types import Array, ArrayLike, Float
from bayesnet.data import Data, bucket_size, pad_rows
from bayesnet.likelihoods.labels import LabelLaw
from bayesnet.posterior.classes import ClassPrediction
from bayesnet.posterior.prediction import Prediction
from bayesnet.priors.network import draws_at_once

# Rows evaluated by one call of the compiled program; larger requests are cut into such blocks.
BLOCK = 1024


@dataclass(frozen=True, eq=False)
class FunctionDraws:
    """Posterior draws of the latents of a network prior.

    `latents` (c chains, s draws, p): the prior's latents, then those of the likelihood.
    `stats` name -> (c, s), what the sampler said of each draw; `states` the sampler's last
    states (for warm starts; not saved); `data` the training table in scaled coordinates.
    """

    prior: Any
    likelihood: Any
    data: Data
    latents: np.ndarray
    stats: dict[str, np.ndarray] = field(default_factory=dict)
    method: Any = None
    states: tuple[Any, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    interrupted: bool = False

    def __repr__(self) -> str:
        facts = [f"{self.num_draws} draws of functions by {method_name(self.method)}"]
        facts += ["interrupted"] if self.interrupted else []
        if "acceptance_rate" in self.stats:
            facts.append(f"acceptance {np.mean(self.stats['acceptance_rate']):.2f}")
        if "divergent" in self.stats:
            facts.append(f"{int(np.sum(self.stats['divergent'] > 0))} divergent")
        table = (self.data.num_rows, self.data.in_dim, self.data.out_dim)
        return fitted_to(self, ", ".join(facts), table, judged(()))

    @property
    def num_draws(self) -> int:
        """s, over all chains."""
        return self.latents.shape[0] * self.latents.shape[1]

    @cached_property
    def bound(self) -> Any:
        """The likelihood in scaled coordinates."""
        return self.likelihood.bind(self.data.scaling, self.data.rows)

    def split(self) -> tuple[np.ndarray, np.ndarray]:
        """Latents of the prior (s, p) and of the likelihood (s, k), chains put end to end."""
        flat = self.latents.reshape(-1, self.latents.shape[-1])
        p = self.prior.latent_size
        return flat[:, :p], flat[:, p:]

    def functions(self, x: ArrayLike) -> Float[Array, "s n m"]:
        """Every draw's function at `x` (n, d), both in user units; consistent, differentiable in x.

        The outputs of the network, as the likelihood reads them: means in the units of y, for
        `HeteroscedasticLikelihood` then log noise levels; logits for classes, log rates for counts.
        The same draws at every call. Traceable by JAX; float32 (float64 if `x` is an
        array of JAX of that type). For
        plain predictions use `predict`, which handles any number of rows. Raises
        `InputError` for the wrong number of columns.
        """
        scaling = self.data.scaling
        if isinstance(x, jax.Array):
            scaled = self._traced(x)
        else:
            rows = scaling.matrix(x, "x")  # scaled in float64: an offset costs no digits
            scaled = jnp.asarray(scaling.x_in(rows), jnp.float32)
        dtype = scaled.dtype
        z, _ = self.split()
        f = evaluate(self.prior, jnp.asarray(z, dtype), scaled)
        loc, scale = (check_range(a, dtype, "y") for a in self.likelihood.output_units(scaling))
        return f * scale.astype(dtype) + loc.astype(dtype)

    def _traced(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Rows of JAX in scaled coordinates, differentiable."""
        if x.ndim != 2 or x.shape[1] != self.data.in_dim:
            raise InputError(f"x must have shape (n, {self.data.in_dim}), got {x.shape}.")
        dtype = x.dtype if x.dtype in (jnp.float32, jnp.float64) else jnp.dtype(jnp.float32)
        scaling = self.data.scaling
        loc, scale = (check_range(a, dtype, "x") for a in (scaling.x_loc, scaling.x_scale))
        return (x.astype(dtype) - loc.astype(dtype)) / scale.astype(dtype)

    @devices.single_precision()
    def scaled_functions(self, x: np.ndarray) -> np.ndarray:
        """Function values (s, n, m) in scaled coordinates at scaled inputs (n, d), by blocks."""
        z = jnp.asarray(self.split()[0])
        check_near(x, z.dtype)
        blocks = [
            np.asarray(evaluate(self.prior, z, jnp.asarray(rows, z.dtype)))[:, :count]
            for rows, count in _blocks(x)
        ]
        return np.concatenate(blocks, axis=1)

    def predict(self, x: ArrayLike, y_var: ArrayLike | None = None) -> Any:
        """The predictive law at `x` (n, d): a `bn.Prediction` in the units of y.

        For classes a `bn.ClassPrediction`.

        Args:
            x: inputs in user units, n x d.
            y_var: known noise variances of the new rows (n, m), for a model fitted with
                per-row variances; the mean of the training variances if None.

        Raises `InputError` for the wrong number of columns, NaN, or no rows, and
        `UnsupportedError` for `y_var` where the likelihood has no use for it.
        """
        scaling = self.data.scaling
        matrix = scaling.matrix(x)
        f = self.scaled_functions(scaling.x_in(matrix))
        if y_var is not None:
            variance = as_matrix(y_var, "y_var")
            shape = (len(matrix), self.data.out_dim)
            if variance.shape != shape:
                raise InputError(f"y_var must have shape {shape}, got {variance.shape}.")
            if (variance < 0).any():
                raise InputError("y_var holds variances, which must not be negative.")
            y_var = variance / scaling.y_scale**2
        components = self.bound.conditional(self.split()[1], f, y_var)
        if isinstance(components, LabelLaw):
            return ClassPrediction(components, self.likelihood.classes)
        components = components.affine(scaling.y_loc, scaling.y_scale)
        return Prediction(components, components.location)

    def diagnostics(self) -> Any:
        """The convergence report: R-hat and effective sample sizes of function values."""
        from bayesnet.diagnostics.convergence import convergence_report

        return convergence_report(self)

    def to_arviz(self) -> Any:
        """An arviz `InferenceData` with function values, noise levels and sample statistics."""
        from bayesnet.diagnostics.arviz_export import to_arviz

        return to_arviz(self)

    def save(self, path: str | Path) -> None:
        """Write this posterior to one file (safetensors with a checksum; never a pickle)."""
        from bayesnet.posterior.saving import save

        save(self, path)


def _blocks(x: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    for start in range(0, len(x), BLOCK):
        rows = x[start : start + BLOCK]
        yield pad_rows(rows, bucket_size(len(rows))), len(rows)


@eqx.filter_jit
def evaluate(prior: Any, z: Float[Array, "s p"], x: Float[Array, "n d"]) -> Float[Array, "s n m"]:
    """`prior.apply` for every draw, a batch of draws at a time."""
    return jax.lax.map(lambda zi: prior.apply(zi, x), z, batch_size=draws_at_once(prior, 32))
