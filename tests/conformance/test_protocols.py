"""Every entry of every registry keeps its protocol: registry x properties."""

from __future__ import annotations

import pickle
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesnet as bn
from bayesnet.data import Scaling, make_data
from bayesnet.inference import PRESETS, Inference
from bayesnet.inference.model import LatentModel
from bayesnet.likelihoods import BoundLikelihood, Conditional, Likelihood, resolve_likelihood
from bayesnet.networks import Network
from bayesnet.priors.weights import WEIGHT_LAWS, WeightLaw

D, M = 2, 2


def pair_init(key):
    return {"w": jax.random.normal(key, (D, M))}


def pair_apply(params, x):
    return jnp.sin(x @ params["w"])


NETWORKS = {
    "linear": lambda: bn.MLP(()),
    "mlp ntk": lambda: bn.MLP((4, 3)),
    "mlp standard": lambda: bn.MLP((4,), "relu", "standard"),
    "equinox": lambda: eqx.nn.Linear(D, M, key=jax.random.key(0)),
    "pair": lambda: (pair_init, pair_apply),
}
LIKELIHOODS = {
    "noise by default": lambda: bn.GaussianLikelihood(),
    "noise known": lambda: bn.GaussianLikelihood(0.3),
    "noise by a law": lambda: bn.GaussianLikelihood(bn.LogNormal(-1.0, 0.5)),
}
SHORT = {"chains": 2, "warmup": 20, "draws": 10}
SHORT_OF = {"ensemble": {"members": 20, "steps": 20}}

X = np.random.default_rng(0).normal(size=(5, D)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(5, M))


def close(a, b):
    for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(u, v, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", NETWORKS)
def test_network(kind):
    prior = bn.NetworkPrior(NETWORKS[kind](), in_dim=D, out_dim=M)
    net = prior.network
    assert isinstance(net, Network)
    assert hash(net) == hash(net)
    params = net.init(jax.random.key(0), D, M)
    shapes = net.param_shapes(D, M)
    assert jax.tree.structure(params) == jax.tree.structure(shapes)
    jax.tree.map(lambda a, s: np.testing.assert_array_equal(a.shape, s.shape), params, shapes)
    for leaf in net.base_law(D, M):
        assert jax.tree.structure(leaf) == jax.tree.structure(shapes)
    x = jnp.asarray(X)
    out = net.apply(params, x)
    assert out.shape == (5, M)
    close(jax.jit(net.apply)(params, x), out)
    close(jax.vmap(lambda row: net.apply(params, row[None])[0])(x), out)  # rows do not mix
    gradient = jax.grad(lambda p: (net.apply(p, x) ** 2).sum())(params)
    assert jax.tree.structure(gradient) == jax.tree.structure(params)
    again = pickle.loads(pickle.dumps(net))
    close(again.apply(params, x), out)


# The laws that take longest to compile: on the smallest network in the fast suite, or not there.
LONG_LAWS = ("flow", "horseshoe", "laplace", "student_t")
LONGEST_LAWS = ("flow", "horseshoe")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(
            name,
            kind,
            marks=[pytest.mark.slow]
            if name in LONGEST_LAWS or (name in LONG_LAWS and kind != "linear")
            else [],
        )
        for name in WEIGHT_LAWS
        for kind in NETWORKS
    ],
)
def test_weight_law(name, kind):
    prior = bn.NetworkPrior(NETWORKS[kind](), weights=name, in_dim=D, out_dim=M)
    law = prior.law
    assert isinstance(law, WeightLaw)
    z = jax.random.normal(jax.random.key(0), (3, law.latent_size))
    params = law.decode(z[0])
    close(jax.jit(lambda a, b: a.decode(b))(law, z[0]), params)
    close(jax.tree.map(lambda a: a[0], jax.vmap(law.decode)(z)), params)
    again = pickle.loads(pickle.dumps(law))
    close(again.decode(z[0]), params)
    assert jax.tree.structure(again) == jax.tree.structure(law)
    # Latents as far out as a sampler goes stay finite, and so do gradients in theta.
    for far in (-8.0, 8.0):
        zfar = jnp.full(law.latent_size, far)
        assert all(np.isfinite(a).all() for a in jax.tree.leaves(law.decode(zfar)))

    def loss(law):
        return sum((a**2).sum() for a in jax.tree.leaves(law.decode(z[0])))

    # Away from the start, where parts of a law may have no effect yet.
    nudged = jax.tree.map(lambda a: a + 0.05, law)
    theta = jax.tree.leaves(eqx.filter_grad(loss)(nudged))
    assert theta
    assert all(np.isfinite(a).all() and (np.abs(a) > 0).any() for a in theta)
    close(law.decode(law.encode(params)), params)


@pytest.mark.parametrize("with_var", [False, True])
@pytest.mark.parametrize("kind", LIKELIHOODS)
def test_likelihood(kind, with_var):
    likelihood = LIKELIHOODS[kind]()
    assert isinstance(likelihood, Likelihood)
    assert pickle.loads(pickle.dumps(likelihood)) == likelihood
    var = np.full((5, M), 0.1) if with_var else None
    scaling = Scaling.from_data(X, Y, scale_y=likelihood.scales_targets)
    data = make_data(X, Y, var, scaling)
    bound = likelihood.bind(scaling, data.rows)
    assert isinstance(bound, BoundLikelihood)
    k = bound.latent_size
    z = jax.random.normal(jax.random.key(0), (4, k))
    f = jax.random.normal(jax.random.key(1), (4, 16, M))
    rows = jax.vmap(lambda a, b: bound.log_prob(a, b, data.rows))(z, f)
    assert rows.shape == (4, 16)
    assert np.isfinite(rows).all()  # padded rows too
    close(jax.jit(lambda b, a, c: b.log_prob(a, c, data.rows))(bound, z[0], f[0]), rows[0])
    gradient = jax.grad(lambda a, b: bound.log_prob(a, b, data.rows).sum(), (0, 1))(z[0], f[0])
    assert all(np.isfinite(g).all() for g in gradient)
    law = bound.conditional(np.asarray(z), np.asarray(f[:, :5]), None if var is None else var * 2)
    assert isinstance(law, Conditional)
    assert law.mean.shape == law.variance.shape == (4, 5, M)
    y = law.mean + 0.3
    np.testing.assert_allclose(law.cdf(law.quantile(0.2)), 0.2, rtol=1e-6)
    # The density is the derivative of the distribution.
    numeric = (law.cdf(y + 1e-5) - law.cdf(y - 1e-5)) / 2e-5
    np.testing.assert_allclose(np.exp(law.log_prob(y)), numeric, rtol=1e-5)
    # Training rows: the density of the sampler is that of the predictions.
    again = bound.conditional(
        np.asarray(z), np.asarray(f[:, :5]), None if var is None else var / scaling.y_scale**2
    )
    np.testing.assert_allclose(again.log_prob(data.y).sum(-1), rows[:, :5], rtol=1e-3, atol=1e-3)
    for values in bound.summary(np.asarray(z)).values():
        assert values.shape[0] == 4


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_every_model_has_a_finite_differentiable_density(kind, likelihood):
    prior = bn.NetworkPrior(NETWORKS[kind](), in_dim=D, out_dim=M)
    scaling = Scaling.from_data(X, Y)
    data = make_data(X, Y, None, scaling)
    model = LatentModel(prior, LIKELIHOODS[likelihood]().bind(scaling, data.rows), data.rows)
    z = jax.random.normal(jax.random.key(0), (model.size,))
    value, gradient = eqx.filter_jit(jax.value_and_grad(model.log_density))(z)
    step = 1e-2 * jax.random.normal(jax.random.key(1), z.shape)
    change = model.log_density(z + step) - model.log_density(z - step)
    assert np.isfinite(value)
    np.testing.assert_allclose(2 * gradient @ step, change, rtol=0.05, atol=0.02)


# Methods with `choose_prior` condition kernel priors (below); all others latents.
@pytest.mark.parametrize("name", [n for n in PRESETS if not hasattr(PRESETS[n](), "choose_prior")])
def test_inference_preset(name):
    default = PRESETS[name]()
    assert isinstance(default, Inference)
    assert pickle.loads(pickle.dumps(default)) == default
    assert getattr(default, "chains", 4) >= 4
    prior = bn.NetworkPrior(bn.MLP((3,)), in_dim=D, out_dim=M)
    likelihood = bn.GaussianLikelihood()
    process = bn.GaussianProcess("rbf")
    assert default.supports(prior, likelihood)
    assert not default.supports(process, likelihood)
    with pytest.raises(bn.UnsupportedError, match="match_prior"):
        bn.fit(process, X, Y[:, :1], inference=name)
    method = type(default)(**SHORT_OF.get(name, SHORT))
    y = 1e4 + 50 * Y
    post = bn.fit(prior, X, y, inference=method, warn=False)
    pred = post.predict(X)
    assert np.isfinite(pred.std).all()
    assert np.abs(pred.mean - 1e4).max() < 500  # in the units of y
    assert post.num_draws == 20
    assert post.method == method


# Settings that make them quick, and the likelihoods that they take.
KERNEL_SETTINGS = {"sparse_variational": {"steps": 20, "inducing": 4}}
KERNEL_TARGETS = {
    "process_laplace": ("bernoulli", "categorical"),
    "sparse_variational": ("gaussian", "bernoulli", "categorical"),
}


@pytest.mark.parametrize(
    "name",
    [
        # Three training programs to compile.
        pytest.param(n, marks=[pytest.mark.slow] if n == "sparse_variational" else [])
        for n in PRESETS
        if hasattr(PRESETS[n](), "choose_prior")
    ],
)
def test_kernel_preset(name, tmp_path):
    default = PRESETS[name]()
    assert isinstance(default, Inference)
    assert pickle.loads(pickle.dumps(default)) == default
    method = replace(default, **KERNEL_SETTINGS.get(name, {}))
    own = name in ("infinite_width", "student_t")
    network = bn.NetworkPrior(bn.MLP((3,)), in_dim=D)
    y = {"gaussian": 1e4 + 50 * Y[:, 0], "bernoulli": Y[:, 0] > 0, "categorical": list("abcab")}
    for kind in y:
        likelihood = resolve_likelihood(kind).encode(y[kind])[0]
        takes = kind in KERNEL_TARGETS.get(name, ("gaussian",))
        assert default.supports(bn.GaussianProcess("rbf"), likelihood) == takes
        assert not default.supports(network, likelihood)
        prior = None if own else bn.GaussianProcess("rbf", lengthscale=1.0)
        if not takes:
            with pytest.raises(bn.UnsupportedError, match=r"process_laplace|ProcessLaplace|exact"):
                bn.fit(prior, X, y[kind], likelihood=kind, inference=method)
            continue
        with pytest.raises(
            (bn.InputError, bn.UnsupportedError), match=r"infinite_width\(\)|prior of its own"
        ):
            bn.fit(network, X, y[kind], likelihood=kind, inference=method)
        post = bn.fit(prior, X, y[kind], likelihood=kind, inference=method, warn=False)
        pred = post.predict(X)
        post.save(tmp_path / f"{name}.bayesnet")
        again = bn.load(tmp_path / f"{name}.bayesnet")
        np.testing.assert_allclose(again.predict(X).mean, pred.mean, rtol=1e-5)
        assert str(post.diagnostics())
        assert post.method == method
        assert post.functions(X).shape[1] == len(X)
        if kind == "gaussian":
            assert np.isfinite(pred.std).all()
            assert np.abs(pred.mean - 1e4).max() < 500  # in the units of y
        else:
            np.testing.assert_allclose(pred.mean.sum(axis=1), 1.0, rtol=1e-6)
