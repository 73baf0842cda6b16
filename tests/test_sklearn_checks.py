"""Every check that scikit-learn has for estimators, on all four of ours.

The fast suite runs them on a process in closed form and on untrained weights, which compile little for
each new shape; the slow one on networks and on the shipped weights.
"""

import re

import jax
import pytest

pytest.importorskip("sklearn")

from sklearn.utils.estimator_checks import parametrize_with_checks

import bayesnet as bn
from bayesnet.pfn import ClassPFN
from bayesnet.pfn.class_network import ClassTransformer
from tests.pfn.small import random_pfn

pytestmark = pytest.mark.filterwarnings("ignore")


def process(in_dim: int, out_dim: int) -> bn.GaussianProcess:
    return bn.GaussianProcess("rbf", 1.0, out_dim=out_dim)


HMC = bn.HMC(chains=2, warmup=50, draws=50, max_steps=16)


def unmatched(in_dim: int, out_dim: int) -> bn.NetworkPrior:
    """A prior that needs no matching: quick, and of any dimension."""
    return bn.NetworkPrior(bn.MLP((20,)), in_dim=in_dim, out_dim=out_dim)


def untrained_classes() -> ClassPFN:
    network = ClassTransformer.create(
        jax.random.key(0), max_dim=10, max_classes=4, width=8, depth=1, heads=2, hidden=8
    )
    return ClassPFN(network, {"name": "untrained", "buckets": (20,), "dims": (1,), "steps": 0})


WEIGHTS = "check_sample_weight_equivalence_on_dense_data"
# Of each estimator the checks that it cannot pass, with the reason; tests/test_estimators.py has what holds instead.
IN_CLOSED_FORM = {
    "BNNClassifier": {
        WEIGHTS: "three latents of equal variance: the axes of the quasi-random rule that integrates over them "
        "are arbitrary, and probabilities agree to its error of 1e-3 and not to 1e-7"
    },
    "PFNRegressor": {"check_regressors_train": "untrained weights do not predict"},
    "PFNClassifier": {"check_classifiers_train": "untrained weights do not predict"},
}
AS_USED = {
    "BNNRegressor": {WEIGHTS: "the posterior is the same, the random draws from it are not"},
    "BNNClassifier": {WEIGHTS: "the posterior is the same, the random draws from it are not"},
}


def checks(estimators, failures):
    """Scikit-learn's decorator, with names of tests that are the same in every process: functions print
    their address."""
    mark = parametrize_with_checks(
        estimators,
        expected_failed_checks=lambda estimator: failures.get(type(estimator).__name__, {}),
        xfail_strict=True,
    )
    named = mark.kwargs["ids"]
    ids = {"ids": lambda value: re.sub(r"<function(\w+)at0x[0-9a-f]+>", r"\1", named(value))}
    return pytest.mark.parametrize(*mark.args, **{**mark.kwargs, **ids})


@checks(
    [
        bn.BNNRegressor(process, bn.Exact(restarts=0), random_state=0),
        bn.BNNClassifier(process, "process_laplace", random_state=0),
        bn.PFNRegressor(random_pfn(max_dim=10), random_state=0),
        bn.PFNClassifier(untrained_classes(), ensemble=1, temperature=1.0, random_state=0),
    ],
    IN_CLOSED_FORM,
)
def test_every_check(estimator, check):
    check(estimator)


@pytest.mark.slow
@checks(
    [
        bn.BNNRegressor(unmatched, HMC, random_state=0),
        bn.BNNClassifier(unmatched, HMC, random_state=0),
        bn.PFNRegressor(random_state=0),
        bn.PFNClassifier(ensemble=2, random_state=0),
    ],
    AS_USED,
)
def test_every_check_as_used(estimator, check):
    check(estimator)
