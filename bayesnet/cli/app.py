"""The commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from bayesnet import __version__
from bayesnet.cli.devices import devices
from bayesnet.cli.fit import fit
from bayesnet.cli.optimize import optimize
from bayesnet.cli.pfn import pfn_app
from bayesnet.cli.predict import predict
from bayesnet.cli.prior import prior_app

app = typer.Typer(
    name="bayesnet",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"bayesnet {__version__}")
        raise typer.Exit


@app.callback()
def bayesnet(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version")
    ] = False,
) -> None:
    """Bayesian neural networks whose prior is stated as functions.

    State what functions look like, condition on data, and get predictions with uncertainty.
    Every command has examples in its --help.

    [bold]A first session[/bold]

    bayesnet fit data.csv --target y --test-fraction 0.2

    bayesnet predict data.bayesnet new.csv --out predictions.csv

    bayesnet optimize experiment.py:run --param temperature=20:90 --param time=1:60 --n-trials 30
    """


app.command()(fit)
app.command()(predict)
app.command()(optimize)
app.add_typer(prior_app)
app.add_typer(pfn_app)
app.command()(devices)
