"""Draws of hyper-parameters weighted by their exact evidence: adaptive importance sampling.

The first draws come from what a network proposes. Around the better of these, by tempered
weights, a second proposal is made, which may be narrower and correlated (population Monte Carlo:
Cappe et al. 2004), and further ones around the better of all draws so far, until enough are
effective. All are weighted against the mixture of all proposals (the balance heuristic of Veach &
Guibas 1995, again after every round: adaptive multiple importance sampling, Cornuet et al. 2012),
so that no draw has more weight than any of them alone would give it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit, log_expit, logsumexp, ndtri
from scipy.stats import qmc

from bayesnet._types import Bool, Float
from bayesnet.pfn.family import ProcessFamily
from bayesnet.pfn.inputs import log_prob_relevant

# The network's sds are multiplied by this: weights stay bounded where it is too narrow.
WIDER = 1.2
# Components of the second proposal, their sd as a share of the spread of the weighted draws, and the
# least sd as a share of the network's.
CENTRES, NARROWER, FLOOR = 16, 0.7, 0.15
# A proposal is made around draws by their weights, tempered to this effective number of them, at most
# this share of all: with more draws proposals draw nearer to the posterior.
AROUND, SHARE = 10.0, 0.25
# Columns keep at least this probability of having, and of not having, an effect.
DOUBT = 0.05
# The most rounds of draws.
ROUNDS = 16
# How far points of the unit cube stay off its faces: what lies beyond has a normal quantile of 6.4.
EDGE = 1e-10
# Draws of less than this share of all weight are left out of a posterior.
NEGLIGIBLE = 1e-8
_HALF_LOG_2PI = 0.5 * float(np.log(2 * np.pi))


@dataclass(frozen=True, eq=False)
class HyperProposal:
    """A mixture of independent Gaussians over latents, and log odds that columns have an effect.

    `log_share` (c,), `mean` (c, k), `std` (c, k); `log_odds` (d,), None where all columns have one.
    """

    log_share: Float[np.ndarray, " c"]
    mean: Float[np.ndarray, "c k"]
    std: Float[np.ndarray, "c k"]
    log_odds: Float[np.ndarray, " d"] | None

    def draw(self, num: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Latents (s, k) and columns with an effect (s, d): points that fill the law evenly.

        Components have the shares that `as_drawn` gives them."""
        k = self.mean.shape[1]
        points = _net(num, k + d + 1, seed)
        component = systematic(np.exp(self.log_share), num, points[:, -1])
        z = self.mean[component] + self.std[component] * ndtri(points[:, :k])
        relevant = np.ones((num, d), bool)
        if self.log_odds is not None:
            relevant = points[:, k : k + d] < expit(self.log_odds)
            # No function is of no column at all: then it is of the likeliest.
            relevant[:, int(np.argmax(self.log_odds))] |= ~relevant.any(axis=1)
        return z, relevant

    def as_drawn(self, num: int) -> HyperProposal:
        """The law of `num` draws: components have whole numbers of them."""
        chosen = systematic(np.exp(self.log_share), num)
        counts = np.bincount(chosen, minlength=len(self.log_share))
        with np.errstate(divide="ignore"):
            return replace(self, log_share=np.log(counts / num))

    def log_prob(
        self, z: Float[np.ndarray, "s k"], relevant: np.ndarray, counted: np.ndarray
    ) -> Float[np.ndarray, " s"]:
        """Log density of draws in the latents that are `counted` (s, k)."""
        e = (z[:, None] - self.mean) / self.std
        each = -0.5 * e**2 - np.log(self.std) - _HALF_LOG_2PI
        gaussian = np.where(counted[:, None], each, 0.0).sum(axis=-1)
        total: np.ndarray = logsumexp(gaussian + self.log_share, axis=1)
        if self.log_odds is not None:
            columns = log_expit(np.where(relevant, self.log_odds, -self.log_odds)).sum(axis=1)
            # The likeliest column alone stands for no column, too.
            alone = relevant.sum(axis=1) == 1
            alone &= relevant[:, int(np.argmax(self.log_odds))]
            none = log_expit(-self.log_odds).sum()
            total = total + np.where(alone, np.logaddexp(columns, none), columns)
        return total


@dataclass(frozen=True, eq=False)
class Weighted:
    """Draws for one kind of process: latents (s, k), columns with an effect (s, d), log weights (s,)
    whose sum over draws estimates the evidence of the table under this kind."""

    z: np.ndarray
    relevant: np.ndarray
    log_weight: np.ndarray


def weigh(
    family: ProcessFamily,
    part: int,
    d: int,
    first: HyperProposal,
    evidence: Callable[[np.ndarray, np.ndarray], np.ndarray],
    draws: int,
    *,
    enough: float = 32.0,
    rounds: int = ROUNDS,
) -> Weighted:
    """Rounds of `draws` / 2 draws; `evidence(z, relevant)` is the log evidence of each.

    Two rounds, and more, at most `rounds`, until `enough` draws are effective.
    """
    num = draws // 2
    proposals, counts = [first.as_drawn(num)], [num]
    z, relevant = first.draw(num, d, seed=0)
    known = evidence(z, relevant)
    while True:
        counted = _counted(family, part, d, relevant)
        log_prior = _log_prior(family, z, relevant, counted)
        shares = np.log(np.array(counts) / len(z))
        each = [p.log_prob(z, relevant, counted) for p in proposals]
        mixed = logsumexp(np.stack(each) + shares[:, None], axis=0)
        log_weight = known + log_prior - mixed
        done = len(proposals) >= 2 and effective_size(log_weight) >= enough
        if done or len(proposals) == rounds:
            return Weighted(z, relevant, log_weight - np.log(len(z)))
        more = adapted(first, z, relevant, log_weight)
        counts.append(num if len(proposals) > 1 else draws - num)
        z_more, relevant_more = more.draw(counts[-1], d, seed=len(proposals))
        proposals.append(more.as_drawn(counts[-1]))
        known = np.concatenate([known, evidence(z_more, relevant_more)])
        z, relevant = np.concatenate([z, z_more]), np.concatenate([relevant, relevant_more])


def standard_error(parts: list[np.ndarray]) -> float:
    """The standard error of the log of the sum of all weights, whose sum is 1 here; one array for each
    independent set of draws (delta method; draws that fill a law evenly do better than this)."""
    return float(np.sqrt(sum(len(w) * np.var(w, ddof=1) for w in parts)))


def effective_size(log_weight: Float[np.ndarray, " s"]) -> float:
    """`(sum w)^2 / sum w^2`; 0 where no draw has any weight."""
    top = np.max(log_weight)
    if not np.isfinite(top):
        return 0.0
    weight = np.exp(log_weight - top)
    return float(weight.sum() ** 2 / np.sum(weight**2))


def adapted(
    first: HyperProposal, z: np.ndarray, relevant: np.ndarray, log_weight: np.ndarray
) -> HyperProposal:
    """A proposal around the draws so far that have large weights."""
    weight = tempered(log_weight, min(SHARE, AROUND / len(z)))
    centre = weight @ z
    spread = np.sqrt(weight @ (z - centre) ** 2)
    usual = np.sqrt(np.exp(first.log_share) @ first.std**2)
    std = np.maximum(NARROWER * spread, FLOOR * usual)
    chosen = systematic(weight, CENTRES)
    odds = first.log_odds
    if odds is not None:
        share = np.clip(weight @ relevant, DOUBT, 1 - DOUBT)
        odds = np.log(share) - np.log1p(-share)
    return HyperProposal(
        np.full(CENTRES, -np.log(CENTRES)), z[chosen], np.tile(std, (CENTRES, 1)), odds
    )


def thinned(weights: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `num` of weighted draws: their indices, the heaviest first, and weights with sum 1.

    Weights above a threshold c are kept; of the others as many as have place are chosen evenly, each
    with weight c, so that means keep their expectation (Fearnhead & Clifford 2003, section 3). Draws of
    next to no weight are left out.
    """
    weights = weights / weights.sum()
    index = np.flatnonzero(weights > NEGLIGIBLE)
    kept = weights[index]
    if len(index) > num:
        order = np.argsort(-kept, kind="stable")
        index, kept = index[order], kept[order]
        # The fewest of the heaviest that outweigh an even share of what is left for the others.
        rest = kept.sum() - np.concatenate([[0.0], np.cumsum(kept)])
        large = next(i for i in range(num) if kept[i] * (num - i) < rest[i] * (1 + 1e-12))
        few = num - large
        # In the order of the draws, so that all kinds of processes and rounds keep their shares.
        others = large + np.argsort(index[large:])
        chosen = others[systematic(kept[others] / rest[large], few)]
        index = np.concatenate([index[:large], index[chosen]])
        kept = np.concatenate([kept[:large], np.full(few, rest[large] / few)])
    order = np.argsort(-kept, kind="stable")
    return index[order], kept[order] / kept.sum()


def tempered(log_weight: np.ndarray, share: float) -> np.ndarray:
    """Weights to the largest power up to 1 at which their effective number is `share` of all."""
    # Draws whose covariance could not be factorised have no weight at any power.
    top = np.max(log_weight)
    if not np.isfinite(top):
        return np.full(len(log_weight), 1.0 / len(log_weight))
    low, high = 0.0, 1.0
    power = 1.0
    for _ in range(30):
        weight = np.exp(power * np.maximum(log_weight - top, -1e6))
        weight /= weight.sum()
        enough = 1.0 / np.sum(weight**2) >= share * len(weight)
        if enough and power == 1.0:
            break
        low, high = (power, high) if enough else (low, power)
        power = 0.5 * (low + high)
    return weight


def _counted(
    family: ProcessFamily, part: int, d: int, relevant: Bool[np.ndarray, "s d"]
) -> Bool[np.ndarray, "s k"]:
    """The latents that matter: not the lengthscales of columns without effect."""
    column = family.column_of_slot()
    wide = np.zeros((len(relevant), family.max_dim), bool)
    wide[:, :d] = relevant
    return family.slots(part, d) & ((column < 0) | wide[:, column])


def _log_prior(
    family: ProcessFamily, z: np.ndarray, relevant: np.ndarray, counted: np.ndarray
) -> Float[np.ndarray, " s"]:
    total: np.ndarray = np.where(counted, -0.5 * z**2 - _HALF_LOG_2PI, 0.0).sum(axis=1)
    return total + log_prob_relevant(relevant, family.unused)


def _net(num: int, size: int, seed: int) -> Float[np.ndarray, "s k"]:
    """Points of the unit cube that fill it evenly, always the same, away from its faces."""
    points = qmc.Sobol(size, seed=seed).random(1 << (num - 1).bit_length())[:num]
    return np.clip(points, EDGE, 1 - EDGE)


def systematic(weights: np.ndarray, num: int, order: np.ndarray | None = None) -> np.ndarray:
    """`num` indices, each as often as its weight (to within one), sorted or in an order."""
    places = (np.arange(num) + 0.5) / num
    index = np.minimum(np.searchsorted(np.cumsum(weights), places), len(weights) - 1)
    return index if order is None else index[np.argsort(np.argsort(order))]
