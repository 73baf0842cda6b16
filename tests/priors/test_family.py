"""Amortised matches: the exact map of a linear network, conditionals, saving, bad input."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesnet as bn
from bayesnet._errors import InputError
from bayesnet.posterior.saving import load, save
from bayesnet.priors.amortised import AmortisedPrior, ParameterMap, moved
from bayesnet.priors.matching.family import match_family
from bayesnet.priors.matching.family_target import FamilyPoints, FamilyTarget

LENGTH = bn.LogNormal(0.2, 0.5)
BOX = bn.Box([-2.0, -2.0], [2.0, 2.0])


@pytest.fixture(scope="module")
def linear():
    """A linear network and the linear kernel: the law of weights is N(0, d / l^2), no bias."""
    prior = bn.NetworkPrior(bn.MLP(()), in_dim=2)
    target = bn.GaussianProcess("linear", lengthscale=LENGTH)
    return match_family(prior, target, BOX, steps=300, num_functions=64, num_points=24)


@pytest.mark.slow
def test_the_map_of_a_linear_network_is_found(linear) -> None:
    """log sd of weights = log(sqrt(d) / l), for all lengthscales of the law."""
    for length in (0.6, 1.2, 2.4):
        scales = np.exp(np.asarray(linear.prior.at(lengthscale=length).law.log_scale))
        bias, weight = scales
        assert abs(np.log(weight) - np.log(2**0.5 / length)) < 0.1
        assert bias < 0.2


def test_the_gap_is_stated_and_small(linear) -> None:
    low, middle, high = linear.gaps
    for gap in linear.gaps:
        assert gap.distance < 0.03 + 3 * gap.standard_error
    # One law for all is wrong at both ends, so the comparison can fail.
    assert low.constant > 0.1
    assert high.constant > 0.1
    assert abs(middle.hyperparameters["lengthscale"][0] - np.exp(0.2)) < 1e-4
    assert len(str(linear).splitlines()) == 4
    assert linear.history["held_out"][-1] < linear.history["held_out"][0]


def test_latents_are_weights_then_hyperparameters(linear) -> None:
    prior = linear.prior
    assert prior.latent_size == prior.base.latent_size + 1
    z = jnp.asarray([0.3, -1.0, 0.8, 1.5])
    value = float(np.exp(0.2 + 0.5 * 1.5))
    np.testing.assert_allclose(prior.hyperparameters(z)["lengthscale"], value, rtol=1e-5)
    x = jnp.asarray([[0.4, -1.2], [2.0, 0.1]])
    fixed = prior.at(lengthscale=value)
    np.testing.assert_allclose(prior.apply(z, x), fixed.apply(z[:3], x), rtol=1e-4, atol=1e-5)
    params = fixed.network.init(jax.random.key(0), 2, 1)
    again = prior.apply(prior.encode(params), x)
    np.testing.assert_allclose(again, fixed.network.apply(params, x), rtol=1e-4, atol=1e-5)


def test_targets_of_a_family_have_the_covariance_of_their_latents() -> None:
    process = bn.GaussianProcess("rbf", bn.LogNormal(0.1, 0.4)) + bn.GaussianProcess(
        "linear", outputscale=bn.LogNormal(-0.5, 1.0), mean=0.7
    )
    family = FamilyTarget(process)
    assert family.size == 2
    x = np.asarray([[-1.0], [0.2], [1.3]], np.float32)
    z = np.asarray([0.8, -0.5], np.float32)
    rows = np.concatenate([x, np.tile(z, (3, 1))], axis=1)
    draws = np.asarray(family.sample(jax.random.key(0), jnp.asarray(rows), 40_000))[..., 0]
    length, scale = np.exp(0.1 + 0.4 * z[0]), np.exp(-0.5 + z[1])
    expected = np.exp(-0.5 * (x - x.T) ** 2 / length**2) + scale * x @ x.T
    error = np.sqrt((expected**2 + np.outer(np.diag(expected), np.diag(expected))) / len(draws))
    centred = draws - 0.7
    assert np.abs((centred.T @ centred / len(draws) - expected) / error).max() < 4.5


def test_points_of_one_set_share_hyperparameters() -> None:
    law = FamilyPoints(_box(), jnp.zeros(2), jnp.ones(2))
    start, towards = law.draw_ends(jax.random.key(1), 5)
    assert start.shape == (5, 3)
    assert len(np.unique(np.concatenate([start, towards])[:, 1:], axis=0)) == 1
    other, _ = law.draw_ends(jax.random.key(2), 5)
    assert not np.allclose(other[0, 1:], start[0, 1:])


def _box():
    from bayesnet.priors.matching.points import as_point_law

    return as_point_law(bn.Box(-1.0, 1.0), 1)


@pytest.mark.slow
def test_a_posterior_over_hyperparameters(linear) -> None:
    """The exact posterior of the lengthscale on a grid, beside that of HMC in the latents."""
    rng = np.random.default_rng(3)
    X = rng.uniform(-2, 2, (12, 2))
    y = X @ [1.5, -2.0] + rng.normal(0, 0.3, 12)
    scaling = bn.data.Scaling.identity(2, 1)
    method = bn.HMC(chains=2, warmup=150, draws=300)
    post = bn.fit(
        linear.prior,
        X,
        y,
        likelihood=bn.GaussianLikelihood(0.3),
        inference=method,
        scaling=scaling,
        warn=False,
    )
    drawn = np.log(post.prior.hyperparameters(post.latents)["lengthscale"])
    u = np.linspace(-4, 4, 401)
    log_l = 0.2 + 0.5 * u
    density = []
    for value in log_l:
        # The network has the biases that were matched, beside the linear kernel.
        law = linear.prior.at(lengthscale=float(np.exp(value))).law
        bias, weight = np.exp(2 * np.asarray(law.log_scale, np.float64))
        matrix = weight * X @ X.T / 2 + bias + 0.09 * np.eye(12)
        factor = np.linalg.cholesky(matrix)
        e = np.linalg.solve(factor, y)
        density.append(-0.5 * e @ e - np.log(np.diag(factor)).sum())
    density = np.exp(np.asarray(density) - np.max(density) - 0.5 * u**2)
    density /= density.sum()
    mean = density @ log_l
    sd = np.sqrt(density @ (log_l - mean) ** 2)
    row = next(r for r in post.diagnostics().rows if "lengthscale" in r.name)
    assert abs(drawn.mean() - mean) < 5 * sd / np.sqrt(row.ess_bulk)
    assert abs(drawn.mean() - 0.2) > 0.2  # the data do move it


def test_saving(linear, tmp_path) -> None:
    save(linear.prior, tmp_path / "p.safetensors")
    again = load(tmp_path / "p.safetensors")
    x = np.linspace(-1, 1, 6).reshape(3, 2)
    np.testing.assert_array_equal(again.sample(0, x, 3), linear.prior.sample(0, x, 3))


def test_moved_laws_and_empty_maps() -> None:
    law = bn.NetworkPrior(bn.MLP((4,)), in_dim=1).law
    map_ = ParameterMap.create(jax.random.key(0), 2, 4)
    np.testing.assert_array_equal(map_(jnp.ones(2)), 0.0)
    by = jnp.arange(4.0)
    np.testing.assert_allclose(moved(law, by).log_scale, law.log_scale + by)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (bn.GaussianProcess("rbf"), "no random hyper-parameters"),
        (bn.GaussianProcess("rbf", LENGTH, mean="linear"), "constant mean"),
        (object(), "bn.GaussianProcess"),
    ],
)
def test_bad_targets(target, message) -> None:
    with pytest.raises(InputError, match=message):
        match_family(bn.NetworkPrior(bn.MLP((4,)), in_dim=2), target, BOX)


def test_other_laws_and_values_are_refused(linear) -> None:
    from numpyro.distributions import HalfNormal

    target = bn.GaussianProcess("rbf", HalfNormal(1.0))
    net = bn.NetworkPrior(bn.MLP((4,)), in_dim=2)
    with pytest.raises(InputError, match="transport of normal latents"):
        match_family(net, target, BOX)
    with pytest.raises(InputError, match="quantiles"):
        match_family(net, bn.GaussianProcess("rbf", LENGTH), BOX, quantiles=(0.0,))
    with pytest.raises(InputError, match="outputscale"):
        linear.prior.at(outputscale=1.0)
    with pytest.raises(InputError, match="positive"):
        linear.prior.at(lengthscale=-1.0)
    with pytest.raises(InputError, match="shape"):
        linear.prior.sample(0, np.zeros((3, 5)), 2)
    assert isinstance(linear.prior, AmortisedPrior)
