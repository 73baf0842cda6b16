"""Laplace's approximation of latent processes against dense algebra, scikit-learn and weighted draws."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.special import expit, log_softmax
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

import bayesnet as bn
from bayesnet.data import Scaling, make_data
from bayesnet.inference._exact_table import NoiseLaw, Table
from bayesnet.inference.process_laplace import LaplaceProblem
from bayesnet.posterior.laplace_process import scale_modes
from bayesnet.posterior.laplace_solution import Labels, LaplaceMode, laplace_mode
from bayesnet.posterior.latent_process import Marginals, rule
from bayesnet.priors.kernel_model import KernelModel
from bayesnet.priors.variance_laws import as_variance_law, log_density_of

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 2))
TWO = np.where(np.sin(2 * X[:, 0]) + X[:, 1] + 0.3 * RNG.normal(size=40) > 0, "b", "a")
THREE = np.digitize(X[:, 0] + X[:, 1], [-0.5, 0.5])
NEW = 1.5 * RNG.normal(size=(15, 2))
PROCESS = bn.GaussianProcess("rbf", 0.8, 2.0, units="data")


def fit(prior=PROCESS, y=TWO, method=None, **options):
    method = bn.ProcessLaplace(restarts=0) if method is None else method
    likelihood = "bernoulli" if len(np.unique(y)) == 2 else "categorical"
    return bn.fit(prior, X[: len(y)], y, inference=method, **{"likelihood": likelihood, **options})


def small(outputs, n=6):
    x = RNG.normal(size=(n, 2))
    matrix = 2 * np.exp(-0.5 * ((x[:, None] - x[None]) ** 2).sum(-1))
    codes = RNG.integers(0, max(outputs, 2), n)
    return (
        Labels(codes, RNG.uniform(0.5, 2, n), outputs),
        matrix,
        0.3 * RNG.normal(size=(n, outputs)),
    )


@pytest.mark.parametrize("outputs", [1, 3])
def test_mode_evidence_and_covariances_are_those_of_dense_algebra(outputs):
    labels, matrix, mean = small(outputs)
    n = len(matrix)
    mode = laplace_mode(labels, matrix, mean)
    np.testing.assert_allclose(mode.f, mean + matrix @ mode.alpha, atol=1e-8)  # stationary
    big, hessian = np.kron(np.eye(outputs), matrix), np.zeros((outputs * n, outputs * n))
    p = labels.probabilities(mode.f)
    for i in range(n):
        at = np.arange(outputs) * n + i
        own = p[i] * (1 - p[i]) if outputs == 1 else np.diag(p[i]) - np.outer(p[i], p[i])
        hessian[np.ix_(at, at)] = labels.weight[i] * own
    log_det = np.linalg.slogdet(np.eye(outputs * n) + big @ hessian)[1]
    fit_term = labels.log_prob(mode.f) - 0.5 * np.sum(mode.alpha * (mode.f - mean))
    np.testing.assert_allclose(mode.log_evidence, fit_term - 0.5 * log_det, rtol=1e-10)
    covariance = np.linalg.inv(np.linalg.inv(big) + hessian).reshape(outputs, n, outputs, n)
    found = mode.factors.marginal(matrix, np.diag(matrix))
    for i in range(n):
        np.testing.assert_allclose(found[i], covariance[:, i, :, i], atol=1e-10)
    root = labels.hessian_root(mode.f, np.eye(n * outputs).reshape(-1, n, outputs))
    root = np.swapaxes(root, 1, 2).reshape(n * outputs, -1)
    np.testing.assert_allclose(root.T @ root, hessian, atol=1e-10)


@pytest.mark.parametrize("outputs", [1, 3])
def test_gradients_of_the_evidence(outputs):
    labels, matrix, mean = small(outputs)
    by_matrix, by_mean = laplace_mode(labels, matrix, mean).evidence_gradient()
    step, h = RNG.normal(size=matrix.shape), 1e-4
    step = step + step.T
    ends = [laplace_mode(labels, matrix + e * h * step, mean).log_evidence for e in (1, -1)]
    np.testing.assert_allclose(np.sum(by_matrix * step), (ends[0] - ends[1]) / 2 / h, rtol=1e-6)
    step = RNG.normal(size=mean.shape)
    ends = [laplace_mode(labels, matrix, mean + e * h * step).log_evidence for e in (1, -1)]
    np.testing.assert_allclose(np.sum(by_mean * step), (ends[0] - ends[1]) / 2 / h, rtol=1e-6)


@pytest.mark.parametrize("mixture", [False, True])
def test_gradient_in_hyperparameters(mixture):
    base = bn.GaussianProcess("rbf", bn.LogNormal(0.0, 1.0), 1.0, mean=0.4)
    prior = bn.ScaleMixture(base, bn.InverseGamma(2.0, 2.0)) if mixture else base
    codes, outputs = ((TWO[:10] == "b").astype(int), 1) if mixture else (THREE[:10], 3)
    table = Table(X[:10], codes[:, None].astype(float), None, None)
    labels = Labels(codes, np.ones(10), outputs)
    method = bn.ProcessLaplace()
    problem = LaplaceProblem(
        prior, KernelModel(base), NoiseLaw(None, None, outputs), table, method, labels
    )
    at = np.array([0.2])
    value, slope = problem.log_evidence(at)
    ends = [problem.log_evidence(at + h)[0] for h in (1e-4, -1e-4)]
    np.testing.assert_allclose(slope[0], (ends[0] - ends[1]) / 2e-4, rtol=2e-3 if mixture else 1e-5)
    assert np.isfinite(value)


def test_two_classes_are_those_of_scikit_learn():
    other = GaussianProcessClassifier(ConstantKernel(2.0) * RBF(0.8), optimizer=None).fit(X, TWO)
    post = fit()
    np.testing.assert_allclose(post.log_evidence, other.log_marginal_likelihood_value_, rtol=1e-9)
    # It integrates over the latent by an approximation of its own.
    np.testing.assert_allclose(post.predict(NEW).mean, other.predict_proba(NEW), atol=5e-4)
    learned = GaussianProcessClassifier(ConstantKernel(2.0) * RBF(0.8)).fit(X, TWO)
    law = bn.LogNormal(0.0, 1.0)
    prior = bn.GaussianProcess("rbf", law, law, units="data")
    mine = fit(prior, method=bn.ProcessLaplace(hyper="evidence", restarts=0))
    best = learned.log_marginal_likelihood_value_
    np.testing.assert_allclose(mine.log_evidence, best, atol=1e-4)
    scale = learned.kernel_.k2.length_scale
    np.testing.assert_allclose(mine.prior.covariance.lengthscale, scale, rtol=1e-2)


def exact_probabilities(post, new, num=40_000):
    """Class probabilities at `new`, and the log evidence, by draws of the approximation, widened and
    weighted by the true density; and how many draws they are worth."""
    labels, rng = post.labels, np.random.default_rng(1)
    n, k = len(post.x), labels.outputs
    model, nodes = post._solved[0]
    none = np.zeros(0)
    both = np.concatenate([post.x, new])
    full = model.matrix(none, both, both)
    mode = nodes.modes[0]
    big = np.kron(np.eye(k), mode.matrix)
    hessian = np.zeros((k * n, k * n))
    for i in range(n):
        at = np.arange(k) * n + i
        unit = np.zeros((k, n, k))
        unit[np.arange(k), i, np.arange(k)] = 1.0
        hessian[np.ix_(at, at)] = labels.hessian_times(mode.f, unit)[:, i]
    wide = 1.3 * np.linalg.inv(np.linalg.inv(big) + hessian)
    factor = np.linalg.cholesky(wide)
    z = rng.standard_normal((num, k * n))
    flat = mode.f.T.ravel() + z @ factor.T
    f = np.swapaxes(flat.reshape(num, k, n), 1, 2)
    root = np.linalg.cholesky(big)
    white = np.linalg.solve(root, flat.T)
    log_p = -0.5 * np.sum(white**2, axis=0) - np.log(np.diag(root)).sum()
    if k == 1:
        sign = np.where(labels.codes > 0, 1, -1)
        log_p += -np.logaddexp(0, -sign * f[:, :, 0]).sum(1)
    else:
        log_p += log_softmax(f, axis=2)[:, np.arange(n), labels.codes].sum(1)
    log_q = -0.5 * np.sum(z**2, axis=1) - np.log(np.diag(factor)).sum()
    w = np.exp(log_p - log_q - (log_p - log_q).max())
    evidence = np.log(w.mean()) + (log_p - log_q).max()
    gain = np.linalg.solve(mode.matrix, full[:n, n:]).T
    left = np.sqrt(np.maximum(np.diag(full[n:, n:]) - np.sum(gain * full[n:, :n], 1), 0))
    f_new = np.einsum("ij,sjk->sik", gain, f)
    f_new = f_new + left[:, None] * rng.standard_normal(f_new.shape)
    p = expit(f_new[:, :, 0]) if k == 1 else np.exp(log_softmax(f_new, axis=2))
    size = w.sum() ** 2 / (w**2).sum()
    return np.tensordot(w / w.sum(), p, axes=1), evidence, size


@pytest.mark.parametrize("y", [TWO[:12], THREE[:12]], ids=["two", "three"])
def test_it_is_near_the_exact_posterior_of_a_small_table(y):
    post = fit(y=y)
    p, evidence, size = exact_probabilities(post, NEW)
    assert size > 3000
    found = post.predict(NEW, points=1024).mean
    found = found[:, 1] if len(found[0]) == 2 else found
    # The approximation itself is off by a few hundredths; a wrong mode or covariance by tenths.
    np.testing.assert_allclose(found, p, atol=0.06)
    np.testing.assert_allclose(post.log_evidence, evidence, atol=0.3)


@pytest.mark.parametrize("y", [TWO, THREE], ids=["two", "three"])
def test_joint_draws_have_the_moments_of_the_marginals(y):
    post = fit(y=y)
    law = post._marginals(NEW)
    draws = post.functions(NEW, 8000, seed=2)
    sd = np.linalg.norm(law.root[0], axis=-1)
    assert np.all(np.abs(draws.mean(0) - law.mean[0]) < 4.5 * sd / np.sqrt(8000))
    np.testing.assert_allclose(draws.std(0), sd, rtol=0.05)
    pred = post.predict(NEW, points=1024)
    probabilities = pred.sample(3, 8000, noise=False).mean(0)
    np.testing.assert_allclose(probabilities, pred.mean, atol=0.02)
    labels = pred.sample(3, 4000)
    share = (labels[:, :, None] == pred.classes).mean(0)
    np.testing.assert_allclose(share, pred.mean, atol=4.5 * 0.5 / np.sqrt(4000))
    # Neighbours agree more often than two independent draws would.
    near = post.predict(np.stack([NEW[0], NEW[0] + 0.01]))
    together = near.sample(0, 2000, noise=False)[:, :, 0]
    assert np.corrcoef(together.T)[0, 1] > 0.95


def test_the_rule_for_class_probabilities_integrates():
    mean = RNG.normal(size=(2, 3, 2))
    root = RNG.normal(size=(2, 3, 2, 2))
    law = Marginals(np.log([0.3, 0.7]), mean, root)
    f = rule(law, 4096)
    expected = 0.3 * mean[0] + 0.7 * mean[1]
    np.testing.assert_allclose(f.mean(0), expected, atol=0.01)
    second = np.einsum("jkab,jkcb->jkac", root, root) + mean[..., :, None] * mean[..., None, :]
    found = np.einsum("ska,skb->kab", f, f) / 4096
    np.testing.assert_allclose(found, 0.3 * second[0] + 0.7 * second[1], atol=0.1)


def test_mixtures_over_scales():
    known = fit(bn.ScaleMixture(bn.GaussianProcess("rbf", 0.8, 1.0, units="data"), 2.0))
    np.testing.assert_allclose(known.log_evidence, fit().log_evidence, rtol=1e-8)
    np.testing.assert_allclose(known.predict(NEW).mean, fit().predict(NEW).mean, atol=1e-7)
    law = bn.InverseGamma(2.0, 2.0)
    post = fit(bn.ScaleMixture(PROCESS, law), TWO[:20])
    # By brute force on a fine grid of log s.
    grid = np.linspace(-6, 14, 51)
    labels, matrix = post.labels, post._solved[0][0].matrix(np.zeros(0), X[:20], X[:20])
    zero = np.zeros((20, 1))
    values = [laplace_mode(labels, np.exp(u) * matrix, zero).log_evidence for u in grid]
    total = np.logaddexp.reduce(np.array(values) + law.log_density(grid)) + np.log(0.4)
    np.testing.assert_allclose(post.log_evidence, total, atol=1e-3)
    assert post.diagnostics().ok
    assert "integral over the scale" in str(post.diagnostics())
    draws = post.functions(NEW, 4000)
    law = post._marginals(NEW)
    mean = np.einsum("j,jkl->kl", np.exp(law.log_weight), law.mean)
    assert np.all(np.abs(draws.mean(0) - mean) < 4.5 * draws.std(0) / np.sqrt(4000))


def test_weights_count_rows_and_one_kernel_serves_all_classes():
    weight = RNG.integers(0, 3, 40)
    weighted = fit(y=THREE, sample_weight=weight, scaling=Scaling.identity(2, 1))
    rows = np.repeat(np.arange(40), weight)
    method = bn.ProcessLaplace()
    data = make_data(X[rows], THREE[rows, None].astype(float), None, Scaling.identity(2, 1))
    again = method.fit(PROCESS, weighted.likelihood, data, key=jax.random.key(0))
    np.testing.assert_allclose(weighted.log_evidence, again.log_evidence, rtol=1e-4)
    np.testing.assert_allclose(weighted.predict(NEW).mean, again.predict(NEW).mean, atol=1e-4)
    three = bn.GaussianProcess("rbf", 0.8, 2.0, units="data", out_dim=3)
    np.testing.assert_allclose(fit(three, THREE).predict(NEW).mean, fit(y=THREE).predict(NEW).mean)
    wide = fit(bn.kernels.NNGP(depth=1, activation="erf"), THREE)
    assert wide.predict(NEW).mean.shape == (15, 3)


def test_it_is_saved_copied_and_learns_hyperparameters(tmp_path):
    prior = bn.GaussianProcess("rbf", bn.LogNormal(0.0, 1.0), 2.0)
    post = fit(prior)
    other = bn.GaussianProcess("rbf", 1.5, 2.0)
    post = replace(post, priors=(post.prior, other))  # as hyper="hmc" leaves it
    one, two = fit(post.prior), fit(other)
    with pytest.raises(bn.UnsupportedError, match="no log evidence"):
        _ = post.log_evidence  # draws do not tell it
    assert "no log evidence" in str(post.diagnostics())
    half = 0.5 * (one.predict(NEW, points=1024).mean + two.predict(NEW, points=1024).mean)
    np.testing.assert_allclose(post.predict(NEW, points=1024).mean, half, atol=0.01)
    post.save(tmp_path / "post")
    for again in (
        bn.load(tmp_path / "post"),
        pickle.loads(pickle.dumps(post)),
        copy.deepcopy(post),
    ):
        np.testing.assert_array_equal(again.predict(NEW).mean, post.predict(NEW).mean)
    np.testing.assert_array_equal(post.predict(NEW).sample(1, 5), post.predict(NEW).sample(1, 5))


@pytest.mark.slow
def test_hyperparameters_are_sampled():
    prior = bn.GaussianProcess("rbf", bn.LogNormal(0.0, 1.0), 2.0)
    post = fit(prior, method=bn.ProcessLaplace(hyper="hmc", restarts=0, draws=8))
    scales = [p.covariance.lengthscale for p in post.priors]
    assert len(scales) == 8
    assert np.std(scales) > 0.01
    np.testing.assert_allclose(post.predict(NEW).mean.sum(1), 1.0)


def test_bad_input_is_named():
    with pytest.raises(bn.UnsupportedError, match="infinite_width"):
        fit(bn.NetworkPrior(bn.MLP((3,)), in_dim=2))
    with pytest.raises(bn.UnsupportedError, match="exact"):
        bn.fit(PROCESS, X, X[:, 0], inference="process_laplace")
    with pytest.raises(bn.UnsupportedError, match="ProcessLaplace"):
        fit(method=bn.Exact())
    with pytest.raises(bn.UnsupportedError, match="label noise"):
        fit(y=THREE, likelihood=bn.CategoricalLikelihood(label_noise=0.1))
    with pytest.raises(bn.InputError, match="2 outputs"):
        fit(bn.GaussianProcess("rbf", out_dim=2), THREE)
    with pytest.raises(bn.InputError, match="amplitude"):
        fit(bn.ScaleMixture(bn.GaussianProcess("rbf", 1.0, bn.LogNormal(0.0, 1.0)), 1.0))
    with pytest.raises(bn.InputError, match="GiB"):
        fit(method=bn.ProcessLaplace(max_gib=1e-6))
    with pytest.raises(bn.InputError, match="hyper"):
        bn.ProcessLaplace(hyper="mean")
    with pytest.raises(bn.InputError, match="restarts"):
        bn.ProcessLaplace(restarts=-1)
    with pytest.raises(bn.InputError, match="prior or the target"):
        fit(target=PROCESS)
    with pytest.raises(bn.InputError, match="columns"):
        fit().predict(X[:, :1])
    with pytest.raises(bn.UnsupportedError, match="y_var"):
        fit().predict(X, y_var=np.ones((40, 1)))
    with pytest.raises(bn.InputError, match="chains"):
        bn.ProcessLaplace().fit(PROCESS, None, None, key=None, init=1)


def test_a_law_that_is_too_wide_for_its_labels_says_so():
    """With a large amplitude the Gaussian around the mode is unsure of the table's own labels."""
    wide = fit(bn.ScaleMixture(PROCESS, 300.0), THREE, warn=False)
    assert wide.shortfall > 0.25
    assert any("too unsure" in problem for problem in wide.diagnostics().problems)
    own = wide.predict(X).log_prob(THREE)
    at_mode = log_softmax(wide.solutions[0].modes[0].f, axis=1)[np.arange(len(X)), THREE]
    np.testing.assert_allclose(wide.shortfall, np.mean(at_mode - own.ravel()), rtol=1e-6)
    narrow = fit(y=THREE)
    assert 0 < narrow.shortfall < 0.25
    assert narrow.diagnostics().ok


def test_modes_begin_where_the_law_of_the_scale_does():
    law = as_variance_law(dist.Pareto(1.0, 1.2))

    def at(u):
        mode = object.__new__(LaplaceMode)
        object.__setattr__(mode, "log_evidence", -0.5 * u)
        return mode

    nodes = scale_modes(at, lambda u: log_density_of(law, u))
    # Half of what a grid was off that began within a step of the end.
    assert nodes.log_evidence == pytest.approx(np.log(1.2 / 1.7), abs=5e-3)
