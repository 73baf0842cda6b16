"""Amortised processes: weighted draws are exact whatever the network says; training; bad input."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesnet as bn
from bayesnet.data import Scaling
from bayesnet.pfn.amortised import AmortisedProcess
from bayesnet.pfn.family import FLAT, ProcessFamily
from bayesnet.pfn.importance import HyperProposal, systematic, tempered, thinned, weigh
from bayesnet.pfn.inputs import MixedInputs
from bayesnet.pfn.proposal import ProposalNetwork
from bayesnet.pfn.settings import Training
from bayesnet.pfn.setup import make_card
from bayesnet.pfn.tasks import Mixture, Tasks

KNOBS = {"batch": 8, "buckets": (4, 10), "width": 16, "depth": 2, "heads": 2, "hidden": 16,
         "warmup": 2}  # fmt: skip
LENGTH, SCALE, NOISE = bn.LogNormal(0.1, 0.5), bn.LogNormal(0.0, 0.7), bn.LogNormal(-1.5, 0.6)


def process(d):
    return bn.GaussianProcess("rbf", bn.LogNormal([0.1] * d, 0.5), SCALE)


def rough(d):
    return bn.GaussianProcess("matern12", bn.LogNormal([0.1] * d, 0.5))


def made(prior, dims, max_dim, unused=0.2):
    """With random weights: whatever they propose, weighted draws must be right."""
    tasks = Tasks(prior, bn.GaussianLikelihood(NOISE), MixedInputs(unused=unused), dims, 10, 1)
    family = ProcessFamily.of(tasks, max_dim)
    training = Training(dims=dims, max_dim=max_dim, **KNOBS)
    network = ProposalNetwork.create(
        jax.random.key(1), slots=family.size, parts=family.num_parts, max_dim=max_dim,
        width=16, depth=2, heads=2, hidden=16,
    )  # fmt: skip
    return AmortisedProcess(network, family, make_card(tasks, training, "small"))


@pytest.fixture(scope="module")
def one():
    return made(process, (1,), 1)


@pytest.fixture(scope="module")
def two():
    return made(Mixture((process, rough), (1.0, 3.0)), (1, 2, 3), 3)


def test_weighted_draws_give_the_posterior_on_a_grid(one):
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(-2, 2, (7, 1)), axis=0)
    y = 1.5 * np.sin(2 * x[:, 0]) + 0.2 * rng.normal(size=7)
    new = np.array([[-1.0], [0.3], [3.0]])
    post = one.fit(x, y, scaling=Scaling.identity(1, 1), draws=8192, members=1024, warn=False)
    pred = post.predict(new)
    grid = np.linspace(-3.5, 3.5, 29)
    u, v, w = (a.ravel() for a in np.meshgrid(grid, grid, grid, indexing="ij"))
    log_weight = -0.5 * (u**2 + v**2 + w**2)
    length, scale, noise = np.exp(0.1 + 0.5 * u), np.exp(0.7 * v), np.exp(-1.5 + 0.6 * w)
    both = np.concatenate([x, new])
    squares = (both - both.T) ** 2
    k = scale[:, None, None] * np.exp(-0.5 * squares / length[:, None, None] ** 2)
    gram = k[:, :7, :7] + (noise**2)[:, None, None] * np.eye(7)
    alpha = np.linalg.solve(gram, np.broadcast_to(y[:, None], (len(u), 7, 1)))[..., 0]
    log_weight += -0.5 * alpha @ y - 0.5 * np.linalg.slogdet(gram)[1]
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    mean = np.einsum("sqn,sn->sq", k[:, 7:, :7], alpha)
    gain = np.linalg.solve(gram, k[:, :7, 7:])
    variance = scale[:, None] - np.einsum("sqn,snq->sq", k[:, 7:, :7], gain)
    expected = weight @ mean
    second = weight @ (variance + mean**2)
    spread = np.sqrt(second - expected**2)
    np.testing.assert_allclose(pred.mean[:, 0], expected, atol=0.03)
    np.testing.assert_allclose(pred.epistemic_std[:, 0], spread, rtol=0.05)
    assert post.search["effective_size"] > 100


def test_the_ratio_of_prior_and_proposal_integrates_to_one(two):
    """E_q[p / q] = 1, columns without effect and kinds of processes included."""
    k = two.family.size
    rng = np.random.default_rng(3)
    share = np.log([0.4, 0.3, 0.2, 0.1])
    first = HyperProposal(
        share, rng.normal(0, 0.4, (4, k)), np.full((4, k), 1.1), np.array([1.0, 0.5])
    )
    for part in (0, 1):
        drawn = weigh(two.family, part, 2, first, lambda z, r: np.zeros(len(z)), 65_536)
        assert drawn.z.shape == (65_536, k)
        # That all columns are without effect is left out.
        assert drawn.relevant.any(axis=1).all()
        weight = np.exp(drawn.log_weight)
        assert abs(weight.sum() - 1.0) < 0.02
        # Weighted draws have the moments of the prior.
        noise = drawn.z[:, 0]
        assert abs(weight @ noise) < 0.05
        assert abs(weight @ noise**2 - 1.0) < 0.1
        assert abs(weight @ drawn.relevant[:, 1] - 0.8 / (1 - 0.04)) < 0.05


@pytest.mark.parametrize(
    ("d", "odds"), [(2, (0.0, 0.0)), (2, (-1.0, -1.0)), (2, (2.0, -2.0)), (3, (-2.0, 0.5, 0.0))]
)
def test_every_pattern_of_columns_gets_its_prior_probability(two, d, odds):
    """The evidence being 1, weights are those of the prior, and no mass is lost or made."""
    k = two.family.size
    first = HyperProposal(np.zeros(1), np.zeros((1, k)), np.ones((1, k)), np.array(odds))
    drawn = weigh(two.family, 0, d, first, lambda z, r: np.zeros(len(z)), 16_384, enough=1.0)
    weight = np.exp(drawn.log_weight)
    assert weight.sum() == pytest.approx(1.0, abs=0.015)
    # The likeliest columns alone stand in for no column at all.
    for pattern in itertools.product([True, False], repeat=d):
        prior = 0.2 ** (d - sum(pattern)) * 0.8 ** sum(pattern) / (1 - 0.2**d) * any(pattern)
        mass = weight[(drawn.relevant == np.array(pattern)).all(axis=1)].sum()
        assert mass == pytest.approx(prior, abs=0.015)


def test_the_second_round_finds_what_the_first_missed(one):
    """A narrow evidence far from the proposal: its mean and its integral, known in closed form."""
    k = one.family.size
    first = HyperProposal(np.zeros(1), np.zeros((1, k)), np.full((1, k), 1.2), None)
    centre, sd = 1.5, 0.1

    def evidence(z, relevant):
        return -0.5 * ((z[:, 0] - centre) / sd) ** 2

    drawn = weigh(one.family, 0, 1, first, evidence, 512)
    total = drawn.log_weight
    weight = np.exp(total - total.max())
    size = weight.sum() ** 2 / np.sum(weight**2)
    alone = 0.5 * 512 * sd  # what draws of the first proposal alone would be worth, about
    assert size > alone
    precision = 1 + 1 / sd**2
    assert abs(weight @ drawn.z[:, 0] / weight.sum() - centre / sd**2 / precision) < 0.03
    exact = -0.5 * np.log(precision) - 0.5 * centre**2 / (1 + sd**2)
    # The mixture of proposals is normalised in all latents, so is the prior.
    assert abs(np.log(np.exp(total).sum()) - exact) < 0.15


def test_tempered_weights_keep_a_share_of_draws():
    log_weight = np.array([0.0, -50.0, -60.0, -np.inf, -70.0, -80.0, -90.0, -95.0])
    weight = tempered(log_weight, 0.5)
    assert 3.9 < 1 / np.sum(weight**2) < 4.5
    assert weight[3] == 0.0
    even = np.zeros(8)
    np.testing.assert_allclose(tempered(even, 0.5), 1 / 8)


def test_latents_and_hyperparameters_are_inverse(two):
    z = np.random.default_rng(0).normal(size=(5, two.family.size))
    relevant = np.ones((5, 2), bool)
    relevant[1, 0] = False
    hyper, noise = two.family.hyper(0, 2, z, relevant)
    assert hyper["lengthscale"].shape == (5, 2)
    assert hyper["lengthscale"][1, 0] == FLAT
    back = two.family.latents(0, 2, hyper, noise)
    used = two.family.slots(0, 2)
    # Noise, amplitude, two of three lengthscales; the other kind has no amplitude.
    assert used.tolist() == [True, True, True, True, False]
    assert two.family.slots(1, 3).tolist() == [True, False, True, True, True]
    kept = np.ones_like(z, bool)
    kept[1, 2] = False
    np.testing.assert_allclose(back[:, used][kept[:, used]], z[:, used][kept[:, used]], rtol=1e-9)


def test_columns_and_evidence_are_those_of_all_patterns_on_grids():
    """Two columns, three patterns of effects: mean, sd, weights of columns, and the evidence."""
    unused = 0.3
    small = made(
        lambda d: bn.GaussianProcess("rbf", bn.LogNormal([0.1] * d, 0.5)), (1, 2), 2, unused
    )
    rng = np.random.default_rng(4)
    x, new = rng.uniform(-2, 2, (8, 2)), np.array([[0.0, 0.5], [1.0, -1.0], [-3.0, 2.0]])
    y = np.sin(2 * x[:, 0]) + 0.3 * x[:, 1] + 0.2 * rng.normal(size=8)
    scaling = Scaling(np.zeros(2), np.ones(2), np.array([0.2]), np.array([2.0]))
    post = small.fit(x, y, scaling=scaling, draws=4096, members=1024, warn=False)
    pred = post.predict(new)

    grid = np.linspace(-4, 4, 25)
    logs, means, variances, patterns = [], [], [], []
    both, target = np.concatenate([x, new]), (y - 0.2) / 2.0
    for pattern in ((True, True), (True, False), (False, True)):
        free = np.meshgrid(*[grid] * (1 + sum(pattern)), indexing="ij")
        z = np.stack([a.ravel() for a in free], axis=1)
        noise = np.exp(-1.5 + 0.6 * z[:, 0])
        length = np.full((len(z), 2), np.inf)
        length[:, np.flatnonzero(pattern)] = np.exp(0.1 + 0.5 * z[:, 1:])
        e = (both[:, None] - both) ** 2
        k = np.exp(-0.5 * np.einsum("abd,sd->sab", e, 1 / length**2))
        gram = k[:, :8, :8] + (noise**2)[:, None, None] * np.eye(8)
        solved = np.linalg.solve(gram, np.broadcast_to(target[:, None], (len(z), 8, 1)))[..., 0]
        gain = np.linalg.solve(gram, k[:, :8, 8:])
        means.append(np.einsum("sqn,sn->sq", k[:, 8:, :8], solved))
        variances.append(1 - np.einsum("sqn,snq->sq", k[:, 8:, :8], gain))
        step = np.log(grid[1] - grid[0]) - 0.5 * np.log(2 * np.pi)
        prior = -0.5 * (z**2).sum(1) + z.shape[1] * step
        prior += np.log(np.prod([0.7 if p else 0.3 for p in pattern]) / (1 - 0.3**2))
        normal = -0.5 * solved @ target - 0.5 * np.linalg.slogdet(gram)[1] - 4 * np.log(2 * np.pi)
        logs.append(prior + normal)
        patterns += [pattern] * len(z)
    log_weight, mean, variance = (
        np.concatenate(logs),
        np.concatenate(means),
        np.concatenate(variances),
    )
    evidence = np.logaddexp.reduce(log_weight)
    weight = np.exp(log_weight - evidence)
    expected = weight @ mean
    spread = np.sqrt(weight @ (variance + mean**2) - expected**2)

    assert 0 < post.log_evidence_error < 0.05
    assert post.log_evidence == pytest.approx(
        evidence - 8 * np.log(2.0), abs=0.01 + 2 * post.log_evidence_error
    )
    np.testing.assert_allclose(pred.mean[:, 0], 0.2 + 2 * expected, atol=0.03)
    np.testing.assert_allclose(pred.epistemic_std[:, 0], 2 * spread, rtol=0.03)
    lengths = np.array([p.covariance.hyper["lengthscale"] for p in post.priors])
    share = np.exp(post.log_shares) @ (lengths < FLAT)
    np.testing.assert_allclose(share, weight @ np.array(patterns), atol=0.02)


def test_members_keep_the_weights_of_their_draws(two):
    rng = np.random.default_rng(6)
    x = rng.normal(size=(10, 2))
    y = np.sin(2 * x[:, 0]) + 0.1 * rng.normal(size=10)
    whole = two.fit(x, y, members=10_000, warn=False)
    shares = np.exp(whole.log_shares)
    assert whole.search["effective_size"] == pytest.approx(1 / np.sum(shares**2), rel=1e-4)
    assert (np.diff(shares) <= 0).all()  # the heaviest is `prior`
    few = two.fit(x, y, members=8, warn=False)
    assert len(few.priors) == 8
    assert len(set(few.noise_std[:, 0])) == 8
    # What is above the threshold keeps its weight, the others share the rest.
    kept = np.exp(few.log_shares)
    large = int(np.sum(kept > kept[-1] * (1 + 1e-9)))
    np.testing.assert_allclose(kept[:large], shares[:large], rtol=1e-6)
    np.testing.assert_array_equal(few.noise_std[:large], whole.noise_std[:large])
    spread = np.abs(few.predict(x).mean - whole.predict(x).mean) / whole.predict(x).std
    assert spread.max() < 0.5
    # The mixture is that of the members, one by one.
    pred, moments = few.predict(x[:4]), []
    for prior, noise in zip(few.priors, few.noise_std[:, 0], strict=True):
        alone = bn.fit(
            prior, x, y, likelihood=bn.GaussianLikelihood(float(noise * few.scaling.y_scale[0])),
            inference="exact", scaling=few.scaling,
        )  # fmt: skip
        p = alone.predict(x[:4])
        moments.append((p.mean[:, 0], p.std[:, 0] ** 2, alone.loo().rows))
    mean, variance, rows = (np.array(a) for a in zip(*moments, strict=True))
    np.testing.assert_allclose(pred.mean[:, 0], kept @ mean, rtol=1e-5, atol=1e-7)
    second = kept @ (variance + mean**2) - (kept @ mean) ** 2
    np.testing.assert_allclose(pred.std[:, 0] ** 2, second, rtol=1e-4)
    np.testing.assert_allclose(few.loo().rows, -np.log(kept @ np.exp(-rows)), rtol=1e-5)


def test_thinned_draws_keep_large_weights_and_means():
    weights = np.array([0.02] * 10 + [0.5, 0.3] + [1e-12])
    index, kept = thinned(weights, 50)
    assert index[:2].tolist() == [10, 11]
    assert 12 not in index
    np.testing.assert_allclose(kept.sum(), 1.0)
    index, kept = thinned(weights, 6)
    assert index[:2].tolist() == [10, 11]
    np.testing.assert_allclose(kept, [0.5, 0.3, 0.05, 0.05, 0.05, 0.05], rtol=1e-9)
    assert len(set(index.tolist())) == 6
    rng = np.random.default_rng(0)
    weights, values = rng.exponential(size=400) ** 3, np.linspace(0, 1, 400)
    index, kept = thinned(weights, 64)
    assert kept @ values[index] == pytest.approx(weights @ values / weights.sum(), abs=0.01)
    np.testing.assert_allclose(thinned(np.ones(8), 4)[1], 0.25)


def test_columns_without_effect_do_not_matter(two):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(10, 2))
    y = 2 * np.sin(2 * x[:, 0])
    post = two.fit(x, y, draws=512, warn=False)
    moved = x.copy()
    moved[:, 1] += 2.0
    a, b = post.predict(x[:3]).mean, post.predict(moved[:3]).mean
    other = x.copy()
    other[:, 0] += 2.0
    c = post.predict(other[:3]).mean
    assert np.abs(a - b).max() < 0.5 * np.abs(a - c).max()


def test_systematic_choices_keep_shares():
    weights = np.array([0.5, 0.25, 0.25])
    assert systematic(weights, 8).tolist() == [0, 0, 0, 0, 1, 1, 2, 2]
    order = systematic(weights, 4, np.array([0.9, 0.1, 0.5, 0.3]))
    assert sorted(order.tolist()) == [0, 0, 1, 2]


def test_saved_weights_answer_alike_and_posteriors_are_saved(two, tmp_path):
    x, y = np.linspace(0, 5, 6)[:, None], np.sin(np.arange(6.0))
    two.save(tmp_path / "w.safetensors", half=False)
    back = AmortisedProcess.load(tmp_path / "w.safetensors")
    expected = two.fit(x, y, warn=False)
    np.testing.assert_array_equal(
        back.fit(x, y, warn=False).predict(x).mean, expected.predict(x).mean
    )
    expected.save(tmp_path / "p.safetensors")
    np.testing.assert_allclose(
        bn.load(tmp_path / "p.safetensors").predict(x).mean, expected.predict(x).mean
    )
    with pytest.raises(bn.FileFormatError, match="not a PFN"):
        bn.PFN.load(tmp_path / "w.safetensors")


def test_bad_input(two):
    x, y = np.linspace(0, 5, 6)[:, None], np.arange(6.0)
    with pytest.raises(bn.UnsupportedError, match="one output"):
        two.fit(x, np.stack([y, y], 1))
    with pytest.raises(bn.InputError, match="accepts at most 3"):
        two.fit(np.ones((4, 5)), np.arange(4.0))
    with pytest.raises(bn.InputError, match="11 rows"):
        two.fit(np.arange(11.0)[:, None], np.arange(11.0))
    with pytest.raises(bn.InputError, match="draws"):
        two.fit(x, y, draws=1)
    with pytest.raises(bn.UnsupportedError, match="amortised"):
        AmortisedProcess.train(bn.NetworkPrior(bn.MLP((4,)), in_dim=1), **KNOBS, steps=1)
    with pytest.raises(bn.InputError, match="Unknown knob"):
        AmortisedProcess.train(process(1), step=3)


@pytest.mark.slow
def test_training_learns_and_goes_on_where_it_stopped(tmp_path):
    """The proposal's mean follows the noise that made a table."""
    prior = bn.GaussianProcess("rbf", bn.LogNormal(0.1, 0.1))
    knobs = KNOBS | {"batch": 64, "learning_rate": 3e-3, "steps": 400}
    whole = AmortisedProcess.train(
        prior, bn.GaussianLikelihood(NOISE), folder=tmp_path / "a", **knobs
    )
    lines = [json.loads(line) for line in (tmp_path / "a/log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 400
    rng = np.random.default_rng(0)
    x = np.linspace(-2, 2, 10)[:, None]
    found = []
    for noise in (0.05, 1.0):
        sizes = []
        for _ in range(8):
            y = np.sin(x[:, 0]) + noise * rng.normal(size=10)
            post = whole.fit(x, y, scaling=Scaling.identity(1, 1), warn=False)
            sizes.append(post.search["effective_size"])
            found.append((noise, np.log(post.noise_std).mean()))
        assert np.median(sizes) > 12  # of 64
    quiet, loud = (np.mean([b for a, b in found if a == n]) for n in (0.05, 1.0))
    assert loud - quiet > 1.0
    again = AmortisedProcess.train(
        prior, bn.GaussianLikelihood(NOISE), folder=tmp_path / "a", **knobs
    )
    for a, b in zip(jax.tree.leaves(whole.network), jax.tree.leaves(again.network), strict=True):
        assert jnp.array_equal(a, b)
