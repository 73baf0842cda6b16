"""Levels of a quadrature: few slopes, another reader, trained on their own; what they are trained on."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import bayesnet as bn
from bayesnet.pfn.attention import AttentionLayer
from bayesnet.pfn.batch import Batch
from bayesnet.pfn.configurations import read_configuration
from bayesnet.pfn.distillation import cross_entropy
from bayesnet.pfn.level import Level
from bayesnet.pfn.level_training import LongTables, run_level, with_level
from bayesnet.pfn.node_algebra import inverse, inverse_root
from bayesnet.pfn.nodes import Nodes
from bayesnet.pfn.proposal import ProposalNetwork, ProposedLaw
from bayesnet.pfn.quadrature_run import objective_of
from bayesnet.pfn.quadrature_training import QuadratureObjective
from bayesnet.pfn.settings import Training
from tests.pfn.test_quadrature import KNOBS, made, moved, nodes_of, table, tasks_of

SIZES = {"slots": 3, "columns": 2, "width": 5, "kinds": 2}


@pytest.mark.parametrize("n", [1, 3, 4, 5, 13, 14, 40])
def test_factors_and_inverses_by_halves(n):
    rng = np.random.default_rng(n)
    a = rng.normal(size=(n, n + 3))
    with jax.enable_x64(True):
        gram = jnp.asarray(a @ a.T)
        np.testing.assert_allclose(
            inverse_root(gram), np.linalg.inv(np.linalg.cholesky(gram)), atol=1e-9
        )
        np.testing.assert_allclose(inverse(gram), np.linalg.inv(gram), rtol=1e-8, atol=1e-9)


def test_attention_is_by_content_and_by_distance():
    """Against the formula, head by head and pair by pair."""
    d, n, t, heads, width = 2, 4, 3, 2, 8
    layer = AttentionLayer.create(jax.random.key(0), width, 12, heads, 2, d)
    rng = np.random.default_rng(0)
    context, tokens = rng.normal(size=(n + 1, width)), rng.normal(size=(t, width))
    rows, x, used = rng.normal(size=(n, d)), 3 * rng.normal(size=(t, d)), np.array([1.0, 0.0])
    mask = np.array([True, True, False, True, True])
    arrays = [jnp.asarray(a, jnp.float32) for a in (tokens, x, context, rows, used)]
    pair = layer.keys_values(arrays[2])
    found = layer.apply(arrays[0], arrays[1], pair, arrays[3], jnp.asarray(mask), arrays[4])

    def normal(a):
        return a / np.sqrt(np.mean(a**2, axis=1, keepdims=True) + 1e-6)

    w = jax.tree.map(lambda a: np.asarray(a, np.float64), layer)
    h, keys = normal(tokens), normal(context) @ w.key
    reach = np.log1p(np.exp(h @ w.reach + w.reach_bias)).reshape(t, heads, d) * used
    mixed = np.zeros((t, width))
    for k in range(heads):
        own = slice(k * width // heads, (k + 1) * width // heads)
        for i in range(t):
            score = (h[i] @ w.query[:, own]) @ keys[:, own].T / np.sqrt(width / heads)
            score[1:] -= ((x[i] - rows) ** 2) @ reach[i, k]
            p = np.where(mask, np.exp(score - score[mask].max()), 0.0)
            mixed[i, own] = (p / p.sum()) @ (normal(context) @ w.value[:, own])
    out = tokens + mixed @ w.out
    inner = np.asarray(jax.nn.gelu(jnp.asarray(normal(out) @ w.mlp_in + w.mlp_bias)))
    np.testing.assert_allclose(found, out + inner @ w.mlp_out, atol=2e-4)


def test_nodes_that_are_not_probed_take_the_slopes_of_others():
    rng = np.random.default_rng(0)
    z, odds, std = rng.normal(size=(2, 3, 3)), rng.normal(size=(2, 3, 2)), np.ones((2, 3, 3))
    nodes = Nodes(*(jnp.asarray(a) for a in (np.zeros((2, 3)), z, odds, std, np.zeros(5))))
    asked = []

    def slopes(z, odds):
        asked.append(z.shape)
        return -z, 0 * odds  # of a standard normal

    level = Level.create(jax.random.key(0), nodes=3, rows=9, probes=1, **SIZES)
    assert len(level.steppers) == 2
    # Steppers that say nothing go along the slope: all nodes as the first one does.
    quiet = eqx.tree_at(
        lambda v: [s.out for s in v.steppers], level, [0 * s.out for s in level.steppers]
    )
    found = quiet.moved(nodes, slopes)
    assert asked == [(2, 1, 3), (2, 1, 3)]
    step = np.asarray(found.z - nodes.z)
    np.testing.assert_allclose(step, np.broadcast_to(step[:, :1], step.shape), atol=1e-6)
    assert (np.abs(found.z[:, 0]) < np.abs(z[:, 0])).all()


def test_a_level_has_a_reader_of_its_own():
    family, network = made(tasks_of())
    reader = ProposalNetwork.create(
        jax.random.key(5),
        slots=family.size,
        parts=2,
        max_dim=3,
        width=8,
        depth=1,
        heads=2,
        hidden=8,
    )
    longer = with_level(network, reader, LongTables(30, nodes=2, probes=1), 40, 0)
    assert [level.rows for level in longer.levels] == [20, 30, 40]
    short, long = table(8, 2), table(33, 2, size=33)
    for a, b in zip(
        *(jax.tree.leaves(nodes_of(net, *short)) for net in (network, longer)), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    nodes = nodes_of(longer, *long)
    assert nodes.z.shape[:2] == (2, 2)
    assert nodes.told.shape == (8,)
    law = reader(*long)
    best = np.argmax(law.log_weight[:, None] + law.log_part, axis=0)
    places = longer.levels[-1].places.z
    expected = law.mean[best][:, None] + 1.2 * jnp.exp(law.log_std[best])[:, None] * places
    np.testing.assert_allclose(nodes.z, expected, atol=1e-5)  # of one component, as slopes are
    assert np.isfinite(moved(longer, nodes, *long).z).all()


def test_cross_entropy_of_two_laws():
    """Of one Gaussian each, in closed form, and of independent columns."""
    k = 3
    slots = jnp.array([[True, True, False]])

    def law(mean, log_std, odds):
        one = jnp.zeros((1,)), jnp.zeros((1, 1)), jnp.full((1, k), mean), jnp.full((1, k), log_std)
        return ProposedLaw(*one, jnp.asarray(odds))

    teacher, own = law(0.3, -0.5, [2.0, -1.0]), law(-0.2, 0.1, [0.5, 0.5])
    keys = jax.random.split(jax.random.key(0), 4000)
    hyper, columns = jax.vmap(lambda key: cross_entropy(teacher, own, slots, jnp.ones(2), key))(
        keys
    )
    each = 0.5 * (np.exp(-1.0) + 0.25) / np.exp(0.2) + 0.1 + 0.5 * np.log(2 * np.pi)
    assert float(hyper.mean()) == pytest.approx(2 * each, abs=4 * float(hyper.std()) / 4000**0.5)
    on = 1 / (1 + np.exp(-np.array([2.0, -1.0])))
    expected = -np.sum(
        on * np.log(1 / (1 + np.exp(-0.5))) + (1 - on) * np.log(1 / (1 + np.exp(0.5)))
    )
    np.testing.assert_allclose(columns, expected, rtol=1e-5)


def test_standardised_tasks_are_those_of_scaled_tables():
    rng = np.random.default_rng(0)
    mask = np.arange(6) < np.array([[6], [4], [1]])
    y = np.where(mask, rng.normal(2.0, 3.0, size=(3, 6)), 0.0)
    f = rng.normal(size=(3, 2))
    floats = [jnp.asarray(a, jnp.float32) for a in (np.zeros((3, 6, 1)), y)]
    batch = Batch(
        *floats,
        jnp.asarray(mask),
        jnp.zeros((3, 2, 1)),
        jnp.ones(1),
        jnp.asarray(f, jnp.float32),
        jnp.full((3, 2), 0.5),
        jnp.full(3, 0.2),
        jnp.ones((3, 1), bool),
    )
    found = batch.standardised()
    for i, n in enumerate((6, 4)):
        mean, std = y[i, :n].mean(), y[i, :n].std()
        np.testing.assert_allclose(found.y[i, :n], (y[i, :n] - mean) / std, atol=1e-5)
        np.testing.assert_allclose(found.f_mean[i], (f[i] - mean) / std, atol=1e-5)
        np.testing.assert_allclose(found.y_std[i], np.hypot(0.5, 0.2) / std, rtol=1e-5)
        # A density is that of the raw table, in other units.
        raw = norm.logpdf(1.0, f[i, 0], np.hypot(0.5, 0.2))
        scaled = norm.logpdf((1.0 - mean) / std, found.f_mean[i, 0], found.y_std[i, 0])
        assert float(scaled) - np.log(std) == pytest.approx(raw, abs=1e-4)
    assert (np.asarray(found.y)[~mask] == 0).all()
    np.testing.assert_array_equal(found.f_mean[2], batch.f_mean[2])


def objective(learn, base=None, **more):
    tasks = tasks_of((1,))
    training = Training(**(KNOBS | {"dims": (1,), "max_dim": 1, "buckets": (8,), "steps": 4}))
    family, network = made(tasks, 1)
    return QuadratureObjective(tasks, family, training, base=base or network, learn=learn, **more)


def test_what_is_learned():
    whole = objective("all")
    network = whole.base
    assert len(jax.tree.leaves(whole.learned(network))) == len(jax.tree.leaves(network))
    levels = objective("levels", network).learned(network)
    assert jax.tree.leaves((levels.readers, levels.hyper)) == []
    assert len(jax.tree.leaves(levels)) == len(jax.tree.leaves(network.levels))
    last = objective("last", network).learned(network)
    assert jax.tree.leaves(last.levels[0]) == []
    assert len(jax.tree.leaves(last)) == len(
        jax.tree.leaves((network.readers[-1], network.levels[-1]))
    )


@pytest.mark.slow  # compiles gradients of everything
def test_training_levels_leaves_the_reader_as_it_is():
    tasks = tasks_of((1,))
    it = objective("levels", wide=tasks, share=0.5)
    state = it.start()
    scaled = []
    for number in range(8):
        batch = it._batch(number)
        some = np.asarray(batch.mask).sum(axis=1) > 1
        scaled.append(float(jnp.abs(batch.y[some].sum(axis=1)).max()) < 1e-3)
        state, losses = it.step(state, number)
        assert np.isfinite(losses).all()
    assert set(scaled) == {True, False}  # standardised tables have sums of 0
    for a, b in zip(*map(jax.tree.leaves, (it.base.readers, state.network.readers)), strict=True):
        np.testing.assert_array_equal(a, b)
    before, after = it.base.levels[0], state.network.levels[0]
    for a, b in (
        (before.places.z, after.places.z),
        *((s.out, t.out) for s, t in zip(before.steppers, after.steppers, strict=True)),
    ):
        assert not np.array_equal(a, b)


@pytest.mark.slow  # compiles gradients of everything
def test_a_level_is_added_and_goes_on_where_it_stopped(tmp_path):
    tasks = tasks_of((1,))
    _, network = made(tasks, 1)
    teacher = network.readers[0]
    knobs = {"dims": (1,), "max_dim": 1, "buckets": (24, 32), "steps": 3, "width": 8, "depth": 1}
    long = tasks.__class__(tasks.prior, tasks.likelihood, tasks.inputs, (1,), 32, 5)
    training = Training(**(KNOBS | knobs))
    asked = LongTables(21, nodes=2, probes=1, reading=3)
    first = run_level(long, training, network, teacher, asked, folder=tmp_path / "a")
    again = run_level(long, training, network, teacher, asked, folder=tmp_path / "a")
    other = run_level(long, training, network, teacher, asked)
    for state in (again, other):
        for a, b in zip(*map(jax.tree.leaves, (first.network, state.network)), strict=True):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(
        *map(jax.tree.leaves, (network.levels[0], first.network.levels[0])), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(bn.InputError, match="already"):
        run_level(long, training, first.network, teacher, asked)
    with pytest.raises(bn.InputError, match="above must be"):
        run_level(long, training, network, teacher, LongTables(32))


def test_runs_may_be_like_others(tmp_path):
    whole, long = (read_configuration(name) for name in ("gp", "gp_long"))
    assert repr(long.tasks.prior) == repr(whole.tasks.prior)
    assert long.training.dims == whole.training.dims
    assert long.training.buckets == (70, 100)
    assert (long.extra["above"], long.extra["share"]) == (50, 0.4)
    assert repr(long.extra["wide"].likelihood) != repr(long.tasks.likelihood)
    assert read_configuration("gp_few").extra["share"] == 0.15
    levels = read_configuration("gp_levels")
    objective = objective_of(levels.tasks, levels.training, **levels.extra)
    assert objective.base is not None
    assert objective.learn == "levels"
    path = tmp_path / "run.toml"
    for text, message in (
        ('like = "gq"', "gq"),
        ('decoder = "quadrature"\nlike = "gp"\n[wide]\nshare = 2.0', "share"),
        ('decoder = "bars"\nlike = "gp"', "wide"),
        ('decoder = "level"\nlike = "gp"\n[level]\ndepth = 3', "depth"),
        ('decoder = "quadrature"\nlike = "gp"\n[quadrature]\nlearn = "some"', "learn"),
    ):
        path.write_text(text)
        with pytest.raises(bn.InputError, match=message):
            stated(path)


def stated(path):
    run = read_configuration(path)
    return objective_of(run.tasks, run.training, **run.extra)
