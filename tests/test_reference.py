"""Every public name stands on one reference page, and the pages name nothing that is not there."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import bayesnet as bn

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
TEXT = "\n".join(page.read_text() for page in sorted(FOLDER.glob("*.md")))
IDENTIFIERS = re.findall(r"^::: (\S+)", TEXT, re.MULTILINE)
NEEDS_BO = re.compile(r"bayesnet\.(bo|surrogates)\b")
# The command line is described by its own --help.
NOT_DOCUMENTED = re.compile(r"\._|\.cli\b")


def public_modules() -> list[str]:
    """`bayesnet`, its packages and its own modules: all that say by `__all__` what is public.

    Files inside a package are not for users; the package offers what is.
    """
    root = Path(bn.__path__[0])
    found = ["bayesnet"]
    for module in pkgutil.walk_packages([str(root)], "bayesnet.", onerror=lambda _: None):
        if NOT_DOCUMENTED.search(module.name) or not (module.ispkg or module.name.count(".") == 1):
            continue
        path = root.joinpath(*module.name.split(".")[1:])
        source = path / "__init__.py" if module.ispkg else path.with_suffix(".py")
        if "\n__all__ = " in source.read_text():
            found.append(module.name)
    return found


def value_of(identifier: str) -> Any:
    """What mkdocstrings shows: `a.b.c` is c in the file a/b.py even where a offers another b."""
    module, _, name = identifier.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_no_name_stands_twice() -> None:
    assert [name for name, count in Counter(IDENTIFIERS).items() if count > 1] == []


@pytest.mark.parametrize("module", public_modules())
def test_public_names_stand_on_a_page(module: str) -> None:
    with_bo = NEEDS_BO.match(module)
    if with_bo:
        pytest.importorskip("optuna", reason="needs the extra bo")
    documented = [value_of(name) for name in IDENTIFIERS if with_bo or not NEEDS_BO.match(name)]
    left_out = []
    for name in importlib.import_module(module).__all__:
        if f"`bayesnet.{name}`" in TEXT:  # a module: a page says which names it holds
            continue
        value = getattr(importlib.import_module(module), name)
        if not any(value is other for other in documented):
            left_out.append(f"{module}.{name}")
    assert left_out == [], f"on no page of docs/reference: {', '.join(left_out)}"
