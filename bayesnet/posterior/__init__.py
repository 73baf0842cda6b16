"""Posteriors and their predictions, in the units of the user."""

from bayesnet.posterior.classes import ClassPrediction
from bayesnet.posterior.draws import FunctionDraws
from bayesnet.posterior.prediction import Prediction

__all__ = ["ClassPrediction", "FunctionDraws", "Prediction"]
