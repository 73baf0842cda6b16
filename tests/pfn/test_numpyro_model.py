"""numpyro models of whole tables: their laws in training tasks, their units, what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import bayesnet as bn
from bayesnet.pfn import NumpyroModel
from bayesnet.pfn.certificate import certify
from bayesnet.pfn.checkpoint import signature
from bayesnet.pfn.joint_tasks import JointTasks
from bayesnet.pfn.setup import tasks_of
from bayesnet.pfn.train import run
from tests.pfn.small import random_pfn
from tests.pfn.test_training import SMALL

NOISE = 0.3


def lines(n):
    """Bayesian linear regression, conjugate: far from scaled coordinates in x and in y."""
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 1.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    x = numpyro.sample("x", dist.Normal(10.0, 3.0).expand([n]))
    f = numpyro.deterministic("f", 100 + 20 * (intercept + slope * (x - 10) / 3))
    numpyro.sample("y", dist.Normal(f, 20 * NOISE))


def planes(n, d):
    """Any number of columns; other names."""
    with numpyro.plate("columns", d):
        slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    inputs = numpyro.sample("inputs", dist.Uniform(-1.0, 1.0).expand([n, d]))
    numpyro.sample("target", dist.Normal(inputs @ slope, NOISE))


def exact(x, y, new):
    """Mean and sd of a new observation under `lines`, in closed form."""

    def design(x):
        return np.stack([np.ones(len(x)), (x - 10) / 3], axis=1)

    a, b = design(x), design(new)
    precision = np.eye(2) + a.T @ a / NOISE**2
    mean = np.linalg.solve(precision, a.T @ (y - 100) / 20) / NOISE**2
    variance = NOISE**2 + np.sum(b * np.linalg.solve(precision, b.T).T, axis=1)
    return 100 + 20 * b @ mean, 20 * np.sqrt(variance)


def test_tasks_have_the_law_of_the_model():
    """E[y_i y_j | x] = 1 + z_i z_j + noise: of rows of the context, of queries, and across."""
    tasks = JointTasks(NumpyroModel(lines, f="f"), (1,), 3, 2)
    count = 4000
    batch = tasks.draw(jax.random.key(0), count, np.full(count, 3), 1)
    x = np.concatenate([batch.x, batch.queries], axis=1)[..., 0].astype(np.float64)
    y = np.concatenate([batch.y, batch.y_drawn], axis=1).astype(np.float64)
    x, y = tasks.in_user_units(1, x, y)
    z, t = (x - 10) / 3, (y - 100) / 20
    assert stats.kstest(z[:, 0], "norm").pvalue > 1e-4
    assert stats.kstest(z[:, 4], "norm").pvalue > 1e-4
    off = t[:, :, None] * t[:, None] - (1 + z[:, :, None] * z[:, None] + NOISE**2 * np.eye(5))
    error = off.std(axis=0) / np.sqrt(count)
    assert (np.abs(off.mean(axis=0)) < 4.5 * error).all()
    assert (10 * error < 1).all()  # queries of another table would not agree
    # Neighbours differ by their noise, in contexts and beyond: 2 noise^2 + (z_i - z_j)^2.
    for i, j in ((0, 1), (1, 3)):
        near = np.abs(z[:, i] - z[:, j]) < 0.15
        gap = (t[near, i] - t[near, j]) ** 2 - (z[near, i] - z[near, j]) ** 2
        assert gap.mean() == pytest.approx(2 * NOISE**2, abs=4 * gap.std() / np.sqrt(near.sum()))
        assert 4 * gap.std() / np.sqrt(near.sum()) < NOISE**2
    # The function without noise.
    noise = np.asarray(batch.y_drawn - batch.f_mean, np.float64) * tasks.scalings[1].y_scale
    assert noise.std() == pytest.approx(20 * NOISE, rel=0.05)
    assert np.all(np.asarray(batch.f_std) == 0)
    assert np.all(np.asarray(batch.y_std) == 0)
    np.testing.assert_array_equal(batch.y_mean, batch.y_drawn)
    # Coordinates of order 1.
    assert np.asarray(batch.x).std() == pytest.approx(1, rel=0.1)
    assert np.asarray(batch.y_drawn).std() == pytest.approx(1, rel=0.15)


def test_rows_are_in_random_order_and_contexts_as_long_as_asked():
    def ordered(n):
        x = numpyro.deterministic("x", jnp.arange(float(n)))
        slope = numpyro.sample("slope", dist.Normal())
        numpyro.deterministic("y", slope * x)

    tasks = JointTasks(NumpyroModel(ordered), (1,), 4, 2)
    batch = tasks.draw(jax.random.key(0), 600, np.repeat([1, 2, 4], 200), 1)
    assert np.array_equal(batch.mask.sum(axis=1), np.repeat([1, 2, 4], 200))
    assert np.all(np.asarray(batch.y)[~np.asarray(batch.mask)] == 0)
    x, _ = tasks.in_user_units(1, np.asarray(batch.queries[..., :1], np.float64), np.zeros(1))
    found = np.bincount(np.rint(x[:, 0, 0]).astype(int), minlength=6) / 600
    assert np.abs(found - 1 / 6).max() < 4 * np.sqrt(5 / 36 / 600)
    # Without a site f the function is y.
    np.testing.assert_array_equal(batch.f_mean, batch.y_drawn)


@pytest.mark.slow
def test_models_may_take_the_number_of_columns():
    model = NumpyroModel(planes, x="inputs", y="target")
    tasks = JointTasks(model, (1, 3), 4, 2)
    assert tasks.draw(jax.random.key(0), 5, np.full(5, 4), 3).x.shape == (5, 4, 3)
    assert tasks.draw(jax.random.key(0), 5, np.full(5, 4), 1).x.shape == (5, 4, 1)
    assert model.in_dim == 1
    assert NumpyroModel(lines).in_dim == 1
    with pytest.raises(bn.InputError, match=r"draws 1 column\(s\), the tasks have 2: pass dims"):
        JointTasks(NumpyroModel(lines), (2,), 4, 2)


def test_without_a_function_its_law_is_not_told():
    pfn = random_pfn()
    x = np.linspace(0, 5, 6)[:, None]
    for latent in ("f", None):
        known = bn.PFN(pfn.network, pfn.bars, pfn.card | {"latent": latent})
        prediction = known.fit(x, np.sin(x[:, 0]), warn=False).predict(x, warn=False)
        assert prediction.sample(0, 2, joint=False).shape == (2, 6, 1)
        if latent is not None:
            assert (prediction.epistemic_std > 0).all()
            continue
        for asked in (
            lambda p: p.epistemic_std,
            lambda p: p.aleatoric_std,
            lambda p: p.sample(0, 2, noise=False),
        ):
            with pytest.raises(bn.UnsupportedError, match="names no function without noise"):
                asked(prediction)


def test_a_checkpoint_knows_the_program_of_its_model():
    def other(n):
        x = numpyro.sample("x", dist.Normal(10.0, 3.0).expand([n]))
        numpyro.sample("y", dist.Normal(100 + x, 20 * NOISE))

    other.__qualname__ = lines.__qualname__
    training = bn.pfn.Training(steps=2, **SMALL)
    first, again, changed = (
        signature(JointTasks(NumpyroModel(m), (1,), 4, 2), training) for m in (lines, lines, other)
    )
    assert first == again
    assert first != changed
    assert "0x" not in first


@pytest.mark.slow
def test_a_pfn_of_a_model_is_trained_certified_saved_and_resumed(tmp_path):
    knobs = {k: v for k, v in SMALL.items() if k not in ("dims", "max_dim")}
    model = NumpyroModel(lines, f="f")
    pfn = bn.PFN.train(model, steps=2, folder=tmp_path / "run", **knobs)
    line = json.loads((tmp_path / "run" / "log.jsonl").read_text())
    assert line["cross_entropy"]["1"] > 0
    assert pfn.card["latent"] == "f"
    assert pfn.card["inputs"].startswith("drawn by the model")
    # Bit for bit as if it had not been stopped.
    tasks, training = tasks_of(model, None, None, None, {"steps": 2, **knobs})
    run(tasks, training, folder=tmp_path / "stopped", stop_at=1)
    state = run(tasks, training, folder=tmp_path / "stopped")
    for a, b in zip(
        jax.tree.leaves((state.network, state.bars)),
        jax.tree.leaves((pfn.network, pfn.bars)),
        strict=True,
    ):
        assert np.array_equal(a, b)

    certified = certify(pfn, tasks, dims=(1,), counts=(4,), tables=64)
    (row,) = certified.card["certificate"]
    assert row["given"] == "nothing"
    assert "excess" not in row
    # An untrained network has the wide law of the prior, in the units of y: sd 20 * sqrt(2.09).
    assert row["nll"] == pytest.approx(np.log(28.9) + 1.42, abs=0.5)
    assert 0.8 < certified.card["surprise_limit"] < 100

    certified.save(tmp_path / "w.safetensors")
    back = bn.PFN.load(tmp_path / "w.safetensors")
    assert json.dumps(back.card, sort_keys=True) == json.dumps(certified.card, sort_keys=True)
    x, y = np.array([[9.0], [13.0], [10.0]]), np.array([90.0, 120.0, 95.0])
    posterior = back.fit(x, y, warn=False)
    scaling = posterior.data.scaling
    # One map, of the model, and not that of this table, whatever is given.
    assert scaling.x_loc[0] == pytest.approx(10, abs=0.3)
    assert scaling.x_scale[0] == pytest.approx(3, rel=0.1)
    assert scaling.y_loc[0] == pytest.approx(100, abs=6)
    assert scaling.y_scale[0] == pytest.approx(28.9, rel=0.2)
    own = bn.data.Scaling.identity(1, 1)
    assert back.fit(x, y, warn=False, scaling=own).data.scaling.y_loc == scaling.y_loc
    assert posterior.predict(x).mean.mean() == pytest.approx(100, abs=20)
    with pytest.raises(bn.InputError, match=r"tables with \[1\] columns"):
        bn.PFN(back.network, back.bars, back.card | {"scaling": {}}).fit(x, y)
    with pytest.raises(bn.UnsupportedError, match="one view"):
        back.fit(x, y, ensemble=2)


@pytest.mark.slow
def test_training_comes_close_to_the_exact_law_of_a_conjugate_model():
    """Mean excess over the predictive law in closed form, on tables that no step has drawn."""
    pfn = bn.PFN.train(
        NumpyroModel(lines, f="f"),
        steps=2500,
        batch=32,
        buckets=(4, 12),
        width=32,
        hidden=64,
        depth=2,
        heads=2,
        bars=100,
        queries=24,
        learning_rate=3e-3,
        warmup=100,
    )
    gaps, latent = [], []
    rng = np.random.default_rng(0)
    for n in (1, 2, 4, 8, 12):
        for _ in range(30):
            intercept, slope = rng.normal(size=2)
            x = 10 + 3 * rng.normal(size=n + 40)
            f = 100 + 20 * (intercept + slope * (x - 10) / 3)
            y = f + 20 * NOISE * rng.normal(size=len(x))
            mean, std = exact(x[:n], y[:n], x[n:])
            prediction = pfn.fit(x[:n, None], y[:n], warn=False).predict(x[n:, None], warn=False)
            found = prediction.log_prob(y[n:])
            gaps.append(np.mean(stats.norm.logpdf(y[n:], mean, std) - np.ravel(found)))
            ratio = prediction.epistemic_std[:, 0] / np.sqrt(std**2 - (20 * NOISE) ** 2)
            latent.append(np.median(ratio))
    gaps = np.array(gaps)
    print(gaps.mean(), 1.96 * gaps.std() / np.sqrt(len(gaps)), np.median(latent))
    assert -0.02 < gaps.mean() < 0.06, (gaps.mean(), gaps.std() / np.sqrt(len(gaps)))
    assert 0.7 < np.median(latent) < 1.4


def _model(n):
    numpyro.sample("x", dist.Normal().expand([n]))


def _observed(n):
    x = numpyro.sample("x", dist.Normal().expand([n]))
    numpyro.sample("y", dist.Normal(x, 1.0), obs=jnp.zeros(n))


def _factor(n):
    _finite(n)
    numpyro.factor("belief", -1.0)


def _finite(n):
    x = numpyro.sample("x", dist.Normal().expand([n]))
    numpyro.sample("y", dist.Normal(x, 1.0))


def _wide(n):
    numpyro.sample("x", dist.Normal().expand([n, 1]))
    numpyro.sample("y", dist.Normal().expand([n, 2]))


def _deep(n):
    numpyro.sample("x", dist.Normal().expand([n, 1, 1]))
    numpyro.sample("y", dist.Normal().expand([n]))


def _fixed(n):
    numpyro.sample("x", dist.Normal().expand([7]))
    numpyro.sample("y", dist.Normal().expand([n]))


def _nan(n):
    x = numpyro.sample("x", dist.Normal().expand([n]))
    numpyro.deterministic("y", jnp.log(x))


def _constant(n):
    numpyro.sample("x", dist.Normal().expand([n]))
    numpyro.deterministic("y", jnp.full(n, 3.0))


def _branches(n):
    x = numpyro.sample("x", dist.Normal().expand([n]))
    if x.sum() > 0:
        numpyro.sample("y", dist.Normal(x, 1.0))


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (_model, bn.InputError, "no site 'y'; its sites are x"),
        (_observed, bn.UnsupportedError, "'y' of _observed is observed"),
        (_factor, bn.UnsupportedError, "'belief' of _factor is observed"),
        (_wide, bn.InputError, r"'y' of _wide must have the shape \(\d+,\)"),
        (_deep, bn.InputError, "'x' of _deep must have"),
        (_fixed, bn.InputError, "'x' of _fixed must have"),
        (_nan, bn.InputError, "'y' that are not finite"),
        (_constant, bn.InputError, "the same y, 3"),
        (_branches, bn.InputError, "_branches cannot draw a table.*TracerBool"),
        (lambda n: 1 / 0, bn.InputError, "ZeroDivisionError"),
    ],
)
def test_models_that_draw_no_tables_are_refused_before_training(model, error, message):
    with pytest.raises(error, match=message):
        bn.PFN.train(NumpyroModel(model), steps=1)


@pytest.mark.slow
def test_models_bring_inputs_and_noise_and_stand_alone():
    model = NumpyroModel(_finite)
    with pytest.raises(bn.InputError, match="leave likelihood and inputs out"):
        bn.PFN.train(model, bn.GaussianLikelihood(0.1), steps=1)
    with pytest.raises(bn.InputError, match="leave likelihood and inputs out"):
        bn.PFN.train(model, inputs=bn.Box([0.0], [1.0]), steps=1)
    with pytest.raises(bn.InputError, match="no site 'g'; its sites are x, y"):
        bn.PFN.train(NumpyroModel(_finite, f="g"), steps=1)
    with pytest.raises(bn.UnsupportedError, match="a prior by itself"):
        bn.PFN.train(bn.pfn.Mixture((model, bn.GaussianProcess("rbf"))), steps=1)
    with pytest.raises(bn.UnsupportedError, match="a prior by itself"):
        bn.pfn.ClassPFN.train(model, steps=1)
    with pytest.raises(bn.UnsupportedError, match="NumpyroModel"):
        bn.AmortisedProcess.train(model, steps=1)
    for wrong in (3, dist.Normal, lambda: 1, lambda a, b, c: 1):
        with pytest.raises(bn.InputError, match=r"function model\(n\) or model\(n, d\)"):
            NumpyroModel(wrong)
