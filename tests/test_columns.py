"""Names of columns: whatever was fitted to a frame puts later frames in its order, and refuses others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from typer.testing import CliRunner

import bayesnet as bn
from bayesnet._columns import NamedRows, names_in, names_of
from bayesnet._matrix import as_matrix
from bayesnet.cli.app import app
from bayesnet.posterior.saving import load, save
from tests.pfn.small import random_pfn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 2)) * [1.0, 5.0] + [0.0, 20.0]
Y = np.sin(X[:, 0]) + 0.1 * X[:, 1]
FRAME = pd.DataFrame(X, columns=["pressure", "heat"], index=range(5, 17))
TURNED = FRAME[["heat", "pressure"]]
GP = bn.GaussianProcess("matern52", 1.5)
TINY = bn.HMC(chains=1, warmup=2, draws=2, max_steps=2)
LABELS = np.where(Y.mean() < Y, "high", "low")


def exact(x):
    return bn.fit(GP, x, Y, inference="exact", warn=False)


def trained(x):
    kernel = bn.kernels.NTK(
        bn.kernels.Serial(bn.kernels.Dense(), bn.kernels.Activation("relu"), bn.kernels.Dense())
    )
    return bn.fit(kernel, x, Y, inference=bn.NTKEnsemble(), warn=False)


def draws(x):
    prior = bn.NetworkPrior(bn.MLP(hidden=(3,)), "gaussian", 2, 1)
    return bn.fit(prior, x, Y, inference=TINY, warn=False)


def laplace(x):
    return bn.fit(GP, x, LABELS, likelihood="bernoulli", inference="process_laplace", warn=False)


def sparse(x):
    method = bn.SparseVariational(inducing=4, steps=10)
    return bn.fit(GP, x, LABELS, likelihood="bernoulli", inference=method, warn=False)


def pfn(x):
    return random_pfn().fit(x, Y, warn=False)


def views(x):
    return random_pfn().fit(x, Y, warn=False, ensemble=2)


def classifier(x):
    return bn.PFN.from_pretrained("classifier").fit(x, LABELS, warn=False)


def amortised(x):
    return bn.fit(None, x, Y, inference="amortised", warn=False)


SLOW = [pytest.param(f, marks=pytest.mark.slow) for f in (sparse, views, amortised)]
EVERY = [exact, trained, draws, laplace, pfn, classifier, *SLOW]


@pytest.mark.parametrize("fitted", EVERY)
def test_every_posterior_keeps_the_names_of_its_columns(fitted, tmp_path):
    posterior = fitted(FRAME)
    expected = posterior.predict(X[:3]).mean
    save(posterior, tmp_path / "model")
    for post in (posterior, load(tmp_path / "model")):
        assert names_in(post) == ("pressure", "heat")
        assert_array_equal(post.predict(FRAME[:3]).mean, expected)
        assert_array_equal(post.predict(TURNED[:3]).mean, expected)
        with pytest.raises(bn.InputError, match="missing 'heat'; unknown 'cold'"):
            post.predict(TURNED.rename(columns={"heat": "cold"}))
        with pytest.raises(bn.InputError, match="unknown 'extra'"):
            post.predict(TURNED.assign(extra=1.0))
        with pytest.raises(bn.InputError, match="missing 'heat'"):
            post.predict(FRAME[["pressure"]])


def test_other_methods_take_frames_in_the_order_of_the_table():
    post = exact(FRAME)
    for method in (lambda x: post.functions(x, 3), lambda x: post.joint(x)[1]):
        assert_array_equal(method(TURNED[:3]), method(X[:3]))
    samples = draws(FRAME)
    assert_array_equal(samples.functions(TURNED[:3]), samples.functions(X[:3]))
    hidden = laplace(FRAME)
    assert_array_equal(hidden.functions(TURNED[:3]), hidden.functions(X[:3]))


@pytest.mark.slow
def test_joint_laws_of_pfns_take_frames_in_the_order_of_the_table():
    net = pfn(FRAME)
    assert_array_equal(net.sample_paths(TURNED[:3], 2), net.sample_paths(X[:3], 2))
    assert_array_equal(net.correlations(TURNED[:3])[0], net.correlations(X[:3])[0])
    many = views(FRAME)
    assert_array_equal(many.sample_paths(TURNED[:3], 2), many.sample_paths(X[:3], 2))


@pytest.mark.slow
def test_inducing_rows_may_be_a_frame():
    def mean(rows):
        method = bn.SparseVariational(inducing=rows, steps=10)
        post = bn.fit(GP, FRAME, LABELS, likelihood="bernoulli", inference=method, warn=False)
        return post.predict(X[:3]).mean

    assert_array_equal(mean(TURNED[:4]), mean(X[:4]))


def test_a_table_without_names_takes_frames_as_they_are():
    post = exact(X)
    assert names_in(post) is None
    assert_array_equal(post.predict(TURNED[:3]).mean, post.predict(TURNED[:3].to_numpy()).mean)


def test_a_table_is_put_in_the_order_of_the_scaling_or_of_the_start():
    first = draws(FRAME)
    again = bn.fit(first.prior, TURNED, Y, inference=TINY, init=first, warn=False)
    assert names_in(again) == ("pressure", "heat")
    assert_array_equal(again.data.x, first.data.x)
    same = bn.fit(GP, TURNED, Y, inference="exact", scaling=first.data.scaling, warn=False)
    assert_array_equal(same.x, exact(X).x)


@pytest.mark.slow
def test_many_tables_may_be_frames():
    net = random_pfn()
    ours = net.predict_many([FRAME, TURNED], [Y, Y], [TURNED[:3], TURNED[:3]])
    plain = net.predict_many([X, X[:, ::-1]], [Y, Y], [X[:3], X[:3, ::-1]])
    for a, b in zip(ours, plain, strict=True):
        assert_array_equal(a.mean, b.mean)


def test_estimators_hand_names_to_their_posterior():
    model = bn.BNNRegressor(GP, "exact", random_state=0).fit(FRAME, Y)
    assert names_in(model.posterior_) == ("pressure", "heat")
    assert_array_equal(model.posterior_.predict(TURNED[:3]).mean[:, 0], model.predict(FRAME[:3]))


@pytest.mark.slow
def test_estimators_of_trained_weights_hand_names_to_their_posterior():
    model = bn.PFNRegressor(random_state=0).fit(FRAME, Y)
    assert_array_equal(model.posterior_.predict(TURNED[:3]).mean[:, 0], model.predict(FRAME[:3]))
    labels = bn.PFNClassifier(ensemble=1, temperature=1.0, random_state=0).fit(FRAME, LABELS)
    assert names_in(labels.posterior_) == ("pressure", "heat")


def test_the_command_line_and_python_agree_on_names(tmp_path):
    FRAME.assign(y=Y).to_csv(tmp_path / "data.csv", index=False)
    TURNED.to_csv(tmp_path / "new.csv", index=False)

    def call(*args):
        result = CliRunner().invoke(app, [str(tmp_path / a) if "." in a else a for a in args])
        assert result.exit_code == 0, result.output
        return result.stdout

    call("fit", "data.csv", "-t", "y", "--inference", "exact")
    post = load(tmp_path / "data.bayesnet")["posterior"]
    assert_array_equal(post.predict(TURNED).mean, post.predict(X).mean)
    post.save(tmp_path / "python.bayesnet")
    for model in ("data.bayesnet", "python.bayesnet"):
        first = call("predict", model, "new.csv").splitlines()[1]
        assert_allclose(float(first.split(",")[0]), post.predict(X[:1]).mean[0, 0], rtol=1e-5)


def test_conditioned_processes_know_the_columns_of_their_rows():
    known = GP.condition(FRAME[:2], Y[:2])
    assert_array_equal(known.moments(TURNED[:4])[0], known.moments(X[:4])[0])
    assert_array_equal(known.sample(0, TURNED[:4], 2), known.sample(0, X[:4], 2))


def test_a_loop_keeps_names():
    bounds = np.stack([X.min(0) - 1, X.max(0) + 1])
    named = pd.DataFrame(bounds[:, ::-1], columns=["heat", "pressure"])
    ours = bn.bo.suggest_from_pool(
        (FRAME, Y), TURNED[:5] + 0.1, surrogate="exact", prior=GP, bounds=named,
        X_pending=TURNED[:1] + 9.0, X_baseline=TURNED,
    )  # fmt: skip
    away = bn.bo.suggest_from_pool(
        (X, Y), X[:5] + 0.1, surrogate="exact", prior=GP, bounds=bounds, X_pending=X[:1] + 9.0, X_baseline=X
    )  # fmt: skip
    assert_array_equal(ours, away)
    settings = bn.bo.LoopSettings("exact", GP)
    state = bn.bo.LoopState(bounds, settings).update(FRAME, Y)
    again = state.update(TURNED, Y)
    assert again.names == ("pressure", "heat") == names_in(again.posterior)
    assert_array_equal(again.model.train_inputs[0], X)
    with pytest.raises(bn.InputError, match="unknown 'cold'"):
        state.update(FRAME.rename(columns={"heat": "cold"}), Y)
    with pytest.raises(bn.InputError, match="candidates has other columns"):
        bn.bo.suggest_from_pool(state, FRAME.rename(columns={"heat": "cold"}))


def test_names_of_any_kind():
    whole = pd.DataFrame(X, columns=[2016, 2017])
    assert_array_equal(as_matrix(whole[[2017, 2016]], "X", known=names_of(whole)), X)
    deep = pd.DataFrame(X, columns=pd.MultiIndex.from_tuples([("a", 1), ("a", 2)]))
    assert names_of(deep) == (("a", 1), ("a", 2))
    dates = pd.DataFrame(X, columns=pd.to_datetime(["2020-01-01", "2020-01-02"]))
    assert_array_equal(as_matrix(dates.iloc[:, ::-1], "X", known=names_of(dates)), X)
    assert_array_equal(as_matrix(NamedRows(X[:, ::-1], ["b", "a"]), "X", known=("a", "b")), X)
    with pytest.raises(bn.InputError, match="several columns named 'a'"):
        exact(pd.DataFrame(X, columns=["a", "a"]))
    with pytest.raises(bn.InputError, match="repeated 'a'"):
        as_matrix(pd.DataFrame(X[:, [0, 0, 1]], columns=["a", "a", "b"]), "X", known=("a", "b"))
    with pytest.raises(bn.InputError, match="in column 'kind'"):
        exact(FRAME.assign(kind=pd.Categorical(["u", "v"] * 6)))
