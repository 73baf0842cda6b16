"""The loop's own law of the noise: small, so that a rough function is searched and not explained away.

A fit is judged by its predictions, and there a wide law (`bn.GaussianLikelihood()`, median 0.14 of the
spread of y) is safe: what it calls noise costs little density. A search is lost by it: on a rough
function without noise it averages over the very dents that hold the optimum.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesnet.likelihoods import GaussianLikelihood
from bayesnet.pfn.preset import is_trained
from bayesnet.priors.laws import LogNormal

# Of the noise's sd, as a fraction of the loop's scale of y: median 0.018, 90 % between 0.008 and 0.042.
LOOP_NOISE = LogNormal(-4.0, 0.5)


def loop_likelihood(
    given: Any, surrogate: Any, y_scale: float, *, row_variances: bool = False
) -> Any:
    """The likelihood of a surrogate of the loop.

    Args:
        given: what the user stated; it always wins.
        surrogate: the method. Trained weights have learned their own law of the noise, and keep it.
        y_scale: the loop's scale of y, in user units.
        row_variances: whether the table brings its noise variances: then the noise is just those.

    Returns:
        A likelihood, or None for the method's own default.
    """
    if given is not None or row_variances or is_trained(surrogate):
        return given
    return GaussianLikelihood(LogNormal(LOOP_NOISE.loc + np.log(y_scale), LOOP_NOISE.scale))
