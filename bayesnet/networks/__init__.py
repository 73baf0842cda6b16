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
from bayesnet.networks.lenet import LeNet5
from bayesnet.networks.mlp import MLP
from bayesnet.networks.normalization import NORMALIZATIONS
from bayesnet.networks.preresnet import PreResNet20
from bayesnet.networks.residual import ResidualMLP

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "NORMALIZATIONS",
    "ForeignNetwork",
    "LeNet5",
    "Network",
    "PreResNet20",
    "ResidualMLP",
    "as_network",
    "from_equinox",
    "from_flax",
    "from_functions",
]
