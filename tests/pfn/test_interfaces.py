"""The PFN from the command line and from scikit-learn."""

import csv
from contextlib import contextmanager

import jax
import numpy as np
import pytest
from typer.testing import CliRunner

import bayesnet as bn
from bayesnet.cli.app import app
from bayesnet.data import Scaling
from tests.pfn.exact import exact_pfn
from tests.pfn.small import random_pfn

RUN = """
[training]
steps = 3
batch = 4
buckets = [4, 8]
max_dim = 2
width = 8
depth = 1
heads = 2
hidden = 8
bars = 16
queries = 4
warmup = 1

[[prior]]
kernel = "rbf"
lengthscale = 1.0
"""


def call(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, " ".join(result.stderr.split())


def write_csv(path, header, rows):
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


@pytest.mark.slow
def test_train_and_predict_on_the_command_line(tmp_path):
    (tmp_path / "run.toml").write_text(RUN)
    weights = tmp_path / "w.safetensors"
    code, out, _ = call("pfn", "train", tmp_path / "run.toml", "--out", weights, "--seed", 1)
    assert code == 0
    assert "accepts 2" in out
    assert bn.PFN.load(weights).card["seed"] == 1
    assert (tmp_path / "w.safetensors.run" / "log.jsonl").is_file()

    x = np.linspace(0, 10, 7)
    known = write_csv(tmp_path / "known.csv", "y,x", np.column_stack([np.sin(x), x]))
    new = write_csv(tmp_path / "new.csv", "x", [[1.0], [2.0]])
    code, out, _ = call("pfn", "predict", known, new, "--weights", weights)
    assert code == 0
    rows = list(csv.DictReader(out.splitlines()))
    expected = bn.PFN.load(weights).fit(x[:, None], np.sin(x)).predict([[1.0], [2.0]])
    found = [float(row["mean"]) for row in rows]
    np.testing.assert_allclose(found, expected.mean[:, 0], rtol=1e-4)
    assert all(float(row["lower"]) < float(row["upper"]) for row in rows)

    long = write_csv(tmp_path / "long.csv", "y,x", [[i % 3, i] for i in range(9)])
    code, _, error = call("pfn", "predict", long, new, "--weights", weights)
    assert code == 2
    assert "at most 8" in error
    assert call("pfn", "predict", long, new, "--weights", weights, "--subsample")[0] == 0
    code, _, error = call("pfn", "predict", known, known, "--target", "z", "--weights", weights)
    assert code == 2
    assert "z" in error


def test_mistakes_on_the_command_line_are_told(tmp_path):
    for arguments, message in (
        (("train", "gpp"), "gp"),
        (("train", "gp", "--out", tmp_path / "no" / "w.safetensors"), "no folder"),
        (("predict", "a.csv", "b.csv", "--level", "2"), "strictly between"),
        (("predict", "a.csv", "b.csv"), "No file"),
    ):
        code, _, error = call("pfn", *arguments)
        assert code == 2
        assert message in error


def test_the_regressor_keeps_to_the_contract_of_scikit_learn():
    pytest.importorskip("sklearn")
    x = np.random.default_rng(0).normal(size=(60, 2))
    y = x[:, 0]
    model = bn.PFNRegressor(exact_pfn(), random_state=0).fit(x, y)
    assert model.posterior_.data.num_rows == 24
    mean, std = model.predict(x[:3], return_std=True)
    assert mean.shape == std.shape == (3,)
    assert model.score(x, y) > 0.8
    assert model.predict_quantiles(x[:3]).shape == (3, 3)
    both = bn.PFNRegressor(exact_pfn(), random_state=0).fit(x, np.column_stack([y, -y]))
    assert both.predict(x[:3]).shape == (3, 2)
    with pytest.raises(ValueError, match="at most 24"):
        bn.PFNRegressor(exact_pfn(), longer="error").fit(x, y)


def test_arguments_of_fit_that_trained_weights_cannot_honour_are_refused():
    x, y = np.linspace(-1, 1, 8)[:, None], np.linspace(0, 1, 8)
    for method in ("pfn", "amortised", random_pfn()):
        with pytest.raises(bn.UnsupportedError, match="cannot mask single targets"):
            bn.fit(None, x, y, inference=method, missing="mask")
        with pytest.raises(bn.InputError, match="missing"):
            bn.fit(None, x, y, inference=method, missing="drop")
        with pytest.raises(bn.InputError, match="seed must be"):
            bn.fit(None, x, y, inference=method, seed="one")
        for name in ("y_var", "sample_weight"):
            with pytest.raises(bn.UnsupportedError, match=f"no use for {name}"):
                bn.fit(None, x, y, inference=method, **{name: np.ones(8)})
    with pytest.raises(bn.UnsupportedError, match="leave scaling out"):
        bn.fit(
            None,
            x,
            y > 0.5,
            likelihood="bernoulli",
            inference="pfn",
            scaling=Scaling.identity(1, 1),
        )


def test_seed_and_progress_of_fit_reach_trained_weights(monkeypatch):
    """A seed chooses orders and rows; a bar is shown where it is asked for, and not elsewhere."""
    x, y = np.linspace(-1, 1, 12)[:, None], np.arange(12) // 6

    def seed_of(seed):
        found = bn.fit(None, x, y, likelihood="categorical", inference="pfn", seed=seed, warn=False)
        return found.seed

    assert seed_of(3) == 3
    key = jax.random.key(5)
    assert seed_of(key) == seed_of(key) != seed_of(jax.random.key(6))
    assert seed_of(-1) >= 0  # NumPy, which draws here, takes no other
    told = []

    @contextmanager
    def bar(show):
        yield (lambda *call: told.append((show, *call))) if show else None

    monkeypatch.setattr("bayesnet.fitting._progress_bar", bar)
    bn.fit(None, x, x[:, 0], inference=random_pfn(), warn=False, progress=True)
    assert told == [(True, "conditioning", 0, 1), (True, "conditioning", 1, 1)]
    bn.fit(None, x, x[:, 0], inference=random_pfn(), warn=False, progress=False)
    assert len(told) == 2
