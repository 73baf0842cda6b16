"""`bn.fit(None, X, y, inference="pfn" | "amortised")`: trained weights in the place of a method."""

from __future__ import annotations

from typing import Any

from bayesnet._errors import UnsupportedError
from bayesnet._types import ArrayLike
from bayesnet.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    GaussianLikelihood,
    resolve_likelihood,
)
from bayesnet.pfn.amortised import AmortisedProcess
from bayesnet.pfn.class_posterior import ClassPosterior
from bayesnet.pfn.classifier import ClassPFN
from bayesnet.pfn.ensemble import PFNEnsemble
from bayesnet.pfn.pfn import PFN
from bayesnet.pfn.posterior import PFNPosterior
from bayesnet.posterior.process import ProcessPosterior


def is_pfn(inference: Any) -> bool:
    """Whether `inference` of `bn.fit` is the preset "pfn" or a PFN."""
    return isinstance(inference, (PFN, ClassPFN)) or (
        isinstance(inference, str) and inference == "pfn"
    )


def is_amortised(inference: Any) -> bool:
    """Whether `inference` of `bn.fit` is the preset "amortised" or an `AmortisedProcess`."""
    named = isinstance(inference, str) and inference == "amortised"
    return named or isinstance(inference, AmortisedProcess)


def is_trained(inference: Any) -> bool:
    """Whether `inference` of `bn.fit` is, or names, trained weights."""
    return is_pfn(inference) or is_amortised(inference)


def trained_weights(inference: Any, *, of_classes: bool = False) -> Any:
    """The `PFN`, `ClassPFN` or `AmortisedProcess` that `inference` of `bn.fit` is or names."""
    if isinstance(inference, (PFN, AmortisedProcess, ClassPFN)):
        return inference
    if inference == "amortised":
        return AmortisedProcess.from_pretrained()
    return PFN.from_pretrained("classifier" if of_classes else "gp")


def fit_pfn(
    inference: Any,
    prior: Any,
    target: Any,
    likelihood: Any,
    X: ArrayLike,
    y: ArrayLike,
    *,
    missing: str = "error",
    seed: int = 0,
    scaling: Any = None,
    warn: bool = True,
    **unused: Any,
) -> PFNPosterior | PFNEnsemble | ProcessPosterior | ClassPosterior:
    """The posterior of the prior on which the weights were trained ("gp" for the name "pfn", or
    "classifier" where the likelihood is of classes; "gp_process" for "amortised").

    `seed` is that of the weights' own `fit`. Raises `UnsupportedError` for a prior, target, likelihood or data that the weights cannot take.
    """
    pfn: PFN | AmortisedProcess | ClassPFN
    law = likelihood if likelihood is None else resolve_likelihood(likelihood)
    of_classes = isinstance(law, (BernoulliLikelihood, CategoricalLikelihood))
    pfn = trained_weights(inference, of_classes=of_classes)
    kind = type(pfn).__name__
    name = "amortised" if kind == "AmortisedProcess" else "pfn"
    if prior is not None or target is not None:
        raise UnsupportedError(
            f"inference={name!r} brings its own prior, the one its weights were trained on "
            f"({pfn.card['name']!r}): pass None as the prior, or train weights for yours with "
            f"bn.{kind}.train(prior) and pass them as inference=."
        )
    if isinstance(pfn, ClassPFN):
        noisy = getattr(law, "label_noise", 0.0) != 0.0
        usual = law is None or (of_classes and not noisy)
    else:
        usual = law is None or law == GaussianLikelihood()
    if not usual:
        raise UnsupportedError(
            f"inference={name!r} brings its own law of the noise: leave likelihood out, or train "
            f"weights for yours with bn.{kind}.train(prior, likelihood)."
        )
    given = sorted(name for name, value in unused.items() if value is not None)
    if given:
        raise UnsupportedError(
            f"inference={name!r} has no use for {', '.join(given)}: leave it out."
        )
    if missing != "error":
        raise UnsupportedError(
            f"inference={name!r} reads complete rows and cannot mask single targets (missing={missing!r}): "
            "leave missing out, and rows without a target too."
        )
    if isinstance(pfn, ClassPFN):
        if scaling is not None:
            raise UnsupportedError(
                "A PFN for classes standardises inputs itself: leave scaling out."
            )
        return pfn.fit(X, y, classes=getattr(law, "classes", None), seed=seed, warn=warn)
    return pfn.fit(X, y, scaling=scaling, seed=seed, warn=warn)
