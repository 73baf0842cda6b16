"""Whether the chains behind a proposal can be trusted, and what is done until they can.

Short chains that go on from the last step are often caught by a new point: one of them stays behind, or
its step size was tuned elsewhere. What a proposal is made of are function values, so those at the
tried points are judged, and chains run on until they agree or a bound is reached.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bayesnet.diagnostics.convergence import MIN_DRAWS, chain_statistics
from bayesnet.inference import DeepEnsemble
from bayesnet.posterior import FunctionDraws

# Chains are run on while the rank-normalised split R-hat of some function value at a tried point is
# above the first, or its bulk effective sample size below the second; so many times at most.
RHAT_LIMIT = 1.1
ESS_LIMIT = 50.0
MOST_RUNS = 4
# Which of these runs warms up anew, mass and all: running on has not helped until then.
ANEW = 3
# A chain that accepts less often than this is stuck, and its step size is tuned again.
STUCK = 0.3

# From a posterior, with another warm-up ("none", "short" or "full"), in run number k.
Again = Callable[[FunctionDraws, str, int], FunctionDraws]


@dataclass(frozen=True)
class Check:
    """What the draws say of themselves.

    `rhat` is the worst and `ess` the least over the function values at the tried points;
    `divergences` counts draws, of `draws` over all chains.
    """

    rhat: float
    ess: float
    divergences: int
    draws: int

    @property
    def badness(self) -> float:
        """At most 1 where both limits are kept; the larger the worse."""
        worst = max(self.rhat / RHAT_LIMIT, ESS_LIMIT / max(self.ess, 1e-9))
        return worst if np.isfinite(worst) else np.inf


@dataclass(frozen=True, eq=False)
class _Piece:
    """One run of the chains, and its function values at the tried points (c, s, n)."""

    posterior: FunctionDraws
    values: np.ndarray

    @staticmethod
    def of(posterior: FunctionDraws) -> _Piece:
        chains, draws = posterior.latents.shape[:2]
        values = posterior.scaled_functions(posterior.data.x)[..., : posterior.data.out_dim]
        return _Piece(posterior, values.reshape(chains, draws, -1))

    @staticmethod
    def joined(pieces: list[_Piece]) -> _Piece:
        """Runs that followed each other, as one."""
        posteriors = [piece.posterior for piece in pieces]
        last = posteriors[-1]
        joined = replace(
            last,
            latents=np.concatenate([p.latents for p in posteriors], axis=1),
            stats={
                name: np.concatenate([p.stats[name] for p in posteriors], axis=1)
                for name in last.stats
            },
            method=posteriors[0].method,
            seconds={k: sum(p.seconds.get(k, 0.0) for p in posteriors) for k in last.seconds},
        )
        return _Piece(joined, np.concatenate([piece.values for piece in pieces], axis=1))

    def check(self) -> Check:
        rhat, ess, _ = chain_statistics(self.values)
        divergent = self.posterior.stats.get("divergent", np.zeros(1))
        return Check(
            float(rhat.max()),
            float(ess.min()),
            int((divergent > 0).sum()),
            self.posterior.num_draws,
        )


def settled(first: FunctionDraws, again: Again) -> tuple[FunctionDraws, Check | None, int]:
    """Draws that keep the limits, or the best that were had; what they say; the runs it took.

    Chains go on from where they are, and their draws are put together, the oldest left out where that
    is better; chains that are stuck have their step size tuned first. Run `ANEW` warms up from the start.
    None and 0 for what are no chains (ensembles), too few draws to judge, or none to go on from.
    """
    if isinstance(first.method, DeepEnsemble) or first.latents.shape[1] < MIN_DRAWS:
        return first, None, 0
    pieces = [_Piece.of(first)]
    best, check = pieces[0], pieces[0].check()
    runs = 0
    while check.badness > 1 and runs < MOST_RUNS and first.states:
        runs += 1
        last = pieces[-1].posterior
        if last.interrupted:
            break
        how = "full" if runs == ANEW else "short" if is_stuck(last) else "none"
        new = _Piece.of(again(last, how, runs))
        pieces = [*pieces, new] if how == "none" else [new]
        for start in range(len(pieces)):
            window = _Piece.joined(pieces[start:])
            found = window.check()
            if found.badness < check.badness:
                best, check = window, found
            if check.badness <= 1:
                break
    # Whatever was kept, the next step goes on from where the chains are.
    kept = replace(best.posterior, states=pieces[-1].posterior.states) if runs else first
    return kept, check, runs


def is_stuck(posterior: Any) -> bool:
    """Whether some chain hardly moved (never, for methods that have no acceptance rate)."""
    rates = posterior.stats.get("acceptance_rate")
    return rates is not None and bool((np.mean(rates, axis=1) < STUCK).any())
