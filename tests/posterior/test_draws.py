"""Function draws: units, gradients, blocks, copies."""

from __future__ import annotations

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesnet as bn
from bayesnet.posterior import draws as draws_module


@pytest.fixture
def x_new(small_posterior):
    data = small_posterior.data
    return data.scaling.x_loc + data.scaling.x_scale * np.random.default_rng(1).normal(size=(9, 2))


def test_functions_equal_the_values_of_the_prediction(small_posterior, x_new):
    f = small_posterior.functions(x_new)
    assert f.shape == (100, 9, 2)
    np.testing.assert_allclose(f, small_posterior.predict(x_new).values, rtol=2e-4, atol=2e-4)
    np.testing.assert_array_equal(f, small_posterior.functions(x_new))  # the same draws each time
    jitted = jax.jit(small_posterior.functions)(jnp.asarray(x_new))
    np.testing.assert_allclose(jitted, f, rtol=1e-5, atol=1e-5)


def test_functions_by_hand(small_posterior, x_new):
    """Scaling, transport, network, scaling: written out in NumPy for one draw."""
    post, s = small_posterior, small_posterior.data.scaling
    z = post.latents[1, 7]
    first, last = jax.tree.map(np.asarray, post.prior.law.decode(jnp.asarray(z[:-2])))
    h = np.tanh((x_new - s.x_loc) / s.x_scale @ first["w"] / np.sqrt(2) + first["b"])
    out = (h @ last["w"] / np.sqrt(6) + last["b"]) * s.y_scale + s.y_loc
    np.testing.assert_allclose(post.predict(x_new).values[57], out, rtol=1e-5, atol=1e-5)


def test_gradients_equal_finite_differences(small_posterior, x_new):
    with jax.enable_x64(True):
        x = jnp.asarray(x_new, jnp.float64)
        assert small_posterior.functions(x).dtype == jnp.float64

        def total(a):
            return (small_posterior.functions(a) ** 2).sum()

        gradient = np.asarray(jax.grad(total)(x))
        for i, j in ((0, 0), (4, 1), (8, 0)):
            step = np.zeros_like(x_new)
            step[i, j] = 1e-5 * small_posterior.data.scaling.x_scale[j]
            numeric = (total(x + step) - total(x - step)) / (2 * step[i, j])
            assert gradient[i, j] == pytest.approx(float(numeric), rel=1e-5)


def test_whole_numbers_are_inputs_too(small_posterior):
    x = np.array([[4, -1], [6, -1]])
    np.testing.assert_array_equal(
        small_posterior.functions(x), small_posterior.functions(x.astype(float))
    )


def test_many_rows_are_cut_into_blocks(small_posterior, x_new, monkeypatch):
    whole = small_posterior.predict(x_new)
    monkeypatch.setattr(draws_module, "BLOCK", 4)
    cut = small_posterior.predict(x_new)
    np.testing.assert_allclose(cut.values, whole.values, rtol=1e-6)
    monkeypatch.undo()
    many = np.tile(x_new, (200, 1))  # 1,800 rows: more than a block
    assert len(many) > draws_module.BLOCK
    values = small_posterior.predict(many).values
    np.testing.assert_allclose(values[:, -9:], whole.values, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(small_posterior.predict(x_new[:1]).mean, whole.mean[:1], rtol=1e-6)


def test_uncertainty_adds_up_and_noise_is_learned(small_posterior, x_new):
    pred = small_posterior.predict(x_new)
    np.testing.assert_allclose(pred.std**2, pred.epistemic_std**2 + pred.aleatoric_std**2)
    level = small_posterior.bound.summary(small_posterior.split()[1])["noise_std"]
    level = level * small_posterior.data.scaling.y_scale
    np.testing.assert_allclose(pred.aleatoric_std[0], np.sqrt((level**2).mean(0)), rtol=1e-5)


def test_new_row_variances_add_to_the_learned_noise(small_posterior, x_new):
    extra = np.full((9, 2), [4.0, 0.5])
    with_var = small_posterior.predict(x_new, y_var=extra)
    without = small_posterior.predict(x_new)
    np.testing.assert_allclose(with_var.aleatoric_std**2, without.aleatoric_std**2 + extra)


def test_predictions_follow_the_units_of_y_and_x():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 1)), rng.normal(size=12)
    x_new = np.linspace(-1, 1, 5)[:, None]
    prior = bn.NetworkPrior(bn.MLP((4,)))
    method = bn.HMC(chains=1, warmup=50, draws=25)
    a = bn.fit(prior, x, y, inference=method, warn=False).predict(x_new)
    # Powers of two, so that the scaled table is the same to the last bit.
    b = bn.fit(prior, x * 4 - 64, y * 1024 + 65536, inference=method, warn=False)
    b = b.predict(x_new * 4 - 64)
    np.testing.assert_allclose(b.mean, a.mean * 1024 + 65536, rtol=1e-4)
    np.testing.assert_allclose(b.std, a.std * 1024, rtol=1e-2)
    np.testing.assert_allclose(b.quantile(0.1), a.quantile(0.1) * 1024 + 65536, rtol=1e-4)
    y_new = a.mean + 0.3
    np.testing.assert_allclose(
        b.log_prob(y_new * 1024 + 65536), a.log_prob(y_new) - np.log(1024), atol=1e-2
    )


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((3, 1)), "expects 2 features"),
        (np.zeros(3), "expects 2 features"),
        (np.zeros((0, 2)), "0 sample"),
        ([[np.nan, 0.0]], "NaN"),
        ([["a", "b"]], "numbers"),
    ],
)
def test_unusable_inputs_are_refused(small_posterior, x, words):
    with pytest.raises(bn.InputError, match=words):
        small_posterior.predict(x)


def test_other_refusals(small_posterior):
    x = np.zeros((3, 2))
    with pytest.raises(bn.InputError, match="y_var must have shape"):
        small_posterior.predict(x, y_var=np.ones(3))
    with pytest.raises(bn.InputError, match="not be negative"):
        small_posterior.predict(x, y_var=-np.ones((3, 2)))
    with pytest.raises(bn.InputError, match="expects 2 features"):
        small_posterior.functions(np.zeros((3, 1)))


@pytest.mark.parametrize("how", ["pickle", "deepcopy", "joblib"])
def test_copies_in_memory_predict_the_same(small_posterior, x_new, how, tmp_path):
    if how == "pickle":
        again = pickle.loads(pickle.dumps(small_posterior))
    elif how == "deepcopy":
        again = copy.deepcopy(small_posterior)
    else:
        joblib = pytest.importorskip("joblib")
        joblib.dump(small_posterior, tmp_path / "post")
        again = joblib.load(tmp_path / "post")
    expected = small_posterior.predict(x_new)
    np.testing.assert_array_equal(again.predict(x_new).values, expected.values)
    # The sampler's states come along, so that a copy can go on.
    longer = bn.HMC(chains=2, warmup=0, draws=10)
    bn.fit(
        again.prior,
        again.data.scaling.x_loc + again.data.scaling.x_scale * again.data.x,
        again.data.scaling.y_out(again.data.y),
        inference=longer,
        init=again,
        warn=False,
    )
