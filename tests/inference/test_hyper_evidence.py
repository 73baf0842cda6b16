"""The evidence under sampled hyper-parameters against closed forms and quadrature, and their chains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

import bayesnet as bn
from bayesnet.inference._exact_hmc import sample_hyper, split_rhat
from bayesnet.inference._hyper_evidence import hyper_evidence

SAVED = Path(__file__).parents[1] / "saved" / "0.1.0"
RNG = np.random.default_rng(0)
X = RNG.uniform(-2, 2, (12, 2))
Y = np.sin(2 * X[:, 0]) + 0.3 * RNG.normal(size=12)
LAW = bn.LogNormal(0.0, 1.5)
Z = np.linspace(-6.0, 6.0, 61)  # latents of the law
KNOWN = bn.GaussianLikelihood(0.3)


def fit(prior, **options):
    return bn.fit(prior, X, Y, **{"likelihood": KNOWN, "warn": False, **options})


def close(post, expected):
    assert 0.0 < post.log_evidence_error < 0.2
    assert post.log_evidence == pytest.approx(expected, abs=4 * post.log_evidence_error + 1e-3)


def over_lengthscales(log_density):
    terms = [log_density(float(np.exp(1.5 * z))) for z in Z] + stats.norm.logpdf(Z)
    return float(logsumexp(terms) + np.log(Z[1] - Z[0]))


@pytest.mark.parametrize("dim", [1, 4])
@pytest.mark.parametrize("apart", [0.0, 4.0])
def test_importance_sampling_against_closed_forms(dim, apart):
    """theta ~ N(0, I); the likelihood is a mixture of two normal densities of the datum m, `apart` apart."""
    modes = np.array([[0.5 * apart] + [0.3] * (dim - 1), [-0.5 * apart] + [0.3] * (dim - 1)])

    def log_likelihood(v):
        return logsumexp(stats.norm.logpdf(modes, v, 0.3).sum(axis=1)) - np.log(2.0)

    rng = np.random.default_rng(1)
    posterior = modes[rng.integers(2, size=64)] / 1.09 + np.sqrt(0.09 / 1.09) * rng.normal(
        size=(64, dim)
    )
    exact = logsumexp(stats.norm.logpdf(modes, 0.0, np.sqrt(1.09)).sum(axis=1)) - np.log(2.0)
    found = [
        hyper_evidence(
            log_likelihood,
            lambda v: float(stats.norm.logpdf(v).sum()),
            lambda rng, num: rng.normal(size=(num, dim)),
            posterior,
            seed,
        )
        for seed in range(8)
    ]
    errors = np.array([(f.value - exact) / f.error for f in found])
    assert np.abs(errors).max() < 4.0
    assert errors.std() > 0.2  # the standard error is not far too large
    assert max(f.error for f in found) < 0.2
    assert all(not f.problems for f in found)


@pytest.mark.parametrize("sampler", ["hmc", "nuts"])
def test_the_evidence_of_a_process_is_that_of_quadrature(sampler):
    method = bn.Exact(hyper=sampler, restarts=0, draws=24)
    gp = bn.GaussianProcess("rbf", lengthscale=LAW, outputscale=1.3, units="data")
    post = fit(gp, inference=method)

    def at(lengthscale):
        return float(bn.GaussianProcess("rbf", lengthscale, 1.3).log_evidence(X, Y, 0.3))

    close(post, over_lengthscales(at))
    report = str(post.diagnostics())
    assert f"log evidence {post.log_evidence:.3f} +- {post.log_evidence_error:.2f}" in report
    assert f"R-hat {post.search['rhat']:.2f}" in report
    assert f"effective size {post.search['effective_size']:.0f}" in report
    assert post.search["transitions"] >= 100


def test_noise_and_units_of_y_are_in_it(tmp_path):
    """Two things unknown, scaled coordinates, y in other units: against a grid in both."""
    y = 5.0 + 20.0 * Y
    noise = bn.LogNormal(np.log(6.0), 0.5)
    gp = bn.GaussianProcess("rbf", lengthscale=LAW)
    post = bn.fit(
        gp, X, y, likelihood=bn.GaussianLikelihood(noise), warn=False,
        inference=bn.Exact(hyper="hmc", restarts=0, draws=24),
    )  # fmt: skip
    xs, ys = (X - X.mean(0)) / X.std(0), (y - y.mean()) / y.std()
    square = np.sum((xs[:, None] - xs[None]) ** 2, axis=-1)
    z = np.linspace(-5, 5, 41)
    terms = []
    for a in z:
        values, vectors = np.linalg.eigh(np.exp(-0.5 * square / np.exp(1.5 * a) ** 2))
        rotated = vectors.T @ ys
        for b in z:
            total = values + (np.exp(np.log(6.0) + 0.5 * b) / y.std()) ** 2
            density = stats.norm.logpdf(rotated, 0.0, np.sqrt(total)).sum()
            terms.append(density + stats.norm.logpdf([a, b]).sum())
    expected = logsumexp(terms) + 2 * np.log(z[1] - z[0]) - 12 * np.log(y.std())
    close(post, expected)
    post.save(tmp_path / "post")
    again = bn.load(tmp_path / "post")
    assert again.log_evidence == post.log_evidence
    assert again.log_evidence_error == post.log_evidence_error


@pytest.mark.parametrize("noise", ["inside", pytest.param("outside", marks=pytest.mark.slow)])
def test_the_evidence_of_a_scale_mixture(noise):
    def mix(lengthscale):
        base = bn.GaussianProcess("rbf", lengthscale, units="data")
        return bn.ScaleMixture(base, bn.InverseGamma(2.0, 2.0), noise=noise)

    post = fit(mix(LAW), inference=bn.Exact(hyper="hmc", restarts=0, draws=16))
    close(post, over_lengthscales(lambda v: float(mix(v).log_evidence(X, Y, 0.3))))


@pytest.mark.slow
def test_the_evidence_of_classes_does_not_depend_on_their_coordinates():
    labels = np.where(Y > 0, "a", "b")
    gp = bn.GaussianProcess("rbf", lengthscale=LAW, outputscale=2.0, units="data")

    def laplace(prior, **options):
        method = bn.ProcessLaplace(restarts=0, **options)
        return bn.fit(prior, X, labels, likelihood="bernoulli", inference=method, warn=False)

    post = laplace(gp, hyper="hmc", draws=16)
    at = [
        laplace(bn.GaussianProcess("rbf", float(np.exp(1.5 * z)), 2.0, units="data")).log_evidence
        for z in Z[::3]
    ]
    expected = logsumexp(at + stats.norm.logpdf(Z[::3])) + np.log(Z[3] - Z[0])
    close(post, float(expected))
    assert f"Monte-Carlo error {post.log_evidence_error:.2f}" in str(post.diagnostics())


def test_none_is_given_where_there_is_none():
    # Variances that are learned without a law: an improper one.
    method = bn.Exact(hyper="hmc", learn_variances=True, restarts=0, draws=4)
    post = fit(bn.kernels.NNGP(depth=1, activation="erf"), inference=method)
    # A file of the version before, which kept draws and no evidence.
    old = bn.load(SAVED / "exact_hmc.bayesnet")
    for one in (post, old):
        with pytest.raises(bn.UnsupportedError, match="no log evidence"):
            _ = one.log_evidence
        assert np.isnan(one.log_evidence_error)
        assert np.isnan(one.diagnostics().log_evidence)
        assert "no log evidence" in str(one.diagnostics())
        assert "draws of hyper-parameters" in str(one.diagnostics())


def test_chains_that_disagree_are_reported():
    def two_modes(v):
        """Two narrow normals, 12 sds apart: no chain crosses over."""
        logs = -0.5 * (v[0] - np.array([-6.0, 6.0])) ** 2
        weight = np.exp(logs - logsumexp(logs))
        return float(logsumexp(logs)), np.array([weight @ (np.array([-6.0, 6.0]) - v[0])])

    # From the saddle between them chains fall to either side.
    for sampler in ("hmc", "nuts"):
        drawn = sample_hyper(two_modes, np.zeros(1), 16, 0, None, sampler)
        assert drawn.rhat > 2.0
        assert "R-hat" in drawn.problems[0]
        assert len(drawn.points) == 16
        # They went on until the bound.
        assert drawn.transitions == 4 * 4 * 25


def test_r_hat_is_that_of_halves_of_chains():
    rng = np.random.default_rng(0)
    good = rng.normal(size=(4, 1000))
    assert split_rhat(good) == pytest.approx(1.0, abs=0.01)
    assert split_rhat(good + np.arange(4)[:, None]) > 1.3
    assert split_rhat(good + np.linspace(0, 3, 1000)) > 1.2
    assert split_rhat(np.ones((4, 10))) == 1.0


def test_a_chain_holds_the_average_of_its_steps():
    """Acceptance near its target, on a density where the best step is known to exist."""

    def normal(v):
        return -0.5 * float(v @ v), -v

    rates = [sample_hyper(normal, np.zeros(3), 64, seed).acceptance for seed in range(5)]
    assert 0.65 < np.mean(rates) < 0.95
