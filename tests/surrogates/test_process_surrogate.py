"""Exact posteriors behind BoTorch: joint laws, gradients, conditioning, fantasies, closed-form EI."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from botorch.acquisition import (
    LogExpectedImprovement,
    qKnowledgeGradient,
    qLogExpectedImprovement,
    qLogNoisyExpectedImprovement,
)
from botorch.models.transforms import Log, Normalize, Standardize
from botorch.optim import optimize_acqf
from botorch.posteriors import GPyTorchPosterior
from botorch.sampling.get_sampler import get_sampler
from gpytorch.distributions import MultivariateNormal
from scipy import stats

import bayesnet as bn
from bayesnet.surrogates import (
    ProcessSurrogate,
    ScaleMixturePosterior,
    StudentTExpectedImprovement,
    Surrogate,
)

G = torch.Generator().manual_seed(0)
X = torch.rand(9, 2, generator=G, dtype=torch.double)
Y = 10 + 3 * torch.cat([torch.sin(5 * X[:, :1]), X[:, 1:] ** 2], 1)
NEW = torch.rand(3, 2, 2, generator=G, dtype=torch.double)
MORE = torch.rand(2, 2, generator=G, dtype=torch.double)
KNOWN = bn.GaussianLikelihood(0.3)
ONE = bn.GaussianProcess("matern52", 1.0)
TWO = bn.GaussianProcess("matern52", 1.0, mean=bn.LinearMean(0.3), out_dim=2)
PRIORS = {
    "process": ONE,
    "two outputs": TWO,
    "infinite": bn.kernels.NNGP(depth=1, out_dim=2),
    "student": bn.ScaleMixture(ONE, bn.InverseGamma()),
    "student, shared": bn.ScaleMixture(TWO, bn.InverseGamma()),
    "student, each": bn.ScaleMixture(TWO, bn.InverseGamma(), per_output=True),
    "inside": bn.ScaleMixture(TWO, bn.Gamma()),
    "outside": bn.ScaleMixture(ONE, bn.InverseGamma(), noise="outside"),
    "outside, each": bn.ScaleMixture(TWO, bn.Gamma(), noise="outside", per_output=True),
}


def make(name, x=X, y=Y, **kwargs):
    prior = PRIORS[name]
    return Surrogate(
        x, y[:, : prior.out_dim], prior=prior, likelihood=KNOWN, inference="exact", **kwargs
    )


# One of each kind in the fast suite.
FAST = ("process", "student, shared", "outside")
NAMES = [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in PRIORS]


@pytest.fixture(params=NAMES, scope="module")
def model(request):
    surrogate = make(request.param)
    surrogate.name = request.param
    return surrogate


def flat(t):
    return t.detach().reshape(-1, t.shape[-1]).numpy()


def test_posteriors_are_those_of_fit(model):
    assert isinstance(model, ProcessSurrogate)
    ref = model.fitted.predict(flat(NEW))
    post, noisy = model.posterior(NEW), model.posterior(NEW, observation_noise=True)
    m = model.num_outputs
    assert post.mean.shape == post.variance.shape == (3, 2, m)
    np.testing.assert_allclose(flat(post.mean), ref.mean, rtol=1e-9)
    np.testing.assert_allclose(flat(post.variance.sqrt()), ref.epistemic_std, rtol=1e-9)
    np.testing.assert_allclose(flat(noisy.variance.sqrt()), ref.std, rtol=1e-9)
    assert post.rsample(torch.Size([4])).shape == (4, 3, 2, m)
    if m == 2:
        kept = model.subset_output([1]).posterior(NEW)
        np.testing.assert_allclose(flat(kept.mean)[:, 0], ref.mean[:, 1], rtol=1e-9)
        np.testing.assert_allclose(
            flat(kept.variance.sqrt())[:, 0], ref.epistemic_std[:, 1], rtol=1e-9
        )


def test_samples_have_the_joint_law(model):
    post = model.posterior(NEW[:1], observation_noise=True)
    sampler = get_sampler(post, torch.Size([4096]), seed=0)
    draws = sampler(post)[:, 0].numpy()
    ref = model.fitted.predict(flat(NEW[:1]))
    for q in (0.1, 0.5, 0.9):
        np.testing.assert_allclose((draws <= ref.quantile(q)).mean(0), q, atol=0.02)
    again = sampler(model.posterior(NEW[:1].expand(3, 2, 2), observation_noise=True))
    np.testing.assert_allclose(again[:, 2].numpy(), draws)  # the same for every t-batch
    expected = ref.sample(0, 4000)
    for j in range(model.num_outputs):  # dependence between points
        a, b = (stats.spearmanr(d[:, 0, j], d[:, 1, j])[0] for d in (draws, expected))
        assert abs(a - b) < 0.06


def test_gradients_are_finite_differences(model):
    sampler = get_sampler(model.posterior(NEW), torch.Size([8]), seed=0)

    def value(x):
        return sampler(model.posterior(x)).square().sum()

    x = NEW.clone().requires_grad_()
    value(x).backward()
    along = torch.randn(NEW.shape, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    with torch.no_grad():
        change = (value(NEW + 1e-6 * along) - value(NEW - 1e-6 * along)) / 2e-6
    np.testing.assert_allclose((x.grad * along).sum(), change, rtol=1e-5)


def test_conditioning_is_fitting_all_rows(model):
    y = model.posterior(MORE).mean.detach() + 0.5
    ours = model.condition_on_observations(MORE, y)
    full = make(
        model.name,
        torch.cat([X, MORE]),
        torch.cat([Y[:, : y.shape[1]], y]),
        scaling=model.fitted.scaling,
    )
    np.testing.assert_allclose(
        flat(ours.posterior(NEW).mean), flat(full.posterior(NEW).mean), rtol=1e-7
    )
    np.testing.assert_allclose(
        flat(ours.posterior(NEW).variance), flat(full.posterior(NEW).variance), rtol=1e-6
    )
    twice = model
    for i in range(2):
        twice = twice.condition_on_observations(MORE[i : i + 1], y[i : i + 1])
    np.testing.assert_allclose(
        flat(twice.posterior(NEW).variance), flat(full.posterior(NEW).variance), rtol=1e-6
    )
    assert model.posterior(NEW).mean.shape == (3, 2, model.num_outputs)  # not changed itself


def test_fantasies_condition_on_every_draw(model):
    points = NEW[:, :1]  # 3 x 1 x d
    fantasy = model.fantasize(points, get_sampler(model.posterior(points), torch.Size([2]), seed=0))
    assert fantasy.batch_shape == (2, 3)
    y = fantasy.train_targets
    y = y.unsqueeze(-1) if model.num_outputs == 1 else y.mT
    at = NEW[:, 1:].expand(2, 3, 1, 2)
    post = fantasy.posterior(at)
    assert post.mean.shape == (2, 3, 1, model.num_outputs)
    one = model.condition_on_observations(points[2], y[1, 2, -1:])
    alone = one.posterior(at[1, 2])
    np.testing.assert_allclose(flat(post.mean[1, 2]), flat(alone.mean), rtol=1e-8)
    np.testing.assert_allclose(flat(post.variance[1, 2]), flat(alone.variance), rtol=1e-8)


def test_copies_and_pickles_are_the_same_model(model):
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(
            flat(again.posterior(NEW).mean), flat(model.posterior(NEW).mean)
        )


def test_kinds_of_posteriors():
    assert isinstance(make("process").posterior(NEW), GPyTorchPosterior)
    assert isinstance(make("process").posterior(NEW).distribution, MultivariateNormal)
    student = make("student").posterior(NEW)
    assert isinstance(student, ScaleMixturePosterior)
    assert student.df == 4.0 + 9
    assert make("outside").posterior(NEW).df is None


@pytest.mark.parametrize("name", ["student", "outside"])
def test_closed_form_improvement_is_an_integral(name):
    from scipy import integrate

    model = make(name)
    best = float(Y[:, 0].max()) - 1.0
    points = NEW.reshape(-1, 1, 2)
    values = StudentTExpectedImprovement(model, best)(points)
    pred = model.fitted.predict(flat(points))
    grid = best + np.linspace(0, 400, 200_001)
    post = model.posterior(points)
    for i in range(3):
        # E max(f - b, 0) is the integral of P(f > t) over t > b.
        nodes = post.nodes
        sd = nodes.cov[:, i, 0, 0, 0].sqrt().numpy()
        mean, weight = nodes.mean[:, i, 0, 0].numpy(), nodes.log_weight[:, i, 0].exp().numpy()
        law = stats.norm if post.df is None else stats.t(post.df)
        above = sum(w * law.sf((grid - u) / s) for w, u, s in zip(weight, mean, sd, strict=True))
        np.testing.assert_allclose(float(values[i]), integrate.simpson(above, x=grid), rtol=1e-4)
    down = StudentTExpectedImprovement(model, best, maximize=False)(points)
    np.testing.assert_allclose((values - down).numpy(), pred.mean[:, 0] - best, rtol=1e-9)

    x = points.clone().requires_grad_()
    StudentTExpectedImprovement(model, best)(x).sum().backward()
    h = 1e-6
    shift = torch.zeros_like(points)
    shift[..., 0] = h
    ei = StudentTExpectedImprovement(model, best)
    with torch.no_grad():
        change = (ei(points + shift) - ei(points - shift)) / (2 * h)
    np.testing.assert_allclose(x.grad[:, 0, 0].numpy(), change.numpy(), rtol=1e-5, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["process", "student"])
def test_acquisitions_of_botorch_run(name):
    model = make(name)
    bounds = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.double)
    sampler = get_sampler(model.posterior(X), torch.Size([16]), seed=0)
    functions = [
        LogExpectedImprovement(model, best_f=Y[:, 0].max()),
        qLogExpectedImprovement(model, best_f=Y[:, 0].max(), sampler=sampler),
        qLogNoisyExpectedImprovement(model, X, sampler, prune_baseline=False, cache_root=False),
    ]
    for function in functions:
        point, value = optimize_acqf(function, bounds, 1, 2, 8, options={"maxiter": 5})
        assert torch.isfinite(value)
        assert ((point >= 0) & (point <= 1)).all()
    fantasies = get_sampler(model.posterior(X), torch.Size([3]), seed=0)
    gradient = qKnowledgeGradient(model, num_fantasies=3, sampler=fantasies)
    x = torch.rand(2, 4, 2, generator=G, dtype=torch.double, requires_grad=True)
    gradient(x).sum().backward()
    with torch.no_grad():
        along = torch.randn(x.shape, generator=G, dtype=torch.double)
        change = gradient(x + 1e-6 * along).sum() - gradient(x - 1e-6 * along).sum()
    np.testing.assert_allclose((x.grad * along).sum(), change / 2e-6, rtol=1e-4)


def test_transforms_of_botorch():
    plain = make("student", X * 4 + 1, Y, scaling=None)
    wrapped = Surrogate(
        X * 4 + 1,
        Y[:, :1],
        prior=PRIORS["student"],
        likelihood=bn.GaussianLikelihood(0.3 / float(Y[:, 0].std())),
        inference="exact",
        input_transform=Normalize(2),
        outcome_transform=Standardize(1),
    )
    a, b = plain.posterior(NEW * 4 + 1), wrapped.posterior(NEW * 4 + 1)
    assert (a.mean - b.mean).abs().max() < 1.0  # another scaling of inputs: another prior
    conditioned = wrapped.condition_on_observations(MORE * 4 + 1, Y[:2, :1])
    assert (conditioned.posterior(MORE * 4 + 1).mean - Y[:2, :1]).abs().max() < 1.0
    logged = Surrogate(
        X, Y[:, :1], prior=PRIORS["process"], inference="exact", outcome_transform=Log()
    )
    assert (logged.posterior(NEW).rsample() > 0).all()


def test_many_inputs():
    x = torch.rand(12, 400, generator=G, dtype=torch.double)
    model = Surrogate(x, x[:, :1], inference="student_t", likelihood=KNOWN)
    at = torch.rand(2, 1, 400, generator=G, dtype=torch.double, requires_grad=True)
    ei = StudentTExpectedImprovement(model, 0.9)
    ei(at).sum().backward()
    assert at.grad.shape == (2, 1, 400)
    along = torch.randn(at.shape, generator=G, dtype=torch.double)
    with torch.no_grad():
        change = (ei(at + 1e-6 * along) - ei(at - 1e-6 * along)).sum() / 2e-6
    np.testing.assert_allclose((at.grad * along).sum(), change, rtol=1e-4)


@pytest.mark.slow
def test_sampled_hyperparameters_make_a_mixture():
    prior = bn.GaussianProcess("rbf", bn.LogNormal(0.0, 0.5))
    method = bn.Exact(hyper="hmc", restarts=0, draws=6)
    model = Surrogate(X, Y[:, :1], prior=prior, likelihood=KNOWN, inference=method, warn=False)
    post = model.posterior(NEW)
    ref = model.fitted.predict(flat(NEW))
    np.testing.assert_allclose(flat(post.mean), ref.mean, rtol=1e-9)
    np.testing.assert_allclose(flat(post.variance.sqrt()), ref.epistemic_std, rtol=1e-9)
    # (Against members fitted anew: test_amortised_fantasies.py.)
    new = model.condition_on_observations(MORE, Y[:2, :1])
    assert float(new.effective_members) < len(model.fitted.priors)
    assert (new.posterior(MORE).variance < model.posterior(MORE).variance).all()


def test_what_cannot_be_done_says_so():
    with pytest.raises(bn.InputError, match="2 outcomes"):
        StudentTExpectedImprovement(make("student, shared"), 0.0)
    with pytest.raises(bn.UnsupportedError, match="Gaussian"):
        StudentTExpectedImprovement(make("process"), 0.0)(NEW[:, :1])
    with pytest.raises(bn.UnsupportedError, match="outside"):
        make("student").posterior(NEW, observation_noise=torch.ones(3, 2, 1))
    with pytest.raises(bn.InputError, match="do not fit"):
        make("process").condition_on_observations(MORE, Y[:3, :1])
    with pytest.raises(bn.InputError, match="columns"):
        make("process").posterior(X[:, :1])


@pytest.mark.slow
@pytest.mark.parametrize("inference", ["exact", "student_t"])
def test_a_step_of_bayesian_optimization(inference):
    step = bn.bo.suggest(
        (X.numpy(), Y[:, 0].numpy()),
        bounds=[[0.0, 0.0], [1.0, 1.0]],
        surrogate=bn.Exact(restarts=0) if inference == "exact" else inference,
        num_restarts=1,
        raw_samples=16,
    )
    assert np.asarray(step).shape == (1, 2)


def test_rows_that_are_conditioned_on_join_those_given_under_an_input_transform():
    from bayesnet.bo.suggest import _training_inputs

    x = 10 * torch.rand(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    y = -((x - 4) ** 2).sum(-1, keepdim=True)
    new = torch.tensor([[3.0, 6.0]], dtype=torch.double)
    model = Surrogate(x, y, inference="infinite_width", input_transform=Normalize(2))
    found = model.condition_on_observations(new, torch.zeros(1, 1, dtype=torch.double))
    expected = torch.cat([x, new])
    assert torch.equal(_training_inputs(found), expected)
    torch.testing.assert_close(found.train_inputs[0], found.input_transform(expected))
    assert torch.equal(found.train().train_inputs[0], expected)
    assert len(found.train_targets) == 9
    twice = found.eval().condition_on_observations(new, torch.zeros(1, 1, dtype=torch.double))
    assert _training_inputs(twice).shape == (10, 2)
    for bad, words in (
        ((new[:, :1], torch.zeros(1, 1)), "must have 2 columns"),
        ((new, torch.full((1, 1), torch.nan)), "finite"),
    ):
        with pytest.raises(bn.InputError, match=words):
            model.condition_on_observations(*bad)


@pytest.mark.parametrize("shape", [(0, 2), (3, 0, 2), (0, 1, 2)])
def test_samplers_of_no_points_give_none(shape):
    x = torch.linspace(0.0, 1.0, 8, dtype=torch.double).reshape(4, 2)
    process = bn.GaussianProcess("rbf", 1.0, out_dim=2)
    model = bn.surrogates.Surrogate(x, x.sin(), prior=process,
                                    inference="exact", warn=False)  # fmt: skip
    posterior = model.posterior(x.new_empty(shape), observation_noise=True)
    sampler = get_sampler(posterior, torch.Size([5]), seed=0)
    assert sampler(posterior).shape == (5, *shape[:-1], 2)
    assert posterior.rsample(torch.Size([4])).shape == (4, *shape[:-1], 2)
