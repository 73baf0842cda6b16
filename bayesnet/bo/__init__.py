"""Bayesian optimization with network surrogates: one step, an Optuna sampler, a whole study.

Needs torch, botorch and optuna (`pip install bayesnet[bo]`).
"""

from __future__ import annotations

from bayesnet.bo._require import EXTRAS  # isort: split

from bayesnet.bo.acquisition import ACQUISITIONS
from bayesnet.bo.belief import BelievedAcquisition, NormalBelief
from bayesnet.bo.findings import Findings
from bayesnet.bo.minimize import minimize
from bayesnet.bo.sampler import BayesNetSampler
from bayesnet.bo.space import Space
from bayesnet.bo.state import LoopSettings, LoopState
from bayesnet.bo.suggest import suggest, suggest_from_pool

__all__ = [
    "ACQUISITIONS",
    "EXTRAS",
    "BayesNetSampler",
    "BelievedAcquisition",
    "Findings",
    "LoopSettings",
    "LoopState",
    "NormalBelief",
    "Space",
    "minimize",
    "suggest",
    "suggest_from_pool",
]
