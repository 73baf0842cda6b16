"""Surrogates do not depend on what torch was set to, and set nothing themselves."""

import contextlib
import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from botorch.acquisition import qLogExpectedImprovement
from botorch.acquisition.objective import ScalarizedPosteriorTransform
from botorch.models.transforms import Normalize, Standardize
from botorch.sampling.get_sampler import get_sampler

import bayesnet as bn
from bayesnet.pfn import Bars
from bayesnet.pfn.transformer import Transformer
from bayesnet.surrogates import (
    BarExpectedImprovement,
    StudentTExpectedImprovement,
    Surrogate,
)

TINY_PFN = bn.PFN(
    Transformer.create(jax.random.key(0), max_dim=3, bars=50, width=8, depth=1, heads=2, hidden=8),
    Bars(jnp.linspace(-4, 4, 49), jnp.full(2, 0.3)),
    {"name": "tiny", "dims": (1, 2, 3), "buckets": (8, 24), "steps": 0},
)
MATERN = bn.GaussianProcess("matern52", 1.0, mean=0.3)
KINDS = {
    "draws": {
        "inference": bn.HMC(chains=1, warmup=30, draws=16, max_steps=8),
        "prior": bn.NetworkPrior(bn.MLP(hidden=(4,)), in_dim=2),
    },
    "exact": {"inference": "exact", "prior": MATERN},
    "two exact": {"inference": "exact", "prior": bn.GaussianProcess("matern52", 1.0, out_dim=2)},
    "student_t": {"inference": "student_t"},
    "mixture": {"inference": "exact", "prior": bn.ScaleMixture(MATERN, bn.LogNormal(0.0, 0.5))},
    "pfn": {"inference": TINY_PFN},
    "two pfn": {"inference": TINY_PFN},
    "amortised": {"inference": "amortised"},
    "independent": {"inference": "amortised"},
}
TWO = ("two exact", "two pfn", "independent")


def grid(n, seed):
    values = np.random.default_rng(seed).uniform(size=(n, 2))
    return torch.from_numpy(values)


def made(kind, **options):
    X = grid(8, 0)
    Y = torch.stack([X.sum(-1).sin(), X[:, 0] - X[:, 1].square()], dim=-1)
    Y = Y if kind in TWO else Y[:, :1]
    return Surrogate(X, Y, warn=False, **KINDS[kind], **options)


def ordinary():
    """For BoTorch's own code, which makes tensors on the default device, of any model."""
    return defaults("cpu", torch.float32)


def sampled(posterior, n):
    sampler = get_sampler(posterior, torch.Size([n]), seed=1)
    ours = type(sampler).__module__.startswith("bayesnet")
    with contextlib.nullcontext() if ours else ordinary():
        return sampler(posterior)


def answers(model):
    """What a model says: moments, samples, gradients, and the same after two more rows."""
    X, more = grid(6, 1).reshape(2, 3, 2), grid(2, 2)
    found = []
    conditioned = [model]
    if model.batch_shape == torch.Size() and not hasattr(model, "take_draws"):
        Y = torch.from_numpy(np.full((2, model.num_outputs), 0.4))
        conditioned.append(model.condition_on_observations(more, Y))
        post = model.posterior(more)
        with ordinary():
            sampler = get_sampler(post, torch.Size([2]), seed=3)
            fantasies = model.fantasize(more, sampler)
        found.append(fantasies.posterior(X[0]).mean.detach())
    for each in conditioned:
        for noise in (False, True):
            point = X.clone().requires_grad_()
            posterior = each.posterior(point, observation_noise=noise)
            samples = sampled(posterior, 4)
            loss = posterior.mean.sum() + posterior.variance.sum() + samples.sum()
            found += [posterior.mean, posterior.variance, samples]
            found += torch.autograd.grad(loss, point)
    if model.num_outputs == 1:
        point = X.clone().requires_grad_()
        with ordinary():
            sampler = get_sampler(model.posterior(X), torch.Size([8]), seed=2)
            acquisition = qLogExpectedImprovement(model, 0.2, sampler)
            found += torch.autograd.grad(acquisition(point).sum(), point)
    return [f.detach() for f in found]


@contextlib.contextmanager
def defaults(device, dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def nothing_is_drawn():
    """The block leaves torch's and NumPy's own generators as they were.

    (Python's is drawn from by the type checks of the tests: see tests/bo/test_global_state.py.)
    """
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()
    yield
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


# Others of the same kinds, which take seconds each.
SLOW = ("two pfn", "amortised", "independent")


@pytest.fixture(
    scope="module",
    params=[pytest.param(k, marks=pytest.mark.slow) if k in SLOW else k for k in KINDS],
)
def case(request):
    model = made(request.param)
    with nothing_is_drawn():
        found = answers(model)
    return request.param, model, found


def test_no_default_device_or_dtype_of_torch_is_used(case):
    kind, model, expected = case
    for dtype in (torch.float16, torch.bfloat16):
        with defaults("meta", dtype):
            for a, b in zip(answers(model), expected, strict=True):
                assert a.dtype == torch.float64
                assert a.device.type == "cpu"
                torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    with defaults("meta", torch.float16), nothing_is_drawn():
        again = answers(made(kind))
    for a, b in zip(again, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_draws_of_a_posterior_are_where_the_data_are(case):
    _, model, _ = case
    posterior = model.posterior(grid(3, 4), observation_noise=True)
    torch.manual_seed(0)
    expected = posterior.rsample(torch.Size([2]))
    with defaults("meta", torch.bfloat16):
        torch.manual_seed(0)
        drawn = model.posterior(grid(3, 4), observation_noise=True).rsample(torch.Size([2]))
    torch.testing.assert_close(drawn, expected)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_what_is_made_without_derivatives_has_them_later(case, mode):
    kind, _, _ = case
    options = (
        {} if kind == "independent" else {"outcome_transform": Standardize(2 if kind in TWO else 1)}
    )
    expected = made(kind, input_transform=Normalize(2), **options)
    with mode():
        if options:
            options = {"outcome_transform": Standardize(2 if kind in TWO else 1)}
        model = copy.deepcopy(made(kind, input_transform=Normalize(2), **options))
        X = grid(3, 1)
        drawn = get_sampler(model.posterior(X), torch.Size([4]), seed=0)
        if type(drawn).__module__.startswith("bayesnet"):  # BoTorch's own keep tensors of the mode
            drawn(model.posterior(X))
        if kind != "draws":
            Y = torch.from_numpy(np.full((2, model.num_outputs), 0.4))
            model = model.condition_on_observations(grid(2, 2), Y)
    if kind != "draws":
        expected = expected.condition_on_observations(grid(2, 2), Y.clone())
    fresh = get_sampler(model.posterior(X), torch.Size([4]), seed=0)
    slopes = []
    for each, sampler in ((model, drawn), (expected, fresh)):
        point = grid(3, 1).requires_grad_()
        posterior = each.posterior(point)
        loss = posterior.mean.sum() + posterior.variance.sum() + sampler(posterior).square().sum()
        slopes += torch.autograd.grad(loss, point)
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_closed_form_improvement_that_was_made_without_derivatives(mode):
    for kind, improvement in (
        ("student_t", StudentTExpectedImprovement),
        ("pfn", BarExpectedImprovement),
    ):
        model = made(kind)
        with mode():
            best = model.posterior(grid(8, 0)).mean.max()
            acquisition = improvement(model, best)
        point = grid(2, 1).unsqueeze(1).requires_grad_()
        (slope,) = torch.autograd.grad(acquisition(point).sum(), point)
        assert torch.isfinite(slope).all()
        assert slope.abs().sum() > 0


def test_no_points_have_an_empty_posterior(case):
    """As BoTorch's own models answer them."""
    kind, model, _ = case
    m = model.num_outputs
    models = [model]
    if kind != "draws":
        more, Y = grid(2, 2), torch.from_numpy(np.full((3, 2, m), 0.4))
        models += [model.condition_on_observations(more.expand(3, 2, 2), Y)]
        none, nothing = torch.zeros(0, 2).double(), torch.zeros(0, m).double()
        models += [model.condition_on_observations(none, nothing)]
        torch.testing.assert_close(
            models[-1].posterior(more).mean, model.posterior(more).mean, rtol=1e-8, atol=1e-8
        )
        sampler = get_sampler(model.posterior(more), torch.Size([4]), seed=0)
        fantasies = model.fantasize(torch.zeros(3, 0, 2).double(), sampler)
        assert fantasies.batch_shape == (4, 3)
        same = model.posterior(more).mean.expand(4, 3, 2, m)
        torch.testing.assert_close(fantasies.posterior(more).mean, same, rtol=1e-6, atol=1e-6)
    for each in models:
        batch = each.batch_shape
        for shape in ((0,), (3, 0)) if batch in ((), (3,)) else ((3, 0),):
            if batch and len(shape) == 1:
                continue
            X = torch.zeros(*shape, 2).double().requires_grad_()
            for noise in (False, True):
                posterior = each.posterior(X, observation_noise=noise)
                assert posterior.mean.shape == (*shape, m)
                assert posterior.variance.shape == (*shape, m)
                assert posterior.rsample(torch.Size([5])).shape == (5, *shape, m)
                if type(posterior).__module__.startswith("bayesnet"):
                    drawn = get_sampler(posterior, torch.Size([4]), seed=0)(posterior)
                    assert drawn.shape == (4, *shape, m)
    total = ScalarizedPosteriorTransform(torch.ones(m).double())
    empty = torch.zeros(3, 0, 2).double()
    if kind != "independent":  # BoTorch combines lists of one point only
        assert model.posterior(empty, posterior_transform=total).mean.shape == (3, 0, 1)
