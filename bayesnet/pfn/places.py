"""Where a quadrature puts its nodes within the law that its reader proposes."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from scipy.special import logit, ndtri
from scipy.stats import qmc

from bayesnet._types import Array, Float


class Places(eqx.Module):
    """Places of n nodes for each of p kinds of processes.

    Fields: `z` (p, n, k), in standard deviations of a component; `leans` (p, n, d), added to the
    log odds that a column has an effect; `factors` (p, n), logs, on top of importance weights.
    """

    z: Float[Array, "p n k"]
    leans: Float[Array, "p n d"]
    factors: Float[Array, "p n"]

    @staticmethod
    def create(kinds: int, each: int, slots: int, columns: int) -> Places:
        """Evenly spread over the law: a Sobol sequence."""
        size = slots + columns
        sobol = qmc.Sobol(size, seed=0).random(1 << (kinds * each - 1).bit_length())
        points = np.clip(sobol[: kinds * each], 1e-3, 1 - 1e-3).reshape(kinds, each, size)
        return Places(
            jnp.asarray(ndtri(points[..., :slots]), jnp.float32),
            jnp.asarray(logit(points[..., slots:]), jnp.float32),
            jnp.zeros((kinds, each)),
        )
