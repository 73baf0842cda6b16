"""Default laws of learned noise refer to the spread of y, whatever the coordinates of the prior."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import bayesnet as bn
from bayesnet.comparison import _noise_in
from bayesnet.data import Scaling
from bayesnet.fitting import scaled_table

RNG = np.random.default_rng(0)
X = RNG.uniform(-2, 2, (15, 1))
Y = np.sin(2 * X) + 0.2 * RNG.normal(size=(15, 1))
UNITS = (1e-4, 1.0, 1e4)
DATA = bn.GaussianProcess("rbf", 0.7, units="data")


def user_law(likelihood, c, *, scaling=None, prior=DATA, weight=None):
    """The bound law of new targets of `c * Y` at f = 0 in user units, and its scaling."""
    likelihood, data = scaled_table(
        prior, None, likelihood, X, c * Y, None, weight, "error", scaling
    )
    bound = likelihood.bind(data.scaling, data.rows)
    z = np.full((1, bound.latent_size), 0.3)
    f = np.full((1, 1, likelihood.num_outputs(1)), 0.3)
    f[..., 0] = 0.0
    law = bound.conditional(z, f, None).affine(np.zeros(1), data.scaling.y_scale)
    return float(law.quantile(0.8)[0, 0, 0]), data


@pytest.mark.parametrize("name", ["gaussian", "heteroscedastic", "student_t", "laplace"])
def test_a_learned_scale_is_a_share_of_the_sd_of_y(name):
    likelihood = {
        "gaussian": bn.GaussianLikelihood(),
        "heteroscedastic": bn.HeteroscedasticLikelihood(),
        "student_t": bn.StudentTLikelihood(),
        "laplace": bn.LaplaceLikelihood(),
    }[name]
    scaled = user_law(likelihood, 1.0, prior=None)[0]
    other = Scaling(np.zeros(1), np.ones(1), np.array([3.0]), np.array([20.0]))
    for c in UNITS:
        assert user_law(likelihood, c)[0] / c == pytest.approx(scaled, rel=1e-5)
        # In coordinates that the caller states, too.
        stated = user_law(likelihood, c, scaling=other, prior=None)[0]
        assert stated / c == pytest.approx(scaled, rel=1e-5)
    # A stated law is in the units of y wherever the prior lives.
    law = bn.LogNormal(-1.0, 0.5)
    known = type(likelihood)(**{"scale" if name in ("student_t", "laplace") else "noise_std": law})
    assert user_law(known, 1e4)[0] == pytest.approx(user_law(known, 1.0)[0], rel=1e-5)


def test_the_spread_counts_rows_by_weight_and_leaves_out_missing_targets():
    weight = np.r_[np.zeros(5), np.full(10, 2.0)]
    got = user_law(bn.GaussianLikelihood(), 1.0, weight=weight)[1].scaling
    assert got.y_spread == pytest.approx(Y[5:].std())
    holes = np.where(np.arange(15)[:, None] < 5, np.nan, Y)
    _, data = scaled_table(
        DATA, None, bn.GaussianLikelihood(), X, holes, None, None, "mask", None
    )  # fmt: skip
    assert data.scaling.y_spread == pytest.approx(Y[5:].std())
    # Constant targets have no spread: the unit of the coordinates stands in.
    flat = Scaling.identity(1, 1).with_spread(np.full((4, 1), 7.0))
    assert flat.relative_spread == 1.0
    # Files of earlier versions hold no spread.
    assert Scaling(np.zeros(1), np.ones(1), np.zeros(1), np.array([2.0])).relative_spread == 1.0


@pytest.mark.parametrize(
    "of",
    [
        lambda gp: gp,
        lambda gp: bn.ScaleMixture(gp, bn.InverseGamma(3.0, 3.0)),
        lambda gp: bn.ScaleMixture(gp, bn.LogNormal(0.0, 1.0), noise="outside"),
    ],
    ids=["process", "inside", "outside"],
)
def test_exact_noise_does_not_depend_on_the_units_of_a_process(of):
    found = []
    for c in UNITS:
        gp = bn.GaussianProcess("rbf", lengthscale=0.7, outputscale=0.7 * c * c, units="data")
        post = bn.fit(of(gp), X, c * Y, inference="exact", warn=False)
        found.append(float(post.noise_std[0, 0]) / c)
    np.testing.assert_allclose(found, found[1], rtol=1e-3)


@pytest.mark.slow
def test_sparse_noise_knows_the_spread(tmp_path):
    c = 1e4
    gp = bn.GaussianProcess("rbf", lengthscale=0.7, outputscale=0.7 * c * c, units="data")
    one, big = (
        bn.fit(
            p, X, y, inference=bn.SparseVariational(inducing=5, steps=30), warn=False, progress=False
        )
        for p, y in ((bn.GaussianProcess("rbf", 0.7, 0.7, units="data"), Y), (gp, c * Y))
    )  # fmt: skip
    np.testing.assert_allclose(big._noise_std() / c, one._noise_std(), rtol=0.02)
    big.save(tmp_path / "sparse")
    again = bn.load(tmp_path / "sparse")
    assert again.scaling.y_spread == pytest.approx(c * Y.std())
    np.testing.assert_allclose(again._noise_std(), big._noise_std())


def test_the_evidence_integrates_over_noise_relative_to_the_spread():
    law = _noise_in(Scaling.identity(1, 1).with_spread(1e4 * Y), None, None)
    assert law.loc == pytest.approx(-2.0 + np.log(1e4 * Y.std()))


def test_networks_sample_the_noise_relative_to_the_spread():
    prior = bn.NetworkPrior(bn.MLP(()), in_dim=1, units="data")
    method = bn.HMC(chains=1, warmup=2, draws=2)
    post = bn.fit(prior, X, 1e4 * Y, inference=method, warn=False, progress=False)
    z = jnp.zeros((1, 1, 1))
    got = post.bound.summary(np.asarray(z))["noise_std"]
    np.testing.assert_allclose(got, np.exp(-2.0) * 1e4 * Y.std(), rtol=1e-5)
