"""`bayesnet predict`: a saved posterior and new rows in, predictions with intervals out."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bayesnet._errors import InputError
from bayesnet.cli import _likelihood as laws
from bayesnet.cli import _process as options
from bayesnet.cli._console import plain_errors, say
from bayesnet.cli._model_file import Model, load_model
from bayesnet.cli._table import Table, match_columns, read_csv

FIX = "Fill in or remove such rows."


@plain_errors
def predict(
    model: Annotated[Path, typer.Argument(help="File from: bayesnet fit (or post.save)")],
    data: Annotated[Path, typer.Argument(help="CSV file with the columns the model was fitted on")],
    out: Annotated[Path | None, typer.Option(help="CSV to write; else to the screen")] = None,
    level: Annotated[float, typer.Option(help="Probability that the interval holds")] = 0.9,
    ignore_extra: Annotated[
        bool, typer.Option("--ignore-extra", help="Ignore columns that the model does not know")
    ] = False,
    device: options.Device = "auto",
) -> None:
    """Predict new rows: mean, standard deviation and interval of a new observation.

    Columns are matched by name, in any order. epistemic_std is what more data would reduce,
    aleatoric_std is noise that it would not; std holds both, and the interval too. Where the
    file has the target as well, the predictions are scored against it.

    For classes: the most probable one, the probability of each, and the two parts of the
    uncertainty in nats (mutual information, expected entropy).

    [bold]Examples[/bold]

    bayesnet predict houses.bayesnet new.csv

    bayesnet predict houses.bayesnet new.csv --out predictions.csv --level 0.95
    """
    if not 0 < level < 1:
        raise InputError(f"--level must lie strictly between 0 and 1, got {level}.")
    fitted = load_model(model)
    table = read_csv(data)
    x = _inputs(fitted, table, ignore_extra)

    from bayesnet.devices import using

    with using(device):
        prediction = fitted.posterior.predict(x)
        if laws.has_classes(laws.law_of(fitted.posterior)):
            columns, what = laws.class_columns(prediction), "predictions with probabilities"

            def judge(rows: np.ndarray, y: np.ndarray) -> list[str]:
                known = prediction if rows.all() else fitted.posterior.predict(x[rows])
                return [laws.class_scores(known, y)]
        else:
            low, high = prediction.interval(level)
            columns = columns_of(prediction, low, high, fitted.targets)
            what = f"predictions with {level:.0%} intervals"

            def judge(rows: np.ndarray, y: np.ndarray) -> list[str]:
                return _errors(prediction.mean[rows], low[rows], high[rows], y)

        if out is None:
            write_columns(sys.stdout, columns)
        else:
            with out.open("w", newline="", encoding="utf-8") as file:
                write_columns(file, columns)
            say(f"{len(x)} {what} written to {out}.")
        # What is wrong with targets must not cost the predictions, which do not need them.
        try:
            scores = _scores(fitted, table, judge)
        except InputError as error:
            say(f"Not scored against {', '.join(fitted.targets or ())}: {error}")
            return
    for name, score in scores.items():
        say(f"{name}: {score}.")


def _scores(
    fitted: Model, table: Table, judge: Callable[[np.ndarray, np.ndarray], list[str]]
) -> dict[str, str]:
    """What `judge(rows, y)` says of each target, on the rows of the file (n,) that have all of these."""
    targets, law = fitted.targets or (), laws.law_of(fitted.posterior)
    if fitted.inputs is None or not targets or not set(targets) <= set(table.names):
        return {}
    rows = table.with_all(targets, labels=laws.has_classes(law))
    if not rows.any():
        return {}
    y = laws.read_targets(table.only(rows), targets, law, FIX)
    return dict(zip(targets, judge(rows, y), strict=True))


def _errors(mean: np.ndarray, low: np.ndarray, high: np.ndarray, y: np.ndarray) -> list[str]:
    rmse = np.sqrt(np.mean((mean - y) ** 2, axis=0))
    covered = ((low <= y) & (y <= high)).mean(axis=0)
    return [
        f"RMSE {error:.4g}; {share:.0%} of {len(y)} rows in the interval"
        for error, share in zip(rmse, covered, strict=True)
    ]


def _inputs(fitted: Model, table: Table, ignore_extra: bool) -> np.ndarray:
    if fitted.inputs is None:
        # Saved from Python without names: the order of columns is all there is.
        posterior = fitted.posterior
        expected = getattr(posterior, "in_dim", None) or (
            posterior.columns if hasattr(posterior, "columns") else posterior.data.in_dim
        )
        if len(table.names) != expected:
            raise InputError(
                f"{table.path} has {len(table.names)} columns, the model was fitted on {expected}; "
                "it holds no column names, so the file must have just those, in the same order."
            )
        say("The model holds no column names: columns are taken in the order of the file.")
        return table.numbers(table.names, FIX)
    targets = fitted.targets or ()
    match_columns(table, fitted.inputs, table.names if ignore_extra else targets)
    return table.numbers(fitted.inputs, FIX)


def columns_of(
    prediction: Any, low: np.ndarray, high: np.ndarray, targets: tuple[str, ...] | None
) -> dict[str, np.ndarray]:
    """The columns that are written of a prediction, by name."""
    parts = {
        "mean": prediction.mean,
        "std": prediction.std,
        "epistemic_std": prediction.epistemic_std,
        "aleatoric_std": prediction.aleatoric_std,
        "lower": low,
        "upper": high,
    }
    m = prediction.mean.shape[1]
    names = targets or tuple(f"y{j}" for j in range(m))
    prefix = [f"{name}_" if m > 1 else "" for name in names]
    return {f"{prefix[j]}{part}": a[:, j] for j in range(m) for part, a in parts.items()}


def write_columns(file: Any, columns: dict[str, np.ndarray]) -> None:
    """Write columns as CSV."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow([_cell(value) for value in row])


def _cell(value: Any) -> str:
    # All digits: those of a mean far from 0 are where its rows differ.
    return repr(float(value)) if isinstance(value, (float, np.floating)) else str(value)
