"""The report of a stated prior: what was imposed how, what is satisfied, and what gap is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bayesnet._errors import InputError

if TYPE_CHECKING:
    from bayesnet.priors.statements.stated import StatedPrior

FRESH_ROWS = 64
# Draws in one go: monotone constructions hold a slope a node, point and draw.
BATCH = 128


@dataclass(frozen=True)
class StatementReport:
    """Measured on fresh draws at fresh points; `print(report)` shows it as a table.

    Attributes:
        rows: one dict a statement: "statement" in words; "imposed", how; "satisfied", the fraction
            of draws that miss it by no more than 1 % of the sd of the process (known values: two
            tolerances and that), or None for a statement about the law of draws; "gap", the mean of
            what draws miss it by, in the units of y (None likewise); "note", what else was measured.
        acceptance: the fraction of draws that the filter kept (1 without one).
        num_draws: behind the fractions.
    """

    rows: list[dict[str, Any]]
    acceptance: float
    num_draws: int

    def __str__(self) -> str:
        lines = [f"{self.num_draws} draws; acceptance rate {self.acceptance:.3g}."]
        wide = max([len(row["statement"]) for row in self.rows] + [9]) + 2
        lines.append(f"{'statement':<{wide}}{'imposed':<29}{'satisfied':>10}{'gap':>10}")
        for row in self.rows:
            kept = "" if row["satisfied"] is None else f"{row['satisfied']:.1%}"
            gap = "" if row["gap"] is None else f"{row['gap']:.2g}"
            lines.append(f"{row['statement']:<{wide}}{row['imposed']:<29}{kept:>10}{gap:>10}")
            if row["note"]:
                lines.append(f"    {row['note']}")
        return "\n".join(lines)


def statement_report(prior: StatedPrior, num_draws: int, seed: int) -> StatementReport:
    """See `StatedPrior.report`."""
    if int(num_draws) != num_draws or num_draws < 2:
        raise InputError(f"num_draws must be a whole number of at least 2, got {num_draws!r}.")
    rng = np.random.default_rng(seed)
    x = fresh_rows(prior.rows, rng, FRESH_ROWS)
    numbers = range(len(prior.statements))
    probes = [s.probes(fresh_rows(prior.rows, rng, FRESH_ROWS), rng) for s in prior.statements]
    points = np.concatenate([x, *probes])
    keys = jax.random.split(jax.random.key(seed), -(-num_draws // BATCH))
    values = np.concatenate([prior.draw(k, points, BATCH) for k in keys])[:num_draws]
    rows = []
    for number, statement, seen in prior._seen(x, values, numbers, probes):
        gap = statement.gap(seen)
        satisfied = None if gap is None else float((gap <= prior._slack()).mean())
        mean = None if gap is None or np.isinf(gap).any() else float(gap.mean())
        rows.append(
            {
                "statement": statement.words,
                "imposed": prior.how[number],
                "satisfied": satisfied,
                "gap": mean,
                "note": statement.note(seen),
            }
        )
    return StatementReport(rows, prior.acceptance, num_draws)


def fresh_rows(rows: np.ndarray, rng: np.random.Generator, num: int) -> np.ndarray:
    """Points between rows: on the segment between two of them, so inside their hull."""
    first, second = rows[rng.integers(len(rows), size=(2, num))]
    return first + rng.uniform(size=(num, 1)) * (second - first)
