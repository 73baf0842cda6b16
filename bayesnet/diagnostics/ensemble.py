"""What can be said of a deep ensemble: whether training has ended, and how far members differ.

Its members are separate optima, not draws of a chain: R-hat and effective sample sizes of them
would be numbers without a meaning, and are not given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesnet.diagnostics.convergence import quantities

# What a line search along the gradient may still gain, in nats a row.
GAIN_LIMIT = 0.05
# Members whose functions differ by less than this part of the sd of y are one function.
SAME = 1e-3
# What the spread of members says, without and with noise added to the targets.
SPREAD = (
    "spread of members: that of their anchors and starts, less than the posterior's where data inform",
    "spread of members: that of the posterior, given the level of the noise, if the model is linear in its "
    "latents; else an approximation",
)


@dataclass(frozen=True)
class Spread:
    """How far members differ in a group of quantities: the sd over members, at its median and most."""

    name: str
    median: float
    largest: float


@dataclass(frozen=True)
class EnsembleReport:
    """What training says about itself; prints as a table.

    `spreads` are in scaled coordinates (sd of y is 1); `log_density` (members,) that of the
    posterior of the latents; `gain_left` (members,) nats that a line search along the gradient
    would still gain; `noisy_targets` whether members saw targets with noise of their own, without
    which their spread is less than the posterior's. `problems` holds one sentence for each reason not to
    trust the ensemble.
    """

    spreads: tuple[Spread, ...]
    members: int
    log_density: np.ndarray
    gain_left: np.ndarray
    seconds: float
    problems: tuple[str, ...]
    noisy_targets: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against the ensemble."""
        return not self.problems

    @property
    def headline(self) -> str:
        """What it is, in a few words."""
        return f"{self.members} members of an ensemble"

    def __str__(self) -> str:
        head = f"{'sd over members of':<30}{'median':>8}{'largest':>9}"
        lines = [f"ensemble of {self.members} members, {self.seconds:.1f} s", head]
        lines += [f"{s.name:<30}{s.median:>8.3f}{s.largest:>9.3f}" for s in self.spreads]
        worst, best = np.min(self.log_density), np.max(self.log_density)
        lines.append(
            f"log density of members {worst:.1f} to {best:.1f}; a line search would gain "
            f"{np.median(self.gain_left):.2g} nats (median), {np.max(self.gain_left):.2g} (most)"
        )
        lines.append(SPREAD[self.noisy_targets])
        lines.append(
            "R-hat and effective sample size: not given, members are optima and not draws of a chain"
        )
        return "\n".join(lines + [f"! {p}" for p in self.problems])


def ensemble_report(posterior: Any) -> EnsembleReport:
    """The report for a `FunctionDraws` made by `bn.DeepEnsemble`."""
    spreads = tuple(
        # Levels such as a noise sd come as logarithms.
        Spread(
            name if name.startswith("f at") else f"log {name}",
            float(np.median(sd)),
            float(np.max(sd)),
        )
        for name, values in quantities(posterior).items()
        if not name.startswith("log ")
        for sd in [values.reshape(-1, values.shape[-1]).std(axis=0)]
    )
    members = posterior.num_draws
    nothing = np.full(members, np.nan)
    gain = np.ravel(posterior.stats.get("gain_left", nothing))
    return EnsembleReport(
        spreads=spreads,
        members=members,
        log_density=np.ravel(posterior.stats.get("log_density", nothing)),
        gain_left=gain,
        seconds=float(sum(posterior.seconds.values())),
        problems=_problems(posterior, spreads, gain),
        noisy_targets=bool(np.any(posterior.stats.get("noisy_targets", 0))),
    )


def _problems(posterior: Any, spreads: tuple[Spread, ...], gain: np.ndarray) -> tuple[str, ...]:
    found = []
    if posterior.interrupted:
        found.append("training was interrupted: members are where it had come to")
    finite = np.isfinite(posterior.latents).all(axis=-1)
    if not finite.all():
        found.append(f"{np.sum(~finite)} member(s) are not finite: lower learning_rate")
    rows = posterior.data.num_rows
    unfinished = np.sum(gain > GAIN_LIMIT * rows)
    if unfinished and not posterior.interrupted:
        found.append(
            f"training of {unfinished} of {len(gain)} members has not ended (a line search would gain "
            f"more than {GAIN_LIMIT} nats a row): raise steps"
        )
    functions = [s.largest for s in spreads if s.name.startswith("f at")]
    if posterior.num_draws == 1:
        found.append("1 member says nothing about uncertainty: use several")
    elif max(functions) < SAME:
        found.append(
            "members agree to a thousandth of the sd of y: they say nothing about uncertainty (a "
            "convex problem? use anchored=True, bootstrap=True, or a sampler)"
        )
    return tuple(found)
