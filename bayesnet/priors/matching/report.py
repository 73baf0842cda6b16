"""The report of a match: neutral measures against their floor, and where it is good or bad."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError, MissingExtraError
from bayesnet._repr import one_line
from bayesnet.priors.matching.lines import LINES, draw_along, draw_lines
from bayesnet.priors.matching.points import PointLaw
from bayesnet.priors.matching.target import draw_target

if TYPE_CHECKING:
    from bayesnet.priors.matching.result import MatchResult

GRID = 100
# Lags at which correlations are compared, as fractions of the distance of two drawn points.
LAGS = (0.1, 0.3, 1.0)
POINTS_A_REGION = 8


@dataclass(frozen=True)
class MatchReport:
    """Neutral measures of a match; `print(report)` shows them as tables.

    Attributes:
        measures: name -> {"before", "after", "floor"}; the floor is the target against itself.
        regions: one dict a region: "region" in words, "ks" (mean Kolmogorov-Smirnov distance of
            the values at a point), "sd_ratio" (network over target), and at each of `LAGS`
            "correlation" (network) and "target_correlation".
        ks_floor: what "ks" is for target against target.
        note: what was left out, if anything.
    """

    measures: dict[str, dict[str, float]]
    regions: list[dict[str, Any]]
    ks_floor: float
    num_draws: int
    note: str = ""

    __repr__ = one_line

    @property
    def worst_region(self) -> dict[str, Any]:
        """The region whose values are farthest from the target's."""
        return max(self.regions, key=lambda r: r["ks"])

    def __str__(self) -> str:
        lines = [
            f"Match by {self.num_draws} draws a side; the floor is the target against itself.",
            f"{'measure':<24}{'before':>10}{'after':>10}{'floor':>10}",
        ]
        for name, measured in self.measures.items():
            numbers = "".join(f"{measured[k]:>10.3f}" for k in ("before", "after", "floor"))
            lines.append(f"{name.replace('ks_', 'KS ').replace('_', ' '):<24}{numbers}")
        lags = "".join(f"{f'corr {lag:g}':>15}" for lag in LAGS)
        lines += [
            "",
            "By region: KS of values, sd of network / target, correlation network | target",
        ]
        lines.append(f"{'region':<24}{'KS':>8}{'sd ratio':>10}{lags}")
        for row in self.regions:
            pairs = zip(row["correlation"], row["target_correlation"], strict=True)
            cells = "".join(f"{f'{a:.2f} | {b:.2f}':>15}" for a, b in pairs)
            lines.append(f"{row['region']:<24}{row['ks']:>8.3f}{row['sd_ratio']:>10.2f}{cells}")
        worst = self.worst_region
        lines.append(f"KS of values at the floor: {self.ks_floor:.3f}; worst in {worst['region']}.")
        return "\n".join(lines + ([self.note] if self.note else []))


def match_report(match: MatchResult, *, num_draws: int, num_regions: int, seed: int) -> MatchReport:
    """See `MatchResult.report`."""
    if num_draws < 2 * LINES or num_regions < 1:
        raise InputError(
            f"report needs num_draws >= {2 * LINES} and num_regions >= 1, got {num_draws} and "
            f"{num_regions}."
        )
    keys = jax.random.split(jax.random.key(seed), 3)
    measures, note = _measures(match, keys[0], num_draws, seed)
    regions, floor = _regions(match, keys[1], num_draws, num_regions)
    return MatchReport(measures, regions, floor, num_draws, note)


def _measures(match: MatchResult, key, num_draws: int, seed: int) -> tuple[dict, str]:
    from bayesnet.diagnostics.neutral import neutral_measures

    key_lines, *keys = jax.random.split(key, 5)
    lines, spacing = draw_lines(match.inputs, key_lines, LINES, GRID)
    sides = {"before": match.before, "after": match.prior, "floor": match.target}
    truth = draw_along(match.target, keys[0], lines, num_draws)
    spacing = np.repeat(spacing, len(truth) // len(lines))
    columns, note = {}, ""
    for (name, process), k in zip(sides.items(), keys[1:], strict=True):
        draws = draw_along(process, k, lines, num_draws)
        try:
            columns[name] = neutral_measures(draws, truth, spacing, seed=seed)
        except MissingExtraError as error:
            columns[name] = neutral_measures(draws, truth, spacing, auc=False)
            note = f"The classifier's AUC was left out. {error}"
    rows = {m: {name: columns[name][m] for name in sides} for m in columns["after"]}
    return rows, note


def _regions(match: MatchResult, key, num_draws: int, num_regions: int) -> tuple[list[dict], float]:
    from bayesnet.diagnostics.neutral import ks_distance

    key_points, *keys = jax.random.split(key, 4)
    starts, names = _regional_points(match.inputs, key_points, num_regions)
    towards = np.asarray(match.inputs.draw(jax.random.fold_in(key_points, 1), len(starts)))
    at = np.concatenate([starts] + [starts + lag * (towards - starts) for lag in LAGS])

    def draw(process, key) -> np.ndarray:
        x = jnp.asarray(at, jnp.float32)[None]
        values = np.asarray(draw_target(process, key, x, num_draws))[0, ..., 0]
        return values.reshape(num_draws, 1 + len(LAGS), len(starts))

    f, g, again = (
        draw(p, k) for p, k in zip((match.prior, match.target, match.target), keys, strict=True)
    )
    count = len(starts)
    ks = np.array([ks_distance(f[:, 0, i], g[:, 0, i]) for i in range(count)])
    floor = float(np.mean([ks_distance(again[:, 0, i], g[:, 0, i]) for i in range(count)]))
    ratio = f[:, 0].std(0) / np.maximum(g[:, 0].std(0), 1e-12)
    rows = []
    for i, name in enumerate(names):
        inside = slice(i * POINTS_A_REGION, (i + 1) * POINTS_A_REGION)
        rows.append(
            {
                "region": name,
                "ks": float(ks[inside].mean()),
                "sd_ratio": float(ratio[inside].mean()),
                "correlation": _correlations(f[:, :, inside]),
                "target_correlation": _correlations(g[:, :, inside]),
            }
        )
    return rows, floor


def _correlations(values: np.ndarray) -> list[float]:
    """Mean correlation over the draws (s, 1 + lags, points) of each lag with the start."""
    centred = values - values.mean(0)
    unit = centred / np.maximum(np.sqrt((centred**2).mean(0)), 1e-12)
    return [float((unit[:, 0] * unit[:, 1 + j]).mean()) for j in range(len(LAGS))]


def _regional_points(law: PointLaw, key, num_regions: int) -> tuple[np.ndarray, list[str]]:
    """Points (r * p, d), region after region, and the name of each region.

    One input: intervals of equal length. Several: shells of equal probability around the
    centre, by the distance in units of each column's spread.
    """
    pool = np.asarray(law.draw(key, 4096))
    low, high = law.bounds()
    rng = np.random.default_rng(0)
    if pool.shape[1] == 1:
        edges = np.linspace(low[0], high[0], num_regions + 1)
        points = [rng.uniform(a, b, (POINTS_A_REGION, 1)) for a, b in pairwise(edges)]
        names = [f"x in [{a:.2f}, {b:.2f}]" for a, b in pairwise(edges)]
        return np.concatenate(points), names
    spread = np.maximum(pool.std(0), 1e-12)
    radius = np.linalg.norm((pool - pool.mean(0)) / spread, axis=1)
    cuts = np.quantile(radius, np.linspace(0.0, 1.0, num_regions + 1))
    order = np.argsort(radius, kind="stable")
    shells = np.array_split(order, num_regions)
    points = [pool[rng.choice(shell, POINTS_A_REGION)] for shell in shells]
    names = [f"radius {a:.2f} to {b:.2f}" for a, b in pairwise(cuts)]
    return np.concatenate(points), names
