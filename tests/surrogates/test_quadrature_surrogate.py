"""A surrogate that is a quadrature over hyper-parameters: joint laws of its processes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from botorch.acquisition import qLogExpectedImprovement

import bayesnet as bn
from bayesnet.pfn import PFN, Bars
from bayesnet.pfn.family import ProcessFamily
from bayesnet.pfn.inputs import MixedInputs
from bayesnet.pfn.quadrature import QuadratureNetwork
from bayesnet.pfn.tasks import Tasks
from bayesnet.surrogates.pfn_joint import process_correlations
from bayesnet.surrogates.pfn_model import PFNSurrogate


def process(d):
    return bn.GaussianProcess("rbf", bn.LogNormal([0.0] * d, 0.5), bn.LogNormal(0.0, 0.5))


@pytest.fixture(scope="module")
def model():
    tasks = Tasks(
        process, bn.GaussianLikelihood(bn.LogNormal(-1.5, 0.5)), MixedInputs(unused=0), (2,), 8, 2
    )
    network = QuadratureNetwork.create(
        jax.random.key(0),
        ProcessFamily.of(tasks, 2),
        width=8,
        depth=1,
        heads=2,
        hidden=8,
        nodes=1,
        max_rows=8,
    )
    bars = Bars(jnp.linspace(-4.0, 4.0, 199), jnp.asarray([0.5, 0.5]))
    pfn = PFN(network, bars, {"name": "own", "dims": (2,), "buckets": (8,), "steps": 0})
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(6, 2))
    return PFNSurrogate(
        torch.tensor(x), torch.tensor(np.sin(4 * x[:, :1]) + x[:, 1:]), inference=pfn, warn=False
    )


def points(b, q, seed=1):
    return torch.tensor(np.random.default_rng(seed).uniform(-1.5, 1.5, (b, q, 2)))


def test_correlations_are_those_of_the_processes(model):
    x = points(2, 3)
    found = process_correlations(model._bridge, x, noisy=False)
    scaling = model.fitted.data.scaling
    for i in range(2):
        pred = model.fitted.predict(x[i].numpy() * scaling.x_scale + scaling.x_loc, warn=False)
        draws = pred.sample(0, 40_000, noise=False)[:, :, 0]
        expected = np.corrcoef(draws.T)
        np.testing.assert_allclose(found[i, 0], np.tril(expected, -1) + np.eye(3), atol=0.03)


def test_noise_takes_correlation_away(model):
    x = points(1, 3)
    clean = process_correlations(model._bridge, x, noisy=False)[0, 0]
    noisy = process_correlations(model._bridge, x, noisy=True)[0, 0]
    assert (noisy.tril(-1).abs() <= clean.tril(-1).abs() + 1e-9).all()
    assert (noisy.tril(-1).abs().sum() < clean.tril(-1).abs().sum()).item()


def test_an_empty_addition_changes_nothing(model):
    """Added rows that are rows of the table are the table with a row more, by either way."""
    x = points(1, 2)
    more = points(1, 1, seed=3), torch.tensor([[[0.4]]])
    found = process_correlations(model._bridge, x, more, noisy=False)
    scaling = model.fitted.data.scaling
    new = model.condition_on_observations(
        more[0][0] * torch.tensor(scaling.x_scale) + torch.tensor(scaling.x_loc),
        torch.tensor(scaling.y_out(more[1][0].numpy())),
    )
    other = process_correlations(new._bridge, x, noisy=False)
    np.testing.assert_allclose(found, other, atol=1e-6)


@pytest.mark.parametrize("added", [False, True])
def test_gradients_in_candidates(model, added):
    x = points(2, 3)
    more = (points(2, 1, seed=3), torch.full((2, 1, 1), 0.4)) if added else None
    weight = torch.tensor(np.random.default_rng(4).normal(size=(2, 1, 3, 3)))

    def f(x):
        return (weight * process_correlations(model._bridge, x, more, noisy=True)).sum()

    at = x.clone().requires_grad_(True)
    f(at).backward()
    step = torch.tensor(np.random.default_rng(5).normal(size=x.shape))
    central = (f(x + 1e-5 * step) - f(x - 1e-5 * step)) / 2e-5
    np.testing.assert_allclose((at.grad * step).sum(), central, rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_batches_are_optimised_and_fantasies_conditioned(model):
    best = model.train_targets.max()
    acqf = qLogExpectedImprovement(model, best_f=best)
    x = torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    acqf(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum() > 0
    posterior = model.posterior(x.detach())
    first = posterior.rsample(torch.Size([16]))
    assert first.shape == (16, 3, 2, 1)
    fantasy = model.condition_on_observations(x.detach()[:1, :1], torch.zeros(1, 1, 1))
    assert fantasy.posterior(x.detach()).variance.shape == (3, 2, 1)


@pytest.mark.slow
def test_gradients_in_rows_that_are_conditioned_on(model):
    """Those that knowledge gradient asks for."""
    x = points(1, 2).abs() / 3

    def f(rows):
        new = model.condition_on_observations(rows[None], torch.full((1, 1, 1), 0.3).double())
        law = new.posterior(x)
        return law.mean.sum() + law.variance.sum()

    at = torch.tensor([[0.4, 0.7]], dtype=torch.double, requires_grad=True)
    (found,) = torch.autograd.grad(f(at), at)
    for j in range(2):
        step = torch.zeros(1, 2, dtype=torch.double)
        step[0, j] = 1e-5
        central = (f(at.detach() + step) - f(at.detach() - step)) / 2e-5
        np.testing.assert_allclose(found[0, j], central, rtol=1e-3, atol=1e-7)


@pytest.mark.slow
def test_float32_tables_are_conditioned_in_float64(model):
    x, y = model.train_inputs[0], model.train_targets[:, None]
    single = PFNSurrogate(x.float(), y.float(), inference=model.fitted.pfn, warn=False)
    new = torch.rand(1, 1, 2), torch.zeros(1, 1, 1)
    found = single.condition_on_observations(*(a.float() for a in new)).posterior(x[:2].float())
    expected = model.condition_on_observations(*(a.double() for a in new)).posterior(x[:2])
    assert found.mean.dtype == torch.float32
    torch.testing.assert_close(found.mean.double(), expected.mean, rtol=1e-3, atol=1e-3)
