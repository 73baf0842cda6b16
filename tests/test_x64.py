"""What users set for JAX changes nothing: under `jax_enable_x64` results are the same, digit for digit.

The suites of `make test-x64` run with the environment variable set; these compare with and without it.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesnet as bn
from bayesnet.diagnostics.loo import loo

RNG = np.random.default_rng(0)
X = RNG.normal(size=(14, 2))
Y = 10 + np.sin(2 * X[:, 0]) + 0.1 * RNG.normal(size=14)
LABELS = np.where(X[:, 0] > 0, "up", "down")
NEW = RNG.normal(size=(3, 2))
NETWORK = bn.NetworkPrior(bn.MLP((6,)), in_dim=2)
PROCESS = bn.GaussianProcess("rbf", lengthscale=1.0)

METHODS = {
    "hmc": (NETWORK, Y, None, bn.HMC(chains=2, warmup=60, draws=50)),
    "nuts": (NETWORK, Y, None, bn.NUTS(chains=2, warmup=20, draws=10, max_depth=4)),
    "sghmc": (NETWORK, Y, None, bn.SGHMC(chains=2, warmup=100, draws=5, thin=5, batch_size=8)),
    "ensemble": (NETWORK, Y, None, bn.DeepEnsemble(members=3, steps=100, batch_size=8)),
    "labels by hmc": (NETWORK, LABELS, "bernoulli", bn.HMC(chains=2, warmup=60, draws=50)),
    "exact": (PROCESS, Y, None, "exact"),
    "process_laplace": (PROCESS, LABELS, "bernoulli", "process_laplace"),
    "sparse_variational": (PROCESS, LABELS, "bernoulli", bn.SparseVariational(steps=20)),
    "pfn": (None, Y, None, "pfn"),
    "amortised": (None, Y, None, "amortised"),
    "pfn of labels": (None, LABELS, "bernoulli", "pfn"),
}


def numbers(prediction):
    if isinstance(prediction, bn.ClassPrediction):
        return [prediction.mean]
    return [prediction.mean, prediction.std, prediction.sample(0, 4)]


def fitted(name):
    prior, y, likelihood, method = METHODS[name]
    posterior = bn.fit(
        prior, X, y, likelihood=likelihood, inference=method, seed=1, warn=False, progress=False
    )
    return posterior, numbers(posterior.predict(NEW))


@pytest.mark.parametrize("name", METHODS)
def test_posteriors_are_the_same_digit_for_digit(name, tmp_path):
    _, expected = fitted(name)
    with jax.enable_x64(True):
        posterior, found = fitted(name)
        posterior.save(tmp_path / "posterior.safetensors")
        again = numbers(bn.load(tmp_path / "posterior.safetensors").predict(NEW))
        if hasattr(posterior, "diagnostics"):
            str(posterior.diagnostics())
    for a, b, c in zip(expected, found, again, strict=True):
        np.testing.assert_array_equal(b, a)
        np.testing.assert_array_equal(c, a)


def drawn():
    laws = ["gaussian", "hierarchical", "flow", "laplace", "student_t", "horseshoe"]
    priors = [bn.NetworkPrior(bn.MLP((4,)), law, in_dim=2) for law in laws]
    priors += [PROCESS, bn.ScaleMixture(PROCESS, bn.InverseGamma(2.0, 2.0)), PROCESS + PROCESS]
    priors += [bn.GaussianProcess("rbf", bn.LogNormal(0.0, 0.5))]
    priors += [bn.RescaledPrior(NETWORK, lengthscale=bn.LogNormal(0.0, 0.5))]
    return [prior.sample(3, NEW, 2) for prior in priors]


def test_draws_of_priors_are_the_same_and_float32():
    expected = drawn()
    with jax.enable_x64(True):
        found = drawn()
    for a, b in zip(expected, found, strict=True):
        assert b.dtype == np.float32
        np.testing.assert_array_equal(b, a)


def test_an_array_of_jax_asks_for_its_own_precision():
    """A network runs in float64 where the user passes such an array; for NumPy's it is float32."""
    posterior, _ = fitted("hmc")
    with jax.enable_x64(True):
        wide = posterior.functions(jnp.asarray(NEW))
        assert wide.dtype == jnp.float64
        assert posterior.functions(NEW).dtype == jnp.float32
        np.testing.assert_allclose(wide, posterior.functions(NEW), rtol=1e-4)


def test_a_match_is_the_same():
    def matched():
        prior = bn.NetworkPrior(bn.MLP((6,)), in_dim=1)
        found = bn.match_prior(prior, PROCESS, bn.Box([-1], [1]), steps=20, num_functions=16)
        return found.distance_after, *jax.tree.leaves(found.prior)

    expected = matched()
    with jax.enable_x64(True):
        found = matched()
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(b, a)


def test_networks_of_others_that_were_built_in_float64_can_be_conditioned():
    with jax.enable_x64(True):
        module = eqx.nn.MLP(2, 1, 6, 1, key=jax.random.key(0))
        assert module.layers[0].weight.dtype == jnp.float64
        prior = bn.NetworkPrior(module, in_dim=2)
        method = bn.HMC(chains=2, warmup=30, draws=25)
        posterior = bn.fit(prior, X, Y, inference=method, warn=False)
        assert np.isfinite(posterior.predict(NEW).mean).all()


def test_checks_of_a_fit_are_the_same():
    posterior, _ = fitted("hmc")

    def said():
        left_out = loo(posterior, refits=1)
        conflict = bn.prior_data_conflict(NETWORK, X, Y, num_draws=100)
        compared = bn.compare_priors({"a": NETWORK}, X, Y, by="laplace_screen", restarts=1)
        return str(left_out), str(conflict), str(compared)

    expected = said()
    with jax.enable_x64(True):
        assert said() == expected


def test_weights_are_trained_alike():
    def trained():
        pfn = bn.PFN.train(
            PROCESS, dims=(1,), steps=2, batch=2, width=16, depth=1, heads=2, hidden=16, bars=20
        )
        return jax.tree.leaves(eqx.filter(pfn.network, eqx.is_array))

    expected = trained()
    with jax.enable_x64(True):
        found = trained()
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(b, a)
