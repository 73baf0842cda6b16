"""The weights that ship: what their card claims, on tables that nobody chose them by."""

import jax
import numpy as np
import pytest

import bayesnet as bn
from bayesnet.pfn.configurations import read_configuration
from bayesnet.pfn.precision import cast
from bayesnet.pfn.quadrature_prediction import in_units, mixture
from bayesnet.pfn.setup import WEIGHTS


@pytest.fixture(scope="module")
def pfn():
    return bn.PFN.from_pretrained("gp")


def test_the_card_says_what_the_weights_are(pfn):
    assert (WEIGHTS / "gp.safetensors").stat().st_size < 12e6
    assert pfn.max_rows == 100
    assert pfn.max_dim == 10
    assert {row["d"] for row in pfn.card["certificate"]} == {1, 2, 3, 4, 5, 6, 8}
    assert "matern52" in pfn.card["prior"]
    assert pfn.card["surprise_limit"] > 1


def test_a_usual_table_is_predicted_and_does_not_warn(pfn, recwarn):
    rng = np.random.default_rng(0)
    x, new = rng.uniform(0, 10, (60, 2)), rng.uniform(1, 9, (200, 2))

    def truth(x):
        return 100 + 20 * np.sin(x[:, 0] / 2) + 3 * x[:, 1]

    y = truth(x) + 2 * rng.normal(size=60)
    observed = truth(new) + 2 * rng.normal(size=200)
    posterior = bn.fit(None, x, y, inference="pfn")
    prediction = posterior.predict(new)
    assert not [w for w in recwarn if issubclass(w.category, UserWarning)]
    error = np.sqrt(np.mean((prediction.mean[:, 0] - truth(new)) ** 2))
    assert error < 0.35 * truth(new).std()
    low, high = prediction.interval(0.9)
    covered = ((low[:, 0] < observed) & (observed < high[:, 0])).mean()
    assert 0.75 < covered <= 1.0


def test_the_function_is_uncertain_far_from_the_table(pfn):
    """Far from the table the function is as uncertain as a priori, near it less so."""
    x = np.linspace(-1, 1, 15)[:, None]
    posterior = pfn.fit(x, np.sin(2 * x), warn=False)
    near, far = posterior.predict(np.array([[0.0], [3.5]]), warn=False).epistemic_std[:, 0]
    assert near < 0.3 * far


def test_many_tables_of_a_quadrature_are_the_tables_one_by_one(pfn):
    rng = np.random.default_rng(4)
    x = 5 + 3 * rng.normal(size=(9, 60, 2))
    y = 100 + 20 * np.sin(x[..., 0]) + rng.normal(size=(9, 60))
    y[2] = 7.0  # a constant target has no scale
    new = 5 + 3 * rng.normal(size=(9, 3, 2))
    together = pfn.predict_many(x, y, new)
    for i in (0, 2, 8):
        alone = pfn.fit(x[i], y[i], warn=False).predict(new[i], warn=False)
        for name in ("mean", "std", "epistemic_std"):
            np.testing.assert_allclose(
                getattr(together[i], name), getattr(alone, name), rtol=2e-3, atol=0.01
            )
        np.testing.assert_allclose(
            together[i].sample(1, 5), alone.sample(1, 5), rtol=2e-3, atol=0.05
        )


def test_without_noise_no_digits_are_lost(pfn):
    """A function of 80 exact rows, which float32 tells to two digits only."""
    rng = np.random.default_rng(1)
    x, new = rng.uniform(-2, 2, (80, 2)), rng.uniform(-1.5, 1.5, (50, 2))

    def truth(x):
        return np.exp(0.7 * x[:, 0]) * (1 + 0.4 * x[:, 1])

    posterior = pfn.fit(x, truth(x), warn=False)
    prediction = posterior.predict(new)
    scaling = posterior.data.scaling
    with jax.enable_x64(True):
        tables, mask, used = posterior.processes()
        network = cast(posterior.network, np.float64)
        numbers = mixture(network, tables, mask, used.astype(float), scaling.x_in(new))
    wide = in_units(np.asarray(numbers), scaling.y_loc, scaling.y_scale)
    error = np.abs(prediction.location - wide[0])
    assert (error < 0.02 * prediction.function_scale).all()
    assert np.sqrt(np.mean((prediction.mean[:, 0] - truth(new)) ** 2)) < 0.01 * truth(new).std()


def test_many_columns_have_more_nodes(pfn):
    assert pfn.network_for(3) is pfn.network
    levels = pfn.network_for(4).levels
    assert [level.rows for level in levels] == [50, 100]
    assert [level.places for level in levels] == [pfn.network.levels[i].places for i in (0, 2)]
    assert pfn.network_for(8).level(30).probes == pfn.network.level(20).probes


@pytest.mark.slow  # compiles whatever conditions tables
def test_many_columns_are_predicted_alike_everywhere(pfn):
    import torch

    from bayesnet.surrogates import PFNSurrogate

    rng = np.random.default_rng(5)
    x, y, new = rng.normal(size=(30, 4)), rng.normal(size=30), rng.normal(size=(3, 4))
    posterior = pfn.fit(x, y, warn=False)
    alone, (together,) = posterior.predict(new), pfn.predict_many(x[None], y[None], new[None])
    model = PFNSurrogate.from_posterior(posterior)
    with torch.no_grad():
        asked = model.posterior(torch.tensor(new))
    for name, found in (("mean", asked.mean), ("epistemic_std", asked.variance.sqrt())):
        expected = getattr(alone, name)
        np.testing.assert_allclose(getattr(together, name), expected, rtol=2e-3, atol=1e-3)
        np.testing.assert_allclose(found.numpy(), expected, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("wrong", ["X", "y", "X_new"])
def test_many_tables_name_the_one_that_is_wrong(pfn, wrong):
    tables = {"X": np.ones((3, 4, 2)), "y": np.ones((3, 4)), "X_new": np.ones((3, 5, 2))}
    at = (2, 1) if wrong == "y" else (2, 1, 0)
    tables[wrong][at] = np.nan
    with pytest.raises(bn.InputError, match=rf"{wrong} holds NaN or infinity \(first at \(2, 1"):
        pfn.predict_many(**tables)
    with pytest.raises(bn.InputError, match="must be an array of numbers"):
        pfn.predict_many(**tables | {wrong: "text"})


def test_many_tables_are_of_the_sizes_that_one_may_have(pfn):
    with pytest.raises(bn.InputError, match="11 columns, this PFN accepts at most 10"):
        pfn.predict_many(np.zeros((2, 4, 11)), np.zeros((2, 4)), np.zeros((2, 1, 11)))
    with pytest.raises(bn.InputError, match="101 rows, this PFN was trained for at most 100"):
        pfn.predict_many(np.zeros((2, 101, 1)), np.zeros((2, 101)), np.zeros((2, 1, 1)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bnn", "heavy"])
def test_weights_of_other_priors(name):
    """What their cards claim, on new tables: 90 % intervals hold 90 % of what the prior draws."""
    assert (WEIGHTS / f"{name}.safetensors").stat().st_size < 12e6
    pfn = bn.PFN.from_pretrained(name)
    assert {row["d"] for row in pfn.card["certificate"]} == {1, 2}
    assert (pfn.max_rows, pfn.max_dim) == (100, 2)
    tasks = read_configuration(name).tasks
    for d in (1, 2):
        part = 0 if name == "heavy" else 1
        batch = tasks.draw(jax.random.key(99 + d), 48, np.full(48, 30), d, part)
        rng = np.random.default_rng(d)
        y = batch.f_mean + batch.y_std * rng.normal(size=batch.f_mean.shape)
        means, inside = [], []
        for i in range(48):
            law = pfn.fit(
                batch.x[i, :30], batch.y[i, :30], scaling=bn.data.Scaling.identity(d, 1), warn=False
            ).predict(batch.queries[i], warn=False)
            low, high = law.interval(0.9)
            inside.append(np.mean((low[:, 0] < y[i]) & (y[i] < high[:, 0])))
            means.append(law.mean[:, 0])
        # Tables are independent, rows of one are not: the error is that of the tables.
        error = np.std(inside, ddof=1) / np.sqrt(len(inside))
        assert abs(np.mean(inside) - 0.9) < 4 * error + 0.01
        gone = np.median(np.abs(np.asarray(means) - batch.f_mean)) / np.median(np.abs(batch.f_mean))
        assert gone < 0.5


@pytest.mark.slow
def test_the_regressor_passes_the_checks_of_scikit_learn():
    pytest.importorskip("sklearn")
    from sklearn.utils import estimator_checks

    estimator_checks.check_estimator(bn.PFNRegressor(random_state=0))


@pytest.fixture(scope="module")
def amortised():
    return bn.AmortisedProcess.from_pretrained()


def test_the_card_of_the_amortised_processes(amortised):
    assert (WEIGHTS / "gp_process.safetensors").stat().st_size < 12e6
    assert amortised.max_rows == 100
    assert amortised.max_dim == 10
    assert {row["d"] for row in amortised.card["certificate"]} == {1, 2, 3, 4}
    with pytest.raises(bn.InputError, match="AmortisedProcess"):
        bn.PFN.from_pretrained("gp_process")
    with pytest.raises(bn.InputError, match="PFN"):
        bn.AmortisedProcess.from_pretrained("gp")


@pytest.mark.slow
def test_amortised_hyperparameters_predict_as_those_drawn_by_hmc(amortised):
    """The same prior by Markov chains; both averaged over hyper-parameters."""
    rng = np.random.default_rng(4)
    x, new = rng.uniform(-2, 2, (30, 1)), np.linspace(-1.9, 1.9, 20)[:, None]
    y = np.sin(2 * x[:, 0]) + 0.2 * rng.normal(size=30)
    scaling = bn.data.Scaling.identity(1, 1)
    post = bn.fit(None, x, y, inference="amortised", scaling=scaling)
    assert post.search["effective_size"] > 20
    prior = amortised.family.parts[0][0]
    chains = bn.fit(prior, x, y, inference=bn.Exact(hyper="hmc", draws=64), scaling=scaling)
    one, other = post.predict(new), chains.predict(new)
    assert np.abs(one.mean - other.mean).max() < 0.25 * other.std.max()
    assert np.abs(np.log(one.std / other.std)).max() < 0.15


def test_the_amortised_preset_brings_its_own_prior():
    x, y = np.linspace(0, 1, 6)[:, None], np.arange(6.0)
    with pytest.raises(bn.UnsupportedError, match="brings its own prior"):
        bn.fit(bn.GaussianProcess(), x, y, inference="amortised")
    with pytest.raises(bn.UnsupportedError, match="no use for"):
        bn.fit(None, x, y, inference="amortised", y_var=np.ones(6))
