"""Bayesian neural networks with functional priors.

A prior is a distribution over functions; every inference method is a way of conditioning it.
Public names are loaded when they are first used; `import bayesnet` loads neither torch nor
optuna.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

__version__ = "0.2.0"

# Public name -> the module that defines it.
_NAMES = {
    "BayesNetError": "_errors",
    "ConvergenceWarning": "_errors",
    "FileFormatError": "_errors",
    "InputError": "_errors",
    "MissingExtraError": "_errors",
    "UnsupportedError": "_errors",
    "standardize": "data",
    "MLP": "networks",
    "LeNet5": "networks",
    "PreResNet20": "networks",
    "ResidualMLP": "networks",
    "GaussianProcess": "priors",
    "LinearMean": "priors",
    "LogNormal": "priors",
    "Normal": "priors",
    "ScaleMixture": "priors",
    "InverseGamma": "priors",
    "Gamma": "priors",
    "BurrXII": "priors",
    "HalfCauchy": "priors",
    "OnStd": "priors",
    "StatedPrior": "priors",
    "Sum": "priors",
    "elicit": "priors",
    "statements": "priors",
    "NetworkPrior": "priors",
    "Box": "priors",
    "Grid": "priors",
    "Mix": "priors",
    "Near": "priors",
    "MatchResult": "priors",
    "match_prior": "priors",
    "RescaledPrior": "priors",
    "match_rescaled": "priors",
    "AmortisedPrior": "priors",
    "match_family": "priors",
    "weights": "priors",
    "GaussianLikelihood": "likelihoods",
    "HeteroscedasticLikelihood": "likelihoods",
    "StudentTLikelihood": "likelihoods",
    "LaplaceLikelihood": "likelihoods",
    "BernoulliLikelihood": "likelihoods",
    "CategoricalLikelihood": "likelihoods",
    "PoissonLikelihood": "likelihoods",
    "LogitNormal": "likelihoods",
    "HMC": "inference",
    "NUTS": "inference",
    "SGHMC": "inference",
    "DeepEnsemble": "inference",
    "Exact": "inference",
    "NTKEnsemble": "inference",
    "ProcessLaplace": "inference",
    "SparseVariational": "inference",
    "ClassPrediction": "posterior",
    "FunctionDraws": "posterior",
    "ProcessPosterior": "posterior",
    "Prediction": "posterior",
    "load": "posterior.saving",
    "AmortisedProcess": "pfn",
    "PFN": "pfn",
    "fit": "fitting",
    "compare_priors": "comparison",
    "prior_data_conflict": "diagnostics.conflict",
    "BNNClassifier": "estimators",
    "BNNRegressor": "estimators",
    "PFNRegressor": "estimators",
    "PFNClassifier": "pfn_estimators",
}
_ROOMS = (
    "bo",
    "data",
    "devices",
    "diagnostics",
    "inference",
    "kernels",
    "likelihoods",
    "networks",
    "pfn",
    "plots",
    "posterior",
    "priors",
    "surrogates",
)

__all__ = ["__version__", *_NAMES, *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        module = _imported(f"bayesnet.{_NAMES[name]}")
        value = getattr(module, name)
        globals()[name] = value
        return value
    if name in _ROOMS:
        return _imported(f"bayesnet.{name}")
    raise AttributeError(f"module 'bayesnet' has no attribute {name!r}")


def _imported(name: str) -> Any:
    if "jax" in sys.modules:
        return importlib.import_module(name)
    import numpy as np

    # Importing JAX draws from NumPy's own generator, which is the user's.
    state = np.random.get_state()
    try:
        return importlib.import_module(name)
    finally:
        np.random.set_state(state)


def __dir__() -> list[str]:
    return sorted(__all__)
