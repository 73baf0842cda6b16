"""What a surrogate does with likelihoods other than the Gaussian."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from likelihood_cases import bind

import bayesnet as bn
from bayesnet.bo.state import LoopSettings

X = np.random.default_rng(0).normal(size=(6, 2))


def drawn(likelihood, y, out_dim, **table):
    """A posterior of a few draws of the prior: no chain is needed here."""
    stated, _, data = bind(likelihood, y, x=X, **table)
    prior = bn.NetworkPrior(bn.MLP((3,)), in_dim=2, out_dim=out_dim)
    size = prior.latent_size + stated.bind(data.scaling, data.rows).latent_size
    latents = np.random.default_rng(1).normal(size=(1, 5, size)).astype(np.float32)
    return bn.FunctionDraws(prior, stated, data, latents)


def test_only_means_of_a_noise_that_depends_on_x_are_outcomes():
    y = 100 + 10 * X
    post = drawn(bn.HeteroscedasticLikelihood(), y, 4)
    model = bn.surrogates.Surrogate.from_posterior(post)
    at = torch.as_tensor(X[:3])
    assert model.num_outputs == 2
    np.testing.assert_allclose(
        model.posterior(at).mean.detach(), post.predict(X[:3]).mean, rtol=1e-5
    )
    with pytest.raises(bn.UnsupportedError, match="Gaussian noise"):
        model.posterior(at, observation_noise=True)


@pytest.mark.parametrize("name", ["bernoulli", "categorical", "poisson"])
def test_classes_and_counts_are_refused_before_any_compute(name):
    x, y = torch.as_tensor(X), torch.tensor([[0.0], [1], [1], [0], [1], [0]], dtype=torch.float64)
    with pytest.raises(bn.UnsupportedError, match="real-valued outcomes"):
        bn.surrogates.Surrogate(x, y, likelihood=name)
    with pytest.raises(bn.UnsupportedError, match="real-valued outcomes"):
        LoopSettings(likelihood=name)
    post = drawn(bn.likelihoods.resolve_likelihood(name), y.numpy(), 2 if name[0] == "c" else 1)
    with pytest.raises(bn.UnsupportedError, match="real-valued outcomes"):
        bn.surrogates.Surrogate.from_posterior(post)


def test_weights_are_not_forgotten_when_rows_are_added():
    post = drawn(bn.GaussianLikelihood(), X[:, :1], 1, weight=np.arange(1.0, 7.0))
    model = bn.surrogates.Surrogate.from_posterior(post)
    with pytest.raises(bn.UnsupportedError, match="sample_weight or missing"):
        model.condition_on_observations(torch.zeros(1, 2), torch.zeros(1, 1))
