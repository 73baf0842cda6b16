"""Options that state a process and a network, shared by `fit` and `prior show`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bayesnet._errors import InputError
from bayesnet.cli._numbers import as_whole

Kernel = Annotated[
    str | None,
    typer.Option(help="rbf, matern12, matern32, matern52, periodic or linear; else matern52"),
]
Lengthscale = Annotated[
    float | None,
    typer.Option(
        help="How far apart (inputs at sd 1) function values stay alike; "
        "if not given: random for every input, sqrt(2 d) and more"
    ),
]
Outputscale = Annotated[
    float | None,
    typer.Option(help="Variance of the functions (targets at sd 1); else random, median 1"),
]
Hidden = Annotated[
    str | None, typer.Option(help="Widths of the hidden layers, separated by commas; else 50,50")
]
Activation = Annotated[str | None, typer.Option(help="tanh, relu, silu, ...; else tanh")]
Device = Annotated[str, typer.Option(help="auto, cpu, gpu or gpu:1; see: bayesnet devices")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same result")]


def make_network(hidden: str | None, activation: str | None) -> Any:
    """The network that the options state."""
    from bayesnet.networks import MLP

    hidden, activation = hidden or "50,50", activation or "tanh"
    parts = [width.strip() for width in hidden.split(",") if width.strip()]
    widths = tuple(width for width in map(as_whole, parts) if width is not None)
    if len(widths) < len(parts):
        raise InputError(
            f"--hidden takes whole numbers separated by commas, as in 50,50; got {hidden!r}."
        )
    return MLP(widths, activation)


def make_target(
    kernel: str | None,
    lengthscale: float | None,
    outputscale: float | None,
    in_dim: int,
    out_dim: int = 1,
) -> Any:
    """The process that the options state; what is left open is random, as in the default one."""
    from bayesnet.defaults import default_lengthscale, default_outputscale
    from bayesnet.priors import GaussianProcess

    return GaussianProcess(
        kernel or "matern52",
        default_lengthscale(in_dim) if lengthscale is None else lengthscale,
        default_outputscale() if outputscale is None else outputscale,
        out_dim=out_dim,
    )
