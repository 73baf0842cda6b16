"""What a command prints, and how it ends: results on stdout, progress and errors on stderr."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bayesnet._errors import BayesNetError

BAD_INPUT = 2
STOPPED = 130  # what shells report for a process that Ctrl-C ended


def say(text: str) -> None:
    """One line of progress, on stderr."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


def show(*lines: Any) -> None:
    """Lines or tables of a result, on stdout."""
    # Built at each call: stdout may have been replaced (pipes, tests).
    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        console.print(line, markup=False)


def facts(title: str, rows: list[tuple[str, str]]) -> Table:
    """A table of two columns: what, and its value."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name), Text(value))  # never markup
    return table


def plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Errors of the user's input as one plain message with exit code 2; Ctrl-C with 130.

    An unexpected exception is a bug and keeps its traceback.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except BrokenPipeError as error:
            # Whoever read (`| head`) has enough; what is buffered must not raise when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit from error
        except (BayesNetError, OSError) as error:
            say(f"Error: {error}")
            raise typer.Exit(BAD_INPUT) from error
        except KeyboardInterrupt as error:
            say("Stopped.")
            raise typer.Exit(STOPPED) from error

    return run
