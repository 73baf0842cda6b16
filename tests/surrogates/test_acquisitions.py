"""Real acquisition functions of BoTorch on a `Surrogate`, and their optimization."""

from __future__ import annotations

import pytest
import torch
from botorch.acquisition import (
    LogExpectedImprovement,
    PosteriorMean,
    UpperConfidenceBound,
    qLogExpectedImprovement,
    qSimpleRegret,
    qUpperConfidenceBound,
)
from botorch.acquisition.logei import qLogNoisyExpectedImprovement
from botorch.acquisition.multi_objective.logei import qLogExpectedHypervolumeImprovement
from botorch.acquisition.objective import ScalarizedPosteriorTransform
from botorch.generation import MaxPosteriorSampling
from botorch.models import ModelList
from botorch.optim import optimize_acqf
from botorch.utils.multi_objective.box_decompositions import NondominatedPartitioning
from conftest import CENTRE

import bayesnet as bn
from bayesnet.surrogates import Surrogate, count_traces

UNIT = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.double)
BASELINE = torch.tensor([[0.1, 0.1], [0.9, 0.2], [0.4, 0.6]], dtype=torch.double)
OPTIMUM = torch.tensor(CENTRE, dtype=torch.double)
JOINT = {
    "qLogEI": lambda model, pending: qLogExpectedImprovement(model, -0.05, X_pending=pending),
    "qLogNEI": lambda model, pending: qLogNoisyExpectedImprovement(
        model, BASELINE, X_pending=pending, prune_baseline=True
    ),
    "qUCB": lambda model, pending: qUpperConfidenceBound(model, beta=2.0, X_pending=pending),
    "qSimpleRegret": lambda model, pending: qSimpleRegret(model, X_pending=pending),
}
ANALYTIC = {
    "LogEI": lambda model: LogExpectedImprovement(model, best_f=-0.05),
    "UCB": lambda model: UpperConfidenceBound(model, beta=2.0),
    "mean": PosteriorMean,
}


@pytest.fixture(scope="module")
def bumps(make):
    return make.bumps()


def candidates(n, q, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, q, 2, generator=generator, dtype=torch.double)


@pytest.mark.parametrize("pending", [None, BASELINE[:1]], ids=["", "pending"])
@pytest.mark.parametrize("q", [1, 3])
@pytest.mark.parametrize("name", sorted(JOINT))
def test_value_and_gradient(bumps, name, q, pending):
    acquisition = JOINT[name](bumps, pending)
    X = candidates(5, q).requires_grad_()
    value = acquisition(X)
    value.sum().backward()
    assert value.shape == (5,)
    assert torch.isfinite(value).all()
    assert torch.isfinite(X.grad).all()
    with torch.no_grad():
        # The same value again, and alone, and shifted a little along one coordinate.
        torch.testing.assert_close(acquisition(X), value)
        torch.testing.assert_close(acquisition(X[3:4]), value[3:4])
        step = torch.zeros_like(X)
        step[2, 0, 1] = 1e-6
        slope = (acquisition(X + step) - acquisition(X - step))[2] / 2e-6
        torch.testing.assert_close(X.grad[2, 0, 1], slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", sorted(ANALYTIC))
def test_analytic(bumps, name):
    acquisition = ANALYTIC[name](bumps)
    X = candidates(5, 1).requires_grad_()
    assert torch.autograd.gradcheck(acquisition, (X,), rtol=1e-3, atol=1e-5)


def test_scalarized_acquisition(make):
    model = make.surrogate(out_dim=2)
    transform = ScalarizedPosteriorTransform(torch.tensor([1.0, -0.5], dtype=torch.double))
    X = candidates(4, 1)
    analytic = LogExpectedImprovement(model, best_f=5.0, posterior_transform=transform)
    sampled = qLogExpectedImprovement(model, best_f=5.0, posterior_transform=transform)
    assert torch.isfinite(analytic(X)).all()
    assert torch.isfinite(sampled(X)).all()


@pytest.mark.slow
def test_two_objectives(make):
    models = ModelList(make.surrogate(seed=0), make.surrogate(seed=1))
    reference = torch.zeros(2, dtype=torch.double)
    parts = NondominatedPartitioning(reference, Y=torch.tensor([[4.0, 5.0]]).double())
    acquisition = qLogExpectedHypervolumeImprovement(models, reference, parts)
    X = candidates(3, 2).requires_grad_()
    acquisition(X).sum().backward()
    assert torch.isfinite(X.grad).all()


def test_thompson_sampling(bumps):
    pool = candidates(400, 1)[:, 0]
    chosen = MaxPosteriorSampling(bumps, replacement=True)(pool, num_samples=12)
    assert chosen.shape == (12, 2)
    # Each draw has its own optimum, near the common one.
    assert (chosen - OPTIMUM).norm(dim=-1).max() < 0.3
    assert len(torch.unique(chosen, dim=0)) > 3


@pytest.mark.parametrize("q", [1, 3])
@pytest.mark.parametrize("name", ["qLogEI", "qLogNEI", "qUCB"])
def test_optimize_finds_the_optimum(bumps, name, q):
    torch.manual_seed(0)
    acquisition = JOINT[name](bumps, None)
    best, value = optimize_acqf(acquisition, UNIT, q=q, num_restarts=6, raw_samples=128)
    # As good as the best of a fine grid (q = 1), or of other random batches than it began with.
    side = torch.linspace(0, 1, 60, dtype=torch.double)
    grid = torch.cartesian_prod(side, side)[:, None] if q == 1 else candidates(128, q)
    with torch.no_grad():
        assert value >= acquisition(grid).max() - 1e-4
    assert (best - OPTIMUM).norm(dim=-1).min() < 0.1


@pytest.mark.slow
def test_the_pipeline_from_a_table_finds_its_optimum(table):
    """Ten rows of a parabola under the default prior: the next point is near its top.

    Two chains of 300 + 200 steps have not converged on these rows and can miss it.
    """
    torch.manual_seed(0)
    model = Surrogate(*table, inference=bn.HMC(chains=4, warmup=600, draws=200), warn=False)
    best, _ = optimize_acqf(PosteriorMean(model), UNIT, q=1, num_restarts=4, raw_samples=64)
    assert (best - torch.tensor([0.6, 0.4])).norm() < 0.1


def test_programs_are_traced_once_a_bucket_and_never_again(make):
    # A number of draws that no other test has: nothing of it is compiled yet.
    model = make.surrogate(hidden=(7,), draws=18)

    def optimize():
        torch.manual_seed(0)
        acquisition = qLogExpectedImprovement(model, best_f=7.0)
        optimize_acqf(acquisition, UNIT, q=1, num_restarts=10, raw_samples=256)

    with count_traces() as first:
        optimize()
    with count_traces() as second:
        optimize()
    assert first
    assert max(first.values()) == 1
    assert not second
