"""The limit of a network prior as its hidden layers become infinitely wide."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import UnsupportedError
from bayesnet.kernels import NNGP
from bayesnet.kernels.descriptions import description
from bayesnet.priors.scale_mixture import ScaleMixture
from bayesnet.priors.weights import GaussianLaw, ScaledLastLayerLaw

_FINITE_ONLY = " Condition the network itself, for example with bn.HMC()."


def infinite_width(prior: Any) -> NNGP | ScaleMixture:
    """The Gaussian process to which functions of a `NetworkPrior` tend as all hidden layers grow.

    Hidden widths do not matter; the numbers of layers, the activation, and the standard
    deviations of the weight law do, at their present (matched, say) values. A random variance of
    the last layer gives a `bn.ScaleMixture`.

    Raises:
        UnsupportedError: a weight law that is not Gaussian, weights with a mean, several standard
            deviations inside one array of weights, or a network whose limit is not known.
    """
    law = prior.law
    if not isinstance(law, GaussianLaw):
        raise UnsupportedError(
            f"There is no one Gaussian process for weights of {type(law).__name__}: the limit is for "
            'independent Gaussian weights, weights="gaussian". Random scales give a mixture of '
            "processes (for the last layer's, bn.ScaleMixture)." + _FINITE_ONLY
        )
    if any(np.any(np.asarray(loc) != 0.0) for loc in law.locations()):
        raise UnsupportedError(
            "Weights with a mean other than 0 (trained or pre-trained) have no such limit."
            + _FINITE_ONLY
        )
    scales = []
    for scale in law.scales(jnp.float32):
        values = np.asarray(scale, np.float64)
        if np.ptp(values) > 1e-5 * np.abs(values).max():
            raise UnsupportedError(
                "Weights of one layer have different standard deviations (per="
                f'"{law.per}"); the limit needs one a layer, per="layer".' + _FINITE_ONLY
            )
        # To the digits that float32 has: 1.4, not 1.39999997.
        scales.append(float(f"{values.flat[0]:.7g}"))
    tree = jax.tree.unflatten(law.layout.treedef, scales)
    layers = description(prior.network, tree, prior.in_dim, prior.out_dim)
    limit = NNGP(layers, out_dim=prior.out_dim, units=prior.units)
    if isinstance(law, ScaledLastLayerLaw):
        # Samplers of networks keep the noise apart from the scale.
        return ScaleMixture(limit, law.variance.law(), noise="outside")
    return limit
