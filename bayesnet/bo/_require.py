"""The optional dependencies of this room: asked for first, by name where they are missing."""

from __future__ import annotations

import importlib

from bayesnet._errors import MissingExtraError

EXTRAS = ("torch", "gpytorch", "botorch", "optuna")


def require_extras() -> None:
    """Raise `MissingExtraError` unless everything that this room needs can be imported."""
    for name in EXTRAS:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise MissingExtraError(
                f"bayesnet.bo needs {name}, which is not installed: pip install bayesnet[bo]"
            ) from error


require_extras()
