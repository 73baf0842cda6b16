"""Fantasies of amortised processes: members conditioned exactly, weighted by what they foretold."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from botorch.acquisition import qKnowledgeGradient
from botorch.acquisition.multi_objective import qLogExpectedHypervolumeImprovement
from botorch.models.transforms import Normalize, Standardize
from botorch.optim import optimize_acqf
from botorch.sampling.get_sampler import get_sampler
from botorch.utils.multi_objective.box_decompositions import NondominatedPartitioning

import bayesnet as bn
from bayesnet.surrogates import IndependentSurrogate, ProcessSurrogate, Surrogate

RNG = np.random.default_rng(5)
X = RNG.uniform(-2, 2, (9, 1))
Y = 4 - 3 * (X - 0.6) ** 2 + 0.5 * RNG.normal(size=(9, 1))
NEW = np.array([[1.7], [-1.1]])
NEW_Y = np.array([[0.5], [-4.0]])
AT = torch.linspace(-2, 2, 7, dtype=torch.float64)[:, None]
BOX = torch.tensor([[-2.0], [2.0]], dtype=torch.float64)


# Surprising rows are warned about, here mostly on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:The new rows leave")


@pytest.fixture(scope="module")
def model():
    posterior = bn.AmortisedProcess.from_pretrained().fit(X, Y[:, 0], members=6)
    return Surrogate.from_posterior(posterior)


def by_hand(model, x, y, at):
    """Weights, mean and variance of f: every member fitted anew, by the ratio of its evidences."""
    scaling = model.fitted.scaling
    ratios, means, variances = [], [], []
    for prior, std in zip(model.fitted.priors, model.fitted.noise_std[:, 0], strict=True):
        found = [
            bn.fit(
                prior,
                a,
                b[:, 0],
                likelihood=bn.GaussianLikelihood(float(std * scaling.y_scale[0])),
                inference="exact",
                scaling=scaling,
            )
            for a, b in ((X, Y), (np.concatenate([X, x]), np.concatenate([Y, y])))
        ]
        ratios.append(np.sum(found[1].log_evidence) - np.sum(found[0].log_evidence))
        prediction = found[1].predict(at)
        means.append(prediction.mean[:, 0])
        variances.append(prediction.epistemic_std[:, 0] ** 2)
    weight = np.exp(np.array(ratios) - max(ratios) + model.fitted.log_shares)
    weight /= weight.sum()
    mean = weight @ np.array(means)
    return weight, mean, weight @ (np.array(variances) + (np.array(means) - mean) ** 2)


def t(a):
    return torch.as_tensor(a)


@pytest.mark.slow
def test_members_are_conditioned_and_reweighted_exactly(model):
    new = model.condition_on_observations(t(NEW), t(NEW_Y))
    weight, mean, variance = by_hand(model, NEW, NEW_Y, AT.numpy())
    assert weight.max() > 0.2  # the rows tell members apart
    np.testing.assert_allclose(new._log_weight.exp(), weight, rtol=1e-5, atol=1e-7)
    found = new.posterior(AT)
    np.testing.assert_allclose(found.mean[:, 0], mean, rtol=1e-6)
    np.testing.assert_allclose(found.variance[:, 0], variance, rtol=1e-5)
    assert abs(float(new.effective_members) - 1 / np.sum(weight**2)) < 1e-4
    # The old model is as it was: members with the weights of their draws.
    start = np.exp(model.fitted.log_shares)
    assert abs(float(model.effective_members) - 1 / np.sum(start**2)) < 1e-9
    mean = model.fitted.predict(AT.numpy()).mean
    np.testing.assert_allclose(model.posterior(AT).mean, mean, rtol=1e-6, atol=1e-8)


def test_rows_one_after_the_other_are_as_rows_together(model):
    both = model.condition_on_observations(t(NEW), t(NEW_Y))
    one = model.condition_on_observations(t(NEW[:1]), t(NEW_Y[:1]))
    then = one.condition_on_observations(t(NEW[1:]), t(NEW_Y[1:]))
    np.testing.assert_allclose(then._log_weight, both._log_weight, atol=1e-8)
    np.testing.assert_allclose(then.posterior(AT).mean, both.posterior(AT).mean, rtol=1e-8)


def test_a_batch_of_fantasies_is_a_batch_of_conditioned_models(model):
    y = t(np.array([[[0.5]], [[3.0]], [[-6.0]]]))  # 3 fantasies of one row
    batch = model.condition_on_observations(t(NEW[:1]), y)
    assert batch.batch_shape == torch.Size([3])
    found = batch.posterior(AT)
    assert found.mean.shape == (3, 7, 1)
    for i in range(3):
        alone = model.condition_on_observations(t(NEW[:1]), y[i]).posterior(AT)
        np.testing.assert_allclose(found.mean[i], alone.mean, rtol=1e-9)
        np.testing.assert_allclose(found.variance[i], alone.variance, rtol=1e-8)
    assert batch.effective_members.shape == (3,)
    # Fantasies of fantasies: two more rows, in two t-batch places each.
    more = t(RNG.normal(size=(2, 1, 2, 1)))
    again = batch.condition_on_observations(more, t(RNG.normal(size=(2, 3, 2, 1))))
    assert again.batch_shape == torch.Size([2, 3])
    assert again.posterior(AT).variance.shape == (2, 3, 7, 1)
    assert (again._log_weight.exp().sum(0) - 1).abs().max() < 1e-9


def test_knowledge_gradient_is_that_of_fantasies_by_hand_and_has_gradients(model):
    point = torch.tensor([[1.7]], dtype=torch.float64)
    sampler = get_sampler(model.posterior(point), torch.Size([4]), seed=3)
    acquisition = qKnowledgeGradient(model, num_fantasies=4, sampler=sampler)
    fantasies = sampler(model.posterior(point, observation_noise=True)).detach()
    tops, where = [], []
    for y in fantasies:
        mean = by_hand(model, point.numpy(), y.numpy(), AT.numpy())[1]
        tops.append(mean.max())
        where.append(AT[mean.argmax()])
    x = torch.cat([point, torch.stack(where)]).unsqueeze(0).requires_grad_()
    value = acquisition(x)
    assert abs(float(value.detach()) - np.mean(tops)) < 1e-5
    (slope,) = torch.autograd.grad(value.sum(), x)
    along = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    with torch.no_grad():
        change = (acquisition(x + 1e-5 * along) - acquisition(x - 1e-5 * along)).sum() / 2e-5
    np.testing.assert_allclose(float((slope * along).sum()), float(change), rtol=1e-4)


@pytest.mark.slow
def test_knowledge_gradient_is_optimized(model):
    sampler = get_sampler(model.posterior(AT[:1]), torch.Size([8]), seed=0)
    acquisition = qKnowledgeGradient(model, num_fantasies=8, sampler=sampler)
    point, value = optimize_acqf(acquisition, BOX, 1, 2, 32, options={"maxiter": 20})
    assert BOX[0] <= point <= BOX[1]
    # Knowing more never lowers the expected maximum (up to the error of 8 fantasies).
    grid = torch.linspace(-2, 2, 101, dtype=torch.float64)[:, None]
    assert value > model.posterior(grid).mean.max() - 0.05


def test_a_row_that_nobody_foretold_is_warned_about(model):
    with pytest.warns(UserWarning, match="fit the whole table anew"):
        model.condition_on_observations(t(NEW[:1]), torch.tensor([[40.0]], dtype=torch.float64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.condition_on_observations(t(X[:1]), model.posterior(t(X[:1])).mean)


def test_fantasies_that_nobody_foretold_are_warned_about_once():
    model = Surrogate(t(X), t(Y), inference="amortised")
    usual = model.posterior(t(X[:1] + 0.3)).mean.expand(2, 1, 1)
    far = torch.tensor([[[0.0]], [[60.0]]]).double()  # the second of two fantasies
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.condition_on_observations(t(X[:1] + 0.3), usual)
        assert not caught
        model.condition_on_observations(t(NEW[:1]), far)
        model.condition_on_observations(t(NEW[:1]), far)
        copy.copy(model).condition_on_observations(t(NEW[:1]), far)
    assert [w.category for w in caught] == [bn.ConvergenceWarning]
    assert "Some fantasies leave fewer than 3" in str(caught[0].message)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("noise", ["inside", "outside"])
def test_nodes_of_a_scale_that_run_out_are_warned_about_once(noise):
    prior = bn.ScaleMixture(
        bn.GaussianProcess("rbf", 0.7, 1.0), bn.LogNormal(0.0, 1.0), noise=noise
    )
    model = Surrogate(t(X), t(Y), prior=prior, inference=bn.Exact(), warn=False)
    assert model.effective_nodes > 4
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        usual = model.condition_on_observations(t(NEW), model.posterior(t(NEW)).mean)
        assert usual.effective_nodes > 4
        assert not caught
        # A row 50 sds off, as a real one, as a fantasy, and such that weights underflow.
        for y in (torch.full((1, 1), 300.0), torch.full((2, 1, 1), 300.0), torch.full((1, 1), 1e9)):
            model.condition_on_observations(t(NEW[:1]), y.double())
    assert ["nodes of the scale" in str(w.message) for w in caught] == [True]
    assert caught[0].filename == __file__


def two():
    return Surrogate(t(X), t(np.concatenate([Y, -Y + np.sin(X)], axis=1)), inference="amortised")


def test_several_outcomes_are_fitted_one_by_one():
    model = two()
    assert isinstance(model, IndependentSurrogate)
    assert model.num_outputs == 2
    alone = Surrogate(t(X), t(Y), inference="amortised")
    posterior = model.posterior(AT)
    np.testing.assert_allclose(posterior.mean[:, :1], alone.posterior(AT).mean, rtol=1e-9)
    assert isinstance(model.subset_output([1]), ProcessSurrogate)
    # Samples of the two do not follow each other.
    far = torch.tensor([[5.0]], dtype=torch.float64)
    draws = get_sampler(model.posterior(far), torch.Size([512]), seed=0)(model.posterior(far))
    assert draws.shape == (512, 1, 2)
    assert abs(np.corrcoef(draws[:, 0].detach().numpy().T)[0, 1]) < 0.2
    y = torch.zeros(3, 1, 2, dtype=torch.float64)
    new = model.condition_on_observations(far, y)
    assert new.batch_shape == torch.Size([3])
    np.testing.assert_allclose(
        new.posterior(AT).mean[..., :1],
        alone.condition_on_observations(far, y[..., :1]).posterior(AT).mean,
        rtol=1e-9,
    )
    noise = torch.tensor([[0.5, 2.0]], dtype=torch.float64)
    noisy = model.posterior(AT, observation_noise=noise)
    torch.testing.assert_close(noisy.variance, posterior.variance + noise)
    second = model.posterior(AT, output_indices=[1], observation_noise=noise)
    torch.testing.assert_close(second.variance, noisy.variance[..., 1:])
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied.posterior(AT).mean, posterior.mean)


@pytest.mark.slow
def test_hypervolume_improvement_of_two_outcomes():
    model = two()
    front = NondominatedPartitioning(
        torch.full((2,), -9.0).double(), Y=model.posterior(t(X)).mean.detach()
    )
    sampler = get_sampler(model.posterior(t(X)), torch.Size([32]), seed=0)
    acquisition = qLogExpectedHypervolumeImprovement(model, [-9.0, -9.0], front, sampler)
    x = torch.tensor([[[0.3]], [[1.4]]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(acquisition(x).sum(), x)
    step = torch.zeros_like(x)
    step[1] = 1e-6
    with torch.no_grad():
        change = (acquisition(x + step) - acquisition(x - step)).sum() / 2e-6
    np.testing.assert_allclose(float(slope[1]), float(change), rtol=1e-3)
    point, _ = optimize_acqf(acquisition, BOX, 2, 2, 16, options={"maxiter": 5})
    assert point.shape == (2, 1)
    fantasy = model.fantasize(AT[:1], get_sampler(model.posterior(AT[:1]), torch.Size([4]), seed=1))
    assert fantasy.posterior(AT).mean.shape == (4, 7, 2)


def test_transforms_and_what_cannot_be_done():
    plain = Surrogate(
        t(X),
        t(Y),
        inference="amortised",
        input_transform=Normalize(1),
        outcome_transform=Standardize(1),
    )
    new = plain.condition_on_observations(t(NEW), t(NEW_Y))
    assert float((new.posterior(t(NEW)).mean - t(NEW_Y)).abs().max()) < 1.5
    both = t(np.concatenate([Y, Y], axis=1))
    with pytest.raises(bn.UnsupportedError, match="one by one"):
        Surrogate(t(X), both, inference="amortised", outcome_transform=Standardize(2))
    with pytest.raises(bn.UnsupportedError, match="y_var"):
        Surrogate(t(X), t(Y), 0.1 + 0 * t(Y), inference="amortised")
    with pytest.raises(bn.InputError, match="columns"):
        two().condition_on_observations(t(NEW), t(NEW_Y))
