"""The residual perceptron against NumPy, and its variance at any depth and width."""

from __future__ import annotations

import copy
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesnet as bn
from bayesnet.posterior.saving import load, save


def by_numpy(params, x, act, ntk):
    """h + depth^-1/2 (W2 act(W1 act(h) + b1) + b2), factors in the products if `ntk`."""

    def product(h, layer, factor=1.0):
        w, b = np.asarray(layer["w"], float), np.asarray(layer["b"], float)
        if not ntk:
            return h @ w + b
        return factor * (h @ w / np.sqrt(len(w)) + b)

    h = product(np.asarray(x, float), params["first"])
    for block in params["blocks"]:
        inner = product(act(h), block["first"])
        h = h + product(act(inner), block["second"], len(params["blocks"]) ** -0.5)
    return product(act(h), params["last"])


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("parameterization", ["ntk", "standard"])
def test_apply_equals_numpy(depth, parameterization):
    net = bn.ResidualMLP(6, depth, "relu", parameterization)
    prior = bn.NetworkPrior(net, in_dim=3, out_dim=2)
    params = prior.law.decode(jax.random.normal(jax.random.key(0), (prior.latent_size,)))
    x = jax.random.normal(jax.random.key(1), (7, 3))
    expected = by_numpy(params, x, lambda a: np.maximum(a, 0), parameterization == "ntk")
    np.testing.assert_allclose(net.apply(params, x), expected, rtol=1e-4, atol=1e-5)


def test_both_parameterizations_are_one_law_and_one_start():
    x = jax.random.normal(jax.random.key(1), (7, 3))
    nets = [bn.ResidualMLP(6, 3, "tanh", p) for p in ("ntk", "standard")]
    priors = [bn.NetworkPrior(net, in_dim=3) for net in nets]
    z = jax.random.normal(jax.random.key(0), (priors[0].latent_size,))
    np.testing.assert_allclose(*[p.apply(z, x) for p in priors], rtol=1e-4, atol=1e-5)
    starts = [net.apply(net.init(jax.random.key(2), 3, 1), x) for net in nets]
    np.testing.assert_allclose(*starts, rtol=1e-4, atol=1e-5)


def infinitely_wide_variance(x, depth):
    """The prior variance of a wide relu network at x: a rectifier halves second moments."""
    q = np.mean(x**2) + 1.0
    for _ in range(depth):
        q = q + (0.5 * (0.5 * q + 1.0) + 1.0) / depth
    return 0.5 * q + 1.0


@pytest.mark.slow
@pytest.mark.parametrize(("width", "depth"), [(20, 1), (100, 1), (20, 12)])
def test_prior_variance_is_that_of_wide_networks_at_any_width_and_depth(width, depth):
    """E f(x)^2 is the same at any width, exactly, for relu; and bounded in the depth."""
    x = np.array([[0.5, -1.0, 2.0]], np.float32)
    prior = bn.NetworkPrior(bn.ResidualMLP(width, depth, "relu"), in_dim=3)
    values = np.asarray(prior.sample(0, x, 2500), float).ravel() ** 2
    expected = infinitely_wide_variance(x, depth)
    assert expected < 6.0
    standard_error = values.std() / np.sqrt(len(values))
    assert abs(values.mean() - expected) < 4.0 * standard_error
    assert standard_error < 0.06 * expected


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_init_has_the_usual_variances(activation):
    net = bn.ResidualMLP(200, 4, activation, "standard")
    params = net.init(jax.random.key(0), 100, 2)
    block = params["blocks"][1]
    sd = (2 / 200) ** 0.5 if activation == "relu" else (2 / 400) ** 0.5
    assert float(block["first"]["w"].std()) == pytest.approx(sd, rel=0.02)
    assert float(block["second"]["w"].std()) == pytest.approx(sd / 2, rel=0.02)
    first = (2 / 100) ** 0.5 if activation == "relu" else (2 / 300) ** 0.5
    assert float(params["first"]["w"].std()) == pytest.approx(first, rel=0.02)
    assert float(jnp.abs(block["first"]["b"]).max()) == 0.0


def test_gradient_is_a_finite_difference_in_float64():
    with jax.enable_x64(True):
        prior = bn.NetworkPrior(bn.ResidualMLP(5, 2), in_dim=2)
        rng = np.random.default_rng(0)
        z, way = jnp.asarray(rng.standard_normal((2, prior.latent_size)))
        x = jnp.asarray(rng.standard_normal((4, 2)))
        value = jax.jit(lambda z: jnp.sum(jnp.sin(prior.apply(z, x))))
        slope = float(jax.jit(jax.grad(value))(z) @ way)
        numeric = float(value(z + 1e-6 * way) - value(z - 1e-6 * way)) / 2e-6
    assert slope == pytest.approx(numeric, rel=1e-7)


def test_networks_are_values(tmp_path):
    net = bn.ResidualMLP(7, 3, "silu")
    assert eval(repr(net), {"ResidualMLP": bn.ResidualMLP}) == net
    assert hash(net) == hash(bn.ResidualMLP(7.0, 3, "silu"))
    assert net != bn.ResidualMLP(7, 3, "silu", "standard")
    prior = bn.NetworkPrior(net, in_dim=2)
    x = jnp.ones((3, 2))
    save(prior, tmp_path / "prior")
    for again in (
        pickle.loads(pickle.dumps(prior)),
        copy.deepcopy(prior),
        load(tmp_path / "prior"),
    ):
        assert again.network == net
        np.testing.assert_array_equal(again.sample(0, x, 2), prior.sample(0, x, 2))


def test_scales_may_be_shared_by_blocks():
    """One scale for the weights of a block and one for its vectors."""
    net = bn.ResidualMLP(6, 3)
    prior = bn.NetworkPrior(net, bn.weights.Gaussian(per="block"), in_dim=2)
    assert prior.law.log_scale.shape == (2 * (1 + 3 + 1),)
    per_layer = bn.NetworkPrior(net, in_dim=2)
    z = jax.random.normal(jax.random.key(0), (prior.latent_size,))
    np.testing.assert_array_equal(prior.law.encode(prior.law.decode(z)), z)
    for a, b in zip(*[jax.tree.leaves(p.law.decode(z)) for p in (prior, per_layer)], strict=True):
        np.testing.assert_array_equal(a, b)
    # A block's number moves the arrays of that block, and no other.
    moved = prior.law.decode(z)
    for i in range(10):
        scaled = eqx.tree_at(lambda q: q.log_scale, prior.law, prior.law.log_scale.at[i].add(1.0))
        changed = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), scaled.decode(z), moved)
        flags = [
            any(jax.tree.leaves(n)) for n in (changed["first"], *changed["blocks"], changed["last"])
        ]
        assert sum(flags) == 1
        for part in changed["blocks"]:
            assert part["first"] == part["second"]


def test_shared_scales_need_arrays_of_one_base_scale():
    net = bn.ResidualMLP(6, 3, parameterization="standard")
    with pytest.raises(bn.InputError, match="ntk"):
        bn.NetworkPrior(net, bn.weights.Gaussian(per="block"), in_dim=2)


WRONG = {
    "no width": (lambda: bn.ResidualMLP(0), "width must be a whole number of at least 1"),
    "half a block": (lambda: bn.ResidualMLP(5, 1.5), "depth must be"),
    "words": (lambda: bn.ResidualMLP("wide"), "width must be"),
    "widths": (lambda: bn.ResidualMLP((5, 5)), "width must be"),
    "an activation": (lambda: bn.ResidualMLP(5, 1, "rellu"), "Did you mean 'relu'"),
    "a parameterization": (lambda: bn.ResidualMLP(5, parameterization="nt"), "Did you mean 'ntk'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_refused_in_words(case):
    make, words = WRONG[case]
    with pytest.raises(bn.InputError, match=words):
        make()
