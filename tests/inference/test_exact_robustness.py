"""What a random scale does not do: outlying rows move a Student-t process as they move a Gaussian one."""

from __future__ import annotations

import numpy as np
import pytest

import bayesnet as bn


@pytest.mark.slow
def test_robustness_is_the_likelihoods_not_the_scales():
    rng = np.random.default_rng(0)
    x = np.linspace(-2, 2, 25)[:, None]
    clean = np.sin(2 * x[:, 0]) + 0.1 * rng.normal(size=25)
    y = clean.copy()
    y[[6, 18]] += [6.0, -6.0]
    grid = np.linspace(-2, 2, 41)[:, None]
    truth = np.sin(2 * grid[:, 0])

    def error(prior, targets=y, **options):
        pred = bn.fit(prior, x, targets, warn=False, **options).predict(grid)
        return float(np.sqrt(np.mean((pred.mean[:, 0] - truth) ** 2)))

    process = bn.GaussianProcess("rbf", 0.6, units="data")
    known = {"likelihood": bn.GaussianLikelihood(0.1), "inference": "exact"}
    mixture = bn.ScaleMixture(process, bn.InverseGamma(1.0, 1.0))
    # The same mean, with outliers and without.
    assert error(mixture, **known) == pytest.approx(error(process, **known), rel=1e-6)
    assert error(mixture, **known) > 5 * error(mixture, clean, **known)

    network = bn.NetworkPrior(bn.MLP((30,)), units="data")
    match = bn.match_prior(network, process, inputs=np.linspace(-2.2, 2.2, 60)[:, None], steps=200)
    sampler = {"inference": bn.HMC(chains=2, warmup=400, draws=300)}
    gaussian = error(match.prior, likelihood=bn.GaussianLikelihood(0.1), **sampler)
    heavy = error(match.prior, likelihood=bn.StudentTLikelihood(df=3.0, scale=0.1), **sampler)
    print(error(process, **known), error(mixture, clean, **known), gaussian, heavy)
    assert heavy < 0.5 * gaussian
    assert heavy < 0.5 * error(mixture, **known)
