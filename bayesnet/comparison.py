"""Which prior fits a table: leave-one-out, the evidence of processes, a Laplace screen.

One criterion is one function in `CRITERIA`; another (an evidence by sequential Monte Carlo) is one more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from bayesnet import devices
from bayesnet._errors import InputError, UnsupportedError, unknown_name
from bayesnet._types import ArrayLike, Key, as_key
from bayesnet.data import Scaling, check_table
from bayesnet.defaults import resolve_prior
from bayesnet.diagnostics.laplace_screen import laplace_evidence
from bayesnet.diagnostics.loo import loo, row_sum_error
from bayesnet.fitting import fit, scaled_table, units_of
from bayesnet.inference import Inference
from bayesnet.likelihoods import GaussianLikelihood, resolve_likelihood
from bayesnet.likelihoods.levels import DEFAULT_NOISE
from bayesnet.posterior import FunctionDraws
from bayesnet.priors import FunctionPrior, GaussianProcess, LatentPrior
from bayesnet.priors.laws import LogNormal, is_law

MEANINGS = {
    "loo": "expected log predictive density of new rows (leave-one-out)",
    "evidence": "log evidence of the process itself",
    "laplace_screen": "Laplace approximation of the log evidence: a screen only",
}


@dataclass(frozen=True, eq=False)
class Candidate:
    """One prior under a criterion.

    `value` in nats, larger is better, densities in the units of y (of priors in scaled coordinates
    given the mean and sd of y, see `compare_priors`); `error` its standard error
    ("loo": over rows; "evidence": Monte Carlo); `rows` (n,) where the value is a sum over rows; `detail` what
    the criterion computed (`LeaveOneOut`, `LogEvidence`, `LaplaceEvidence`); `notes` what to know.
    """

    name: str
    value: float
    error: float
    rows: np.ndarray | None
    detail: Any
    notes: tuple[str, ...] = ()
    posterior: FunctionDraws | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Priors in the order of how well they fit, best first; prints as a table."""

    by: str
    candidates: tuple[Candidate, ...]

    @property
    def ranking(self) -> tuple[str, ...]:
        """The names, best first."""
        return tuple(c.name for c in self.candidates)

    @property
    def best(self) -> str:
        """The name of the first."""
        return self.ranking[0]

    def __getitem__(self, name: str) -> Candidate:
        for candidate in self.candidates:
            if candidate.name == name:
                return candidate
        raise unknown_name("prior", name, self.ranking)

    def difference(self, a: str, b: str) -> tuple[float, float]:
        """The value of `a` minus that of `b`, and its standard error.

        Of leave-one-out the error is paired: sqrt(n) times the sd over rows of the differences. It is
        too small where n is below about 100 or the two predict alike (Sivula et al. 2020).
        """
        first, second = self[a], self[b]
        if first.rows is not None and second.rows is not None and a != b:
            return first.value - second.value, row_sum_error(first.rows - second.rows)
        error = 0.0 if a == b else float(np.hypot(first.error, second.error))
        return first.value - second.value, error

    def __str__(self) -> str:
        width = max(8, *(len(name) for name in self.ranking)) + 2
        lines = [
            f"{MEANINGS.get(self.by, self.by)}; nats, larger is better",
            f"{'prior':<{width}}{'value':>10}{'error':>8}{'to best':>10}{'error':>8}",
        ]
        for c in self.candidates:
            gap, error = self.difference(c.name, self.best)
            lines.append(
                f"{c.name:<{width}}{c.value:>10.2f}{c.error:>8.2f}{gap:>10.2f}{error:>8.2f}"
            )
        lines += [f"! {c.name}: {note}" for c in self.candidates for note in c.notes]
        return "\n".join(lines)


@dataclass(frozen=True)
class Task:
    """What all candidates are judged on, as given to `compare_priors`."""

    X: Any
    y: Any
    likelihood: Any
    inference: Any
    y_var: Any
    network: Any
    sample_weight: Any
    missing: str
    seed: Key
    refits: int
    limit: float | None
    num_samples: int
    restarts: int
    scaling: Scaling | None


@devices.single_precision()
def compare_priors(
    priors: Mapping[str, Any],
    X: ArrayLike,
    y: ArrayLike,
    *,
    likelihood: Any = None,
    by: str = "loo",
    inference: str | Inference = "hmc",
    y_var: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    missing: str = "error",
    network: Any = None,
    seed: int | Key = 0,
    refits: int = 10,
    limit: float | None = None,
    num_samples: int = 2000,
    restarts: int = 4,
    scaling: Scaling | None = None,
) -> Comparison:
    """How well priors fit a table, ranked, with standard errors of the differences.

    Args:
        priors: name -> a prior, or a target (a process, statements) to which `network` is matched
            first; with `by="evidence"` the process itself is judged.
        X, y: the table, as for `bn.fit`.
        likelihood: as for `bn.fit`, the same for all.
        by: "loo", PSIS leave-one-out with refits where k-hat is high: how well new rows are
            predicted; "evidence", of a `bn.GaussianProcess` with Gaussian noise: the density that the
            prior gave to the table before it was seen; "laplace_screen", a rough evidence of network
            priors at their highest mode: cheap, to sort out candidates, never to report.
        inference: of the posteriors ("loo" only).
        y_var, sample_weight, missing: as for `bn.fit`; the evidence of a process knows neither
            weights nor missing targets.
        network: what is matched to targets; the default network if None.
        seed: an integer or a JAX key.
        refits: most rows refitted, a candidate ("loo" only).
        limit: the k-hat above which a row is refitted, as for `bayesnet.diagnostics.loo.loo`.
        num_samples: of Monte-Carlo evidences.
        restarts: starts of the search for a mode ("laplace_screen" only).
        scaling: the coordinates of priors in "scaled" units, stated without looking at this y; from
            the table (mean 0, sd 1) if None.

    Values are log densities in the units of y. A prior in scaled coordinates is placed by the mean and
    sd of the very y that judges it, which favours it over any prior in `units="data"`, the true one
    too: all candidates must be of the same units (values are then densities given that mean and sd),
    unless `scaling` is stated. Labels and counts are not scaled, and theirs may differ. A learned noise
    level whose law is the default is relative to the sd of y for every candidate.

    Leave-one-out and evidence answer different questions, and a vague prior can be best by one and
    worst by the other.

    Raises:
        InputError: fewer than one prior, unknown `by`, unusable data, candidates in different
            coordinates.
        UnsupportedError: a prior that the criterion cannot judge.
    """
    if by not in CRITERIA:
        raise unknown_name("criterion (by=)", by, CRITERIA)
    if not isinstance(priors, Mapping) or not priors:
        raise InputError(
            'priors must be a dict of names and priors, for example {"smooth": prior_1, '
            f'"rough": prior_2}}, got {priors!r}.'
        )
    task = Task(
        X, y, resolve_likelihood(likelihood), inference, y_var, network,
        sample_weight, missing, as_key(seed), refits, limit, num_samples, restarts, scaling,
    )  # fmt: skip
    _check_coordinates(priors, task)
    judge, check = CRITERIA[by]
    for name, prior in priors.items():
        check(str(name), prior, task)
    found = [judge(str(name), prior, task) for name, prior in priors.items()]
    return Comparison(by, tuple(sorted(found, key=lambda c: -c.value)))


def _as_prior(prior: Any, task: Task) -> dict[str, Any]:
    """The arguments of `fit` for a prior, or for a target to be matched."""
    if prior is None or isinstance(prior, LatentPrior) or not isinstance(prior, FunctionPrior):
        return {"prior": prior}
    return {"prior": task.network, "target": prior}


def _units(prior: Any, task: Task) -> str:
    """The coordinates of a candidate, "scaled" or "data"."""
    chosen = _as_prior(prior, task)
    return units_of(chosen["prior"], chosen.get("target"))


def _coordinates(prior: Any, task: Task) -> Scaling | None:
    """The stated coordinates, for a prior that is in scaled ones."""
    return None if _units(prior, task) == "data" else task.scaling


def _check_coordinates(priors: Mapping[str, Any], task: Task) -> None:
    """Raise `InputError` where densities of y would not be of one kind."""
    if task.scaling is not None and not isinstance(task.scaling, Scaling):
        raise InputError(f"scaling must be a bayesnet.data.Scaling, got {task.scaling!r}.")
    if task.scaling is not None or not task.likelihood.scales_targets:
        return
    units: dict[str, list[str]] = {}
    for name, prior in priors.items():
        units.setdefault(_units(prior, task), []).append(str(name))
    if len(units) > 1:
        scaled, data = (", ".join(units[u]) for u in ("scaled", "data"))
        raise InputError(
            f"The candidates live in different coordinates: {scaled} in scaled ones, {data} in those of the "
            "data. Scaled priors are placed by the mean and sd of the very y that judges them, so that they "
            "win against the truth. Give all the same units=, or state the coordinates without looking at y: "
            "scaling=bayesnet.data.Scaling(x_loc, x_scale, y_loc, y_scale)."
        )


def _anything(name: str, prior: Any, task: Task) -> None:
    """What cannot be fitted is refused by `fit`."""


def _loo(name: str, prior: Any, task: Task) -> Candidate:
    posterior = fit(
        **_as_prior(prior, task), X=task.X, y=task.y, likelihood=task.likelihood,
        inference=task.inference, y_var=task.y_var, sample_weight=task.sample_weight,
        missing=task.missing, seed=task.seed, progress=False, warn=False,
        scaling=_coordinates(prior, task),
    )  # fmt: skip
    result = loo(
        posterior, refits=task.refits, limit=task.limit, seed=jax.random.fold_in(task.seed, 1)
    )
    notes = (*result.problems, *(f"posterior: {p}" for p in posterior.diagnostics().problems))
    if result.refitted:
        notes = (f"{len(result.refitted)} row(s) with high k-hat were refitted", *notes)
    return Candidate(
        name, result.elpd, result.standard_error, result.rows, result, notes, posterior
    )


def _check_process(name: str, prior: Any, task: Task) -> None:
    if not isinstance(prior, GaussianProcess):
        raise UnsupportedError(
            f'by="evidence" is for bn.GaussianProcess, {name!r} is a {type(prior).__name__}. Of network '
            'priors and other targets use by="loo", or by="laplace_screen" for a first look.'
        )
    if not isinstance(task.likelihood, GaussianLikelihood):
        raise UnsupportedError(
            'by="evidence" needs Gaussian noise (bn.GaussianLikelihood), got '
            f'{type(task.likelihood).__name__}: use by="loo".'
        )
    if task.sample_weight is not None or task.missing != "error":
        raise UnsupportedError(
            'by="evidence" knows no sample_weight and no missing targets: use by="loo", or drop rows.'
        )


def _evidence(name: str, process: GaussianProcess, task: Task) -> Candidate:
    x, y, variance = check_table(task.X, task.y, task.y_var)
    n, m = y.shape
    stated = _coordinates(process, task)
    if stated is not None:
        scaling = stated.with_spread(y)
    elif process.units == "scaled":
        scaling = Scaling.from_data(x, y)
    else:
        scaling = Scaling.identity(x.shape[1], m).with_spread(y)
    noise = _noise_in(scaling, task.likelihood.noise_std, variance)
    result = process.log_evidence(
        scaling.x_in(x), scaling.y_in(y), noise, num_samples=task.num_samples, seed=task.seed
    )
    value = float(result) - n * float(np.sum(np.log(scaling.y_scale)))
    notes: tuple[str, ...] = ()
    if process.empirical is not None:
        notes = ("its hyper-parameters were chosen by data: too high if by these data",)
    return Candidate(name, value, result.standard_error, None, result, notes)


def _noise_in(scaling: Scaling, level: Any, variance: np.ndarray | None) -> Any:
    """The noise sd in scaled coordinates, as `GaussianLikelihood.bind` has it."""
    if variance is not None and (level is None or not is_law(level)):
        known = 0.0 if level is None else level
        return np.sqrt(variance + known**2) / scaling.y_scale
    if variance is not None:
        raise UnsupportedError(
            'by="evidence" takes known noise, y_var, or one law of the noise: not a law and y_var.'
        )
    if level is not None and not is_law(level):
        return (level / scaling.y_scale)[None]
    if len(scaling.y_scale) > 1:
        raise UnsupportedError(
            'by="evidence" integrates over the noise of one output: state a known noise_std, or '
            "compare the outputs one by one (independent processes: the evidences add)."
        )
    if level is None:
        spread = float(np.log(scaling.relative_spread[0]))
        return LogNormal(DEFAULT_NOISE.loc + spread, DEFAULT_NOISE.scale)
    loc = float(np.ravel(level.loc)[0]) - float(np.log(scaling.y_scale[0]))
    return LogNormal(loc, float(np.ravel(level.scale)[0]))


def _laplace(name: str, prior: Any, task: Task) -> Candidate:
    scaling, chosen = _coordinates(prior, task), _as_prior(prior, task)
    prior, target = chosen["prior"], chosen.get("target")
    likelihood, data = scaled_table(
        prior, target, task.likelihood, task.X, task.y, task.y_var,
        task.sample_weight, task.missing, scaling,
    )  # fmt: skip
    prior = resolve_prior(prior, target, data, likelihood=likelihood)
    result = laplace_evidence(prior, likelihood, data, restarts=task.restarts, key=task.seed)
    return Candidate(name, result.value, float("nan"), None, result, result.problems)


# Name -> (judge, check before any compute).
CRITERIA: dict[str, tuple[Callable[..., Candidate], Callable[..., None]]] = {
    "loo": (_loo, _anything),
    "evidence": (_evidence, _check_process),
    "laplace_screen": (_laplace, _anything),
}
