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
from bayesnet.pfn.importance import HyperProposal, systematic, tempered, weigh
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
