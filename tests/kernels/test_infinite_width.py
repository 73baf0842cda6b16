"""Finite networks of a description tend to its kernels, and network priors to their limits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesnet as bn
from bayesnet.kernels import (
    NNGP,
    NTK,
    Activation,
    Dense,
    LayerNorm,
    Residual,
    Serial,
    empirical_nngp,
    empirical_ntk,
)
from bayesnet.posterior.saving import save

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 3)).astype(np.float32)
SMALL = bn.MLP((4,))
DEEP = Serial(
    Dense(1.5, 0.2),
    Residual(LayerNorm(), Activation("tanh"), Dense(0.9, 0.0), scale=0.7),
    Activation("relu"),
    Dense(1.1, 0.4),
)


def empirical(kernel, width, draws, seed=0):
    """Kernels of `draws` finite networks, (draws, n, n) each: NNGP and NTK."""
    prior = kernel.finite(width, X.shape[1])
    zs = jax.random.normal(jax.random.key(seed), (draws, prior.latent_size))
    return tuple(
        np.stack([np.asarray(fn(prior, z, X, X), float) for z in zs])
        for fn in (empirical_nngp, empirical_ntk)
    )


def agrees(draws, truth, bias):
    """The mean over draws is within 5 standard errors, and the bias of a finite width, of truth."""
    error = draws.std(0) / len(draws) ** 0.5
    assert (np.abs(draws.mean(0) - truth) < 5 * error + bias * np.abs(truth).max()).all()


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [NTK(depth=2), NTK(DEEP)], ids=["relu", "residual"])
def test_empirical_kernels_agree_and_converge_at_rate_one_over_width(kernel):
    truth = [np.asarray(a, float) for a in kernel.both(X, X)]
    errors = []
    for width in (16, 128):
        found = empirical(kernel, width, 80)
        for ours, exact in zip(found, truth, strict=True):
            agrees(ours, exact, 2.0 / width)
        errors.append(
            [((a - b) ** 2).mean() / (b**2).mean() for a, b in zip(found, truth, strict=True)]
        )
    # Mean squared errors are chi-square-like sums over 80 draws: known to about 20 %.
    rate = np.log(np.array(errors[0]) / np.array(errors[1])) / np.log(128 / 16)
    assert (np.abs(rate - 1.0) < 0.3).all(), rate


def test_kernels_of_one_wide_network_are_near_the_limit():
    kernel = NTK(depth=1)
    for ours, exact in zip(empirical(kernel, 1024, 4), kernel.both(X, X), strict=True):
        # Four networks of 1,024 units: standard errors of a few per cent.
        np.testing.assert_allclose(ours.mean(0), exact, rtol=0.15, atol=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["erf", "gelu", "sin", "abs", "rbf", "silu"])
def test_wide_networks_of_other_activations(activation):
    kernel = NTK(depth=2, activation=activation, weight_std=1.1)
    truth = [np.asarray(a, float) for a in kernel.both(X, X)]
    for ours, exact in zip(empirical(kernel, 512, 100), truth, strict=True):
        agrees(ours, exact, 4.0 / 512)


def functions_agree(prior, kernel, x, num=3000, bias=0.03):
    """Second moments of the functions of a finite prior against a kernel."""
    f = np.concatenate([np.asarray(prior.sample(i, x, num // 10)) for i in range(10)])[..., 0]
    products = f[:, :, None] * f[:, None, :]
    agrees(products, np.asarray(kernel.kernel(x, x), float), bias)


@pytest.mark.parametrize(
    "network",
    [
        bn.MLP((64, 64), "erf"),
        pytest.param(bn.MLP((64, 64), "gelu", "standard"), marks=pytest.mark.slow),
        pytest.param(bn.ResidualMLP(64, 2, "tanh"), marks=pytest.mark.slow),
        pytest.param(bn.ResidualMLP(64, 2, "relu", "standard"), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_network_priors_tend_to_their_limit(network):
    prior = bn.NetworkPrior(network, bn.weights.Gaussian(scale=1.3), in_dim=3)
    limit = prior.infinite_width()
    assert isinstance(limit, NNGP)
    assert len(limit.layers.stds()) == (3 if isinstance(network, bn.MLP) else 6)
    functions_agree(prior, limit, X)


def test_the_limit_reads_scales_outputs_and_units():
    prior = bn.NetworkPrior(bn.MLP((20,), "relu"), in_dim=2, out_dim=3, units="data")
    scale = jnp.log(jnp.asarray([0.3, 1.4, 0.5, 2.0]))  # b and w of each layer
    prior = jax.tree.map(lambda a: scale, prior)
    limit = prior.infinite_width()
    np.testing.assert_allclose(limit.weight_std, (1.4, 2.0), rtol=1e-6)
    np.testing.assert_allclose(limit.bias_std, (0.3, 0.5), rtol=1e-6)
    assert (limit.out_dim, limit.units) == (3, "data")
    expected = NNGP(depth=1, weight_std=(1.4, 2.0), bias_std=(0.3, 0.5)).kernel(X[:, :2], X[:, :2])
    np.testing.assert_allclose(limit.kernel(X[:, :2], X[:, :2]), expected, rtol=1e-6)


def test_there_and_back(tmp_path):
    kernel = NNGP(DEEP, out_dim=2)
    prior = kernel.finite(7, 3)
    assert prior.network.width == 7
    assert prior.infinite_width() == kernel
    assert prior.sample(0, X, 3).shape == (3, 4, 2)
    save(prior, tmp_path / "prior")
    loaded = bn.load(tmp_path / "prior")
    np.testing.assert_array_equal(loaded.sample(0, X, 3), prior.sample(0, X, 3))
    z = jnp.zeros(prior.latent_size)
    np.testing.assert_allclose(prior.apply(z, jnp.asarray(X)), 0.0)  # no shift hides in the network


@pytest.mark.slow
def test_a_finite_network_is_conditioned_like_any_other():
    prior = NNGP(depth=1).finite(8, 1)
    x = np.linspace(-1, 1, 12)[:, None]
    method = bn.HMC(chains=2, warmup=40, draws=20)
    post = bn.fit(prior, x, np.sin(3 * x[:, 0]), inference=method, warn=False, seed=0)
    assert np.isfinite(post.predict(x).mean).all()


def test_priors_without_a_limit_are_refused():
    def refused(match, network=SMALL, weights="gaussian"):
        with pytest.raises(bn.UnsupportedError, match=match):
            bn.NetworkPrior(network, weights, in_dim=3).infinite_width()

    refused("HierarchicalLaw", weights="hierarchical")
    refused("StudentTLaw", weights="student_t")
    foreign = (lambda key: {"w": jnp.zeros((3, 1))}, lambda p, x: x @ p["w"])
    refused("ForeignNetwork is not known", foreign)
    prior = bn.NetworkPrior(bn.MLP((4,)), bn.weights.Gaussian(loc="tied"), in_dim=3)
    shifted = jax.tree.map(lambda a: a + 0.1, prior)
    with pytest.raises(bn.UnsupportedError, match="with a mean"):
        shifted.infinite_width()
    assert prior.infinite_width().kernel(X, X).shape == (4, 4)  # means that are 0 do not matter
    units = bn.NetworkPrior(bn.MLP((4,)), bn.weights.Gaussian(per="unit"), in_dim=3)
    assert units.infinite_width().weight_std == (1.0, 1.0)
    uneven = jax.tree.map(lambda a: a + jnp.arange(a.size), units)
    with pytest.raises(bn.UnsupportedError, match='per="layer"'):
        uneven.infinite_width()
    with pytest.raises(bn.UnsupportedError, match="finite"):
        empirical_nngp(prior, jnp.zeros(prior.latent_size), X, X)
    with pytest.raises(bn.InputError, match="width must be a whole number"):
        NNGP().finite(0, 3)
