"""`ProcessPosterior`: saved and copied without change, scored as any other posterior."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest

import bayesnet as bn
from bayesnet.diagnostics.convergence import convergence_report
from bayesnet.diagnostics.scores import crps, score

RNG = np.random.default_rng(0)
X = RNG.normal(3.0, 2.0, (14, 2))
Y = np.column_stack([50 + 9 * np.sin(X[:, 0]), X[:, 1]])
NEW = X[:4] + 0.3
TWO = bn.GaussianProcess("matern52", 1.0, mean=bn.LinearMean(0.5), out_dim=2)
FAST = bn.Exact(restarts=0)
PRIORS = {
    "process": TWO,
    "random": bn.GaussianProcess("rbf", bn.LogNormal([0.0, 0.0], 1.0), out_dim=2)
    + bn.GaussianProcess("linear", 3.0, columns=[0], out_dim=2),
    "infinite": bn.kernels.NNGP(depth=1, out_dim=2),
    "student": bn.ScaleMixture(TWO, bn.InverseGamma(1.2, 2.0), per_output=True),
    "mixture": bn.ScaleMixture(TWO, bn.OnStd(bn.HalfCauchy(1.0)), noise="outside"),
}


@pytest.fixture(params=PRIORS)
def post(request):
    likelihood = None if request.param == "random" else bn.GaussianLikelihood(0.5)
    return bn.fit(PRIORS[request.param], X, Y, likelihood=likelihood, inference=FAST)


def test_a_posterior_survives_files_pickles_and_copies(post, tmp_path):
    post.save(tmp_path / "post")
    expected = post.predict(NEW)
    for again in (
        bn.load(tmp_path / "post"),
        pickle.loads(pickle.dumps(post)),
        copy.deepcopy(post),
    ):
        pred = again.predict(NEW)
        np.testing.assert_array_equal(pred.mean, expected.mean)
        np.testing.assert_array_equal(pred.std, expected.std)
        np.testing.assert_array_equal(pred.sample(0, 3), expected.sample(0, 3))
        assert again.log_evidence == post.log_evidence
        assert again.method == post.method
        assert str(again.diagnostics()) == str(post.diagnostics())


def test_improvement_is_the_integral_of_the_upper_tail(post):
    pred = post.predict(NEW[:1])
    best = pred.mean + 0.3 * (pred.quantile(0.7) - pred.mean)
    np.testing.assert_allclose(pred.probability_of_improvement(best), 1 - pred.cdf(best))
    # E max(y - best, 0) = int of P(y > u) over u > best; u = best + sd t / (1 - t) reaches infinity.
    sd = pred.quantile(0.84) - pred.quantile(0.5)
    t, w = np.polynomial.legendre.leggauss(200)
    t, w = 0.5 * (t + 1), 0.5 * w
    total = sum(
        sd * wi / (1 - ti) ** 2 * (1 - pred.cdf(best + sd * ti / (1 - ti)))
        for ti, wi in zip(t, w, strict=True)
    )
    np.testing.assert_allclose(pred.expected_improvement(best), total, rtol=3e-3)


def test_predictions_are_laws(post):
    pred = post.predict(NEW)
    assert isinstance(pred, bn.Prediction)
    low, high = pred.interval(0.8)
    np.testing.assert_allclose(pred.cdf(high) - pred.cdf(low), 0.8, atol=1e-9)
    numeric = (pred.cdf(low + 1e-4) - pred.cdf(low - 1e-4)) / 2e-4
    np.testing.assert_allclose(np.exp(pred.log_prob(low)), numeric, rtol=1e-4)
    draws = pred.sample(0, 20_000)
    inside = ((draws > low) & (draws < high)).mean(axis=0)
    np.testing.assert_allclose(inside, 0.8, atol=0.015)
    assert post.functions(NEW, 3).shape == (3, 4, 2)
    np.testing.assert_array_equal(post.functions(NEW, 3), post.functions(NEW, 3))
    np.testing.assert_allclose(
        np.hypot(pred.epistemic_std, pred.aleatoric_std), pred.std, rtol=1e-12
    )
    table = score(pred, Y[:4])
    assert np.isfinite(list(table.values())).all()


def test_one_row_jointly_is_that_row(post):
    pred = post.predict(NEW[:1])
    if pred.shared and len(pred.log_weight) > 1:
        assert pred.joint_log_prob(Y[:1]) != pytest.approx(pred.log_prob(Y[:1]).sum(), abs=1e-12)
    else:
        np.testing.assert_allclose(pred.joint_log_prob(Y[:1]), pred.log_prob(Y[:1]).sum())


def test_the_crps_of_a_gaussian_is_exact():
    from scipy import stats

    post = bn.fit(TWO, X, Y, likelihood=bn.GaussianLikelihood(0.5), inference="exact")
    pred = post.predict(NEW)
    z = (Y[:4] - pred.mean) / pred.std
    # Gneiting & Raftery 2007, eq. 21.
    expected = z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi)
    np.testing.assert_allclose(crps(pred, Y[:4], fair=False), pred.std * expected, rtol=1e-9)


def test_the_report_is_the_posteriors_own():
    post = bn.fit(PRIORS["student"], X, Y, inference=FAST)
    report = convergence_report(post)
    assert report.ok
    assert report == post.diagnostics()
    assert "closed form" in str(report)


def test_priors_are_compared_by_leave_one_out_in_closed_form():
    from bayesnet.diagnostics.loo import loo

    post = bn.fit(TWO, X, Y, likelihood=bn.GaussianLikelihood(0.5), inference="exact")
    result = loo(post)
    np.testing.assert_array_equal(result.rows, post.loo().rows)
    assert result.ok
    assert "0 of 14" in str(result)


def test_bad_input_is_refused():
    post = bn.fit(TWO, X, Y, likelihood=bn.GaussianLikelihood(0.5), inference="exact")
    with pytest.raises(bn.InputError, match="features"):
        post.predict(NEW[:, :1])
    with pytest.raises(bn.InputError, match="y_var"):
        post.predict(NEW, y_var=np.ones((3, 2)))
    with pytest.raises(bn.InputError, match="quantile"):
        post.predict(NEW).quantile(1.0)
    with pytest.raises(bn.InputError, match="shape"):
        post.predict(NEW).log_prob(np.zeros((2, 2)))


def test_members_by_one_program_equal_those_one_by_one() -> None:
    rng = np.random.default_rng(0)
    X, new = rng.normal(size=(23, 2)), rng.normal(size=(9, 2))
    y = np.sin(X.sum(1))
    prior = bn.GaussianProcess("matern52", bn.LogNormal([0.0, 0.0], 0.5))
    method = bn.Exact(hyper="hmc", draws=6)
    post = bn.fit(prior, X, y, inference=method, warn=False, progress=False)
    together = post.predict(new)
    assert post._members is not None
    post.__dict__["_members"] = None
    apart = post.predict(new)
    np.testing.assert_allclose(together.mean, apart.mean, atol=1e-10)
    np.testing.assert_allclose(together.epistemic_std, apart.epistemic_std, atol=1e-8)
    # A member that is there twice counts twice, and is computed once.
    doubled = dataclasses.replace(
        post,
        priors=(post.priors[0], post.priors[0], post.priors[1]),
        noise_std=post.noise_std[[0, 0, 1]],
    )
    single = [
        dataclasses.replace(post, priors=(post.priors[i],), noise_std=post.noise_std[[i]])
        for i in (0, 1)
    ]
    means = [p.predict(new).mean for p in single]
    expected = (2 * means[0] + means[1]) / 3
    np.testing.assert_allclose(doubled.predict(new).mean, expected, atol=1e-10)
    assert doubled.predict(new).location.shape[0] == 2
    covariance = doubled.joint(new[:3])[1]
    assert np.allclose(covariance, np.swapaxes(covariance, 1, 2))
