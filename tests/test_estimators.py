"""The scikit-learn estimators: what the checks of tests/test_sklearn_checks.py do not look at."""

import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures

import bayesnet as bn

pytestmark = pytest.mark.filterwarnings("ignore::bayesnet.ConvergenceWarning")

TINY = bn.HMC(chains=2, warmup=50, draws=50, max_steps=16)


def unmatched(in_dim: int, out_dim: int) -> bn.NetworkPrior:
    """A prior that needs no matching: quick, and of any dimension."""
    return bn.NetworkPrior(bn.MLP((20,)), in_dim=in_dim, out_dim=out_dim)


def small(**changes):
    return bn.BNNRegressor(unmatched, TINY, **{"random_state": 0, **changes})


def table(n=30, d=2, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    return x, 10 + 3 * np.sin(x[:, 0]) + 0.1 * rng.normal(size=n)


def small_classifier(**changes):
    return bn.BNNClassifier(unmatched, TINY, **{"random_state": 0, **changes})


def test_predictions_have_the_shape_of_y():
    x, y = table()
    fitted = small().fit(x, y)
    mean, std = fitted.predict(x, return_std=True)
    assert mean.shape == std.shape == (30,)
    assert (std > 0).all()
    quantiles = fitted.predict_quantiles(x, (0.1, 0.5, 0.9))
    assert quantiles.shape == (30, 3)
    assert (np.diff(quantiles, axis=1) > 0).all()
    assert fitted.score(x, y) > 0.5

    two = small().fit(x, np.stack([y, -y], axis=1))
    assert two.predict(x).shape == (30, 2)
    assert two.predict_quantiles(x, 0.5).shape == (30, 2, 1)


def test_predictions_are_those_of_the_posterior_in_units_of_y():
    x, y = table()
    fitted = small().fit(x, y)
    prediction = fitted.posterior_.predict(x)
    assert np.array_equal(fitted.predict(x), prediction.mean[:, 0])
    assert np.array_equal(fitted.predict_distribution(x).std, prediction.std)


@pytest.mark.parametrize("names", [np.array(["no", "yes"]), np.array([False, True])])
def test_classes_have_probabilities_and_keep_their_type(names):
    x, _ = table(40)
    y = names[(x[:, 0] > 0).astype(int)]
    fitted = small_classifier().fit(x, y)
    assert fitted.classes_.tolist() == names.tolist()
    assert fitted.classes_.dtype == y.dtype
    probabilities = fitted.predict_proba(x)
    prediction = fitted.posterior_.predict(x)
    assert isinstance(prediction, bn.ClassPrediction)
    assert np.array_equal(probabilities, prediction.mean)
    assert np.array_equal(fitted.predict(x), names[probabilities.argmax(1)])
    assert fitted.score(x, y) > 0.8
    assert fitted.posterior_.likelihood == bn.BernoulliLikelihood(tuple(names.tolist()))


@pytest.mark.slow
def test_three_classes_with_label_noise_and_weights():
    x, _ = table(40)
    y = np.digitize(x[:, 0], [-0.5, 0.5]) * 10
    weight = np.where(y == 20, 0.0, 1.0)
    likelihood = bn.CategoricalLikelihood(label_noise=0.05)
    fitted = small_classifier(likelihood=likelihood).fit(x, y, sample_weight=weight)
    assert fitted.classes_.tolist() == [0, 10, 20]
    assert fitted.posterior_.prior.out_dim == 3
    # The class whose rows count for nothing keeps what the prior gives it, and no more.
    assert (fitted.predict(x) != 20).all()


def test_a_classifier_takes_labels_and_a_regressor_numbers():
    x, y = table()
    with pytest.raises(bn.InputError, match=r"use bn\.BNNClassifier"):
        small(likelihood="categorical").fit(x, y)
    with pytest.raises(bn.InputError, match=r"or bn\.BNNRegressor"):
        small_classifier(likelihood="gaussian").fit(x, y > 10)
    with pytest.raises(bn.UnsupportedError, match="no use for y_var"):
        small(likelihood="student_t").fit(x, y, y_var=np.ones(30))


def test_random_state_decides_the_draws():
    x, y = table()
    first, again = (small().fit(x, y).predict(x) for _ in range(2))
    other = small(random_state=1).fit(x, y).predict(x)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_clone_and_pickle():
    x, y = table()
    fitted = small().fit(x, y)
    copy = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(copy.predict(x), fitted.predict(x))
    fresh = clone(fitted)
    assert fresh.get_params()["inference"] == TINY
    with pytest.raises(NotFittedError):
        fresh.predict(x)


def test_in_a_pipeline_the_prior_learns_its_dimension():
    x, y = table()
    model = make_pipeline(PolynomialFeatures(2, include_bias=False), small())
    scores = cross_val_score(model, x, y, cv=2)
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()


def test_column_names_of_a_frame_are_kept_and_checked():
    pandas = pytest.importorskip("pandas")
    x, y = table()
    frame = pandas.DataFrame(x, columns=["a", "b"])
    fitted = small().fit(frame, y)
    assert list(fitted.feature_names_in_) == ["a", "b"]
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(frame[["b", "a"]])


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"inference": "hcm"}, "Did you mean 'hmc'"), ({"device": "gpu:x"}, "number after the colon")],
)
def test_a_wrong_setting_is_named(changes, words):
    settings = {"prior": unmatched, "inference": TINY, **changes}
    with pytest.raises(bn.InputError, match=words):
        bn.BNNRegressor(**settings).fit(*table())


def test_without_scikit_learn_the_error_names_the_extra():
    code = textwrap.dedent(
        """
        import sys
        sys.modules["sklearn"] = None  # as if it were not installed
        import bayesnet as bn
        try:
            bn.BNNRegressor
        except bn.MissingExtraError as error:
            print(error)
        """
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install bayesnet[sklearn]" in out.stdout


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (["egg", "ham"], ("egg", "ham", "spinach")),  # longer than any that was seen
        (["a", "b"], ("a", "b", "a2")),
        ([False, True], (0, 1, 2)),
        (np.array([0, 1], np.int8), (0, 1, 1000)),
    ],
)
def test_stated_classes_are_kept_as_they_are(y, classes):
    x = table(12)[0]
    model = small_classifier(likelihood=bn.CategoricalLikelihood(classes=classes))
    fitted = model.fit(x, np.asarray(y)[np.arange(12) % 2])
    assert fitted.classes_.tolist() == list(classes)
    assert set(fitted.predict(x)) <= set(classes)


def test_weights_for_classes_are_no_regressor():
    x, y = table()
    with pytest.raises(bn.InputError, match=r"bn\.PFNClassifier"):
        bn.PFNRegressor("classifier").fit(x, (y > 10) * 1.0)


def test_log_probabilities():
    x, y = table()
    fitted = small_classifier().fit(x, y > 10)
    np.testing.assert_allclose(np.exp(fitted.predict_log_proba(x)), fitted.predict_proba(x))


def test_settings_of_the_method_are_parameters():
    model = small()
    params = model.get_params()
    assert (params["inference"], params["inference__draws"]) == (TINY, 50)
    assert "inference__draws" not in model.get_params(deep=False)
    model.set_params(inference__draws=7, inference__chains=1, random_state=3)
    assert model.inference == bn.HMC(chains=1, warmup=50, draws=7, max_steps=16)
    assert (TINY.draws, model.random_state) == (50, 3)
    model.set_params(inference="nuts", inference__draws=8)  # first the method, then its setting
    assert model.inference == bn.NUTS(draws=8)
    named = bn.BNNRegressor(likelihood="student_t")
    assert named.get_params()["inference__draws"] == bn.HMC().draws
    assert named.inference == "hmc"  # kept as it was given
    assert named.set_params(inference__draws=9).inference == bn.HMC(draws=9)
    assert clone(named).get_params() == named.get_params()
    for wrong, words in (
        ({"inference__drws": 3}, "Did you mean 'draws'"),
        ({"likelihood__x": 1}, "Unknown setting of likelihood"),
        ({"nothing": 1}, "Invalid parameter"),
    ):
        with pytest.raises(ValueError, match=words):
            small(likelihood="gaussian").set_params(**wrong)
    assert "inference__draws" not in bn.BNNRegressor(inference="pfn").get_params()
    assert set(bn.PFNRegressor().get_params()) == set(bn.PFNRegressor().get_params(deep=False))


def test_a_grid_search_over_settings_of_the_method_and_widths():
    x, y = table(16)
    process = bn.GaussianProcess("rbf", 1.0)
    model = bn.BNNRegressor(process, bn.Exact(restarts=0), random_state=0)
    search = GridSearchCV(model, {"inference__restarts": [0, 1]}, cv=2, refit=False).fit(x, y)
    assert [p["inference__restarts"] for p in search.cv_results_["params"]] == [0, 1]
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize("hidden", [(4, 3), [4, 3], np.array([4, 3])])
def test_hidden_are_the_widths_of_the_default_network(hidden):
    model = bn.BNNRegressor(hidden=hidden)
    assert model.get_params()["hidden"] is hidden
    assert model._resolve_prior(2, 1) == bn.MLP((4, 3), "tanh")
    assert bn.BNNClassifier(hidden=5)._resolve_prior(2, 1) == bn.MLP((5,), "tanh")
    with pytest.raises(bn.InputError, match="leave it out where a prior is given"):
        small(hidden=hidden).fit(*table())
    with pytest.raises(ValueError, match="hidden"):
        bn.BNNRegressor(hidden=0).fit(*table())


@pytest.mark.parametrize("make", [small, small_classifier, bn.PFNRegressor, bn.PFNClassifier])
def test_text_is_refused_with_the_way_out(make):
    pandas = pytest.importorskip("pandas")
    x, y = table(12)
    frame = pandas.DataFrame({"dose": x[:, 0], "colour": ["red", "blue"] * 6})
    mixed = [[a, "red"] for a in x[:, 0]]
    for X, name in (
        (frame, "'colour'"),
        (frame.astype({"colour": "category"}), "'colour'"),
        (frame.to_numpy(), "1"),
        (mixed, "1"),
        (np.full((12, 1), "2020_01"), "0"),
    ):
        with pytest.raises(bn.InputError, match=rf"column {name} holds text.*OneHotEncoder"):
            make().fit(X, y > 10)


def test_the_way_out_for_text_works():
    pandas = pytest.importorskip("pandas")
    x, y = table(12)
    frame = pandas.DataFrame({"dose": x[:, 0], "colour": ["red", "blue"] * 6})
    encode = make_column_transformer(
        (OneHotEncoder(sparse_output=False), ["colour"]), remainder="passthrough"
    )
    model = bn.BNNRegressor(bn.GaussianProcess("rbf", 1.0), "exact", random_state=0)
    assert make_pipeline(encode, model).fit(frame, y).predict(frame).shape == (12,)


def test_weights_are_repeated_rows_of_a_process():
    x, y = table(12)
    weight = np.arange(12) % 3
    repeated = np.repeat(np.arange(12), weight)
    process = bn.GaussianProcess("rbf", 1.0)
    for make, targets, answer, tolerance in (
        (bn.BNNRegressor, y, "predict", 1e-6),
        (bn.BNNClassifier, y > 10, "predict_proba", 1e-6),
    ):
        model = make(process, "exact" if make is bn.BNNRegressor else "process_laplace")
        weighted = clone(model).fit(x, targets, sample_weight=weight)
        again = clone(model).fit(x[repeated], targets[repeated])
        found, expected = getattr(weighted, answer)(x), getattr(again, answer)(x)
        np.testing.assert_allclose(found, expected, atol=tolerance)
