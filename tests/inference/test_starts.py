"""`init=` a posterior of another kind: chains start near its functions, and end where others do."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import bayesnet as bn
from bayesnet.data import Scaling, make_data
from bayesnet.inference import _starts
from tests.pfn.exact import exact_pfn

RNG = np.random.default_rng(0)
# User units far from mean 0 and sd 1: any confusion of coordinates is a factor.
X = 50.0 + 20.0 * np.sort(RNG.uniform(-1.7, 1.7, (24, 1)), axis=0)
Y = 300.0 + 40.0 * np.sin((X - 50.0) / 15.0) + 8.0 * RNG.normal(size=(24, 1))
PROCESS = bn.GaussianProcess("rbf", lengthscale=0.8)
PRIOR = bn.NetworkPrior(bn.MLP((20, 20)), in_dim=1)
SHORT = bn.HMC(chains=2, warmup=10, draws=5, max_steps=8)


class Law:
    """A made-up posterior: what it says is stated, not fitted."""

    def __init__(self, mean, sd, noise=None, *, sampled=False):
        self.mean, self.sd, self.noise, self.sampled = mean, sd, noise, sampled

    def predict(self, x):
        mean = self.mean(np.asarray(x))
        said = types.SimpleNamespace(mean=mean, epistemic_std=np.full_like(mean, self.sd))
        if self.noise is not None:
            said.aleatoric_std = np.full_like(mean, self.noise)
        return said


def line(x):
    return 300.0 + 1.5 * (x - 50.0)


def starts(init, *, prior=PRIOR, likelihood=None, count=16, y=Y, y_var=None):
    """Starts as draws of a posterior, so that they predict in user units."""
    likelihood = likelihood or bn.GaussianLikelihood()
    data = make_data(X, y, y_var, Scaling.from_data(X, y))
    z = _starts.regressed(init, prior, likelihood, data, count=count, key=jax.random.key(0))
    return bn.FunctionDraws(prior, likelihood, data, np.asarray(z)[:, None])


@pytest.fixture(scope="module")
def process():
    return bn.fit(PROCESS, X, Y, inference="exact")


@pytest.fixture(scope="module")
def pfn():
    """A PFN whose predictions are the exact ones of an RBF process with known noise."""
    return exact_pfn()


def test_starts_reproduce_a_stated_mean_and_noise():
    found = starts(Law(line, sd=10.0, noise=6.0)).predict(X)
    off = found.values[:, :, 0] - line(X)[:, 0]
    # Every chain is near its own curve, which lies N(0, 10^2) above or below the line.
    assert np.abs(off.mean(axis=0)).max() < 4 * 10.0 / 4
    assert 5.0 < off.std(axis=0).mean() < 15.0
    assert found.aleatoric_std == pytest.approx(6.0, rel=0.3)
    # A draw of the prior is much farther away.
    z = RNG.normal(size=(16, 1, PRIOR.latent_size + 1)).astype(np.float32)
    drawn = bn.FunctionDraws(PRIOR, bn.GaussianLikelihood(), starts(Law(line, 10.0)).data, z)
    assert np.abs(drawn.predict(X).values[:, :, 0] - line(X)[:, 0]).mean() > 25.0


def test_a_sure_posterior_is_followed_closely_and_latents_stay_those_of_the_prior():
    found = starts(Law(line, sd=1.0))
    assert np.sqrt(np.mean((found.predict(X).values - line(X)) ** 2)) < 4.0
    # Pulled to draws of the prior, not to 0: what functions leave open keeps its spread.
    assert 0.9 < np.mean(found.latents**2) < 1.3


def test_draws_of_a_process_are_followed_one_a_chain(process):
    found, said = starts(process).predict(X), process.predict(X)
    sd = said.epistemic_std[:, 0]
    score = (found.values[:, :, 0] - said.mean[:, 0]) / sd
    assert np.abs(score.mean(axis=0)).mean() < 0.7
    assert 0.5 < score.std(axis=0).mean() < 1.6
    assert found.aleatoric_std.mean() == pytest.approx(said.aleatoric_std.mean(), rel=0.3)


def test_a_line_starts_at_draws_of_the_regression():
    """Randomise-then-optimise is exact for a linear model: anchors and targets give its law."""
    sd = 3.0
    prior = bn.NetworkPrior(bn.MLP(()), in_dim=1)
    found = starts(Law(line, sd), prior=prior, likelihood=bn.GaussianLikelihood(8.0), count=64)
    f = found.predict(X).values[:, :, 0]
    slopes = (f[:, -1] - f[:, 0]) / (X[-1, 0] - X[0, 0])
    assert slopes.mean() == pytest.approx(1.5, rel=0.05)
    assert np.abs(f.mean(axis=0) - line(X)[:, 0]).max() < 4 * sd / 8
    assert f.mean(axis=1).std() == pytest.approx(sd, rel=0.4)


@pytest.mark.slow
def test_other_laws_of_the_noise_and_known_variances():
    two = bn.NetworkPrior(bn.MLP((20, 20)), in_dim=1, out_dim=2)
    law = Law(line, 5.0, noise=6.0)
    hetero = starts(law, prior=two, likelihood=bn.HeteroscedasticLikelihood())
    assert hetero.predict(X).aleatoric_std.mean() == pytest.approx(6.0, rel=0.4)
    heavy = starts(law, likelihood=bn.StudentTLikelihood(df=5.0))
    assert heavy.predict(X).aleatoric_std.mean() == pytest.approx(6.0, rel=0.5)
    known = starts(law, y_var=np.full_like(Y, 36.0))
    assert known.latents.shape[-1] == PRIOR.latent_size
    assert np.sqrt(np.mean((known.predict(X).values - line(X)) ** 2)) < 15.0


def test_chains_that_start_near_a_process_end_where_others_do(process):
    """A linear model in fixed features has a posterior in closed form."""
    features = np.column_stack([np.ones(24), np.sin((X[:, 0] - 50.0) / 15.0)])

    # Parameters of units a hundred, so that the prior hardly shrinks.
    def apply(p, x):
        phi = jnp.concatenate([jnp.ones_like(x), jnp.sin((x - 50.0) / 15.0)], axis=1)
        return 100.0 * (phi @ p["w"])[:, None]

    def init(key):
        return {"w": np.zeros(2, np.float32)}

    linear = bn.NetworkPrior((init, apply), units="data")
    method = bn.HMC(chains=4, warmup=150, draws=300)
    noise = bn.GaussianLikelihood(8.0)
    post = bn.fit(linear, X, Y, likelihood=noise, inference=method, init=process, warn=False)
    exact = oracles.LinearRegression.fit(100.0 * features, Y[:, 0], 64.0)
    assert np.abs(oracles.z_scores(post.latents, exact.mean)).max() < 5
    assert set(post.seconds) == {"init", "compile", "warmup", "sampling"}


@pytest.mark.slow
def test_a_network_has_the_same_posterior_from_a_pfn_and_from_the_prior(pfn):
    method = bn.HMC(chains=4, warmup=300, draws=300)
    init = pfn.fit(X, Y, warn=False)
    values = [
        bn.fit(PRIOR, X, Y, inference=method, seed=seed, init=start, warn=False)
        .predict(X[::4])
        .values[:, :, 0]
        .reshape(4, 300, -1)
        for seed, start in ((0, None), (1, init))
    ]
    assert np.abs(oracles.z_scores(values[0], values[1].mean(axis=(0, 1)))).max() < 7


def test_draws_of_a_pfn_are_followed_one_a_chain(pfn):
    init = pfn.fit(X, Y, warn=False)
    found, said = starts(init).predict(X), init.predict(X)
    score = (found.values - said.mean) / said.epistemic_std
    assert np.abs(score.mean(axis=0)).mean() < 0.7
    assert 0.5 < score.std(axis=0).mean() < 1.6


@pytest.mark.slow
def test_functions_of_another_network_are_followed(pfn):
    post = bn.fit(PRIOR, X, Y, inference=SHORT, init=pfn.fit(X, Y, warn=False), warn=False)
    assert post.latents.shape == (2, 5, PRIOR.latent_size + 1)
    wider = bn.NetworkPrior(bn.MLP((25, 20)), in_dim=1)
    off = starts(post, prior=wider).predict(X).mean - post.predict(X).mean
    assert np.abs(off).mean() < 2 * post.predict(X).epistemic_std.mean()


@pytest.mark.slow
def test_members_of_an_ensemble_and_chains_of_minibatches_start_there_too(process):
    few = bn.DeepEnsemble(members=3, steps=1, learning_rate=1e-9)
    members = bn.fit(PRIOR, X, Y, inference=few, init=process, warn=False)
    off = members.predict(X).mean - process.predict(X).mean
    assert np.abs(off).mean() < 2 * process.predict(X).epistemic_std.mean()
    still = bn.SGHMC(chains=3, warmup=0, draws=1, step_size=1e-6)
    post = bn.fit(PRIOR, X, Y, inference=still, init=process, warn=False)
    off = post.predict(X).mean - process.predict(X).mean
    assert np.abs(off).mean() < 2 * process.predict(X).epistemic_std.mean()


@pytest.mark.slow
def test_sampling_forms_start_at_the_same_functions(process):
    """Centred hierarchical weights are sampled in other latents than they are kept in."""
    prior = bn.NetworkPrior(bn.MLP((8,)), weights=bn.weights.Hierarchical(centred=True), in_dim=1)
    still = bn.HMC(chains=8, warmup=0, draws=1, max_steps=1)
    post = bn.fit(prior, X, Y, inference=still, init=process, warn=False)
    off = post.predict(X).values[:, :, 0] - process.predict(X).mean[:, 0]
    assert np.sqrt(np.mean(off**2)) < 3 * process.predict(X).epistemic_std.mean()


def nowhere(x):
    return np.where(x > 60.0, np.nan, line(x))


@pytest.mark.parametrize(
    ("init", "error", "words"),
    [
        (3, bn.InputError, "must be a posterior"),
        (Law(nowhere, 1.0), bn.InputError, "not finite"),
        (Law(lambda x: np.hstack([line(x), line(x)]), 1.0), bn.InputError, "shape"),
    ],
    ids=["a number", "NaN", "two outputs"],
)
def test_what_cannot_be_followed_is_refused(init, error, words):
    with pytest.raises(error, match=words):
        bn.fit(PRIOR, X, Y, inference=SHORT, init=init)


def test_other_columns_and_classes_are_refused(process):
    wide = np.hstack([X, X[::-1]])
    of_two = bn.NetworkPrior(bn.MLP((5,)), in_dim=2)
    with pytest.raises(bn.InputError, match="1 inputs, the table has 2"):
        bn.fit(of_two, wide, Y, inference=SHORT, init=process)
    pairs = bn.NetworkPrior(bn.MLP((5,)), in_dim=1, out_dim=2)
    with pytest.raises(bn.InputError, match="1 outputs, the table has 2"):
        bn.fit(pairs, X, np.hstack([Y, Y]), inference=SHORT, init=process)
    labels = Y[:, 0] > 300
    with pytest.raises(bn.UnsupportedError, match="logits"):
        bn.fit(PRIOR, X, labels, likelihood="bernoulli", inference=SHORT, init=process)
    with pytest.raises(bn.InputError, match="leave init out"):
        bn.fit(PROCESS, X, Y, inference="exact", init=process)


def test_infinite_spreads_and_wild_draws_are_cut():
    """A Student-t process may have no variance: chains start within 3 sd of y of its mean."""

    class Wild(Law):
        def predict(self, x):
            said = super().predict(x)
            said.epistemic_std = np.full_like(said.mean, np.inf)
            said.sample = lambda key, num, joint, noise: np.full((num, *said.mean.shape), 1e9)
            return said

    found = starts(Wild(line, 1.0), count=4).predict(X).values[:, :, 0]
    assert np.isfinite(found).all()
    assert np.abs(found - line(X)[:, 0]).max() < 4 * Y.std()
