"""Statements in inner coordinates: the kernel, the mean, the clip and the source of draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bayesnet._errors import InputError
from bayesnet.data import Scaling
from bayesnet.priors.covariance import Combined, Covariance, Named
from bayesnet.priors.gaussian_process import GaussianProcess
from bayesnet.priors.laws import LogNormal
from bayesnet.priors.statements.bounded import Bounded
from bayesnet.priors.statements.checks import bounds_of
from bayesnet.priors.statements.known_value import KnownValue
from bayesnet.priors.statements.latents import Latent, MonotoneLatent, ProcessLatent, Rise
from bayesnet.priors.statements.links import Clip
from bayesnet.priors.statements.monotone import Monotone
from bayesnet.priors.statements.periodic import Periodic
from bayesnet.priors.statements.satisfies import Satisfies
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


@dataclass(frozen=True, eq=False)
class Plan:
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
        parts: list[Named] = []
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
        total: Covariance = replace(parts[0], outputscale=outputscale)
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
            for bound in bounds_of(transformed)
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


def _typical_sd(base: GaussianProcess, plan: Plan) -> float:
    """The sd of a process's values, in inner coordinates."""
    data = base.units == "data"
    x = plan.rows if data else plan.scaling.x_in(plan.rows)
    some = x[: min(len(x), 64)]
    sd = float(np.asarray(base.sample(0, some, 64), np.float64).std(axis=0).mean())
    return sd / plan.scaling.y_scale[0] if data else sd
