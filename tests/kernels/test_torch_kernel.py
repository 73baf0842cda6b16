"""The kernels in gpytorch: values, gradients, learned variances."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import bayesnet as bn
from bayesnet.kernels import NNGP, NTK

torch = pytest.importorskip("torch")
gpytorch = pytest.importorskip("gpytorch")

RNG = np.random.default_rng(0)
X1, X2 = (torch.tensor(RNG.normal(size=(n, 3))) for n in (5, 4))


@pytest.mark.parametrize(
    "kernel",
    [pytest.param(NNGP(depth=2), marks=pytest.mark.slow), NTK(depth=1)],
    ids=["nngp", "ntk"],
)
def test_values(kernel):
    ours = kernel.as_gpytorch()
    np.testing.assert_allclose(
        ours(X1, X2).to_dense().detach(), kernel.in_blocks(X1, X2), rtol=1e-12
    )
    diagonal = ours(X1, diag=True).detach()
    np.testing.assert_allclose(diagonal, np.diag(kernel.in_blocks(X1)), rtol=1e-12)
    crossed = ours(X1[:4], X2, diag=True).detach()
    np.testing.assert_allclose(crossed, np.diag(kernel.in_blocks(X1[:4], X2)), rtol=1e-12)
    batch = torch.stack([X1, 2 * X1])
    np.testing.assert_allclose(
        ours(batch, X2).to_dense()[1].detach(), kernel.in_blocks(2 * X1, X2), rtol=1e-12
    )
    assert ours(X1.float(), X2.float()).to_dense().dtype == torch.float32


def test_gradients_equal_finite_differences():
    ours = NTK(depth=1, weight_std=(1.0, 1.2), bias_std=0.4).as_gpytorch()
    names = ("raw_weight_variance", "raw_bias_variance")
    raw = [getattr(ours, name).detach().clone().requires_grad_() for name in names]

    def value(x1, x2, weight, bias):
        parameters = dict(zip(names, (weight, bias), strict=True))
        return torch.func.functional_call(ours, parameters, (x1, x2)).to_dense()

    points = [x.clone().requires_grad_() for x in (X1, X2)]
    torch.autograd.gradcheck(value, (*points, *raw), rtol=1e-4, atol=1e-6)
    x = X1.clone().requires_grad_()
    ours(x, diag=True).sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.slow
def test_a_gpytorch_model_learns_the_variances():
    x = torch.tensor(np.random.default_rng(1).normal(size=(40, 2)))
    truth = NNGP(depth=1, weight_std=0.8, bias_std=1.5)
    y = torch.tensor(np.asarray(truth.sample(0, x, 1), float)[0, :, 0])

    class Model(gpytorch.models.ExactGP):
        def __init__(self, likelihood):
            super().__init__(x, y, likelihood)
            self.mean_module = gpytorch.means.ZeroMean()
            self.covar_module = NNGP(depth=1, weight_std=2.0).as_gpytorch()

        def forward(self, x):
            return gpytorch.distributions.MultivariateNormal(
                self.mean_module(x), self.covar_module(x)
            )

    likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
    likelihood.noise = 1e-2
    model = Model(likelihood).train()
    evidence = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
    optimizer = torch.optim.Adam(model.covar_module.parameters(), lr=0.1)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = -evidence(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05
    learned = model.covar_module.to_bayesnet()
    assert isinstance(learned, NNGP)
    assert learned.weight_std < 2.0
    np.testing.assert_allclose(
        learned.in_blocks(x), model.covar_module(x).to_dense().detach(), rtol=1e-9
    )
    assert copy.deepcopy(model.covar_module).to_bayesnet() == learned


def test_a_zero_bias_is_fixed_and_wrong_columns_are_refused():
    ours = NNGP(depth=1, bias_std=0.0).as_gpytorch()
    assert [name for name, _ in ours.named_parameters()] == ["raw_weight_variance"]
    assert ours.bias_variance.item() == 0.0
    assert ours.to_bayesnet().bias_std == 0.0
    images = bn.kernels.Serial(bn.kernels.Image(2, 2), bn.kernels.Conv(), bn.kernels.Flatten())
    kernel = NNGP(bn.kernels.Serial(*images.layers, bn.kernels.Dense())).as_gpytorch()
    with pytest.raises(bn.InputError, match="4 columns"):
        kernel(X1, X2).to_dense()
