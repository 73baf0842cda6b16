"""The search space of `bayesnet optimize`, from what can be typed."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bayesnet._errors import InputError, MissingExtraError
from bayesnet.cli._numbers import as_float, as_whole

GRAMMAR = (
    "NAME=LOW:HIGH (real numbers), NAME=LOW:HIGH:int (whole numbers), with :log for a logarithmic scale, "
    "or NAME=choice,choice,... ; for example lr=1e-4:1.0:log, depth=1:8:int, kernel=rbf,poly"
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
        parts = [part.strip() for part in spec.split(",")]
        if len(parts) < 2:
            raise InputError(f"--param {text!r} has a single choice; expected {GRAMMAR}.")
        if "" in parts:
            raise InputError(f"--param {text!r} has a choice without a name; expected {GRAMMAR}.")
        return [_choice(part) for part in parts]
    low, high, *rest = (part.strip() for part in spec.split(":"))
    if len(set(rest)) < len(rest) or not set(rest) <= {"int", "log"}:
        raise InputError(f"--param {text!r} is not {GRAMMAR}.")
    bounds = [_value(low), _value(high)]
    if not _is_pair_of_numbers(bounds):
        raise InputError(f"--param {text!r}: bounds must be numbers; expected {GRAMMAR}.")
    return _interval(f"--param {text!r}", *bounds, whole="int" in rest, log="log" in rest)


def _interval(where: str, low: Any, high: Any, *, whole: bool, log: bool) -> Any:
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
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"{where}: bounds must be finite.")
    if not whole:
        return FloatDistribution(float(low), float(high), log=log)
    if not (float(low).is_integer() and float(high).is_integer()):
        raise InputError(f"{where}: the bounds of whole numbers must be whole numbers.")
    return IntDistribution(int(low), int(high), log=log)


def _choice(text: str) -> Any:
    """A choice in words, or a number as it is usually written: "007" is a name, as in tables."""
    unsigned = text.lstrip("+-")
    return text if unsigned[:1] == "0" and unsigned[1:2].isdigit() else _value(text)


def _value(text: str) -> Any:
    number = as_whole(text)
    value = as_float(text) if number is None else number
    if value is not None:
        return value
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _read_file(path: Path) -> dict[str, Any]:
    """A JSON object: name -> [low, high], a list of choices, or {"low", "high", "log", "int"}.

    JSON tells 1 from 1.0: as in Python, [1, 8] are whole numbers and [1.0, 8.0] real ones.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_repeats)
    except FileNotFoundError as error:
        raise InputError(f"No file at {path}.") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise InputError(f'{path} must hold an object such as {{"lr": [0.001, 1.0]}}.')
    return {name: _read_entry(f"{path}, {name!r}", spec) for name, spec in content.items()}


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of a JSON file; of a name that stands there twice JSON would keep the last."""
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{twice!r} is given twice.")
    return dict(pairs)


def _read_entry(where: str, spec: Any) -> Any:
    if isinstance(spec, list) and not _is_pair_of_numbers(spec):
        return spec
    if isinstance(spec, list):
        return _interval(where, *spec, whole=_are_whole(spec), log=False)
    if isinstance(spec, dict) and set(spec) == {"choices"} and isinstance(spec["choices"], list):
        return spec["choices"]
    if isinstance(spec, dict) and {"low", "high"} <= set(spec) <= {"low", "high", "log", "int"}:
        bounds = [spec["low"], spec["high"]]
        whole, log = spec.get("int", _are_whole(bounds)), spec.get("log", False)
        if _is_pair_of_numbers(bounds) and isinstance(whole, bool) and isinstance(log, bool):
            return _interval(where, *bounds, whole=whole, log=log)
    raise InputError(
        f"{where}: expected [low, high], a list of choices, "
        '{"low": ..., "high": ..., "log": true, "int": true} or {"choices": [...]}.'
    )


def _are_whole(bounds: list[Any]) -> bool:
    return all(isinstance(value, int) for value in bounds)


def _is_pair_of_numbers(values: list[Any]) -> bool:
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    return len(values) == len(numbers) == 2
