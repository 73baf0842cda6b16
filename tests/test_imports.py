"""What an import loads, and that rooms see only the rooms above them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bayesnet as bn

PACKAGE = Path(bn.__file__).parent

# In the order in which data flows; a file may import its own room and those before it.
ROOMS = (
    "_errors",
    "_renamed",
    "_repr",
    "_types",
    "_columns",
    "_matrix",
    "_scales",
    "_notices",
    "data",
    "devices",
    "networks",
    "kernels",
    "priors",
    "likelihoods",
    "posterior",
    "inference",
    "diagnostics",
    "defaults",
    "pfn",
    "fitting",
    "comparison",
    "surrogates",
    "bo",
    "_sklearn_input",
    "_sklearn_params",
    "estimators",
    "pfn_estimators",
    "plots",
    "cli",
)
# Thin methods that import a later room when they are called: (file, room).
THIN = {
    ("kernels/process.py", "priors"),  # kernel.finite(): the prior of a network of finite width
    ("posterior/draws.py", "diagnostics"),  # post.diagnostics(), post.to_arviz()
    ("priors/network.py", "plots"),  # prior.show()
    ("priors/matching/report.py", "diagnostics"),  # match.report(): neutral measures
}
HEAVY = ("torch", "gpytorch", "botorch", "optuna", "matplotlib", "sklearn", "pandas", "flax")


def loaded_after(code: str) -> set[str]:
    program = f"{code}\nimport sys\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_importing_the_package_loads_no_other_framework():
    assert loaded_after("import bayesnet; bayesnet.__version__") == set()


def test_fitting_loads_no_other_framework():
    names = "import bayesnet as bn; bn.fit, bn.HMC, bn.MLP, bn.GaussianProcess, bn.NetworkPrior"
    # arviz draws with matplotlib and tabulates with pandas; it is loaded by diagnostics only.
    assert loaded_after(names) == set()


@pytest.mark.parametrize("name", bn.__all__)
def test_public_names_resolve(name):
    if name == "plots":
        pytest.importorskip("matplotlib")
    if name in ("bo", "surrogates"):
        pytest.importorskip("botorch")
    assert getattr(bn, name) is not None
    assert name in dir(bn)


def test_unknown_attributes_are_named():
    with pytest.raises(AttributeError, match="fitt"):
        _ = bn.fitt


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "bayesnet" and len(parts) > 1 else None


def imports(path: Path):
    """(room, whether inside a function) of every import of the library in a file."""
    tree = ast.parse(path.read_text())
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            modules = [node.module or ""]
            if node.module == "bayesnet":
                modules = [f"bayesnet.{alias.name}" for alias in node.names]
        for module in modules:
            room = room_of(module)
            if room is not None and not room.startswith("__"):
                yield room, id(node) in inside


FILES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py" or p.parent != PACKAGE)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_imports_only_rooms_above_it(path):
    name = str(path.relative_to(PACKAGE))
    own = name.split("/")[0].removesuffix(".py")
    assert own in ROOMS, f"{own} has no place in the order of the rooms"
    for room, inside in imports(path):
        if room not in ROOMS:  # a public name such as bayesnet.fit
            assert own in ("cli", "bo", "estimators", "surrogates"), (name, room)
            continue
        if ROOMS.index(room) > ROOMS.index(own):
            assert inside, f"{name} imports {room} at module level"
            assert (name, room) in THIN, f"{name} imports {room} inside a function"


def test_every_allowance_is_used():
    used = {
        (name, room)
        for path in FILES
        for name in [str(path.relative_to(PACKAGE))]
        for room, inside in imports(path)
        if inside
    }
    assert used >= THIN


def test_no_file_pickles():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {"pickle", "cloudpickle", "dill", "joblib"} & set(names), path
