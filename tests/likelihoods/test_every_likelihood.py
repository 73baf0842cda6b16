"""What every likelihood promises: protocol, densities, units, weights, missing targets, files."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import likelihood_cases as cases
import numpy as np
import pytest
from likelihood_cases import CASES, LABELS, NUMBERS, X

import bayesnet as bn
from bayesnet.data import Scaling
from bayesnet.inference.model import LatentModel
from bayesnet.likelihoods import LIKELIHOODS, BoundLikelihood, Conditional, Likelihood
from bayesnet.posterior.saving import _describe, _rebuild


def close(a, b, rtol=1e-4, atol=1e-5):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


# Variants of what the others have shown already, in tests that compile a program each.
VARIANTS = [name for name in CASES if "known" in name or "law" in name or "stated" in name]
SLOW = [pytest.param(n, marks=pytest.mark.slow) if n in VARIANTS else n for n in CASES]


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_every_name_stands_for_a_likelihood(name):
    assert isinstance(LIKELIHOODS[name](), Likelihood)
    assert any(isinstance(likelihood, LIKELIHOODS[name]) for likelihood, *_ in CASES.values())


@pytest.mark.parametrize("name", CASES)
def test_protocol_and_copies(name):
    stated, y, outputs, latents = CASES[name]
    likelihood, bound, data = cases.bind(stated, y)
    assert isinstance(likelihood, Likelihood)
    assert isinstance(bound, BoundLikelihood)
    assert likelihood.num_outputs(data.out_dim) == outputs
    assert bound.latent_size == latents
    loc, scale = likelihood.output_units(data.scaling)
    assert np.broadcast_shapes(np.shape(loc), np.shape(scale), (outputs,)) == (outputs,)
    for again in (pickle.loads(pickle.dumps(likelihood)), copy.deepcopy(likelihood)):
        assert again == likelihood
        assert hash(again) == hash(likelihood)
    tensors = {}
    assert _rebuild(_describe(likelihood, "root", tensors), tensors, None) == likelihood
    for key, values in bound.summary(np.zeros((3, 5, latents))).items():
        assert values.shape[:2] == (3, 5), key
        assert (values > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_density_of_the_sampler_is_that_of_the_predictions(name):
    _, bound, data = cases.bind(*CASES[name][:2])
    z, f = cases.draws(*CASES[name][3:], CASES[name][2], 16)
    rows = jax.vmap(lambda a, b: bound.log_prob(a, b, data.rows))(z, f)
    assert rows.shape == (4, 16)
    assert np.isfinite(rows).all()  # padded rows too
    close(jax.jit(lambda b, a, c: b.log_prob(a, c, data.rows))(bound, z[0], f[0]), rows[0])
    law = bound.conditional(np.asarray(z), np.asarray(f[:, :6]), None)
    if name in LABELS:
        expected = law.log_prob(data.y[:, 0].astype(int))
    else:
        assert isinstance(law, Conditional)
        expected = law.log_prob(data.y.astype(np.float64)).sum(-1)
    close(rows[:, :6], expected, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("name", SLOW)
def test_gradients_are_those_of_finite_differences(name):
    _, bound, data = cases.bind(*CASES[name][:2])
    z, f = (a[0] for a in cases.draws(*CASES[name][3:], CASES[name][2], 16))

    def total(v):
        return bound.log_prob(v[: len(z)], v[len(z) :].reshape(f.shape), data.rows).sum()

    v = jnp.concatenate([z, f.ravel()])
    gradient = np.asarray(jax.grad(total)(v), np.float64)
    with jax.enable_x64(True):
        v64 = jnp.asarray(np.asarray(v, np.float64))
        # The whole gradient in a few random directions, by central differences in float64.
        for seed in range(3):
            step = 1e-5 * np.random.default_rng(seed).normal(size=len(v))
            change = (total(v64 + step) - total(v64 - step)) / 2
            assert gradient @ step == pytest.approx(float(change), rel=2e-3, abs=2e-8)


@pytest.mark.parametrize("name", SLOW)
def test_latents_far_out_are_finite(name):
    _, bound, data = cases.bind(*CASES[name][:2])
    outputs, latents = CASES[name][2:]
    for far in (-8.0, 8.0):
        z, f = jnp.full(latents, far), jnp.zeros((16, outputs))
        value, slope = jax.value_and_grad(lambda a, f=f: bound.log_prob(a, f, data.rows).sum())(z)
        assert np.isfinite(value)
        assert np.isfinite(slope).all()
        law = bound.conditional(np.asarray(z)[None], np.asarray(f)[None, :6], None)
        y = data.y[:, 0].astype(int) if name in LABELS else data.y.astype(np.float64)
        expected = law.log_prob(y).sum()
        assert float(bound.log_prob(z, f, data.rows)[:6].sum()) == pytest.approx(
            expected, rel=2e-4, abs=1e-3
        )


def log_density(stated, y, outputs, x=X, **table):
    """The log density of a model at fixed latents, and what it needs to be compared."""
    _, bound, data = cases.bind(stated, y, x=x, **table)
    prior = bn.NetworkPrior(bn.MLP((3,)), in_dim=x.shape[1], out_dim=outputs)
    model = LatentModel(prior, bound, data.rows)
    z = jax.random.normal(jax.random.key(2), (model.size,))
    return float(model.log_density(z)), np.asarray(model.log_likelihood_rows(z)), data


@pytest.mark.parametrize("name", SLOW)
def test_whole_weights_are_repeated_rows(name):
    stated, y, outputs, _ = CASES[name]
    weight = np.array([2.0, 1.0, 3.0, 1.0, 0.0, 1.0])
    times = weight.astype(int)
    if name in LABELS:
        stated = stated.encode(y)[0]  # the same classes, whatever rows are left
    weighted, _, data = log_density(stated, y, outputs, weight=weight)
    repeated, _, other = log_density(
        stated, np.repeat(y, times, axis=0), outputs, x=np.repeat(X, times, axis=0)
    )
    for field in ("x_loc", "x_scale", "y_loc", "y_scale"):
        close(getattr(data.scaling, field), getattr(other.scaling, field), rtol=1e-12)
    assert weighted == pytest.approx(repeated, rel=1e-5)
    plain, _, _ = log_density(stated, y, outputs)
    assert weighted != pytest.approx(plain, rel=1e-3)


def test_a_row_of_weight_zero_is_absent_even_if_impossible():
    _, bound, data = cases.bind(
        bn.GaussianLikelihood(1e-20), np.zeros(6), weight=np.array([1.0, 1, 1, 1, 1, 0])
    )
    f = jnp.zeros((16, 1)).at[5].set(1.0)  # infinitely many sd away
    assert np.isneginf(bound.log_prob(jnp.zeros(0), f, data.rows)[5])
    prior = bn.NetworkPrior(bn.MLP((3,)), in_dim=2)
    model = LatentModel(prior, bound, data.rows)
    rows = model.log_likelihood_rows(jnp.zeros(model.size))
    assert np.isfinite(rows).all()
    assert rows[5] == 0


@pytest.mark.parametrize("name", NUMBERS)
def test_missing_targets_are_left_out(name):
    stated, y, outputs, latents = CASES[name]
    holes = np.array(y, float)
    holes[[0, 3], [1, 0]] = np.nan  # row 0 is what padding copies
    _, full, data = cases.bind(stated, y)
    _, masked, part = cases.bind(stated, holes, missing=True, scaling=data.scaling)
    z, f = (a[0] for a in cases.draws(latents, outputs, 16))
    law = full.conditional(np.asarray(z)[None], np.asarray(f)[None, :6], None)
    terms = law.log_prob(data.y.astype(np.float64))[0]
    expected = np.where(np.isnan(holes), 0.0, terms).sum(-1)
    close(masked.log_prob(z, f, part.rows)[:6], expected, rtol=1e-4, atol=2e-4)
    np.testing.assert_array_equal(np.isnan(part.y), np.isnan(holes))

    # What stands at a missing place reaches neither the density nor its gradient.
    def total(outputs_of_network):
        return masked.log_prob(z, outputs_of_network, part.rows)[:6].sum()

    slope = np.asarray(jax.grad(total)(f))
    assert (slope[[0, 3], [1, 0]] == 0).all()
    assert (slope[[0, 3], [0, 1]] != 0).all()


# Where the level of the noise is not stated in the units of y.
FREE = ("gaussian", "heteroscedastic", "student t", "student t, all learned", "laplace")


@pytest.mark.parametrize("name", FREE)
def test_the_unit_of_y_does_not_matter(name):
    """y in grams or kilograms: one posterior density, and predictions in the new unit."""
    stated, y, outputs, latents = CASES[name]
    for factor, shift in ((1000.0, 0.0), (1e-3, -7.0)):
        one, *_ = log_density(stated, y, outputs)
        other, *_ = log_density(stated, factor * y + shift, outputs)
        assert one == pytest.approx(other, rel=2e-4)
        z, f = (np.asarray(a) for a in cases.draws(latents, outputs, 6))
        laws = []
        for targets in (y, factor * y + shift):
            _, bound, table = cases.bind(stated, targets)
            law = bound.conditional(z, f, None)
            laws.append(law.affine(table.scaling.y_loc, table.scaling.y_scale))
        close(laws[1].mean, factor * laws[0].mean + shift, rtol=1e-5)
        close(laws[1].variance, factor**2 * laws[0].variance, rtol=1e-4)


@pytest.mark.parametrize("name", [n for n in CASES if not CASES[n][0].row_variances])
def test_variances_of_rows_are_refused_where_they_mean_nothing(name):
    stated, y, outputs, latents = CASES[name]
    prior = bn.NetworkPrior(bn.MLP((3,)), in_dim=2, out_dim=outputs)
    with pytest.raises(bn.UnsupportedError, match="no use for y_var"):
        bn.fit(prior, X, y, likelihood=stated, y_var=np.ones(np.shape(y)))
    _, bound, data = cases.bind(stated, y)
    z, f = (np.asarray(a) for a in cases.draws(latents, outputs, 6))
    with pytest.raises(bn.UnsupportedError, match="no use for y_var"):
        bound.conditional(z, f, np.ones((6, data.out_dim)))


@dataclass(frozen=True)
class PriorDraws:
    """An inference method that learns nothing: the way through `bn.fit`, at no cost."""

    def supports(self, prior, likelihood):
        return True

    def fit(self, prior, likelihood, data, *, key, init=None, progress=None):
        size = LatentModel(prior, likelihood.bind(data.scaling, data.rows), data.rows).size
        latents = np.asarray(jax.random.normal(key, (1, 8, size)))
        return bn.FunctionDraws(prior, likelihood, data, latents)


@pytest.mark.parametrize(
    "name", ["heteroscedastic", "student t, all learned", "categorical, learned noise", "poisson"]
)
def test_a_fitted_posterior_predicts_reports_and_is_saved(name, tmp_path):
    stated, y, outputs, _ = CASES[name]
    prior = bn.NetworkPrior(bn.MLP((3,)), in_dim=2, out_dim=outputs)
    post = bn.fit(prior, X, y, likelihood=stated, inference=PriorDraws(), warn=False)
    pred = post.predict(X[:4])
    assert np.isfinite(pred.mean).all()
    assert np.isfinite(pred.log_prob(y[:4])).all()
    functions = np.asarray(post.functions(X[:4].astype(np.float32)))
    assert functions.shape == (8, 4, outputs)
    post.save(tmp_path / "p.bayesnet")
    again = bn.load(tmp_path / "p.bayesnet")
    assert again.likelihood == post.likelihood
    np.testing.assert_array_equal(again.predict(X[:4]).mean, pred.mean)
    groups = {row.name for row in post.diagnostics().rows}
    assert {"f at training rows", "log likelihood"} <= groups
    assert len(groups) == 5 + {"student t, all learned": 2, "categorical, learned noise": 1}.get(
        name, 0
    )
    data = post.to_arviz()
    assert data.log_likelihood["y"].shape == (1, 8, 6)
    observed = data.observed_data["y"].values
    if name.startswith("categorical"):
        assert observed.tolist() == y.tolist()
    else:
        np.testing.assert_allclose(observed, y, rtol=1e-5, atol=1e-6)
    if name == "heteroscedastic":
        # The network's outputs in user units: means, then log noise levels.
        np.testing.assert_allclose(functions[..., :2], pred.values, rtol=1e-4)
        np.testing.assert_allclose(np.exp(functions[..., 2:]), pred.components.scale, rtol=1e-3)
    if name == "poisson":
        np.testing.assert_allclose(np.exp(functions), pred.values, rtol=1e-4)


@pytest.mark.parametrize("name", ["heteroscedastic", "categorical"])
def test_the_likelihood_decides_on_the_outputs_of_the_network(name):
    stated, y, outputs, _ = CASES[name]
    prior = bn.NetworkPrior(bn.MLP((3,)), in_dim=2, out_dim=1)
    words = f"for 1 outputs, {type(stated).__name__} needs {outputs}: .*out_dim={outputs}"
    with pytest.raises(bn.InputError, match=words):
        bn.fit(prior, X, y, likelihood=stated)


def test_a_bare_network_gets_the_outputs_that_the_likelihood_needs(monkeypatch):
    from bayesnet import defaults

    monkeypatch.setattr(defaults, "matched", lambda prior, target, inputs, seed: prior)
    for name in ("heteroscedastic", "bernoulli", "categorical"):
        stated, y, outputs, _ = CASES[name]
        post = bn.fit(bn.MLP((3,)), X, y, likelihood=stated, inference=PriorDraws(), warn=False)
        assert post.prior.out_dim == outputs


def test_a_scaling_of_targets_that_are_not_scaled_is_refused():
    prior = bn.NetworkPrior(bn.MLP((3,)), in_dim=2, out_dim=2)
    scaling = Scaling(np.zeros(2), np.ones(2), np.zeros(2), np.full(2, 3.0))
    with pytest.raises(bn.InputError, match="does not scale y"):
        bn.fit(prior, X, CASES["poisson"][1], likelihood="poisson", scaling=scaling)
