"""`elicit`: from statements about functions to a process that obeys them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bayesnet._columns import names_at_fit
from bayesnet._errors import InputError
from bayesnet._matrix import as_matrix
from bayesnet._types import ArrayLike
from bayesnet.data import Scaling, check_table, standardization
from bayesnet.priors.matching.points import Box
from bayesnet.priors.statements.base import Statement
from bayesnet.priors.statements.checks import bounds_of, check_statements
from bayesnet.priors.statements.known_value import KnownValue
from bayesnet.priors.statements.plan import Plan
from bayesnet.priors.statements.stated import StatedPrior
from bayesnet.priors.statements.varies import Varies

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
            `KnownValue`, `Satisfies`. They call columns by number, or by name where X is a data frame.
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
        max_tries: draws that a filter may try for every 128 functions asked for before it gives up.
        seed: of the check that some draws obey.

    Returns:
        A `StatedPrior`: `sample`, `report()`, `scaling`.

    Raises:
        InputError: statements that contradict each other or the inputs, a scale that nothing
            states, or statements that no draw satisfies.
    """
    rows, bounds = _rows(X)
    d, names = rows.shape[1], None if isinstance(X, Box) else names_at_fit(X, "X")
    statements = tuple(s.resolved(names) if isinstance(s, Statement) else s for s in statements)
    check_statements(statements, d, base, kernel, units, max_tries)
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
    scaling = Scaling(x_loc, x_scale, y_loc, y_scale, names=names)
    plan = Plan(
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
        scaling=scaling if units == "scaled" else replace(Scaling.identity(d, 1), names=names),
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


def _level_and_amplitude(
    statements: Sequence[Any], targets: np.ndarray | None, base: Any
) -> tuple[float, float]:
    """Mean and sd of function values, in the units of y, from the first source that has them."""
    if base is not None:
        return 0.0, 1.0
    low, high = bounds_of(statements)
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
