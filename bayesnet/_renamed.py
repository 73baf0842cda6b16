"""Arguments that were renamed: the old word works for one version, and says so."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any


def renamed(**new_names: str) -> Callable[[Any], Any]:
    """A decorator of a function or a class: keyword `old` is taken as `new`, with a `FutureWarning`.

    `@renamed(inference="surrogate")`. Both words at once raise `TypeError`, as a repeated keyword does.
    """

    def decorate(target: Any) -> Any:
        function = vars(target)["__init__"] if isinstance(target, type) else target

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for old, new in new_names.items():
                if old in kwargs:
                    if new in kwargs:
                        raise TypeError(f"{target.__name__}: {old}= is an old word for {new}=.")
                    warn_renamed(f"{target.__name__}({old}=...)", f"{new}=")
                    kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        if isinstance(target, type):
            target.__init__ = call  # type: ignore[misc]
            return target
        return call

    return decorate


def warn_renamed(old: str, new: str) -> None:
    """The `FutureWarning` for the word `old`, shown where the caller of this was called."""
    warnings.warn(
        f"{old} is now called {new}; the old word goes on working in this version only.",
        FutureWarning,
        stacklevel=3,
    )
