"""The errors and warnings that bayesnet raises: one small hierarchy.

Every message says what was expected, what came, and how to fix it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BayesNetError(Exception):
    """Base class of every error that bayesnet raises on purpose."""


class InputError(BayesNetError, ValueError):
    """The data or an argument cannot be used (wrong shape, NaN, unknown name, ...)."""


class UnsupportedError(BayesNetError, TypeError):
    """A combination that no method supports, for example a sampler on a kernel prior."""


class FileFormatError(BayesNetError, ValueError):
    """A saved file is truncated, edited, from another version, or not ours."""


class MissingExtraError(BayesNetError, ImportError):
    """An optional dependency is needed and not installed."""


class ConvergenceWarning(UserWarning):
    """A run finished but its result should not be trusted as it is."""


def unknown_name(kind: str, got: object, known: Iterable[str]) -> InputError:
    """An `InputError` for a name that is not in a registry, with the nearest known ones."""
    names = sorted(known)
    hint = difflib.get_close_matches(str(got).lower(), names, n=1)
    did_you_mean = f" Did you mean {hint[0]!r}?" if hint else ""
    return InputError(f"Unknown {kind} {got!r}. Known: {', '.join(names)}.{did_you_mean}")
