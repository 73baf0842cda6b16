"""`bayesnet fit`: a table in, a saved posterior out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bayesnet._columns import NamedRows
from bayesnet._errors import InputError, unknown_name
from bayesnet.cli import _likelihood as laws
from bayesnet.cli import _process as options
from bayesnet.cli._console import facts, plain_errors, say, show
from bayesnet.cli._model_file import Model
from bayesnet.cli._table import read_csv, split_columns

# Methods that sample or train a network, and those that condition a process itself; some of these
# bring one of their own.
NETWORK_METHODS = ("hmc", "nuts", "sghmc", "ensemble")
OWN_PROCESS = ("infinite_width", "student_t")
PROCESS_METHODS = ("exact", *OWN_PROCESS, "process_laplace", "sparse_variational")
# Weights that were trained on a prior: no fit at all.
TRAINED = ("pfn", "amortised")
METHODS = NETWORK_METHODS + PROCESS_METHODS + TRAINED


@plain_errors
def fit(
    data: Annotated[Path, typer.Argument(help="CSV file: a header line, then rows of numbers")],
    target: Annotated[
        list[str], typer.Option("--target", "-t", help="Column to predict; repeat it for several")
    ],
    out: Annotated[Path | None, typer.Option(help="Where to save; else data.bayesnet")] = None,
    drop: Annotated[
        list[str] | None, typer.Option(help="Column to leave out, such as an id")
    ] = None,
    test_fraction: Annotated[
        float, typer.Option(help="Share of the rows to hold out and judge the model on")
    ] = 0.0,
    inference: Annotated[str, typer.Option(help=" or ".join(METHODS))] = "hmc",
    chains: Annotated[
        int | None, typer.Option(help="Independent chains; 4 or more to judge; else the method's")
    ] = None,
    warmup: Annotated[
        int | None, typer.Option(help="Tuning steps a chain, dropped; else the method's")
    ] = None,
    draws: Annotated[int | None, typer.Option(help="Kept draws a chain; else the method's")] = None,
    members: Annotated[
        int | None, typer.Option(help="Networks of an ensemble; else the method's")
    ] = None,
    inducing: Annotated[
        int | None, typer.Option(help="Inducing rows of sparse_variational; else the method's")
    ] = None,
    likelihood: laws.Likelihood = "gaussian",
    noise_std: Annotated[
        float | None, typer.Option(help="Known noise, in units of the target; else it is learned")
    ] = None,
    kernel: options.Kernel = None,
    lengthscale: options.Lengthscale = None,
    outputscale: options.Outputscale = None,
    hidden: options.Hidden = None,
    activation: options.Activation = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
) -> None:
    """Fit a Bayesian neural network, or a process, to a CSV table and save its posterior.

    The network's weight prior is first matched to a Gaussian process, so that it knows what
    functions look like (kept in a cache: once per number of columns). `exact` conditions that process
    itself, `process_laplace` (classes, up to a few hundred rows) and `sparse_variational` (classes or
    numbers, many rows) approximately; `infinite_width` and `student_t` an infinitely wide network. `pfn` (numbers
    or classes) and `amortised` (numbers) predict from trained weights in seconds, under their own prior.
    Columns are standardised inside; give the data in their own units.

    [bold]Examples[/bold]

    bayesnet fit houses.csv --target price

    bayesnet fit houses.csv -t price --drop id --test-fraction 0.2 --out houses.bayesnet

    bayesnet fit doses.csv -t effect --kernel rbf --lengthscale 1.5 --noise-std 0.2

    bayesnet fit flowers.csv -t species --likelihood categorical

    bayesnet fit doses.csv -t effect --inference exact --kernel matern52

    bayesnet fit flowers.csv -t species --likelihood categorical --inference process_laplace

    bayesnet fit doses.csv -t effect --inference pfn
    """
    # Everything that can be wrong with the input is looked at before the first computation.
    if not 0 <= test_fraction < 1:
        raise InputError(f"--test-fraction must lie in [0, 1), got {test_fraction}.")
    out = data.with_suffix(".bayesnet") if out is None else out
    table = read_csv(data)
    inputs, targets = split_columns(table, target, drop or [])
    fix = (
        "Fill in or remove such rows; encode text as numbers; leave a column out with --drop NAME."
    )

    from bayesnet.data import NO_SCALE, tells_no_scale
    from bayesnet.fitting import fit as condition
    from bayesnet.posterior.saving import check_place

    check_place(out)
    law = laws.make_likelihood(likelihood, noise_std)
    of_targets = (
        fix if laws.has_classes(law) else f"{fix} For classes pass --likelihood categorical."
    )
    x, y = table.numbers(inputs, fix), laws.read_targets(table, targets, law, of_targets)
    # The classes are those of the whole table: a rare one may be held out.
    law, _ = law.encode(y)
    train, test = _split(len(x), test_fraction, seed)

    settings = {"chains": chains, "warmup": warmup, "draws": draws, "members": members}
    method = _method(inference, **settings, inducing=inducing)
    of_network = {"hidden": hidden, "activation": activation}
    of_process = {"kernel": kernel, "lengthscale": lengthscale, "outputscale": outputscale}
    if inference not in NETWORK_METHODS:
        _refuse(of_network, f"--inference {inference} conditions no network")
    if inference in OWN_PROCESS + TRAINED:
        _refuse(of_process, f"--inference {inference} brings a process of its own")
    network = options.make_network(hidden, activation) if inference in NETWORK_METHODS else None
    outputs = law.num_outputs(len(targets))
    process = None
    if inference not in OWN_PROCESS + TRAINED:
        process = options.make_target(kernel, lengthscale, outputscale, len(inputs), outputs)
    first = "Matching the prior, then " if network is not None else ""
    say(f"{len(train)} rows, {len(inputs)} input columns. {first}{method} ...")
    if law.scales_targets and len(train) > 1 and tells_no_scale(y[train]):
        say(f"Warning: {NO_SCALE}")
    posterior = condition(
        network,
        NamedRows(x[train], inputs),
        y[train],
        target=process,
        likelihood=law,
        inference=method,
        seed=seed,
        device=device,
        warn=False,  # the table below says it in words
    )
    Model(posterior, inputs, targets).save(out)
    show(_summary(posterior, data, inputs, targets, len(train), len(test)))
    show(_quality(posterior, x, y, targets, train, test))
    _judge(posterior)
    show(f"Saved to {out}. Next: bayesnet predict {out} new.csv")


def _method(name: str, **settings: int | None) -> Any:
    """The method of that name with the settings that were given; of trained weights their name."""
    from bayesnet.inference import PRESETS

    if name not in METHODS:
        raise unknown_name("inference method", name, METHODS)
    given = {key: value for key, value in settings.items() if value is not None}
    trained = name in TRAINED
    known = set() if trained else {f.name for f in dataclasses.fields(PRESETS[name]())}
    if name == "sparse_variational":
        known -= {"draws"}  # of logits in a step: nothing that is kept
    for key in given:
        if key not in known:
            raise InputError(f"--{key} does not belong to --inference {name}: leave it out.")
    return name if trained else PRESETS[name](**given)


def _refuse(settings: dict[str, Any], reason: str) -> None:
    """Raise `InputError` if one of the options was given."""
    given = [f"--{name}" for name, value in settings.items() if value is not None]
    if given:
        raise InputError(f"{reason}: leave {', '.join(given)} out, or choose another --inference.")


def _split(n: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(seed).permutation(n) if fraction else np.arange(n)
    held_out = round(fraction * n)
    if held_out == 0 and fraction:
        raise InputError(f"--test-fraction {fraction} of {n} rows holds out none.")
    if held_out == n:
        raise InputError(f"--test-fraction {fraction} of {n} rows leaves none to fit.")
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def _summary(posterior: Any, data: Path, inputs: Any, targets: Any, train: int, test: int) -> Any:
    seconds = sum(getattr(posterior, "seconds", {}).values())
    method = getattr(posterior, "method", None)
    name = "trained weights" if method is None else type(method).__name__
    if hasattr(posterior, "num_draws"):
        name = f"{posterior.num_draws} draws by {name}"
    interrupted = getattr(posterior, "interrupted", False)
    rows = [
        ("rows", f"{train} fitted" + (f", {test} held out" if test else "")),
        ("inputs", f"{len(inputs)}: {', '.join(inputs)}"),
        ("target", ", ".join(targets)),
        ("method", name + (" (interrupted)" if interrupted else "") + f", {seconds:.0f} s"),
    ]
    return facts(f"Posterior of {data}", rows + laws.noise_facts(posterior))


def _quality(
    posterior: Any, x: np.ndarray, y: np.ndarray, targets: Any, train: np.ndarray, test: np.ndarray
) -> Any:
    rows = test if len(test) else train
    prediction = posterior.predict(x[rows])
    if laws.has_classes(laws.law_of(posterior)):
        lines = [(targets[0], laws.class_scores(prediction, y[rows]))]
    else:
        lines = _regression_scores(prediction, y[rows], targets)
    title = (
        f"On {len(test)} rows that were held out"
        if len(test)
        else "On the fitted rows (in-sample: says little about new rows; try --test-fraction 0.2)"
    )
    return facts(title, lines)


def _regression_scores(prediction: Any, y: np.ndarray, targets: Any) -> list[tuple[str, str]]:
    rmse = np.sqrt(np.mean((prediction.mean - y) ** 2, axis=0))
    nll = -prediction.log_prob(y).mean(axis=0)
    low, high = prediction.interval(0.9)
    covered = ((low <= y) & (y <= high)).mean(axis=0)
    return [
        (
            name,
            f"RMSE {rmse[j]:.4g}, NLL {nll[j]:.3f} (mixture density, units of {name}), "
            f"90 % interval holds {covered[j]:.0%}, sd of {name} {y[:, j].std():.4g}",
        )
        for j, name in enumerate(targets)
    ]


def _judge(posterior: Any) -> None:
    if not hasattr(posterior, "diagnostics"):
        _judge_trained(posterior)
        return
    report = posterior.diagnostics()
    numbers = report.headline
    if report.ok:
        show(f"Convergence: nothing speaks against this run ({numbers}).")
        return
    show(f"Convergence: do not rely on this run yet ({numbers}):")
    for problem in report.problems:
        show(f"  - {problem}")


def _judge_trained(posterior: Any) -> None:
    """Whether the table is like those that the weights were trained on."""
    limit = posterior.pfn.card.get("surprise_limit")
    if limit is None or not np.isfinite(posterior.surprise):
        show(
            "Too few rows to judge whether the table is like those that the weights were trained on."
        )
        return
    unusual = posterior.surprise > limit
    word = "is unlike" if unusual else "is like"
    advice = ": do not rely on the predictions; use --inference hmc" if unusual else ""
    show(
        f"Half of the table, predicted from the other half, {word} tables that the weights were trained on "
        f"(surprise {posterior.surprise:.2f}, 1 in 200 of those has more than {limit:.2f}){advice}."
    )
