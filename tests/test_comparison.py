"""Comparisons of priors against exact leave-one-out, exact evidence and quadrature."""

from __future__ import annotations

import jax
import numpy as np
import oracles
import pytest
from scipy import stats
from scipy.special import logsumexp

import bayesnet as bn
from bayesnet.data import Scaling
from bayesnet.fitting import scaled_table
from bayesnet.inference.model import LatentModel

NOISE = 2.0
RNG = np.random.default_rng(11)
X = RNG.normal(3.0, 2.0, (24, 2))
Y = 6.0 + X @ [1.5, -0.5] + RNG.normal(0.0, NOISE, 24)
LIKELIHOOD = bn.GaussianLikelihood(NOISE)
XS, YS = (X - X.mean(0)) / X.std(0), (Y - Y.mean()) / Y.std()


def linear_kernel(a, b):
    """Of MLP(()): a bias and inputs divided by sqrt(d), all weights N(0, 1)."""
    return 1.0 + a @ b.T / a.shape[1]


def gp_loo(kernel, x, y, noise):
    """Log density of each row given the others: Rasmussen & Williams eqs. 5.10 to 5.12."""
    inverse = np.linalg.inv(kernel(x, x) + noise**2 * np.eye(len(x)))
    variance = 1.0 / np.diag(inverse)
    return stats.norm(y - inverse @ y * variance, np.sqrt(variance)).logpdf(y)


@pytest.fixture(scope="module")
def by_loo():
    net = bn.MLP(())
    # Scale 1 and scale 0.2 for all weights, the same program.
    priors = {
        "small": bn.NetworkPrior(net, bn.weights.Gaussian(scale=0.2), in_dim=2),
        "scaled": bn.NetworkPrior(net, in_dim=2),
    }
    method = bn.HMC(warmup=200, draws=400)
    return bn.compare_priors(priors, X, Y, likelihood=LIKELIHOOD, inference=method, seed=2)


@pytest.mark.slow
def test_loo_of_linear_networks_is_that_of_the_process(by_loo):
    exact = {
        "scaled": gp_loo(linear_kernel, XS, YS, NOISE / Y.std()) - np.log(Y.std()),
        "small": gp_loo(lambda a, b: 0.04 * linear_kernel(a, b), XS, YS, NOISE / Y.std())
        - np.log(Y.std()),
    }
    for name, rows in exact.items():
        got = by_loo[name]
        # Weights are good to their own error below 0.5, and biased upwards by some tenths of a nat
        # above it, which exact draws of this posterior show too.
        sure = (got.detail.k_hat < 0.5) | np.isin(np.arange(24), got.detail.refitted)
        error = np.abs(got.rows - rows)
        assert sure.sum() >= 20
        assert np.all(error[sure] < 5 * got.detail.mc_error[sure] + 0.01), name
        assert np.all(error < 0.5), name
        assert got.value == pytest.approx(rows.sum(), abs=0.5)
    gap, error = by_loo.difference("scaled", "small")
    d = exact["scaled"] - exact["small"]
    assert gap == pytest.approx(d.sum(), abs=0.5)
    assert error == pytest.approx(np.sqrt(24 * d.var(ddof=1)), rel=0.2)
    assert by_loo.difference("scaled", "scaled") == (0.0, 0.0)
    assert abs(d.sum()) > 1.0
    best = "scaled" if d.sum() > 0 else "small"
    assert by_loo.best == best
    assert by_loo.ranking[0] in str(by_loo).splitlines()[2]
    assert by_loo[best].posterior.predict(X).mean.shape == (24, 1)


def test_evidence_is_the_normal_density_in_the_units_of_y():
    processes = {
        "scaled": bn.GaussianProcess("rbf", 0.8, 1.5),
        "data": bn.GaussianProcess("matern32", 2.0, 9.0, units="data"),
        "rough": bn.GaussianProcess("matern12", 0.05),
    }
    options = {
        "likelihood": LIKELIHOOD,
        "by": "evidence",
        "scaling": Scaling.from_data(X, Y[:, None]),
    }
    got = bn.compare_priors(processes, X, Y, **options)
    noise = NOISE**2 * np.eye(24)
    scaled = Y.var() * oracles.rbf(XS, XS, 0.8, 1.5) + noise
    expected = {
        "scaled": stats.multivariate_normal(np.full(24, Y.mean()), scaled).logpdf(Y),
        "data": stats.multivariate_normal(None, oracles.matern32(X, X, 2.0, 9.0) + noise).logpdf(Y),
    }
    for name, value in expected.items():
        assert got[name].value == pytest.approx(value, abs=1e-6)
        assert got[name].error == 0.0
    values = [c.value for c in got.candidates]
    assert values == sorted(values, reverse=True)
    gap, error = got.difference("scaled", "data")
    assert (gap, error) == (pytest.approx(expected["scaled"] - expected["data"], abs=1e-6), 0.0)
    assert "evidence" in str(got)


LAWS = [
    pytest.param(None, np.log(Y.std()) - 2.0, 1.0, id="default", marks=pytest.mark.slow),
    pytest.param(bn.LogNormal(0.3, 0.5), 0.3, 0.5, id="law"),
]


@pytest.mark.parametrize(("law", "loc", "scale"), LAWS)
def test_evidence_integrates_over_learned_noise(law, loc, scale):
    z = np.linspace(-5, 5, 200)
    gram = Y.var() * oracles.rbf(XS, XS, 0.8)
    process = {"p": bn.GaussianProcess("rbf", 0.8)}
    likelihood = bn.GaussianLikelihood(law)
    got = bn.compare_priors(process, X, Y, likelihood=likelihood, by="evidence")["p"]
    logs = [
        stats.multivariate_normal(np.full(24, Y.mean()), gram + s**2 * np.eye(24)).logpdf(Y)
        for s in np.exp(loc + scale * z)
    ] + stats.norm.logpdf(z)
    expected = logsumexp(logs) + np.log(z[1] - z[0])
    assert 0 < got.error < 0.1
    assert abs(got.value - expected) < 4 * got.error + 1e-3


def test_evidence_takes_known_variances():
    process = {"p": bn.GaussianProcess("rbf", 0.8)}
    gram = Y.var() * oracles.rbf(XS, XS, 0.8)
    y_var = RNG.uniform(0.5, 4.0, 24)
    for level, total in ((None, y_var), (NOISE, y_var + NOISE**2)):
        likelihood = bn.GaussianLikelihood(level)
        got = bn.compare_priors(
            process, X, Y, likelihood=likelihood, by="evidence", y_var=y_var
        )["p"]  # fmt: skip
        law = stats.multivariate_normal(np.full(24, Y.mean()), gram + np.diag(total))
        assert got.value == pytest.approx(law.logpdf(Y), abs=1e-6)


def test_priors_in_different_coordinates_are_refused():
    processes = {"a": bn.GaussianProcess("rbf"), "b": bn.GaussianProcess("rbf", units="data")}
    mixture = {
        "a": bn.ScaleMixture(processes["a"], bn.InverseGamma()),
        "b": bn.NetworkPrior(bn.MLP(()), in_dim=2, units="data"),
    }
    nets = {"a": None, "b": mixture["b"]}
    for by, priors in (("evidence", processes), ("loo", mixture), ("laplace_screen", nets)):
        with pytest.raises(bn.InputError, match="a in scaled ones, b in those of the data"):
            bn.compare_priors(priors, X, Y, likelihood=LIKELIHOOD, by=by)
    # A bare network has the coordinates of the target it is matched to.
    with pytest.raises(bn.InputError, match="different coordinates"):
        bn.compare_priors(processes, X, Y, network=bn.MLP((4,)))
    with pytest.raises(bn.InputError, match="scaling must be"):
        bn.compare_priors(processes, X, Y, by="evidence", scaling="auto")


def test_stated_coordinates_make_every_evidence_a_density_of_y():
    """Of one row: each integrates to one over y, whatever the units; from the table it would not."""
    x, stated = [[0.5]], Scaling(np.zeros(1), np.ones(1), np.array([3.0]), np.array([2.0]))
    grid = np.linspace(-20.0, 26.0, 47)

    def at(y):
        got = bn.compare_priors(
            {"a": bn.GaussianProcess("rbf"), "b": bn.GaussianProcess("rbf", units="data")},
            x, [y], likelihood=bn.GaussianLikelihood(0.5), by="evidence", scaling=stated,
        )  # fmt: skip
        return [got["a"].value, got["b"].value]

    total = np.exp([at(y) for y in grid]).sum(axis=0) * (grid[1] - grid[0])
    np.testing.assert_allclose(total, 1.0, rtol=1e-6)
    # Its mean and variance are those of 3 + 2 f + noise.
    assert at(3.0)[0] == pytest.approx(stats.norm(3.0, np.sqrt(4.25)).logpdf(3.0), abs=1e-6)


def test_the_truth_wins_on_average_over_its_own_tables():
    """Gibbs' inequality, which holds for densities of y only."""
    rng = np.random.default_rng(0)
    x = np.linspace(-1.5, 1.5, 5)[:, None]
    root = np.linalg.cholesky(oracles.rbf(x, x, 1.0) + 0.09 * np.eye(5))
    stated = Scaling(np.zeros(1), np.ones(1), np.zeros(1), np.array([2.0]))
    priors = {
        "true": bn.GaussianProcess("rbf", 1.0, units="data"),
        "scaled": bn.GaussianProcess("rbf"),
    }
    gaps = [
        bn.compare_priors(
            priors, x, root @ rng.normal(size=5), likelihood=bn.GaussianLikelihood(0.3),
            by="evidence", scaling=stated,
        ).difference("true", "scaled")[0]
        for _ in range(30)
    ]  # fmt: skip
    assert np.mean(gaps) > 0.5


def test_labels_are_not_scaled_and_compare_across_coordinates():
    labels = np.where(np.median(Y) < Y, "a", "b")
    net = bn.MLP(())
    priors = {
        "scaled": bn.NetworkPrior(net, in_dim=2),
        "data": bn.NetworkPrior(net, in_dim=2, units="data"),
    }
    options = {"likelihood": "bernoulli", "by": "laplace_screen", "restarts": 1}
    got = bn.compare_priors(priors, X, labels, **options)
    for name, rows in (("scaled", XS), ("data", X)):
        alone = bn.compare_priors({"a": priors["data"]}, rows, labels, **options)["a"].value
        assert got[name].value == pytest.approx(alone, abs=1e-3)


def test_a_process_chosen_by_these_data_says_so():
    fitted = bn.GaussianProcess.fit(X, Y, "rbf", method="median")
    got = bn.compare_priors({"fitted": fitted}, X, Y, likelihood=LIKELIHOOD, by="evidence")
    assert "chosen by data" in got["fitted"].notes[0]


def test_what_cannot_be_compared_is_refused_before_any_compute():
    net = bn.NetworkPrior(bn.MLP(()), in_dim=2)
    process = bn.GaussianProcess("rbf")
    with pytest.raises(bn.InputError, match=r"Known: .*evidence.*loo"):
        bn.compare_priors({"a": net}, X, Y, by="smc")
    with pytest.raises(bn.InputError, match="dict"):
        bn.compare_priors({}, X, Y)
    with pytest.raises(bn.InputError, match="dict"):
        bn.compare_priors([net], X, Y)
    with pytest.raises(bn.UnsupportedError, match=r'"net" is a|by="loo"'):
        bn.compare_priors({"a": process, "net": net}, X, Y, by="evidence")
    with pytest.raises(bn.UnsupportedError, match="Gaussian noise"):
        bn.compare_priors({"a": process}, X, Y, by="evidence", likelihood="laplace")
    two = np.column_stack([Y, Y])
    wide = bn.GaussianProcess("rbf", out_dim=2)
    with pytest.raises(bn.UnsupportedError, match="one output"):
        bn.compare_priors({"a": wide}, X, two, by="evidence")
    law = bn.GaussianLikelihood(bn.LogNormal(0.0, 1.0))
    with pytest.raises(bn.UnsupportedError, match="y_var"):
        bn.compare_priors({"a": process}, X, Y, by="evidence", likelihood=law, y_var=Y**2 + 1)


def test_weights_and_missing_targets_reach_every_candidate():
    prior = {"a": bn.NetworkPrior(bn.MLP(()), in_dim=2, units="data")}
    weight = np.ones(24)
    weight[[3, 7]] = 2.0, 0.0
    options = {"by": "laplace_screen", "likelihood": LIKELIHOOD}
    weighted = bn.compare_priors(prior, X, Y, sample_weight=weight, **options)["a"].value
    rows = np.repeat(np.arange(24), weight.astype(int))
    counted = bn.compare_priors(prior, X[rows], Y[rows], **options)["a"].value
    assert weighted == pytest.approx(counted, rel=1e-5)
    holes = np.where(np.arange(24) == 7, np.nan, Y)
    masked = bn.compare_priors(prior, X, holes, missing="mask", **options)["a"].value
    without = bn.compare_priors(prior, np.delete(X, 7, 0), np.delete(Y, 7), **options)["a"].value
    assert masked == pytest.approx(without, rel=1e-5)

    method = bn.HMC(chains=2, warmup=100, draws=100)
    got = bn.compare_priors(
        prior, X, Y, sample_weight=weight, likelihood=LIKELIHOOD, inference=method, limit=0.65
    )["a"]
    assert got.detail.limit == 0.65
    assert got.rows[7] == 0.0
    assert (np.delete(got.rows, 7) != 0).all()
    process = {"a": bn.GaussianProcess("rbf")}
    with pytest.raises(bn.UnsupportedError, match="sample_weight"):
        bn.compare_priors(process, X, Y, sample_weight=weight, by="evidence")


def test_laplace_screen_is_exact_for_linear_networks_with_known_noise():
    net = bn.MLP(())
    priors = {
        "scaled": bn.NetworkPrior(net, in_dim=2),
        "in data units": bn.NetworkPrior(net, in_dim=2, units="data"),
    }
    stated = Scaling.from_data(X, Y[:, None])
    got = bn.compare_priors(
        priors, X, Y, likelihood=LIKELIHOOD, by="laplace_screen", restarts=2, scaling=stated
    )
    noise = NOISE**2 * np.eye(24)
    expected = {
        "scaled": stats.multivariate_normal(
            np.full(24, Y.mean()), Y.var() * linear_kernel(XS, XS) + noise
        ),
        "in data units": stats.multivariate_normal(None, linear_kernel(X, X) + noise),
    }
    for name, law in expected.items():
        assert got[name].value == pytest.approx(law.logpdf(Y), abs=1e-3)
        assert got[name].notes == ()
    assert "screen only" in str(got)


@pytest.mark.slow
def test_laplace_screen_of_a_network_with_learned_noise_against_draws_of_the_prior():
    rng = np.random.default_rng(0)
    x = np.linspace(-1, 1, 10)[:, None]
    y = 2.0 * x[:, 0] + 0.5 * rng.normal(size=10)
    prior = bn.NetworkPrior(bn.MLP((2,)), in_dim=1)
    got = bn.compare_priors({"net": prior}, x, y, by="laplace_screen")["net"]
    noise = bn.GaussianLikelihood()
    _, data = scaled_table(prior, None, noise, x, y, None, None, "error", None)
    model = LatentModel(prior, noise.bind(data.scaling, data.rows), data.rows)
    z = rng.normal(size=(400_000, model.size)).astype(np.float32)
    logs = np.asarray(jax.jit(jax.vmap(model.log_likelihood))(z), np.float64)
    exact = logsumexp(logs) - np.log(len(logs)) - 10 * np.log(y.std())
    assert np.exp(logs - logs.max()).sum() > 20  # draws of the prior that count
    assert got.notes == ()
    # Two units have 2! 2^2 equivalent modes, of which the screen sees one.
    assert exact - np.log(8.0) - 1.0 < got.value < exact + 1.0


def test_laplace_screen_refuses_what_it_cannot_do():
    wide = bn.NetworkPrior(bn.MLP((100, 100)), in_dim=2)
    with pytest.raises(bn.UnsupportedError, match="3000"):
        bn.compare_priors({"wide": wide}, X, Y, by="laplace_screen")
    small = bn.NetworkPrior(bn.MLP(()), in_dim=2)
    with pytest.raises(bn.InputError, match="restarts"):
        bn.compare_priors({"a": small}, X, Y, by="laplace_screen", restarts=0)


def test_an_unknown_candidate_is_named(by_loo):
    with pytest.raises(bn.InputError, match="scaled"):
        by_loo.difference("scaled", "scalde")


@pytest.mark.slow
def test_the_smoother_target_wins_on_smooth_data_by_both_criteria():
    rng = np.random.default_rng(0)
    x = np.linspace(-3, 3, 25)[:, None]
    y = np.sin(x[:, 0]) + 0.1 * rng.normal(size=25)
    targets = {
        "smooth": bn.GaussianProcess("rbf", 0.6),
        "rough": bn.GaussianProcess("matern12", 0.05),
    }
    options = {"likelihood": bn.GaussianLikelihood(0.1), "seed": 1}
    assert bn.compare_priors(targets, x, y, by="evidence", **options).best == "smooth"
    method = bn.HMC(chains=2, warmup=200, draws=200, max_steps=64)
    got = bn.compare_priors(
        targets, x, y, network=bn.MLP((20, 20)), inference=method, refits=3, **options
    )
    gap, error = got.difference("smooth", "rough")
    assert gap > 2 * error
