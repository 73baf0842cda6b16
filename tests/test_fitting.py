"""`fit` from end to end: bad input before any compute, and awkward tables that must work."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest

import bayesnet as bn
from bayesnet import defaults

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(8, 2)), RNG.normal(size=8)
PRIOR = bn.NetworkPrior(bn.MLP((4,)), in_dim=2)
SHORT = bn.HMC(chains=2, warmup=25, draws=25)


class OnlySamples:
    """A user's own process: enough for matching, not for sampling."""

    def sample(self, key, x, num_samples):
        return np.zeros((num_samples, len(x), 1))


BAD = {
    "X with NaN": ({"X": np.where(X > 1, np.nan, X)}, "X holds NaN"),
    "X with infinity": ({"X": np.where(X > 1, np.inf, X)}, "X holds NaN or infinity"),
    "y with NaN": ({"y": np.where(Y > 0, np.nan, Y)}, "y holds NaN"),
    "y with infinity": ({"y": np.where(Y > 0, -np.inf, Y)}, "y holds NaN or infinity"),
    "no rows": ({"X": X[:0], "y": Y[:0]}, "0 sample"),
    "X of words": ({"X": [["a", "b"]] * 8}, "X must hold numbers"),
    "y of words": ({"y": ["a"] * 8}, "y must hold numbers"),
    "y of another length": ({"y": Y[:5]}, "8 rows but y has 5"),
    "columns": ({"X": X[:, :1]}, "for 2 inputs, the table has 1"),
    "outputs": ({"y": np.c_[Y, Y]}, "for 1 outputs, the table has 2"),
    "y_var negative": ({"y_var": -np.ones(8)}, "positive"),
    "y_var shape": ({"y_var": np.ones(5)}, "y_var"),
    "method by name": ({"inference": "hmcc"}, "Did you mean 'hmc'"),
    "method by type": ({"inference": 3}, "inference must be"),
    "method as class": ({"inference": bn.HMC}, "inference must be"),
    "unknown likelihood": ({"likelihood": "gausian"}, "Did you mean 'gaussian'"),
    "likelihood as class": ({"likelihood": bn.GaussianLikelihood}, "likelihood must be"),
    "seed": ({"seed": "zero"}, "seed must be"),
    "init": ({"init": "before"}, "init must be"),
    "device": ({"device": "abacus"}, "abacus"),
    "prior": ({"prior": "mlp"}, "Cannot use str as a network"),
    "prior as class": ({"prior": bn.MLP}, "not its class"),
    "process matched to a process": (
        {"prior": bn.GaussianProcess(), "target": bn.GaussianProcess()},
        "matched by a network prior",
    ),
}


@pytest.fixture
def no_compute(monkeypatch):
    """Matching and sampling fail the test if they are reached."""

    def reached(*args, **kwargs):
        raise AssertionError("computing began before the input was checked")

    import bayesnet.inference._sampling as sampling

    monkeypatch.setattr(sampling, "run_chains", reached)
    monkeypatch.setattr(defaults, "match_prior", reached)
    monkeypatch.setattr(defaults, "load", reached)


@pytest.mark.parametrize("prior", ["given", "default"])
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_before_any_compute(case, prior, no_compute):
    changes, words = BAD[case]
    call = {"prior": PRIOR if prior == "given" else None, "X": X, "y": Y} | changes
    if prior == "default" and case in ("columns", "outputs"):
        pytest.skip("the default prior takes the dimensions of the table")
    with pytest.raises(bn.InputError, match=words):
        bn.fit(**call)


@pytest.mark.parametrize("method", ["hmc", "nuts"])
@pytest.mark.parametrize("prior", [bn.GaussianProcess("rbf"), OnlySamples()])
def test_a_prior_that_the_method_cannot_condition(prior, method, no_compute):
    with pytest.raises(bn.UnsupportedError, match=r"network priors.*match_prior"):
        bn.fit(prior, X, Y, inference=method)


@pytest.mark.parametrize(
    "knobs",
    [
        {"chains": 0},
        {"chains": 2.5},
        {"draws": -1},
        {"draws": "many"},
        {"thin": 0},
        {"warmup": -1},
        {"target_acceptance": 1.0},
        {"target_acceptance": np.nan},
    ],
)
@pytest.mark.parametrize("cls", [bn.HMC, bn.NUTS])
def test_impossible_settings(cls, knobs):
    with pytest.raises(bn.InputError, match=next(iter(knobs))):
        cls(**knobs)


def test_impossible_lengths():
    with pytest.raises(bn.InputError, match="max_steps"):
        bn.HMC(max_steps=0)
    with pytest.raises(bn.InputError, match="max_depth"):
        bn.NUTS(max_depth=0)


AWKWARD = {
    "one row": (X[:1], Y[:1]),
    "constant y": (X, np.full(8, 7.0)),
    "constant columns": (np.c_[np.ones(8), np.zeros(8)], Y),
    "duplicate rows": (np.repeat(X[:2], 4, axis=0), Y),
    "tiny units": (X * 1e-20, Y * 1e-25),
    "huge units": (X * 1e20, Y * 1e25),
    "whole numbers": (np.arange(16).reshape(8, 2), np.arange(8)),
}


@pytest.mark.parametrize("case", AWKWARD)
def test_awkward_tables_give_a_finite_posterior(case):
    x, y = AWKWARD[case]
    post = bn.fit(PRIOR, x, y, inference=SHORT, warn=False)
    pred = post.predict(x)
    assert np.isfinite(post.latents).all()
    assert np.isfinite(pred.log_prob(y)).all()
    assert (pred.std > 0).all()
    assert np.isfinite(pred.std).all()
    assert np.abs(pred.mean[:, 0] - np.mean(y)).max() < 5 * max(np.std(y), 1e-9) + 5 * (
        np.ptp(y) == 0
    )
    assert "R-hat" in str(post.diagnostics())


@pytest.mark.parametrize(
    ("y", "weight"),
    [
        ([0.3, 0.1 + 0.2] * 4, None),  # constant up to rounding
        ([1.0] * 7 + [5.0], [1.0] * 7 + [0.0]),  # where rows count
    ],
)
def test_a_target_without_a_scale_is_pointed_out(y, weight):
    process = bn.GaussianProcess("rbf", 1.0)
    with pytest.warns(UserWarning, match="y is constant"):
        bn.fit(process, X, y, inference="exact", sample_weight=weight)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bn.fit(process, X, Y, inference="exact", sample_weight=weight)


def test_a_constant_target_is_pointed_out_before_any_compute():
    with (
        pytest.warns(UserWarning, match="y is constant"),
        pytest.raises(bn.InputError, match="The prior is for 2 inputs"),
    ):
        bn.fit(PRIOR, X[:, :1], np.full(8, 7.0))


def test_frames_and_lists_give_the_same_posterior():
    pd = pytest.importorskip("pandas")
    expected = bn.fit(PRIOR, X, Y, inference=SHORT, warn=False)
    frame = pd.DataFrame(X, columns=["a", "b"])
    for x, y in ((frame, pd.Series(Y)), (X.tolist(), Y.tolist()), (X, Y[:, None])):
        post = bn.fit(PRIOR, x, y, inference=SHORT, warn=False)
        np.testing.assert_array_equal(post.latents, expected.latents)
    np.testing.assert_array_equal(expected.predict(frame).mean, expected.predict(X).mean)


def test_units_of_the_data_are_not_scaled():
    prior = bn.NetworkPrior(bn.MLP((4,)), in_dim=2, units="data")
    scaling = bn.fit(prior, 10 + X, 10 + Y, inference=SHORT, warn=False).data.scaling
    np.testing.assert_array_equal(scaling.x_loc, 0)
    np.testing.assert_array_equal(scaling.y_scale, 1)


def test_progress_goes_to_stderr_and_only_when_asked(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    bn.fit(PRIOR, X, Y, inference=SHORT, warn=False)
    quiet = capsys.readouterr()
    assert quiet.out == quiet.err == ""
    bn.fit(PRIOR, X, Y, inference=SHORT, warn=False, progress=True)
    assert capsys.readouterr().out == ""
