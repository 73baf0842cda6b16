"""The wheel: everything the library needs at run time and nothing else, for the Pythons it is said to run on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Code, the marker of types, stated trainings, and weights: no kind that could run code when it is read.
KINDS = {".py", ".typed", ".toml", ".safetensors"}

setuptools = pytest.importorskip("setuptools", reason="needs setuptools, which builds the wheel")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built from a copy: nothing is left in the tree or fetched."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    shutil.copytree(
        ROOT / "bayesnet", source / "bayesnet", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    code = f"from setuptools import build_meta; print(build_meta.build_wheel({str(out)!r}))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    (built,) = out.glob("*.whl")
    return built


def in_package(wheel: Path) -> set[str]:
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_the_whole_package(wheel: Path) -> None:
    files = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "bayesnet").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert in_package(wheel) == files
    kinds = Counter(Path(name).suffix for name in files)
    assert set(kinds) == KINDS
    assert "bayesnet/py.typed" in files
    assert min(kinds[".safetensors"], kinds[".toml"]) > 1


def test_the_wheel_works_without_the_tree(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "import bayesnet as bn; from bayesnet.pfn.configurations import read_configuration\n"
        "read_configuration('gp'); print(bn.__file__); print(bn.PFN.from_pretrained('gp').card['name'])"
    )
    ran = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    place, name = ran.stdout.split()
    assert Path(place).is_relative_to(tmp_path)
    assert name == "gp"


def test_metadata_agrees_with_itself(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (path,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = archive.read(path).decode()
    pythons = re.findall(
        r"^Classifier: Programming Language :: Python :: (3\.\d+)$", metadata, re.M
    )
    least = re.search(r"^Requires-Python: >=(3\.\d+)", metadata, re.M)
    assert least is not None
    assert pythons[0] == least[1]
    import bayesnet

    assert f"\nVersion: {bayesnet.__version__}\n" in metadata
    readme = metadata.split("\n\n", 1)[1]
    assert all(line in readme for line in ('pip install "bayesnet[all]"', "make demo", "make test"))


def test_all_is_every_extra_for_users() -> None:
    extras = PROJECT["optional-dependencies"]
    (everything,) = extras["all"]
    named = set(re.findall(r"\w+", everything.removeprefix("bayesnet")))
    assert named == set(extras) - {"all", "docs", "test", "dev"}
