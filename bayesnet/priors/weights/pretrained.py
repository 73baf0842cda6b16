"""Gaussian weights around pre-trained ones (MOPED)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError
from bayesnet.networks.base import Network
from bayesnet.priors.weights.base import Layout
from bayesnet.priors.weights.gaussian import GaussianLaw
from bayesnet.priors.weights.located import check_positive


@dataclass(frozen=True, eq=False)
class Pretrained:
    """`w ~ N(w0, max(delta |w0|, floor * base)^2)` around given weights `w0`.

    Krishnan, Subedar & Tickoo 2020 (MOPED), eq. 6, whose deviations delta |w0| vanish for weights
    at zero; `floor` keeps them at a fraction of the network's own scale. Written
    `bn.weights.Gaussian.from_params(params)`.

    Args:
        params: the weights, a pytree as the network's parameters (for an equinox module, the
            trained module).
        delta, floor: numbers above 0.
        loc: "fixed" keeps the means at `w0`; "free" lets matching move them.

    Raises:
        InputError: weights of another tree or of other shapes, not finite, or numbers out of
            range.
    """

    params: Any
    delta: float = 0.1
    floor: float = 0.01
    loc: str = "fixed"

    def __post_init__(self) -> None:
        check_positive("delta", self.delta)
        check_positive("floor", self.floor)
        if self.loc not in ("fixed", "free"):
            raise InputError(f"loc must be 'fixed' or 'free' for given means, got {self.loc!r}.")

    def build(self, network: Network, in_dim: int, out_dim: int) -> GaussianLaw:
        layout = Layout.of(network, in_dim, out_dim)
        given = eqx.filter(self.params, eqx.is_inexact_array_like)
        leaves = jax.tree.leaves(given)
        tree: Any = layout.treedef
        shapes = tuple(np.shape(leaf) for leaf in leaves)
        # The structure of an equinox module holds its functions; shapes tell it apart well enough.
        foreign = isinstance(self.params, eqx.Module)
        if shapes != layout.shapes or not (foreign or tree == jax.tree.structure(given)):
            raise InputError(
                "The pre-trained weights are not those of this network: expected shapes "
                f"{list(layout.shapes)}, got {list(shapes)} in {str(jax.tree.structure(given))[:200]}."
            )
        means = np.concatenate([np.ravel(np.asarray(leaf, np.float32)) for leaf in leaves])
        if not np.isfinite(means).all():
            raise InputError("The pre-trained weights are not all finite.")
        locs, scales = (jax.tree.leaves(a) for a in network.base_law(in_dim, out_dim))
        least = self.floor * layout.repeat(scales, "parameter")
        return GaussianLaw(
            layout=layout,
            base_loc=tuple(float(a) for a in locs),
            loc_form=self.loc,
            loc=jnp.asarray(means),
            log_scale=jnp.log(jnp.maximum(self.delta * np.abs(means), least)),
            per="parameter",
        )
