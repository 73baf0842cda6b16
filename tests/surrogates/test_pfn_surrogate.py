"""A PFN behind BoTorch: joint laws, gradients, conditioning, fantasies, closed-form improvement.

Most tests put an exact Gaussian process in the place of the network, so that answers are known.
"""

from __future__ import annotations

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from botorch.acquisition import (
    UpperConfidenceBound,
    qKnowledgeGradient,
    qLogExpectedImprovement,
    qLogNoisyExpectedImprovement,
    qUpperConfidenceBound,
)
from botorch.acquisition.objective import ScalarizedPosteriorTransform
from botorch.models import SingleTaskGP
from botorch.models.transforms import Log, Normalize, Standardize
from botorch.optim import optimize_acqf
from botorch.sampling.get_sampler import get_sampler

import bayesnet as bn
from bayesnet.data import Scaling
from bayesnet.pfn import BarDistribution, Bars
from bayesnet.pfn.transformer import Transformer
from bayesnet.surrogates import (
    BarExpectedImprovement,
    BarPosterior,
    BarProbabilityOfImprovement,
    PFNSurrogate,
    Surrogate,
    count_traces,
)
from bayesnet.surrogates.bar_law import BarLaw
from bayesnet.surrogates.bar_posterior import correlation_root
from tests.pfn.exact import NOISE, exact_pfn, process

PFN = exact_pfn()
# A real transformer, small and untrained.
TINY = bn.PFN(
    Transformer.create(jax.random.key(0), max_dim=3, bars=50, width=8, depth=1, heads=2, hidden=8),
    Bars(jnp.linspace(-4, 4, 49), jnp.full(2, 0.3)),
    {"name": "tiny", "dims": (1, 2, 3), "buckets": (8, 24), "steps": 0},
)
G = torch.Generator().manual_seed(0)
UNIT = Scaling.identity(2, 1)


def rand(*shape):
    return torch.rand(*shape, generator=G, dtype=torch.double)


X = 3 * rand(9, 2) - 1.5
Y = torch.sin(2 * X[:, :1]) + 0.5 * X[:, 1:]
NEW = 3 * rand(3, 3, 2) - 1.5


def exact(x, y, at):
    """Mean and covariance of f at scaled points, by the textbook."""
    return process(*(np.asarray(a, np.float64) for a in (x, y, at)))


@pytest.fixture(scope="module")
def model():
    return Surrogate(X, Y, inference=PFN, scaling=UNIT)


@pytest.fixture(scope="module")
def both():
    """Two outcomes, in units of their own."""
    return Surrogate(X, torch.cat([Y, 10 - 3 * Y**2], 1), inference=PFN)


# --- the posterior --------------------------------------------------------------------------


def test_the_joint_law_is_the_exact_one(model):
    assert isinstance(model, PFNSurrogate)
    post, noisy = model.posterior(NEW), model.posterior(NEW, observation_noise=True)
    assert post.mean.shape == post.variance.shape == (3, 3, 1)
    for t in range(3):
        mean, cov = exact(X, Y[:, 0], NEW[t])
        sd = np.sqrt(np.diag(cov))
        np.testing.assert_allclose(post.mean[t, :, 0], mean, atol=1e-5)
        np.testing.assert_allclose(post.variance[t, :, 0], sd**2, rtol=1e-3)
        np.testing.assert_allclose(noisy.variance[t, :, 0], sd**2 + NOISE**2, rtol=1e-3)
        for law, s in ((post, sd), (noisy, np.sqrt(sd**2 + NOISE**2))):
            found = law.root[t, 0] @ law.root[t, 0].T
            expected = cov / np.outer(s, s)
            np.fill_diagonal(expected, 1.0)
            np.testing.assert_allclose(found, expected, atol=2e-3)
    sampler = get_sampler(post, torch.Size([4096]), seed=0)
    draws = sampler(post)[:, 1, :, 0].numpy()
    mean, cov = exact(X, Y[:, 0], NEW[1])
    np.testing.assert_allclose(draws.mean(0), mean, atol=0.02)
    np.testing.assert_allclose(np.cov(draws.T), cov, atol=0.02)


def test_predictions_are_those_of_fit(both):
    at = NEW.reshape(-1, 2)
    ref = both.fitted.predict(at.numpy())
    post, noisy = both.posterior(at), both.posterior(at, observation_noise=True)
    np.testing.assert_allclose(post.mean, ref.mean, atol=1e-4)
    np.testing.assert_allclose(post.variance.sqrt(), ref.epistemic_std, rtol=1e-3)
    np.testing.assert_allclose(noisy.variance.sqrt(), ref.std, rtol=1e-3)
    level = noisy.quantile(torch.tensor([0.1, 0.9]))
    np.testing.assert_allclose(level[1], ref.quantile(0.9), atol=1e-3)
    kept = both.subset_output([1])
    torch.testing.assert_close(kept.posterior(at).mean, post.mean[:, 1:])
    torch.testing.assert_close(
        both.posterior(at, output_indices=[1]).variance, post.variance[:, 1:]
    )
    again = Surrogate.from_posterior(both.fitted)
    torch.testing.assert_close(again.posterior(at).mean, post.mean)


def test_samples_are_coherent_and_repeatable(model):
    sampler = get_sampler(model.posterior(NEW[:1]), torch.Size([16]), seed=1)
    one = sampler(model.posterior(NEW[:1]))
    assert one.shape == (16, 1, 3, 1)
    assert torch.equal(one, sampler(model.posterior(NEW[:1])))
    # The same function in every t-batch place, whatever else is in the batch.
    torch.testing.assert_close(sampler(model.posterior(NEW))[:, 0], one[:, 0], rtol=1e-5, atol=1e-6)
    same = NEW[:1].expand(4, 3, 2)
    every = sampler(model.posterior(same))
    torch.testing.assert_close(every, one.expand(16, 4, 3, 1), rtol=1e-6, atol=1e-8)
    # The first point does not depend on what comes with it.
    base = torch.randn(5, 3, dtype=torch.double)
    two = model.posterior(NEW[0, :2]).rsample_from_base_samples(torch.Size([5]), base[:, :2])
    three = model.posterior(NEW[0]).rsample_from_base_samples(torch.Size([5]), base)
    torch.testing.assert_close(two, three[:, :2], rtol=1e-6, atol=1e-8)
    torch.manual_seed(3)
    first = model.posterior(NEW).rsample(torch.Size([2]))
    torch.manual_seed(3)
    assert torch.equal(first, model.posterior(NEW).rsample(torch.Size([2])))


def test_given_noise(model):
    clean = model.posterior(NEW)
    noisy = model.posterior(NEW, observation_noise=torch.full((3, 1), 0.7))
    torch.testing.assert_close(noisy.variance, clean.variance + 0.7, rtol=1e-6, atol=1e-6)
    draws = get_sampler(noisy, torch.Size([4096]), seed=0)(noisy)
    torch.testing.assert_close(draws.var(0), noisy.variance, rtol=0.05, atol=0.0)
    with pytest.raises(bn.InputError, match="broadcast"):
        model.posterior(NEW, observation_noise=torch.ones(5, 1))
    with pytest.raises(bn.InputError, match="negative"):
        model.posterior(NEW, observation_noise=-torch.ones(1, 1))


def test_scalarized_outcomes(both):
    weights = torch.tensor([0.3, -2.0], dtype=torch.double)
    post = both.posterior(NEW, posterior_transform=ScalarizedPosteriorTransform(weights, 1.5))
    plain = both.posterior(NEW)
    torch.testing.assert_close(post.mean[..., 0], plain.mean @ weights + 1.5)
    torch.testing.assert_close(post.variance[..., 0], plain.variance @ weights**2)
    draws = get_sampler(post, torch.Size([4096]), seed=0)(post)
    assert draws.shape == (4096, 3, 3, 1)
    torch.testing.assert_close(draws.mean(0), post.mean, rtol=0.05, atol=0.02)


def test_any_numbers_give_correlations():
    wild = torch.tril(4 * rand(5, 6, 6) - 2, -1).requires_grad_()
    root = correlation_root(wild)
    torch.testing.assert_close(
        (root @ root.mT).diagonal(dim1=-1, dim2=-2), torch.ones(5, 6).double()
    )
    assert (root.diagonal(dim1=-1, dim2=-2) > 0).all()
    root.sum().backward()
    assert torch.isfinite(wild.grad).all()
    a = rand(6, 9)
    cov = a @ a.mT
    sd = cov.diagonal().sqrt()
    torch.testing.assert_close(
        correlation_root(cov / sd / sd[:, None]), torch.linalg.cholesky(cov / sd / sd[:, None])
    )


def test_bars_in_torch_are_those_of_the_pfn():
    rng = np.random.default_rng(0)
    edges = np.sort(rng.normal(size=(2, 11)), axis=1)
    tails, logits = rng.uniform(0.2, 1, (2, 2)), 2 * rng.normal(size=(4, 2, 12))
    ref = BarDistribution(logits, edges, tails)
    law = BarLaw(*(torch.as_tensor(a) for a in (logits, edges, tails)))
    np.testing.assert_allclose(law.mean, ref.mean)
    np.testing.assert_allclose(law.variance, ref.variance)
    u = np.concatenate([[1e-9, 1 - 1e-9], rng.uniform(size=30)])[:, None, None] * np.ones((1, 4, 2))
    np.testing.assert_allclose(law.quantile(torch.as_tensor(u)), ref.quantile(u), rtol=1e-7)
    for best in (-4.0, -0.3, 0.0, 0.8, 4.0):
        at = torch.full((4, 2), best).double()
        np.testing.assert_allclose(
            law.expected_improvement(at), ref.expected_improvement(best), atol=1e-12
        )
        np.testing.assert_allclose(law.cdf(at), ref.cdf(best), atol=1e-12)
    turned = law.affine(torch.tensor([1.0, 0.0]), torch.tensor([-2.0, 0.5]))
    np.testing.assert_allclose(turned.mean[:, 0], 1 - 2 * ref.mean[:, 0])
    np.testing.assert_allclose(turned.variance[:, 0], 4 * ref.variance[:, 0])
    x = law.logits.clone().requires_grad_()
    levels = rand(5, 4, 2)
    assert torch.autograd.gradcheck(
        lambda a: BarLaw(a, law.edges, law.tails).quantile(levels), (x,)
    )


# --- gradients ------------------------------------------------------------------------------


def check_gradient(function, x, h=1e-6, rtol=1e-4, seed=1):
    x = x.clone().requires_grad_()
    function(x).sum().backward()
    along = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    with torch.no_grad():
        change = (function(x + h * along) - function(x - h * along)).sum() / (2 * h)
    np.testing.assert_allclose((x.grad * along).sum(), change, rtol=rtol)


def test_gradients_are_finite_differences(model, both):
    post = model.posterior(NEW)
    sampler = get_sampler(post, torch.Size([8]), seed=0)
    check_gradient(lambda x: sampler(model.posterior(x)).square(), NEW)
    check_gradient(lambda x: both.posterior(x, observation_noise=True).variance, NEW)


@pytest.mark.slow
def test_gradients_of_noisy_improvement(model):
    sampler = get_sampler(model.posterior(NEW), torch.Size([8]), seed=0)
    acquisition = qLogNoisyExpectedImprovement(
        model, X, sampler, prune_baseline=False, cache_root=False
    )
    check_gradient(acquisition, NEW[:, :1])


@pytest.mark.parametrize("pfn", [TINY, pytest.param("pfn", marks=pytest.mark.slow)], ids=["", "gp"])
def test_gradients_of_transformers_are_finite_differences(pfn):
    model = Surrogate(X, Y, inference=pfn)
    sampler = get_sampler(model.posterior(NEW[:2, :2]), torch.Size([4]), seed=0)
    check_gradient(lambda x: sampler(model.posterior(x)).square(), NEW[:2, :2])
    low = Surrogate(X, Y, inference=pfn, dtype=torch.float32).posterior(NEW)
    torch.testing.assert_close(low.mean, model.posterior(NEW).mean, rtol=1e-3, atol=1e-3)
    assert model.posterior(NEW.float()).mean.dtype == torch.float32


# --- conditioning ---------------------------------------------------------------------------


def test_conditioning_is_a_longer_table(model):
    more, y = NEW[0], torch.tensor([[0.3], [-0.2], [0.9]]).double()
    full = Surrogate(torch.cat([X, more]), torch.cat([Y, y]), inference=PFN, scaling=UNIT)
    ours = model.condition_on_observations(more, y)
    twice = model.condition_on_observations(more[:1], y[:1]).condition_on_observations(
        more[1:], y[1:]
    )
    for other in (ours, twice):
        assert other.num_rows == 12
        torch.testing.assert_close(
            other.posterior(NEW).mean, full.posterior(NEW).mean, rtol=1e-5, atol=1e-5
        )
        torch.testing.assert_close(other.train_inputs[0], full.train_inputs[0])
        torch.testing.assert_close(other.train_targets, full.train_targets)
    assert model.num_rows == 9
    with pytest.raises(bn.InputError, match="at most 24"):
        model.condition_on_observations(rand(16, 2), rand(16, 1))
    with pytest.raises(bn.UnsupportedError, match="noise"):
        model.condition_on_observations(more, y, noise=y**2)


def test_fantasies_condition_on_every_draw(both):
    points = NEW[:, :2]
    fantasy = both.fantasize(points, get_sampler(both.posterior(points), torch.Size([2]), seed=0))
    assert fantasy.batch_shape == (2, 3)
    y = fantasy.train_targets.mT[..., -2:, :]
    at = NEW[:, 1:].expand(2, 3, 2, 2)
    post = fantasy.posterior(at)
    alone = both.condition_on_observations(points[2], y[1, 2]).posterior(at[1, 2])
    torch.testing.assert_close(post.mean[1, 2], alone.mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(post.root[1, 2], alone.root, rtol=1e-3, atol=1e-4)

    def look(x):
        ahead = both.condition_on_observations(x, both.posterior(x).mean + 1)
        return ahead.posterior(NEW).mean

    check_gradient(look, NEW)


# --- acquisition ----------------------------------------------------------------------------


@pytest.mark.parametrize("maximize", [True, False])
def test_improvement_in_closed_form(model, maximize):
    best, at = 0.4, NEW[:, :1]
    draws = model.posterior(at).rsample(torch.Size([200_000]))[..., 0, 0]
    sign = 1 if maximize else -1
    gain = (sign * (draws - best)).clamp_min(0)
    ei = BarExpectedImprovement(model, best, maximize)
    np.testing.assert_allclose(ei(at), gain.mean(0), atol=4 * float(gain.std(0).max()) / 450)
    pi = BarProbabilityOfImprovement(model, best, maximize)
    np.testing.assert_allclose(pi(at), (gain > 0).double().mean(0), atol=0.005)
    torch.testing.assert_close(
        BarExpectedImprovement(model, best, maximize, log=True)(at), ei(at).log()
    )
    check_gradient(BarExpectedImprovement(model, best, maximize, log=True), at)
    check_gradient(pi, at)
    other = BarExpectedImprovement(model, best, not maximize)
    torch.testing.assert_close(
        sign * (ei(at) - other(at)), model.posterior(at).mean[:, 0, 0] - best
    )


CENTRE = torch.tensor([0.4, -0.3], dtype=torch.double)
BOX = torch.tensor([[-1.5, -1.5], [1.5, 1.5]], dtype=torch.double)


@pytest.fixture(scope="module")
def hill():
    """A table of a parabola, dense enough that nothing but its top is of interest."""
    side = torch.linspace(-1.4, 1.4, 4, dtype=torch.double)
    x = torch.cartesian_prod(side, side)
    y = 3 - 2 * ((x - CENTRE) ** 2).sum(-1, keepdim=True)
    return Surrogate(x, y, inference=PFN, scaling=UNIT), x, y


@pytest.mark.parametrize(
    "name",
    [
        "qLogEI",
        "UCB",
        "EI",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("qLogNEI", "qUCB")),
    ],
)
def test_optimize_finds_the_optimum(hill, name):
    model, x, _ = hill
    sampler = get_sampler(model.posterior(x[:1]), torch.Size([32]), seed=0)
    best = model.posterior(x).mean.max()
    acquisition = {
        "qLogEI": lambda: qLogExpectedImprovement(model, best, sampler),
        "qLogNEI": lambda: qLogNoisyExpectedImprovement(model, x, sampler, cache_root=False),
        "qUCB": lambda: qUpperConfidenceBound(model, 0.5, sampler),
        "UCB": lambda: UpperConfidenceBound(model, beta=0.1),
        "EI": lambda: BarExpectedImprovement(model, best, log=True),
    }[name]()
    torch.manual_seed(0)
    q = 2 if name == "qUCB" else 1
    point, value = optimize_acqf(acquisition, BOX, q, 2, 32, options={"maxiter": 20})
    assert torch.isfinite(value)
    assert (point - CENTRE).norm(dim=-1).min() < 0.35


@pytest.mark.slow
def test_knowledge_gradient(hill):
    model, x, _ = hill
    small = Surrogate(x[:12], model.train_targets[:12, None], inference=PFN, scaling=UNIT)
    sampler = get_sampler(small.posterior(x), torch.Size([3]), seed=0)
    gradient = qKnowledgeGradient(small, num_fantasies=3, sampler=sampler)
    check_gradient(gradient, 3 * rand(2, 4, 2) - 1.5, rtol=1e-3)
    torch.manual_seed(0)
    point, value = optimize_acqf(gradient, BOX, 1, 2, 8, options={"maxiter": 8})
    assert point.shape == (1, 2)
    # Looking one step ahead is worth something: more than the best mean now.
    assert value > small.posterior(x).mean.max()


def test_programs_are_traced_once(model):
    fresh = Surrogate(X, Y, inference=TINY)

    def step(model):
        sampler = get_sampler(model.posterior(NEW), torch.Size([4]), seed=0)
        acquisition = qLogExpectedImprovement(model, 0.0, sampler)
        x = NEW[:, :2].clone().requires_grad_()
        acquisition(x).sum().backward()

    step(fresh)
    with count_traces() as traces:
        step(fresh)
        # More rows in the same bucket: the same programs.
        step(Surrogate(torch.cat([X, NEW[0]]), torch.cat([Y, Y[:3]]), inference=TINY))
        step(copy.deepcopy(fresh))
    assert not traces


# --- transforms, copies, bad input ----------------------------------------------------------


def test_transforms_of_botorch():
    x, y = 4 * X + 7, torch.exp(Y) + 20
    tf = {"input_transform": Normalize(2), "outcome_transform": Standardize(1)}
    model = Surrogate(x, y, inference=PFN, **tf)
    low, high, loc, scale = x.amin(0), x.amax(0), y.mean(), y.std()
    by_hand = Surrogate((x - low) / (high - low), (y - loc) / scale, inference=PFN, scaling=UNIT)
    at = 4 * NEW + 7
    for noise in (False, True):
        ours = model.posterior(at, observation_noise=noise)
        theirs = by_hand.posterior((at - low) / (high - low), observation_noise=noise)
        torch.testing.assert_close(ours.mean, theirs.mean * scale + loc)
        torch.testing.assert_close(ours.variance, theirs.variance * scale**2)
    best = float(y.max())
    torch.testing.assert_close(
        BarExpectedImprovement(model, best)(at[:, :1]),
        BarExpectedImprovement(by_hand, (best - loc) / scale)((at[:, :1] - low) / (high - low))
        * scale,
    )
    conditioned = model.condition_on_observations(at[0], y[:3])
    other = by_hand.condition_on_observations((at[0] - low) / (high - low), (y[:3] - loc) / scale)
    torch.testing.assert_close(
        conditioned.posterior(at).mean,
        other.posterior((at - low) / (high - low)).mean * scale + loc,
    )
    logged = Surrogate(x, y, inference=PFN, outcome_transform=Log())
    post = logged.posterior(at)
    draws = get_sampler(post, torch.Size([2**16]), seed=0)(post)
    assert (draws > 0).all()
    torch.testing.assert_close(draws.mean(0), post.mean, rtol=0.01, atol=0.0)
    torch.testing.assert_close(draws.var(0), post.variance, rtol=0.1, atol=0.0)
    with pytest.raises(bn.UnsupportedError, match="affine"):
        BarExpectedImprovement(logged, best)(at[:, :1])


def test_copies_and_pickles_are_the_same_model(both):
    fantasy = both.condition_on_observations(NEW[:, :1], torch.zeros(2, 3, 1, 2).double())
    for model in (both, fantasy):
        for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            assert torch.equal(again.posterior(NEW).mean, model.posterior(NEW).mean)


def test_bad_input(both):
    with pytest.raises(bn.UnsupportedError, match="train_Yvar"):
        Surrogate(X, Y, torch.ones_like(Y), inference="pfn")
    with pytest.raises(bn.UnsupportedError, match="own prior"):
        Surrogate(X, Y, prior=bn.GaussianProcess("rbf", 1.0), inference="pfn")
    with pytest.raises(bn.InputError, match="at most 24"):
        Surrogate(rand(25, 2), rand(25, 1), inference=PFN)
    with pytest.raises(bn.InputError, match="at most 3"):
        Surrogate(rand(5, 4), rand(5, 1), inference=PFN)
    with pytest.raises(bn.InputError, match="columns"):
        both.posterior(X[:, :1])
    with pytest.raises(bn.InputError, match="2 outcomes"):
        BarExpectedImprovement(both, 0.0)
    many = both.posterior(rand(300, 2))
    assert many.mean.shape == (300, 2)
    with pytest.raises(bn.InputError, match="at most at 256"):
        many.rsample()
    with pytest.raises(bn.UnsupportedError, match="bars"):
        BarExpectedImprovement(SingleTaskGP(X, Y), 0.0)(NEW[:, :1])
    assert isinstance(both.posterior(X), BarPosterior)
