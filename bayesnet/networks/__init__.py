"""Networks: `init`/`apply` families of functions, and adapters for those of other libraries."""

from bayesnet.networks.activations import ACTIVATIONS
from bayesnet.networks.adapters import (
    ForeignNetwork,
    as_network,
    from_equinox,
    from_flax,
    from_functions,
)
from bayesnet.networks.base import Network
from bayesnet.networks.mlp import MLP

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "ForeignNetwork",
    "Network",
    "as_network",
    "from_equinox",
    "from_flax",
    "from_functions",
]
