"""Export to arviz: function values, noise levels, sampler statistics."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet import devices
from bayesnet._types import Array
from bayesnet.diagnostics.convergence import import_arviz, log_densities, quantities
from bayesnet.inference.model import LatentModel
from bayesnet.priors.network import draws_at_once


def to_arviz(posterior: Any) -> Any:
    """An `arviz.InferenceData` for a `FunctionDraws`.

    Groups: `posterior` (function values on the probe set and noise levels, scaled units),
    `sample_stats` (with `lp`, `diverging`), `log_likelihood` (per training row, scaled
    units, times the weight of the row: ready for `arviz.loo`), `observed_data` (y in user units;
    for classes the labels).
    """
    az = import_arviz()
    variables = {
        name.replace(" ", "_"): values
        for name, values in quantities(posterior).items()
        if not name.startswith("log ")
    }
    stats = dict(posterior.stats)
    log_lik, log_prior = log_densities(posterior)
    stats["lp"] = log_lik + log_prior
    if "divergent" in stats:
        stats["diverging"] = stats.pop("divergent") > 0
    return az.from_dict(
        posterior=variables,
        sample_stats=stats,
        log_likelihood={"y": row_log_likelihoods(posterior)},
        observed_data={"y": _observed(posterior)},
    )


def _observed(posterior: Any) -> np.ndarray:
    classes = getattr(posterior.likelihood, "classes", None)
    if classes is not None:
        return np.asarray(classes)[posterior.data.y[:, 0].astype(int)]
    return posterior.data.scaling.y_out(posterior.data.y.astype(np.float64))


@devices.single_precision()
def row_log_likelihoods(posterior: Any) -> np.ndarray:
    """Log density of each training row under each draw, (c, s, n), in scaled units."""
    model = LatentModel(posterior.prior, posterior.bound, posterior.data.rows)
    chains, draws, size = posterior.latents.shape
    rows = np.asarray(_rows(model, jnp.asarray(posterior.latents.reshape(-1, size))))
    return rows[:, : posterior.data.num_rows].reshape(chains, draws, -1)


@eqx.filter_jit
def _rows(model: LatentModel, z: Array) -> Array:
    return jax.lax.map(model.log_likelihood_rows, z, batch_size=draws_at_once(model.prior, 32))
