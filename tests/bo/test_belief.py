"""PFNs in a loop, and a belief about where the optimum lies (piBO)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from botorch.acquisition import qLogExpectedImprovement
from botorch.sampling.get_sampler import get_sampler

import bayesnet as bn
from bayesnet.bo import BelievedAcquisition, NormalBelief
from bayesnet.surrogates import BarExpectedImprovement, PFNSurrogate, Surrogate
from tests.pfn.exact import exact_pfn

PFN = exact_pfn()
BOX = [[-2.0], [2.0]]
# Two hills of nearly the same height, seen at their feet only.
X = np.array([[-2.0], [-1.8], [-0.2], [0.0], [0.2], [1.8], [2.0]])
Y = -np.abs(np.abs(X[:, 0]) - 1.0)
SEARCH = {"num_restarts": 2, "raw_samples": 32}


@pytest.fixture(scope="module")
def model():
    return Surrogate(torch.as_tensor(X), torch.as_tensor(Y)[:, None], inference=PFN)


def propose(model, belief=None, **more):
    return float(
        bn.bo.suggest(model, BOX, acquisition="log_ei", belief=belief, **SEARCH, **more)[0, 0]
    )


def test_a_belief_multiplies_improvement(model):
    sampler = get_sampler(model.posterior(torch.zeros(1, 1).double()), torch.Size([16]), seed=0)
    base = qLogExpectedImprovement(model, -0.8, sampler)
    belief = NormalBelief((0.5,), 0.7)
    x = torch.tensor([[[0.3]], [[-1.2]]]).double().requires_grad_()
    expected = base(x) + 10 / 7 * (-0.5 * ((x[:, 0, 0] - 0.5) / 0.7) ** 2)
    value = BelievedAcquisition(base, belief, strength=10.0, num_observed=7)(x)
    torch.testing.assert_close(value, expected)
    (slope,) = torch.autograd.grad(value.sum(), x)
    (other,) = torch.autograd.grad(expected.sum(), x)
    torch.testing.assert_close(slope, other)
    # It fades: after many observations next to nothing is left of it.
    late = BelievedAcquisition(base, belief, 10.0, 10**6)(x)
    torch.testing.assert_close(late, base(x), rtol=1e-4, atol=1e-3)
    # What is believed impossible is only as unlikely as 1e-12.
    far = BelievedAcquisition(base, NormalBelief((0.0,), 1e-3), 1.0, 1)(x)
    torch.testing.assert_close(far, base(x) + math.log(1e-12))
    # Closed-form improvement takes one as well.
    closed = BarExpectedImprovement(model, -0.8, log=True)
    assert torch.isfinite(BelievedAcquisition(closed, belief)(x)).all()


def test_the_believed_hill_is_climbed(model):
    left, right = (propose(model, NormalBelief((c,), 0.5)) for c in (-1.0, 1.0))
    assert abs(left + 1) < 0.5
    assert abs(right - 1) < 0.5
    # A belief that nothing supports is overruled by data when it is weak: which of two equal hills it is may
    # depend on it, and where they are does not.
    wrong = NormalBelief((-2.0,), 1.0)
    weak = propose(model, wrong, belief_strength=1e-3)
    assert abs(weak) == pytest.approx(abs(propose(model)), abs=0.05)
    pool = np.array([[-1.0], [1.0]])
    for at, c in enumerate((-1.0, 1.0)):
        chosen = bn.bo.suggest_from_pool(
            model, pool, acquisition="log_ei", belief=NormalBelief((c,), 0.5)
        )
        assert chosen.tolist() == [at]


def test_beliefs_that_cannot_be(model):
    with pytest.raises(bn.InputError, match="positive number"):
        NormalBelief((0.0, 1.0), (1.0, 0.0))
    with pytest.raises(bn.InputError, match="finite"):
        NormalBelief((math.inf,), 1.0)
    with pytest.raises(bn.InputError, match="function"):
        propose(model, belief=0.3)
    with pytest.raises(bn.InputError, match="strength"):
        propose(model, NormalBelief((0.0,), 1.0), belief_strength=0.0)
    with pytest.raises(bn.InputError, match="2 columns"):
        propose(model, NormalBelief((0.0, 0.0), 1.0))
    with pytest.raises(bn.UnsupportedError, match="log_nei"):
        bn.bo.suggest(model, BOX, acquisition="ucb", belief=NormalBelief((0.0,), 1.0))


@pytest.mark.slow
def test_a_step_with_a_pfn():
    state = bn.bo.LoopState(np.array(BOX), bn.bo.LoopSettings(PFN))
    state = state.update(X, Y)
    assert isinstance(state.model, PFNSurrogate)
    state = state.update(np.r_[X, [[1.0]]], np.r_[Y, 0.0])
    assert state.model.num_rows == 8
    first = bn.bo.suggest(state, q=2, acquisition="log_ei", **SEARCH)
    again = bn.bo.suggest(state, q=2, acquisition="log_ei", **SEARCH)
    np.testing.assert_array_equal(first, again)
    assert first.shape == (2, 1)
    assert np.abs(first).max() <= 2


@pytest.mark.slow
def test_noisy_improvement_with_a_pfn_prefers_a_hill(model):
    point = bn.bo.suggest(model, BOX, acquisition="log_nei", **SEARCH)
    assert abs(abs(float(point[0, 0])) - 1) < 0.5


@pytest.mark.slow
def test_a_study_with_a_pfn():
    study = bn.bo.minimize(
        lambda p: (p["a"] - 0.5) ** 2, {"a": (-2.0, 2.0)}, surrogate=PFN, n_trials=9
    )
    assert len(study.trials) == 9
    assert abs(study.best_params["a"] - 0.5) < 0.1
    with pytest.raises(bn.InputError, match="pfn"):
        bn.bo.minimize(lambda p: 0.0, {"a": (0.0, 1.0)}, surrogate="pnf")
