"""scikit-learn's own conformance checks, and what they do not look at."""

import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures
from sklearn.utils import estimator_checks

import bayesnet as bn

pytestmark = pytest.mark.filterwarnings("ignore::bayesnet.ConvergenceWarning")

TINY = bn.HMC(chains=2, warmup=50, draws=50, max_steps=16)

# Cheap checks over data in awkward forms, fitted-ness and cloning; the slow suite runs all.
QUICK = (
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_estimators_unfitted",
    "check_estimators_nan_inf",
    "check_n_features_in",
    "check_fit1d",
    "check_complex_data",
    "check_estimators_empty_data_messages",
)


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


# Weights and repeated rows give the same posterior (tests/test_data.py), not the same random draws.
EXPECTED = {"check_sample_weight_equivalence_on_dense_data": "draws are random"}


@pytest.mark.parametrize("name", QUICK)
def test_scikit_learn_check(name):
    getattr(estimator_checks, name)("BNNRegressor", small())


CLASSIFIER_QUICK = (
    "check_classifiers_one_label",
    "check_classifiers_regression_target",
    "check_all_zero_sample_weights_error",
    "check_no_attributes_set_in_init",
    "check_estimators_unfitted",
)


@pytest.mark.parametrize("name", CLASSIFIER_QUICK)
def test_scikit_learn_check_of_classifiers(name):
    getattr(estimator_checks, name)("BNNClassifier", small_classifier())


@pytest.mark.slow
@pytest.mark.parametrize("make", [small, small_classifier])
def test_every_scikit_learn_check(make):
    results = estimator_checks.check_estimator(
        make(), on_skip=None, on_fail=None, expected_failed_checks=EXPECTED
    )
    failed = [(r["check_name"], r["exception"]) for r in results if r["status"] == "failed"]
    assert failed == []
    assert len(results) > 40


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
