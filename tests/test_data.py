"""Validation, scaling and padding of tables."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesnet as bn
from bayesnet._matrix import as_matrix
from bayesnet.data import Scaling, bucket_size, check_table, make_data, pad_rows
from bayesnet.inference.model import LatentModel


def test_scaling_round_trip_and_standardised_columns():
    rng = np.random.default_rng(0)
    x, y = rng.normal(5, 3, (30, 2)), rng.normal(-2, 0.1, (30, 2))
    s = Scaling.from_data(x, y)
    np.testing.assert_allclose(s.x_in(x).mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(s.x_in(x).std(0), 1, rtol=1e-12)
    np.testing.assert_allclose(s.y_out(s.y_in(y)), y, rtol=1e-12)
    np.testing.assert_allclose(bn.standardize(x), s.x_in(x))


def test_scaling_leaves_targets_alone_when_told():
    x, y = np.arange(6.0)[:, None], 10 + np.arange(6.0)[:, None]
    s = Scaling.from_data(x, y, scale_y=False)
    np.testing.assert_array_equal(s.y_in(y), y)


def test_constant_columns_are_only_centred():
    x = np.column_stack([np.full(5, 0.1), np.arange(5.0), np.zeros(5)])
    scaled = bn.standardize(x)
    np.testing.assert_allclose(scaled[:, [0, 2]], 0.0, atol=1e-15)
    assert scaled[:, 1].std() == pytest.approx(1.0)


@pytest.mark.parametrize("unit", [1e-18, 1e-3, 1e12])
def test_units_never_make_a_column_constant(unit):
    np.testing.assert_allclose(
        bn.standardize(unit * np.arange(5.0)), bn.standardize(np.arange(5.0)), rtol=1e-9
    )


def test_scaling_from_bounds_gives_a_uniform_column_unit_variance():
    bounds = np.array([[0.0, -10.0], [1.0, 30.0]])
    s = Scaling.from_bounds(bounds, np.zeros(1), np.ones(1))
    grid = np.linspace(bounds[0], bounds[1], 100_001)
    np.testing.assert_allclose(s.x_in(grid).mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(s.x_in(grid).std(0), 1, rtol=1e-4)


@pytest.mark.parametrize(("n", "size"), [(1, 16), (16, 16), (17, 32), (1024, 1024), (1025, 2048)])
def test_bucket_sizes(n, size):
    assert bucket_size(n) == size


def test_padding_copies_a_real_row():
    a = np.arange(6.0).reshape(3, 2) + 1
    padded = pad_rows(a, 5)
    np.testing.assert_array_equal(padded[:3], a)
    np.testing.assert_array_equal(padded[3:], np.repeat(a[:1], 2, 0))


@pytest.mark.parametrize("with_var", [False, True])
@pytest.mark.parametrize("n", [1, 5, 16])
def test_padding_changes_neither_the_posterior_density_nor_its_gradient(n, with_var):
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, 2)), rng.normal(size=(n, 1))
    var = rng.uniform(0.1, 1.0, (n, 1)) if with_var else None
    scaling = Scaling.identity(2, 1)
    prior = bn.NetworkPrior(bn.MLP((4,)), in_dim=2)
    models = []
    for pad in (False, True):
        data = make_data(x, y, var, scaling, pad=pad)
        bound = bn.GaussianLikelihood(bn.LogNormal()).bind(scaling, data.rows)
        models.append(LatentModel(prior, bound, data.rows))
    assert models[1].rows.x.shape[0] == 16
    z = jax.random.normal(jax.random.key(0), (models[0].size,))
    (v0, g0), (v1, g1) = (jax.value_and_grad(m.log_density)(z) for m in models)
    np.testing.assert_allclose(v0, v1, rtol=1e-5)
    np.testing.assert_allclose(g0, g1, rtol=1e-4, atol=1e-5)
    # By hand, in NumPy: the density is what the docstring says.
    f = np.asarray(prior.apply(z[:-1], jnp.asarray(x, jnp.float32)), float)
    variance = np.exp(2 * float(z[-1])) + (var if with_var else 0.0)
    loglik = -0.5 * (y - f) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance)
    np.testing.assert_allclose(v0, loglik.sum() - 0.5 * float(z @ z), rtol=1e-5)


def test_row_variances_are_scaled_with_the_square_of_the_unit():
    x, y = np.arange(4.0)[:, None], np.array([[0.0], [10.0], [20.0], [30.0]])
    scaling = Scaling.from_data(x, y)
    data = make_data(x, y, np.full((4, 1), 25.0), scaling)
    np.testing.assert_allclose(data.rows.y_var[:4], 25.0 / y.var(), rtol=1e-6)
    assert data.num_rows == 4
    assert data.x.shape == (4, 1)


def test_accepted_containers():
    pd = pytest.importorskip("pandas")
    torch = pytest.importorskip("torch")
    expected = np.array([[1.0, 2.0], [3.0, 4.0]])
    frame = pd.DataFrame({"a": [1, 3], "b": [2.0, 4.0]})
    tensor = torch.tensor(expected, requires_grad=True)
    for given in (
        expected.tolist(),
        frame,
        frame.astype("Int64"),
        frame.astype(object),
        tensor,
        jnp.asarray(expected),
        expected.astype(np.float32),
    ):
        np.testing.assert_array_equal(as_matrix(given, "X"), expected)
    np.testing.assert_array_equal(as_matrix(frame["a"], "y"), [[1.0], [3.0]])
    np.testing.assert_array_equal(as_matrix([True, False], "y"), [[1.0], [0.0]])


def bad_values():
    pd = pytest.importorskip("pandas")
    return {
        "NaN": ([[1.0], [np.nan]], "NaN or infinity"),
        "infinity": ([[np.inf], [1.0]], "NaN or infinity"),
        "None": ([[1.0], [None]], "NaN or infinity"),
        "missing": (pd.DataFrame({"a": [1, None]}, dtype="Int64"), "NaN or infinity"),
        "words": ([["a"], ["b"]], "numbers"),
        "numbers as text": (np.array([["1"], ["2"]]), "numbers"),
        "text column": (pd.DataFrame({"a": [1, 2], "b": ["3", "4"]}), "numbers"),
        "dates": (np.array(["2020-01-01", "2020-01-02"], "datetime64[D]"), "numbers"),
        "complex": (np.array([[1j]]), "Complex"),
        "no rows": (np.zeros((0, 2)), "0 sample"),
        "no columns": (np.zeros((2, 0)), "0 feature"),
        "a number": (3.0, "matrix"),
        "a cube": (np.zeros((2, 2, 2)), "matrix"),
        "ragged": ([[1.0], [1.0, 2.0]], "differ in length"),
    }


@pytest.mark.parametrize("case", list(bad_values()))
def test_unusable_values_are_named(case):
    values, words = bad_values()[case]
    with pytest.raises(bn.InputError, match=words) as raised:
        as_matrix(values, "X")
    assert "X" in str(raised.value) or case == "complex"


def test_tables_that_do_not_fit_together():
    x = np.zeros((3, 1))
    with pytest.raises(bn.InputError, match="3 rows but y has 2"):
        check_table(x, np.zeros(2))
    with pytest.raises(bn.InputError, match="y_var"):
        check_table(x, np.zeros(3), np.ones((3, 2)))
    with pytest.raises(bn.InputError, match="positive"):
        check_table(x, np.zeros(3), [1.0, 0.0, 1.0])
    with pytest.raises(bn.InputError, match="features"):
        as_matrix(x, "X", columns=2)


def test_missing_targets_and_weights_in_rows():
    x = np.arange(5.0)[:, None]
    y = np.array([[np.nan, 1.0], [2.0, np.nan], [3.0, 3.0], [7.0, 4.0], [0.0, 5.0]])
    weight = np.array([1.0, 2.0, 0.0, 1.0, 1.0])
    plain = Scaling.from_data(x, y)
    np.testing.assert_allclose(plain.y_loc, np.nanmean(y, axis=0))
    np.testing.assert_allclose(plain.y_scale, np.nanstd(y, axis=0))
    scaling = Scaling.from_data(x, y, weight=weight)
    np.testing.assert_allclose(scaling.x_loc, np.average(x[:, 0], weights=weight))
    seen = np.array([2.0, 2.0, 7.0, 0.0])  # of the first target: twice row 1, never row 2
    np.testing.assert_allclose(scaling.y_loc[0], seen.mean())
    np.testing.assert_allclose(scaling.y_scale[0], seen.std())
    data = make_data(x, y, None, scaling, weight=weight)
    share = np.asarray(data.rows.share())
    np.testing.assert_array_equal(share[:5, 0], [0, 2, 0, 1, 1])
    np.testing.assert_array_equal(share[:5, 1], [1, 0, 0, 1, 1])
    assert (share[5:] == 0).all()
    assert np.isfinite(data.rows.y).all()
    np.testing.assert_allclose(scaling.y_out(data.y), y, rtol=1e-5, atol=1e-6)


def test_a_whole_table_has_no_arrays_of_weights_or_holes():
    """So that ordinary tables run the program that they always did."""
    x = np.arange(5.0)[:, None]
    rows = make_data(x, x, None, Scaling.from_data(x, x)).rows
    assert rows.weight is None
    assert rows.observed is None
    assert len(jax.tree.leaves(rows)) == 3


def test_variances_of_missing_targets_are_not_read():
    x = np.arange(3.0)[:, None]
    y = np.array([1.0, np.nan, 2.0])
    _, _, variance = check_table(x, y, [0.5, np.nan, 0.7], missing=True)
    assert np.isfinite(variance).all()
    with pytest.raises(bn.InputError, match="must be positive"):
        check_table(x, y, [0.5, 1.0, np.nan], missing=True)


def test_what_a_mask_hides_is_missing():
    values = np.ma.masked_array([[1.0], [2.0], [1e6]], mask=[[0], [0], [1]])
    with pytest.raises(bn.InputError, match="first at row 2"):
        as_matrix(values, "X")
    np.testing.assert_array_equal(as_matrix(values, "y", missing=True), [[1.0], [2.0], [np.nan]])
    np.testing.assert_array_equal(as_matrix(values[:2], "X"), [[1.0], [2.0]])


def test_the_value_that_is_no_number_is_named():
    class Frame:
        columns = ("a", "b")

        def to_numpy(self):
            return np.array([[1.0, 2.0], [3.0, "high"]], object)

    with pytest.raises(bn.InputError, match=r"such as 'high' in column 'b'"):
        as_matrix(Frame(), "X")


@pytest.mark.parametrize(
    "value", ["many", np.array(["a", "b"]), [[1.0, "b"]], [None, "b"], {"a": 1}]
)
def test_what_is_no_matrix_of_numbers_is_refused(value):
    with pytest.raises(bn.InputError, match="must hold numbers"):
        as_matrix(value, "X")
