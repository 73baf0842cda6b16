"""Tells mkdocstrings, which reads code without running it, where public names come from.

`import bayesnet` loads a name when it is first used, so that no import statement says where it is.
"""

from __future__ import annotations

import ast
from typing import Any

import griffe


class LazyNames(griffe.Extension):
    """Every entry of `_NAMES` in `bayesnet/__init__.py` becomes an alias of what it stands for."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        for name, module in ast.literal_eval(str(pkg["_NAMES"].value)).items():
            pkg.set_member(name, griffe.Alias(name, f"{pkg.path}.{module}.{name}"))
