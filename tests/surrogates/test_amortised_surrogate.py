"""Amortised processes as BoTorch models: the exact surrogate, hyper-parameters by a network."""

import pytest
import torch
from botorch.acquisition import qLogExpectedImprovement
from botorch.optim import optimize_acqf

import bayesnet as bn
from bayesnet.surrogates import Surrogate
from bayesnet.surrogates.process import ProcessSurrogate


@pytest.fixture(scope="module")
def model():
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    y = -((x - 0.7) ** 2) + 0.05 * torch.sin(9 * x)
    return Surrogate(x, y, inference="amortised")


def test_it_is_an_exact_surrogate_with_gradients(model):
    assert isinstance(model, ProcessSurrogate)
    x = torch.tensor([[[0.3], [1.1]]], dtype=torch.float64, requires_grad=True)
    posterior = model.posterior(x)
    value = posterior.mean.sum() + posterior.variance.sum()
    (slope,) = torch.autograd.grad(value, x)

    def at(z):
        p = model.posterior(z)
        return float(p.mean.sum() + p.variance.sum())

    step = torch.zeros_like(x)
    step[0, 1, 0] = 1e-5
    with torch.no_grad():
        change = (at(x + step) - at(x - step)) / 2e-5
    assert abs(change - float(slope[0, 1, 0])) < 1e-5 * max(1.0, abs(change))


def test_expected_improvement_finds_the_top(model):
    best = float(model.posterior(torch.tensor([[0.7]], dtype=torch.float64)).mean)
    acquisition = qLogExpectedImprovement(model, best_f=best - 0.02)
    box = torch.tensor([[-2.0], [2.0]], dtype=torch.float64)
    point, _ = optimize_acqf(acquisition, box, q=1, num_restarts=4, raw_samples=32)
    assert abs(float(point) - 0.7) < 0.4


@pytest.mark.slow
def test_a_study_with_amortised_processes():
    study = bn.bo.minimize(
        lambda p: (p["a"] - 0.5) ** 2, {"a": (-2.0, 2.0)}, surrogate="amortised", n_trials=10
    )
    assert abs(study.best_params["a"] - 0.5) < 0.2
