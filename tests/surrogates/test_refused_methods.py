"""Methods whose posterior is no surrogate are refused before they fit."""

import pytest
import torch

import bayesnet as bn
from bayesnet.bo import minimize
from bayesnet.surrogates import Surrogate


def objective(params):
    raise AssertionError("the method is refused before the first trial")


@pytest.mark.parametrize(
    "inference",
    ["process_laplace", "sparse_variational", bn.SparseVariational(steps=10), bn.NTKEnsemble()],
)
def test_they_are_refused_in_words(inference):
    X, Y = torch.rand(4, 1), torch.rand(4, 1)
    with pytest.raises(bn.UnsupportedError, match=r"makes no surrogate.*inference='exact'"):
        Surrogate(X, Y, inference=inference, prior=bn.GaussianProcess("rbf"))
    with pytest.raises(bn.UnsupportedError, match="makes no surrogate"):
        minimize(objective, {"a": (0.0, 1.0)}, surrogate=inference, n_trials=2)
    with pytest.raises(bn.UnsupportedError, match="makes no surrogate"):
        bn.bo.BayesNetSampler(inference)


def test_the_names_that_are_known_are_those_that_make_a_surrogate():
    with pytest.raises(bn.InputError, match=r"Known: amortised, ensemble") as refused:
        Surrogate(torch.rand(4, 1), torch.rand(4, 1), inference="hcm")
    with pytest.raises(bn.InputError, match=r"Known: amortised, ensemble") as other:
        minimize(objective, {"a": (0.0, 1.0)}, surrogate="process", n_trials=2)
    for said in (refused, other):
        assert "pfn" in str(said.value)
        assert "process_laplace" not in str(said.value)


@pytest.mark.parametrize("inference", ["exact", "amortised", "pfn"])
def test_arguments_about_draws_are_refused_where_there_are_none(inference):
    X, Y = torch.rand(4, 1), torch.rand(4, 1)
    with pytest.raises(bn.UnsupportedError, match="no chains and no draws: leave max_draws out"):
        Surrogate(X, Y, inference=inference, max_draws=8)
    with pytest.raises(bn.UnsupportedError, match="leave init out"):
        Surrogate(X, Y, inference=inference, init=Surrogate)
