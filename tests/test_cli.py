"""The command line: every command, and what it says when the input cannot be used."""

import csv
import functools
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

import bayesnet as bn
from bayesnet import defaults
from bayesnet.cli._environment import prepare
from bayesnet.cli._space import make_space
from bayesnet.cli.app import app

SHORT = ["--chains", "2", "--warmup", "20", "--draws", "20", "--hidden", "5"]


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """Matches of these tests are short, and kept apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(defaults, "match_prior", functools.partial(bn.match_prior, steps=10))
        patch.setenv("BAYESNET_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


def call(*args):
    """Run a command in this process: its exit code, stdout and stderr."""
    result = CliRunner().invoke(app, [str(a) for a in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def refused(*args):
    """The message of a command that must end with exit code 2, on one line."""
    code, _, err = call(*args)
    assert code == 2, err
    assert "Traceback" not in err
    return " ".join(err.split())


def write_csv(path, header, rows):
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def heat_table(path, n=24):
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 10, (n, 2))
    y = 20 + 3 * np.sin(x[:, 0]) + x[:, 1]
    return write_csv(path, "temp,time,yield", np.column_stack([x, y]).round(4).tolist())


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A model file, and what `fit` printed."""
    folder = tmp_path_factory.mktemp("fitted")
    data = heat_table(folder / "heat.csv")
    code, out, err = call("fit", data, "--target", "yield", "--test-fraction", "0.25", *SHORT)
    assert code == 0, err
    return folder / "heat.bayesnet", out


def test_fit_says_what_it_did_and_saves(fitted):
    path, out = fitted
    text = " ".join(out.split())
    assert "18 fitted, 6 held out" in text
    assert "2: temp, time" in text
    assert "On 6 rows that were held out" in text
    assert "do not rely on this run" in text  # 20 draws are too few, and it says so
    assert isinstance(bn.load(path)["posterior"], bn.FunctionDraws)


def test_predict_matches_columns_by_name(fitted, tmp_path):
    path, _ = fitted
    new = write_csv(tmp_path / "new.csv", "time,temp", [(3, 4), (5, 6)])
    out = tmp_path / "out.csv"
    code, _, err = call("predict", path, new, "--out", out, "--level", "0.8")
    assert code == 0, err
    assert "2 predictions with 80% intervals" in err
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["mean", "std", "epistemic_std", "aleatoric_std", "lower", "upper"]
    expected = bn.load(path)["posterior"].predict([[4, 3], [6, 5]])
    assert np.allclose([float(r["mean"]) for r in rows], expected.mean[:, 0], rtol=1e-5)
    low, high = expected.interval(0.8)
    assert np.allclose([float(r["lower"]) for r in rows], low[:, 0], rtol=1e-5)
    assert np.allclose([float(r["upper"]) for r in rows], high[:, 0], rtol=1e-5)


def test_predict_prints_to_the_screen_and_scores_a_known_target(fitted, tmp_path):
    path, _ = fitted
    data = heat_table(tmp_path / "again.csv")
    code, out, err = call("predict", path, data)
    assert code == 0, err
    assert out.splitlines()[0].startswith("mean,std")
    assert len(out.splitlines()) == 25
    assert "yield: RMSE" in err


def test_predict_takes_a_posterior_saved_from_python_by_position(fitted, tmp_path):
    # One that was fitted to arrays, and knows no names.
    path, _ = fitted
    post = bn.load(path)["posterior"]
    unnamed = replace(post.data.scaling, names=None)
    post = replace(post, data=replace(post.data, scaling=unnamed))
    post.save(tmp_path / "plain.bayesnet")
    new = write_csv(tmp_path / "new.csv", "a,b", [(4, 3)])
    code, out, err = call("predict", tmp_path / "plain.bayesnet", new)
    assert code == 0, err
    assert "holds no column names" in err
    assert len(out.splitlines()) == 2


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        ("temp", (1,), "lacks columns that the model was fitted on: time"),
        ("temp,minutes", (1, 2), "lacks columns that the model was fitted on: time. It has"),
        ("temp,time,id", (1, 2, 3), "columns that the model does not know: id"),
        ("temp,time", (1, "hot"), "column 'time': text ('hot') on line 2"),
    ],
)
def test_predict_refuses_other_columns(fitted, tmp_path, header, row, words):
    new = write_csv(tmp_path / "new.csv", header, [row])
    assert words in refused("predict", fitted[0], new)


def test_predict_can_ignore_extra_columns(fitted, tmp_path):
    new = write_csv(tmp_path / "new.csv", "id,temp,time", [("x1", 1, 2)])
    code, _, err = call("predict", fitted[0], new, "--ignore-extra")
    assert code == 0, err


def test_predict_refuses_a_file_that_is_no_model(fitted, tmp_path):
    data = heat_table(tmp_path / "d.csv", 3)
    assert "not a whole bayesnet file" in refused("predict", data, data)
    assert "No file at" in refused("predict", tmp_path / "none.bayesnet", data)
    assert "--level" in refused("predict", fitted[0], data, "--level", "90")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("a,y\n", "has a header but no rows"),
        ("1,2\n3,4\n", "starts with numbers"),
        ("a,a,y\n1,2,3\n", "repeats 'a'"),
        ("a,,y\n1,2,3\n", "column 2 has no name"),
        ("a,y\n1,2\n3\n", "line 3: 1 values, but 2 columns"),
        ("a,y\nred,2\nblue,3\n", "column 'a': text ('red') on line 2, 2 such rows"),
        ("a,y\n1,2\n,3\n", "column 'a': a missing value on line 3"),
        ("a,y\n1,NA\n2,3\n", "column 'y': a missing value ('NA') on line 2"),
        ("a,y\n1,inf\n2,3\n", "column 'y': an infinite value ('inf') on line 2"),
        ("a,z\n1,2\n", "Unknown target column 'y'"),
        ("y\n1\n", "no input columns"),
    ],
)
def test_fit_refuses_a_bad_table(tmp_path, text, words):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    assert words in refused("fit", path, "--target", "y")


def test_fit_an_ensemble(tmp_path):
    data = heat_table(tmp_path / "heat.csv")
    args = ["--inference", "ensemble", "--members", "2", "--hidden", "5"]
    code, out, err = call("fit", data, "--target", "yield", *args)
    assert code == 0, err
    assert "2 draws by DeepEnsemble" in out
    assert "2 members of an ensemble" in out


def test_fit_in_closed_form(tmp_path):
    data = heat_table(tmp_path / "heat.csv")
    code, out, err = call("fit", data, "-t", "yield", "--inference", "exact", "--kernel", "rbf")
    assert code == 0, err
    assert "exact, log evidence" in out
    assert "Matching" not in err
    code, out, err = call("predict", tmp_path / "heat.bayesnet", data)
    assert code == 0, err
    table = np.genfromtxt(out.splitlines(), delimiter=",", names=True)
    truth = np.genfromtxt(data, delimiter=",", names=True)["yield"]
    assert np.sqrt(np.mean((table[table.dtype.names[0]] - truth) ** 2)) < 0.5 * truth.std()


@pytest.mark.parametrize("method", [pytest.param("pfn", marks=pytest.mark.slow), "amortised"])
def test_trained_weights_are_fitted_saved_and_predicted_from(tmp_path, method):
    data = heat_table(tmp_path / "heat.csv")
    code, out, err = call("fit", data, "-t", "yield", "--inference", method)
    assert code == 0, err
    assert "Matching" not in err
    assert "RMSE" in out
    assert ("surprise" if method == "pfn" else "Convergence: ") in out
    code, out, err = call("predict", tmp_path / "heat.bayesnet", data)
    assert code == 0, err
    table = np.genfromtxt(data, delimiter=",", names=True)
    x, y = np.column_stack([table["temp"], table["time"]]), table["yield"]
    expected = bn.fit(None, x, y, inference=method).predict(x)
    rows = list(csv.DictReader(out.splitlines()))
    np.testing.assert_allclose([float(r["mean"]) for r in rows], expected.mean[:, 0], rtol=1e-3)
    assert "yield: RMSE" in err
    bn.load(tmp_path / "heat.bayesnet")["posterior"].save(tmp_path / "plain.bayesnet")
    new = write_csv(tmp_path / "new.csv", "time,temp", x[:3, ::-1].tolist())
    code, out, err = call("predict", tmp_path / "plain.bayesnet", new)
    assert code == 0, err
    again = [float(row["mean"]) for row in csv.DictReader(out.splitlines())]
    np.testing.assert_allclose(again, expected.mean[:3, 0], rtol=1e-3)


def test_classes_are_predicted_from_trained_weights(tmp_path):
    data = flower_table(tmp_path / "flowers.csv")
    args = ["--likelihood", "categorical", "--inference", "pfn", "--test-fraction", "0.2"]
    code, out, err = call("fit", data, "-t", "species", *args)
    assert code == 0, err
    assert "accuracy" in out
    code, out, err = call("predict", tmp_path / "flowers.bayesnet", data)
    assert code == 0, err
    assert next(csv.DictReader(out.splitlines())).keys() >= {"predicted", "p_iris", "p_rose"}
    assert "species: accuracy" in err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--inference", "student_t", "--kernel", "rbf"], "brings a process of its own"),
        (["--inference", "pfn", "--lengthscale", "1"], "brings a process of its own"),
        (["--inference", "pfn", "--draws", "5"], "--draws does not belong"),
        (
            ["--inference", "amortised", "--hidden", "5"],
            "conditions no network: leave --hidden out",
        ),
        (
            ["--inference", "exact", "--activation", "relu"],
            "conditions no network: leave --activation",
        ),
        (["--inference", "pfn", "--noise-std", "1"], "brings its own law of the noise"),
        (["--inference", "hcm"], "Did you mean 'hmc'"),
        (["--chains", "0"], "at least 1, got 0"),
        (["--members", "5"], "--members does not belong to --inference hmc"),
        (["--inference", "ensemble", "--warmup", "5"], "--warmup does not belong"),
        (["--inducing", "5"], "--inducing does not belong to --inference hmc"),
        (["--inference", "sparse_variational", "--draws", "5"], "--draws does not belong"),
        (["--inference", "process_laplace"], "ProcessLaplace is for classes"),
        (["--noise-std", "-1"], "noise_std"),
        (["--kernel", "rbff"], "Did you mean 'rbf'"),
        (["--hidden", "5,x"], "--hidden takes whole numbers"),
        (["--activation", "tan"], "Did you mean 'tanh'"),
        (["--drop", "nope"], "Unknown column to drop 'nope'"),
        (["--test-fraction", "1.5"], "--test-fraction must lie"),
        (["--out", "no/such/folder/m.bayesnet"], "there is no folder"),
        (["--device", "gpu:x"], "number after the colon"),
        (["--target", "yeild"], "Did you mean 'yield'"),
    ],
)
def test_fit_refuses_a_bad_option(tmp_path, args, words):
    data = heat_table(tmp_path / "heat.csv")
    target = [] if "--target" in args else ["--target", "yield"]
    assert words in refused("fit", data, *target, *args)


def test_devices_are_listed():
    code, out, _ = call("devices")
    assert code == 0
    assert "cpu:0" in out


@pytest.mark.slow
def test_prior_show_draws_and_reports(tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "prior.png"
    args = ["--kernel", "rbf", "--lengthscale", "1", "--hidden", "5", "--steps", "10", "--out", out]
    code, printed, err = call("prior", "show", *args)
    assert code == 0, err
    assert out.stat().st_size > 10_000
    assert "floor" in printed


def test_prior_show_refuses_bad_options(tmp_path):
    assert "--out must end in" in refused("prior", "show", "--out", tmp_path / "p.gif")
    assert "--dim must be" in refused("prior", "show", "--dim", "0")


OBJECTIVE = """
def bowl(p):
    return (p["a"] - 0.3) ** 2 + (0 if p["kind"] == "x" else 1)
def broken(p):
    raise ValueError("the oven is off")
class Spilt(Exception):
    pass
def clumsy(p):
    if p["a"] > 0.5:
        raise Spilt("all over")
    return p["a"]
"""


@pytest.fixture
def objective(tmp_path):
    pytest.importorskip("optuna")
    path = tmp_path / "work.py"
    path.write_text(OBJECTIVE)
    return path


def test_optimize_tells_each_trial_and_resumes(objective, tmp_path):
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    args = [f"{objective}:bowl", "-p", "a=0.0:1.0", "-p", "kind=x,y", "--surrogate", "random"]
    code, out, err = call("optimize", *args, "--n-trials", "4", "--storage", storage)
    assert code == 0, err
    assert "trial 4/4" in err
    assert "Best of 4 trials" in out
    code, out, err = call("optimize", *args, "--n-trials", "6", "--storage", storage)
    assert code == 0, err
    assert "trial 4/6" not in err
    assert "trial 6/6" in err
    assert "Best of 6 trials" in out


def test_optimize_explains_a_failing_objective(objective):
    message = refused("optimize", f"{objective}:broken", "-p", "a=0:1", "--surrogate", "random")
    assert "ValueError: the oven is off" in message
    assert "line 5" in message
    assert "--catch ValueError" in message


@pytest.mark.parametrize(
    "catch", ["ValueError", "KeyError,ValueError", "Exception", "builtins:ValueError"]
)
def test_optimize_goes_on_after_caught_exceptions(objective, catch):
    args = ["-p", "a=0:1", "--surrogate", "random", "--n-trials", "2", "--catch", catch]
    code, out, err = call("optimize", f"{objective}:broken", *args)
    assert code == 0, err
    assert err.count("failed (ValueError: the oven is off)") == 2
    assert "No trial gave a value." in out


def test_optimize_catches_an_exception_of_the_objectives_own_file(objective, tmp_path, caplog):
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    args = ["-p", "a=0:1", "--surrogate", "random", "--n-trials", "8", "--storage", storage]
    code, out, err = call("optimize", f"{objective}:clumsy", *args, "--catch", "Spilt")
    assert code == 0, err
    optuna = pytest.importorskip("optuna")
    trials = optuna.load_study(study_name="bayesnet", storage=storage).trials
    failed = [trial.params["a"] > 0.5 for trial in trials]
    assert [trial.state.name == "FAIL" for trial in trials] == failed
    assert 0 < sum(failed) < 8
    assert f"Best of {8 - sum(failed)} trials" in out
    assert "a (real, 0.0 to 1.0)" in caplog.text  # how the range was understood


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["{}:none", "-p", "a=0:1"], "no function 'none'. It has: bowl, broken"),
        (["{}", "-p", "a=0:1"], "module:function or file.py:function"),
        (["no_such_module_here:f", "-p", "a=0:1"], "Cannot import"),
        (["no_such_file.py:f", "-p", "a=0:1"], "No file at"),
        (["{}:bowl"], "Name what to search"),
        (["{}:bowl", "-p", "a"], "is not NAME=LOW:HIGH"),
        (["{}:bowl", "-p", "a=2:1"], "lower bound must be below"),
        (["{}:bowl", "-p", "a=0:1:log"], "must start above 0"),
        (["{}:bowl", "-p", "a=low:1"], "bounds must be numbers"),
        (["{}:bowl", "-p", "a=1_0:20"], "bounds must be numbers"),
        (["{}:bowl", "-p", "a=0:1.5:int"], "must be whole numbers"),
        (["{}:bowl", "-p", "a=0:inf"], "must be finite"),
        (["{}:bowl", "-p", "a=1:2:log:log"], "is not NAME=LOW:HIGH"),
        (["{}:bowl", "-p", "a=0:1", "--catch", "bowl"], "--catch takes exception classes"),
        (["{}:bowl", "-p", "a=0:1", "--catch", "BaseException"], "--catch takes exception classes"),
        (["{}:bowl", "-p", "a=0:1", "-p", "a=0:2"], "given twice"),
        (["{}:bowl", "-p", "a=0:1", "--n-trials", "0"], "--n-trials"),
        (["{}:bowl", "-p", "a=0:1", "--surrogate", "hcm"], "Unknown surrogate"),
        (["{}:bowl", "-p", "a=0:1", "--likelihood", "poisson"], "real-valued outcomes"),
        (["{}:bowl", "-p", "a=0:1", "--storage", "foo://x"], "The storage 'foo://x' cannot"),
        (["{}:bowl", "-p", "a=0:1", "--storage", "sqlite:////no/dir/x.db"], "unable to open"),
    ],
)
def test_optimize_refuses_bad_input(objective, args, words):
    assert words in refused("optimize", *(a.format(objective) for a in args))


def test_spaces_are_read_from_options_and_files(tmp_path):
    optuna = pytest.importorskip("optuna")
    path = tmp_path / "space.json"
    path.write_text(
        json.dumps(
            {
                "lr": {"low": 1e-4, "high": 1.0, "log": True},
                "depth": [1, 8],
                "act": ["tanh", "relu"],
            }
        )
    )
    ranges = ["width=16:64:log:int", "bias=true,false", "temp=20:90", "time=1:60:int", "p=1:9:log"]
    space = make_space([*ranges, "month=2020_01,2020_02"], path)
    dist = optuna.distributions
    assert space["temp"] == dist.FloatDistribution(20.0, 90.0)
    assert space["time"] == dist.IntDistribution(1, 60)
    assert space["p"] == dist.FloatDistribution(1.0, 9.0, log=True)
    assert space["month"] == ["2020_01", "2020_02"]
    assert space["lr"] == dist.FloatDistribution(1e-4, 1.0, log=True)
    assert space["depth"] == dist.IntDistribution(1, 8)
    assert space["act"] == ["tanh", "relu"]
    assert space["width"] == dist.IntDistribution(16, 64, log=True)
    assert space["bias"] == [True, False]
    path.write_text('{"a": [1.0, 8.0], "b": {"low": 1, "high": 8, "int": false}}')
    assert set(make_space([], path).values()) == {dist.FloatDistribution(1.0, 8.0)}
    path.write_text("[1]")
    with pytest.raises(bn.InputError, match="must hold an object"):
        make_space([], path)
    for text in (
        '{"a": [1, 2], "a": [3, 4]}',
        '{"a": {"low": 1, "high": 9, "int": "no"}}',
        '{"a": {"low": 1, "high": 9, "log": 0}}',
        '{"a": {"choices": "ab"}}',
    ):
        path.write_text(text)
        with pytest.raises(bn.InputError, match=r"'a': expected|'a' is given twice"):
            make_space([], path)


def test_choices_are_read_as_they_are_written():
    found = make_space(["id=007,010", "k=0,1,-2", "r=0.5,1e3"], None)
    assert found == {"id": ["007", "010"], "k": [0, 1, -2], "r": [0.5, 1000.0]}
    for text in ("a=1,2,", "a=1,,2"):
        with pytest.raises(bn.InputError, match="a choice without a name"):
            make_space([text], None)


def test_the_environment_of_the_user_is_respected():
    own = {"JAX_COMPILATION_CACHE_DIR": "/elsewhere"}
    prepare(own)
    assert own == {"JAX_COMPILATION_CACHE_DIR": "/elsewhere"}
    empty = {"XDG_CACHE_HOME": "/cache"}
    prepare(empty)
    assert empty["JAX_COMPILATION_CACHE_DIR"] == os.path.join("/cache", "bayesnet", "jax")


@pytest.mark.parametrize("command", ["fit", "predict", "optimize", "prior show"])
def test_help_teaches_by_example(command):
    code, out, _ = call(*command.split(), "--help")
    assert code == 0
    assert f"bayesnet {command}" in out
    assert "Examples" in out


def test_an_error_in_a_real_process_prints_no_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "bayesnet.cli", "fit", str(tmp_path / "no.csv"), "--target", "y"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.strip() == f"Error: No file at {tmp_path / 'no.csv'}."


def test_ctrl_c_ends_without_a_traceback(objective, monkeypatch):
    import bayesnet.bo

    def stopped(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(bayesnet.bo, "minimize", stopped)
    code, _, err = call("optimize", f"{objective}:bowl", "-p", "a=0:1", "--storage", "sqlite://")
    assert code == 130
    assert "goes on from there" in err
    assert err.rstrip().endswith("Stopped.")


def flower_table(path, n=30):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 2)).round(3)
    names = np.where(x[:, 0] > 0.5, "rose", np.where(x[:, 1] > 0, "lily", "iris"))
    rows = [(a, b, name) for (a, b), name in zip(x.tolist(), names.tolist(), strict=True)]
    return write_csv(path, "width,length,species", rows)


@pytest.mark.slow
def test_classes_are_fitted_and_predicted_as_probabilities(tmp_path):
    data = flower_table(tmp_path / "flowers.csv")
    args = ["--target", "species", "--likelihood", "categorical", "--test-fraction", "0.2"]
    code, out, err = call("fit", data, *args, *SHORT)
    assert code == 0, err
    assert "accuracy" in out
    code, out, err = call("predict", tmp_path / "flowers.bayesnet", data)
    assert code == 0, err
    rows = list(csv.DictReader(out.splitlines()))
    names = ["p_iris", "p_lily", "p_rose"]
    assert list(rows[0]) == ["predicted", *names, "epistemic", "aleatoric"]
    assert len(rows) == 30
    for row in rows:
        probabilities = [float(row[name]) for name in names]
        assert sum(probabilities) == pytest.approx(1, abs=1e-4)
        assert f"p_{row['predicted']}" == names[int(np.argmax(probabilities))]
    assert "species: accuracy" in err
    unknown = write_csv(tmp_path / "new.csv", "width,length,species", [(1, 2, "tulip")])
    code, out, err = call("predict", tmp_path / "flowers.bayesnet", unknown)
    assert (code, len(out.splitlines())) == (0, 2)  # what cannot be scored is predicted
    assert "'tulip' is not among" in " ".join(err.split())
    bare = write_csv(tmp_path / "bare.csv", "width,length", [(1, 2)])
    code, out, err = call("predict", tmp_path / "flowers.bayesnet", bare)
    assert code == 0, err
    assert len(out.splitlines()) == 2


@pytest.mark.parametrize(
    ("method", "words"), [("process_laplace", "Laplace"), ("sparse_variational", "ELBO")]
)
def test_classes_of_a_process_are_fitted_and_predicted(tmp_path, method, words):
    data = flower_table(tmp_path / "flowers.csv")
    args = ["--inference", method, "--lengthscale", "1", "--outputscale", "4"]
    if method == "sparse_variational":
        args += ["--inducing", "5"]
    code, out, err = call("fit", data, "-t", "species", "--likelihood", "categorical", *args)
    assert code == 0, err
    assert "Matching" not in err
    assert words in out
    code, out, err = call("predict", tmp_path / "flowers.bayesnet", data)
    assert code == 0, err
    rows = list(csv.DictReader(out.splitlines()))
    truth = [row["species"] for row in csv.DictReader(data.read_text().splitlines())]
    right = [row["predicted"] == name for row, name in zip(rows, truth, strict=True)]
    assert np.mean(right) > 0.8


def test_a_latent_process_saved_from_python_is_predicted_by_position(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 2))
    process = bn.GaussianProcess("rbf", 1.0)
    labels = np.where(x[:, 0] > 0, "a", "b")
    post = bn.fit(process, x, labels, likelihood="bernoulli", inference="process_laplace")
    post.save(tmp_path / "m.bayesnet")
    new = write_csv(tmp_path / "new.csv", "u,v", [(1, 2), (-1, 0)])
    code, out, err = call("predict", tmp_path / "m.bayesnet", new)
    assert code == 0, err
    assert [row["predicted"] for row in csv.DictReader(out.splitlines())] == ["a", "b"]
    narrow = write_csv(tmp_path / "narrow.csv", "u", [(1,)])
    assert "has 1 columns" in refused("predict", tmp_path / "m.bayesnet", narrow)


@pytest.mark.slow
def test_many_numbers_are_fitted_by_inducing_values(tmp_path):
    data = heat_table(tmp_path / "heat.csv")
    args = ["--inference", "sparse_variational", "--lengthscale", "1", "--inducing", "10"]
    code, out, err = call("fit", data, "-t", "yield", *args, "--noise-std", "0.5")
    assert code == 0, err
    assert "noise sd" in out
    assert "RMSE" in out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["heteroscedastic", "student_t"])
def test_other_noise_is_fitted_and_predicted(tmp_path, name):
    data = heat_table(tmp_path / "heat.csv")
    code, out, err = call("fit", data, "--target", "yield", "--likelihood", name, *SHORT)
    assert code == 0, err
    assert ("noise scale" in out) == (name == "student_t")
    code, out, err = call("predict", tmp_path / "heat.bayesnet", data)
    assert code == 0, err
    assert out.startswith("mean,std,epistemic_std,aleatoric_std,lower,upper")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--likelihood", "categoric"], "Did you mean 'categorical'"),
        (["--likelihood", "poisson"], "is for counts (0, 1, 2, ...)"),
        (["--likelihood", "bernoulli"], "for two classes, got 24"),
        (["--likelihood", "laplace", "--noise-std", "1"], "--likelihood gaussian"),
        (["--likelihood", "categorical", "--target", "temp"], "Classes are those of one target"),
    ],
)
def test_fit_refuses_targets_that_the_likelihood_is_not_for(tmp_path, args, words):
    data = heat_table(tmp_path / "heat.csv")
    assert words in refused("fit", data, "--target", "yield", *args)


def test_a_missing_label_is_named(tmp_path):
    data = write_csv(tmp_path / "d.csv", "a,kind", [(1, "x"), (2, ""), (3, "y")])
    words = refused("fit", data, "-t", "kind", "--likelihood", "categorical")
    assert "column 'kind': a missing label on line 3" in words


def test_a_reader_that_has_enough_is_no_error():
    """As `bayesnet predict ... | head -1`."""
    script = (
        "from bayesnet.cli._console import plain_errors\n"
        "@plain_errors\n"
        "def command():\n"
        "    for i in range(200_000):\n"
        "        print(i)\n"
        "import typer\n"
        "typer.run(command)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "0\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_rows_without_a_target_are_predicted_and_the_others_scored(fitted, tmp_path):
    new = write_csv(tmp_path / "new.csv", "temp,time,yield", [(1, 2, ""), (3, 4, 24), (5, 6, "NA")])
    code, out, err = call("predict", fitted[0], new)
    assert code == 0, err
    assert len(out.splitlines()) == 4
    assert "of 1 rows in the interval" in err
    code, out, err = call("predict", fitted[0], write_csv(new, "temp,time,yield", [(1, 2, "")]))
    assert code == 0
    assert "yield:" not in err
    code, out, err = call("predict", fitted[0], write_csv(new, "temp,time,yield", [(1, 2, "x")]))
    assert code == 0
    assert len(out.splitlines()) == 2
    assert "Not scored against yield" in err


def test_predictions_keep_all_digits(fitted, tmp_path):
    new = write_csv(tmp_path / "new.csv", "temp,time", [(3, 4)])
    out = call("predict", fitted[0], new)[1]
    mean = bn.load(fitted[0])["posterior"].predict([[3, 4]]).mean[0, 0]
    assert float(out.splitlines()[1].split(",")[0]) == mean


def test_fit_refuses_a_folder_and_a_target_that_is_dropped(tmp_path):
    data = heat_table(tmp_path / "heat.csv")
    assert "it is a folder" in refused("fit", data, "-t", "yield", "--out", tmp_path)
    words = refused("fit", data, "-t", "yield", "--drop", "yield")
    assert "both a target and a column to drop" in words


def test_a_constant_target_and_brackets_in_names_are_told(tmp_path):
    rows = [(i, i % 3, 7.5) for i in range(8)]
    data = write_csv(tmp_path / "c.csv", "dose [mg],time [h],y", rows)
    code, out, err = call("fit", data, "-t", "y", "--inference", "exact", "--kernel", "rbf")
    assert code == 0, err
    assert "y is constant" in " ".join(err.split())
    assert "dose [mg], time [h]" in out
