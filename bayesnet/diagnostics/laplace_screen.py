"""The Laplace approximation of a network prior's evidence at its highest mode: a screen.

MacKay 1992; generalised Gauss-Newton curvature as in Immer et al. 2021. Exact for a function that is
linear in its latents under known Gaussian noise; else one Gaussian at one of many modes, in latent
coordinates: a way to sort out candidates, not a number to report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from bayesnet import devices
from bayesnet._errors import InputError, UnsupportedError
from bayesnet._types import Array, Key
from bayesnet.data import Data
from bayesnet.diagnostics.loo import log_units
from bayesnet.inference.base import require_latent_prior
from bayesnet.inference.model import LatentModel

# The curvature is a dense matrix in float64.
MOST_LATENTS = 3000
STEPS = 2000
# Gradients at a mode, per root of the number of latents; the prior's sd is 1.
FLAT = 1e-3


@dataclass(frozen=True)
class LaplaceEvidence:
    """`value`: the log evidence in nats, densities in the units of y; `log_joint` of each start's mode
    (scaled coordinates); `problems` one sentence for each reason not to trust even the screen."""

    value: float
    log_joint: tuple[float, ...]
    problems: tuple[str, ...]

    def __float__(self) -> float:
        return self.value


@devices.single_precision()
def laplace_evidence(
    prior: Any, likelihood: Any, data: Data, *, restarts: int = 4, key: Key
) -> LaplaceEvidence:
    r"""`log p(y, z*) + p/2 log 2 pi - log det(H) / 2` at the best mode z* of several starts.

    H = I + the curvature of the log likelihood with the network's function replaced by its
    tangent at z* (Gauss-Newton); for noise latents the curvature is the exact one. Modes are searched
    by L-BFGS in float64 from draws of the prior.

    Raises:
        UnsupportedError: a prior that is no transport of latents, or one of more than 3,000 latents.
        InputError: `restarts` below 1.
    """
    require_latent_prior("The Laplace screen", prior)
    if not isinstance(restarts, (int, np.integer)) or restarts < 1:
        raise InputError(f"restarts must be a whole number, at least 1, got {restarts!r}.")
    model = LatentModel(prior, likelihood.bind(data.scaling, data.rows), data.rows)
    if model.size > MOST_LATENTS:
        raise UnsupportedError(
            f"The Laplace screen is for at most {MOST_LATENTS} latents, this prior and noise have "
            f'{model.size}: use by="loo".'
        )
    starts = np.asarray(jax.random.normal(key, (int(restarts), model.size)), np.float64)
    with jax.enable_x64(True):
        wide = jax.tree.map(_wide, model)
        found = [_mode(wide, start) for start in starts]
        joint, z, slope = max(found, key=lambda f: f[0])
        eigenvalues = np.linalg.eigvalsh(np.asarray(_curvature(wide, jnp.asarray(z))))
    problems = []
    if slope > FLAT * np.sqrt(model.size):
        problems.append(f"the search for a mode has not ended (gradient {slope:.2g})")
    if eigenvalues[0] <= 0:
        problems.append("the mode is no maximum of the approximation: the value means nothing")
        eigenvalues = np.maximum(eigenvalues, 1e-12)
    value = joint - 0.5 * float(np.log(eigenvalues).sum()) - float(_weighted_units(data))
    return LaplaceEvidence(value, tuple(f[0] for f in found), tuple(problems))


def _wide(leaf: Any) -> Any:
    if eqx.is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf.astype(jnp.float64)
    return leaf


def _weighted_units(data: Data) -> float:
    weight = data.rows.weight
    share = 1.0 if weight is None else np.asarray(weight, np.float64)[: data.num_rows]
    return float(np.sum(share * log_units(data)))


@eqx.filter_jit
def _value_and_slope(model: LatentModel, z: Array) -> tuple[Array, Array]:
    # log p(y | z) - |z|^2 / 2: the two terms in log 2 pi of prior and Laplace's formula cancel.
    return jax.value_and_grad(lambda v: -model.log_density(v))(z)


def _mode(model: LatentModel, start: np.ndarray) -> tuple[float, np.ndarray, float]:
    """Log joint density, place and gradient norm of the mode reached from `start`."""

    def objective(z: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = _value_and_slope(model, jnp.asarray(z))
        if not np.isfinite(value):
            return 1e25, np.zeros_like(z)
        return float(value), np.asarray(slope)

    options = {"maxiter": STEPS, "maxfun": 2 * STEPS, "ftol": 1e-13, "gtol": 1e-6}
    found = optimize.minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    return -float(found.fun), found.x, float(np.linalg.norm(found.jac))


@eqx.filter_jit
def _curvature(model: LatentModel, mode: Array) -> Array:
    """I + minus the Hessian at `mode` of the log likelihood of the tangent function."""
    at, _ = model.split(mode)
    f, push = jax.linearize(lambda z: model.prior.apply(z, model.rows.x), at)

    def linearised(z: Array) -> Array:
        weights, noise = model.split(z)
        terms = model.likelihood.log_prob(noise, f + push(weights - at), model.rows)
        if model.rows.weight is not None:
            terms = jnp.where(model.rows.weight > 0, model.rows.weight * terms, 0.0)
        return jnp.sum(jnp.where(model.rows.mask, terms, 0.0))

    return jnp.eye(len(mode), dtype=mode.dtype) - jax.hessian(linearised)(mode)
