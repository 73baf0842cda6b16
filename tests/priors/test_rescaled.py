"""Lengthscale and amplitude as latents: closed forms, quadrature, saving, every sampler's view."""

from __future__ import annotations

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import bayesnet as bn
from bayesnet._errors import InputError, UnsupportedError
from bayesnet.posterior.saving import load, save
from bayesnet.priors.matching import function_distance

LENGTH, SCALE = bn.LogNormal([0.2, -0.3], 0.4), bn.LogNormal(0.5, 0.6)
FREQUENCIES = np.random.default_rng(5).normal(size=12).astype(np.float32)


def linear_base(in_dim: int = 2) -> bn.NetworkPrior:
    return bn.NetworkPrior(bn.MLP(()), in_dim=in_dim)


def start_features(key):
    return {"w": jnp.zeros(2 * len(FREQUENCIES))}


def features(x):
    """A unit process with the kernel `features(x) @ features(x').T`, close to RBF(1)."""
    angles = x * FREQUENCIES
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], 1) / len(FREQUENCIES) ** 0.5


def apply_features(params, x):
    return features(x) @ params["w"]


def test_the_covariance_is_the_rescaled_kernel() -> None:
    """A linear base has the kernel 1 + x . x' / d: known for every lengthscale and variance."""
    x = np.random.default_rng(0).normal(size=(4, 2))
    prior = bn.RescaledPrior(linear_base(), (0.5, 2.0), 3.0)
    assert prior.latent_size == 3
    draws = np.asarray(prior.sample(0, x, 20_000))[..., 0]
    scaled = x / [0.5, 2.0]
    expected = 3.0 * (1.0 + scaled @ scaled.T / 2)
    error = np.sqrt((expected**2 + np.outer(np.diag(expected), np.diag(expected))) / len(draws))
    assert np.abs((draws.T @ draws / len(draws) - expected) / error).max() < 4.5


def test_random_hyperparameters_mix_the_kernels() -> None:
    """E[cov] over log-normal l and variance: E[o] (1 + sum_j x_j x'_j E[l_j^-2] / d)."""
    x = np.random.default_rng(1).normal(size=(3, 2))
    prior = bn.RescaledPrior(linear_base(), LENGTH, SCALE)
    draws = np.asarray(prior.sample(3, x, 60_000), np.float64)[..., 0]
    products = draws[:, :, None] * draws[:, None, :]
    inverse = np.exp(-2 * np.asarray(LENGTH.loc) + 2 * 0.4**2)
    expected = np.exp(0.5 + 0.5 * 0.6**2) * (1.0 + (x * inverse) @ x.T / 2)
    error = products.std(0) / len(draws) ** 0.5
    assert np.abs((products.mean(0) - expected) / error).max() < 4.5


def test_latents_are_the_base_then_lengthscales_then_variance() -> None:
    prior = bn.RescaledPrior(linear_base(), LENGTH, SCALE)
    z = jnp.asarray([0.3, -1.0, 0.8, 1.0, -2.0, 0.5])
    assert prior.latent_size == len(z)
    hyper = prior.hyperparameters(jnp.stack([jnp.append(z, 9.0)] * 2))
    np.testing.assert_allclose(
        hyper["lengthscale"], [np.exp([0.2 + 0.4, -0.3 - 0.8])] * 2, rtol=1e-6
    )
    np.testing.assert_allclose(hyper["outputscale"], [[np.exp(0.8)]] * 2, rtol=1e-6)
    x = jnp.asarray([[0.4, -1.2], [2.0, 0.1]])
    expected = np.exp(0.4) * prior.base.apply(z[:3], x / hyper["lengthscale"][0])
    np.testing.assert_allclose(prior.apply(z, x), expected, rtol=1e-5)
    fixed = prior.at(lengthscale=2.0)
    assert fixed.latent_size == 4
    assert fixed.outputscale == SCALE
    wild = prior.apply(jnp.asarray([0.3, -1.0, 0.8, 8.0, -8.0, 8.0]), x)
    assert np.isfinite(wild).all()


@pytest.mark.slow
def test_gradients_are_finite_differences() -> None:
    prior = bn.RescaledPrior(bn.NetworkPrior(bn.MLP((4,)), in_dim=2), LENGTH, SCALE)
    with jax.enable_x64(True):
        rng = np.random.default_rng(2)
        z, x = jnp.asarray(rng.normal(size=prior.latent_size)), jnp.asarray(rng.normal(size=(1, 2)))
        both = jnp.concatenate([z, x[0]])

        def value(v):
            return prior.apply(v[: len(z)], v[len(z) :][None])[0, 0]

        slope = jax.grad(value)(both)
        steps = 1e-6 * jnp.eye(len(both))
        numeric = jax.vmap(lambda s: (value(both + s) - value(both - s)) / 2e-6)(steps)
        np.testing.assert_allclose(slope, numeric, rtol=1e-4, atol=1e-6)


def test_parameters_are_encoded_as_the_function_they_are() -> None:
    base = bn.NetworkPrior(bn.MLP((4,)), in_dim=2)
    prior = bn.RescaledPrior(base, LENGTH, SCALE)
    params = base.network.init(jax.random.key(0), 2, 1)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)), jnp.float32)
    z = prior.encode(params)
    assert z.shape == (prior.latent_size,)
    np.testing.assert_allclose(prior.apply(z, x), base.network.apply(params, x), rtol=1e-4)
    with pytest.raises(UnsupportedError, match="fixed at 2"):
        prior.at(outputscale=2.0).encode(params)


def test_saving_pickling_and_copying_keep_the_prior(tmp_path) -> None:
    prior = bn.RescaledPrior(linear_base(), LENGTH, 2.0)
    save(prior, tmp_path / "prior")
    x = np.ones((2, 2))
    expected = np.asarray(prior.sample(0, x, 3))
    for again in (
        load(tmp_path / "prior"),
        pickle.loads(pickle.dumps(prior)),
        copy.deepcopy(prior),
    ):
        assert again.lengthscale == LENGTH
        np.testing.assert_array_equal(again.sample(0, x, 3), expected)


def test_the_sampling_form_of_the_base_keeps_the_density() -> None:
    base = bn.NetworkPrior(bn.MLP((3,)), bn.weights.Hierarchical(centred=1.0))
    prior = bn.RescaledPrior(base, bn.LogNormal(0.0, 0.5), SCALE)
    form = prior.sampling_form()
    v = jnp.asarray(np.random.default_rng(0).normal(size=prior.latent_size), jnp.float32)
    z = form.law.to_latents(v)
    assert z.shape == v.shape
    np.testing.assert_allclose(form.law.from_latents(z), v, rtol=1e-4, atol=1e-5)
    x = jnp.linspace(-1, 1, 5)[:, None]
    np.testing.assert_allclose(form.apply(v, x), prior.apply(z, x), rtol=1e-4, atol=1e-5)
    _, volume = np.linalg.slogdet(np.asarray(jax.jacobian(form.law.to_latents)(v), np.float64))
    density = -0.5 * float(v @ v) + float(form.log_correction(v))
    assert density == pytest.approx(-0.5 * float(z @ z) + volume, abs=1e-3)
    assert bn.RescaledPrior(linear_base(), 1.0).sampling_form() is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((bn.GaussianProcess("rbf"),), "NetworkPrior"),
        ((linear_base(), -1.0), "positive"),
        ((linear_base(), bn.Normal(0.0, 1.0)), "positive"),
        ((linear_base(), bn.LogNormal([0.0] * 3, 1.0)), "shape"),
        ((linear_base(), 1.0, bn.LogNormal([0.0, 0.0], 1.0)), "one value"),
    ],
)
def test_bad_input_is_refused(arguments, message) -> None:
    with pytest.raises(InputError, match=message):
        bn.RescaledPrior(*arguments)


def test_a_law_that_is_no_transport_is_refused() -> None:
    import numpyro.distributions as dist

    with pytest.raises(InputError, match="LogNormal"):
        bn.RescaledPrior(linear_base(), dist.Gamma(2.0, 2.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel": "linear"}, "stationary"),
        ({"lengthscale": 0.5}, "LogNormal"),
        ({"quantiles": (0.0,)}, "quantiles"),
        ({"lengthscale": bn.LogNormal([0.0] * 3, 1.0)}, "shape"),
    ],
)
def test_match_rescaled_refuses(arguments, message) -> None:
    given = {"kernel": "rbf", "lengthscale": bn.LogNormal(0.0, 0.5)} | arguments
    with pytest.raises(InputError, match=message):
        bn.match_rescaled(linear_base(), given.pop("kernel"), bn.Box([-1, -1], [1, 1]), **given)


@pytest.mark.slow
def test_hmc_over_weights_lengthscale_and_variance_is_the_quadrature() -> None:
    """Fixed features: given (l, variance) it is linear regression, its evidence exact. The
    posterior of the two, and functions averaged over it, by a grid over their latents."""
    rng = np.random.default_rng(3)
    x = np.sort(rng.uniform(-2.5, 2.5, (16, 1)), axis=0)
    y = np.sin(2 * x[:, 0]) * 1.5 + rng.normal(0, 0.2, 16)
    laws = bn.LogNormal(0.0, 0.5), bn.LogNormal(0.0, 0.8)
    base = bn.NetworkPrior((start_features, apply_features), units="data")
    post = bn.fit(
        bn.RescaledPrior(base, *laws),
        x,
        y,
        likelihood=bn.GaussianLikelihood(noise_std=0.2),
        inference=bn.HMC(chains=4, warmup=400, draws=700),
        seed=0,
        warn=False,
    )
    new = np.asarray([[-2.0], [0.4], [3.0]])
    grid = np.linspace(-4.5, 4.5, 46)
    logs, values, means = [], [], []
    for a in grid:
        for b in grid:
            scale, amplitude = np.exp(0.5 * a), np.exp(0.4 * b)
            phi, phi_new = (
                amplitude * np.asarray(features(v / scale), np.float64) for v in (x, new)
            )
            exact = oracles.LinearRegression.fit(phi, y, 0.2**2)
            logs.append(exact.log_evidence - 0.5 * (a * a + b * b))
            values.append((0.5 * a, 0.8 * b))
            means.append(exact.functions(phi_new)[0])
    weight = np.exp(np.asarray(logs) - max(logs))
    weight /= weight.sum()
    values, means = np.asarray(values), np.asarray(means)
    hyper = post.prior.hyperparameters(post.latents)
    draws = np.log(np.concatenate([hyper["lengthscale"], hyper["outputscale"]], axis=-1))
    centre = weight @ values
    # The data say something: the posterior is narrower than the prior.
    assert weight @ (values[:, 0] - centre[0]) ** 2 < 0.5 * 0.5**2
    f = np.asarray(post.functions(new))[..., 0].reshape(4, 700, 3)
    for drawn, truth in (
        (draws, centre),
        ((draws - centre) ** 2, weight @ (values - centre) ** 2),
        (f, weight @ means),
    ):
        scores = oracles.z_scores(drawn, truth)
        assert np.abs(scores).max() < 5.0, scores
    report = str(post.diagnostics())
    assert "lengthscale" in report
    assert "outputscale" in report


def test_an_exact_base_has_no_gap_and_another_lengthscale_has() -> None:
    """Base and target are the same network: the distance is zero, and is not at another l."""
    base = bn.NetworkPrior(bn.MLP((10,)))
    box = bn.Box(-2.0, 2.0)
    half = bn.RescaledPrior(base, 0.5, 2.0)
    same, error = function_distance(half, half.at(), box)
    assert abs(same) < 4 * error + 1e-3
    far, error = function_distance(half, half.at(lengthscale=1.5), box)
    assert far > 10 * error


@pytest.mark.slow
def test_one_match_serves_several_lengthscales() -> None:
    result = bn.match_rescaled(
        bn.NetworkPrior(bn.MLP((8,))),
        "rbf",
        bn.Box(-1.5, 1.5),
        lengthscale=bn.LogNormal(0.0, 0.4),
        outputscale=SCALE,
        quantiles=(0.1, 0.9),
        steps=50,
        num_functions=48,
        num_points=24,
    )
    assert result.prior.latent_size == result.match.prior.latent_size + 2
    for gap in result.gaps:
        assert gap.distance < 0.6 * gap.unmatched
    # The gap is that of the rescaled prior to the process itself, measured anew.
    gap = result.gaps[0]
    target = bn.GaussianProcess("rbf", gap.lengthscale[0], 3.0)
    there = result.prior.at(gap.lengthscale[0], 3.0)
    again, error = function_distance(there, target, bn.Box(-1.5, 1.5), seed=4)
    assert again == pytest.approx(gap.distance, abs=5 * (error + gap.standard_error))
    assert result.gaps[0].lengthscale[0] == pytest.approx(np.exp(-0.4 * 1.2816), rel=1e-3)
    assert "lengthscale" in str(result)


@pytest.mark.slow
def test_the_gap_of_one_match_is_near_that_of_direct_matches() -> None:
    """The default network at three lengthscales, against a match made for each."""
    prior, box = bn.NetworkPrior(bn.MLP((50, 50))), bn.Box(-2.0, 2.0)
    result = bn.match_rescaled(prior, "matern52", box, lengthscale=bn.LogNormal(0.35, 0.7))
    print(result)
    for gap in result.gaps:
        target = bn.GaussianProcess("matern52", gap.lengthscale[0])
        direct = bn.match_prior(prior, target, box).prior
        distance, error = function_distance(direct, target, box)
        print(f"direct at {gap.lengthscale[0]:.3g}: {distance:.4f} +- {error:.4f}")
        assert gap.distance < max(3 * distance, 0.1) + 4 * (error + gap.standard_error)
        assert gap.distance < 0.5 * gap.unmatched
