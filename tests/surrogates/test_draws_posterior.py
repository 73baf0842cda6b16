"""The posterior and its sampler: shapes, coherence, noise, moments."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from botorch.models.transforms import Log, Standardize
from botorch.sampling.get_sampler import get_sampler

from bayesnet._errors import InputError
from bayesnet.surrogates import DrawsPosterior, DrawsSampler
from bayesnet.surrogates.outcomes import OutcomeMap


@pytest.fixture
def draws():
    """s x batch x q x m = 30 x 4 x 3 x 2."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(30, 4, 3, 2, generator=generator, dtype=torch.double)


def noise_of(draws, value=0.3):
    return torch.full((draws.shape[0], 1, 1, draws.shape[-1]), value, dtype=torch.double)


def test_shapes(draws):
    posterior = DrawsPosterior(draws)
    assert posterior.batch_shape == (4,)
    assert posterior._extended_shape(torch.Size([5])) == (5, 4, 3, 2)
    assert posterior.rsample().shape == (1, 4, 3, 2)
    assert posterior.rsample(torch.Size([2, 6])).shape == (2, 6, 4, 3, 2)
    assert posterior.mean.shape == posterior.variance.shape == (4, 3, 2)
    assert posterior.quantile(torch.tensor(0.5)).shape == (4, 3, 2)
    assert posterior.quantile(torch.tensor([0.1, 0.9])).shape == (2, 4, 3, 2)
    assert posterior.density(torch.tensor([0.0, 1.0, 2.0])).shape == (3, 4, 3, 2)
    assert posterior.values.shape == (4, 30, 3, 2)
    assert posterior.dtype == torch.double
    assert posterior.device.type == "cpu"


def test_moments_are_those_of_the_draws(draws):
    posterior = DrawsPosterior(draws)
    torch.testing.assert_close(posterior.mean, draws.mean(0))
    torch.testing.assert_close(posterior.variance, draws.var(0, correction=0))
    # The law that rsample draws from: all draws once.
    samples = posterior.rsample(torch.Size([30]))
    torch.testing.assert_close(samples.mean(0), posterior.mean)
    torch.testing.assert_close(samples.var(0, correction=0), posterior.variance)


def test_a_sample_is_one_draw_at_all_points(draws):
    samples = DrawsPosterior(draws).rsample(torch.Size([10]))
    for sample in samples:
        assert any(torch.equal(sample, draw) for draw in draws)


def test_torch_seed_fixes_rsample(draws):
    posterior = DrawsPosterior(draws, noise_of(draws))
    torch.manual_seed(3)
    first = posterior.rsample(torch.Size([4]))
    other = posterior.rsample(torch.Size([4]))
    torch.manual_seed(3)
    assert torch.equal(first, posterior.rsample(torch.Size([4])))
    assert not torch.equal(first, other)


def test_sampler_is_registered_and_keeps_its_draws(draws):
    posterior = DrawsPosterior(draws)
    sampler = get_sampler(posterior, torch.Size([8]), seed=1)
    assert isinstance(sampler, DrawsSampler)
    first = sampler(posterior)
    assert torch.equal(first, sampler(posterior))
    # Other t-batches and other q: the same functions.
    assert torch.equal(sampler(DrawsPosterior(draws[:, 1:2])), first[:, 1:2])
    assert torch.equal(sampler(DrawsPosterior(draws[:, :, :1])), first[:, :, :1])
    assert torch.equal(sampler(DrawsPosterior(draws[:, 0])), first[:, 0])
    same = get_sampler(posterior, torch.Size([8]), seed=1)
    assert torch.equal(same(posterior), first)


def test_no_draw_twice_before_all_once(draws):
    posterior = DrawsPosterior(draws)
    few = DrawsSampler(torch.Size([5, 6]), seed=0)
    few(posterior)
    assert sorted(few.base_samples.reshape(-1).tolist()) == list(range(30))
    many = DrawsSampler(torch.Size([75]), seed=0)
    many(posterior)
    counts = torch.bincount(many.base_samples, minlength=30)
    assert counts.min() == 2
    assert counts.max() == 3


def test_models_with_the_same_seed_are_not_paired(draws):
    index = []
    for salt in (1, 2):
        sampler = DrawsSampler(torch.Size([30]), seed=0)
        sampler(DrawsPosterior(draws, salt=salt))
        index.append(sampler.base_samples)
    assert not torch.equal(*index)


def test_noise_is_kept_and_grows_with_q(draws):
    noise = noise_of(draws)
    sampler = DrawsSampler(torch.Size([8]), seed=1)
    two = sampler(DrawsPosterior(draws[:, :, :2], noise))
    three = sampler(DrawsPosterior(draws, noise))
    assert torch.equal(three[:, :, :2], two)
    assert torch.equal(sampler(DrawsPosterior(draws, noise)), three)
    clean = DrawsSampler(torch.Size([8]), seed=1)(DrawsPosterior(draws))
    # One noise for all t-batches, another for each point.
    added = three - clean
    torch.testing.assert_close(added[:, 0], added[:, 3])
    assert not torch.allclose(added[:, :, 0], added[:, :, 1])


def many_samples(posterior, n=30 * 4000):
    torch.manual_seed(0)
    return posterior.rsample(torch.Size([n]))


def test_noisy_moments_quantiles_and_density_without_transforms(draws):
    small = draws[:, :1, :1]
    posterior = DrawsPosterior(small, noise_of(small))
    torch.testing.assert_close(posterior.mean, small.mean(0))
    torch.testing.assert_close(posterior.variance, small.var(0, correction=0) + 0.3)
    samples = many_samples(posterior)
    torch.testing.assert_close(samples.var(0), posterior.variance, rtol=0.02, atol=0.0)
    for q in (0.05, 0.5, 0.9):
        value = posterior.quantile(torch.tensor(q))
        share = (samples <= value).double().mean(0)
        torch.testing.assert_close(share, torch.full_like(share, q), atol=0.006, rtol=0.0)
    grid = torch.linspace(-8, 8, 401, dtype=torch.double)
    density = posterior.density(grid)
    total = torch.trapezoid(density, grid, dim=0)
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("transform", [Standardize(m=2), Log()])
def test_noise_passes_through_the_outcome_transform(draws, transform):
    # Standardize learns mean and sd; Log is curved: quadrature, and a change of variables.
    transform(5 + 3 * torch.randn(20, 2, dtype=torch.double).abs())
    transform.eval()
    small = 0.3 * draws[:, :1, :1]
    posterior = DrawsPosterior(small, noise_of(small, 0.05), OutcomeMap(transform))
    samples = many_samples(posterior)
    scale = posterior.variance.sqrt()
    assert ((samples.mean(0) - posterior.mean).abs() < 0.01 * scale).all()
    torch.testing.assert_close(samples.var(0), posterior.variance, rtol=0.03, atol=0.0)
    median = posterior.quantile(torch.tensor(0.8))
    share = (samples <= median).double().mean(0)
    torch.testing.assert_close(share, torch.full_like(share, 0.8), atol=0.006, rtol=0.0)
    low, high = float(samples.min()) - 1, float(samples.max()) + 1
    low = max(low, 1e-3) if isinstance(transform, Log) else low
    grid = torch.linspace(low, high, 1500, dtype=torch.double)
    total = torch.trapezoid(posterior.density(grid), grid, dim=0)
    torch.testing.assert_close(total, torch.ones_like(total), atol=2e-3, rtol=0.0)


def test_kernel_density_of_noise_free_draws_integrates_to_one(draws):
    grid = torch.linspace(-8, 8, 201, dtype=torch.double)
    total = torch.trapezoid(DrawsPosterior(draws).density(grid), grid, dim=0)
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-4, rtol=0.0)


def test_quantiles_of_noise_free_draws_are_numpys(draws):
    ours = DrawsPosterior(draws).quantile(torch.tensor([0.2, 0.7], dtype=torch.double))
    np.testing.assert_allclose(ours.numpy(), np.quantile(draws.numpy(), [0.2, 0.7], axis=0))


def test_bad_requests(draws):
    posterior = DrawsPosterior(draws, noise_of(draws))
    with pytest.raises(InputError, match="strictly between"):
        posterior.quantile(torch.tensor(1.0))
    with pytest.raises(InputError, match="indices of draws"):
        posterior.rsample_from_base_samples(torch.Size([3]), torch.randn(3))
    with pytest.raises(InputError, match="noise_samples"):
        posterior.rsample_from_base_samples(torch.Size([3]), torch.arange(3))
