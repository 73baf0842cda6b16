"""Weight laws, one a file: what users write (`Gaussian`, ...) and the laws these build.

A recipe holds the knobs; `NetworkPrior` builds its law, a transport from standard normal latents,
for the network at hand.
"""

from __future__ import annotations

from typing import Any

from bayesnet._errors import InputError, unknown_name
from bayesnet.networks.base import Network
from bayesnet.priors.weights.base import Layout, WeightLaw, WeightRecipe
from bayesnet.priors.weights.flow import Flow, FlowLaw
from bayesnet.priors.weights.gaussian import Gaussian, GaussianLaw
from bayesnet.priors.weights.hierarchical import Hierarchical, HierarchicalLaw
from bayesnet.priors.weights.horseshoe import Horseshoe, HorseshoeLaw
from bayesnet.priors.weights.laplace import Laplace, LaplaceLaw
from bayesnet.priors.weights.pretrained import Pretrained
from bayesnet.priors.weights.scaled_last_layer import ScaledLastLayer, ScaledLastLayerLaw
from bayesnet.priors.weights.student_t import StudentT, StudentTLaw

__all__ = [
    "WEIGHT_LAWS",
    "Flow",
    "FlowLaw",
    "Gaussian",
    "GaussianLaw",
    "Hierarchical",
    "HierarchicalLaw",
    "Horseshoe",
    "HorseshoeLaw",
    "Laplace",
    "LaplaceLaw",
    "Layout",
    "Pretrained",
    "ScaledLastLayer",
    "ScaledLastLayerLaw",
    "StudentT",
    "StudentTLaw",
    "WeightLaw",
    "WeightRecipe",
    "create_weight_law",
]

WEIGHT_LAWS: dict[str, type[WeightRecipe]] = {
    "gaussian": Gaussian,
    "hierarchical": Hierarchical,
    "flow": Flow,
    "laplace": Laplace,
    "student_t": StudentT,
    "horseshoe": Horseshoe,
}


def create_weight_law(weights: Any, network: Network, in_dim: int, out_dim: int) -> WeightLaw:
    """The law that a name, a recipe or a law means for a network.

    Raises `InputError` for an unknown name or anything else.
    """
    if isinstance(weights, str):
        if weights not in WEIGHT_LAWS:
            raise unknown_name("weight prior", weights, WEIGHT_LAWS)
        weights = WEIGHT_LAWS[weights]()
    if isinstance(weights, type):
        raise InputError(f"weights must be an object, not a class: {weights.__name__}(...).")
    if isinstance(weights, WeightRecipe):
        return weights.build(network, in_dim, out_dim)
    if isinstance(weights, WeightLaw):
        return weights
    raise InputError(
        f"weights must be a name ({', '.join(sorted(WEIGHT_LAWS))}) or an object such as "
        f"bn.weights.Hierarchical(), got {weights!r}."
    )
