"""Exact inference against dense formulas, other libraries, finite differences and refits."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import oracles
import pytest
from scipy import integrate, stats

import bayesnet as bn
from bayesnet.data import Scaling
from bayesnet.inference import exact as exact_module
from bayesnet.inference._exact_search import Problem
from bayesnet.inference._exact_table import NoiseLaw, Table
from bayesnet.priors.kernel_model import KernelModel

RNG = np.random.default_rng(0)
X = RNG.uniform(-2, 2, (12, 2))
Y = np.column_stack([np.sin(2 * X[:, 0]), X[:, 1] ** 2]) + 0.1 * RNG.normal(size=(12, 2))
NEW = RNG.uniform(-2, 2, (5, 2))
GP = bn.GaussianProcess("rbf", 0.8, 1.3, units="data")
TWO = bn.GaussianProcess("rbf", 0.8, 1.3, out_dim=2, units="data")
KNOWN = bn.GaussianLikelihood(0.2)


def kernel(a, b):
    return oracles.rbf(a, b, 0.8, 1.3)


def exact(prior=GP, y=None, **options):
    options = {"likelihood": KNOWN, "inference": "exact", **options}
    return bn.fit(prior, X, Y[:, 0] if y is None else y, **options)


def test_the_posterior_is_that_of_the_dense_formula():
    post = exact()
    mean, cov = oracles.gp_regression(kernel, X, Y[:, 0], 0.04, NEW)
    pred = post.predict(NEW)
    np.testing.assert_allclose(pred.mean[:, 0], mean, atol=1e-10)
    np.testing.assert_allclose(pred.epistemic_std[:, 0] ** 2, np.diag(cov), atol=1e-10)
    np.testing.assert_allclose(pred.aleatoric_std, 0.2)
    got_mean, got_cov = post.joint(NEW)
    np.testing.assert_allclose(got_mean[:, 0], mean, atol=1e-10)
    np.testing.assert_allclose(got_cov[0], cov, atol=1e-10)
    y = mean + 0.3
    law = stats.norm(mean, np.sqrt(np.diag(cov) + 0.04))
    np.testing.assert_allclose(pred.log_prob(y)[:, 0], law.logpdf(y), rtol=1e-9)
    np.testing.assert_allclose(pred.cdf(y)[:, 0], law.cdf(y), rtol=1e-9)
    np.testing.assert_allclose(pred.quantile(0.1)[:, 0], law.ppf(0.1), rtol=1e-9)
    total = stats.multivariate_normal(mean, cov + 0.04 * np.eye(5))
    np.testing.assert_allclose(pred.joint_log_prob(y), total.logpdf(y), rtol=1e-8)
    evidence = stats.multivariate_normal(np.zeros(12), kernel(X, X) + 0.04 * np.eye(12))
    np.testing.assert_allclose(post.log_evidence, evidence.logpdf(Y[:, 0]), rtol=1e-10)


def test_the_posterior_is_that_of_scikit_learn():
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel

    gp = GaussianProcessRegressor(ConstantKernel(1.3) * RBF(0.8), alpha=0.04, optimizer=None)
    mean, std = gp.fit(X, Y[:, 0]).predict(NEW, return_std=True)
    pred = exact().predict(NEW)
    np.testing.assert_allclose(pred.mean[:, 0], mean, atol=1e-8)
    np.testing.assert_allclose(pred.epistemic_std[:, 0], std, rtol=1e-6)


def test_the_posterior_is_that_of_gpytorch():
    gpytorch, torch = pytest.importorskip("gpytorch"), pytest.importorskip("torch")
    kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.MaternKernel(2.5)).double()
    kernel.base_kernel.lengthscale, kernel.outputscale = 0.8, 1.3
    likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
    likelihood.noise = 0.04

    class Model(gpytorch.models.ExactGP):
        def __init__(self):
            super().__init__(torch.tensor(X), torch.tensor(Y[:, 0]), likelihood)

        def forward(self, x):
            zero = torch.zeros(x.shape[0]).double()
            return gpytorch.distributions.MultivariateNormal(zero, kernel(x))

    with torch.no_grad(), gpytorch.settings.fast_computations(False, False, False):
        law = Model().eval()(torch.tensor(NEW))
    by_name = bn.GaussianProcess("matern52", 0.8, 1.3, units="data")
    for prior in (by_name, bn.GaussianProcess(kernel, units="data")):
        pred = exact(prior).predict(NEW)
        np.testing.assert_allclose(pred.mean[:, 0], law.mean.numpy(), atol=1e-7)
        np.testing.assert_allclose(pred.epistemic_std[:, 0], law.stddev.numpy(), atol=1e-7)


def test_joint_samples_have_the_joint_law():
    pred = exact().predict(NEW[:3])
    _, cov = exact().joint(NEW[:3])
    draws = pred.sample(0, 20_000, noise=False)[..., 0]
    np.testing.assert_allclose(draws.mean(0), pred.mean[:, 0], atol=0.03)
    np.testing.assert_allclose(np.cov(draws.T), cov[0], atol=0.04)
    noisy = pred.sample(0, 20_000)[..., 0]
    np.testing.assert_allclose(np.cov(noisy.T), cov[0] + 0.04 * np.eye(3), atol=0.04)
    apart = pred.sample(0, 20_000, joint=False)[..., 0]
    np.testing.assert_allclose(np.cov(apart.T), np.diag(np.diag(cov[0]) + 0.04), atol=0.04)


def test_units_rows_variances_and_missing_targets():
    """In user units, with per-row variances and a missing target: the dense formula again."""
    y = 100.0 + 30.0 * Y
    y[3, 1] = np.nan
    var = RNG.uniform(1.0, 9.0, (12, 2))
    prior = bn.GaussianProcess("rbf", 0.8, 1.3, out_dim=2)
    post = bn.fit(prior, 5 * X + 2, y, y_var=var, missing="mask", inference="exact")
    scaling = post.scaling
    pred = post.predict(5 * NEW + 2, y_var=np.full((5, 2), 4.0))
    xs, ns = scaling.x_in(5 * X + 2), scaling.x_in(5 * NEW + 2)
    for j in range(2):
        seen = ~np.isnan(y[:, j])
        noise = np.diag(var[seen, j] / scaling.y_scale[j] ** 2)
        gram = kernel(xs[seen], xs[seen]) + noise
        cross = kernel(ns, xs[seen])
        mean = cross @ np.linalg.solve(gram, scaling.y_in(y)[seen, j])
        cov = kernel(ns, ns) - cross @ np.linalg.solve(gram, cross.T)
        expected = mean * scaling.y_scale[j] + scaling.y_loc[j]
        np.testing.assert_allclose(pred.mean[:, j], expected, rtol=1e-9)
        sd = np.sqrt(np.diag(cov)) * scaling.y_scale[j]
        np.testing.assert_allclose(pred.epistemic_std[:, j], sd, rtol=1e-8)
    np.testing.assert_allclose(pred.aleatoric_std, 2.0)
    # Without variances for new rows: the mean of those of the table.
    mean_var = np.nanmean(np.where(np.isnan(y), np.nan, var), axis=0)
    default = post.predict(5 * NEW + 2).aleatoric_std
    np.testing.assert_allclose(default, np.broadcast_to(np.sqrt(mean_var), (5, 2)), rtol=1e-9)


def test_a_weight_of_two_is_the_row_twice():
    weight = np.ones(12)
    weight[:3], weight[5] = 2.0, 0.0
    rows = np.concatenate([np.arange(3), np.delete(np.arange(12), 5)])
    weighted = bn.fit(GP, X, Y[:, 0], sample_weight=weight, likelihood=KNOWN, inference="exact")
    twice = bn.fit(GP, X[rows], Y[rows, 0], likelihood=KNOWN, inference="exact")
    np.testing.assert_allclose(weighted.predict(NEW).mean, twice.predict(NEW).mean, atol=1e-9)
    np.testing.assert_allclose(weighted.predict(NEW).std, twice.predict(NEW).std, atol=1e-9)
    np.testing.assert_allclose(weighted.log_evidence, twice.log_evidence, rtol=1e-9)


@pytest.mark.parametrize("mixture", [None, "inside", "outside"])
def test_leave_one_out_equals_refits(mixture):
    prior = TWO
    if mixture is not None:
        prior = bn.ScaleMixture(TWO, bn.InverseGamma(1.5, 1.0), noise=mixture)
    post = exact(prior, Y)
    loo = post.loo()
    for i in (0, 7):
        rest = np.delete(np.arange(12), i)
        other = bn.fit(prior, X[rest], Y[rest], likelihood=KNOWN, inference="exact")
        pred = other.predict(X[i : i + 1])
        np.testing.assert_allclose(loo.mean[i], pred.mean[0], atol=1e-6)
        np.testing.assert_allclose(loo.std[i], pred.std[0], rtol=1e-5)
        np.testing.assert_allclose(loo.rows[i], pred.joint_log_prob(Y[i : i + 1]), atol=1e-6)
        chain = post.log_evidence - other.log_evidence
        np.testing.assert_allclose(loo.rows[i], chain, atol=1e-6)


@pytest.mark.parametrize("mixture", [False, True])
def test_gradients_of_the_objective_are_finite_differences(mixture):
    process = bn.GaussianProcess(
        "matern52",
        bn.LogNormal([0.0, 0.3], 0.5),
        1.0 if mixture else bn.LogNormal(0.0, 0.5),
        mean=bn.LinearMean(bn.Normal([0.0, 0.0], 1.0)),
        out_dim=2,
    )
    prior = process
    if mixture:
        prior = bn.ScaleMixture(process, bn.Gamma(1.0, 1.0), noise="outside")
    weight = np.linspace(0.5, 2.0, 12)
    table = Table(X, Y, RNG.uniform(0.01, 0.1, (12, 2)), weight)
    noise = NoiseLaw(np.array([-1.0, -2.0]), np.array([1.0, 0.5]), 2)
    problem = Problem(prior, KernelModel(process), noise, table, bn.Exact())
    v = 0.3 * RNG.normal(size=problem.size)
    direction = RNG.normal(size=problem.size)
    _, slope = problem.log_density(v)
    h = 1e-4
    change = problem.log_density(v + h * direction)[0] - problem.log_density(v - h * direction)[0]
    np.testing.assert_allclose(slope @ direction, change / (2 * h), rtol=1e-6)


@pytest.mark.parametrize("per_output", [None, False, True])
def test_the_evidence_of_noise_alone_is_the_same(per_output):
    """The short way by eigenvalues against the factorisation of every matrix."""
    prior = TWO
    if per_output is not None:
        prior = bn.ScaleMixture(TWO, bn.InverseGamma(1.5, 2.0), per_output=per_output)
    noise = NoiseLaw(np.array([-1.0, -2.0]), np.array([1.0, 0.5]), 2)
    short = Problem(prior, KernelModel(TWO), noise, Table(X, Y, None, None), bn.Exact())
    long = Problem(prior, KernelModel(TWO), noise, Table(X, Y, None, np.ones(12)), bn.Exact())
    assert short._noise_only is not None
    assert long._noise_only is None
    z = np.array([0.3, -0.7])
    for a, b in zip(short.log_evidence(z), long.log_evidence(z), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8)


def test_learned_noise_and_hyperparameters_reach_the_top():
    """Map: no nearby point is better; the fixed process that comes out is the one that was found."""
    rng = np.random.default_rng(1)
    x = rng.uniform(-3, 3, (40, 1))
    y = np.sin(2 * x[:, 0]) + 0.3 * rng.normal(size=40)
    prior = bn.GaussianProcess("rbf", bn.LogNormal(0.0, 1.0), bn.LogNormal(0.0, 1.0))
    post = bn.fit(prior, x, y, inference=bn.Exact(restarts=1))
    assert not post.prior.random
    assert 0.2 < post.noise_std[0, 0] * y.std() < 0.45
    assert post.diagnostics().ok
    assert set(post.diagnostics().hyperparameters) == {"lengthscale", "outputscale"}
    best = post.search["reached"][0]

    def log_density(length, scale, noise):
        xs, ys = post.x, post.y[:, 0]
        gram = oracles.rbf(xs, xs, length, scale) + noise**2 * np.eye(40)
        z = (np.log(noise) + 2.0) / 1.0  # the default law of noise
        prior_terms = stats.norm.logpdf(np.log([length, scale])).sum() - 0.5 * z**2
        return stats.multivariate_normal(np.zeros(40), gram).logpdf(ys) + prior_terms

    hyper = [post.prior.covariance.lengthscale, post.prior.covariance.outputscale]
    at = [*hyper, post.noise_std[0, 0]]
    np.testing.assert_allclose(log_density(*at), best, rtol=1e-6)
    for i in range(3):
        for factor in (0.95, 1.05):
            moved = [a * (factor if j == i else 1.0) for j, a in enumerate(at)]
            assert log_density(*moved) < best


@pytest.mark.slow
@pytest.mark.parametrize("hyper", ["hmc", "nuts"])
def test_sampled_hyperparameters_average_to_quadrature(hyper):
    """One random lengthscale against an integral over it."""
    prior = bn.GaussianProcess("rbf", bn.LogNormal(0.0, 0.7), units="data")
    method = bn.Exact(hyper=hyper, draws=400)
    post = bn.fit(prior, X, Y[:, 0], likelihood=KNOWN, inference=method)
    u = np.linspace(-4, 4, 400)
    logs, means = [], []
    for length in np.exp(u):
        k = partial(oracles.rbf, lengthscale=length)
        gram = k(X, X) + 0.04 * np.eye(12)
        logs.append(
            stats.multivariate_normal(np.zeros(12), gram).logpdf(Y[:, 0])
            + stats.norm(0, 0.7).logpdf(np.log(length))
        )
        means.append(oracles.gp_regression(k, X, Y[:, 0], 0.04, NEW)[0])
    weights = np.exp(np.array(logs) - max(logs))
    expected = weights @ np.array(means) / weights.sum()
    spread = np.sqrt(weights @ (np.array(means) - expected) ** 2 / weights.sum())
    size = post.search["effective_size"]
    assert size > 100
    error = spread / np.sqrt(size)
    assert (np.abs(post.predict(NEW).mean[:, 0] - expected) < 4 * error + 1e-4).all()


@pytest.mark.slow
def test_variances_of_an_infinite_network_are_learned():
    prior = bn.kernels.NNGP(depth=1)
    fixed = bn.fit(prior, X, Y[:, 0], inference="exact")
    method = bn.Exact(learn_variances=True, restarts=0)
    learned = bn.fit(prior, X, Y[:, 0], inference=method, warn=False)
    assert learned.log_evidence > fixed.log_evidence + 1.0
    assert learned.prior.weight_std != prior.weight_std


@pytest.mark.parametrize("keep", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_conjugate_gradients_equal_the_factorisation(keep):
    rng = np.random.default_rng(2)
    x = rng.uniform(-3, 3, (250, 2))
    y = np.column_stack([np.sin(2 * x[:, 0]), x[:, 1]]) + 0.3 * rng.normal(size=(250, 2))
    y[5, 1] = np.nan
    process = bn.GaussianProcess("matern52", 0.8, out_dim=2, mean=0.3)
    method = bn.Exact(solver="cg", cg_tolerance=1e-10, max_gib=None if keep else 1e-4)
    assert method.keeps_matrix(250) == keep
    for prior in (process, bn.ScaleMixture(process, bn.InverseGamma(1.5, 2.0), per_output=True)):
        options = {"likelihood": bn.GaussianLikelihood(0.3), "missing": "mask"}
        cg = bn.fit(prior, x, y, inference=method, **options)
        full = bn.fit(prior, x, y, inference="exact", **options)
        a, b = cg.predict(NEW), full.predict(NEW)
        np.testing.assert_allclose(a.mean, b.mean, atol=1e-7)
        np.testing.assert_allclose(a.std, b.std, rtol=1e-7)
        np.testing.assert_allclose(cg.joint(NEW)[1], full.joint(NEW)[1], atol=1e-7)
        again = pickle.loads(pickle.dumps(cg)).predict(NEW)
        np.testing.assert_allclose(again.mean, a.mean, atol=1e-9)
    assert np.isnan(cg.diagnostics().log_evidence)
    with pytest.raises(bn.UnsupportedError, match="cholesky"):
        cg.loo()


def test_what_conjugate_gradients_cannot_do_says_so():
    method = bn.Exact(solver="cg")
    with pytest.raises(bn.UnsupportedError, match="learned as a point"):
        exact(likelihood=None, inference=bn.Exact(solver="cg", hyper="hmc"))
    with pytest.raises(bn.UnsupportedError, match="closed form"):
        exact(bn.ScaleMixture(GP, bn.Gamma()), inference=method)
    x = np.linspace(0, 1, 400)[:, None]
    prior = bn.GaussianProcess("matern12", 1.0, units="data")
    hard = {
        "likelihood": bn.GaussianLikelihood(1e-7),
        "inference": bn.Exact(solver="cg", cg_tolerance=1e-15),
    }
    with pytest.raises(bn.InputError, match="did not reach"):
        bn.fit(prior, x, np.sin(99 * x), **hard)


def wave(n):
    rng = np.random.default_rng(4)
    x = rng.uniform(-3, 3, (n, 1))
    return x, np.sin(2 * x[:, 0]) + 0.2 * rng.normal(size=n)


def test_many_rows_go_to_conjugate_gradients_by_themselves(monkeypatch):
    monkeypatch.setattr(exact_module, "CHOLESKY_ROWS", 200)
    x, y = wave(300)
    prior = bn.GaussianProcess("rbf", bn.LogNormal(0.0, 1.0))
    method = bn.Exact(restarts=0, learning_rows=120)
    post = bn.fit(prior, x, y, inference=method)
    assert post.iterative
    assert "learned on 120 random rows, conditioned on all 300" in str(post.diagnostics())
    # The same two steps by hand.
    noise = float(post.noise_std[0, 0] * post.scaling.y_scale[0])
    known = bn.GaussianLikelihood(noise)
    full = bn.fit(post.prior, x, y, likelihood=known, inference=bn.Exact(solver="cholesky"))
    assert not full.iterative
    new = np.linspace(-3, 3, 20)[:, None]
    a, b = post.predict(new), full.predict(new)
    np.testing.assert_allclose(a.mean, b.mean, atol=1e-6)
    np.testing.assert_allclose(a.std, b.std, rtol=1e-6)
    # And not far from what all rows teach.
    best = bn.fit(prior, x, y, inference=bn.Exact(restarts=0, solver="cholesky"))
    assert 0.15 < noise < 0.25
    np.testing.assert_allclose(post.prior.covariance.lengthscale, best.prior.covariance.lengthscale, rtol=0.3)  # fmt: skip
    np.testing.assert_allclose(a.mean, best.predict(new).mean, atol=0.05)
    assert not bn.fit(prior, x[:200], y[:200], inference=method).iterative


def test_what_has_no_closed_form_is_factorised_whatever_its_size(monkeypatch):
    monkeypatch.setattr(exact_module, "CHOLESKY_ROWS", 10)
    method = bn.Exact()
    assert method.iterative(GP, 11)
    assert method.iterative(bn.ScaleMixture(GP, bn.InverseGamma()), 11)
    assert not method.iterative(GP, 10)
    assert not method.iterative(bn.ScaleMixture(GP, bn.InverseGamma(), noise="outside"), 11)
    assert not replace(method, hyper="hmc").iterative(GP, 11)
    assert not bn.NTKEnsemble().iterative(bn.kernels.NTK(), 11)


def test_the_error_of_an_expansion_is_reported():
    coarse = bn.kernels.Activation("tanh", terms=32)
    layers = bn.kernels.Serial(bn.kernels.Dense(4.0), coarse, bn.kernels.Dense())
    with pytest.warns(bn.ConvergenceWarning, match="activations are expanded"):
        post = exact(bn.kernels.NNGP(layers))
    assert post.diagnostics().problems
    fine = bn.kernels.NNGP(depth=1, activation="silu")
    assert exact(fine).diagnostics().ok


def test_presets_bring_their_priors():
    wide = bn.fit(None, X, Y, inference="infinite_width", likelihood=KNOWN)
    assert wide.prior == bn.kernels.NNGP(out_dim=2)
    heavy = bn.fit(None, X, Y, inference="student_t", likelihood=KNOWN)
    assert heavy.prior.scale == bn.InverseGamma(2.0, 2.0)
    np.testing.assert_allclose(wide.predict(NEW).mean, heavy.predict(NEW).mean, atol=1e-9)
    with pytest.raises(bn.InputError, match="prior of its own"):
        bn.fit(GP, X, Y[:, 0], inference="student_t")
    assert bn.fit(None, X, Y[:, 0], inference=bn.Exact(restarts=0)).prior.out_dim == 1


def test_what_cannot_be_conditioned_says_what_fits():
    net = bn.NetworkPrior(bn.MLP((3,)), in_dim=2)
    with pytest.raises(bn.UnsupportedError, match="infinite_width"):
        exact(net)
    with pytest.raises(bn.UnsupportedError, match="Gaussian noise"):
        exact(likelihood="student_t")
    mixture = bn.ScaleMixture(bn.GaussianProcess("rbf", 1.0, bn.LogNormal(0.0, 1.0)), 1.0)
    with pytest.raises(bn.InputError, match="tell them apart"):
        exact(mixture)
    inside = bn.ScaleMixture(GP, bn.InverseGamma())
    with pytest.raises(bn.UnsupportedError, match="outside"):
        exact(inside, y_var=np.full(12, 0.1))
    with pytest.raises(bn.InputError, match="GiB"):
        exact(inference=bn.Exact(max_gib=1e-9))
    with pytest.raises(bn.InputError, match="out_dim=2"):
        exact(GP, Y)
    with pytest.raises(bn.InputError, match="Known: evidence"):
        bn.Exact(hyper="laplace")
    for bad in (
        {"learning_rows": 5},
        {"solver": "lu"},
        {"restarts": -1},
        {"tolerance": 0.0},
        {"draws": 1},
        {"max_gib": -1},
    ):
        with pytest.raises(bn.InputError):
            bn.Exact(**bad)

    class NotPositive:
        units, out_dim = "data", 1

        def kernel(self, a, b):
            return -np.asarray(kernel(a, b))

        def sample(self, key, x, num):
            raise AssertionError

    with pytest.raises(bn.InputError, match="smallest eigenvalue"):
        exact(NotPositive())


def test_duplicate_rows_without_noise_need_jitter_and_say_so():
    x, y = np.repeat(X[:6], 2, axis=0), np.repeat(Y[:6, 0], 2)
    post = bn.fit(GP, x, y, likelihood=bn.GaussianLikelihood(1e-9), inference="exact")
    assert np.isfinite(post.predict(x).mean).all()
    assert post.solutions[0].jitter > 0
    np.testing.assert_allclose(post.predict(x).mean[:, 0], y, atol=1e-3)


def test_methods_pickle_and_are_values():
    assert pickle.loads(pickle.dumps(bn.Exact(draws=9))) == bn.Exact(draws=9)


def test_the_evidence_in_units_of_y_integrates_to_one():
    """One row: the evidence as a density of y."""
    prior = bn.GaussianProcess("rbf", units="data")
    scaling = Scaling(np.zeros(1), np.ones(1), np.array([3.0]), np.array([2.0]))

    def density(y):
        post = bn.fit(prior, [[0.0]], [y], scaling=scaling, likelihood=KNOWN, inference="exact")
        return np.exp(post.log_evidence)

    grid = np.linspace(-13, 19, 41)
    total = integrate.simpson([density(v) for v in grid], x=grid)
    np.testing.assert_allclose(total, 1.0, rtol=1e-4)
