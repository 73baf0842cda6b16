"""Prior-data fitted networks: a transformer trained on draws of a prior conditions it in one pass."""

from bayesnet.pfn.amortised import AmortisedProcess
from bayesnet.pfn.bars import BarDistribution, Bars
from bayesnet.pfn.inputs import MixedInputs
from bayesnet.pfn.pfn import PFN
from bayesnet.pfn.posterior import PFNPosterior
from bayesnet.pfn.prediction import BarPrediction
from bayesnet.pfn.settings import Training
from bayesnet.pfn.tasks import Mixture, Tasks

__all__ = [
    "PFN",
    "AmortisedProcess",
    "BarDistribution",
    "BarPrediction",
    "Bars",
    "MixedInputs",
    "Mixture",
    "PFNPosterior",
    "Tasks",
    "Training",
]
