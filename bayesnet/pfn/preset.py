"""`bn.fit(None, X, y, inference="pfn")`: a PFN in the place of an inference method."""

from __future__ import annotations

from typing import Any

from bayesnet._errors import UnsupportedError
from bayesnet._types import ArrayLike
from bayesnet.likelihoods import GaussianLikelihood
from bayesnet.pfn.pfn import PFN
from bayesnet.pfn.posterior import PFNPosterior


def is_pfn(inference: Any) -> bool:
    """Whether `inference` of `bn.fit` is the preset "pfn" or a PFN."""
    return isinstance(inference, PFN) or (isinstance(inference, str) and inference == "pfn")


def fit_pfn(
    inference: Any,
    prior: Any,
    target: Any,
    likelihood: Any,
    X: ArrayLike,
    y: ArrayLike,
    *,
    scaling: Any = None,
    warn: bool = True,
    **unused: Any,
) -> PFNPosterior:
    """The posterior of the prior on which the weights were trained ("gp" for the name "pfn").

    Raises `UnsupportedError` for a prior, target, likelihood or data that the weights cannot take.
    """
    pfn = inference if isinstance(inference, PFN) else PFN.from_pretrained("gp")
    if prior is not None or target is not None:
        raise UnsupportedError(
            'inference="pfn" brings its own prior, the one its weights were trained on '
            f"({pfn.card['name']!r}): pass None as the prior, or train weights for yours with "
            "bn.PFN.train(prior) and pass them as inference=."
        )
    usual = likelihood is None or likelihood in ("gaussian", GaussianLikelihood())
    if not usual:
        raise UnsupportedError(
            'inference="pfn" brings its own law of the noise: leave likelihood out, or train weights '
            "for yours with bn.PFN.train(prior, likelihood)."
        )
    given = sorted(name for name, value in unused.items() if value is not None)
    if given:
        raise UnsupportedError(f'inference="pfn" has no use for {", ".join(given)}: leave it out.')
    return pfn.fit(X, y, scaling=scaling, warn=warn)
