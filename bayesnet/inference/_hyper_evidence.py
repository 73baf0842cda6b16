"""The evidence under sampled hyper-parameters: importance sampling around the draws.

Draws of the posterior do not tell the evidence (their mean likelihood is no estimate of it, and is too
high). A Student-t law fitted to them, with some draws of the prior so that weights stay bounded, does;
later rounds are fitted to the weighted draws before, and all rounds count (Owen & Zhou 2000).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from bayesnet.priors.evidence import FEWEST_EFFECTIVE, StudentMixture

# Draws of a round, the part of them from the prior, and rounds until the standard error is small enough.
SIZE, FROM_PRIOR, ROUNDS, SMALL = 200, 0.2, 4, 0.05

Draw = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class HyperEvidence:
    """`value`: the log evidence (nats, in the coordinates of the table); its Monte-Carlo `error`; the
    effective number of draws behind it; and what is wrong with it."""

    value: float
    error: float
    effective_size: float
    problems: list[str]


def hyper_evidence(
    log_likelihood: Callable[[np.ndarray], float],
    log_prior: Callable[[np.ndarray], float],
    draw_prior: Draw,
    points: np.ndarray,
    seed: int,
) -> HyperEvidence:
    """The log of the prior mean of a likelihood.

    Args:
        log_likelihood, log_prior: at one vector (p,); `log_prior` normalised, both minus infinity where
            there is no mass.
        draw_prior: `(rng, num)` -> draws (num, p) of the prior.
        points: draws (k, p) of the posterior, around which proposals are made.
    """
    rng = np.random.default_rng(seed)
    proposal = _fitted(points, np.full(len(points), 1.0 / len(points)))
    proposals: list[StudentMixture] = []
    drawn, joint, prior = [], [], []
    for _ in range(ROUNDS):
        proposals.append(proposal)
        few = round(FROM_PRIOR * SIZE)
        new = np.concatenate([proposal.draw(rng, SIZE - few), draw_prior(rng, few)])
        own = np.array([log_prior(v) for v in new])
        drawn.append(new)
        prior.append(own)
        joint.append(
            np.array([p + log_likelihood(v) if np.isfinite(p) else p for v, p in zip(new, own, strict=True)])
        )  # fmt: skip
        all_drawn, all_prior = np.concatenate(drawn), np.concatenate(prior)
        # The mixture of all that was drawn from, whichever round a draw is of.
        fitted = logsumexp([q.log_density(all_drawn) for q in proposals], axis=0)
        mixture = np.logaddexp(
            np.log(FROM_PRIOR) + all_prior,
            np.log1p(-FROM_PRIOR) + fitted - np.log(len(proposals)),
        )
        log_weight = np.concatenate(joint) - mixture
        found = _average(log_weight)
        if found.error < SMALL:
            break
        proposal = _fitted(all_drawn, np.exp(log_weight - logsumexp(log_weight)))
    return found


def _average(log_weight: np.ndarray) -> HyperEvidence:
    num = len(log_weight)
    weight = np.exp(log_weight - log_weight.max())
    size = float(weight.sum() ** 2 / (weight**2).sum())
    error = float(weight.std(ddof=1) / weight.mean() / np.sqrt(num))
    problems = []
    if size < FEWEST_EFFECTIVE:
        problems.append(
            f"the log evidence rests on {size:.0f} effective draws of {num} hyper-parameters: neither it "
            "nor its standard error should be trusted"
        )
    return HyperEvidence(float(logsumexp(log_weight) - np.log(num)), error, size, problems)


def _fitted(points: np.ndarray, weight: np.ndarray) -> StudentMixture:
    """A Student-t law with the mean and covariance of weighted points."""
    mean = weight @ points
    centred = points - mean
    # Few points span few directions: none is narrower than a share of their sd in each coordinate.
    spread = np.sqrt(weight @ centred**2) + 1e-6
    scaled = centred / spread
    values, vectors = np.linalg.eigh((weight[:, None] * scaled).T @ scaled)
    return StudentMixture([mean], [spread[:, None] * vectors * np.sqrt(np.maximum(values, 0.02))])
