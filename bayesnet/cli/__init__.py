"""The command line: `bayesnet fit | predict | optimize | prior show | devices`.

An entry point that we own, so it may set JAX's environment, which the library never does.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line; the process ends with its exit code (2 for bad input)."""
    from bayesnet.cli._environment import prepare

    prepare()  # before anything imports jax, which reads its environment once
    from bayesnet.cli.app import app

    app()
