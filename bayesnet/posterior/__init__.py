"""Posteriors and their predictions, in the units of the user."""

from bayesnet.posterior.classes import ClassPrediction
from bayesnet.posterior.draws import FunctionDraws
from bayesnet.posterior.prediction import Prediction
from bayesnet.posterior.process import ProcessPosterior
from bayesnet.posterior.process_prediction import ProcessPrediction

__all__ = [
    "ClassPrediction",
    "FunctionDraws",
    "Prediction",
    "ProcessPosterior",
    "ProcessPrediction",
]
