"""The PFN classifier of scikit-learn: what the checks of tests/test_sklearn_checks.py do not look at."""

import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_val_score

import bayesnet as bn
from bayesnet.pfn import ClassPFN
from bayesnet.pfn.class_network import ClassTransformer


@pytest.fixture(scope="module")
def untrained():
    import jax

    network = ClassTransformer.create(
        jax.random.key(0), max_dim=10, max_classes=4, width=8, depth=1, heads=2, hidden=8
    )
    card = {"name": "untrained", "buckets": (20,), "dims": (1,), "steps": 0}
    return ClassPFN(network, card)


def test_classes_keep_their_type_and_the_model_is_copied(untrained, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 12))  # more rows and columns than it takes
    for names in (np.array(["no", "yes"]), np.array([False, True]), np.array([3.0, 7.0])):
        y = names[np.arange(30) % 2]
        model = bn.PFNClassifier(untrained, random_state=0).fit(x, y)
        assert model.classes_.dtype == names.dtype
        assert set(model.predict(x)) <= set(names)
        p = model.predict_proba(x)
        np.testing.assert_allclose(p.sum(axis=1), 1)
        assert isinstance(model.predict_distribution(x), bn.ClassPrediction)
        assert np.array_equal(pickle.loads(pickle.dumps(model)).predict_proba(x), p)
        assert np.array_equal(clone(model).fit(x, y).predict_proba(x), p)
    untrained.save(tmp_path / "w.safetensors")
    again = bn.PFNClassifier(str(tmp_path / "w.safetensors"), random_state=0).fit(x, y)
    np.testing.assert_allclose(again.predict_proba(x), p, atol=0.02)
    for options, message in (
        ({"longer": "error"}, "at most 20"),
        ({"wider": "error"}, "at most 10"),
    ):
        with pytest.raises(ValueError, match=message):
            bn.PFNClassifier(untrained, **options).fit(x, y)
    with pytest.raises(ValueError, match="at most 4"):
        bn.PFNClassifier(untrained).fit(x, np.arange(30) % 5)


@pytest.mark.slow
def test_the_shipped_weights_tell_irises_apart():
    x, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    scores = cross_val_score(bn.PFNClassifier(random_state=0), x[order], y[order], cv=3)
    assert scores.mean() > 0.93
