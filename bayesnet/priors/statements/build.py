"""`elicit`: from statements about functions to a process that obeys them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesnet._errors import InputError
from bayesnet._types import ArrayLike
from bayesnet.data import Scaling, as_matrix, check_table, standardization
from bayesnet.priors.covariance import STATIONARY, Combined, Covariance, Named
from bayesnet.priors.gaussian_process import GaussianProcess
from bayesnet.priors.laws import LogNormal
from bayesnet.priors.matching.points import Box
from bayesnet.priors.network import UNITS
from bayesnet.priors.statements.base import Statement
from bayesnet.priors.statements.bounded import Bounded
from bayesnet.priors.statements.known_value import KnownValue
from bayesnet.priors.statements.latents import Latent, MonotoneLatent, ProcessLatent, Rise
from bayesnet.priors.statements.links import Clip
from bayesnet.priors.statements.monotone import Monotone
from bayesnet.priors.statements.periodic import Periodic
from bayesnet.priors.statements.satisfies import Satisfies
from bayesnet.priors.statements.stated import StatedPrior
from bayesnet.priors.statements.trends import TrendMean
from bayesnet.priors.statements.varies import Varies

# Vagueness of what is not stated, as in the default process: lengthscale of a column, amplitude.
LENGTHSCALE_SPREAD, AMPLITUDE_SPREAD = 0.7, 0.25
# The rise of a trend over the range of its column, in amplitudes, and its log-sd over draws.
TREND_RISE, TREND_SPREAD = 2.0, 0.5
# The rise of a monotone function in sds: a line of sd 1 rises by sqrt(12).
MONOTONE_RISE = float(np.sqrt(12.0))
# The clip at a bound sets in at this fraction of the amplitude, or of the distance of two bounds.
CLIP_OF_AMPLITUDE, CLIP_OF_RANGE = 0.5, 0.1
# Points that stand for a box.
BOX_ROWS = 256


def elicit(
    *statements: Statement,
    X: ArrayLike | Box,
    y: ArrayLike | None = None,
    base: Any = None,
    kernel: str = "matern52",
    units: str = "scaled",
    max_tries: int = 20_000,
    seed: int = 0,
) -> StatedPrior:
    """A prior over functions from statements in the units of the user's data.

    Args:
        statements: `bn.statements.Varies`, `Monotone`, `Bounded`, `Positive`, `Periodic`,
            `KnownValue`, `Satisfies`.
        X: the inputs (n, d) in the user's units, or a `bn.Box(low, high)` that holds them: where
            statements are checked, and the scale of what is not stated.
        y: targets (n,). If given, the scale of y that no statement gives (level, amplitude) is
            that of these targets; without them it must be stated.
        base: a process of one output whose draws are made to obey instead of one built from the
            statements: a `bn.GaussianProcess` (conditioned on known values exactly), or any object
            with `sample` (filtered). Its `units` are those of (X, y) scaled, or "data".
        kernel: the stationary kernel behind the statements: "rbf", "matern12", 32, 52.
        units: the coordinates of the prior that is returned: "scaled" (columns of X and y at mean 0, sd 1;
            what `bn.fit` and `bn.match_prior` take by default) or "data". `bn.fit` re-expresses a
            stated prior in the scaling that it uses.
        max_tries: draws that a filter may try in one call of `sample` before it gives up.
        seed: of the check that some draws obey.

    Returns:
        A `StatedPrior`: `sample`, `report()`, `scaling`.

    Raises:
        InputError: statements that contradict each other or the inputs, a scale that nothing
            states, or statements that no draw satisfies.
    """
    rows, bounds = _rows(X)
    d = rows.shape[1]
    _check(statements, d, base, kernel, units, max_tries)
    targets = None
    if y is not None:
        if isinstance(X, Box):
            raise InputError("With y pass the rows X that belong to it, not a box.")
        targets = check_table(rows, y)[1]
        if targets.shape[1] != 1:
            raise InputError(f"Statements are about one output, y has {targets.shape[1]}.")
    x_loc, x_scale = standardization(rows) if bounds is None else bounds
    level, amplitude = _level_and_amplitude(statements, targets, base)
    y_loc, y_scale = np.array([level]), np.array([amplitude])
    if targets is not None and np.ptp(targets):
        y_loc, y_scale = standardization(targets)
    elif base is not None:
        y_loc, y_scale = np.zeros(1), np.ones(1)
    scaling = Scaling(x_loc, x_scale, y_loc, y_scale)
    plan = _Plan(
        tuple(statements), rows, scaling, kernel,
        (level - y_loc[0]) / y_scale[0], amplitude / y_scale[0],
    )  # fmt: skip
    clip = plan.clip(base)
    latent, how, filters = plan.latent(clip, base)
    prior = StatedPrior(
        statements=plan.statements,
        how=tuple(how),
        latent=latent,
        clip=clip,
        filters=tuple(filters),
        rows=rows,
        inner=scaling,
        scaling=scaling if units == "scaled" else Scaling.identity(d, 1),
        units=units,
        max_tries=int(max_tries),
    )
    return prior.piloted(seed)


def _rows(X: Any) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    if not isinstance(X, Box):
        rows = as_matrix(X, "X")
        if len(np.unique(rows, axis=0)) < 2:
            raise InputError(
                "X holds a single distinct row: it has no range. Pass more rows, or bn.Box(low, high)."
            )
        return rows, None
    low, high = np.asarray(X.low), np.asarray(X.high)
    unit = np.random.default_rng(0).uniform(size=(BOX_ROWS, len(low)))
    unit[0], unit[1] = 0.0, 1.0
    return low + (high - low) * unit, ((low + high) / 2, (high - low) / np.sqrt(12.0))


def _check(
    statements: Sequence[Any], d: int, base: Any, kernel: str, units: str, max_tries: int
) -> None:
    if not statements:
        raise InputError("State something: for example bn.statements.Varies(over=20.0).")
    for statement in statements:
        if not isinstance(statement, Statement):
            raise InputError(
                f"Expected statements such as bn.statements.Positive(), got {statement!r}."
            )
        statement.check(d)
    if units not in UNITS:
        raise InputError(f"units must be one of {UNITS}, got {units!r}.")
    if kernel not in STATIONARY:
        raise InputError(f"kernel must be one of {', '.join(STATIONARY)}, got {kernel!r}.")
    if int(max_tries) != max_tries or max_tries < 1:
        raise InputError(f"max_tries must be a positive whole number, got {max_tries!r}.")
    for kind in (Varies, Monotone, Periodic):
        columns = [s.column for s in statements if isinstance(s, kind)]
        for column in set(columns):
            if columns.count(column) > 1:
                raise InputError(f"Column {column} has two {kind.__name__} statements: merge them.")
    repeats = {s.column for s in statements if isinstance(s, Periodic)}
    for s in statements:
        if isinstance(s, Monotone) and s.column in repeats:
            raise InputError(f"Functions cannot be monotone and periodic in column {s.column}.")
        if isinstance(s, Varies) and s.trend is not None and s.column in repeats:
            raise InputError(
                f"With a trend in column {s.column} functions do not repeat there: drop one, or add a "
                "process with the trend to the prior."
            )
    for s in statements:
        for other in statements:
            if isinstance(s, Monotone) and isinstance(other, Varies) and s.column == other.column:
                if other.rising * s.sign < 0:
                    raise InputError(f"'{s.words}' contradicts '{other.words}'.")
                if s.impose == "construct" and other.trend == 0.0:
                    raise InputError(f"'{s.words}' contradicts a slope of 0.")
    if base is not None:
        if not hasattr(base, "sample") or isinstance(base, type):
            raise InputError(f"base must have sample(key, x, num_samples), got {base!r}.")
        for s in statements:
            if isinstance(s, (Varies, Periodic)):
                raise InputError(
                    f"'{s.words}' is a property of the kernel, and base has its own: state it there, or "
                    "leave base out."
                )
    _check_values(statements)


def _check_values(statements: Sequence[Any]) -> None:
    low, high = _bounds(statements)
    if not low < high:
        raise InputError(f"The bounds contradict each other: low {low:g}, high {high:g}.")
    for s in statements:
        if isinstance(s, KnownValue) and not low < s.y < high:
            raise InputError(f"'{s.words}' lies outside the bounds {low:g} and {high:g}.")
        if isinstance(s, Varies) and s.around is not None and not low < s.around < high:
            raise InputError(f"'{s.words}' lies outside the bounds {low:g} and {high:g}.")
    for name in ("amplitude", "around"):
        stated = [getattr(s, name) for s in statements if isinstance(s, Varies)]
        different = {value for value in stated if value is not None}
        if len(different) > 1:
            raise InputError(
                f"Several values of {name} are stated ({sorted(different)}): the columns share one."
            )


def _bounds(statements: Sequence[Any]) -> tuple[float, float]:
    bounded = [s for s in statements if isinstance(s, Bounded)]
    low = max([s.low for s in bounded], default=-np.inf)
    return low, min([s.high for s in bounded], default=np.inf)


def _level_and_amplitude(
    statements: Sequence[Any], targets: np.ndarray | None, base: Any
) -> tuple[float, float]:
    """Mean and sd of function values, in the units of y, from the first source that has them."""
    if base is not None:
        return 0.0, 1.0
    low, high = _bounds(statements)
    both = bool(np.isfinite(low) and np.isfinite(high))
    amplitude = next(
        (s.amplitude for s in statements if isinstance(s, Varies) and s.amplitude is not None), None
    )
    if amplitude is None and targets is not None and np.ptp(targets):
        amplitude = float(targets.std())
    if amplitude is None and both:
        amplitude = (high - low) / 4
    if amplitude is None:
        raise InputError(
            "Nothing says how large the functions are: state Varies(..., amplitude=...), or bounds, or "
            "pass y."
        )
    known = [s.y for s in statements if isinstance(s, KnownValue)]
    level = next(
        (s.around for s in statements if isinstance(s, Varies) and s.around is not None), None
    )
    if level is None and targets is not None:
        level = float(targets.mean())
    if level is None and both:
        level = (low + high) / 2
    if level is None and known:
        level = float(np.mean(known))
    if level is None:
        level = low + amplitude if np.isfinite(low) else 0.0
        level = high - amplitude if np.isfinite(high) else level
    return level, amplitude


@dataclass(frozen=True, eq=False)
class _Plan:
    """The statements in inner coordinates: columns of X, and y, at mean 0 and sd 1."""

    statements: tuple[Any, ...]
    rows: np.ndarray
    scaling: Scaling
    kernel: str
    level: float
    amplitude: float

    @property
    def in_dim(self) -> int:
        return self.rows.shape[1]

    def _varies(self, column: int) -> Varies | None:
        found = [s for s in self.statements if isinstance(s, Varies) and s.column == column]
        return found[0] if found else None

    def _log_lengthscale(self, column: int) -> tuple[float, float]:
        """Median and sd of the logarithm of a lengthscale."""
        stated = self._varies(column)
        if stated is None:
            return 0.5 * float(np.log(2.0 * self.in_dim)), LENGTHSCALE_SPREAD
        return float(np.log(stated.over / self.scaling.x_scale[column])), stated.spread

    def covariance(self, columns: Sequence[int], outputscale: Any, *, exact: bool) -> Covariance:
        """The kernel on some columns; `exact` puts hyper-parameters at their medians."""
        repeats = {s.column: s.period for s in self.statements if isinstance(s, Periodic)}
        parts: list[Covariance] = []
        plain = [c for c in columns if c not in repeats]
        if plain:
            logs = [self._log_lengthscale(c) for c in plain]
            parts.append(Named(self.kernel, _law(logs, exact), columns=plain))
        for column in (c for c in columns if c in repeats):
            period = repeats[column] / self.scaling.x_scale[column]
            log, spread = 0.0, LENGTHSCALE_SPREAD
            if self._varies(column) is not None:
                log, spread = self._log_lengthscale(column)
                # Near 0 the periodic kernel is an rbf of lengthscale period * l / (2 pi).
                log += float(np.log(2.0 * np.pi / period))
            law = _law([(log, spread)], exact)
            parts.append(Named("periodic", law, period=period, columns=[column]))
        first = parts[0]
        parts[0] = Named(
            first.name, first.lengthscale, outputscale, first.period, columns=first.columns
        )  # type: ignore[attr-defined]
        total = parts[0]
        for part in parts[1:]:
            total = Combined(total, part, "product")
        return total

    def _amplitude_spread(self) -> float:
        stated = [s for s in self.statements if isinstance(s, Varies) and s.amplitude is not None]
        return stated[0].spread if stated else AMPLITUDE_SPREAD

    def clip(self, base: Any) -> Clip:
        """The transform that keeps values between the bounds that are imposed so."""
        transformed = [
            s for s in self.statements if isinstance(s, Bounded) and s.impose == "transform"
        ]
        if not transformed or (base is not None and not isinstance(base, GaussianProcess)):
            return Clip()
        low, high = (
            (bound - self.scaling.y_loc[0]) / self.scaling.y_scale[0]
            for bound in _bounds(transformed)
        )
        amplitude = self.amplitude
        if isinstance(base, GaussianProcess):
            amplitude = _typical_sd(base, self)
        width = CLIP_OF_AMPLITUDE * amplitude
        if np.isfinite(low) and np.isfinite(high):
            width = min(width, CLIP_OF_RANGE * (high - low))
        return Clip(float(low), float(high), float(width))

    def latent(self, clip: Clip, base: Any) -> tuple[Latent, list[str], list[int]]:
        """The source of draws, how each statement is imposed, and which are left to a filter."""
        built = [s for s in self.statements if isinstance(s, Monotone) and s.impose == "construct"]
        monotone = base is None and bool(built)
        kernel_known = monotone or base is None or isinstance(base, GaussianProcess)
        how, filters = [], []
        for number, s in enumerate(self.statements):
            words = "by the kernel and the mean"
            if isinstance(s, Periodic):
                words = "by the kernel, exactly"
            elif isinstance(s, Monotone):
                words = "by construction" if monotone and s in built else "filter"
            elif isinstance(s, Bounded):
                transformed = s.impose == "transform" and not (
                    base is not None and not isinstance(base, GaussianProcess)
                )
                words = "by a smooth clip, exactly" if transformed else "filter"
            elif isinstance(s, KnownValue):
                words = "by conditioning" if kernel_known else "filter"
                if words == "filter" and s.tolerance == 0:
                    raise InputError(
                        f"'{s.words}' can be conditioned only where a kernel is known; draws of "
                        f"{type(base).__name__} are filtered, which needs KnownValue(tolerance=...)."
                    )
            elif isinstance(s, Satisfies) or not isinstance(s, Varies):
                words = "filter"
            how.append(words)
            if words == "filter":
                filters.append(number)
        known = [s for s in self.statements if isinstance(s, KnownValue)] if kernel_known else []
        if monotone:
            return self._monotone(built, known, clip), how, filters
        process = base if base is not None else self.process()
        inside = None
        if getattr(process, "units", "scaled") == "data":
            inside = self.scaling
        if known:
            x, y, sd = self._known(known, clip)
            if inside is not None:
                x = x * inside.x_scale + inside.x_loc
                y, sd = y * inside.y_scale[0] + inside.y_loc[0], sd * inside.y_scale[0]
            process = process.condition(x, y, sd)
        return ProcessLatent(process, inside), how, filters

    def _known(
        self, known: list[KnownValue], clip: Clip
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Known values before the clip, in inner coordinates; their sd to first order."""
        x = self.scaling.x_in(np.asarray([s.x for s in known]))
        y = (np.asarray([s.y for s in known]) - self.scaling.y_loc[0]) / self.scaling.y_scale[0]
        sd = np.asarray([s.tolerance for s in known]) / self.scaling.y_scale[0]
        u = clip.inverse(y)
        return x, u, sd / clip.slope(u)

    def process(self) -> GaussianProcess:
        """The Gaussian process that the statements describe."""
        spread = self._amplitude_spread()
        outputscale = _law([(2.0 * float(np.log(self.amplitude)), 2.0 * spread)], False)
        covariance = self.covariance(range(self.in_dim), outputscale, exact=False)
        columns, signs, slopes = [], [], []
        for s in self.statements:
            if isinstance(s, Varies) and s.rising:
                columns.append(s.column)
                signs.append(s.rising)
                slopes.append(self._slope(s))
        mean = TrendMean(float(self.level), tuple(columns), tuple(signs), tuple(slopes))
        return GaussianProcess(covariance, mean=mean if columns else float(self.level))

    def _slope(self, s: Varies) -> Any:
        if isinstance(s.trend, str):
            extent = np.ptp(self.rows[:, s.column]) / self.scaling.x_scale[s.column]
            return LogNormal(float(np.log(TREND_RISE * self.amplitude / extent)), TREND_SPREAD)
        return abs(s.trend) * self.scaling.x_scale[s.column] / self.scaling.y_scale[0]

    def _monotone(
        self, built: list[Monotone], known: list[KnownValue], clip: Clip
    ) -> MonotoneLatent:
        columns = [s.column for s in built]
        rest = tuple(c for c in range(self.in_dim) if c not in columns)
        for s in self.statements:
            if isinstance(s, Varies) and s.trend is not None and s.column in rest:
                raise InputError(
                    f"'{s.words}': beside a monotone construction, a trend can be stated for the "
                    "monotone column only. Use Monotone(..., impose='filter')."
                )
        rest_covariance = self.covariance(rest, 1.0, exact=True) if rest else None
        rises = []
        for s in built:
            x = self.scaling.x_in(self.rows)[:, s.column]
            low, high = float(x.min()), float(x.max())
            log, _ = self._log_lengthscale(s.column)
            stated = self._varies(s.column)
            numeric = stated is not None and isinstance(stated.trend, float)
            slope = MONOTONE_RISE * self.amplitude / (high - low)
            if numeric:
                slope = self._slope(stated)  # type: ignore[arg-type]
            # Four nodes a lengthscale.
            nodes = int(np.clip(np.ceil(4.0 * (high - low) / np.exp(log)) + 1, 17, 129))
            along = Named(self.kernel, float(np.exp(log)))
            rises.append(Rise(s.column, s.sign, float(slope), not numeric, along, low, high, nodes))
        nothing = (np.zeros((0, self.in_dim)), np.zeros(0), np.zeros(0))
        at = self._known(known, clip) if known else nothing
        return MonotoneLatent(
            tuple(rises), rest, rest_covariance, float(self.level), float(self.amplitude), *at
        )


def _law(logs: Sequence[tuple[float, float]], exact: bool) -> Any:
    """A hyper-parameter from medians and sds of logarithms: numbers where nothing is vague."""
    loc, scale = np.asarray([a for a, _ in logs]), np.asarray([b for _, b in logs])
    if len(logs) == 1:
        loc, scale = loc[0], scale[0]
    if exact or not np.any(scale):
        return np.exp(loc)
    return LogNormal(loc, np.maximum(scale, 1e-6))


def _typical_sd(base: GaussianProcess, plan: _Plan) -> float:
    """The sd of a process's values, in inner coordinates."""
    data = base.units == "data"
    x = plan.rows if data else plan.scaling.x_in(plan.rows)
    some = x[: min(len(x), 64)]
    sd = float(np.asarray(base.sample(0, some, 64), np.float64).std(axis=0).mean())
    return sd / plan.scaling.y_scale[0] if data else sd
