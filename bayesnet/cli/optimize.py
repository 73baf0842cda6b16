"""`bayesnet optimize`: an objective and its ranges in, a study out."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from bayesnet._errors import BayesNetError, InputError
from bayesnet.cli import _process as options
from bayesnet.cli._console import facts, plain_errors, say, show
from bayesnet.cli._objective import load_exceptions, load_objective
from bayesnet.cli._space import make_space


@plain_errors
def optimize(
    objective: Annotated[
        str,
        typer.Argument(help="module:function or file.py:function; takes a dict, gives a number"),
    ],
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            help="name=low:high (real numbers), name=low:high:int (whole numbers), either with :log, "
            "or name=a,b,c (choices)",
        ),
    ] = None,
    space: Annotated[Path | None, typer.Option(help="JSON file with the ranges")] = None,
    n_trials: Annotated[int, typer.Option(help="Trials in all, over workers and restarts")] = 50,
    maximize: Annotated[
        bool, typer.Option("--maximize", help="Look for the largest value")
    ] = False,
    surrogate: Annotated[str, typer.Option(help="The model of the objective")] = "hmc",
    catch: Annotated[
        list[str] | None,
        typer.Option(
            help="Exception of the objective that fails its trial and not the run, as ValueError "
            "(Exception: all), module:Class, or one of the objective's file; repeat it for several"
        ),
    ] = None,
    likelihood: Annotated[
        str | None,
        typer.Option(
            help="Law of the noise: gaussian for noisy objectives, student_t or laplace for outliers; "
            "little noise if not given"
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="Where trials are kept, as sqlite:///study.db; else in memory"),
    ] = None,
    study_name: Annotated[
        str | None, typer.Option(help="Name of the study in its storage; else bayesnet")
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
) -> None:
    """Minimise (or maximise) a Python function by Bayesian optimization.

    The function takes one dict of parameters and returns a number. With --storage every trial
    is kept as it ends: run the same command again to resume after Ctrl-C or a crash, or start
    it twice to work in parallel.

    [bold]Examples[/bold]

    bayesnet optimize experiment.py:run --param temperature=20:90 --param time=1:60 --n-trials 30

    bayesnet optimize tuning:loss -p lr=1e-4:1.0:log -p depth=1:8:int -p kernel=rbf,poly --maximize

    bayesnet optimize tuning:loss --space space.json --storage sqlite:///tuning.db --catch ValueError

    where space.json is {"lr": {"low": 1e-4, "high": 1.0, "log": true}, "depth": \\[1, 8]}: in JSON, as
    in Python, \\[1, 8] are whole numbers and \\[1.0, 8.0] real ones.
    """
    if n_trials < 1:
        raise InputError(f"--n-trials must be at least 1, got {n_trials}.")
    distributions = make_space(param or [], space)
    function = load_objective(objective)
    caught = load_exceptions(catch or [], function)

    from bayesnet.bo import minimize

    quiet_optuna()
    seen: list[Any] = []
    failures: list[str] = []

    def announce(study: Any, trial: Any) -> None:
        seen[:] = [study]
        say(_line(study, trial, n_trials, failures.pop() if failures else ""))

    say(f"Up to {n_trials} trials of {objective}; Ctrl-C keeps what is finished.")
    try:
        study = minimize(
            _explained(function, caught, failures),
            distributions,
            surrogate=surrogate,
            likelihood=likelihood,
            n_trials=n_trials,
            storage=storage,
            seed=seed,
            study_name=study_name,
            directions="maximize" if maximize else "minimize",
            callbacks=[announce],
            catch=caught,
            device=device,
        )
    except KeyboardInterrupt:
        if seen:
            show(_result(seen[0]))
        if storage:
            say("The finished trials are in the storage: the same command goes on from there.")
        raise
    except Exception as error:
        if type(error).__module__.split(".")[0] not in STORAGE_LIBRARIES:
            raise
        reason = str(error).splitlines()[0]
        raise InputError(f"The storage {storage!r} cannot be used: {reason}") from error
    show(_result(study))


# Whose exceptions tell of an address or a file that cannot be used.
STORAGE_LIBRARIES = ("sqlalchemy", "sqlite3")


class ObjectiveError(BayesNetError):
    """The user's objective raised."""


def _explained(
    function: Callable[[dict[str, Any]], Any], caught: tuple[Any, ...], failures: list[str]
) -> Callable[[dict[str, Any]], Any]:
    """`function`, with an exception of its own told in one line instead of our call stack.

    One of `caught` goes on as it is, and what it says is put into `failures`.
    """

    @functools.wraps(function)
    def run(params: dict[str, Any]) -> Any:
        try:
            return function(params)
        except caught as error:
            failures.append(f" ({type(error).__name__}: {error})")
            raise
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            raise ObjectiveError(
                f"the objective failed at {_shown(params)}: {type(error).__name__}: {error} "
                f"({frame.filename}, line {frame.lineno}). Return NaN for a trial that failed, "
                f"or pass --catch {type(error).__name__}."
            ) from error

    return run


def quiet_optuna() -> None:
    """Optuna's own lines would repeat ours; a command may set its process's logging."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.CRITICAL)


def _shown(params: dict[str, Any]) -> str:
    return ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in params.items()
    )


def _line(study: Any, trial: Any, n_trials: int, failure: str) -> str:
    value = f"failed{failure}" if trial.value is None else f"{trial.value:.6g}"
    best = ""
    if trial.value is not None:
        is_best = study.best_trial.number == trial.number
        best = "  <- best so far" if is_best else f"  (best {study.best_value:.6g})"
    return f"trial {trial.number + 1}/{n_trials}: {value}{best}  {_shown(trial.params)}"


def _result(study: Any) -> Any:
    done = [t for t in study.get_trials(deepcopy=False) if t.value is not None]
    if not done:
        return "No trial gave a value."
    best = study.best_trial
    rows = [
        ("value", f"{best.value:.6g}"),
        *((n, _shown({n: v}).partition("=")[2]) for n, v in best.params.items()),
    ]
    return facts(f"Best of {len(done)} trials: number {best.number + 1}", rows)
