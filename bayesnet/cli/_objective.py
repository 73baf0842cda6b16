"""The objective of `bayesnet optimize`, and the exceptions that fail a trial, from what can be typed."""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bayesnet._errors import InputError


def load_objective(reference: str) -> Callable[[dict[str, Any]], Any]:
    """The function that `package.module:function` or `path/to/file.py:function` names.

    Raises `InputError` if it cannot be found or called. Importing runs the module's code.
    """
    place, sign, name = reference.rpartition(":")
    if not (sign and place and name):
        raise InputError(
            f"The objective must be module:function or file.py:function, got {reference!r}."
        )
    module = (
        _load_file(Path(place)) if place.endswith(".py") else _load_module(place, "the objective")
    )
    function = getattr(module, name, None)
    if not callable(function):
        known = [n for n in vars(module) if not n.startswith("_") and callable(getattr(module, n))]
        raise InputError(f"{place} has no function {name!r}. It has: {', '.join(known) or 'none'}.")
    return function


def load_exceptions(names: Sequence[str], objective: Callable[..., Any]) -> tuple[Any, ...]:
    """The exception classes that `--catch` names: built in, of the objective's file, or module:Class.

    Several may stand in one text, separated by commas. Raises `InputError` for other names.
    """
    texts = [part.strip() for name in names for part in name.split(",")]
    return tuple(_exception(text, objective) for text in texts)


def _exception(text: str, objective: Callable[..., Any]) -> type[Exception]:
    place, sign, name = text.rpartition(":" if ":" in text else ".")
    beside = getattr(objective, "__globals__", {})
    if sign and place:
        found = getattr(_load_module(place, f"--catch {text}"), name, None)
    else:
        found = beside.get(text, getattr(builtins, text, None))
    if not (isinstance(found, type) and issubclass(found, Exception)):
        raise InputError(
            f"--catch takes exception classes: built in, as ValueError (Exception for all of them), of the "
            f"objective's file, or module:Class; got {text!r}."
        )
    return found


def _load_module(name: str, use: str) -> Any:
    # A module beside the user, as `python -m` finds it.
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(f"Cannot import {name!r} for {use}: {error}.") from error
    finally:
        sys.path.pop(0)


def _load_file(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"No file at {path}.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))  # its neighbours, as `python file.py` finds them
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{path} could not be run: {type(error).__name__}: {error}.") from error
    finally:
        sys.path.pop(0)
    return module
