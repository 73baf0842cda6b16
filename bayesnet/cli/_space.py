"""The search space and the objective of `bayesnet optimize`, from what can be typed."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bayesnet._errors import InputError, MissingExtraError

GRAMMAR = (
    "NAME=LOW:HIGH (whole numbers if both are), NAME=LOW:HIGH:log, or NAME=choice,choice,... ; "
    "for example lr=1e-4:1.0:log, depth=1:8, kernel=rbf,poly"
)


def make_space(params: Sequence[str], file: Path | None) -> dict[str, Any]:
    """Name -> Optuna distribution, from `--param` texts and a JSON file.

    Raises `InputError` for text outside the grammar and for names given twice.
    """
    if not params and file is None:
        raise InputError(f"Name what to search: --param {GRAMMAR}; or --space space.json.")
    found = _read_file(file) if file else {}
    for text in params:
        name, sign, spec = text.partition("=")
        if not (name and sign and spec):
            raise InputError(f"--param {text!r} is not {GRAMMAR}.")
        if name in found:
            raise InputError(f"Parameter {name!r} is given twice.")
        found[name] = _parse_spec(text, spec)
    return found


def _parse_spec(text: str, spec: str) -> Any:
    if ":" not in spec:
        choices = [_value(part.strip()) for part in spec.split(",")]
        if len(choices) < 2:
            raise InputError(f"--param {text!r} has a single choice; expected {GRAMMAR}.")
        return choices
    low, high, *rest = (part.strip() for part in spec.split(":"))
    if rest not in ([], ["log"]):
        raise InputError(f"--param {text!r} is not {GRAMMAR}.")
    bounds = [_value(low), _value(high)]
    if not all(isinstance(b, (int, float)) and not isinstance(b, bool) for b in bounds):
        raise InputError(f"--param {text!r}: bounds must be numbers; expected {GRAMMAR}.")
    return _interval(f"--param {text!r}", *bounds, log=bool(rest))


def _interval(where: str, low: Any, high: Any, *, log: bool) -> Any:
    try:
        from optuna.distributions import FloatDistribution, IntDistribution
    except ImportError as error:
        raise MissingExtraError(
            "bayesnet optimize needs Optuna and BoTorch: pip install bayesnet[bo]"
        ) from error
    if not low < high:
        raise InputError(f"{where}: the lower bound must be below the upper one.")
    if log and low <= 0:
        raise InputError(f"{where}: a logarithmic range must start above 0.")
    kind = IntDistribution if isinstance(low, int) and isinstance(high, int) else FloatDistribution
    return kind(low, high, log=log)


def _value(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _read_file(path: Path) -> dict[str, Any]:
    """A JSON object: name -> [low, high], a list of choices, or {"low", "high", "log"}."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"No file at {path}.") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise InputError(f'{path} must hold an object such as {{"lr": [0.001, 1.0]}}.')
    return {name: _read_entry(f"{path}, {name!r}", spec) for name, spec in content.items()}


def _read_entry(where: str, spec: Any) -> Any:
    if isinstance(spec, list) and not _is_pair_of_numbers(spec):
        return spec
    if isinstance(spec, list):
        return _interval(where, *spec, log=False)
    if isinstance(spec, dict) and set(spec) == {"choices"}:
        return list(spec["choices"])
    if isinstance(spec, dict) and {"low", "high"} <= set(spec) <= {"low", "high", "log"}:
        bounds = [spec["low"], spec["high"]]
        if _is_pair_of_numbers(bounds):
            return _interval(where, *bounds, log=bool(spec.get("log", False)))
    raise InputError(
        f"{where}: expected [low, high], a list of choices, "
        '{"low": ..., "high": ..., "log": true} or {"choices": [...]}.'
    )


def _is_pair_of_numbers(values: list[Any]) -> bool:
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    return len(values) == len(numbers) == 2


def load_objective(reference: str) -> Callable[[dict[str, Any]], Any]:
    """The function that `package.module:function` or `path/to/file.py:function` names.

    Raises `InputError` if it cannot be found or called. Importing runs the module's code.
    """
    place, sign, name = reference.rpartition(":")
    if not (sign and place and name):
        raise InputError(
            f"The objective must be module:function or file.py:function, got {reference!r}."
        )
    module = _load_file(Path(place)) if place.endswith(".py") else _load_module(place)
    function = getattr(module, name, None)
    if not callable(function):
        known = [n for n in vars(module) if not n.startswith("_") and callable(getattr(module, n))]
        raise InputError(f"{place} has no function {name!r}. It has: {', '.join(known) or 'none'}.")
    return function


def _load_module(name: str) -> Any:
    # A module beside the user, as `python -m` finds it.
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(f"Cannot import {name!r} for the objective: {error}.") from error
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
