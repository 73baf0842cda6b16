"""A learned step of nodes up their posterior density (amortised inference that looks again).

What a transformer reads off a table is a guess; the slope of the log posterior density there says how to
better it. A perceptron turns slopes into a step, and is trained with all else on the predictive law,
through the derivatives of the slopes (learned optimisers: Andrychowicz et al. 2016).
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp

from bayesnet._types import Array, Float, Key
from bayesnet.pfn.attention import linear
from bayesnet.pfn.nodes import Nodes

# Neurons; the first step, as a share of the squared sd times the slope; the longest, in sds.
HIDDEN, FIRST, LONGEST = 64, 0.3, 2.0


class Stepper(eqx.Module):
    """A perceptron of slopes, of how sure the reader is, of the latents, the kind and of the table; after
    a first step also of the slopes before it and of what was done: curvature shows in these.
    """

    slope_in: Float[Array, "f h"]
    told_in: Float[Array, "w h"]
    kind_in: Float[Array, "p h"]
    bias: Float[Array, " h"]
    out: Float[Array, "h o"]

    @staticmethod
    def create(
        key: Key, kinds: int, slots: int, columns: int, width: int, *, first: bool = True
    ) -> Stepper:
        """Weights whose step is a short one along the slope; `first`: there was none before."""
        k = jax.random.split(key, 4)
        seen = 3 * slots + 2 * columns
        return Stepper(
            linear(k[0], seen if first else seen + 2 * (slots + columns), HIDDEN),
            linear(k[1], width, HIDDEN),
            0.1 * jax.random.normal(k[2], (kinds, HIDDEN)),
            jnp.zeros(HIDDEN),
            0.01 * linear(k[3], HIDDEN, slots + columns),
        )

    def __call__(
        self,
        nodes: Nodes,
        by_z: Float[Array, "p n k"],
        by_odds: Float[Array, "p n d"],
        past: tuple[Array, ...] = (),
    ) -> tuple[Nodes, tuple[Array, ...]]:
        """`nodes`, moved, given the slopes of their log posterior density; and the `past` of the next step."""
        slope = jnp.arcsinh(jnp.where(jnp.isfinite(by_z), nodes.std * by_z, 0.0))
        column = jnp.arcsinh(jnp.where(jnp.isfinite(by_odds), by_odds, 0.0))
        parts = [slope, jnp.log(nodes.std), nodes.z, column, jnp.tanh(nodes.odds / 4), *past]
        h = jnp.concatenate(parts, axis=-1) @ self.slope_in
        h = jax.nn.gelu(h + self.kind_in[:, None] + nodes.told @ self.told_in + self.bias)
        step = h @ self.out
        slots = nodes.z.shape[-1]
        along = LONGEST * jnp.tanh((FIRST * slope + step[..., :slots]) / LONGEST)
        lean = LONGEST * jnp.tanh(step[..., slots:])
        moved: Nodes = eqx.tree_at(
            lambda n: (n.z, n.odds), nodes, (nodes.z + nodes.std * along, nodes.odds + lean)
        )
        return moved, (slope, along, column, lean)
