"""What objects say of themselves: one line, and never pages of numbers."""

import inspect
from pathlib import Path

import numpy as np
import pytest

import bayesnet as bn
from bayesnet._repr import brief
from bayesnet.data import Scaling

SAVED = sorted((Path(__file__).parent / "saved").glob("*/*.bayesnet"))
LONGEST = 450
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(40, 2))


def network_prior():
    return bn.NetworkPrior(bn.MLP((50, 50)), in_dim=2)


def process():
    return bn.GaussianProcess("rbf", np.linspace(0.5, 2, 2))


def is_a_line(thing):
    text = repr(thing)
    assert "\n" not in text
    assert len(text) < LONGEST, text
    assert "array(" not in text
    return text


# Public classes that `bn.load` and a fit make; each is among the saved files or made below.
FITTED = {"FunctionDraws", "ProcessPosterior", "Prediction", "ClassPrediction", "MatchResult"}
TRAINED = {"PFN", "AmortisedProcess"}
MADE = {
    "MLP": lambda: bn.MLP((50, 50)),
    "LeNet5": lambda: bn.LeNet5(),
    "PreResNet20": lambda: bn.PreResNet20(),
    "ResidualMLP": lambda: bn.ResidualMLP(width=20, depth=4),
    "GaussianProcess": process,
    "LinearMean": lambda: bn.LinearMean(),
    "LogNormal": lambda: bn.LogNormal(0.0, 1.0),
    "Normal": lambda: bn.Normal(0.0, 1.0),
    "ScaleMixture": lambda: bn.ScaleMixture(bn.GaussianProcess("rbf", 1.0), bn.InverseGamma(2, 2)),
    "InverseGamma": lambda: bn.InverseGamma(2.0, 2.0),
    "Gamma": lambda: bn.Gamma(2.0, 2.0),
    "BurrXII": lambda: bn.BurrXII(2.0, 2.0),
    "HalfCauchy": lambda: bn.HalfCauchy(1.0),
    "OnStd": lambda: bn.OnStd(bn.Gamma(2.0, 2.0)),
    "StatedPrior": lambda: bn.elicit(
        bn.statements.Monotone(0), bn.statements.Bounded(0, 1), X=ROWS
    ),
    "Sum": lambda: bn.Sum(process(), bn.GaussianProcess("linear", 1.0)),
    "NetworkPrior": network_prior,
    "Box": lambda: bn.Box([-2.0] * 2, [2.0] * 2),
    "Grid": lambda: bn.Grid(-2.0, 2.0),
    "Mix": lambda: bn.Mix(ROWS, bn.Near(ROWS, 0.1)),
    "Near": lambda: bn.Near(ROWS, 0.1),
    "RescaledPrior": lambda: bn.RescaledPrior(network_prior(), bn.LogNormal(0.0, 1.0)),
    "GaussianLikelihood": lambda: bn.GaussianLikelihood(),
    "HeteroscedasticLikelihood": lambda: bn.HeteroscedasticLikelihood(),
    "StudentTLikelihood": lambda: bn.StudentTLikelihood(),
    "LaplaceLikelihood": lambda: bn.LaplaceLikelihood(),
    "BernoulliLikelihood": lambda: bn.BernoulliLikelihood(),
    "CategoricalLikelihood": lambda: bn.CategoricalLikelihood(),
    "PoissonLikelihood": lambda: bn.PoissonLikelihood(),
    "LogitNormal": lambda: bn.LogitNormal(0.0, 1.0),
    "HMC": lambda: bn.HMC(),
    "NUTS": lambda: bn.NUTS(),
    "SGHMC": lambda: bn.SGHMC(),
    "DeepEnsemble": lambda: bn.DeepEnsemble(),
    "Exact": lambda: bn.Exact(),
    "NTKEnsemble": lambda: bn.NTKEnsemble(),
    "ProcessLaplace": lambda: bn.ProcessLaplace(),
    "SparseVariational": lambda: bn.SparseVariational(),
}
ESTIMATORS = {"BNNRegressor", "BNNClassifier", "PFNRegressor", "PFNClassifier"}
# Made by `match_family` alone, which takes its time: `tests/priors/test_family.py` looks at it.
SLOW = {"AmortisedPrior"}


def test_every_public_class_is_looked_at():
    classes = {
        name
        for name in bn.__all__
        if inspect.isclass(getattr(bn, name)) and not issubclass(getattr(bn, name), Exception)
    }
    assert classes == FITTED | TRAINED | set(MADE) | ESTIMATORS | SLOW


@pytest.mark.parametrize("name", MADE)
def test_what_is_stated_is_told_in_a_line(name):
    text = is_a_line(MADE[name]())
    assert "object at 0x" not in text


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_estimators_tell_what_differs_from_the_default(name):
    pytest.importorskip("sklearn")
    assert repr(getattr(bn, name)(random_state=3)) == f"{name}(random_state=3)"


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
def test_fitted_things_tell_their_table_and_whether_to_trust_them(path):
    thing = bn.load(path)
    text = is_a_line(thing)
    assert text.startswith(type(thing).__name__)
    if path.stem.startswith(("prior_", "weights_of_")):
        return
    from tests.saved.write import X

    assert f"fitted to {len(X)} rows of {X.shape[1]} columns, " in text
    says = ("whether to trust it says .diagnostics()", "of its training", "do not rely on it yet")
    assert any(words in text for words in says)
    if hasattr(thing, "method") and "draws" in text:
        assert f"{thing.num_draws} draws of functions by {type(thing.method).__name__}" in text
    if path.stem == "hmc":
        assert f"acceptance {thing.stats['acceptance_rate'].mean():.2f}, " in text


def test_what_was_found_wrong_or_computed_is_said():
    from dataclasses import replace

    exact = bn.load(next(path for path in SAVED if path.stem == "exact"))
    bad = replace(exact, search={"problems": ("the noise is at its bound", "more")})
    assert "do not rely on it yet: the noise is at its bound (and 1 more)" in repr(bad)
    pfn = bn.load(next(path for path in SAVED if path.stem == "pfn"))
    pfn.pfn.card["surprise_limit"] = 0.5
    pfn.__dict__["surprise"] = 0.25
    assert "is like those of its training (surprise 0.25, limit 0.50)" in repr(pfn)
    pfn.__dict__["surprise"] = 0.75
    assert "is unlike those" in repr(pfn)


def test_predictions_tell_where_they_are():
    from bayesnet.likelihoods.labels import LabelLaw

    post = bn.load(next(path for path in SAVED if path.stem == "exact"))
    text = is_a_line(post.predict(post.scaling.x_loc + np.zeros((7, post.x.shape[1]))))
    assert text.startswith("ProcessPrediction of 1 target(s) at 7 row(s): ")
    half = np.full((1, 5, 2), 0.5)
    law = LabelLaw(np.log(half), half)
    text = is_a_line(bn.ClassPrediction(law, ("a", "b")))
    assert text.startswith("ClassPrediction of 2 classes ('a', 'b') at 5 row(s): ")
    assert len(repr(post.loo())) < LONGEST


def test_a_loop_tells_what_it_has_seen():
    pytest.importorskip("botorch")
    state = bn.bo.LoopState([[-3.0] * 2, [3.0] * 2], bn.bo.LoopSettings("exact"))
    assert is_a_line(state).endswith("2 column(s)): no data yet")
    state = state.update(ROWS[:8], np.sin(ROWS[:8, 0]))
    assert "fitted to 8 rows of 2 columns, 1 target" in is_a_line(state)
    assert is_a_line(state.model).startswith("ProcessSurrogate(ProcessPosterior: ")


@pytest.mark.slow
def test_a_match_tells_how_it_went():
    match = bn.match_prior(network_prior(), process(), MADE["Box"](), steps=5)
    text = is_a_line(match)
    assert "in 5 steps (took all steps)" in text
    assert f"-> {match.distance_after:.3g}" in text


def test_values_in_a_few_words():
    assert brief(np.zeros((300, 2))) == "float64[300, 2]"
    assert brief(np.array([1.0, 2.0])) == "[1.0, 2.0]"
    assert brief(tuple(range(100))) == "(0, 1, ... 100 in all)"
    assert brief("x" * 100).endswith(" ...")
    assert "float64[5]" in repr(Scaling.identity(5, 1))


def test_what_tells_runs_of_training_apart_is_not_summed_up():
    from bayesnet.pfn.inputs import PointInputs
    from bayesnet.pfn.tasks import Mixture, described

    wide, narrow = (
        Mixture((bn.NetworkPrior(bn.MLP((5,)), bn.weights.Gaussian(per=per), in_dim=2),))
        for per in ("layer", "unit")
    )
    assert repr(wide) == repr(narrow)
    assert described(wide) != described(narrow)
    here, there = (PointInputs(bn.Mix(bn.Near(rows, 0.1))) for rows in (ROWS, ROWS + 1))
    assert repr(here) == repr(there)
    assert described(here) != described(there)
