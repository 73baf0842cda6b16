"""Training: it learns, it goes on where it was stopped, and its weights are safe to read."""

import copy
import json
import pickle

import jax
import numpy as np
import pytest

import bayesnet as bn
from bayesnet.pfn.bars import Bars
from bayesnet.pfn.checkpoint import CHECKPOINT
from bayesnet.pfn.configurations import read_configuration
from bayesnet.pfn.inputs import as_input_law
from bayesnet.pfn.settings import Training
from bayesnet.pfn.setup import make_card
from bayesnet.pfn.tasks import Tasks
from bayesnet.pfn.train import run

SMALL = {
    "batch": 8, "buckets": (4, 8), "dims": (1,), "max_dim": 2, "width": 16, "depth": 2,
    "heads": 2, "hidden": 16, "bars": 24, "queries": 8, "warmup": 2,
}  # fmt: skip


def tasks():
    return Tasks(
        bn.GaussianProcess("rbf", bn.LogNormal(0.0, 0.3)),
        bn.GaussianLikelihood(0.2),
        as_input_law(None),
        (1,),
        8,
        8,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return run(tasks(), Training(steps=6, **SMALL), folder=folder, log_every=2), folder


@pytest.fixture(scope="module")
def pfn():
    """With random weights: what is tested with it is no prediction."""
    training = Training(steps=6, **SMALL)
    bars = Bars.from_values(np.random.default_rng(0).normal(size=5000), training.bars)
    card = make_card(tasks(), training, "small")
    return bn.PFN(training.network(jax.random.key(0)), bars, card)


@pytest.mark.slow
def test_a_stopped_run_goes_on_bit_for_bit(finished, tmp_path):
    run(tasks(), Training(steps=6, **SMALL), folder=tmp_path, stop_at=3)
    resumed = run(tasks(), Training(steps=6, **SMALL), folder=tmp_path)
    for a, b in zip(jax.tree.leaves(finished[0]), jax.tree.leaves(resumed), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.slow
def test_the_log_tells_the_excess_over_the_exact_answer(finished):
    lines = [json.loads(line) for line in (finished[1] / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert all(0 < line["excess"]["1"] < 5 for line in lines)


@pytest.mark.slow
def test_another_configuration_does_not_go_on(finished):
    with pytest.raises(bn.InputError, match="another configuration"):
        run(tasks(), Training(steps=6, **SMALL | {"seed": 1}), folder=finished[1])
    path = finished[1] / CHECKPOINT
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(bn.FileFormatError):
        run(tasks(), Training(steps=6, **SMALL), folder=finished[1])
    path.write_bytes(whole)


def test_weights_are_saved_in_half_precision_and_checked(pfn, tmp_path):
    x, y = np.linspace(0, 5, 6)[:, None], np.arange(6.0)
    pfn.save(tmp_path / "w.safetensors")
    back = bn.PFN.load(tmp_path / "w.safetensors")
    assert back.card == pfn.card
    assert back.network.norm.dtype == np.float32
    expected = pfn.fit(x, y).predict(x)
    np.testing.assert_allclose(back.fit(x, y).predict(x).mean, expected.mean, atol=0.02)
    data = bytearray((tmp_path / "w.safetensors").read_bytes())
    data[-3] ^= 1
    (tmp_path / "altered.safetensors").write_bytes(bytes(data))
    with pytest.raises(bn.FileFormatError, match="altered"):
        bn.PFN.load(tmp_path / "altered.safetensors")
    bn.posterior.saving.save({"a": 1}, tmp_path / "other.safetensors")
    with pytest.raises(bn.FileFormatError, match="not a PFN"):
        bn.PFN.load(tmp_path / "other.safetensors")
    with pytest.raises(bn.InputError, match="Unknown set of weights"):
        bn.PFN.from_pretrained("gpp")


def test_posteriors_are_saved_copied_and_pickled(pfn, tmp_path):
    x, y = np.linspace(0, 5, 6)[:, None], np.arange(6.0)
    posterior = pfn.fit(x, y)
    expected = posterior.predict(x)
    posterior.save(tmp_path / "p")
    for other in (
        bn.load(tmp_path / "p"),
        copy.deepcopy(posterior),
        pickle.loads(pickle.dumps(posterior)),
    ):
        np.testing.assert_array_equal(other.predict(x).mean, expected.mean)
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(expected)).sample(0, 2), expected.sample(0, 2)
    )


def test_shipped_configurations_are_read():
    configuration = read_configuration("gp")
    assert configuration.training.dims[:4] == (1, 2, 3, 4)
    assert configuration.training.max_dim == 10
    assert configuration.tasks.max_rows >= 100
    kernels = [p.covariance.name for p in configuration.tasks.parts(3)]
    assert kernels == ["matern52", "rbf"]
    # Student-t processes: the variance, not the standard deviation, is inverse gamma.
    for part in read_configuration("heavy").tasks.parts(2):
        precision = 1 / np.asarray(part.covariance.draw(jax.random.key(0), 4000)["outputscale"])
        # Of the Gamma law with shape 2 and rate 2: mean 1, variance 1/2.
        assert abs(precision.mean() - 1.0) < 5 * np.sqrt(0.5 / precision.size)
        assert abs(precision.var() - 0.5) < 0.1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nstep = 3\n[[prior]]", "step"),
        ("[trainin]\nsteps = 3", "trainin"),
        ("[training]\nsteps = 3", r"no \[\[prior\]\]"),
        ("[[prior]]\nkind = 'gpp'", "kind"),
        ("[[prior]]\nkernel = 'rbff'", "kernel"),
        ("[[prior]]\nlengthscale = { mean = 1.0 }", "a law is"),
        ("[training]\ndims = [11]\n[[prior]]", "dims must lie"),
        ("[training]\nbuckets = [10, 4]\n[[prior]]", "increasing"),
        ("steps = = 3", "not TOML"),
    ],
)
def test_configurations_with_mistakes_are_refused(tmp_path, text, message):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(bn.InputError, match=message):
        read_configuration(path)


def test_knobs_with_mistakes_are_refused():
    with pytest.raises(bn.InputError, match="knob of training"):
        bn.PFN.train(bn.GaussianProcess("rbf"), step=3)
    with pytest.raises(bn.InputError, match="steps must be at least 1"):
        bn.PFN.train(bn.GaussianProcess("rbf"), steps=0)


@pytest.mark.slow
def test_training_comes_close_to_the_exact_process():
    """1-D, fixed hyper-parameters: 3,000 small steps; the prototype was at 0.03 after 64,000 tasks."""
    process = bn.GaussianProcess("rbf", 0.7)
    pfn = bn.PFN.train(
        process,
        bn.GaussianLikelihood(0.2),
        inputs=bn.Box([-1.75], [1.75]),
        steps=3000,
        batch=16,
        buckets=(4, 10, 20),
        width=64,
        hidden=128,
        bars=150,
        learning_rate=2e-3,
        warmup=200,
    )
    from bayesnet.pfn.train import draw_batch, excess

    same = Tasks(
        process, bn.GaussianLikelihood(0.2), as_input_law(bn.Box([-1.75], [1.75])), (1,), 20
    )
    other = Training(seed=99, batch=64, dims=(1,), max_dim=1, buckets=(4, 10, 20))
    gaps = [excess(pfn.network, pfn.bars, draw_batch(same, other, i))[0] for i in range(6)]
    assert np.mean([g.mean() for g in gaps]) < 0.08
