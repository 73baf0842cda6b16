"""Networks of other libraries behave as they do at home."""

from __future__ import annotations

import copy
import pickle
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesnet as bn
from bayesnet.networks import Network, as_network

linen = pytest.importorskip("flax.linen")
nnx = pytest.importorskip("flax.nnx")

X = jax.random.normal(jax.random.key(7), (6, 2))


class LinenNet(linen.Module):
    norm: str = ""

    @linen.compact
    def __call__(self, x):
        x = jnp.tanh(linen.Dense(5)(x))
        if self.norm == "batch":
            x = linen.BatchNorm(use_running_average=False)(x)
        if self.norm == "dropout":
            x = linen.Dropout(0.5, deterministic=False)(x)
        if self.norm == "layer":
            x = linen.LayerNorm()(x)
        return linen.Dense(1)(x)


class NnxNet(nnx.Module):
    def __init__(self, norm=None):
        rngs = nnx.Rngs(0)
        self.first, self.last = nnx.Linear(2, 5, rngs=rngs), nnx.Linear(5, 1, rngs=rngs)
        if norm is not None:
            self.norm = norm

    def __call__(self, x):
        x = jnp.tanh(self.first(x))
        return self.last(self.norm(x) if hasattr(self, "norm") else x)


def pair_init(key):
    k1, k2 = jax.random.split(key)
    return {"a": jax.random.normal(k1, (2, 5)), "b": jax.random.normal(k2, (5,))}


def pair_apply(params, x):
    return jnp.tanh(x @ params["a"]) @ params["b"]


def tanh(x):
    """jnp.tanh itself is no function that pickle can find by name."""
    return jnp.tanh(x)


def eqx_net(*extra):
    k1, k2 = jax.random.split(jax.random.key(0))
    layers = [eqx.nn.Linear(2, 5, key=k1), eqx.nn.Lambda(tanh), *extra]
    return eqx.nn.Sequential([*layers, eqx.nn.Linear(5, 1, key=k2)])


def test_equinox_apply_equals_the_module():
    module = eqx_net()
    net = as_network(module)
    params = net.init(jax.random.key(0), 2, 1)
    np.testing.assert_allclose(net.apply(params, X), jax.vmap(module)(X), rtol=1e-6)
    doubled = jax.tree.map(lambda a: 2 * a, params)
    expected = jax.vmap(jax.tree.map(lambda a: 2 * a if eqx.is_array(a) else a, module))(X)
    np.testing.assert_allclose(net.apply(doubled, X), expected, rtol=1e-6)


def test_linen_apply_equals_the_module():
    module = LinenNet(norm="layer")
    net = as_network(module)
    params = net.init(jax.random.key(3), 2, 1)
    expected = module.apply(module.init(jax.random.key(3), X), X)
    np.testing.assert_allclose(net.apply(params, X), expected, rtol=1e-6)


def test_nnx_apply_equals_the_module():
    module = NnxNet(nnx.LayerNorm(5, rngs=nnx.Rngs(1)))
    net = as_network(module)
    params = net.init(jax.random.key(0), 2, 1)
    np.testing.assert_allclose(net.apply(params, X), module(X), rtol=1e-6)
    # The module keeps its own parameters when the network is applied to others.
    before = module(X)
    net.apply(jax.tree.map(lambda a: a + 1, params), X)
    np.testing.assert_array_equal(module(X), before)


def test_pair_apply_equals_the_function():
    net = as_network((pair_init, pair_apply))
    params = net.init(jax.random.key(0), 2, 1)
    np.testing.assert_allclose(net.apply(params, X)[:, 0], pair_apply(params, X), rtol=1e-6)


FOREIGN = {
    "equinox": eqx_net,
    "linen": LinenNet,
    "nnx": NnxNet,
    "pair": lambda: (pair_init, pair_apply),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_networks_make_priors_that_encode_pickle_and_copy(kind):
    prior = bn.NetworkPrior(FOREIGN[kind](), in_dim=2)
    assert isinstance(prior.network, Network)
    z = jax.random.normal(jax.random.key(0), (prior.latent_size,))
    np.testing.assert_allclose(prior.encode(prior.law.decode(z)), z, rtol=1e-5, atol=1e-6)
    expected = prior.apply(z, jnp.asarray(X))
    for again in (pickle.loads(pickle.dumps(prior)), copy.deepcopy(prior)):
        np.testing.assert_array_equal(again.apply(z, jnp.asarray(X)), expected)


@pytest.mark.parametrize("kind", ["equinox", "linen", "nnx"])
def test_scales_follow_the_fan_in_of_each_library(kind):
    """Weights N(0, 1/fan_in), biases N(0, 1): also the single bias of the last layer."""
    prior = bn.NetworkPrior(FOREIGN[kind](), in_dim=2)
    z = jax.random.normal(jax.random.key(0), (4000, prior.latent_size))
    params = jax.vmap(prior.law.decode)(z)
    for leaf in jax.tree.leaves(params):
        values = np.asarray(leaf, float)
        inputs = {10: 2, 5: 5}.get(values[0].size) if values[0].ndim > 1 else 1
        assert values.mean() == pytest.approx(0, abs=5 / np.sqrt(values.size))
        assert values.std() == pytest.approx(inputs**-0.5, rel=0.06)


def test_gains_of_normalisation_layers_are_centred_at_one():
    for network in (LinenNet("layer"), NnxNet(nnx.LayerNorm(5, rngs=nnx.Rngs(0)))):
        prior = bn.NetworkPrior(network, in_dim=2)
        at_zero = prior.law.decode(jnp.zeros(prior.latent_size))
        gains = [leaf for leaf in jax.tree.leaves(at_zero) if float(jnp.max(leaf)) == 1.0]
        assert len(gains) == 1
        assert gains[0].shape == (5,)


def batch_norm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return eqx_net(eqx.nn.BatchNorm(5, "batch"))


REFUSED = {
    "equinox batch norm": (batch_norm, "state at .layers"),
    "equinox dropout": (lambda: eqx_net(eqx.nn.Dropout(0.5)), "Dropout at .layers"),
    "linen batch norm": (lambda: LinenNet("batch"), "batch_stats"),
    "linen dropout": (lambda: LinenNet("dropout"), "dropout"),
    "nnx batch norm": (lambda: NnxNet(nnx.BatchNorm(5, rngs=nnx.Rngs(0))), "BatchStat"),
    "nnx dropout": (lambda: NnxNet(nnx.Dropout(0.5, rngs=nnx.Rngs(0))), "RngKey"),
    "integers": (lambda: (lambda key: {"n": jnp.arange(3)}, pair_apply), r"\['n'\]"),
    "a class": (lambda: bn.MLP, "not its class"),
    "a word": (lambda: "mlp", "Cannot use str"),
    "another input dimension": (lambda: eqx.nn.MLP(3, 1, 4, 1, key=jax.random.key(0)), "inputs"),
    "another output dimension": (lambda: eqx.nn.MLP(2, 3, 4, 1, key=jax.random.key(0)), "out_dim"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_a_network_is_refused_by_name(case):
    make, words = REFUSED[case]
    with pytest.raises(bn.InputError, match=words):
        bn.NetworkPrior(make(), in_dim=2)


def test_dropout_in_inference_mode_is_the_identity():
    prior = bn.NetworkPrior(eqx_net(eqx.nn.Dropout(0.5, inference=True)), in_dim=2)
    assert prior.latent_size == 2 * 5 + 5 + 5 + 1
