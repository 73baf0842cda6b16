"""The evidence after conjugate gradients against the factorisation, within its own standard error."""

from __future__ import annotations

import numpy as np
import pytest

import bayesnet as bn
from bayesnet.priors import process_determinant
from bayesnet.priors.process_determinant import log_determinant
from bayesnet.priors.process_iterative import IterativeSystem


def table(n, outputs=1):
    rng = np.random.default_rng(3)
    x = rng.uniform(-3, 3, (n, 2))
    y = np.column_stack([np.sin(2 * x[:, 0]), x[:, 1]])[:, :outputs]
    return x, y + 0.3 * rng.normal(size=y.shape)


def matern(a, b, length=0.8):
    d = np.sqrt(5.0 * np.maximum(((a[:, None] - b[None]) ** 2).sum(-1), 0.0)) / length
    return (1.0 + d + d * d / 3.0) * np.exp(-d)


def system(n, keep=True):
    x, _ = table(n)
    noise = np.linspace(0.05, 0.2, n)
    return IterativeSystem(matern, x, np.ones(n), noise, 1e-8, keep), matern(x, x) + np.diag(noise)


@pytest.mark.slow
def test_log_determinants_are_unbiased_with_honest_errors():
    """64 estimates of 8 probes each: their mean, and the spread of their errors in own units."""
    own, matrix = system(500)
    exact = np.linalg.slogdet(matrix)[1]
    values, errors = np.array([log_determinant(own, 8, seed) for seed in range(64)]).T
    assert abs(values.mean() - exact) < 4.0 * values.std(ddof=1) / 8.0
    # The standard error of 8 normal values is chi with 7 degrees of freedom: the mean square is
    # unbiased, with a relative deviation of sqrt(2 / 7 / 64) = 0.07.
    assert 0.6 < np.mean(errors**2) / values.var(ddof=1) < 1.6
    assert values.std() < 0.02 * abs(exact)
    assert log_determinant(own, 8, 3) == log_determinant(own, 8, 3)


def test_a_preconditioner_that_is_the_matrix_leaves_no_error():
    x, _ = table(60)
    own = IterativeSystem(matern, x, np.ones(60), np.full(60, 0.1), 1e-8, True)
    value, error = log_determinant(own, 4)
    np.testing.assert_allclose(
        value, np.linalg.slogdet(matern(x, x) + 0.1 * np.eye(60))[1], rtol=1e-8
    )
    assert error < 1e-6


@pytest.mark.parametrize("mixture", [False, True])
def test_the_evidence_is_that_of_the_factorisation(mixture):
    """700 rows, a missing target (two blocks), in the units of y: within 4 of its standard errors, which
    are below 3 nats."""
    x, y = table(700, outputs=2)
    y[5, 1] = np.nan
    prior = bn.GaussianProcess("matern52", 0.5, out_dim=2, mean=0.3)
    if mixture:
        prior = bn.ScaleMixture(prior, bn.InverseGamma(1.5, 2.0))
    options = {"likelihood": bn.GaussianLikelihood(0.3), "missing": "mask", "warn": False}
    cg = bn.fit(prior, x, y, inference=bn.Exact(solver="cg", cg_tolerance=1e-10), **options)
    full = bn.fit(prior, x, y, inference=bn.Exact(solver="cholesky"), **options)
    assert full.log_evidence_error == 0.0
    assert 0.0 < cg.log_evidence_error < 3.0
    assert abs(cg.log_evidence - full.log_evidence) < 4.0 * cg.log_evidence_error
    report = cg.diagnostics()
    assert report.log_evidence == cg.log_evidence
    assert f"+- {cg.log_evidence_error:.2f}" in str(report)


def test_few_probes_and_hopeless_tables_are_refused(monkeypatch):
    with pytest.raises(bn.InputError, match="probes"):
        bn.Exact(probes=1)
    own, _ = system(300)
    monkeypatch.setattr(process_determinant, "ITERATIONS", 3)
    with pytest.raises(bn.InputError, match="did not converge"):
        log_determinant(own, 4)
