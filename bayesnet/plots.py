"""Pictures: functions of a prior beside those of its target. Needs matplotlib."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from bayesnet._errors import InputError, MissingExtraError
from bayesnet.priors.matching.lines import draw_lines
from bayesnet.priors.matching.points import Box, as_point_law
from bayesnet.priors.matching.target import draw_target

__all__ = ["show_prior"]

# Where functions are shown if nothing is said: scaled inputs (mean 0, sd 1) live here.
DEFAULT_HALF_WIDTH = 3.0
GRID = 150
# Draws behind the band and the median; `num` of them are drawn as curves.
BAND_DRAWS = 500
SEGMENTS = 3
NETWORK_COLOUR, TARGET_COLOUR = "#1f6feb", "#d9680f"


def show_prior(
    prior: Any,
    target: Any = None,
    *,
    x: Any = None,
    num: int = 12,
    seed: int = 0,
    ax: Any = None,
) -> Any:
    """Draw functions of `prior`, and beside them those of `target`, on one scale.

    Each panel shows `num` functions, the pointwise band from the 5 % to the 95 % quantile and the
    median. One input is drawn against its axis; with several, each row of panels is a straight
    segment between two points of `x`.

    Args:
        prior, target: any objects with `sample(key, x (n, d), s) -> (s, n, m)`; the first
            output is shown.
        x: where, in the prior's coordinates: an array (n, d), a `bn.Box`, or a tuple of those;
            by default the box from -3 to 3 in every column.
        num: the number of functions drawn as curves.
        seed: of the draws.
        ax: matplotlib axes to draw into: one a panel (for one input, one or two).

    Returns the matplotlib figure.

    Raises:
        InputError: `num` below 1, another number of columns or axes than needed.
        MissingExtraError: matplotlib is not installed.
    """
    if num < 1:
        raise InputError(f"num must be at least 1, got {num}.")
    in_dim = getattr(prior, "in_dim", None) or _columns(x)
    half = DEFAULT_HALF_WIDTH
    law = as_point_law(Box([-half] * in_dim, [half] * in_dim) if x is None else x, in_dim)
    keys = jax.random.split(jax.random.key(seed), 3)
    lines, spacing = draw_lines(law, keys[0], SEGMENTS, GRID)
    processes = [("Network prior", prior, NETWORK_COLOUR), ("Target", target, TARGET_COLOUR)]
    processes = processes[: 1 if target is None else 2]
    draws = [
        np.asarray(draw_target(process, key, lines, max(num, BAND_DRAWS)))[..., 0]
        for (_, process, _), key in zip(processes, keys[1:], strict=False)
    ]
    axes = _axes(ax, len(lines), len(processes))
    # One scale for all panels, from quantiles: a single wild draw must not flatten the others.
    low = min(np.quantile(d, 0.002) for d in draws)
    high = max(np.quantile(d, 0.998) for d in draws)
    # The room above is for the legend.
    limits = (low - 0.05 * (high - low) - 1e-6, high + 0.2 * (high - low) + 1e-6)
    for row in range(len(lines)):
        if in_dim == 1:
            position, label = np.asarray(lines[row, :, 0]), "x"
        else:
            position = spacing[row] * np.arange(GRID)
            label = f"distance along segment {row + 1}"
        for column, (name, _, colour) in enumerate(processes):
            panel = axes[row, column]
            _draw_functions(panel, position, draws[column][row], num, colour)
            panel.set(xlabel=label, xlim=(position[0], position[-1]), ylim=limits)
            if row == 0:
                panel.set_title(name)
                panel.legend(loc="upper left", frameon=False, fontsize="small", ncols=2)
            if column == 0:
                panel.set_ylabel("f(x)")
    return axes[0, 0].figure


def _draw_functions(panel: Any, x: np.ndarray, values: np.ndarray, num: int, colour: str) -> None:
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95], axis=0)
    panel.fill_between(x, low, high, color=colour, alpha=0.15, lw=0, label="5 to 95 %")
    panel.plot(x, values[:num].T, color=colour, lw=0.9, alpha=0.65)
    panel.plot(x, middle, color="black", lw=1.4, ls="--", label="median")
    panel.grid(alpha=0.25, lw=0.6)
    panel.spines[["top", "right"]].set_visible(False)


def _columns(x: Any) -> int:
    if x is None:
        raise InputError(
            "This prior does not say how many inputs it has: pass x=, an array (n, d) or a bn.Box."
        )
    first = x[0] if isinstance(x, (tuple, list)) and isinstance(x[0], Box) else x
    return first.in_dim if isinstance(first, Box) else np.asarray(first).shape[-1]


def _axes(ax: Any, rows: int, columns: int) -> np.ndarray:
    if ax is not None:
        given = np.atleast_1d(np.asarray(ax, object)).ravel()
        if len(given) == 1 and rows == 1:
            # Both in one panel: the second is drawn over the first.
            return np.repeat(given[None], columns, axis=1)
        if len(given) != rows * columns:
            raise InputError(
                f"ax must hold {rows * columns} axes for these panels, got {len(given)}."
            )
        return given.reshape(rows, columns)
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError("Pictures need matplotlib: pip install bayesnet[plots].") from error
    _, axes = plt.subplots(
        rows,
        columns,
        figsize=(4.6 * columns, 2.6 * rows + 0.6),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    return axes
