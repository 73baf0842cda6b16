"""Columns in any unit, and arrays of any precision: the same answer, or an error that says why not."""

from __future__ import annotations

from decimal import Decimal

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import torch
from botorch.sampling.get_sampler import get_sampler
from numpy.testing import assert_allclose, assert_array_equal

import bayesnet as bn
from bayesnet._matrix import as_matrix
from bayesnet._scales import affine_in, is_constant, moments
from bayesnet.bo.scaling import robust_scale
from bayesnet.data import Scaling
from tests.pfn.small import random_pfn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 2))
Y = 10 + 3 * X[:, 0]
GP = bn.GaussianProcess("matern52", 1.5)
TINY = bn.HMC(chains=1, warmup=5, draws=5, max_steps=4)
NET = bn.NetworkPrior(bn.MLP(hidden=(3,)), "gaussian", 2, 1)
RAW = bn.NetworkPrior(bn.MLP(hidden=(3,)), "gaussian", 2, 1, units="data")
UNITS = (1e200, 1e-200, 2.0**1020, 1e-306)


def exact(x, y):
    return bn.fit(GP, x, y, inference="exact", warn=False).predict(x[:3])


def draws(x, y):
    return bn.fit(NET, x, y, inference=TINY, warn=False).predict(x[:3])


def pfn(x, y):
    return random_pfn().fit(x, y, warn=False).predict(x[:3], warn=False)


def views(x, y):
    return random_pfn().fit(x, y, warn=False, ensemble=4).predict(x[:3], warn=False)


def many(x, y):
    return random_pfn().predict_many(x[None], y[None], x[None, :3])[0]


@pytest.mark.parametrize("method", [exact, draws, pfn, views, many])
def test_the_unit_of_a_column_does_not_matter(method):
    known = method(X, Y)
    for unit in UNITS:
        found = method(X * [unit, 1.0], Y)
        assert_allclose(found.mean, known.mean, rtol=1e-4)
    for unit in (1e100, 1e-30, 1e-100):
        found = method(X, Y * unit)
        assert_allclose(found.mean / unit, known.mean, rtol=1e-4)
        assert_allclose(found.std / unit, known.std, rtol=1e-3)
        shifted = found.log_prob(Y[:3] * unit) + np.log(unit)
        assert_allclose(shifted, known.log_prob(Y[:3]), atol=1e-2)
    # Eight digits of the values are the offset.
    assert_allclose(method(X + np.array([1e8, 0.0]), Y).mean, known.mean, rtol=1e-4)


@pytest.mark.parametrize("method", [exact, draws, pfn, many])
def test_targets_whose_variance_is_no_number_are_refused(method):
    for unit, words in ((1e200, "square is no number"), (1e-200, "would be 0")):
        with pytest.raises(bn.InputError, match=words):
            method(X, Y * unit)


def test_moments_are_those_of_numpy_to_the_last_bit():
    table = X * [1.0, 1e5] + [5.0, 1e7]
    assert_array_equal(np.stack(moments(table)), [table.mean(axis=0), table.std(axis=0)])
    for unit in (2.0**1000, 2.0**-1000):
        loc, scale = moments(table * unit)
        assert_array_equal(loc, table.mean(axis=0) * unit)
        assert_array_equal(scale, table.std(axis=0) * unit)
    weight = np.arange(12.0)
    loc, scale = moments(table * 2.0**1000, weight)
    assert_array_equal(loc, moments(table, weight)[0] * 2.0**1000)
    ends = np.array([[-1.7e308], [1.7e308]])
    assert_allclose(bn.standardize(ends)[:, 0], [-1.0, 1.0])
    assert_array_equal(affine_in(ends, np.zeros(1), np.ones(1)), ends)


def test_what_is_constant_and_what_float64_cannot_scale():
    assert is_constant(*moments(np.full((9, 1), 0.1)))
    assert is_constant(*moments(np.array([[0.1 + 0.2], [0.3]])))
    assert is_constant(*moments(np.full((9, 1), 1e300)))
    assert not is_constant(*moments(1e12 + X[:, :1]))
    with pytest.raises(bn.InputError, match="multiply it by a large number"):
        bn.standardize(X * 1e-320)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (X * 1e25, "beyond what float32 can square"),
        (X * 1e-50, "lost in float32"),
        (X + 1e10, "lost in float32"),
        (X * 1e200, "beyond what float64 can square"),
    ],
)
def test_user_units_that_single_precision_loses_are_refused(x, words):
    with pytest.raises(bn.InputError, match=words):
        bn.fit(RAW, x, Y, inference=TINY, warn=False)


def test_exact_inference_takes_any_user_units_that_can_be_squared():
    def mean(unit):
        prior = bn.GaussianProcess("matern52", 1.5 * unit, units="data")
        return bn.fit(prior, X * unit, Y, inference="exact", warn=False).predict(X[:3] * unit).mean

    for unit in (1e20, 1e-50):
        assert_allclose(mean(unit), mean(1.0), rtol=1e-5)


def test_rows_beyond_the_precision_of_draws_are_refused():
    post = bn.fit(NET, X * 1e200, Y, inference=TINY, warn=False)
    with pytest.raises(bn.InputError, match="row 0, column 0 lies"):
        post.predict(np.full((1, 2), 1e300))
    with pytest.raises(bn.InputError, match="beyond float32"):
        post.functions(jnp.ones((1, 2)))
    assert np.isfinite(post.functions(X[:2] * 1e200)).all()
    for name, value in (("y_var", np.full(12, 1e-60)), ("sample_weight", np.full(12, 1e60))):
        with pytest.raises(bn.InputError, match=f"{name} holds"):
            bn.fit(NET, X, Y, inference=TINY, warn=False, **{name: value})


def test_functions_of_arrays_keep_the_digits_of_an_offset():
    plain = bn.fit(NET, X, Y, inference=TINY, warn=False)
    moved = bn.fit(NET, X + 2.0**30, Y, inference=TINY, warn=False)
    assert_allclose(moved.functions(X + 2.0**30), plain.functions(X), atol=1e-3)


def test_the_scale_of_a_loop_has_no_least_value():
    for unit in (1.0, 1e-13, 1e-90, 1e90):
        (loc, scale), _ = robust_scale(Y * unit)
        assert_allclose([loc / unit, scale / unit], [Y.mean(), Y.std()])
    widest = np.array([[-1.7e308], [1.7e308]])
    assert np.isfinite(Scaling.from_bounds(widest, np.zeros(1), np.ones(1)).x_scale).all()


@pytest.mark.parametrize("unit", [1e-12, 1e-120, 1e90])
def test_a_process_surrogate_has_the_variances_and_draws_of_any_unit_of_y(unit):
    x, y = torch.tensor(X), torch.tensor(np.sin(X[:, :1]))
    new = x[:3] + 0.3

    def made(u):
        model = bn.surrogates.Surrogate(x, y * u, prior=GP, inference="exact", warn=False)
        posterior = model.posterior(new)
        sampler = get_sampler(posterior, torch.Size([4096]), seed=0)
        return posterior, sampler(posterior) / u

    (known, _), (found, drawn) = made(1.0), made(unit)
    assert_allclose(found.mean / unit, known.mean, rtol=1e-5)
    assert_allclose(found.variance / unit / unit, known.variance, rtol=1e-5)
    assert_allclose(drawn.var(dim=0), known.variance, rtol=0.1)


def test_constant_columns_of_any_size_are_centred():
    for value in (0.1, 1e17, 1e200):
        assert_array_equal(moments(np.full((12, 1), value))[0], [value])
    wide = np.column_stack([X, np.full(12, 1e200)])
    found = bn.fit(GP, wide, Y, inference="exact", warn=False).predict(wide[:3])
    assert_allclose(found.mean, exact(X, Y).mean, rtol=1e-5)


def test_a_loop_refuses_values_whose_variance_is_no_number():
    state = bn.bo.LoopState(np.array([[-3.0, -3.0], [3.0, 3.0]]), bn.bo.LoopSettings("exact"))
    with pytest.raises(bn.InputError, match="variances in its units would be 0"):
        state.update(X, Y * 1e-200)


def test_proposals_do_not_depend_on_units():
    box = np.array([[-3.0, -3.0], [3.0, 3.0]])
    settings = {"surrogate": "exact", "prior": GP, "num_restarts": 1, "raw_samples": 16}
    known = bn.bo.suggest((X, Y), box, **settings)
    for x_unit, y_unit in ((1e150, 1e-90), (1e-6, 1e50)):
        found = bn.bo.suggest((X * x_unit, Y * y_unit), box * x_unit, **settings)
        # Other base samples: an extreme unit of y has posteriors of another class.
        assert_allclose(found / x_unit, known, atol=2e-3)
    with pytest.raises(bn.InputError, match="All y are beyond"):
        bn.bo.suggest((X, Y * 1e105), box, **settings)


ARRAYS = {
    "torch.bfloat16": lambda a: torch.tensor(a).bfloat16(),
    "torch.float16": lambda a: torch.tensor(a).half(),
    "torch rows": lambda a: list(torch.tensor(a).bfloat16()),
    "jax.bfloat16": lambda a: jnp.asarray(a, jnp.bfloat16),
    "bfloat16": lambda a: a.astype(ml_dtypes.bfloat16),
    "float8": lambda a: a.astype(ml_dtypes.float8_e5m2),
    "int4": lambda a: a.astype(ml_dtypes.int4),
    "float16": lambda a: a.astype(np.float16),
    "longdouble": lambda a: a.astype(np.longdouble),
    "int8": lambda a: a.astype(np.int8),
    "uint64": lambda a: a.astype(np.uint64),
    "object": lambda a: a.astype(object),
    "Decimal": lambda a: np.vectorize(Decimal, otypes=[object])(a),
    "frame": lambda a: pd.DataFrame(a).astype("Float32"),
    "foreign order": lambda a: a.astype(">f8"),
}
WHOLE = np.array([[1.0, 2.0], [3.0, 4.0], [2.0, 7.0], [0.0, 5.0]])


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_of_every_precision_are_tables(kind):
    made = ARRAYS[kind]
    assert_array_equal(as_matrix(made(WHOLE), "X"), WHOLE)
    targets = np.array([1.0, 2.0, 4.0, 3.0])
    rest = {"sample_weight": np.ones(4), "y_var": np.ones(4)}
    known = bn.fit(GP, WHOLE, targets, inference="exact", warn=False, **rest)
    found = bn.fit(
        GP, made(WHOLE), made(targets), inference="exact", warn=False,
        **{k: made(v) for k, v in rest.items()},
    )  # fmt: skip
    assert_array_equal(found.predict(made(WHOLE)).mean, known.predict(WHOLE).mean)


def test_bools_and_labels_of_small_types():
    flags = WHOLE > 2
    assert_array_equal(as_matrix(torch.tensor(flags), "X"), flags)
    method = {"likelihood": "bernoulli", "inference": "process_laplace", "warn": False}
    known = bn.fit(GP, X, np.array([0, 1] * 6), **method).predict(X[:2]).mean
    small = np.array([0, 1] * 6).astype(ml_dtypes.bfloat16)
    assert_array_equal(bn.fit(GP, X, small, **method).predict(X[:2]).mean, known)


def test_half_precision_in_other_places():
    half = torch.tensor(WHOLE).bfloat16()
    net, targets = random_pfn(), torch.tensor([1.0, 2.0, 4.0, 3.0]).bfloat16()
    known = net.fit(WHOLE, targets.float(), warn=False).predict(WHOLE, warn=False)
    found = net.fit(half, targets, warn=False).predict(half, warn=False)
    assert_array_equal(found.mean, known.mean)
    (one,) = net.predict_many(half[None], targets[None], half[None])
    assert_allclose(one.mean, known.mean, rtol=1e-5)
    post = bn.fit(NET, X, Y, inference=TINY, warn=False)
    ours = post.functions(jnp.asarray(WHOLE, jnp.bfloat16))
    assert_allclose(ours, post.functions(jnp.asarray(WHOLE)), rtol=1e-6)
    for dtype in (torch.bfloat16, torch.float16):
        with pytest.raises(bn.InputError, match=r"train_X\.double\(\)"):
            bn.surrogates.Surrogate(half.to(dtype), targets.to(dtype)[:, None], inference="exact")
