"""Optuna's own tests of samplers, on ours."""

import warnings

import optuna
import pytest
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)

import bayesnet as bn
from bayesnet.bo import BayesNetSampler
from bayesnet.bo.random_sampler import NumberedRandomSampler

from .conftest import TINY


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


class TestExact(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self):
        # Nothing to search in the hyper-parameters: these tests are about the sampler.
        return lambda: BayesNetSampler(
            "exact",
            prior=bn.GaussianProcess("matern52", 1.0),
            likelihood=bn.GaussianLikelihood(0.1),
            n_startup_trials=2,
            seed=0,
            num_restarts=1,
            raw_samples=8,
        )


@pytest.mark.slow
class TestHMC(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return lambda: BayesNetSampler(TINY, n_startup_trials=5, seed=0, raw_samples=16)


class TestRandom(BasicSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return lambda: NumberedRandomSampler(seed=0)
