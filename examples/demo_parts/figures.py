"""The demo's four pictures. Colours are those of Okabe and Ito, told apart by every eye."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import matplotlib
import matplotlib.ticker
import numpy as np

matplotlib.use("Agg")  # files only: the demo also runs where there is no screen
import matplotlib.pyplot as plt
from scipy.stats import binom

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
COLOURS = (BLUE, ORANGE, GREEN, GREY)
MARKERS = ("o", "s", "^", "D")
STYLE = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def prior_functions(path: Path, target: Any, matched: Any, unmatched: Any, half: float) -> None:
    """Functions of the three processes along the diagonal of the box, on one scale."""
    d, num, curves = matched.in_dim, 500, 10
    t = np.linspace(-half, half, 120)
    x = np.repeat(t[:, None], d, axis=1).astype(np.float32)
    panels = (
        ("Stated process (target)", target, GREY),
        ("Network matched to it", matched, BLUE),
        ("Same network, N(0, 1) weights", unmatched, ORANGE),
    )
    draws = [np.asarray(p.sample(jax.random.key(1), x, num))[:, :, 0] for _, p, _ in panels]
    limit = 1.15 * max(np.quantile(np.abs(f), 0.99) for f in draws)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(12, 3.9), sharey=True)
        for ax, (title, _, colour), f in zip(axes, panels, draws, strict=True):
            low, high = np.quantile(f, [0.05, 0.95], axis=0)
            ax.fill_between(t, low, high, color=colour, alpha=0.15, lw=0, label="90 % of draws")
            ax.plot(t, f[:curves].T, color=colour, lw=1.2, alpha=0.85)
            ax.set(title=title, xlim=(-half, half), ylim=(-limit, limit))
            ax.set_xlabel("position on the diagonal of the input box\n(sd of each column)")
            ax.legend(loc="lower left", frameon=True, framealpha=0.85, edgecolor="none")
        axes[0].set_ylabel("function value (sd of y)")
        figure.suptitle(f"Prior functions of {d} inputs, before any data", fontweight="bold")
        figure.savefig(path, dpi=150)
        plt.close(figure)


def predictions(path: Path, results: list[Any], y: np.ndarray, unit: str) -> None:
    """Left: test rows with 90 % intervals of the first model. Right: calibration of all."""
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(12, 5), gridspec_kw={"width_ratios": [1.6, 1]}
        )
        _intervals(left, results[0], y, unit)
        _calibration(right, results, y)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def _intervals(ax: Any, result: Any, y: np.ndarray, unit: str) -> None:
    order = np.argsort(result.mean)
    rank = np.arange(1, len(y) + 1)
    inside = ((result.low <= y) & (y <= result.high))[order]
    ax.vlines(
        rank, result.low[order], result.high[order], color=BLUE, alpha=0.3, lw=3.5,
        label="90 % interval",
    )  # fmt: skip
    ax.plot(rank, result.mean[order], color=BLUE, lw=1.8, label="predictive mean")
    ax.plot(rank[inside], y[order][inside], "o", color="black", ms=4, label="observed, inside")
    ax.plot(rank[~inside], y[order][~inside], "X", color=ORANGE, ms=8, label="observed, outside")
    ax.set(
        title=f"{result.name}: {inside.mean():.0%} of {len(y)} test rows inside",
        xlabel="test row, ordered by predicted mean",
        ylabel=f"target ({unit})",
    )
    ax.set_ylim(top=ax.get_ylim()[1] + 0.15 * np.ptp(ax.get_ylim()))
    ax.legend(loc="upper left", ncols=2)


def _calibration(ax: Any, results: list[Any], y: np.ndarray) -> None:
    levels = np.linspace(0.05, 0.95, 19)
    n = len(y)
    low, high = (binom.ppf(q, n, levels) / n for q in (0.025, 0.975))
    ax.fill_between(
        levels, low, high, color="black", alpha=0.1, lw=0, label="95 % band of a calibrated model"
    )
    ax.plot([0, 1], [0, 1], color="black", lw=0.8, ls=":")
    for result, colour, marker in zip(results, COLOURS, MARKERS, strict=False):
        # Central intervals: a target lies inside level p if its probability is within p/2 of 1/2.
        distance = 2 * np.abs(result.cdf - 0.5)
        observed = [(distance <= level).mean() for level in levels]
        ax.plot(levels, observed, marker=marker, ms=4, lw=1.4, color=colour, label=result.name)
    ax.set(
        title="Calibration of central intervals",
        xlabel="probability that the interval states",
        ylabel=f"share of {n} test rows inside",
        xlim=(0, 1),
        ylim=(0, 1.0),
    )
    ax.legend(loc="upper left", fontsize=9)


def side_by_side(
    path: Path, conditioned: list[Any], x: np.ndarray, split: Any, labels: Any
) -> None:
    """One panel a posterior on one scale: its mean, the band of the function, that of new rows."""
    X, X_test, y, y_test = split
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(conditioned), figsize=(4.2 * len(conditioned), 4.6), sharex=True, sharey=True
        )
        for ax, one, colour in zip(axes, conditioned, COLOURS, strict=False):
            band, at = one.band, x[:, 0]
            held_out = ax.plot(X_test[:, 0], y_test, ".", color=GREY, ms=4, alpha=0.45)[0]
            ax.fill_between(at, band.low, band.high, color=colour, alpha=0.15, lw=0)
            low, high = band.mean - band.std, band.mean + band.std
            ax.fill_between(at, low, high, color=colour, alpha=0.45, lw=0)
            ax.plot(at, band.mean, color=colour, lw=1.8)
            rows = ax.plot(X[:, 0], y, "o", color="black", ms=3.2)[0]
            seconds = one.result.seconds
            spent = f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
            ax.set_title(f"{one.result.name}: {spent}")
            ax.set_xlabel(labels[0])
        axes[0].set_ylabel(labels[1])
        axes[0].set_xlim(x.min(), x.max())
        # In grey, as one legend stands for bands of several colours.
        key = {
            "rows of the table": rows,
            "held-out rows": held_out,
            "function: mean and sd (epistemic)": plt.Rectangle(
                (0, 0), 1, 1, color=GREY, alpha=0.5, lw=0
            ),
            "90 % of new observations": plt.Rectangle((0, 0), 1, 1, color=GREY, alpha=0.15, lw=0),
        }
        figure.legend(key.values(), key.keys(), loc="outside lower center", ncols=4, fontsize=10)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def optimization(path: Path, outcome: Any) -> None:
    """Left: best value so far. Right: where the two looked, in the plane of two parameters."""
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.8))
        trials = np.arange(1, len(outcome.values) + 1)
        best = np.minimum.accumulate(outcome.values)
        random = np.minimum.accumulate(outcome.random_values, axis=1)
        left.fill_between(
            trials, random.min(axis=0), random.max(axis=0), color=ORANGE, alpha=0.15, lw=0,
            label=f"all {len(random)} random searches", step="post",
        )  # fmt: skip
        median = np.median(random, axis=0)
        left.step(trials, median, where="post", color=ORANGE, lw=2, ls="--", label="their median")
        left.step(trials, best, where="post", color=BLUE, lw=2.2, label="bayesnet (HMC surrogate)")
        left.axvspan(0.5, outcome.num_start + 0.5, color="black", alpha=0.07, lw=0)
        left.set(
            title="Best value found so far (lower is better)",
            xlabel=f"trial (grey: the {outcome.num_start} starting points that all share)",
            ylabel="cross-validated log loss (nats)",
            xlim=(0.5, len(trials) + 0.5),
        )
        left.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
        # The first trials can be many times worse: the axis shows where the search is decided.
        settled = max(best[outcome.num_start - 1], random[:, -1].max())
        margin = 0.08 * (settled - min(best[-1], random.min())) + 1e-6
        left.set_ylim(min(best[-1], random.min()) - margin, settled + 2 * margin)
        left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, fontsize=9)
        _where(right, outcome)
        bar = figure.colorbar(right.collections[0], ax=right, label="trial number of bayesnet")
        bar.locator = matplotlib.ticker.MaxNLocator(integer=True)
        bar.update_ticks()
        figure.savefig(path, dpi=150)
        plt.close(figure)


def _where(ax: Any, outcome: Any) -> None:
    points = outcome.points
    order = np.arange(1, len(points) + 1)
    ax.scatter(
        points[:, 0], points[:, 1], c=order, cmap="viridis", s=55, edgecolor="black", lw=0.5,
        label="bayesnet", zorder=3,
    )  # fmt: skip
    random = outcome.random_points
    ax.plot(random[:, 0], random[:, 1], "x", color=ORANGE, ms=6, label="first random search")
    at = points[np.argmin(outcome.values)]
    ax.plot(*at, "*", ms=20, mfc="none", mec=ORANGE, mew=1.8, zorder=4, label="bayesnet's best")
    ax.set(xscale="log", yscale="log", xlabel="kernel width gamma", ylabel="inverse penalty C")
    ax.set_title("Where they looked")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, fontsize=9)
