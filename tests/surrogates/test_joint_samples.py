"""Samples of every posterior have its own moments, and the joint law that plain Monte Carlo draws."""

import numpy as np
import pytest
import torch
from botorch.acquisition.objective import ExpectationPosteriorTransform
from botorch.models import ModelList
from botorch.posteriors import PosteriorList
from botorch.sampling.get_sampler import get_sampler

import bayesnet as bn
from bayesnet.surrogates import BarPosterior, DrawsPosterior, Surrogate
from bayesnet.surrogates.bar_law import BarLaw
from bayesnet.surrogates.conditional import Nodes
from bayesnet.surrogates.mixture_posterior import ScaleMixturePosterior
from bayesnet.surrogates.outcomes import OutcomeMap

NUM = 2**15
RNG = np.random.default_rng(0)
ROOT = np.array([[1.0, 0.0], [0.6, 0.8]])


def nodes(sd, weight, df=None, sizes=(), q=2):
    """Nodes with sds and weights (j, m), means apart, two correlated points."""
    sd, weight = np.array(sd), np.array(weight)
    j, m = sd.shape
    mean = np.linspace(-0.5, 0.5, j)[:, None, None] * np.ones((j, q, m))
    cov = (ROOT @ ROOT.T)[:q, :q] * (sd**2)[:, :, None, None]
    tensors = (torch.tensor(a) for a in (mean, cov, np.log(weight), np.ones((j, m))))
    return Nodes(*tensors, df, sizes)


MIXTURES = {
    "nodes": (nodes([[1.0], [3.0]], [[0.6], [0.4]]), True),
    "t": (nodes([[2.0]], [[1.0]], 7.0), True),
    "members of t": (nodes([[1.0], [3.0]], [[0.5], [0.5]], 7.0, (1, 1)), True),
    "members of t, the other way": (nodes([[3.0], [1.0]], [[0.5], [0.5]], 7.0, (1, 1)), True),
    "one point": (nodes([[1.0], [3.0]], [[0.5], [0.5]], 7.0, (1, 1), q=1), True),
    "shared scale of two outputs": (
        nodes([[1.0, 2.0], [3.0, 0.5]], [[0.7, 0.7], [0.3, 0.3]], 8.0, (1, 1)),
        True,
    ),
    "a scale an output": (nodes([[1.0, 2.0], [3.0, 0.5]], [[0.7, 0.2], [0.3, 0.8]]), False),
    "t, a scale an output": (nodes([[1.0, 2.0]], [[1.0, 1.0]], 8.0), False),
    "members of t, a scale an output": (
        nodes([[1.0, 2.0], [3.0, 0.5]], [[0.7, 0.7], [0.3, 0.3]], 8.0, (1, 1)),
        False,
    ),
    "members of nodes, a scale an output": (
        nodes(
            [[1.0, 2.0], [2.0, 0.5], [4.0, 4.0]],
            [[0.4, 0.1], [0.2, 0.5], [0.4, 0.4]],
            sizes=(2, 1),
        ),
        False,
    ),
}


def reference(n, shared):
    """What `Nodes` says, by NumPy: (NUM, q, m)."""
    mean, cov, weight = (np.asarray(a) for a in (n.mean, n.cov, n.log_weight.exp()))
    j, q, m = mean.shape
    out = np.empty((NUM, q, m))
    sizes = n.sizes or (j,)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    share = np.array([weight[owner == g, 0].sum() for g in range(len(sizes))])
    member = RNG.choice(len(sizes), NUM, p=share)
    chi = None if n.df is None else RNG.chisquare(n.df, NUM) / n.df
    node = np.empty(NUM, int)
    for i in range(m):
        if i == 0 or not shared:
            for g in range(len(sizes)):
                own = np.flatnonzero(owner == g)
                p = weight[own, i] / weight[own, i].sum()
                chosen = member == g
                node[chosen] = own[RNG.choice(len(own), chosen.sum(), p=p)]
            if n.df is not None and i > 0:
                chi = RNG.chisquare(n.df, NUM) / n.df
        root = np.linalg.cholesky(cov[:, i])
        e = np.einsum("sab,sb->sa", root[node], RNG.normal(size=(NUM, q)))
        out[:, :, i] = mean[node, :, i] + (e if chi is None else e / np.sqrt(chi)[:, None])
    return out


def quasi_random(posterior, num=NUM):
    return get_sampler(posterior, torch.Size([num]), seed=3)(posterior).numpy()


def plain(posterior, num=NUM):
    torch.manual_seed(5)
    return posterior.rsample(torch.Size([num])).numpy()


def summary(samples):
    """Levels of every value, and how values go together, tails included (all of order 1)."""
    flat = samples.reshape(len(samples), -1) / 3
    folded = np.minimum(np.abs(flat), 2.0)
    bound = np.clip(flat, -2, 2)
    return np.concatenate(
        [
            np.mean(flat[:, None] < np.array([-1.5, -0.4, 0.1, 0.6, 1.5])[:, None], 0).ravel(),
            (folded.T @ folded / len(flat)).ravel(),
            (bound.T @ bound / len(flat)).ravel(),
        ]
    )


@pytest.mark.parametrize("sample", [quasi_random, plain])
@pytest.mark.parametrize("name", list(MIXTURES))
def test_mixtures(name, sample):
    posterior = ScaleMixturePosterior(*MIXTURES[name])
    samples = sample(posterior)
    np.testing.assert_allclose(samples.mean(0), posterior.mean, atol=0.06)
    np.testing.assert_allclose(samples.var(0), posterior.variance, rtol=0.06)
    np.testing.assert_allclose(summary(samples), summary(reference(*MIXTURES[name])), atol=0.02)


def test_means_of_points_that_depend_on_each_other():
    """Points of a function are correlated: their mean has the variance of its samples."""
    for name in ("shared scale of two outputs", "t"):
        nodes_, shared = MIXTURES[name]
        weights = torch.tensor([[0.5], [0.5]]).double()
        for outputs in (None, (0,)):
            transform = ExpectationPosteriorTransform(n_w=2, weights=weights)
            outcome = OutcomeMap(outputs=outputs, transform=transform)
            posterior = ScaleMixturePosterior(nodes_, shared, outcome)
            samples = quasi_random(posterior)
            assert samples.shape[1:] == posterior.mean.shape
            np.testing.assert_allclose(samples.mean(0), posterior.mean, atol=0.05)
            np.testing.assert_allclose(samples.var(0), posterior.variance, rtol=0.04)


@pytest.mark.parametrize("sample", [quasi_random, plain])
@pytest.mark.parametrize("noise", [None, 0.49])
def test_draws(sample, noise):
    values = torch.tensor(RNG.normal(size=(16, 2, 2)) * [1.0, 2.0])
    variance = None if noise is None else torch.full((16, 1, 2), noise, dtype=torch.double)
    posterior = DrawsPosterior(values, variance)
    samples = sample(posterior)
    np.testing.assert_allclose(samples.mean(0), posterior.mean, atol=0.03)
    np.testing.assert_allclose(samples.var(0), posterior.variance, rtol=0.04)
    found = values.numpy()[RNG.integers(16, size=NUM)]
    found = found + np.sqrt(noise or 0.0) * RNG.normal(size=found.shape)
    np.testing.assert_allclose(summary(samples), summary(found), atol=0.02)


@pytest.mark.parametrize("sample", [quasi_random, plain])
@pytest.mark.parametrize("noise", [None, 0.25])
def test_bars(sample, noise):
    """Normal laws of two outputs cut into bars: then the copula of the samples is the joint law."""
    edges = torch.linspace(-5, 5, 399, dtype=torch.double)
    mean = torch.tensor([[0.5, -1.0], [0.0, 1.0]], dtype=torch.double)  # (q, m)
    sd = torch.tensor([[1.0, 0.7], [0.5, 1.5]], dtype=torch.double)
    ends = torch.cat([edges[:1] - 9, edges, edges[-1:] + 9])
    mass = torch.special.ndtr((ends - mean[..., None]) / sd[..., None]).diff(dim=-1)
    law = BarLaw(mass.clamp_min(1e-12).log(), edges.expand(2, -1), torch.full((2, 2), 0.4).double())
    both = torch.tensor([[[1.0, 0], [0.8, 1.0]], [[1.0, 0], [-0.5, 1.0]]], dtype=torch.double)
    variance = None if noise is None else torch.full((2, 2), noise, dtype=torch.double)
    posterior = BarPosterior(law, lambda: both, noise_var=variance)
    samples = sample(posterior)
    np.testing.assert_allclose(samples.mean(0), posterior.mean, atol=0.03)
    np.testing.assert_allclose(samples.var(0), posterior.variance, rtol=0.04)
    z = RNG.normal(size=(NUM, 2, 2))
    joint = z.copy()
    for i, rho in enumerate((0.8, -0.5)):
        joint[:, 1, i] = rho * z[:, 0, i] + np.sqrt(1 - rho**2) * z[:, 1, i]
    found = mean.numpy() + sd.numpy() * joint
    found = found + np.sqrt(noise or 0.0) * RNG.normal(size=found.shape)
    np.testing.assert_allclose(summary(samples), summary(found), atol=0.02)


def test_models_of_a_list_are_sampled_apart():
    """One seed for all samplers of a list, as BoTorch has it: values of two models do not go together."""
    edges = torch.linspace(-3, 3, 49, dtype=torch.double)[None]
    law = BarLaw(torch.zeros(1, 1, 50).double(), edges, torch.full((1, 2), 0.5).double())
    one = torch.ones(1, 1, 1).double()
    pairs = {
        "bars": [BarPosterior(law, lambda: one, salt=i) for i in (1, 2)],
        "mixtures": [ScaleMixturePosterior(*MIXTURES["one point"], salt=i) for i in (1, 2)],
        "noise of draws": [
            DrawsPosterior(torch.zeros(4, 1, 1).double(), torch.ones(4, 1, 1).double(), salt=i)
            for i in (1, 2)
        ],
    }
    for name, pair in pairs.items():
        samples = quasi_random(PosteriorList(*pair), 1024)
        assert abs(np.corrcoef(samples[:, 0].T)[0, 1]) < 0.12, name


def test_fantasies_of_a_mixture_have_the_law_of_observations():
    """Values that are dreamt up at a point have the mean and variance of an observation there."""
    x = torch.linspace(-1, 1, 6).double()[:, None]
    prior = bn.ScaleMixture(bn.GaussianProcess("rbf", 0.7, 1.0), bn.InverseGamma(3.0, 2.0))
    model = Surrogate(x, torch.sin(3 * x), prior=prior, inference=bn.Exact(), warn=False)
    at = torch.tensor([[0.1], [3.0]]).double()
    seen = model.posterior(at, observation_noise=True)
    sampler = get_sampler(seen, torch.Size([4096]), seed=0)
    dreamt = model.fantasize(at, sampler).train_targets[:, -2:]
    np.testing.assert_allclose(dreamt.mean(0), seen.mean[:, 0], atol=0.05)
    np.testing.assert_allclose(dreamt.var(0), seen.variance[:, 0], rtol=0.1)


def test_salts_of_surrogates_differ(make):
    models = ModelList(make.surrogate(seed=0), make.surrogate(seed=1))
    at = torch.rand(1, 2, generator=torch.Generator().manual_seed(0)).double()
    posterior = models.posterior(at, observation_noise=True)
    samples = quasi_random(posterior, 1024)
    assert abs(np.corrcoef(samples[:, 0].T)[0, 1]) < 0.12
