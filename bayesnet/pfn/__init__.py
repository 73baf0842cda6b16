"""Prior-data fitted networks: a transformer trained on draws of a prior conditions it in one pass."""

from bayesnet.pfn.amortised import AmortisedProcess
from bayesnet.pfn.bars import BarDistribution, Bars
from bayesnet.pfn.class_labels import Labels
from bayesnet.pfn.class_posterior import ClassPosterior, PFNClassPrediction
from bayesnet.pfn.class_tasks import ClassTasks
from bayesnet.pfn.classifier import ClassPFN
from bayesnet.pfn.correlated_inputs import CorrelatedInputs
from bayesnet.pfn.ensemble import PFNEnsemble
from bayesnet.pfn.inputs import MixedInputs
from bayesnet.pfn.numpyro_model import NumpyroModel
from bayesnet.pfn.pfn import PFN
from bayesnet.pfn.posterior import PFNPosterior
from bayesnet.pfn.prediction import BarPrediction
from bayesnet.pfn.random_networks import RandomNetworks
from bayesnet.pfn.settings import Training
from bayesnet.pfn.tasks import Mixture, Tasks

__all__ = [
    "PFN",
    "AmortisedProcess",
    "BarDistribution",
    "BarPrediction",
    "Bars",
    "ClassPFN",
    "ClassPosterior",
    "ClassTasks",
    "CorrelatedInputs",
    "Labels",
    "MixedInputs",
    "Mixture",
    "NumpyroModel",
    "PFNClassPrediction",
    "PFNEnsemble",
    "PFNPosterior",
    "RandomNetworks",
    "Tasks",
    "Training",
]
