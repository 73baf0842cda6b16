"""The temperature of a classifier: what it does to probabilities, and how rows held out tell it."""

import equinox as eqx
import jax
import numpy as np
import pytest

import bayesnet as bn
from bayesnet.pfn import ClassPFN, class_temperature
from bayesnet.pfn.class_network import ClassTransformer


@pytest.fixture(scope="module")
def pfn():
    """With random weights, and a head that tells classes apart."""
    network = ClassTransformer.create(
        jax.random.key(0), max_dim=2, max_classes=3, width=8, depth=1, heads=2, hidden=8
    )
    head = jax.random.normal(jax.random.key(1), network.head.shape)
    card = {"name": "random", "buckets": (20,), "dims": (2,), "steps": 0}
    return ClassPFN(eqx.tree_at(lambda n: n.head, network, head), card)


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    return rng.normal(size=(17, 2)), np.arange(17) % 3, rng.normal(size=(5, 2))


def test_log_probabilities_are_divided_and_the_parts_of_the_entropy_stay(pfn, table):
    x, y, new = table
    plain, hot = (pfn.fit(x, y, ensemble=2, temperature=t).predict(new) for t in (1.0, 2.0))
    expected = plain.mean**0.5
    np.testing.assert_allclose(hot.mean, expected / expected.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(hot.mean.sum(axis=1), 1)
    assert (hot.entropy > plain.entropy).all()
    np.testing.assert_allclose(hot.aleatoric / hot.entropy, plain.aleatoric / plain.entropy)
    assert np.array_equal(hot.predicted, plain.predicted)
    cold = pfn.fit(x, y, temperature=0.01).predict(new)  # certain, and still finite
    assert np.isfinite(cold.aleatoric).all()
    np.testing.assert_allclose(cold.mean.max(axis=1), 1, atol=0.2)


def test_held_out_rows_are_predicted_by_the_other_folds(pfn, table):
    x, y, _ = table
    posterior = pfn.fit(x, y, ensemble=2)
    folds = class_temperature.folds_of(x, y)
    assert len(folds) == 10
    assert np.array_equal(np.sort(np.concatenate(folds)), np.arange(17))
    found = class_temperature.held_out(posterior, folds)
    for fold in folds:
        rest = np.setdiff1d(np.arange(17), fold)
        one = pfn.fit(x[rest], y[rest], classes=(0, 1, 2), ensemble=2).predict(x[fold])
        np.testing.assert_allclose(found[fold], one.mean, atol=1e-5)


def test_it_does_not_depend_on_the_order_of_rows(pfn, table):
    x, y, new = table
    order = np.random.default_rng(1).permutation(17)
    one = pfn.fit(x, y, temperature="cross-validated")
    other = pfn.fit(x[order], y[order], temperature="cross-validated")
    assert one.temperature != 1
    np.testing.assert_allclose(other.temperature, one.temperature, rtol=1e-3)
    many = pfn.predict_many(x[None], y[None], new[None], temperature="cross-validated")
    np.testing.assert_allclose(many[0].mean, one.predict(new).mean, atol=1e-5)


def said(p, codes, monkeypatch, pfn):
    """The temperature where rows held out have these probabilities."""
    monkeypatch.setattr(class_temperature, "held_out", lambda posterior, folds: p)
    x = np.random.default_rng(0).normal(size=(len(p), 2))
    return pfn.fit(x, codes, temperature="cross-validated").temperature


def test_too_cautious_is_cooled_and_too_sure_is_heated_to_the_mode(monkeypatch, pfn):
    codes = np.arange(20) % 2
    right, sure = np.where(np.eye(2)[codes], 0.7, 0.3), np.where(np.eye(2)[codes], 0.99, 0.01)
    sure[:6] = 1 - sure[:6]  # 30 % of them wrong
    for p, cooler in ((right, True), (sure, False)):
        found = said(p, codes, monkeypatch, pfn)
        assert (found < 1) is cooler
        grid = np.linspace(-2.5, 2.5, 5001)
        q = p[None] ** np.exp(-grid)[:, None, None]
        q = q / q.sum(axis=-1, keepdims=True)
        energy = -np.log(q[:, np.arange(20), codes]).sum(axis=1) + 2 * grid**2
        assert np.log(found) == pytest.approx(grid[energy.argmin()], abs=2e-3)


def test_rows_that_cannot_tell_do_not_count(monkeypatch, pfn):
    codes = np.array([0] * 10 + [1] * 9 + [2])
    p = np.where(np.eye(3)[codes], 0.6, 0.2)
    expected = said(p, codes, monkeypatch, pfn)
    p[-1] = (0.98, 0.01, 0.01)  # the only row of its class, when it is held out
    assert said(p, codes, monkeypatch, pfn) == expected
    few = pfn.fit(np.eye(5)[:, :2], np.arange(5) % 2, temperature="cross-validated")
    assert few.temperature == 1.0


def test_it_is_saved(pfn, table, tmp_path):
    x, y, new = table
    posterior = pfn.fit(x, y, temperature=0.5)
    posterior.save(tmp_path / "p.bayesnet")
    again = bn.load(tmp_path / "p.bayesnet")
    assert again.temperature == 0.5
    np.testing.assert_allclose(again.predict(new).mean, posterior.predict(new).mean, atol=1e-6)


@pytest.mark.parametrize("bad", [0, -1.0, float("nan"), float("inf"), True, None, "auto", [1.0]])
def test_what_is_no_temperature_is_refused(pfn, table, bad):
    with pytest.raises(bn.InputError, match="temperature is a positive number"):
        pfn.fit(*table[:2], temperature=bad)
