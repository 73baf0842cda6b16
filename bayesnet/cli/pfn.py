"""`bayesnet pfn`: train prior-data fitted networks, and predict a table with one."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bayesnet._errors import InputError
from bayesnet.cli import _process as options
from bayesnet.cli._console import facts, plain_errors, say, show
from bayesnet.cli._likelihood import class_columns
from bayesnet.cli._table import read_csv, split_columns
from bayesnet.cli.predict import FIX, columns_of, write_columns

pfn_app = typer.Typer(
    name="pfn",
    help="Prior-data fitted networks: train one on a prior, predict a table in one pass.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@pfn_app.callback()
def pfn() -> None:
    """Prior-data fitted networks: train one on a prior, predict a table in one pass."""


@pfn_app.command("train")
@plain_errors
def train_command(
    config: Annotated[
        str,
        typer.Argument(help="TOML file, or a shipped one: gp, gp_process, bnn, heavy, classifier"),
    ],
    out: Annotated[Path, typer.Option(help="File of weights to write")] = Path("pfn.safetensors"),
    folder: Annotated[
        Path | None, typer.Option(help="Checkpoints and log; <out>.run if not given")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Instead of the steps of the file")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the seed of the file")] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="float32, or bfloat16 for accelerators; else that of the file"),
    ] = None,
    devices: Annotated[
        int | None, typer.Option(help="Share tables out over so many devices, as of --device")
    ] = None,
    device: options.Device = "auto",
) -> None:
    """Train on tables drawn from the prior that a TOML file states.

    A run that was killed goes on from its last checkpoint (at most 45 seconds old) when the same
    command is given again; Ctrl-C keeps a checkpoint first. log.jsonl in its folder says how far predictions are from the exact
    ones, in nats. It may go on with another number of --devices, to the same result up to rounding.

    [bold]Examples[/bold]

    bayesnet pfn train gp --steps 2000 --out small.safetensors

    bayesnet pfn train mine.toml --out mine.safetensors
    """
    from bayesnet.devices import using
    from bayesnet.pfn.amortised import train_process
    from bayesnet.pfn.classifier import train_classifier
    from bayesnet.pfn.configurations import read_configuration
    from bayesnet.pfn.pfn import train_long, train_quadrature, train_tasks
    from bayesnet.posterior.saving import check_place

    check_place(out)
    configuration = read_configuration(config)
    asked = {"steps": steps, "seed": seed, "precision": precision, "devices": devices}
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    training = dataclasses.replace(configuration.training, **given)
    run = folder if folder is not None else out.with_name(out.name + ".run")
    say(f"Training {configuration.name!r} for {training.steps} steps; checkpoints in {run} ...")

    def report(phase: str, done: int, total: int) -> None:
        if done % max(1, total // 20) == 0:
            say(f"{done} of {total} steps")

    with using(device):
        trained: Any = {
            "bars": train_tasks,
            "quadrature": train_quadrature,
            "level": train_long,
            "process": train_process,
            "classes": train_classifier,
        }[configuration.decoder]
        pfn = trained(
            configuration.tasks,
            training,
            configuration.name,
            folder=run,
            progress=report,
            **configuration.extra,
        )
        pfn.save(out)
    show(
        facts(
            "PFN",
            [
                ("weights", str(out)),
                ("columns", f"trained for {list(training.dims)}, accepts {pfn.max_dim}"),
                ("rows", f"up to {pfn.max_rows}"),
                ("tables seen", f"{training.steps * training.batch:,}"),
            ],
        )
    )


@pfn_app.command("predict")
@plain_errors
def predict_command(
    train: Annotated[Path, typer.Argument(help="CSV file with inputs and target")],
    data: Annotated[Path, typer.Argument(help="CSV file with the inputs of new rows")],
    target: Annotated[str, typer.Option("--target", "-t", help="Column to predict")] = "y",
    weights: Annotated[str, typer.Option(help="Shipped weights, or a file of them")] = "gp",
    out: Annotated[Path | None, typer.Option(help="CSV to write; else to the screen")] = None,
    level: Annotated[float, typer.Option(help="Probability that the interval holds")] = 0.9,
    subsample: Annotated[
        bool, typer.Option("--subsample", help="Use a random choice of rows if there are too many")
    ] = False,
    project: Annotated[
        bool,
        typer.Option("--project", help="Classes: use principal components if columns are too many"),
    ] = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
) -> None:
    """Predict new rows from a table, without any fit: mean, standard deviation, interval.

    With weights for classes, as `PFNClassifier` does (8 views, temperature from rows held out): the
    most probable class, the probability of each, and the two parts of the uncertainty in nats.

    [bold]Examples[/bold]

    bayesnet pfn predict train.csv new.csv --target price

    bayesnet pfn predict train.csv new.csv --target price --weights mine.safetensors --out p.csv

    bayesnet pfn predict train.csv new.csv --target species --weights classifier
    """
    if not 0 < level < 1:
        raise InputError(f"--level must lie strictly between 0 and 1, got {level}.")
    known, new = read_csv(train), read_csv(data)
    inputs, targets = split_columns(known, (target,), ())
    missing = [name for name in inputs if name not in new.names]
    if missing:
        raise InputError(f"{data} lacks columns of {train}: {', '.join(missing)}.")
    x, x_new = known.numbers(inputs, FIX), new.numbers(inputs, FIX)

    from bayesnet.devices import using
    from bayesnet.pfn.classifier import ClassPFN
    from bayesnet.pfn.pfn import PFN
    from bayesnet.posterior.saving import load

    is_file = weights.endswith(".safetensors")
    longer = "subsample" if subsample else "error"
    with using(device):
        pfn = load(weights) if is_file else PFN.from_pretrained(weights)
        if isinstance(pfn, ClassPFN):
            labels = known.labels(target, FIX)
            posterior: Any = pfn.cast(np.float32).fit(
                x,
                labels,
                ensemble=8,
                temperature="cross-validated",
                longer=longer,
                wider="project" if project else "error",
                seed=seed,
            )
        else:
            pfn = PFN.load(weights) if is_file else pfn  # refuses what is no PFN
            numbers = known.numbers(targets, f"{FIX} For classes pass --weights classifier.")
            posterior = pfn.fit(x, numbers, longer=longer, seed=seed)
        prediction = posterior.predict(x_new)
    if isinstance(pfn, ClassPFN):
        columns, what = class_columns(prediction), "predictions with probabilities"
    else:
        low, high = prediction.interval(level)
        columns = columns_of(prediction, low, high, targets)
        what = f"predictions with {level:.0%} intervals"
    if out is None:
        write_columns(sys.stdout, columns)
        return
    with out.open("w", newline="", encoding="utf-8") as file:
        write_columns(file, columns)
    say(f"{len(x_new)} {what} written to {out}.")
