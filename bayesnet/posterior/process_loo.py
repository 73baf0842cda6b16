"""Leave-one-out predictions of an exact posterior, from the factors of the whole table.

Given the scale, the residual of row i given all others is normal with mean `r_i - a_i / c_i` and
variance `1 / c_i`, `a = C^-1 r`, `c = diag(C^-1)` (Rasmussen & Williams 2006, eq. 5.12). The scale
and sampled hyper-parameters are reweighted by 1 / p(y_i | others, node); under a Student-t
process the law of the scale given the others is known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from bayesnet._errors import UnsupportedError
from bayesnet._repr import one_line
from bayesnet.priors.process_blocks import LOG_2PI, RANK_TOLERANCE, Block, make_blocks
from bayesnet.priors.process_solution import Solution, student_t_log_evidence
from bayesnet.priors.scale_quadrature import scale_nodes
from bayesnet.priors.variance_laws import log_density_of

if TYPE_CHECKING:
    from bayesnet.posterior.process import ProcessPosterior

# A tail of the scale for which a variance is finite and nodes made for another law are too short; and
# tables that are so small, which alone have such tails (half a row each), get nodes of their own.
NEAR_INFINITE, FEW_ROWS = 2.0, 12


@dataclass(frozen=True, eq=False)
class ProcessLeaveOneOut:
    """Each row given all others, noise included, in the units of y.

    Fields: `mean`, `std` (n, m), NaN where the target is missing; `rows` (n,): the log density of
    the row's targets together. As of predictions, a `std` may be infinite and a `mean` NaN where a
    random scale leaves them so: all outputs of a row that share the scale are left out with it.
    `effective_draws` (n,): of sampled hyper-parameters how many stand behind a row, which reweights them
    as if it had not been seen; None where there are not several.
    """

    mean: np.ndarray
    std: np.ndarray
    rows: np.ndarray
    effective_draws: np.ndarray | None = None

    __repr__ = one_line

    @property
    def elpd(self) -> float:
        """The sum of `rows`: the expected log predictive density of the table."""
        return float(self.rows.sum())


def leave_one_out(posterior: ProcessPosterior) -> ProcessLeaveOneOut:
    """See `ProcessPosterior.loo`. Raises `UnsupportedError` for weighted rows."""
    if posterior.weight is not None:
        raise UnsupportedError("Leave-one-out in closed form is for rows without sample_weight.")
    priors = [_member(model_solution[1], posterior.y) for model_solution in posterior._solved]
    means, variances, logs = [], [], []
    for (model, _), (mean, variance, log_prob) in zip(posterior._solved, priors, strict=True):
        offset = model.mean(np.zeros(0), posterior.x)
        means.append(mean + offset)
        variances.append(variance)
        logs.append(log_prob)
    stacked = np.stack(logs)  # (k, n)
    # 1 / p(y_i | y_-i) is the posterior mean of 1 / p(y_i | y_-i, node).
    terms = posterior.log_shares[:, None] - stacked
    rows = -logsumexp(terms, axis=0)
    share = np.exp(rows + terms)
    weight = share[:, :, None]
    mean = np.sum(weight * np.stack(means), axis=0)
    second = np.sum(weight * (np.stack(variances) + (np.stack(means) - mean) ** 2), axis=0)
    scale = posterior.scaling.y_scale
    units = ~np.isnan(posterior.y) @ np.log(scale)
    effective = None if len(logs) == 1 else 1.0 / np.sum(share**2, axis=0)
    return ProcessLeaveOneOut(
        posterior.scaling.y_out(mean), np.sqrt(second) * scale, rows - units, effective
    )


def _member(solution: Solution, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residual mean, variance (n, m) and log density (n,) of each row left out."""
    n, m = y.shape
    if solution.df is not None:
        return _student_t(solution, *_solved(solution, (n, m), solution.u))
    residual, per_node, variance, terms = _given_scale(solution, (n, m), solution.u)
    prior = solution.log_weight[:, None, :]
    log_prob = -logsumexp(prior - terms, axis=0)  # (n, g)
    weight = np.exp(prior - terms + log_prob)
    mean, spread = _mixed(weight, per_node, variance)
    tail = np.broadcast_to(solution.tail - 0.5 * _lost_rank(solution, n), log_prob.shape)
    if n <= FEW_ROWS:
        # The nodes are those of all rows: what they leave out beyond the last may count without one.
        for row, group in np.argwhere((tail > 1.0) & (tail < NEAR_INFINITE)):
            own = [c for c in range(m) if solution.group(c) == group]
            found = _anew(solution, (n, m), int(row), int(group), float(tail[row, group]))
            mean[row, own], spread[row, own] = (a[row, own] for a in found)
    missing = np.isnan(residual)
    mean = np.where(missing | (tail > 0.5), mean, np.nan)
    return mean, np.where(missing | (tail > 1.0), spread, np.inf), log_prob.sum(axis=1)


def _solved(
    solution: Solution, shape: tuple[int, int], u: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residuals (n, m), and `C^-1 r` and the diagonal of `C^-1` (j, n, m) at log scales u (j, g); with
    the noise inside those of s = 1."""
    alpha, inverse = np.full((len(u), *shape), np.nan), np.full((len(u), *shape), np.nan)
    residual = np.full(shape, np.nan)
    for block in solution.blocks:
        for i, column in enumerate(block.columns):
            s = np.exp(u[:, solution.group(column)])
            alpha[:, block.rows, column] = block.solved(s)[:, :, i]
            inverse[:, block.rows, column] = block.inverse_diagonal(s)
            residual[block.rows, column] = block.residual[:, i]
    if solution.df is not None:
        return residual, alpha[0], inverse[0]
    return residual, alpha, inverse


def _given_scale(
    solution: Solution, shape: tuple[int, int], u: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Residuals (n, m); given the scale the mean and variance (j, n, m) of each row without it, and the
    log density (j, n, g) of its targets that share a scale."""
    residual, alpha, inverse = _solved(solution, shape, u)
    mean = residual - alpha / inverse
    variance = 1.0 / inverse
    if all(b.eigenvalues is None for b in solution.blocks):
        variance = np.exp(np.broadcast_to(u, (len(u), shape[1])))[:, None, :] / inverse
    terms = -0.5 * (LOG_2PI + np.log(variance) + (residual - mean) ** 2 / variance)
    terms = np.where(np.isnan(terms), 0.0, terms)
    if solution.u.shape[1] == 1:
        terms = terms.sum(axis=2, keepdims=True)
    return residual, mean, variance, terms


def _mixed(
    weight: np.ndarray, means: np.ndarray, variances: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (n, m) of a mixture with weights (j, n or 1, g)."""
    weight = np.broadcast_to(weight, means.shape)
    mean = np.sum(weight * means, axis=0)
    return mean, np.sum(weight * (variances + (means - mean) ** 2), axis=0)


def _anew(
    solution: Solution, shape: tuple[int, int], row: int, group: int, tail: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (n, m) with nodes for the law of a scale without one row."""

    def everywhere(u: np.ndarray) -> np.ndarray:
        return np.repeat(u[:, None], solution.u.shape[1], axis=1)

    rest = [_without(b, row) for b in solution.blocks if len(b.rows) > 1 or b.rows[0] != row]

    def log_joint(u: np.ndarray) -> np.ndarray:
        total = log_density_of(solution.scale.law, u)
        for block in rest:
            own = [i for i, c in enumerate(block.columns) if solution.group(c) == group]
            total = total + block.log_likelihood(u)[:, own].sum(axis=1)
        return total

    nodes = scale_nodes(log_joint, solution.scale.tolerance, tail)
    _, means, variances, _ = _given_scale(solution, shape, everywhere(nodes.u))
    return _mixed(np.exp(nodes.log_weight)[:, None, None], means, variances)


def _without(block: Block, row: int) -> Block:
    """A block factorised again, without one of its rows (it has others)."""
    keep = block.rows != row
    if keep.all():
        return block
    if block.eigenvalues is None:
        matrix = block.factor @ block.factor.T - np.diag(block.noise)
    else:
        root = np.sqrt(block.noise)[:, None] * block.factor
        matrix = (root * block.eigenvalues) @ root.T
    noise = np.repeat(block.noise[keep][:, None], len(block.columns), axis=1)
    outside = block.eigenvalues is not None
    (made,) = make_blocks(matrix[np.ix_(keep, keep)], noise, block.residual[keep], outside)
    return replace(made, columns=block.columns, rows=block.rows[keep])


def _lost_rank(solution: Solution, n: int) -> np.ndarray:
    """By how much the directions on which each scale acts become fewer without a row, (n, g).

    Those of all outputs that share the scale: its tail falls by half of them.
    """
    lost = np.zeros((n, solution.u.shape[1]))
    for block in solution.blocks:
        own = np.ones(len(block.rows))
        if block.eigenvalues is not None:
            # A row that others determine (equal rows, few features) takes no direction with it.
            inside = block.eigenvalues > RANK_TOLERANCE * max(block.eigenvalues.max(), 1e-300)
            own = np.sum(block.factor[:, inside] ** 2, axis=1) > 1.0 - 1e-8
        for column in block.columns:
            lost[block.rows, solution.group(column)] += own
    return lost


def _student_t(
    solution: Solution, residual: np.ndarray, alpha: np.ndarray, inverse: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    law = solution.scale.law
    mean = residual - alpha / inverse
    seen = ~np.isnan(residual)
    drop = np.where(seen, alpha**2 / np.where(seen, inverse, 1.0), 0.0)
    log_inverse = np.where(seen, np.log(np.where(seen, inverse, 1.0)), 0.0)
    n, m = residual.shape
    shape, rate = np.empty((n, m)), np.empty((n, m))
    log_prob = np.zeros(n)
    for g in range(solution.u.shape[1]):
        own = slice(None) if solution.u.shape[1] == 1 else slice(g, g + 1)
        count = float(seen[:, own].sum())
        quadratic = float(np.nansum((residual * alpha)[:, own]))
        left_count = count - seen[:, own].sum(axis=1)
        left_quadratic = quadratic - drop[:, own].sum(axis=1)
        # log det of the table without the row: log det C + log c_i; log det C cancels.
        without = student_t_log_evidence(
            law, left_count, left_quadratic, log_inverse[:, own].sum(axis=1)
        )
        log_prob += student_t_log_evidence(law, count, quadratic, 0.0) - without
        shape[:, own] = (law.a + 0.5 * left_count)[:, None]
        rate[:, own] = (law.b + 0.5 * left_quadratic)[:, None]
    finite = shape > 1.0
    variance = np.where(finite, rate / np.where(finite, shape - 1.0, 1.0), np.inf) / inverse
    return np.where(shape > 0.5, mean, np.nan), variance, log_prob
