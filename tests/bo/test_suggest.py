from dataclasses import replace

import botorch
import numpy as np
import pytest
import torch
from botorch.acquisition import qLogNoisyExpectedImprovement
from botorch.models import SingleTaskGP
from botorch.sampling.get_sampler import get_sampler

import bayesnet as bn
from bayesnet import InputError, UnsupportedError
from bayesnet.bo import ACQUISITIONS, LoopSettings, LoopState, suggest, suggest_from_pool
from bayesnet.bo.acquisition import DrawsLogNEI, Problem, acquisition_function, one_draw

from .conftest import TINY, tiny_prior

BOUNDS = np.array([[-5.0, 100.0], [10.0, 400.0]])
PEAK = np.array([4.0, 300.0])


def bowl(X):
    """A maximum of 0 at PEAK, in units of its own."""
    return -1e6 * (((np.asarray(X) - PEAK) / (BOUNDS[1] - BOUNDS[0])) ** 2).sum(axis=1)


def design(n, seed=0):
    return BOUNDS[0] + (BOUNDS[1] - BOUNDS[0]) * np.random.default_rng(seed).uniform(size=(n, 2))


@pytest.fixture(scope="module")
def state():
    settings = LoopSettings(replace(TINY, chains=2, draws=64), tiny_prior(2))
    X = design(14)
    return LoopState(BOUNDS, settings).update(X, bowl(X))


@pytest.fixture(scope="module")
def gp():
    X = torch.as_tensor(design(20))
    model = SingleTaskGP(
        X,
        torch.as_tensor(bowl(X)).unsqueeze(1),
        input_transform=botorch.models.transforms.Normalize(2, bounds=torch.as_tensor(BOUNDS)),
    )
    botorch.fit_gpytorch_mll(
        __import__("gpytorch").mlls.ExactMarginalLogLikelihood(model.likelihood, model)
    )
    return model


@pytest.mark.parametrize("acquisition", ACQUISITIONS)
@pytest.mark.parametrize("q", [1, 3])
def test_points_lie_in_the_box_and_repeat_with_the_seed(state, acquisition, q):
    points = suggest(state, q=q, acquisition=acquisition, seed=3)
    assert isinstance(points, np.ndarray)
    assert points.shape == (q, 2)
    assert (points >= BOUNDS[0]).all()
    assert (points <= BOUNDS[1]).all()
    np.testing.assert_array_equal(points, suggest(state, q=q, acquisition=acquisition, seed=3))
    if q > 1 and acquisition != "thompson":
        distance = np.linalg.norm(np.diff(points, axis=0) / (BOUNDS[1] - BOUNDS[0]), axis=1)
        assert distance.min() > 1e-3


@pytest.mark.parametrize("acquisition", ACQUISITIONS)
def test_any_botorch_model_serves(gp, acquisition):
    points = suggest(gp, BOUNDS, acquisition=acquisition, seed=1)
    assert isinstance(points, torch.Tensor)
    assert points.shape == (1, 2)
    scaled = (points.numpy() - PEAK) / (BOUNDS[1] - BOUNDS[0])
    assert np.abs(scaled).max() < 0.25


@pytest.mark.parametrize("acquisition", ACQUISITIONS)
def test_a_short_loop_finds_the_maximum(acquisition):
    prior = bn.NetworkPrior(bn.MLP(hidden=(32,)), in_dim=2)
    method = bn.HMC(chains=1, warmup=150, draws=60, max_steps=32)
    noise = bn.GaussianLikelihood(noise_std=1e4)
    state, X = LoopState(BOUNDS, LoopSettings(method, prior, likelihood=noise)), design(6, seed=1)
    for step in range(10):
        state = state.update(X, bowl(X), seed=step)
        X = np.concatenate([X, suggest(state, acquisition=acquisition, seed=step)])
    assert bowl(X).max() > -1e4  # a tenth of the box away; the start has -4e4


def test_minimising_mirrors_maximising(state):
    method = bn.HMC(chains=2, warmup=200, draws=100, max_steps=32)
    mirrored = LoopState(BOUNDS, LoopSettings(method, tiny_prior(2), maximize=False))
    X = design(14)
    mirrored = mirrored.update(X, -bowl(X))
    scaled = (suggest(mirrored) - PEAK) / (BOUNDS[1] - BOUNDS[0])
    assert np.abs(scaled).max() < 0.35


def test_noisy_ei_of_draws_is_botorchs(state):
    tried = state.model.train_inputs[0]
    problem = Problem(state.model, tried, torch.as_tensor(design(2, seed=5)), seed=7)
    ours = acquisition_function("log_nei", problem)
    assert isinstance(ours, DrawsLogNEI)
    sampler = get_sampler(state.model.posterior(tried[:1]), torch.Size([128]), seed=7)
    theirs = qLogNoisyExpectedImprovement(
        state.model,
        tried,
        sampler,
        problem.objective,
        X_pending=problem.pending,
        prune_baseline=False,
        cache_root=False,
    )
    X = torch.as_tensor(design(30, seed=2)).unsqueeze(1)
    torch.testing.assert_close(ours(X), theirs(X), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("pending", "samples"), [(0, 256), (3, 256), (4, 512), (8, 1024), (40, 1024)]
)
def test_more_pending_points_take_more_samples(pending, samples):
    """Of a model that is sampled at all points together."""
    x = torch.as_tensor(design(6))
    model = SingleTaskGP(x, torch.as_tensor(bowl(design(6))).reshape(-1, 1))
    taken = torch.as_tensor(design(pending, seed=3)) if pending else None
    problem = Problem(model, x, taken)
    for name in ("log_nei", "log_ei", "ucb"):
        acquisition = acquisition_function(name, problem)
        assert acquisition.sample_shape == torch.Size([samples])


@pytest.mark.parametrize("acquisition", ["log_nei", "log_ei", "ucb"])
def test_pending_points_repel(state, acquisition):
    first = suggest(state, acquisition=acquisition)
    second = suggest(state, acquisition=acquisition, X_pending=first)
    assert np.abs((second - first) / (BOUNDS[1] - BOUNDS[0])).max() > 1e-2


def test_a_table_of_arrays_or_tensors(tiny):
    X = design(8)
    options = {"surrogate": tiny["surrogate"], "prior": tiny["prior"], "seed": 2}
    from_arrays = suggest((X, bowl(X)), BOUNDS, **options)
    tensors = (torch.as_tensor(X), torch.as_tensor(bowl(X)).unsqueeze(1))
    from_tensors = suggest(tensors, torch.as_tensor(BOUNDS), **options)
    assert isinstance(from_tensors, torch.Tensor)
    np.testing.assert_allclose(from_arrays, from_tensors.numpy())
    with_noise = suggest((X, bowl(X), np.full(8, 1e8)), BOUNDS, **options)
    assert with_noise.shape == (1, 2)


def test_from_a_pool(state, gp):
    pool = design(200, seed=3)
    chosen = suggest_from_pool(state, pool, q=3)
    assert len(set(chosen.tolist())) == 3
    (best,) = suggest_from_pool(gp, pool)
    assert bowl(pool)[best] > np.quantile(bowl(pool), 0.9)
    constant = np.column_stack([pool[:, 0], np.ones(200)])
    X = constant[:6]
    options = {"surrogate": TINY, "prior": tiny_prior(2)}
    assert suggest_from_pool((X, X[:, 0]), constant[6:], **options).shape == (1,)
    with pytest.raises(InputError, match="candidates: got 3 columns"):
        suggest_from_pool(state, np.ones((4, 3)))


def test_points_of_a_thompson_batch_have_draws_of_their_own(state):
    model = state.model
    first = [one_draw(model, 3, k) for k in range(model.num_draws)]
    at = torch.rand(5, 2, dtype=torch.double)
    means = {tuple(m.posterior(at).mean.flatten().tolist()) for m in first}
    latents = model.fitted.latents.reshape(model.fitted.num_draws, -1)
    order = torch.randperm(len(latents), generator=torch.Generator().manual_seed(3))
    distinct = latents[order[: model.num_draws].numpy()]
    assert len(means) == len(np.unique(distinct, axis=0))
    batch = suggest(state, q=4, acquisition="thompson")
    assert len(np.unique(np.round(batch, 6), axis=0)) == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bounds": BOUNDS[:, :1]}, "bounds are for 1"),
        ({"bounds": np.ones((3, 2))}, "2 x d"),
        ({"bounds": BOUNDS[::-1]}, "below high"),
        ({"bounds": None}, "bounds are needed"),
        ({"acquisition": "log_net"}, "Did you mean 'log_nei'"),
        ({"surrogate": "hcm"}, "Did you mean 'hmc'"),
        ({"q": 0}, "positive"),
        ({"raw_samples": 1}, "raw_samples"),
        ({"X_pending": np.ones((1, 3))}, "3 columns"),
    ],
)
def test_bad_arguments_are_refused_in_words(change, words, tiny):
    X = design(6)
    arguments = {"bounds": BOUNDS, "surrogate": tiny["surrogate"], "prior": tiny["prior"]}
    with pytest.raises(InputError, match=words):
        suggest((X, bowl(X)), **{**arguments, **change})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ((np.ones((3, 2)), np.ones(2)), "3 rows"),
        ((np.ones((3, 3)), np.ones(3)), "columns"),
        ((np.ones((3, 2)), np.ones((3, 2))), "One objective"),
        ((np.ones((3, 2)), np.array([1.0, np.nan, 2.0])), "NaN"),
        ("a table", "suggest takes"),
    ],
)
def test_bad_tables_are_refused_in_words(data, words, tiny):
    with pytest.raises(InputError, match=words):
        suggest(data, BOUNDS, surrogate=tiny["surrogate"], prior=tiny["prior"])


def test_thompson_needs_functions():
    class Plain(botorch.models.deterministic.GenericDeterministicModel):
        pass

    model = Plain(lambda X: X.sum(-1, keepdim=True))
    with pytest.raises(UnsupportedError, match="Thompson"):
        suggest(model, BOUNDS, acquisition="thompson", X_baseline=design(3))
    with pytest.raises(InputError, match="X_baseline"):
        suggest(model, BOUNDS)
