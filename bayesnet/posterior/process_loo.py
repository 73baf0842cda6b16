"""Leave-one-out predictions of an exact posterior, from the factors of the whole table.

Given the scale, the residual of row i given all others is normal with mean `r_i - a_i / c_i` and
variance `1 / c_i`, `a = C^-1 r`, `c = diag(C^-1)` (Rasmussen & Williams 2006, eq. 5.12). The scale
and sampled hyper-parameters are reweighted by 1 / p(y_i | others, node); under a Student-t
process the law of the scale given the others is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from bayesnet._errors import UnsupportedError
from bayesnet._repr import one_line
from bayesnet.priors.process_blocks import LOG_2PI, RANK_TOLERANCE
from bayesnet.priors.process_solution import Solution, student_t_log_evidence

if TYPE_CHECKING:
    from bayesnet.posterior.process import ProcessPosterior


@dataclass(frozen=True, eq=False)
class ProcessLeaveOneOut:
    """Each row given all others, noise included, in the units of y.

    Fields: `mean`, `std` (n, m), NaN where the target is missing; `rows` (n,): the log density of
    the row's targets together. As of predictions, a `std` may be infinite and a `mean` NaN where a
    random scale leaves them so: all outputs of a row that share the scale are left out with it.
    """

    mean: np.ndarray
    std: np.ndarray
    rows: np.ndarray

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
    rows = np.log(len(logs)) - logsumexp(-stacked, axis=0)
    weight = np.exp(rows - stacked - np.log(len(logs)))[:, :, None]
    mean = np.sum(weight * np.stack(means), axis=0)
    second = np.sum(weight * (np.stack(variances) + (np.stack(means) - mean) ** 2), axis=0)
    scale = posterior.scaling.y_scale
    units = ~np.isnan(posterior.y) @ np.log(scale)
    return ProcessLeaveOneOut(posterior.scaling.y_out(mean), np.sqrt(second) * scale, rows - units)


def _member(solution: Solution, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residual mean, variance (n, m) and log density (n,) of each row left out."""
    n, m = y.shape
    j = len(solution.u)
    alpha, inverse = np.full((j, n, m), np.nan), np.full((j, n, m), np.nan)
    residual = np.full((n, m), np.nan)
    for block in solution.blocks:
        for i, column in enumerate(block.columns):
            s = np.exp(solution.u[:, solution.group(column)])
            alpha[:, block.rows, column] = block.solved(s)[:, :, i]
            inverse[:, block.rows, column] = block.inverse_diagonal(s)
            residual[block.rows, column] = block.residual[:, i]
    if solution.df is not None:
        return _student_t(solution, residual, alpha[0], inverse[0])
    per_node = residual - alpha / inverse
    scale = np.ones((j, 1, m))
    if all(b.eigenvalues is None for b in solution.blocks):
        scale = np.exp(np.broadcast_to(solution.u, (j, m)))[:, None, :]
    variance = scale / inverse
    terms = -0.5 * (LOG_2PI + np.log(variance) + (residual - per_node) ** 2 / variance)
    terms = np.where(np.isnan(terms), 0.0, terms)
    groups = terms.sum(axis=2, keepdims=True) if solution.u.shape[1] == 1 else terms
    prior = solution.log_weight[:, None, :]
    log_prob = -logsumexp(prior - groups, axis=0)  # (n, g)
    weight = np.exp(prior - groups + log_prob)
    weight = np.broadcast_to(weight, (j, n, m))
    mean = np.sum(weight * per_node, axis=0)
    spread = np.sum(weight * (variance + (per_node - mean) ** 2), axis=0)
    tail = solution.tail - 0.5 * _lost_rank(solution, n)
    mean = np.where(np.isnan(residual) | (tail > 0.5), mean, np.nan)
    return mean, np.where(np.isnan(residual) | (tail > 1.0), spread, np.inf), log_prob.sum(axis=1)


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
