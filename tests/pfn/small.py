"""A transformer of random weights with finer bars than it needs: quick, and indifferent to nothing."""

import jax
import jax.numpy as jnp

from bayesnet.pfn import PFN, Bars
from bayesnet.pfn.transformer import Transformer


def random_pfn(seed=0, max_dim=3, rows=24):
    bars = Bars(jnp.linspace(-4.0, 4.0, 199), jnp.asarray([0.5, 0.5]))
    network = Transformer.create(
        jax.random.key(seed), max_dim=max_dim, bars=200, width=16, depth=2, heads=2, hidden=16
    )
    card = {
        "name": "random",
        "dims": tuple(range(1, max_dim + 1)),
        "buckets": (8, rows),
        "steps": 0,
    }
    return PFN(network, bars, card)
