"""The bridge: values, gradients, blocks, traces."""

from __future__ import annotations

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from bayesnet.surrogates import Bridge, count_traces
from bayesnet.surrogates.bridge import BUCKETS, block_sizes


def random_points(n, d=2, seed=0, dtype=torch.double):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, d, generator=generator, dtype=dtype)


@pytest.fixture(scope="module")
def bridge(make):
    posterior = make.posterior(out_dim=2, hidden=(6, 4), draws=40)
    return Bridge(posterior.prior, posterior.split()[0], dtype=torch.float64)


def direct(bridge, x, dtype):
    """The same draws by the prior's own apply, one at a time."""
    with jax.enable_x64(dtype == torch.float64):
        points = jnp.asarray(x.to(dtype).numpy())
        z = jnp.asarray(bridge.latents, points.dtype)
        return np.stack([np.asarray(bridge.prior.apply(zi, points)) for zi in z])


@pytest.mark.parametrize("n", [1, 2, 16, 17, 80])
def test_values_are_those_of_the_prior(bridge, n):
    x = random_points(n)
    values = bridge(x)
    assert values.shape == (40, n, 2)
    assert values.dtype == torch.double
    np.testing.assert_allclose(values.numpy(), direct(bridge, x, torch.float64), rtol=1e-10)


def test_float32_and_back(make):
    before = jax.config.jax_enable_x64
    posterior = make.posterior()
    narrow = Bridge(posterior.prior, posterior.split()[0])
    x = random_points(5)
    values = narrow(x)
    assert values.dtype == torch.double
    np.testing.assert_allclose(values.numpy(), direct(narrow, x, torch.float32), rtol=1e-5)
    assert narrow(x.float()).dtype == torch.float32
    assert jax.config.jax_enable_x64 == before


def test_gradients_equal_finite_differences(bridge):
    x = random_points(7).requires_grad_()
    weights = torch.randn(40, 7, 2, dtype=torch.double)
    (bridge(x) * weights).sum().backward()
    step = 1e-6
    with torch.no_grad():
        for i, j in [(0, 0), (3, 1), (6, 0)]:
            shift = torch.zeros_like(x)
            shift[i, j] = step
            ahead, behind = (bridge(x + shift) * weights).sum(), (bridge(x - shift) * weights).sum()
            slope = (ahead - behind) / (2 * step)
            torch.testing.assert_close(x.grad[i, j], slope, rtol=1e-6, atol=1e-7)


def test_gradcheck(bridge):
    assert torch.autograd.gradcheck(bridge, (random_points(3).requires_grad_(),))


def test_gradients_across_blocks(bridge):
    x = random_points(20).requires_grad_()
    bridge(x).sum().backward()
    rows = [row[None].detach().clone().requires_grad_() for row in x]
    for row in rows:
        bridge(row).sum().backward()
    torch.testing.assert_close(x.grad, torch.cat([row.grad for row in rows]))


def test_points_need_no_gradient(bridge):
    with count_traces() as traces:
        assert not bridge(random_points(3)).requires_grad
        with torch.no_grad():
            assert not bridge(random_points(3).requires_grad_()).requires_grad
    assert all(program == "values" for program, _, _ in traces)


def test_no_points(bridge):
    assert bridge(torch.zeros(0, 2, dtype=torch.double)).shape == (40, 0, 2)


@pytest.mark.parametrize("n", [*range(1, 90), 255, 300, 1023, 1025, 5000])
def test_blocks_hold_the_points_and_waste_little(n):
    sizes = block_sizes(n)
    assert set(sizes) <= set(BUCKETS)
    assert sum(sizes) >= n
    assert sum(sizes[:-1]) < n
    above = next((size for size in BUCKETS if n <= size), n + BUCKETS[-1])
    assert sum(sizes) <= above


def test_every_program_is_traced_once_a_bucket(make):
    posterior = make.posterior(hidden=(3,), draws=34)
    fresh = Bridge(posterior.prior, posterior.split()[0], dtype=torch.float64)
    with count_traces() as first:
        for n in (1, 5, 9, 16, 40, 64):
            fresh(random_points(n).requires_grad_())
    assert dict(first) == {("values_and_gradients", n, "float64"): 1 for n in (1, 16, 64)}
    with count_traces() as second:
        for n in (64, 33, 3, 1):
            fresh(random_points(n).requires_grad_())
    assert not second


def test_shares_of_the_draws_beside_each_other(make, monkeypatch):
    posterior = make.posterior(out_dim=2, draws=66)
    whole, shared = (Bridge(posterior.prior, posterior.split()[0]) for _ in range(2))
    x = random_points(20).requires_grad_()
    weights = torch.randn(66, 20, 2, dtype=torch.double)
    (expected,) = torch.autograd.grad((whole(x) * weights).sum(), x)
    monkeypatch.setattr("bayesnet.surrogates.bridge.WORK_FOR_THREADS", 0)
    monkeypatch.setattr("bayesnet.devices.cpu_count", lambda: 3)
    with count_traces() as traces:
        (gradient,) = torch.autograd.grad((shared(x) * weights).sum(), x)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-5)
    assert len(shared._shares[3]) == 3
    assert set(traces.values()) == {1}


def test_another_posterior_of_the_same_shape_traces_nothing(make):
    one, two = (make.posterior(hidden=(3,), draws=24, seed=seed) for seed in (0, 1))
    Bridge(one.prior, one.split()[0])(random_points(4))
    with count_traces() as traces:
        Bridge(two.prior, two.split()[0])(random_points(4))
    assert not traces


def test_pickle_holds_arrays_only(bridge):
    x = random_points(4)
    before = bridge(x)
    again = pickle.loads(pickle.dumps(bridge))
    assert torch.equal(again(x), before)
