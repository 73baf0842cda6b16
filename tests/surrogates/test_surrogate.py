"""`Surrogate` as a BoTorch model: every option of `posterior`, transforms, copies, bad input."""

from __future__ import annotations

import copy
import importlib
import pickle
import sys

import numpy as np
import oracles
import pytest
import torch
from botorch.acquisition.objective import (
    ExpectationPosteriorTransform,
    ScalarizedPosteriorTransform,
)
from botorch.models import ModelList
from botorch.models.transforms.input import InputPerturbation, Normalize, Warp
from botorch.models.transforms.outcome import Log, Power, Standardize
from gpytorch.priors import LogNormalPrior

import bayesnet as bn
from bayesnet._errors import InputError, MissingExtraError, UnsupportedError
from bayesnet.data import Scaling, make_data
from bayesnet.surrogates import DrawsPosterior, Surrogate


def points(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.double)


# --- the posterior --------------------------------------------------------------------------


def test_shapes_and_dtype(surrogate):
    posterior = surrogate.posterior(points(4, 3, 2))
    assert isinstance(posterior, DrawsPosterior)
    assert posterior.mean.shape == posterior.variance.shape == (4, 3, 1)
    assert posterior.mean.dtype == torch.double
    assert surrogate.posterior(points(5, 2)).mean.shape == (5, 1)
    assert surrogate.posterior(points(2, 3, 1, 2)).batch_shape == (2, 3)
    assert surrogate.posterior(points(3, 2).float()).mean.dtype == torch.float32
    assert surrogate.batch_shape == torch.Size()
    assert surrogate.num_outputs == 1


def test_values_are_those_of_the_posterior_in_user_units(make):
    fitted = make.posterior()
    model = Surrogate.from_posterior(fitted)
    X = points(6, 2)
    expected = fitted.predict(X.numpy())
    posterior = model.posterior(X)
    np.testing.assert_allclose(posterior.mean.numpy(), expected.values.mean(0), rtol=1e-4)
    np.testing.assert_allclose(posterior.variance.sqrt().numpy(), expected.epistemic_std, rtol=1e-4)
    noisy = model.posterior(X, observation_noise=True)
    np.testing.assert_allclose(noisy.variance.sqrt().numpy(), expected.std, rtol=1e-4)
    level = noisy.quantile(torch.tensor(0.9)).numpy()
    np.testing.assert_allclose(level, expected.quantile(0.9), rtol=1e-4)


def test_the_same_draws_at_every_call_and_in_every_batch(surrogate):
    X = points(4, 3, 2)
    values = surrogate.posterior(X).values
    assert torch.equal(values, surrogate.posterior(X).values)
    for b in range(4):
        alone = surrogate.posterior(X[b]).values
        torch.testing.assert_close(alone, values[b], rtol=1e-12, atol=1e-12)
    single = surrogate.posterior(X[2, 1:2]).values
    torch.testing.assert_close(single, values[2, :, 1:2], rtol=1e-12, atol=1e-12)


def test_gradients_through_the_posterior(surrogate):
    X = points(2, 2, 2).requires_grad_()

    def moments(X):
        posterior = surrogate.posterior(X, observation_noise=True)
        return (
            posterior.mean,
            posterior.variance,
            surrogate.posterior(X).quantile(X.new_tensor(0.3)),
        )

    assert torch.autograd.gradcheck(moments, (X,))


def test_observation_noise_tensor(surrogate):
    X = points(4, 3, 2)
    clean = surrogate.posterior(X).variance
    for shape in ((1, 1), (3, 1), (4, 1, 1)):
        noise = torch.full(shape, 0.7, dtype=torch.double)
        noisy = surrogate.posterior(X, observation_noise=noise).variance
        torch.testing.assert_close(noisy, clean + 0.7)
    with pytest.raises(InputError, match="broadcast"):
        surrogate.posterior(X, observation_noise=torch.ones(5, 1))
    with pytest.raises(InputError, match="negative"):
        surrogate.posterior(X, observation_noise=-torch.ones(1, 1))


def test_known_row_variances_give_the_mean_training_noise(make):
    model = make.surrogate(y_var=0.04)
    X = points(3, 2)
    added = model.posterior(X, observation_noise=True).variance - model.posterior(X).variance
    torch.testing.assert_close(added, torch.full_like(added, 0.04), rtol=1e-4, atol=0.0)


def test_several_outputs(make):
    model = make.surrogate(out_dim=3)
    X = points(4, 2, 2)
    posterior = model.posterior(X)
    assert model.num_outputs == 3
    assert posterior.mean.shape == (4, 2, 3)
    some = model.posterior(X, output_indices=[2, 0], observation_noise=True)
    every = model.posterior(X, observation_noise=True)
    torch.testing.assert_close(some.variance, every.variance[..., [2, 0]])
    subset = model.subset_output([1, 2])
    assert subset.num_outputs == 2
    assert model.num_outputs == 3
    torch.testing.assert_close(subset.posterior(X).mean, posterior.mean[..., 1:])
    torch.testing.assert_close(
        subset.subset_output([1]).posterior(X).mean, posterior.mean[..., [2]]
    )
    noise = torch.tensor([[0.5, 0.25]])
    torch.testing.assert_close(
        subset.posterior(X, observation_noise=noise).variance - subset.posterior(X).variance,
        noise.double().expand(4, 2, 2),
    )
    with pytest.raises(InputError, match="output_indices"):
        model.posterior(X, output_indices=[3])


def test_scalarized_posterior(make):
    model = make.surrogate(out_dim=2)
    X = points(4, 3, 2)
    weights = torch.tensor([0.3, -2.0], dtype=torch.double)
    transform = ScalarizedPosteriorTransform(weights, offset=1.5)
    posterior = model.posterior(X, posterior_transform=transform)
    expected = model.posterior(X).values @ weights + 1.5
    torch.testing.assert_close(posterior.mean[..., 0], expected.mean(1))
    torch.testing.assert_close(posterior.variance[..., 0], expected.var(1, correction=0))
    assert posterior.rsample(torch.Size([5])).shape == (5, 4, 3, 1)
    noisy = model.posterior(X, observation_noise=True, posterior_transform=transform)
    parts = model.posterior(X, observation_noise=True).variance - model.posterior(X).variance
    torch.testing.assert_close(
        noisy.variance[..., 0], posterior.variance[..., 0] + parts @ weights**2
    )
    samples = noisy.rsample(torch.Size([24 * 2000]))
    torch.testing.assert_close(samples.var(0), noisy.variance, rtol=0.05, atol=0.0)
    assert noisy.quantile(torch.tensor(0.5)).shape == (4, 3, 1)


def test_expectation_over_perturbed_inputs(make):
    fitted = make.posterior()
    model = Surrogate.from_posterior(fitted)
    shifts = torch.tensor([[0.0, 0.0], [0.1, -0.1], [0.05, 0.2]], dtype=torch.double)
    model.input_transform = InputPerturbation(shifts).eval()
    X = points(4, 2, 2)
    posterior = model.posterior(
        X, posterior_transform=ExpectationPosteriorTransform(n_w=3), observation_noise=True
    )
    plain = Surrogate.from_posterior(fitted)
    each = torch.stack([plain.posterior(X + shift).mean for shift in shifts])
    torch.testing.assert_close(posterior.mean, each.mean(0))
    assert posterior.rsample(torch.Size([3])).shape == (3, 4, 2, 1)


# --- fitting --------------------------------------------------------------------------------


def test_fits_and_predicts(fitted, table):
    X, Y = table
    posterior = fitted.posterior(X)
    assert fitted.num_draws == 64
    residual = (posterior.mean - Y).std() / Y.std()
    assert residual < 0.5
    assert torch.equal(fitted.train_inputs[0], X)
    assert torch.equal(fitted.train_targets, Y[:, 0])
    assert fitted.likelihood == bn.GaussianLikelihood()
    assert fitted.fitted.num_draws == 64


def test_transforms_give_what_transformed_data_give(table, settings):
    X, Y = table
    X, Y = 4 * X - 1, Y + 20
    Yvar = torch.full_like(Y, 0.04)
    tf = {"input_transform": Normalize(2), "outcome_transform": Standardize(1)}
    model = Surrogate(X, Y, Yvar, **tf, **settings)
    low, high = X.amin(0), X.amax(0)
    loc, scale = Y.mean(), Y.std()
    by_hand = Surrogate(
        (X - low) / (high - low),
        (Y - loc) / scale,
        Yvar / scale**2,
        scaling=Scaling.identity(2, 1),
        **settings,
    )
    at = 4 * points(5, 2) - 1
    for noise in (False, True):
        ours = model.posterior(at, observation_noise=noise)
        theirs = by_hand.posterior((at - low) / (high - low), observation_noise=noise)
        torch.testing.assert_close(ours.mean, theirs.mean * scale + loc, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(ours.variance, theirs.variance * scale**2, rtol=1e-2, atol=1e-5)
    # BoTorch swaps the stored inputs between the modes.
    model.train()
    assert torch.equal(model.train_inputs[0], X)
    model.eval()
    torch.testing.assert_close(model.train_inputs[0], (X - low) / (high - low))
    assert torch.equal(model.posterior(at).mean, model.posterior(at).mean)


def test_warped_inputs_and_logged_outcomes(table, settings):
    X, Y = table
    Y = torch.exp(Y / 10)
    warp = Warp(
        d=2,
        indices=[0, 1],
        concentration1_prior=LogNormalPrior(0.0, 0.3),
        concentration0_prior=LogNormalPrior(0.0, 0.3),
    )
    with torch.no_grad():
        warp.concentration0.fill_(2.0)
    model = Surrogate(X, Y, input_transform=warp, outcome_transform=Log(), **settings)
    at = points(3, 2, 2).requires_grad_()
    posterior = model.posterior(at, observation_noise=True)
    assert (posterior.rsample(torch.Size([20])) > 0).all()
    posterior.mean.sum().backward()
    assert torch.isfinite(at.grad).all()
    inner = torch.log(model.posterior(at).values)
    by_hand = model.forward(warp(at)).movedim(0, -3)
    torch.testing.assert_close(inner, by_hand)
    with pytest.raises(InputError, match="train_Yvar"):
        Surrogate(X, Y, torch.ones_like(Y), outcome_transform=Power(0.5), **settings)


def linear_features(a):
    """Of the linear network: inputs over sqrt(d), and the bias; its latents are N(0, 1)."""
    return np.c_[np.ones(len(a)), a / np.sqrt(a.shape[1])]


@pytest.fixture
def regression():
    """A linear table under known noise 0.3: x, y, new points, exact mean and covariance there."""
    rng = np.random.default_rng(3)
    x, at = rng.normal(size=(9, 2)), rng.normal(size=(5, 2))
    y = x @ np.array([[1.0], [-0.5]]) + 0.3 * rng.normal(size=(9, 1))
    exact = oracles.LinearRegression.fit(linear_features(x), y[:, 0], 0.09)
    return x, y, at, exact


def check_regression(model, chains, at, exact):
    mean, cov = exact.functions(linear_features(at))
    posterior = model.posterior(torch.tensor(at))
    values = posterior.values[..., 0].numpy().reshape(chains, -1, len(at))
    assert np.abs(oracles.z_scores(values, mean)).max() < 5
    assert np.abs(oracles.z_scores((values - mean) ** 2, np.diag(cov))).max() < 5
    np.testing.assert_allclose(posterior.mean[:, 0], values.mean((0, 1)))
    noisy = model.posterior(torch.tensor(at), observation_noise=True)
    added = noisy.variance - posterior.variance
    torch.testing.assert_close(added, torch.full_like(added, 0.09), rtol=1e-4, atol=0.0)


def test_exact_draws_have_the_moments_of_bayesian_linear_regression(regression):
    x, y, at, exact = regression
    prior = bn.NetworkPrior(bn.MLP(hidden=()), in_dim=2, units="data")
    likelihood = bn.GaussianLikelihood(0.3)
    data = make_data(x, y, None, Scaling.identity(2, 1))
    rng = np.random.default_rng(0)
    # The latents are (bias, weights): parameters in the order of their names.
    z = rng.multivariate_normal(exact.mean, exact.cov, size=(4, 500)).astype(np.float32)
    draws = bn.FunctionDraws(prior, likelihood, data, z)
    check_regression(Surrogate.from_posterior(draws, max_draws=None), 4, at, exact)


@pytest.mark.slow
def test_a_fit_agrees_with_bayesian_linear_regression(regression):
    x, y, at, exact = regression
    model = Surrogate(
        torch.tensor(x),
        torch.tensor(y),
        prior=bn.NetworkPrior(bn.MLP(hidden=()), in_dim=2, units="data"),
        likelihood=bn.GaussianLikelihood(0.3),
        inference=bn.HMC(chains=4, warmup=200, draws=500),
        max_draws=None,
        warn=False,
    )
    check_regression(model, 4, at, exact)


def test_a_given_scaling_is_kept(table, settings):
    scaling = Scaling.from_bounds(np.array([[0.0, 0.0], [1.0, 1.0]]), np.zeros(1), np.ones(1))
    model = Surrogate(*table, scaling=scaling, **settings)
    kept = model.fitted.data.scaling
    for name in ("x_loc", "x_scale", "y_loc", "y_scale"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(scaling, name))


def test_init_goes_on_from_an_earlier_surrogate(fitted, table, settings):
    X, Y = table
    short = {**settings, "inference": bn.HMC(chains=2, warmup=50, draws=32)}
    again = Surrogate(X, Y, init=fitted, **short)
    assert again.num_draws == fitted.num_draws
    assert not torch.equal(again.posterior(X).mean, fitted.posterior(X).mean)


def test_max_draws(table, make):
    posterior = make.posterior(draws=40)
    model = Surrogate.from_posterior(posterior, max_draws=10)
    assert model.num_draws == 10
    assert model.posterior(points(2, 2)).num_draws == 10
    assert Surrogate.from_posterior(posterior, max_draws=None).num_draws == 40


def test_take_draws(make):
    model = make.surrogate(out_dim=2)
    X = points(3, 2)
    values = model.posterior(X, observation_noise=True).values
    few = model.take_draws([5, 2])
    assert few.num_draws == 2
    assert model.num_draws == 24
    torch.testing.assert_close(few.posterior(X).values, values[[5, 2]])
    noisy = few.posterior(X, observation_noise=True)
    assert (noisy.variance > few.posterior(X).variance).all()
    one = model.take_draws([7]).posterior(X)
    torch.testing.assert_close(one.mean, values[7])
    assert (one.variance == 0).all()


def test_condition_on_observations_runs_the_chains_again(fitted, table):
    X, _ = table
    new_X, new_Y = torch.tensor([[0.95, 0.95]]).double(), torch.tensor([[25.0]]).double()
    before = fitted.posterior(new_X).mean
    more = fitted.condition_on_observations(new_X, new_Y)
    assert more is not fitted
    assert torch.equal(fitted.posterior(new_X).mean, before)
    assert len(more.train_inputs[0]) == len(X) + 1
    after = more.posterior(new_X).mean
    assert (after - new_Y).abs() < (before - new_Y).abs()
    with pytest.raises(UnsupportedError, match="fantas"):
        fitted.condition_on_observations(new_X.expand(3, 1, 2), new_Y.expand(3, 1, 1))
    with pytest.raises(UnsupportedError, match="fantas"):
        fitted.fantasize(new_X, sampler=None)
    with pytest.raises(InputError, match="train_Yvar"):
        fitted.condition_on_observations(new_X, new_Y, noise=torch.ones(1, 1))


# --- containers and copies ------------------------------------------------------------------


def test_model_list(make):
    one, two = make.surrogate(seed=0), make.surrogate(seed=1)
    both = ModelList(one, two)
    X = points(4, 3, 2)
    posterior = both.posterior(X)
    assert both.num_outputs == 2
    torch.testing.assert_close(posterior.mean[..., :1], one.posterior(X).mean)
    torch.testing.assert_close(posterior.variance[..., 1:], two.posterior(X).variance)
    assert posterior.rsample(torch.Size([6])).shape == (6, 4, 3, 2)


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch"])
def test_copies_predict_the_same(fitted, how, tmp_path):
    X = points(3, 2)
    before = fitted.posterior(X)
    if how == "deepcopy":
        again = copy.deepcopy(fitted)
    elif how == "pickle":
        again = pickle.loads(pickle.dumps(fitted))
    else:
        torch.save(fitted, tmp_path / "model.pt")
        again = torch.load(tmp_path / "model.pt", weights_only=False)
    posterior = again.posterior(X, observation_noise=True)
    assert torch.equal(again.posterior(X).values, before.values)
    assert torch.equal(posterior.variance, fitted.posterior(X, observation_noise=True).variance)


# --- bad input ------------------------------------------------------------------------------

GOOD_X, GOOD_Y = torch.rand(6, 2).double(), torch.rand(6, 1).double()
NAN = torch.full((6, 1), float("nan")).double()
BAD_TABLES = {
    "1-D Y": (GOOD_X, GOOD_Y[:, 0], None, "unsqueeze"),
    "1-D X": (GOOD_X[:, 0], GOOD_Y, None, "matrix"),
    "batch": (GOOD_X.expand(3, 6, 2), GOOD_Y.expand(3, 6, 1), None, "Batches of training sets"),
    "integers": (
        torch.ones(6, 2, dtype=torch.long),
        GOOD_Y,
        None,
        "floats of single or double precision are needed",
    ),
    "rows": (GOOD_X, GOOD_Y[:4], None, "6 rows but train_Y has 4"),
    "NaN": (GOOD_X, NAN, None, "NaN or infinity"),
    "infinite": (GOOD_X / 0, GOOD_Y, None, "NaN or infinity"),
    "numpy": (GOOD_X.numpy(), GOOD_Y, None, "torch.Tensor"),
    "empty": (GOOD_X[:0], GOOD_Y[:0], None, "No data"),
    "variance shape": (GOOD_X, GOOD_Y, torch.ones(5, 1), "must agree"),
    "variance sign": (GOOD_X, GOOD_Y, torch.zeros(6, 1), "positive"),
    "half": (GOOD_X.half(), GOOD_Y, None, "floats of single or double precision are needed"),
}


@pytest.mark.parametrize("name", sorted(BAD_TABLES))
def test_bad_tables(name):
    X, Y, Yvar, message = BAD_TABLES[name]
    with pytest.raises(InputError, match=message):
        Surrogate(X, Y, Yvar)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (torch.rand(2), "batch x q x 2"),
        (torch.rand(3, 5), "5 columns"),
        (torch.ones(3, 2, dtype=torch.long), "floats"),
        (torch.full((3, 2), float("nan")), "NaN"),
        (np.ones((3, 2)), "torch.Tensor"),
    ],
)
def test_bad_points(surrogate, X, message):
    with pytest.raises(InputError, match=message):
        surrogate.posterior(X)


def test_bad_settings(make):
    with pytest.raises(UnsupportedError, match="function draws"):
        Surrogate.from_posterior(object())
    with pytest.raises(InputError, match="max_draws"):
        Surrogate.from_posterior(make.posterior(), max_draws=0)
    prior = bn.NetworkPrior(bn.MLP((4,)), in_dim=3)
    with pytest.raises(InputError, match="3 inputs"):
        Surrogate(GOOD_X, GOOD_Y, prior=prior)


def test_without_botorch_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "botorch", None)
    monkeypatch.delitem(sys.modules, "bayesnet.surrogates")
    with pytest.raises(MissingExtraError, match=r"pip install bayesnet\[bo\]"):
        importlib.import_module("bayesnet.surrogates")
