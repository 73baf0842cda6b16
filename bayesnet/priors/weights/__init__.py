"""Weight laws by name, one law a file."""

from __future__ import annotations

from collections.abc import Callable

from bayesnet._errors import unknown_name
from bayesnet.networks.base import Network
from bayesnet.priors.weights.base import Layout, WeightLaw
from bayesnet.priors.weights.gaussian import Gaussian

__all__ = ["WEIGHT_LAWS", "Gaussian", "Layout", "WeightLaw", "create_weight_law"]

WEIGHT_LAWS: dict[str, Callable[[Network, int, int], WeightLaw]] = {"gaussian": Gaussian.create}


def create_weight_law(name: str, network: Network, in_dim: int, out_dim: int) -> WeightLaw:
    """A weight law at its base parameters; raises `InputError` for an unknown name."""
    if name not in WEIGHT_LAWS:
        raise unknown_name("weight prior", name, WEIGHT_LAWS)
    return WEIGHT_LAWS[name](network, in_dim, out_dim)
