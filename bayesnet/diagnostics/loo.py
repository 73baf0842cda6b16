"""Leave-one-out predictive densities of a sampled posterior: PSIS, and refits where it fails.

Draws of the posterior are weighted by 1 / p(y_i | draw), as if row i had not been seen; the largest
weights are replaced by quantiles of a Pareto law fitted to them, whose shape k-hat tells whether
they can be trusted (Vehtari, Gelman & Gabry 2017; Vehtari et al. 2024). Rows above the limit are
left out in earnest: the same method goes on from the posterior's chains without that row.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from bayesnet import devices
from bayesnet._errors import InputError, UnsupportedError
from bayesnet._repr import one_line
from bayesnet._types import Key, as_key
from bayesnet.data import Data
from bayesnet.diagnostics.arviz_export import row_log_likelihoods
from bayesnet.diagnostics.convergence import RHAT_LIMIT, import_arviz
from bayesnet.inference import DeepEnsemble
from bayesnet.posterior import FunctionDraws, ProcessPosterior

# k-hat beyond which PSIS is biased however many draws there are; with few draws sooner.
K_LIMIT = 0.7
FEWEST_DRAWS = 100
# Draws of hyper-parameters that should stand behind a row of an exact posterior, weights considered.
FEWEST_EFFECTIVE = 8


def k_limit(draws: int) -> float:
    """The largest k-hat that `draws` draws allow: min(1 - 1 / log10(draws), 0.7) (2024, section 3.2.4)."""
    return min(1.0 - 1.0 / float(np.log10(draws)), K_LIMIT)


@dataclass(frozen=True, eq=False)
class LeaveOneOut:
    """The expected log predictive density of new rows, by leaving each row out; prints.

    Attributes:
        rows: (n,) log density of each row given all others, noise included, in the units of y
            (for labels log probability), times the weight of the row.
        k_hat: (n,) the Pareto shape of the row's weights.
        mc_error: (n,) Monte-Carlo standard error of `rows`.
        limit: the k-hat above which a row is refitted.
        refitted: rows that were left out in earnest; theirs are densities without any weights.
        problems: one sentence for each reason not to trust the sum.
    """

    rows: np.ndarray
    k_hat: np.ndarray
    mc_error: np.ndarray
    limit: float
    refitted: tuple[int, ...]
    problems: tuple[str, ...]

    __repr__ = one_line

    @property
    def elpd(self) -> float:
        """The sum over rows."""
        return float(self.rows.sum())

    @property
    def standard_error(self) -> float:
        """Of the sum, from the spread of rows: sqrt(n var(rows))."""
        return row_sum_error(self.rows)

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against the estimate."""
        return not self.problems

    def __str__(self) -> str:
        above = int(np.sum(self.k_hat > self.limit))
        lines = [
            f"elpd {self.elpd:.2f} +- {self.standard_error:.2f} (over rows), "
            f"Monte-Carlo error {np.sqrt(np.sum(self.mc_error**2)):.2f}",
            f"k-hat above {self.limit:.2f} in {above} of {len(self.k_hat)} rows, {len(self.refitted)} "
            "of them refitted",
        ]
        return "\n".join(lines + [f"! {p}" for p in self.problems])


def row_sum_error(rows: np.ndarray) -> float:
    """The standard error of a sum of independent rows, sqrt(n var); NaN for one row."""
    if len(rows) < 2:
        return float("nan")
    return float(np.sqrt(len(rows) * rows.var(ddof=1)))


@devices.single_precision()
def loo(
    posterior: Any, *, refits: int = 10, limit: float | None = None, seed: int | Key = 0
) -> LeaveOneOut:
    """Leave-one-out densities of the training rows of `posterior`.

    Args:
        posterior: draws of a Markov chain method (`bn.fit` with HMC, NUTS, SGHMC); of an exact
            posterior the closed form is given, without refits, sampled hyper-parameters weighted.
        refits: at most so many rows, those of largest k-hat, are refitted where k-hat is above the
            limit; each costs a run of the same method, started at the posterior's chains.
        limit: the k-hat above which a row is refitted; `k_limit` of the draws (at most 0.7) if None.
            k-hat is itself an estimate (sd about 0.15 from 2,000 draws), and between 0.5 and 0.7 densities
            come out too high: by 0.1 to 0.4 nats in a row of leverage 0.47 with 1,600 independent
            draws. Give 0.5 where single rows matter.
        seed: of the refits.

    The coordinates (the scaling of `bn.fit`), like the prior, are those of the whole table: under a
    prior in scaled coordinates every row has a hand in them, and its density is not to be compared with
    that under a prior in `units="data"`. Several outputs of a row are left out together.

    Raises:
        UnsupportedError: a posterior whose draws do not follow a law (ensembles).
        InputError: fewer than 100 draws, `refits` below 0, `limit` not above 0.
    """
    if isinstance(posterior, ProcessPosterior):
        return _of_process(posterior)
    if not isinstance(posterior, FunctionDraws) or isinstance(posterior.method, DeepEnsemble):
        what = "members of an ensemble" if isinstance(posterior, FunctionDraws) else posterior
        raise UnsupportedError(
            "Leave-one-out weights are for draws of a posterior (bn.HMC, bn.NUTS, bn.SGHMC), got "
            f"{what if isinstance(what, str) else type(what).__name__}: refit it row by row instead."
        )
    if not isinstance(refits, (int, np.integer)) or refits < 0:
        raise InputError(f"refits must be a whole number, at least 0, got {refits!r}.")
    if limit is not None and not limit > 0:
        raise InputError(f"limit must be a positive number or None, got {limit!r}.")
    if posterior.num_draws < FEWEST_DRAWS:
        raise InputError(
            f"Leave-one-out needs at least {FEWEST_DRAWS} draws, the posterior has "
            f"{posterior.num_draws}."
        )
    log_lik = _densities(posterior)
    weight = _weights(posterior.data)
    limit = k_limit(posterior.num_draws) if limit is None else float(limit)
    n = log_lik.shape[-1]
    rows, k_hat, error = (np.zeros(n) for _ in range(3))
    for j in np.flatnonzero(weight > 0):
        rows[j], k_hat[j], error[j] = _smoothed(log_lik[..., j], weight[j])
    order = np.argsort(-k_hat, kind="stable")
    above = [int(i) for i in order if k_hat[i] > limit]
    problems = []
    chosen = above[:refits] if posterior.method is not None else []
    for i, key in zip(chosen, jax.random.split(as_key(seed), max(len(chosen), 1)), strict=False):
        rows[i], error[i], rhat = _refitted(posterior, i, key)
        if not rhat <= RHAT_LIMIT:
            problems.append(f"the refit without row {i} has not converged (R-hat {rhat:.2f})")
    if len(above) > len(chosen):
        problems.append(
            f"k-hat is above {limit:.2f} in {len(above) - len(chosen)} row(s) that were not refitted "
            f"(largest {k_hat[above[len(chosen)]]:.2f}): raise refits, or draw more"
        )
    return LeaveOneOut(
        weight * rows, k_hat, weight * error, limit, tuple(sorted(chosen)), tuple(problems)
    )


def _of_process(posterior: ProcessPosterior) -> LeaveOneOut:
    """The closed form; sampled hyper-parameters are weighted, whose error and effective size are known."""
    found = posterior.loo()
    none = np.zeros(len(found.rows))
    if found.effective_draws is None:
        return LeaveOneOut(found.rows, none, none, K_LIMIT, (), ())
    # The variance of weights over their mean squared, a draw: delta method.
    error = np.sqrt(np.maximum(1.0 / found.effective_draws - 1.0 / len(posterior.priors), 0.0))
    few = int(np.sum(found.effective_draws < FEWEST_EFFECTIVE))
    problems: tuple[str, ...] = ()
    if few:
        problems = (
            f"{few} row(s) rest on fewer than {FEWEST_EFFECTIVE} effective draws of the hyper-parameters "
            f"(least {found.effective_draws.min():.1f} of {len(posterior.priors)}): draw more",
        )
    return LeaveOneOut(found.rows, none, error, K_LIMIT, (), problems)


def _densities(posterior: FunctionDraws) -> np.ndarray:
    """Log density (c, s, n) of each row under each draw in the units of y, without weights."""
    rows = dataclasses.replace(posterior.data.rows, weight=None)
    plain = dataclasses.replace(posterior, data=dataclasses.replace(posterior.data, rows=rows))
    values = row_log_likelihoods(plain).astype(np.float64)
    return values - log_units(posterior.data)


def log_units(data: Data) -> np.ndarray:
    """What turns log densities of rows in scaled coordinates to the units of y, (n,): subtract it."""
    observed = ~np.isnan(data.y)
    return (observed * np.log(data.scaling.y_scale)).sum(axis=1)


def _weights(data: Data) -> np.ndarray:
    """The weight of each row (n,), 0 where nothing was observed."""
    observed = (~np.isnan(data.y)).any(axis=1)
    if data.rows.weight is None:
        return observed.astype(np.float64)
    return np.where(observed, np.asarray(data.rows.weight, np.float64)[: data.num_rows], 0.0)


def _smoothed(log_lik: np.ndarray, weight: float) -> tuple[float, float, float]:
    """Log density, k-hat and Monte-Carlo error of one row from its densities (c, s)."""
    az = import_arviz()
    relative = _relative_size(np.exp(log_lik - log_lik.max()))
    flat = log_lik.ravel()
    log_weights, k = az.psislw(-weight * flat, relative)
    value = float(logsumexp(log_weights + flat))
    # Delta method; Vehtari et al. 2024, section 3.3, with the effective size of the chains.
    ratio = np.exp(flat - value)
    variance = np.sum((np.exp(log_weights) * (ratio - 1)) ** 2) / relative
    return value, float(k), float(np.sqrt(variance))


def _relative_size(values: np.ndarray) -> float:
    """Effective over actual size of draws (c, s), at most 1."""
    size = float(import_arviz().ess(values, method="mean"))
    return float(np.clip(size / values.size, 1 / values.size, 1.0)) if np.isfinite(size) else 1.0


def _refitted(posterior: FunctionDraws, i: int, key: Key) -> tuple[float, float, float]:
    """Log density of row i without it, its Monte-Carlo error, and R-hat of the density."""
    old = posterior.data.rows
    # A row of weight 0 is absent; one program serves all rows.
    weight = jnp.ones(len(old.mask), old.y.dtype) if old.weight is None else old.weight
    rows = dataclasses.replace(old, weight=weight.at[i].set(0.0))
    data = dataclasses.replace(posterior.data, rows=rows)
    run = posterior.method.fit(posterior.prior, posterior.likelihood, data, key=key, init=posterior)
    log_lik = _densities(dataclasses.replace(run, data=posterior.data))[..., i]
    value = float(logsumexp(log_lik) - np.log(log_lik.size))
    ratio = np.exp(log_lik - value)
    error = float(ratio.std() / np.sqrt(log_lik.size * _relative_size(ratio)))
    rhat = float(import_arviz().rhat(log_lik)) if log_lik.shape[0] > 1 else 1.0
    return value, error, rhat
