"""Every example runs to its end, in a small mode, as a user would run it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
STORIES = sorted(p.stem for p in EXAMPLES.glob("*.py") if p.stem != "demo")
FIGURES = ("prior_functions.png", "predictions.png", "optimization.png", "one_pass.png")


def run(name: str, tmp_path: Path, **extra: str) -> str:
    """The output of an example in small mode, with a folder of its own to write into."""
    environment = {**os.environ, "BAYESNET_EXAMPLE_SMALL": "1", "MPLBACKEND": "Agg", **extra}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_there_is_an_example_for_each_user_story():
    assert {"fit_a_table", "prior_design", "bayesian_optimization", "your_own_network"} <= set(
        STORIES
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", STORIES)
def test_example_runs(name, tmp_path):
    for package in ("sklearn", "torch", "optuna", "matplotlib", "flax"):
        pytest.importorskip(package)
    assert run(name, tmp_path)
    assert list(tmp_path.iterdir()) == []  # examples leave nothing behind in small mode


@pytest.mark.slow
def test_demo_prints_its_numbers_and_saves_its_figures(tmp_path):
    for package in ("sklearn", "torch", "optuna", "matplotlib"):
        pytest.importorskip(package)
    printed = run("demo", tmp_path, BAYESNET_DEMO_OUTPUT=str(tmp_path / "out"))
    for words in (
        "matched prior",
        "N(0,1) prior",
        "GP (BoTorch)",
        "random search",
        "One split",
        "PFN of networks",
        "One table",
    ):
        assert words in printed
    for name in FIGURES:
        assert (tmp_path / "out" / name).stat().st_size > 10_000
