"""Every kind of prior of the library can be amortised: two steps each."""

import jax
import numpy as np
import pytest

import bayesnet as bn
from bayesnet.pfn import Mixture, RandomNetworks
from bayesnet.pfn.inputs import as_input_law
from bayesnet.pfn.tasks import Tasks
from tests.pfn.test_training import SMALL

PROCESS = bn.GaussianProcess("rbf", 0.8)
NETWORK = bn.NetworkPrior(bn.MLP((8,)), in_dim=1)
VARIANCE = bn.InverseGamma(2.0, 2.0)


def matched():
    return bn.match_prior(NETWORK, PROCESS, inputs=bn.Box([-2.0], [2.0]), steps=2, seed=0).prior


PRIORS = {
    "student_t": lambda: bn.ScaleMixture(PROCESS, VARIANCE),
    "random_mixture": lambda: bn.ScaleMixture(
        bn.GaussianProcess("matern52", bn.LogNormal(0.0, 0.3)), bn.Gamma(2.0, 2.0)
    ),
    "infinite_network": lambda: bn.kernels.NNGP(depth=2, activation="relu"),
    "infinite_mixture": lambda: bn.ScaleMixture(
        bn.kernels.NNGP(depth=2, activation="relu"), VARIANCE
    ),
    "matched_network": matched,
    "sum": lambda: PROCESS + NETWORK,
    "sum_of_processes": lambda: PROCESS + bn.GaussianProcess("linear"),
    "architectures": lambda: RandomNetworks(1, depth=2, width=8),
    "mixture": lambda: Mixture((PROCESS, bn.ScaleMixture(PROCESS, VARIANCE), NETWORK), (1, 1, 2)),
}


# One size of context, one layer: the same small program for all.
KNOBS = {k: v for k, v in SMALL.items() if k != "dims"} | {"buckets": (8,), "depth": 1}


@pytest.mark.parametrize(
    "name",
    [
        # A match is a training run of its own.
        pytest.param(name, marks=[pytest.mark.slow] if name == "matched_network" else [])
        for name in PRIORS
    ],
)
def test_a_prior_is_trained_on(name):
    pfn = bn.PFN.train(PRIORS[name](), bn.GaussianLikelihood(0.2), dims=(1,), steps=2, **KNOBS)
    start = bn.pfn.Training(dims=(1,), **KNOBS).network(jax.random.fold_in(jax.random.key(0), 0))
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(pfn.network))
    assert not np.array_equal(pfn.network.bias_y, start.bias_y)
    assert (np.diff(pfn.bars.edges) > 0).all()


def test_the_scale_of_a_mixture_is_drawn_for_every_task():
    """Given s, values at a point are N(0, s): a Student-t law over tasks, with heavier tails."""
    law = bn.ScaleMixture(PROCESS, VARIANCE)
    tasks = Tasks(law, bn.GaussianLikelihood(0.1), as_input_law(None), (1,), 4, 4)
    batch = tasks.draw(jax.random.key(0), 4000, np.full(4000, 4), 1)
    f = np.asarray(batch.f_mean[:, 0], np.float64)
    # 4 degrees of freedom and scale 1: P(|t| > 2.776) = 0.05, of a normal law it is 0.0055.
    share = (np.abs(f) > 2.776).mean()
    assert share == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 4000))
