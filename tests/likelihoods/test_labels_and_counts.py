"""Labels of any type, counts, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import bayesnet as bn
from bayesnet.likelihoods.labels import as_labels, codes_of

X = np.arange(4.0)[:, None]
PRIOR = bn.NetworkPrior(bn.MLP((3,)), in_dim=1)


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (["b", "a", "b", "a"], ("a", "b")),
        (np.array(["b", "a", "b", "a"], object), ("a", "b")),
        (np.array([True, False, True, False]), (False, True)),
        (np.array([1, 0, 1, 0], np.int8), (0, 1)),
        (np.array([7.0, -3.0, 7.0, -3.0], np.float32), (-3.0, 7.0)),
        ([[5], [2], [5], [2]], (2, 5)),
    ],
)
def test_labels_of_any_type_are_encoded_and_kept(y, classes):
    for likelihood in (bn.BernoulliLikelihood(), bn.CategoricalLikelihood()):
        named, codes = likelihood.encode(y)
        assert named.classes == classes
        assert {type(c) for c in named.classes} <= {str, bool, int, float}
        np.testing.assert_array_equal(codes, [[1.0], [0.0], [1.0], [0.0]])
        again, same = named.encode(y)
        assert again == named
        np.testing.assert_array_equal(same, codes)


def test_frames_and_tensors_of_labels():
    pd = pytest.importorskip("pandas")
    for y in (pd.Series(["u", "v", "u"]), pd.Series(["u", "v", "u"], dtype="category")):
        named, codes = bn.CategoricalLikelihood().encode(y)
        assert named.classes == ("u", "v")
        np.testing.assert_array_equal(codes[:, 0], [0, 1, 0])
    torch = pytest.importorskip("torch")
    named, _ = bn.CategoricalLikelihood().encode(torch.tensor([3, 1, 3]))
    assert named.classes == (1, 3)


def test_stated_classes_keep_their_order_and_may_be_absent():
    stated = bn.CategoricalLikelihood(classes=["low", "mid", "high"])
    named, codes = stated.encode(["high", "low", "high"])
    assert named == stated
    np.testing.assert_array_equal(codes[:, 0], [2, 0, 2])
    assert stated.num_outputs(1) == 3
    with pytest.raises(bn.InputError, match="'top' is not among the classes 'low', 'mid', 'high'"):
        stated.encode(["top"])
    with pytest.raises(bn.InputError, match="not known yet"):
        bn.CategoricalLikelihood().num_outputs(1)


def test_codes_of_many_classes_are_found():
    names = tuple(f"c{i}" for i in np.random.default_rng(0).permutation(50))
    labels = np.random.default_rng(1).choice(names, 200)
    assert [names[c] for c in codes_of(labels, names)] == labels.tolist()


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (["a", "a", "a"], "one class only"),
        ([0.5, 1.0], "numbers with a fraction"),
        ([0.0, np.inf], "numbers with a fraction"),
        ([1.0, np.nan], "missing label at row 1"),
        (["a", None], "missing label at row 1"),
        (np.array(["a", np.nan], object), "missing label at row 1"),
        (np.array(["a", 1], object), "mixes text and numbers"),
        (np.eye(3), "one class label a row"),
        ([], "one class label a row"),
        (np.array([b"a", b"b"]), "text, bools or whole numbers"),
        (np.array(["2020-01-01", "2021-01-01"], "datetime64[D]"), "text, bools or whole numbers"),
    ],
)
def test_unusable_labels(y, words):
    with pytest.raises(bn.InputError, match=words):
        bn.CategoricalLikelihood().encode(y)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: bn.BernoulliLikelihood(("a", "b", "c")), "for two classes, got 3"),
        (lambda: bn.BernoulliLikelihood().encode(["a", "b", "c"]), "CategoricalLikelihood"),
        (lambda: bn.CategoricalLikelihood(("a",)), "at least two different"),
        (lambda: bn.CategoricalLikelihood(("a", "a")), "at least two different"),
        (lambda: bn.CategoricalLikelihood(label_noise=1.0), r"in \[0, 1\)"),
        (lambda: bn.CategoricalLikelihood(label_noise=np.nan), r"in \[0, 1\)"),
        (lambda: bn.CategoricalLikelihood(label_noise=bn.LogNormal()), "bn.LogitNormal"),
        (lambda: bn.LogitNormal(0.0, 0.0), "scale positive"),
        (lambda: bn.LogitNormal("a", 1.0), "must be numbers"),
        (lambda: bn.StudentTLikelihood(df=0.0), "df must be positive"),
        (lambda: bn.StudentTLikelihood(scale=-1.0), "scale must be positive"),
        (lambda: bn.LaplaceLikelihood([1.0, 2.0]), "one number or law"),
        (lambda: bn.HeteroscedasticLikelihood(0.1), "must be a law"),
        (lambda: bn.PoissonLikelihood(0.0), "rate must be positive"),
        (lambda: bn.PoissonLikelihood(bn.LogNormal()), "one positive number"),
    ],
)
def test_impossible_settings(make, words):
    with pytest.raises(bn.InputError, match=words):
        make()


@pytest.mark.parametrize(
    ("y", "words"),
    [
        ([0, 1, -1, 2], "counts .* holds -1 at row 2, column 0"),
        ([0, 1, 2.5, 2], "holds 2.5 at row 2"),
        ([0, 1, 2, 1e9], "counts above"),
        (["a", "b", "a", "b"], "must hold numbers"),
        ([0, 1, np.nan, 2], "NaN"),
    ],
)
def test_what_is_no_count_is_refused_before_any_compute(y, words):
    with pytest.raises(bn.InputError, match=words):
        bn.fit(PRIOR, X, y, likelihood="poisson")


def test_laws_for_another_number_of_outputs():
    law = bn.LogNormal([0.0, 1.0], 0.5)
    with pytest.raises(bn.InputError, match="a law for 2 outputs, y has 1"):
        bn.fit(PRIOR, X, X[:, 0], likelihood=bn.LaplaceLikelihood(law))


def test_labels_stay_one_type():
    assert as_labels(np.array([1, 2], object)).dtype.kind == "i"
    with pytest.raises(bn.InputError, match="mixes text and numbers"):
        bn.CategoricalLikelihood(classes=("a", 1))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"sample_weight": [1, 1, 1]}, "one number a row, shape"),
        ({"sample_weight": [1, 1, 1, -1]}, "must not be negative"),
        ({"sample_weight": [0, 0, 0, 0]}, "zero for all rows"),
        ({"sample_weight": [1, 1, np.nan, 1]}, "sample_weight holds NaN"),
        ({"sample_weight": np.ones((4, 2))}, "one number a row"),
        ({"missing": "drop"}, "Unknown value of missing 'drop'"),
        ({"missing": "mask", "y": [1, 2, np.inf, 4]}, "y holds infinity"),
        ({"missing": "mask", "y": [np.nan] * 4}, "Column 0 of y has no observed value"),
        ({"missing": "error", "y": [1, 2, np.nan, 4]}, "NaN"),
        (
            {"missing": "mask", "y": [1, np.nan, np.nan, np.nan], "sample_weight": [0, 1, 1, 1]},
            "no value left",
        ),
    ],
)
def test_unusable_weights_and_missing_targets(table, words):
    y = table.pop("y", np.arange(4.0))
    with pytest.raises(bn.InputError, match=words):
        bn.fit(PRIOR, X, y, **table)


def test_missing_labels_of_pandas_text_and_of_masks_are_named():
    pd = pytest.importorskip("pandas")
    for y in (
        pd.Series(["a", "b", pd.NA], dtype="string"),
        np.ma.masked_array(["a", "b", "c"], mask=[0, 0, 1]),
        ["a", "b", None],
    ):
        with pytest.raises(bn.InputError, match="missing label at row 2"):
            as_labels(y)
