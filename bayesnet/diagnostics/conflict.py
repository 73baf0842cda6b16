"""Prior-data conflict: are the data unlikely under what the prior can draw?

Tables are drawn from the prior predictive law at the very inputs, and a few statistics of the
observed table are placed among theirs (Box 1980; Evans & Moshonov 2006). A small p-value says that
prior and likelihood together hardly ever make such data, and how they differ.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg
from scipy.spatial import cKDTree

from bayesnet import devices
from bayesnet._columns import names_at_fit
from bayesnet._errors import InputError
from bayesnet._types import ArrayLike, Key, as_key
from bayesnet.data import Data, Scaling, check_table, make_data
from bayesnet.likelihoods import resolve_likelihood
from bayesnet.likelihoods.labels import LabelLaw
from bayesnet.posterior.prediction import generator
from bayesnet.priors import FunctionPrior

# Rows that the joint density looks at: its covariance is estimated from half of the draws.
DENSITY_ROWS = 100
MEANING = {
    "mean of y": ("above what the prior draws", "below what the prior draws"),
    "sd of y": ("larger: raise the amplitude or the noise", "smaller: lower the amplitude or the noise"),
    "roughness": (
        "rougher between neighbours: shorter lengthscales, or more noise",
        "smoother between neighbours: longer lengthscales, or less noise",
    ),
    "largest deviation": ("more extreme: heavier tails (noise or process)", "less extreme: lighter tails"),
    "joint density": ("more typical than tables of the prior are", "as a whole far out of what the prior draws"),
    "largest class": ("more one-sided: a larger amplitude of the logits", "more balanced: a smaller amplitude"),
}  # fmt: skip


@dataclass(frozen=True)
class Check:
    """One statistic: its observed value, the central 90 % of the prior's tables, and the p-value.

    `side` is 1 where the observed value is in the upper half of the prior's, else -1.
    """

    name: str
    observed: float
    low: float
    high: float
    p_value: float
    side: int


@dataclass(frozen=True)
class PriorDataConflict:
    """The checks; prints as a table. `problems` says in words which p-values are below
    `level` divided by the number of checks (Bonferroni), `ok` that none is."""

    checks: tuple[Check, ...]
    draws: int
    level: float

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence for each statistic that the prior hardly ever draws."""
        found = []
        for c in self.checks:
            if c.p_value < self.level / len(self.checks):
                key = c.name.split(" (")[0]
                found.append(
                    f"{c.name} is {c.observed:.3g}, the prior draws {c.low:.3g} to {c.high:.3g} (central "
                    f"90 %), p = {c.p_value:.2g}: the data are {MEANING[key][0 if c.side > 0 else 1]}"
                )
        return tuple(found)

    @property
    def ok(self) -> bool:
        """Whether the data look like tables that the prior draws."""
        return not self.problems

    def __getitem__(self, name: str) -> Check:
        for check in self.checks:
            if check.name == name:
                return check
        raise InputError(f"No check {name!r}; there are {', '.join(c.name for c in self.checks)}.")

    def __str__(self) -> str:
        lines = [
            f"{self.draws} tables drawn from the prior, in its coordinates",
            f"{'statistic':<26}{'observed':>10}{'5 %':>10}{'95 %':>10}{'p':>8}",
        ]
        lines += [
            f"{c.name:<26}{c.observed:>10.3g}{c.low:>10.3g}{c.high:>10.3g}{c.p_value:>8.3f}"
            for c in self.checks
        ]
        lines += [f"! {p}" for p in self.problems] or ["nothing speaks against the prior"]
        return "\n".join(lines)


@devices.single_precision()
def prior_data_conflict(
    prior: Any,
    X: ArrayLike,
    y: ArrayLike,
    likelihood: Any = None,
    *,
    num_draws: int = 1000,
    level: float = 0.05,
    seed: int | Key = 0,
) -> PriorDataConflict:
    """Where the data are unlikely under a prior and a likelihood, before any inference.

    Args:
        prior: any object with `sample(key, x, num_samples)`: a network prior, a process, statements.
        X, y: the table, n x d and n or n x m (or labels), in the user's units.
        likelihood: as for `bn.fit`.
        num_draws: tables drawn from the prior predictive law.
        level: p-values below `level` over the number of checks are called a conflict.
        seed: of the draws.

    Two-sided p-values of the mean and sd of y, of its roughness (root mean square difference of
    nearest neighbours, over sqrt(2) sd) and of its largest deviation in sds, one an output; and the
    one-sided one of the joint density of (up to 100) rows under a Gaussian with mean and covariance of half
    of the draws, compared with the other half. For labels: the share of the largest class, and
    that of rows whose nearest neighbour has another label ("roughness").

    A prior in scaled coordinates meets y at mean 0 and sd 1, whatever its units: part of the
    prior was chosen by looking at the data, and the check of the mean says nothing then.

    Raises:
        InputError: a prior that cannot be sampled or has other outputs than the likelihood asks for;
            unusable data; fewer than 4 rows or 100 draws.
    """
    if not isinstance(prior, FunctionPrior):
        raise InputError(
            f"prior must have sample(key, x, num_samples), got {type(prior).__name__}: for a bare network "
            "state its weights, bn.NetworkPrior(network, in_dim=...)."
        )
    if not 0 < level < 1:
        raise InputError(f"level must lie strictly between 0 and 1, got {level}.")
    if int(num_draws) != num_draws or num_draws < 100:
        raise InputError(f"num_draws must be a whole number of at least 100, got {num_draws}.")
    likelihood, data = _table(prior, X, y, resolve_likelihood(likelihood))
    if data.num_rows < 4:
        raise InputError(f"The check compares rows and needs at least 4, got {data.num_rows}.")
    if hasattr(prior, "with_scaling"):
        prior = prior.with_scaling(data.scaling, getattr(prior, "units", "scaled"))
    law = _predictive(prior, likelihood, data, int(num_draws), as_key(seed))
    neighbour = cKDTree(data.x).query(data.x, k=2)[1]
    # Of equal rows the first hit may be the row itself or not.
    own = neighbour[:, 0] == np.arange(len(neighbour))
    neighbour = np.where(own, neighbour[:, 1], neighbour[:, 0])
    rng = generator(jax.random.fold_in(as_key(seed), 2))
    if isinstance(law, LabelLaw):
        codes = law.sample(rng, np.ix_(*(np.arange(k) for k in law.clean.shape[:2])))
        checks = _label_checks(codes, data.y[:, 0].astype(int), neighbour)
    else:
        everything = np.ix_(*(np.arange(k) for k in law.location.shape))
        drawn = law.sample(rng, everything)
        checks = _checks(drawn, data.y.astype(np.float64), neighbour)
        if not law.discrete:
            checks.append(_density_check(law, drawn, data.y.astype(np.float64)))
    return PriorDataConflict(tuple(checks), int(num_draws), float(level))


def _table(prior: Any, X: ArrayLike, y: ArrayLike, likelihood: Any) -> tuple[Any, Data]:
    likelihood, targets = likelihood.encode(y)
    x, t, _ = check_table(X, targets)
    names = names_at_fit(X, "X")
    if getattr(prior, "units", "scaled") == "data":
        scaling = Scaling.identity(x.shape[1], t.shape[1]).with_spread(t)
    else:
        scaling = Scaling.from_data(x, t, scale_y=likelihood.scales_targets)
    scaling = replace(scaling, names=names)
    return likelihood, make_data(x, t, None, scaling, pad=False)


def _predictive(prior: Any, likelihood: Any, data: Data, num: int, key: Key) -> Any:
    """The law of y given each of `num` functions and noise levels of the prior."""
    key_f, key_z = jax.random.split(key)
    outputs = likelihood.num_outputs(data.out_dim)
    shape = (num, data.num_rows, outputs)
    f = np.zeros((num, data.num_rows, getattr(prior, "out_dim", outputs)))
    if f.shape == shape:
        f = np.asarray(prior.sample(key_f, data.rows.x, num), np.float64)
    if f.shape != shape:
        raise InputError(
            f"{type(likelihood).__name__} needs functions with {outputs} output(s) here, the prior draws "
            f"arrays of shape {f.shape}: set out_dim={outputs}."
        )
    bound = likelihood.bind(data.scaling, data.rows)
    z = np.asarray(jax.random.normal(key_z, (num, bound.latent_size), jnp.float32))
    return bound.conditional(z, f, None)


def _placed(name: str, drawn: np.ndarray, observed: float) -> Check:
    """A two-sided check; ranks count the observed table itself, so that p is never 0."""
    upper = (1 + np.sum(drawn >= observed)) / (len(drawn) + 1)
    lower = (1 + np.sum(drawn <= observed)) / (len(drawn) + 1)
    low, high = np.quantile(drawn, (0.05, 0.95))
    side = 1 if upper <= lower else -1
    p_value = min(1.0, 2 * float(min(upper, lower)))
    return Check(name, float(observed), float(low), float(high), p_value, side)


def _checks(drawn: np.ndarray, y: np.ndarray, neighbour: np.ndarray) -> list[Check]:
    """Checks of y (n, m) against drawn tables (s, n, m)."""
    m = y.shape[1]

    def statistics(t: np.ndarray) -> dict[str, np.ndarray]:
        centre, sd = t.mean(axis=1), t.std(axis=1)
        scale = np.maximum(sd, 1e-300)
        steps = np.sqrt(((t - t[:, neighbour]) ** 2).mean(axis=1) / 2)
        extreme = np.abs(t - centre[:, None]).max(axis=1)
        return {
            "mean of y": centre,
            "sd of y": sd,
            "roughness": steps / scale,
            "largest deviation": extreme / scale,
        }

    theirs, ours = statistics(drawn), statistics(y[None])
    return [
        _placed(name if m == 1 else f"{name} (column {j})", theirs[name][:, j], ours[name][0, j])
        for name in ours
        for j in range(m)
    ]


def _density_check(law: Any, drawn: np.ndarray, y: np.ndarray) -> Check:
    s, n, m = drawn.shape
    at = np.linspace(0, n - 1, min(n, DENSITY_ROWS)).round().astype(int)
    half = s // 2
    variance = np.asarray(law.variance)
    if not np.isfinite(variance).all():  # heavy tails: the central 68 % instead
        variance = (law.quantile(0.8413) - law.quantile(0.5)) ** 2
    theirs, ours = np.zeros(s - half), 0.0
    for j in range(m):
        functions = law.location[:half, at, j]
        noise = np.broadcast_to(variance, law.location.shape)[:half, at, j].mean(axis=0)
        covariance = np.cov(functions, rowvar=False) + np.diag(noise)
        covariance += 1e-9 * np.trace(covariance) / len(at) * np.eye(len(at))
        factor = linalg.cholesky(covariance, lower=True)
        residual = np.concatenate([drawn[half:, at, j], y[None, at, j]]) - functions.mean(axis=0)
        white = linalg.solve_triangular(factor, residual.T, lower=True)
        density = -0.5 * (white**2).sum(axis=0) - np.log(np.diag(factor)).sum()
        density -= 0.5 * len(at) * np.log(2 * np.pi)
        theirs, ours = theirs + density[:-1], ours + density[-1]
    low, high = np.quantile(theirs, (0.05, 0.95))
    p_value = float((1 + np.sum(theirs <= ours)) / (len(theirs) + 1))
    return Check("joint density", float(ours), float(low), float(high), p_value, -1)


def _label_checks(codes: np.ndarray, y: np.ndarray, neighbour: np.ndarray) -> list[Check]:
    """Checks of class indices y (n,) against drawn ones (s, n)."""

    def largest(c: np.ndarray) -> float:
        return float(np.bincount(c).max() / len(c))

    return [
        _placed("largest class", np.array([largest(c) for c in codes]), largest(y)),
        _placed(
            "roughness",
            (codes != codes[:, neighbour]).mean(axis=1),
            float((y != y[neighbour]).mean()),
        ),
    ]
