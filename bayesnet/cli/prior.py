"""`bayesnet prior show`: what functions of a process and of a matched network look like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bayesnet._errors import InputError, MissingExtraError
from bayesnet.cli import _process as options
from bayesnet.cli._console import plain_errors, say, show

prior_app = typer.Typer(
    name="prior",
    help="State and look at priors over functions, before any data.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@prior_app.callback()
def prior() -> None:
    """State and look at priors over functions, before any data."""


@prior_app.command("show")
@plain_errors
def show_command(
    kernel: options.Kernel = None,
    lengthscale: options.Lengthscale = None,
    outputscale: options.Outputscale = None,
    dim: Annotated[int, typer.Option(help="Number of input columns")] = 1,
    hidden: options.Hidden = None,
    activation: options.Activation = None,
    steps: Annotated[int, typer.Option(help="Steps of the match")] = 400,
    out: Annotated[Path, typer.Option(help="Picture to write (png, pdf or svg)")] = Path(
        "prior.png"
    ),
    seed: options.Seed = 0,
    device: options.Device = "auto",
) -> None:
    """Match a network's weights to a Gaussian process and draw functions of both.

    Coordinates are scaled: inputs and targets at mean 0 and sd 1 a column, as `fit` makes them.
    The report says how far the two differ by measures that the match was not trained on.

    [bold]Examples[/bold]

    bayesnet prior show

    bayesnet prior show --kernel rbf --lengthscale 0.6 --out rough.png

    bayesnet prior show --dim 8 --hidden 100 --activation relu
    """
    if dim < 1:
        raise InputError(f"--dim must be at least 1, got {dim}.")
    kinds = (".png", ".pdf", ".svg")
    if out.suffix not in kinds:
        raise InputError(f"--out must end in {', '.join(kinds)}, got {out}.")
    if not out.resolve().parent.is_dir():
        raise InputError(f"Cannot write {out}: there is no folder {out.resolve().parent}.")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # no window is needed
    except ImportError as error:
        raise MissingExtraError("Pictures need matplotlib: pip install bayesnet[plots]") from error

    from bayesnet.defaults import BOX
    from bayesnet.devices import using
    from bayesnet.priors import Box, NetworkPrior, match_prior

    network = options.make_network(hidden, activation)
    target = options.make_target(kernel, lengthscale, outputscale, dim)
    box = Box([BOX[0]] * dim, [BOX[1]] * dim)
    with using(device):
        say(f"Matching a network of {dim} input(s) to the process, {steps} steps ...")
        unmatched = NetworkPrior(network, in_dim=dim)
        match = match_prior(unmatched, target, box, steps=steps, seed=seed)
        show(str(match.report(seed=seed)))
        figure = match.prior.show(target, x=box, seed=seed)
    FigureCanvasAgg(figure)
    figure.savefig(out, dpi=150)
    show(f"Functions of both drawn to {out}.")
