"""Sparse variational processes against exact evidence, draws from their law, and Laplace's."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from test_process_laplace import NEW, PROCESS, THREE, TWO, X, exact_probabilities

import bayesnet as bn
from bayesnet.data import Rows, Scaling
from bayesnet.inference._sparse_elbo import Rules, elbo, interpolate, roots, table_of_law
from bayesnet.posterior.sparse_process import project
from bayesnet.priors.kernel_model import KernelModel

RNG = np.random.default_rng(0)
LAW = bn.InverseGamma(2.0, 2.0)
NONE = np.zeros(0)
FAST = bn.SparseVariational(steps=300, batch_size=None)


def fit(prior=PROCESS, y=TWO[:12], method=FAST, x=X, **options):
    likelihood = "bernoulli" if len(np.unique(y)) == 2 else "categorical"
    options = {"likelihood": likelihood, "warn": False, **options}
    return bn.fit(prior, x[: len(y)], y, inference=method, **options)


def problem(likelihood, y, outputs, size, scale=None):
    """Parameters anywhere, and the other arguments of `elbo` for rows of X and `size` inducing ones."""
    n = len(y)
    rows = Rows(jnp.asarray(X[:n]), jnp.asarray(y, jnp.float64), jnp.ones(n, bool))
    bound = likelihood.bind(Scaling.identity(2, y.shape[1]), rows)
    a, left = project(KernelModel(PROCESS), NONE, X[:size], X[:n])
    given = tuple(jnp.asarray(v) for v in (a, left, 0.3 * np.ones((n, outputs))))
    params = {
        "mean": jnp.asarray(RNG.normal(size=(outputs, size))),
        "root": jnp.asarray(0.3 * RNG.normal(size=(outputs, size, size))),
        "noise": jnp.zeros(bound.latent_size),
    }
    if scale is not None:
        params["scale"] = tuple(jnp.asarray(v) for v in scale)
    return params, bound, given, rows


@pytest.mark.slow
def test_with_all_rows_and_gaussian_noise_the_best_bound_is_the_evidence():
    y = np.sin(X[:15, :1]) + 0.3
    with jax.enable_x64(True):
        params, bound, given, rows = problem(bn.GaussianLikelihood(0.4), y, 1, 15)
        a = np.asarray(given[0])
        precision = np.eye(15) + a.T @ a / 0.16
        mean = np.linalg.solve(precision, a.T @ (y[:, 0] - 0.3) / 0.16)
        root = np.linalg.cholesky(np.linalg.inv(precision))
        raw = np.tril(root, -1) + np.diag(np.log(np.diag(root)))
        best = {**params, "mean": jnp.asarray(mean[None]), "root": jnp.asarray(raw[None])}
        rest = (bound, jnp.zeros(()), None, given, rows, 1.0, jax.random.key(0), Rules())
        value, slope = jax.value_and_grad(elbo)(best, *rest)
        other = float(elbo(params, *rest))
    matrix = np.asarray(PROCESS.kernel(X[:15], X[:15]), np.float64) + 0.16 * np.eye(15)
    evidence = stats.multivariate_normal(np.full(15, 0.3), matrix).logpdf(y[:, 0])
    np.testing.assert_allclose(value, evidence, atol=1e-4)
    assert np.abs(slope["mean"]).max() < 1e-4
    assert np.abs(np.tril(slope["root"][0])).max() < 1e-4
    assert other < evidence - 1


@pytest.mark.parametrize(
    "kind",
    [
        "bernoulli",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("gaussian", "categorical")),
    ],
)
def test_the_bound_of_a_mixture_is_that_of_draws(kind):
    """E[log p(y | f) + log p(v | s) p(s) - log q(v, s)] by drawing everything there is."""
    outputs = 3 if kind == "categorical" else 1
    likelihood = {
        "bernoulli": bn.BernoulliLikelihood((0, 1)),
        "gaussian": bn.GaussianLikelihood(2.0),
        "categorical": bn.CategoricalLikelihood((0, 1, 2), label_noise=0.1),
    }[kind]
    y = RNG.integers(0, max(outputs, 2), (9, 1)).astype(float)
    loc, sd, tie, num = 0.4, 0.6, 0.7, 40_000
    with jax.enable_x64(True):
        scale = (loc, np.log(sd), tie)
        params, bound, given, rows = problem(likelihood, y, outputs, 5, scale)
        table = jnp.asarray(table_of_law(LAW))
        rules = Rules(latent=0 if kind == "categorical" else 20, draws=4000, scale=12)
        key = jax.random.key(1)
        value = elbo(params, bound, jnp.zeros(()), table, given, rows, 1.0, key, rules)
        triangle = np.asarray(roots(params["root"]))
        u = loc + sd * RNG.normal(size=num)
        r = np.exp(0.5 * tie * (u - loc))[:, None, None]
        z = RNG.normal(size=(num, outputs, 5))
        v = r * (np.asarray(params["mean"]) + np.einsum("kml,skl->skm", triangle, z))
        a, left, mean = (np.asarray(g) for g in given)
        free = np.exp(u / 2)[:, None, None] * np.sqrt(left)[:, None]
        f = mean + np.swapaxes(v @ a.T, 1, 2) + free * RNG.normal(size=(num, 9, outputs))
        fit_term = jax.vmap(lambda g: bound.log_prob(params["noise"], g, rows))(jnp.asarray(f))
        terms = np.asarray(fit_term).sum(1) + LAW.log_density(u)
    terms += stats.norm(0, np.exp(u / 2)[:, None, None]).logpdf(v).sum((1, 2))
    log_det = np.log(np.diagonal(triangle, axis1=1, axis2=2)).sum()
    terms -= stats.norm.logpdf(z).sum((1, 2)) - log_det - 5 * outputs * np.log(r[:, 0, 0])
    terms -= stats.norm(loc, sd).logpdf(u)
    error = terms.std() / np.sqrt(num)
    assert abs(float(value) - terms.mean()) < 4.5 * error * (1.5 if kind == "categorical" else 1)
    assert error < 0.3


def test_minibatches_are_unbiased_and_gradients_are_those_of_differences():
    y = RNG.integers(0, 2, (12, 1)).astype(float)
    with jax.enable_x64(True):
        start = (0.2, -0.5, 0.5)
        params, bound, given, rows = problem(bn.BernoulliLikelihood((0, 1)), y, 1, 4, start)
        table = jnp.asarray(table_of_law(LAW))

        def at(params, pick, factor):
            part_given, part = jax.tree.map(lambda a: a[pick], (given, rows))
            rest = (part_given, part, factor, jax.random.key(0), Rules())
            return elbo(params, bound, jnp.zeros(()), table, *rest)

        slope = jax.jit(jax.grad(at), static_argnums=())
        whole = slope(params, jnp.arange(12), 1.0)
        parts = [slope(params, jnp.arange(12).reshape(3, 4)[i], 3.0) for i in range(3)]
        mean = jax.tree.map(lambda *g: sum(g) / 3, *parts)
        for one, two in zip(jax.tree.leaves(whole), jax.tree.leaves(mean), strict=True):
            np.testing.assert_allclose(one, two, atol=1e-9)
        assert np.abs(parts[0]["mean"] - whole["mean"]).max() > 1e-3
        step = jax.tree.map(lambda a: jnp.asarray(RNG.normal(size=a.shape)), params)
        ends = [
            float(at(jax.tree.map(lambda a, d, e=e: a + e * d, params, step), jnp.arange(12), 1.0))
            for e in (1e-5, -1e-5)
        ]
        slopes = jax.tree.leaves(jax.tree.map(lambda g, d: jnp.sum(g * d), whole, step))
        np.testing.assert_allclose(sum(slopes), (ends[0] - ends[1]) / 2e-5, rtol=1e-5)


@pytest.mark.parametrize("law", [LAW, bn.LogNormal(0.0, 0.5), bn.OnStd(bn.HalfCauchy(1.0))])
def test_the_table_of_a_law_is_its_density(law):
    from bayesnet.priors.variance_laws import log_density_of

    u = np.linspace(-3.0, 8.0, 301)
    with jax.enable_x64(True):
        table = jnp.asarray(table_of_law(law))
        np.testing.assert_allclose(
            interpolate(table, jnp.asarray(u)), log_density_of(law, u), atol=1e-5
        )


def test_two_classes_on_a_small_table(tmp_path):
    post, laplace = (
        fit(),
        bn.fit(PROCESS, X[:12], TWO[:12], likelihood="bernoulli", inference="process_laplace"),
    )
    p, evidence, size = exact_probabilities(laplace, NEW)
    assert size > 3000
    assert evidence - 0.3 < post.elbo < evidence + 0.02  # Monte-Carlo error of the evidence
    np.testing.assert_allclose(post.predict(NEW).mean[:, 1], p, atol=0.03)
    assert post.diagnostics().ok
    # A scale that is known to be 1 is no scale; another one is another outputscale.
    known = fit(bn.ScaleMixture(PROCESS, 1.0))
    np.testing.assert_allclose(known.elbo, post.elbo, rtol=1e-12)
    np.testing.assert_allclose(known.predict(NEW).mean, post.predict(NEW).mean)
    half = bn.GaussianProcess("rbf", 0.8, 1.0, units="data")
    np.testing.assert_allclose(fit(bn.ScaleMixture(half, 2.0)).elbo, post.elbo, rtol=1e-4)
    # Fewer inducing rows: a lower bound. The same seed: the same posterior.
    fewer = fit(method=replace(FAST, inducing=X[:5]))
    assert fewer.elbo < post.elbo
    np.testing.assert_array_equal(fit().mean, post.mean)
    draws, law = post.functions(NEW, 4000), post._marginals(NEW)
    assert np.all(np.abs(draws.mean(0) - law.mean[0]) < 4.5 * law.root[0] / np.sqrt(4000))
    np.testing.assert_allclose(draws.std(0), law.root[0], rtol=0.06)
    for made in (post, fewer):
        made.save(tmp_path / "post")
        for again in (
            bn.load(tmp_path / "post"),
            pickle.loads(pickle.dumps(made)),
            copy.deepcopy(made),
        ):
            np.testing.assert_array_equal(again.predict(NEW).mean, made.predict(NEW).mean)
            assert again.method == made.method


@pytest.mark.slow
def test_three_classes_on_a_small_table():
    y = THREE[:12]
    laplace = bn.fit(PROCESS, X[:12], y, likelihood="categorical", inference="process_laplace")
    p, evidence, size = exact_probabilities(laplace, NEW)
    assert size > 3000
    post = fit(y=y, method=bn.SparseVariational(steps=1500, batch_size=None))
    assert evidence - 0.8 < post.elbo < evidence + 0.05
    np.testing.assert_allclose(post.predict(NEW, points=1024).mean, p, atol=0.06)
    noisy = fit(y=y, likelihood=bn.CategoricalLikelihood(label_noise=0.3))
    law = noisy.predict(NEW)
    np.testing.assert_allclose(law.components.probabilities, 0.7 * law.values + 0.1, atol=1e-10)


@pytest.mark.slow
def test_the_law_of_the_scale_of_a_mixture(tmp_path):
    """Beside Laplace's approximation at each scale, whose posterior of the scale is not restricted."""
    mixture = bn.ScaleMixture(PROCESS, LAW)
    method = bn.SparseVariational(steps=1000, batch_size=None)
    post = fit(mixture, TWO, method)
    laplace = bn.fit(mixture, X, TWO, likelihood="bernoulli", inference="process_laplace")
    nodes = laplace.solutions[0]
    weight = np.exp(nodes.log_weight)
    loc = weight @ nodes.u
    sd = np.sqrt(weight @ (nodes.u - loc) ** 2)
    np.testing.assert_allclose(post.log_scale[0], loc, atol=0.5 * sd)
    np.testing.assert_allclose(post.log_scale[1], sd, rtol=0.4)
    assert laplace.log_evidence - 0.5 < post.elbo < laplace.log_evidence + 0.3
    np.testing.assert_allclose(post.predict(NEW).mean, laplace.predict(NEW).mean, atol=0.12)
    draws, law = post.functions(NEW, 8000), post._marginals(NEW)
    w = np.exp(law.log_weight)[:, None, None]
    mean = (w * law.mean).sum(0)
    sd = np.sqrt((w * (law.root**2 + law.mean**2)).sum(0) - mean**2)
    assert np.all(np.abs(draws.mean(0) - mean) < 4.5 * sd / np.sqrt(8000))
    np.testing.assert_allclose(draws.std(0), sd, rtol=0.08)
    post.save(tmp_path / "post")
    np.testing.assert_array_equal(
        bn.load(tmp_path / "post").predict(NEW).mean, post.predict(NEW).mean
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_regression_is_near_the_exact_posterior(seed):
    y = 5 * np.sin(2 * X[:, 0]) + 0.3 * np.random.default_rng(seed).normal(size=40)
    known = {"likelihood": bn.GaussianLikelihood(0.3)}
    method = bn.SparseVariational(steps=2000, batch_size=None)
    post, exact = (fit(PROCESS, y, m, **known) for m in (method, bn.Exact()))
    np.testing.assert_allclose(post.elbo, exact.log_evidence, atol=0.02)
    np.testing.assert_allclose(post.predict(NEW).mean, exact.predict(NEW).mean, atol=0.02)
    np.testing.assert_allclose(post.predict(NEW).std, exact.predict(NEW).std, rtol=0.02)
    truth = exact.predict(NEW).mean + 0.5
    np.testing.assert_allclose(
        post.predict(NEW).joint_log_prob(truth), exact.predict(NEW).joint_log_prob(truth), atol=0.5
    )
    mixture = bn.ScaleMixture(PROCESS, LAW, noise="outside")
    post, exact = (fit(mixture, y, m, **known) for m in (method, bn.Exact()))
    assert exact.log_evidence - 0.6 < post.elbo < exact.log_evidence
    pred, best = post.predict(NEW), exact.predict(NEW)
    assert np.all(np.abs(pred.mean - best.mean) < 0.1 * best.std)
    np.testing.assert_allclose(pred.std, best.std, rtol=0.1)
    # The bound hardly changes with the noise near its best: the value says more than the place.
    longer = bn.SparseVariational(steps=8000, batch_size=None)
    learned = fit(PROCESS, y, longer, likelihood=None)
    reference = fit(PROCESS, y, bn.Exact(), likelihood=None)
    assert abs(learned.elbo - reference.log_evidence) < 0.3
    np.testing.assert_allclose(learned._noise_std(), reference.noise_std[0], rtol=0.3)


def test_the_bound_is_in_the_units_of_y():
    y = X[:, 0] + 0.3 * RNG.normal(size=40)
    method = bn.SparseVariational(inducing=5, steps=20, batch_size=None)

    def bound(factor):
        known = bn.GaussianLikelihood(0.3 * factor)
        return fit(bn.GaussianProcess("rbf"), factor * y, method, likelihood=known).elbo

    assert bound(50.0) == pytest.approx(bound(1.0) - 40 * np.log(50.0), abs=1e-3)


@pytest.mark.slow
def test_many_rows_learned_hyperparameters_and_moving_inducing_rows():
    x = RNG.uniform(-3, 3, (3000, 2))
    y = (RNG.uniform(size=3000) < 1 / (1 + np.exp(-3 * np.sin(1.5 * x[:, 0])))).astype(int)
    law = bn.LogNormal(0.0, 1.0)
    prior = bn.GaussianProcess("rbf", law, law, units="data")
    data = {"x": x, "y": y}
    fixed = bn.GaussianProcess("rbf", 0.3, 1.0, units="data")
    few = {"inducing": 25, "steps": 1500, "batch_size": 200}
    still = fit(fixed, method=bn.SparseVariational(**few), **data)
    learned = fit(prior, method=bn.SparseVariational(**few), **data)
    moved = fit(prior, method=bn.SparseVariational(**few, learn_inducing=True), **data)
    whole = fit(
        prior, method=bn.SparseVariational(**{**few, "batch_size": None, "steps": 600}), **data
    )
    assert still.elbo < learned.elbo < moved.elbo + 5
    np.testing.assert_allclose(learned.elbo, whole.elbo, atol=10)  # of about 1,400 nats
    assert 0.5 < learned.prior.covariance.lengthscale < 4
    new = RNG.uniform(-2.5, 2.5, (400, 2))
    truth = 1 / (1 + np.exp(-3 * np.sin(1.5 * new[:, 0])))
    assert np.abs(learned.predict(new).mean[:, 1] - truth).mean() < 0.05
    wide = fit(
        bn.kernels.NNGP(depth=1, activation="erf"), method=bn.SparseVariational(**few), **data
    )
    assert wide.diagnostics().ok

    class Own:
        out_dim = 1

        def kernel(self, x1, x2):
            return np.exp(-0.5 * ((np.asarray(x1)[:, None] - np.asarray(x2)[None]) ** 2).sum(-1))

        def sample(self, key, x, num):
            raise NotImplementedError

    own = fit(Own(), method=bn.SparseVariational(**few), **data)
    same = fit(bn.GaussianProcess("rbf", 1.0), method=bn.SparseVariational(**few), **data)
    np.testing.assert_allclose(own.elbo, same.elbo, rtol=1e-6)
    with pytest.raises(bn.UnsupportedError, match="JAX"):
        fit(Own(), method=bn.SparseVariational(**few, learn_inducing=True), **data)


def test_bad_input_is_named():
    for options, words in (
        ({"inducing": 0}, "inducing"),
        ({"inducing": "many"}, "inducing"),
        ({"steps": 1}, "steps"),
        ({"draws": 3}, "even"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"learn_inducing": 1}, "learn_inducing"),
    ):
        with pytest.raises(bn.InputError, match=words):
            bn.SparseVariational(**options)
    with pytest.raises(bn.InputError, match="columns"):
        fit(method=bn.SparseVariational(inducing=X[:3, :1]))
    with pytest.raises(bn.UnsupportedError, match="infinite_width"):
        fit(bn.NetworkPrior(bn.MLP((3,)), in_dim=2))
    with pytest.raises(bn.UnsupportedError, match="PoissonLikelihood"):
        fit(y=np.arange(12), likelihood="poisson")
    with pytest.raises(bn.UnsupportedError, match="label_noise"):
        fit(y=THREE, likelihood=bn.CategoricalLikelihood(label_noise=bn.LogitNormal()))
    with pytest.raises(bn.UnsupportedError, match="outside"):
        fit(bn.ScaleMixture(PROCESS, LAW), X[:, 0], likelihood=None)
    with pytest.raises(bn.UnsupportedError, match="y_var"):
        fit(PROCESS, X[:, 0], likelihood=None, y_var=np.ones(40))
    with pytest.raises(bn.InputError, match="2 outputs"):
        fit(bn.GaussianProcess("rbf", out_dim=2))
