"""Weight laws: stated marginals, groups of shared scales, encoding, gradients, files, matching."""

from __future__ import annotations

import copy
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

import bayesnet as bn
from bayesnet.defaults import _cache_file
from bayesnet.networks import as_network
from bayesnet.posterior import saving
from bayesnet.priors.weights import WEIGHT_LAWS, WeightRecipe

W = bn.weights
PARAMS = ({"b": np.zeros(3), "w": np.array([[0.0, 2.0, -3.0], [1.0, -1.0, 0.1]])},)
# Every law with each of its knobs turned at least once.
RECIPES = {
    "gaussian": W.Gaussian(),
    "gaussian unit, tied": W.Gaussian("tied", "unit", 0.5),
    "gaussian parameter, free": W.Gaussian("free", "parameter"),
    "gaussian pre-trained": W.Gaussian.from_params(PARAMS),
    "gaussian pre-trained, free": W.Gaussian.from_params(PARAMS, loc="free"),
    "hierarchical": W.Hierarchical(),
    "hierarchical unit, inverse gamma": W.Hierarchical("free", "inverse_gamma", "unit"),
    "hierarchical parameter, centred": W.Hierarchical(per="parameter", centred=True),
    "laplace": W.Laplace(),
    "laplace unit": W.Laplace("tied", "unit"),
    "student_t": W.StudentT(),
    "student_t parameter, df trained": W.StudentT(per="parameter", df=2.5, train_df=True),
    "horseshoe": W.Horseshoe(),
    "horseshoe unit, slab": W.Horseshoe(per="unit", global_scale=0.3, slab_scale=2.0),
    "flow": W.Flow(pilots=2, width=3),
    "flow layer": W.Flow("free", "layer", couplings=3, pilots=2),
}
ONE_TO_ONE = ("gaussian", "laplace", "student_t", "flow")


def build(name, network=None):
    network = bn.MLP(()) if network is None else network
    return bn.NetworkPrior(network, RECIPES[name], in_dim=2, out_dim=3)


def nudged(law, scale=0.3):
    """The law with theta away from its start."""
    leaves, tree = jax.tree.flatten(law)
    rng = np.random.default_rng(0)
    moved = [a + jnp.asarray(scale * rng.normal(size=a.shape), a.dtype) for a in leaves]
    return jax.tree.unflatten(tree, moved)


def flat(params):
    return np.concatenate([np.ravel(a) for a in jax.tree.leaves(params)])


# --- decode and encode ----------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_encoding_any_weights_gives_latents_that_decode_to_them(name):
    law = nudged(build(name).law)
    rng = np.random.default_rng(1)
    shapes = as_network(bn.MLP(())).param_shapes(2, 3)
    decode, encode = eqx.filter_jit(law.decode), eqx.filter_jit(law.encode)
    for scale in (1e-3, 1.0, 30.0):
        w = jax.tree.map(
            lambda s, r=scale: jnp.asarray(r * rng.normal(size=s.shape), s.dtype), shapes
        )
        np.testing.assert_allclose(flat(decode(encode(w))), flat(w), rtol=2e-4, atol=2e-6)
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape), shapes)  # as biases start
    np.testing.assert_allclose(flat(decode(encode(zero))), 0.0, atol=2e-6)
    z = 1.5 * jax.random.normal(jax.random.key(0), (law.latent_size,))
    again = encode(decode(z))
    assert np.abs(again).max() < 30
    if name.startswith(ONE_TO_ONE):
        np.testing.assert_allclose(again, z, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("scale_law", ["lognormal", "inverse_gamma"])
def test_scales_are_estimated_from_the_weights(scale_law):
    """Of many weights with one scale, the latents are about standard normal again."""
    prior = bn.NetworkPrior(bn.MLP((40,)), W.Hierarchical(scale_law=scale_law), in_dim=30)
    z = jax.random.normal(jax.random.key(0), (prior.latent_size,))
    again = eqx.filter_jit(lambda law: law.encode(law.decode(z)))(prior.law)
    hidden = slice(40, 40 + 1200)  # the leaf "w" of the first layer, after its biases
    np.testing.assert_allclose(again[hidden], z[hidden], atol=0.2)
    assert again[-3] == pytest.approx(float(z[-3]), abs=0.2)


# --- marginals ------------------------------------------------------------------------------


def horseshoe_cdf(w, tau0, slab):
    """P(weight <= w) by integrating over both half-Cauchy scales, on their log-odds."""
    nodes = np.linspace(-18, 18, 361)
    weight = 2 / np.pi / (np.exp(nodes) + np.exp(-nodes))  # half-Cauchy density of log s
    weight /= weight.sum()
    scale = tau0 * np.exp(nodes[:, None] + nodes[None, :])
    if slab is not None:
        scale = 1 / np.sqrt(scale**-2 + slab**-2)
    both = weight[:, None] * weight[None, :]
    return np.array([(both * special.ndtr(v / scale)).sum() for v in np.atleast_1d(w)])


def lognormal_cdf(w, median, spread):
    u, weight = np.polynomial.hermite_e.hermegauss(80)
    values = special.ndtr(np.atleast_1d(w)[:, None] / (median * np.exp(spread * u)))
    return values @ weight / weight.sum()


a, t = 3.0, stats.gamma(3.0).median()
MARGINALS = {
    "gaussian": (W.Gaussian(scale=2.0), stats.norm(0, 2).cdf),
    "laplace": (W.Laplace(scale=2.0), stats.laplace(0, 2**0.5).cdf),
    "student_t": (W.StudentT(df=3.0, scale=2.0), stats.t(3, 0, 2 / 3**0.5).cdf),
    "cauchy": (W.StudentT(df=1.0), stats.cauchy.cdf),
    "student_t trained": (W.StudentT(df=5.0, train_df=True), stats.t(5, 0, 0.6**0.5).cdf),
    "hierarchical": (W.Hierarchical(spread=0.8), lambda w: lognormal_cdf(w, 1.0, 0.8)),
    # sigma^2 ~ IG(a, b) with median 1: b is the median of Gamma(a); t with scale sqrt(b / a).
    "inverse gamma": (
        W.Hierarchical(scale_law="inverse_gamma", shape=a),
        stats.t(2 * a, 0, (t / a) ** 0.5).cdf,
    ),
    "horseshoe": (W.Horseshoe(global_scale=0.5), lambda w: horseshoe_cdf(w, 0.5, None)),
    "slab": (W.Horseshoe(global_scale=0.5, slab_scale=2.0), lambda w: horseshoe_cdf(w, 0.5, 2.0)),
    "flow": (W.Flow(), stats.norm.cdf),
}


@pytest.mark.parametrize("name", MARGINALS)
def test_weights_follow_the_stated_law(name):
    recipe, cdf = MARGINALS[name]
    law = bn.NetworkPrior(bn.MLP(()), recipe, in_dim=2, out_dim=1).law
    z = jax.random.normal(jax.random.key(3), (40_000, law.latent_size))
    for leaf in jax.tree.leaves(eqx.filter_jit(lambda law: jax.vmap(law.decode)(z))(law)):
        w = np.sort(np.asarray(leaf, float).reshape(len(leaf), -1)[:, 0])
        at = np.concatenate([np.linspace(0.02, 0.98, 25), [0.999, 0.9995]])
        points = np.quantile(w, at)
        below = np.searchsorted(w, points, side="right") / len(w)
        # Levels differ by their binomial error: 5 of them, down to the last 5 in 10,000.
        error = np.sqrt(at * (1 - at) / len(w))
        assert (np.abs(cdf(points) - below) < 5 * error + 1 / len(w)).all()


def test_the_oracles_of_the_marginals_are_laws():
    assert horseshoe_cdf(0.0, 0.5, None)[0] == pytest.approx(0.5)
    assert horseshoe_cdf(1e9, 0.5, 2.0)[0] == pytest.approx(1.0, abs=1e-6)
    # The plain horseshoe with tau fixed has a known integral; with both scales at 1 use dblquad.
    exact, _ = integrate.dblquad(
        lambda p, q: special.ndtr(1 / (np.tan(p) * np.tan(q))) * (2 / np.pi) ** 2,
        0,
        np.pi / 2,
        0,
        np.pi / 2,
    )
    assert horseshoe_cdf(1.0, 1.0, None)[0] == pytest.approx(exact, abs=1e-5)


# --- groups ---------------------------------------------------------------------------------

NETWORKS = {
    "last axis": lambda: bn.MLP((4,)),
    "first axis": lambda: eqx.nn.MLP(2, 3, 4, 1, key=jax.random.key(0)),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("per", ["layer", "unit", "parameter"])
def test_a_group_is_a_layer_a_unit_or_a_parameter(network, per):
    net = NETWORKS[network]()
    law = bn.NetworkPrior(net, W.Gaussian(per=per), in_dim=2, out_dim=3).law
    twice = jnp.log(jnp.arange(1.0, 1.0 + law.layout.num_groups(per)))
    scaled = eqx.tree_at(lambda a: a.log_scale, law, twice)
    axis = 0 if network == "first axis" else -1
    seen = 0
    for leaf in jax.tree.leaves(scaled.decode(jnp.ones(law.latent_size))):
        if per == "layer":
            expected, count = np.full(leaf.shape, seen + 1.0), 1
        elif per == "parameter" or leaf.ndim == 1:
            expected, count = 1.0 + seen + np.arange(leaf.size).reshape(leaf.shape), leaf.size
        else:
            count = leaf.shape[axis]
            units = 1.0 + seen + np.arange(count)
            expected = np.broadcast_to(units[:, None] if axis == 0 else units, leaf.shape)
        np.testing.assert_allclose(leaf, expected, rtol=1e-5)
        seen += count


@pytest.mark.parametrize("recipe", [W.Hierarchical(per="unit"), W.Horseshoe(per="unit")])
def test_a_random_scale_moves_its_unit_only(recipe):
    law = bn.NetworkPrior(bn.MLP(()), recipe, in_dim=2, out_dim=3).law
    z = jnp.ones(law.latent_size)
    base, moved = law.decode(z), law.decode(z.at[-1].set(3.0))  # last unit of the last leaf
    changed = jax.tree.map(lambda a, b: np.asarray(a != b), base, moved)
    assert not changed[0]["b"].any()
    np.testing.assert_array_equal(changed[0]["w"], [[False, False, True]] * 2)


def test_locations_tied_and_free():
    for loc, count in (("tied", 2), ("free", 9)):
        law = bn.NetworkPrior(bn.MLP(()), W.Laplace(loc=loc), in_dim=2, out_dim=3).law
        assert law.loc.shape == (count,)
        law = eqx.tree_at(lambda a: a.loc, law, jnp.arange(1.0, count + 1))
        w = flat(law.decode(jnp.zeros(law.latent_size)))
        expected = np.repeat([1, 2], [3, 6]) if loc == "tied" else np.arange(1, 10)
        np.testing.assert_allclose(w, expected)


def test_the_flow_makes_weights_dependent():
    law = build("flow").law
    law = eqx.tree_at(lambda a: a.couplings, law, nudged(law, 15.0).couplings)
    z = jax.random.normal(jax.random.key(0), (4000, law.latent_size))
    w = eqx.filter_jit(lambda law: jax.vmap(law.decode)(z))(law)
    columns = np.asarray(w[0]["w"]).reshape(4000, -1)
    sizes = np.corrcoef(np.abs(columns).T)
    assert np.abs(sizes - np.eye(6)).max() > 0.1  # independent weights: 0.05 at most by chance


# --- gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_gradients_in_theta_and_latents_agree_with_differences(name):
    with jax.enable_x64(True):
        law = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), nudged(build(name).law))
        z = jax.random.normal(jax.random.key(0), (law.latent_size,), jnp.float64)
        loc_fixed = law.loc is not None and law.loc_form == "fixed"
        if loc_fixed:  # given, not trained
            law = eqx.tree_at(lambda a: a.loc, law, jax.lax.stop_gradient(law.loc))

        @jax.jit
        def value(law, z):
            return sum(jnp.sum(jnp.sin(a)) for a in jax.tree.leaves(law.decode(z)))

        slopes = jax.jit(jax.grad(value, (0, 1)))(law, z)
        rng = np.random.default_rng(2)
        direction = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), (law, z))
        if loc_fixed:
            assert not np.any(slopes[0].loc)
            direction = eqx.tree_at(lambda d: d[0].loc, direction, jnp.zeros_like(law.loc))
        step = 1e-5
        ends = [
            value(*jax.tree.map(lambda a, d, s=s: a + s * d, (law, z), direction))
            for s in (step, -step)
        ]
        along = sum(
            jnp.sum(a * d) for a, d in zip(*map(jax.tree.leaves, (slopes, direction)), strict=True)
        )
        assert float(along) == pytest.approx(
            float(ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-7
        )


@pytest.mark.parametrize("name", RECIPES)
def test_far_latents_have_finite_weights_and_gradients(name):
    law = build(name).law
    slope = jax.jit(
        jax.grad(
            lambda a, z: sum(jnp.sum(jnp.tanh(1e-3 * w)) for w in jax.tree.leaves(a.decode(z))),
            (0, 1),
        )
    )
    decode = eqx.filter_jit(law.decode)
    rng = np.random.default_rng(0)
    for signs in (1.0, -1.0, rng.choice([-1.0, 1.0], law.latent_size)):
        z = jnp.asarray(8.0 * signs * np.ones(law.latent_size), jnp.float32)
        assert np.isfinite(flat(decode(z))).all()
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(slope(law, z)))


# --- means from pre-trained weights ---------------------------------------------------------


def test_pre_trained_weights_are_the_means():
    law = bn.NetworkPrior(
        bn.MLP(()), W.Gaussian.from_params(PARAMS, delta=0.2, floor=0.05), in_dim=2, out_dim=3
    ).law
    at_zero = law.decode(jnp.zeros(law.latent_size))
    np.testing.assert_allclose(flat(at_zero), flat(PARAMS))
    sd = flat(law.decode(jnp.ones(law.latent_size))) - flat(PARAMS)
    np.testing.assert_allclose(sd, np.maximum(0.2 * np.abs(flat(PARAMS)), 0.05), rtol=1e-4)


def test_a_trained_equinox_module_gives_the_means():
    module = eqx.nn.MLP(2, 3, 4, 1, key=jax.random.key(0))
    prior = bn.NetworkPrior(module, W.Gaussian.from_params(module), in_dim=2, out_dim=3)
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    f = prior.apply(jnp.zeros(prior.latent_size), jnp.asarray(x))
    np.testing.assert_allclose(f, jax.vmap(module)(x), rtol=1e-5)


# --- recipes, files, matching ---------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("network", ["own", "foreign"])
def test_priors_of_every_law_survive_files_and_copies(name, network, tmp_path):
    module = eqx.nn.Linear(2, 3, key=jax.random.key(0)) if network == "foreign" else None
    if "pre-trained" in name and module is not None:
        pytest.skip("these weights are of the other network")
    prior = build(name, module)
    prior = eqx.tree_at(lambda p: p.law, prior, nudged(prior.law))
    saving.save(prior, tmp_path / "prior")
    x = np.ones((2, 2))
    expected = prior.sample(0, x, 3)
    for again in (
        bn.load(tmp_path / "prior", network=module),
        pickle.loads(pickle.dumps(prior)),
        copy.deepcopy(prior),
    ):
        np.testing.assert_array_equal(again.sample(0, x, 3), expected)
        if module is None:
            assert jax.tree.structure(again) == jax.tree.structure(prior)


def test_names_recipes_and_laws_build_the_same():
    net = bn.MLP((3,))
    for name, recipe in WEIGHT_LAWS.items():
        assert isinstance(recipe(), WeightRecipe)
        one, two = bn.NetworkPrior(net, name), bn.NetworkPrior(net, recipe())
        assert jax.tree.structure(one) == jax.tree.structure(two)
        three = bn.NetworkPrior(net, one.law)
        assert three.law is one.law
        assert pickle.loads(pickle.dumps(recipe())) == recipe()


def test_kept_matches_are_told_apart_by_every_knob():
    """The cache of matches holds one entry a law, also where the numbers in theta agree."""
    target, box = bn.GaussianProcess("rbf"), bn.Box([-1.0], [1.0])
    recipes = [W.Hierarchical(), W.Hierarchical(per="unit"), W.Hierarchical(centred=0.5)]
    recipes += [W.Gaussian(), W.Gaussian(scale=2.0), W.Laplace(scale=2**0.5), W.StudentT(df=2.0)]
    recipes += [W.StudentT(df=1.5), W.Flow(), W.Flow(seed=1), W.Flow(couplings=1)]
    files = [_cache_file(bn.NetworkPrior(bn.MLP((2,)), r), target, box, 0) for r in recipes]
    assert None not in files
    assert len(set(files)) == len(files)


FEW = {"steps": 60, "num_functions": 64, "num_points": 12}
SLOW = (
    "hierarchical unit, inverse gamma",
    "student_t parameter, df trained",
    "gaussian parameter, free",
    "horseshoe unit, slab",
    "laplace",
    "flow",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["hierarchical"] + [pytest.param(n, marks=pytest.mark.slow) for n in SLOW],
)
def test_matching_tunes_every_law(name):
    prior = bn.NetworkPrior(bn.MLP((8,)), RECIPES[name], in_dim=1)
    target = bn.GaussianProcess("rbf", 1.0, 9.0)
    match = bn.match_prior(prior, target, bn.Box([-2.0], [2.0]), **FEW)
    assert match.distance_after < 0.5 * match.distance_before
    for before, after in zip(*map(jax.tree.leaves, (prior.law, match.prior.law)), strict=True):
        assert not np.array_equal(before, after)


@pytest.mark.slow
def test_matching_keeps_given_means():
    recipe = W.Gaussian.from_params(PARAMS)
    prior = bn.NetworkPrior(bn.MLP(()), recipe, in_dim=2, out_dim=3)
    target = bn.GaussianProcess("linear", out_dim=3)
    match = bn.match_prior(prior, target, bn.Box([-1.0] * 2, [1.0] * 2), steps=5, num_functions=8)
    np.testing.assert_array_equal(match.prior.law.loc, prior.law.loc)
    assert not np.array_equal(match.prior.law.log_scale, prior.law.log_scale)


@pytest.mark.slow
def test_matching_finds_the_degrees_of_freedom():
    """A linear model with one weight: the marginal of the slope is the law itself."""
    net = (lambda key: {"w": jnp.zeros((1, 1))}, lambda p, x: x @ p["w"])
    target = bn.NetworkPrior(net, W.StudentT(df=2.0))
    prior = bn.NetworkPrior(net, W.StudentT(df=8.0, train_df=True))
    match = bn.match_prior(
        prior, target, bn.Box([0.5], [2.0]), steps=200, num_functions=512, num_points=6
    )
    law = match.prior.law
    assert float(law.degrees(0, jnp.float32)) == pytest.approx(2.0, abs=0.6)
    assert float(jnp.exp(law.log_scale[0])) == pytest.approx(1.0, rel=0.2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: W.Gaussian(per="neuron"), "granularity"),
        (lambda: W.Gaussian(loc="fre"), "Did you mean 'free'"),
        (lambda: W.Gaussian(scale=0.0), "scale must be"),
        (lambda: W.Laplace(scale=float("nan")), "scale must be"),
        (lambda: W.StudentT(df=0.5), "at least 1"),
        (lambda: W.StudentT(df=1.0, train_df=True), "above 1.01"),
        (lambda: W.Hierarchical(scale_law="gamma"), "inverse_gamma"),
        (lambda: W.Hierarchical(shape=0.5), "shape must be"),
        (lambda: W.Hierarchical(spread=-1.0), "spread must be"),
        (lambda: W.Hierarchical(centred=2.0), "centred must be"),
        (lambda: W.Horseshoe(slab_scale=0.0), "slab_scale must be"),
        (lambda: W.Flow(couplings=-1), "couplings must be"),
        (lambda: W.Flow(width=0), "width must be"),
        (lambda: W.Gaussian.from_params(PARAMS, delta=0.0), "delta must be"),
        (lambda: W.Gaussian.from_params(PARAMS, loc="tied"), "'fixed' or 'free'"),
        (lambda: bn.NetworkPrior(bn.MLP((2,)), W.Gaussian.from_params(PARAMS), 2, 3), "not those"),
        (
            lambda: (
                build("gaussian")
                and bn.NetworkPrior(
                    bn.MLP(()),
                    W.Gaussian.from_params(jax.tree.map(lambda a: a * np.nan, PARAMS)),
                    in_dim=2,
                    out_dim=3,
                )
            ),
            "finite",
        ),
        (lambda: bn.NetworkPrior(bn.MLP(), W.Laplace), "not a class"),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(bn.InputError, match=words):
        make()


@pytest.mark.slow
def test_the_flow_matches_a_heavy_tailed_process_better_than_gaussian_weights():
    """By measures that training does not see: a Student-t process, whose draws share a scale."""
    from bayesnet.diagnostics.neutral import neutral_measures

    class StudentProcess:
        def sample(self, key, x, num):
            first, second = jax.random.split(key)
            f = bn.GaussianProcess("rbf").sample(first, x, num)
            return f / jnp.sqrt(jax.random.chisquare(second, 3.0, shape=(num, 1, 1)) / 3.0)

    x = np.linspace(-3, 3, 60)[:, None]
    theirs = np.asarray(StudentProcess().sample(jax.random.key(99), x, 1000))[..., 0]
    measured = {}
    for name in ("gaussian", "flow"):
        prior = bn.NetworkPrior(bn.MLP((50, 50)), name)
        match = bn.match_prior(prior, StudentProcess(), bn.Box([-3.0], [3.0]))
        ours = np.asarray(match.prior.sample(5, x, 1000))[..., 0]
        measured[name] = neutral_measures(ours, theirs, 6 / 59)
    flow, gaussian = measured["flow"], measured["gaussian"]
    assert flow["ks_arc_length"] < 0.5 * gaussian["ks_arc_length"]
    assert flow["ks_largest_increment"] < gaussian["ks_largest_increment"]
    assert flow["mmd2"] < gaussian["mmd2"]
    assert flow["auc"] < gaussian["auc"]
