"""One step of Adam, in the precision and on the devices of a run: what all objectives share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx

from bayesnet._types import Array
from bayesnet.pfn.attention import IN_BFLOAT16, AttentionLayer
from bayesnet.pfn.precision import rounded
from bayesnet.pfn.settings import Training
from bayesnet.pfn.sharding import replicated


def descend(
    training: Training,
    loss: Callable[[Any], tuple[Array, Array]],
    network: Any,
    optimiser: Any,
) -> tuple[Any, Any, Array]:
    """The network and the state of Adam after a step down `loss`, and the parts of the loss.

    `loss(network) -> (total, parts)`; to be called inside a compiled program.
    """

    def at(network: Any) -> tuple[Array, Array]:
        if training.precision == "bfloat16":
            network = rounded(network, AttentionLayer, IN_BFLOAT16)
        return loss(network)

    (_, parts), gradient = eqx.filter_value_and_grad(at, has_aux=True)(network)
    updates, optimiser = training.optimiser().update(gradient, optimiser)
    network, optimiser = replicated(
        (eqx.apply_updates(network, updates), optimiser), training.devices
    )
    return network, optimiser, parts
