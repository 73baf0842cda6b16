"""Moments of functions drawn from network priors, and the latent transport."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_gaussian_process import agree_iid, products

import bayesnet as bn
from bayesnet.priors import FunctionPrior, LatentPrior

X = np.random.default_rng(1).normal(size=(4, 3))
LINEAR = X @ X.T / 3 + 1  # covariance of x.w/sqrt(d) + b, all N(0, 1)


@pytest.mark.parametrize("parameterization", ["ntk", "standard"])
def test_a_linear_network_has_the_linear_kernel(parameterization):
    net = bn.MLP((), parameterization=parameterization)
    f = bn.NetworkPrior(net, in_dim=3, out_dim=2).sample(jax.random.key(0), X, 4000)
    assert f.shape == (4000, 4, 2)
    agree_iid(f[:, :, 0], 0.0)
    agree_iid(products(f[:, :, 0]), LINEAR)
    agree_iid(np.asarray(f[:, :, 0] * f[:, :, 1], float), 0.0)


@pytest.mark.parametrize("parameterization", ["ntk", "standard"])
def test_depth_without_activation_adds_one_bias_a_layer(parameterization):
    net = bn.MLP((7, 9), "identity", parameterization)
    f = bn.NetworkPrior(net, in_dim=3).sample(1, X, 6000)[:, :, 0]
    agree_iid(products(f), LINEAR + 2)


@pytest.mark.parametrize("parameterization", ["ntk", "standard"])
@pytest.mark.parametrize(("activation", "phi"), [("tanh", np.tanh), ("relu", lambda a: a.clip(0))])
def test_one_hidden_layer_follows_the_variance_recursion(parameterization, activation, phi):
    """Var f(x) = E[phi(h)^2] + 1 with h ~ N(0, |x|^2/d + 1), exact at any width."""
    net = bn.MLP((8,), activation, parameterization)
    f = bn.NetworkPrior(net, in_dim=3).sample(2, X, 6000)[:, :, 0]
    h, w = np.polynomial.hermite_e.hermegauss(200)
    expected = [(w @ phi(h * s) ** 2) / w.sum() + 1 for s in np.sqrt(np.diag(LINEAR))]
    agree_iid(np.asarray(f, float) ** 2, expected)


def test_the_scales_of_the_law_are_the_standard_deviations_of_the_weights():
    prior = bn.NetworkPrior(bn.MLP((3,)), in_dim=2)
    law = jax.tree.map(lambda a: jnp.log(jnp.arange(1.0, 5.0)), prior.law)
    z = jax.random.normal(jax.random.key(0), (5000, prior.latent_size))
    leaves = jax.tree.leaves(jax.vmap(law.decode)(z))
    for leaf, scale in zip(leaves, [1, 2, 3, 4], strict=True):
        assert float(leaf.std()) == pytest.approx(scale, rel=0.05)


def test_encode_inverts_decode_at_any_scale():
    prior = bn.NetworkPrior(bn.MLP((5, 4), parameterization="standard"), in_dim=2, out_dim=3)
    params = prior.network.init(jax.random.key(0), 2, 3)
    again = prior.law.decode(prior.encode(params))
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    z = 8.0 * jax.random.normal(jax.random.key(1), (prior.latent_size,))
    np.testing.assert_allclose(prior.encode(prior.law.decode(z)), z, rtol=1e-5)


def test_draws_are_the_functions_of_normal_latents():
    prior = bn.NetworkPrior(bn.MLP((5,)), in_dim=3)
    assert isinstance(prior, LatentPrior)
    assert isinstance(prior, FunctionPrior)
    x = jnp.asarray(X, jnp.float32)
    z = jax.random.normal(jax.random.key(5), (2, prior.latent_size))
    expected = jnp.stack([prior.apply(zi, x) for zi in z])
    np.testing.assert_allclose(prior.sample(5, x, 2), expected, rtol=1e-5, atol=1e-6)


def test_whole_numbers_as_inputs():
    prior = bn.NetworkPrior(bn.MLP((5,)))
    x = np.array([[1], [2]])
    np.testing.assert_array_equal(prior.sample(0, x, 3), prior.sample(0, x.astype(float), 3))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: bn.NetworkPrior(bn.MLP(), in_dim=0), "at least 1"),
        (lambda: bn.NetworkPrior(bn.MLP(), out_dim=0), "at least 1"),
        (lambda: bn.NetworkPrior(bn.MLP(), weights="gausian"), "Did you mean 'gaussian'"),
        (lambda: bn.NetworkPrior(bn.MLP(), units="feet"), "units"),
        (lambda: bn.NetworkPrior(bn.MLP(), in_dim=2).sample(0, X, 1), r"shape \(n, 2\)"),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(bn.InputError, match=words):
        make()
