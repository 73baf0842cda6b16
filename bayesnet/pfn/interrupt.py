"""Ctrl-C that waits until a step is done, so that its work can be kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interrupt:
    """Whether Ctrl-C was asked for while it was deferred."""

    asked = False


@contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Within, a first Ctrl-C only sets `asked`; a second one raises as ever.

    A step of training gives its state away to the program: in the middle of one there is nothing to keep.
    Outside of the main thread, and where the handler is not Python's own, signals are left alone.
    """
    interrupt = Interrupt()
    usual = signal.getsignal(signal.SIGINT)
    mine = threading.current_thread() is threading.main_thread()
    if not mine or usual is not signal.default_int_handler:
        yield interrupt
        return

    def note(number: int, frame: Any) -> None:
        interrupt.asked = True
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, usual)
