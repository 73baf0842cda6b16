"""One line in the log where a first call takes long, so that nobody wonders whether it hangs.

Programs are compiled, and priors matched, once for each kind and size; with a progress bar or
without one, nothing else would be seen meanwhile. At the level of warnings, which Python shows on the
standard error where no logging is set up.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Timer

_log = logging.getLogger("bayesnet")

# Seconds after which a phase says what it does; quicker ones say nothing.
PATIENCE = 5.0


@contextmanager
def said_if_slow(message: str) -> Iterator[None]:
    """Log `message` if the enclosed code takes longer than `PATIENCE`; each message once a process."""
    timer = Timer(PATIENCE, _say_once, (message,))
    timer.daemon = True  # a process that ends does not wait for it
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@cache
def _say_once(message: str) -> None:
    # Kept by its argument: a message that was said is not said again.
    _log.warning(message)
