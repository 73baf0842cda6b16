"""A quadrature over hyper-parameters: conditioning is exact whatever the network says; training."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

import bayesnet as bn
from bayesnet.pfn.bars import Bars
from bayesnet.pfn.configurations import read_configuration
from bayesnet.pfn.family import ProcessFamily
from bayesnet.pfn.inputs import MixedInputs
from bayesnet.pfn.node_algebra import evidence_of, explained, inverse, inverse_root, matrix
from bayesnet.pfn.pfn import train_quadrature
from bayesnet.pfn.quadrature import FEW, KEPT, QuadratureNetwork
from bayesnet.pfn.quadrature_run import objective_of
from bayesnet.pfn.quadrature_training import divergence
from bayesnet.pfn.settings import Training
from bayesnet.pfn.stepper import FIRST, LONGEST
from bayesnet.pfn.tasks import Mixture, Tasks
from bayesnet.pfn.transformer import pad_columns
from bayesnet.priors.covariance import Named

KNOBS = {"batch": 8, "buckets": (4, 8), "width": 16, "depth": 2, "heads": 2, "hidden": 16,
         "warmup": 2, "queries": 5, "bars": 40}  # fmt: skip
NOISE = bn.LogNormal(-1.5, 0.6)


def smooth(d):
    return bn.GaussianProcess("rbf", bn.LogNormal([0.1] * d, 0.5), bn.LogNormal(0.0, 0.7))


def rough(d):
    return bn.GaussianProcess("matern52", bn.LogNormal([0.1] * d, 0.5), 1.5)


def tasks_of(dims=(1, 2, 3), unused=0.2, noise=NOISE):
    prior = Mixture((smooth, rough), (1.0, 3.0))
    return Tasks(prior, bn.GaussianLikelihood(noise), MixedInputs(unused=unused), dims, 8, 5)


def made(tasks, max_dim=3):
    family = ProcessFamily.of(tasks, max_dim)
    network = QuadratureNetwork.create(
        jax.random.key(1), family, width=16, depth=2, heads=2, hidden=16, max_rows=40
    )
    return family, network


@pytest.fixture(scope="module")
def small():
    return made(tasks_of())


# One program each, as elsewhere: call by call they would take minutes.
nodes_of = eqx.filter_jit(lambda net, *table: net.nodes(*table))
encode = eqx.filter_jit(lambda net, *table: net.encode(*table))
mixture = eqx.filter_jit(lambda net, *rest: net.mixture(*rest))
moved = eqx.filter_jit(lambda net, nodes, *table: net.moved(nodes, *table))
answer = eqx.filter_jit(lambda net, *rest: net(*rest))


def prior_of(network, cache, used):
    return np.asarray(network.laws.prior(cache.z, cache.gates, used))


def table(n, d, seed=0, size=8, max_dim=3):
    rng = np.random.default_rng(seed)
    x, used = pad_columns(rng.normal(size=(size, d)).astype(np.float32), max_dim)
    y = rng.normal(size=size).astype(np.float32)
    mask = np.arange(size) < n
    return jnp.asarray(x), jnp.where(mask, y, 0.0), jnp.asarray(mask), jnp.asarray(used)


def radial(name, length, a, b):
    r = np.sqrt((((a[:, None] - b) / length) ** 2).sum(axis=-1))
    if name == "rbf":
        return np.exp(-0.5 * r**2)
    return (1 + 5**0.5 * r + 5 / 3 * r**2) * np.exp(-(5**0.5) * r)


def textbook(kernel, noise, x, y, new):
    """Log evidence, and mean and variance of f at new rows, by NumPy in float64."""
    name, length, variance = kernel
    gram, cross = (variance * radial(name, length, x, b) for b in (x, new))
    prior = np.full(len(new), variance)
    total = gram + noise**2 * np.eye(len(x))
    solved = np.linalg.solve(total, cross)
    evidence = multivariate_normal(np.zeros(len(x)), total).logpdf(y) if len(x) else 0.0
    return evidence, solved.T @ y, prior - np.sum(cross * solved, axis=0)


@pytest.mark.parametrize(("n", "d"), [(8, 1), (5, 2), (6, 3), (0, 2)])
def test_every_node_is_an_exact_process_with_its_evidence(small, n, d):
    _, network = small
    x, y, mask, used = table(n, d)
    new = table(0, d, seed=1)[0][:4]
    nodes = moved(network, nodes_of(network, x, y, mask, used), x, y, mask, used)
    cache = encode(network, x, y, mask, used)
    laws = np.asarray(mixture(network, cache, mask, new, used), np.float64)
    np.testing.assert_allclose(cache.z, nodes.z, atol=1e-6)
    shares = np.ravel(nodes.log_share + prior_of(network, cache, used))
    column, evidences = 0, []
    for kind, bare in enumerate(network.hyper.kernels):
        for i in range(network.levels[0].places.z.shape[1]):
            hyper, noise = network.hyper.hyper(kind, d, cache.z[kind, i], cache.gates[kind, i])
            length = np.asarray(hyper["lengthscale"], np.float64)
            kernel = bare.name, length, float(hyper["outputscale"])
            evidence, mean, variance = textbook(
                kernel, float(noise), np.asarray(x)[:n], np.asarray(y, np.float64)[:n], np.asarray(new)
            )  # fmt: skip
            np.testing.assert_allclose(laws[:, 1, 1, column], mean, atol=2e-4)
            np.testing.assert_allclose(np.exp(2 * laws[:, 1, 2, column]), variance, atol=2e-4)
            total = variance + float(noise) ** 2
            np.testing.assert_allclose(np.exp(2 * laws[:, 0, 2, column]), total, atol=2e-4)
            evidences.append(evidence)
            column += 1
    weight = shares + np.array(evidences)
    total = np.logaddexp.reduce(weight)
    # Of y it lacks the constant of a normal density.
    np.testing.assert_allclose(cache.log_evidence, total + n * np.log(2 * np.pi) / 2, atol=2e-3)
    np.testing.assert_allclose(np.asarray(cache.log_weight).ravel(), weight - total, atol=2e-3)


def test_shares_are_prior_over_proposal(small):
    """Of a table with one column, where no column is in doubt."""
    family, network = small
    x, y, mask, used = table(6, 1)
    law = jax.tree.map(np.asarray, network.readers[0](x, y, mask, used))
    nodes = nodes_of(network, x, y, mask, used)
    cache = encode(network, x, y, mask, used)
    prior = prior_of(network, cache, used)
    for kind in range(2):
        slots = family.slots(kind, 1)
        std = 1.2 * np.exp(law.log_std[:, slots])
        for z, share in zip(np.asarray(nodes.z[kind]), nodes.log_share[kind], strict=True):
            each = norm.logpdf(z[slots], law.mean[:, slots], std).sum(axis=1)
            proposal = np.logaddexp.reduce(law.log_weight + law.log_part[:, kind] + each)
            np.testing.assert_allclose(share, -proposal, atol=1e-4)
        for z, found in zip(np.asarray(cache.z[kind]), prior[kind], strict=True):
            expected = norm.logpdf(z[slots]).sum() + np.log(family.weights[kind])
            np.testing.assert_allclose(found, expected, atol=1e-4)


def test_nodes_lie_in_the_most_probable_components_first(small):
    _, network = small
    x, y, mask, used = table(6, 1)
    law = jax.tree.map(np.asarray, network.readers[0](x, y, mask, used))
    nodes = nodes_of(network, x, y, mask, used)
    for kind in range(2):
        order = np.argsort(-(law.log_weight + law.log_part[:, kind]))
        for i in range(network.levels[0].places.z.shape[1]):
            component = order[i % 4]
            std = 1.2 * np.exp(law.log_std[component])
            expected = law.mean[component] + std * network.levels[0].places.z[kind, i]
            np.testing.assert_allclose(nodes.z[kind, i], expected, rtol=1e-4, atol=1e-5)


def test_tables_of_many_rows_have_few_nodes(small):
    _, network = small
    for size, each in ((FEW, 8), (FEW + 1, KEPT), (41, KEPT)):
        x, y, mask, used = table(size, 1, size=size)
        found = jax.eval_shape(network.nodes, x, y, mask, used)
        assert found.z.shape[:2] == (2, each)


def test_a_network_without_padding_columns_says_the_same(small):
    _, network = small
    x, y, mask, used = table(8, 2)
    whole = nodes_of(network, x, y, mask, used)
    narrow = nodes_of(network, x[:, :2], y, mask, used)
    for a, b in zip(*map(jax.tree.leaves, (whole, narrow)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_steps_follow_slopes_that_are_finite_differences(small):
    """Slopes are those of log evidence and log prior; a stepper that says nothing goes along them."""
    family, network = small
    x, y, mask, used = table(7, 1)
    nodes = nodes_of(network, x, y, mask, used)
    stepper = network.levels[0].steppers[0]
    silent = eqx.tree_at(lambda s: s.out, stepper, jnp.zeros_like(stepper.out))
    silent = eqx.tree_at(lambda n: n.levels[0].steppers, network, (silent,))
    found = moved(silent, nodes, x, y, mask, used)

    def density(kind, z):
        hyper, noise = family.hyper(kind, 1, z[None], np.ones((1, 1), bool))
        kernel = (
            ("rbf", "matern52")[kind],
            np.ravel(hyper["lengthscale"])[:1],
            float(np.ravel(hyper["outputscale"])[0]),
        )
        rows, targets = np.asarray(x)[:7, :1], np.asarray(y, np.float64)[:7]
        evidence = textbook(kernel, float(noise[0]), rows, targets, rows[:1])[0]
        return evidence + norm.logpdf(z[family.slots(kind, 1)]).sum()

    for kind in range(2):
        z, std = (np.asarray(a[kind, 0], np.float64) for a in (nodes.z, nodes.std))
        for slot in np.flatnonzero(family.slots(kind, 1)):
            step = 1e-5 * np.eye(family.size)[slot]
            slope = (density(kind, z + step) - density(kind, z - step)) / 2e-5
            expected = LONGEST * np.tanh(FIRST * np.arcsinh(std[slot] * slope) / LONGEST)
            along = (np.asarray(found.z)[kind, 0, slot] - z[slot]) / std[slot]
            np.testing.assert_allclose(along, expected, rtol=2e-3, atol=2e-4)


def test_slope_of_the_evidence():
    rng = np.random.default_rng(0)
    a, step, targets = rng.normal(size=(6, 9)), rng.normal(size=(6, 6)), rng.normal(size=6)
    step = step + step.T
    with jax.enable_x64(True):
        gram, y = jnp.asarray(a @ a.T), jnp.asarray(targets)
        slope, by_y = jax.grad(evidence_of, argnums=(0, 1))(gram, y)
        up, down = (evidence_of(gram + t * step, y) for t in (1e-6, -1e-6))
        np.testing.assert_allclose(jnp.sum(slope * step), (up - down) / 2e-6, rtol=1e-6)
        up, down = (evidence_of(gram, y + t * targets[::-1]) for t in (1e-6, -1e-6))
        np.testing.assert_allclose(by_y @ targets[::-1], (up - down) / 2e-6, rtol=1e-6)
        # The slope itself has one: training goes through it.
        curve = jax.grad(lambda g: jnp.sum(step * jax.grad(evidence_of)(g, y)))(gram)
        up, down = (jax.grad(evidence_of)(gram + t * step, y) for t in (1e-5, -1e-5))
        np.testing.assert_allclose(curve, (up - down) / 2e-5, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("n", [4, 25, 60])
def test_what_is_explained(n):
    rng = np.random.default_rng(0)
    root, cross = np.tril(rng.normal(size=(n, n))), rng.normal(size=(n, 7))
    found = explained(jnp.asarray(root, jnp.float32), jnp.asarray(cross, jnp.float32))
    np.testing.assert_allclose(found, np.sum((root @ cross) ** 2, axis=0), rtol=1e-5)


def test_the_map_agrees_with_the_family(small):
    family, network = small
    z = np.random.default_rng(2).normal(size=(family.size,))
    for d in (1, 3):
        for kind in range(2):
            hyper, noise = network.hyper.hyper(kind, d, jnp.asarray(z, jnp.float32), jnp.ones(3))
            other, level = family.hyper(kind, d, z[None], np.ones((1, d), bool))
            assert float(noise) == pytest.approx(level[0], rel=1e-5)
            np.testing.assert_allclose(hyper["lengthscale"][:d], other["lengthscale"][0], rtol=1e-5)
            np.testing.assert_allclose(hyper["outputscale"], other["outputscale"][0], rtol=1e-5)


def test_noise_may_be_known():
    family, network = made(tasks_of(noise=0.25))
    _, noise = network.hyper.hyper(0, 1, jnp.zeros(family.size), jnp.ones(3))
    assert float(noise) == pytest.approx(0.25)
    x, y, mask, used = table(6, 1)
    laws = mixture(network, encode(network, x, y, mask, used), mask, x[:3], used)
    gap = np.exp(2 * laws[:, 0, 2]) - np.exp(2 * laws[:, 1, 2])
    np.testing.assert_allclose(gap, 0.0625, rtol=1e-3)


def test_a_closed_gate_makes_a_column_without_effect(small):
    _, network = small
    x, y, mask, used = table(8, 2)
    nodes = nodes_of(network, x, y, mask, used)
    shut = eqx.tree_at(lambda n: n.odds, nodes, nodes.odds.at[..., 1].set(-20.0))
    cache = eqx.filter_jit(lambda *a: network.condition(*a))(shut, x, y, mask, used)
    moved = x.at[:, 1].add(1.0)
    np.testing.assert_allclose(
        mixture(network, cache, mask, x, used)[:, 1, 1],
        mixture(network, cache, mask, moved, used)[:, 1, 1],
        atol=1e-2,
    )


def test_order_padding_and_other_queries_do_not_matter(small):
    _, network = small
    x, y, mask, used = table(6, 2)
    bars = Bars(jnp.linspace(-4, 4, 39), jnp.ones(2))
    new = table(0, 2, seed=1)[0]
    base = answer(network, x, y, mask, new, used, bars)[0]
    order = jnp.asarray([3, 1, 5, 0, 4, 2, 6, 7])
    np.testing.assert_allclose(
        answer(network, x[order], y[order], mask, new, used, bars)[0], base, atol=2e-3
    )
    other = x.at[6:].set(9.0)
    np.testing.assert_allclose(answer(network, other, y, mask, new, used, bars)[0], base, atol=2e-3)
    np.testing.assert_allclose(
        answer(network, x, y, mask, new[2:3], used, bars)[0], base[2:3], atol=2e-3
    )


def test_without_rows_it_is_the_prior_at_its_nodes(small):
    _, network = small
    x, y, mask, used = table(0, 1)
    laws = mixture(network, encode(network, x, y, mask, used), mask, x, used)
    np.testing.assert_allclose(laws[:, 1, 1], 0.0, atol=1e-6)
    np.testing.assert_allclose(laws[:, 1, 2] - laws[:1, 1, 2], 0.0, atol=1e-5)


@pytest.mark.parametrize(("function", "n"), [(inverse_root, 6), (inverse, 15)])
def test_gradients_of_roots_and_inverses(function, n):
    rng = np.random.default_rng(0)
    a, w, step = rng.normal(size=(n, n + 3)), rng.normal(size=(n, n)), rng.normal(size=(n, n))
    step = step + step.T
    with jax.enable_x64(True):
        gram = jnp.asarray(a @ a.T)

        def f(g):
            return jnp.sum(w * function(g))

        slope = jnp.sum(jax.grad(f)(gram) * step)
        central = (f(gram + 1e-6 * step) - f(gram - 1e-6 * step)) / 2e-6
        np.testing.assert_allclose(slope, central, rtol=1e-6)
        np.testing.assert_allclose(
            inverse_root(gram) @ np.linalg.cholesky(gram), np.eye(n), atol=1e-9
        )


@pytest.mark.parametrize("name", ["rbf", "matern52"])
def test_both_ways_to_the_covariance_agree(name):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 3)), rng.normal(size=(4, 3))
    hyper = {
        "lengthscale": np.array([0.5, 1.0, 2.0]),
        "outputscale": 1.7,
        "period": 1.0,
        "bias": 1.0,
    }
    with jax.enable_x64(True):
        quick = matrix(Named(name), hyper, jnp.asarray(a), jnp.asarray(b))
        slow = Named(name).matrix(hyper, jnp.asarray(a), jnp.asarray(b))
    np.testing.assert_allclose(quick, slow, rtol=1e-10)


@pytest.mark.slow  # compiles gradients of everything
def test_gradients_to_queries_and_to_the_table(small):
    _, network = small
    x, y, mask, used = table(6, 2)
    bars = Bars(jnp.linspace(-4, 4, 39), jnp.ones(2))
    with jax.enable_x64(True):
        wide = jax.tree.map(
            lambda a: jnp.asarray(np.asarray(a), jnp.float64) if a.dtype == jnp.float32 else a,
            (network, bars, x, y, used),
        )
        net, bars, x, y, used = wide
        new, w = x[6:], np.random.default_rng(1).normal(size=(2, 40))

        def f(x, y, new):
            return jnp.sum(w * jax.nn.log_softmax(net(x, y, mask, new, used, bars)[0]))

        for which, at in enumerate((x, y, new)):
            step = np.random.default_rng(which).normal(size=at.shape)
            if which == 0:
                step[6:] = 0
            arguments = [x, y, new]

            def along(t, which=which, step=step, arguments=arguments):
                moved = list(arguments)
                moved[which] = moved[which] + t * step
                return f(*moved)

            along = jax.jit(along)
            slope = jax.grad(along)(0.0)
            central = (along(1e-5) - along(-1e-5)) / 2e-5
            np.testing.assert_allclose(slope, central, rtol=2e-4, atol=1e-6)


def test_divergence_is_that_of_two_normals():
    mean, std = np.array([[0.3, -1.0]]), np.array([[0.5, 1.2]])
    law = np.stack([np.zeros((1, 2)), mean + 0.4, np.log(std * 1.5)], axis=-1)[..., None]
    expected = np.log(1.5) + (std**2 + 0.16) / (2 * (1.5 * std) ** 2) - 0.5
    found = divergence(jnp.asarray(mean), jnp.asarray(std), jnp.asarray(law))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    # Two equal halves are one.
    halves = np.concatenate([law, law], axis=-1)
    halves[..., 0, :] = np.log(0.5)
    np.testing.assert_allclose(
        divergence(jnp.asarray(mean), jnp.asarray(std), jnp.asarray(halves)), expected, rtol=1e-4
    )
    same = np.stack([np.zeros((1, 2)), mean, np.full((1, 2), -20.0)], axis=-1)[..., None]
    exact = divergence(jnp.asarray(mean), jnp.zeros((1, 2)), jnp.asarray(same), 0.01)
    np.testing.assert_allclose(exact, 0.0, atol=1e-4)


@pytest.mark.slow  # compiles gradients of everything
def test_training_lowers_the_loss_and_goes_on_where_it_stopped(tmp_path):
    knobs = {"steps": 12, "learning_rate": 3e-3, "dims": (1,), "max_dim": 1, "buckets": (8,)}
    tasks, training = tasks_of((1,)), Training(**(KNOBS | knobs))
    objective = objective_of(tasks, training, nodes=1)
    start = objective.start()
    before = objective.evaluate(start)["excess"]
    straight = train_quadrature(tasks, training, "small", nodes=1, folder=tmp_path / "a")
    from bayesnet.pfn.loop import run_loop

    run_loop(objective, folder=tmp_path / "b", stop_at=5)
    resumed = train_quadrature(tasks, training, "small", nodes=1, folder=tmp_path / "b")
    for a, b in zip(*map(jax.tree.leaves, (straight.network, resumed.network)), strict=True):
        np.testing.assert_array_equal(a, b)
    after = objective.evaluate(type(start)(straight.network, start.optimiser, start.bars))["excess"]
    assert sum(after.values()) < sum(before.values())

    straight.save(tmp_path / "w.safetensors", half=False)
    again = bn.PFN.load(tmp_path / "w.safetensors")
    x = np.linspace(0, 1, 7)[:, None]
    for pfn in (straight, again):
        pred = pfn.fit(x, np.sin(5 * x[:, 0])).predict(x[:3] + 0.05)
        assert np.isfinite(pred.log_prob(np.zeros(3))).all()
    np.testing.assert_array_equal(
        straight.fit(x, x[:, 0]).predict(x).mean, again.fit(x, x[:, 0]).predict(x).mean
    )


def test_what_cannot_be_trained(tmp_path):
    training = Training(dims=(1,), max_dim=3, steps=2, **KNOBS)
    tasks = tasks_of((1,))
    with pytest.raises(bn.InputError, match="nodes must be"):
        objective_of(tasks, training, nodes=0)
    with pytest.raises(bn.InputError, match="other processes"):
        objective_of(tasks, training, start="gp_process")
    with pytest.raises(bn.InputError, match="gp_process"):
        objective_of(tasks, training, start="nothing")
    with pytest.raises(bn.UnsupportedError, match="one device"):
        objective_of(tasks, Training(dims=(1,), max_dim=3, precision="bfloat16", **KNOBS))
    warped = Tasks(smooth, bn.GaussianLikelihood(0.1), MixedInputs(warped=0.5), (1,), 8, 5)
    with pytest.raises(bn.UnsupportedError, match="warps"):
        objective_of(warped, training)
    network = bn.NetworkPrior(bn.MLP((3,)), in_dim=1)
    with pytest.raises(bn.UnsupportedError, match="train bars instead"):
        train_quadrature(
            Tasks(network, bn.GaussianLikelihood(0.1), MixedInputs(), (1,), 8, 5),
            Training(dims=(1,), max_dim=1, steps=2, **KNOBS),
            "own",
        )


def test_the_shipped_configuration_is_one():
    configuration = read_configuration("gp")
    assert configuration.decoder == "quadrature"
    known = ("nodes", "start", "learn", "share")
    assert {k: configuration.extra[k] for k in known} == {
        "nodes": 2, "start": "gp_process", "learn": "all", "share": 0.4
    }  # fmt: skip
    objective = objective_of(configuration.tasks, configuration.training, **configuration.extra)
    assert objective.reader is not None


def test_quadrature_is_stated_with_its_decoder_only(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("[quadrature]\nnodes = 2\n[[prior]]\n")
    with pytest.raises(bn.InputError, match='decoder = "quadrature"'):
        read_configuration(path)
    path.write_text('decoder = "quadrature"\n[quadrature]\nknots = 2\n[[prior]]\n')
    with pytest.raises(bn.InputError, match="knots"):
        read_configuration(path)


def test_decoders_have_names():
    with pytest.raises(bn.InputError, match="decoder"):
        bn.PFN.train(smooth, decoder="beams", steps=1)


@pytest.mark.slow
def test_train_takes_a_decoder():
    knobs = KNOBS | {"steps": 1, "max_dim": 1, "buckets": (8,)}
    pfn = bn.PFN.train(
        smooth, bn.GaussianLikelihood(NOISE), dims=(1,), decoder="quadrature", **knobs
    )
    assert isinstance(pfn.network, QuadratureNetwork)
