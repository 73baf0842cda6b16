"""Convergence of a sampled posterior, judged where it matters: on function values.

Weights of a network are not identified (units can be permuted), so their R-hat says little.
The report looks at function values on a fixed probe set - training rows, fresh points inside
the data's box, and points out to twice the box - and at the log likelihood, the log prior
density of the latents and the noise level.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet import devices
from bayesnet._errors import ConvergenceWarning
from bayesnet._types import Array
from bayesnet.inference import DeepEnsemble
from bayesnet.inference.model import LatentModel
from bayesnet.posterior.latent_process import LatentProcess
from bayesnet.posterior.process import ProcessPosterior
from bayesnet.priors.network import draws_at_once

# Points per region of the probe set.
PROBES = 16
RHAT_LIMIT = 1.05
ESS_LIMIT = 100.0
DIVERGENT_LIMIT = 0.01
# Samplers without a Metropolis step: how far their kinetic energy may be from its expected value
# over all coordinates, and along gradients, where noise of minibatches shows first. There 1.7 goes
# with sds of function values that are 10 % too large, 1.3 with 5 %.
TEMPERATURE_LIMIT = 0.1
GRADIENT_LIMIT = 1.75
# Below this many draws a chain has no halves to compare.
MIN_DRAWS = 8


@dataclass(frozen=True)
class Row:
    """R-hat and effective sample sizes of one group of quantities: the worst and the median."""

    name: str
    rhat: float
    ess_bulk: float
    ess_bulk_median: float
    ess_tail: float


@dataclass(frozen=True)
class ConvergenceReport:
    """What the chains say about themselves; prints as a table.

    `problems` holds one sentence for each reason not to trust the run; `ok` is their absence.
    """

    rows: tuple[Row, ...]
    chains: int
    draws: int
    divergent: float
    acceptance_rate: float
    gradients_per_draw: float
    seconds: float
    problems: tuple[str, ...]
    # Kinetic energy over its expected value, where a sampler has no Metropolis step.
    temperature: float = float("nan")
    gradient_temperature: float = float("nan")

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against the run."""
        return not self.problems

    @property
    def headline(self) -> str:
        """The two numbers to look at first, twice the box left out."""
        inner = [r for r in self.rows if "twice" not in r.name]
        worst, least = max(r.rhat for r in inner), min(r.ess_bulk for r in inner)
        return f"worst R-hat {worst:.3f}, fewest effective draws {least:.0f}"

    def __str__(self) -> str:
        head = f"{'quantity':<26}{'R-hat':>8}{'bulk ESS':>10}{'median':>9}{'tail ESS':>10}"
        lines = [f"{self.chains} chains x {self.draws} draws, {self.seconds:.1f} s", head]
        lines += [
            f"{r.name:<26}{r.rhat:>8.3f}{r.ess_bulk:>10.0f}{r.ess_bulk_median:>9.0f}{r.ess_tail:>10.0f}"
            for r in self.rows
        ]
        facts = [f"divergent {self.divergent:.1%}"]
        if np.isfinite(self.acceptance_rate):
            facts.append(f"acceptance {self.acceptance_rate:.2f}")
        if np.isfinite(self.temperature):
            facts.append(
                f"temperature {self.temperature:.2f} (along gradients {self.gradient_temperature:.2f})"
            )
        facts.append(f"gradients a draw {self.gradients_per_draw:.0f}")
        lines.append(", ".join(facts))
        return "\n".join(lines + [f"! {p}" for p in self.problems])


def convergence_report(posterior: Any) -> Any:
    """The report for a `FunctionDraws`: rank-normalised split R-hat and ESS (Vehtari 2021).

    For an ensemble, whose members are not draws: an `EnsembleReport`; an exact posterior has a
    report of its own.
    """
    if isinstance(posterior, (ProcessPosterior, LatentProcess)):
        return posterior.diagnostics()
    if isinstance(posterior.method, DeepEnsemble):
        from bayesnet.diagnostics.ensemble import ensemble_report

        return ensemble_report(posterior)
    rows = tuple(_row(name, values) for name, values in quantities(posterior).items())
    stats = posterior.stats
    divergent = float(np.mean(stats["divergent"] > 0)) if "divergent" in stats else 0.0
    return ConvergenceReport(
        rows=rows,
        chains=posterior.latents.shape[0],
        draws=posterior.latents.shape[1],
        divergent=divergent,
        acceptance_rate=float(np.mean(stats.get("acceptance_rate", np.nan))),
        gradients_per_draw=float(np.mean(stats.get("num_gradients", np.nan))),
        seconds=float(sum(posterior.seconds.values())),
        problems=_problems(rows, divergent, posterior),
        temperature=_mean(stats, "temperature"),
        gradient_temperature=gradient_temperature(stats),
    )


def _mean(stats: dict[str, np.ndarray], name: str) -> float:
    return float(np.mean(stats.get(name, np.nan)))


def gradient_temperature(stats: dict[str, np.ndarray]) -> float:
    """The kinetic energy along gradients over its expected value, without the mean velocity there.

    A velocity ends where its gradient is taken and so points along it a little, in every latent:
    with thousands of them that is most of the energy, and no heat (`SGHMC`).
    """
    energy = _mean(stats, "gradient_temperature")
    mean = np.mean(stats.get("gradient_velocity", np.zeros((1, 1))), axis=1)
    return energy - float(np.mean(mean**2))


def quantities(posterior: Any) -> dict[str, np.ndarray]:
    """The monitored quantities by group, each (c, s, k)."""
    chains, draws, _ = posterior.latents.shape
    probes = probe_points(posterior.data.x)
    out = {}
    points = np.concatenate(list(probes.values()))
    values = posterior.scaled_functions(points).reshape(chains, draws, len(points), -1)
    start = 0
    for name, region in probes.items():
        part = values[:, :, start : start + len(region)]
        out[f"f at {name}"] = part.reshape(chains, draws, -1)
        start += len(region)
    log_lik, log_prior = log_densities(posterior)
    out["log likelihood"] = log_lik[..., None]
    out["log prior"] = log_prior[..., None]
    if hasattr(posterior.prior, "hyperparameters"):
        for name, value in posterior.prior.hyperparameters(posterior.latents).items():
            out[name] = np.log(value)
    p = posterior.prior.latent_size
    for name, level in posterior.bound.summary(posterior.latents[..., p:]).items():
        out[name] = np.log(level)
    return out


def probe_points(x: np.ndarray) -> dict[str, np.ndarray]:
    """The fixed probe set of a table, by region, in scaled coordinates."""
    rng = np.random.default_rng(0)
    low, high = x.min(axis=0), x.max(axis=0)
    middle, half = (low + high) / 2, (high - low) / 2
    inside = rng.uniform(-1, 1, (PROBES, x.shape[1]))
    return {
        "training rows": x[rng.permutation(len(x))[:PROBES]],
        "points in the box": middle + half * inside,
        "points in twice the box": middle + 2 * half * rng.uniform(-1, 1, (PROBES, x.shape[1])),
    }


@devices.single_precision()
def log_densities(posterior: Any) -> tuple[np.ndarray, np.ndarray]:
    """Log likelihood and log prior density of the latents for each draw, (c, s) each."""
    model = LatentModel(posterior.prior, posterior.bound, posterior.data.rows)
    flat = jnp.asarray(posterior.latents.reshape(-1, posterior.latents.shape[-1]))
    shape = posterior.latents.shape[:2]
    log_prior = -0.5 * np.sum(np.asarray(flat, np.float64) ** 2, axis=-1)
    return np.asarray(_log_likelihoods(model, flat)).reshape(shape), log_prior.reshape(shape)


@eqx.filter_jit
def _log_likelihoods(model: LatentModel, z: Array) -> Array:
    return jax.lax.map(model.log_likelihood, z, batch_size=draws_at_once(model.prior, 32))


def _row(name: str, values: np.ndarray) -> Row:
    rhat, bulk, tail = chain_statistics(values)
    return Row(
        name, float(rhat.max()), float(bulk.min()), float(np.median(bulk)), float(tail.min())
    )


def chain_statistics(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rank-normalised split R-hat, bulk and tail ESS of `values` (c, s, k), each (k,).

    A quantity that never moves (a constant) has R-hat 1 and all its draws; one that is
    constant within but not between chains has R-hat infinite. NaN below `MIN_DRAWS` draws.
    """
    az = import_arviz()
    table = []
    for j in range(values.shape[-1]):
        draws = np.asarray(values[:, :, j], np.float64)
        if draws.shape[1] < MIN_DRAWS:
            table.append((np.nan, np.nan, np.nan))
        elif np.ptp(draws) == 0:
            table.append((1.0, draws.size, draws.size))
        elif np.all(np.ptp(draws, axis=1) == 0):
            # Each chain sits at a place of its own: it is one draw, not many.
            table.append((np.inf, len(draws), len(draws)))
        else:
            rhat = az.rhat(draws if len(draws) > 1 else _halves(draws))
            table.append((rhat, az.ess(draws, method="bulk"), az.ess(draws, method="tail")))
    rhat, bulk, tail = np.asarray(table, np.float64).T
    return rhat, bulk, tail


def _halves(draws: np.ndarray) -> np.ndarray:
    """One chain as two: a single chain can at least be compared with itself."""
    half = draws.shape[1] // 2
    return np.stack([draws[0, :half], draws[0, half : 2 * half]])


def import_arviz() -> Any:
    """arviz, without the announcement of its refactoring (0.23 prints one at import)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    return arviz


def _problems(rows: tuple[Row, ...], divergent: float, posterior: Any) -> tuple[str, ...]:
    chains, draws, _ = posterior.latents.shape
    found = []
    if posterior.interrupted:
        found.append("the run was interrupted: it holds fewer draws than asked for")
    if not np.isfinite(posterior.latents).all():
        found.append("some draws are not finite")
    if draws < MIN_DRAWS:
        found.append(f"{draws} draws a chain are too few to judge convergence: raise draws")
    else:
        found += _disagreements([r for r in rows if "twice" not in r.name])
    if chains < 4:
        found.append(f"{chains} chain(s): use at least 4 to judge convergence")
    if divergent > DIVERGENT_LIMIT:
        stepped = hasattr(posterior.method, "step_size")
        remedy = "lower step_size" if stepped else "raise target_acceptance"
        found.append(f"{divergent:.1%} of draws diverged: {remedy}")
    return tuple(found + _temperatures(posterior.stats))


def _temperatures(stats: dict[str, np.ndarray]) -> list[str]:
    """Sampling at another temperature than 1, which R-hat cannot see."""
    found = []
    temperature, along = _mean(stats, "temperature"), gradient_temperature(stats)
    remedy = "raise batch_size or lower step_size"
    if abs(temperature - 1) > TEMPERATURE_LIMIT:
        found.append(f"the sampler ran at temperature {temperature:.2f} instead of 1: {remedy}")
    elif along > GRADIENT_LIMIT:
        found.append(
            f"the sampler ran at temperature {along:.1f} instead of 1 along gradients: what the data "
            f"determine best is too uncertain: {remedy}"
        )
    return found


def _disagreements(rows: list[Row]) -> list[str]:
    found = []
    worst = max(rows, key=lambda r: r.rhat if np.isfinite(r.rhat) else np.inf)
    if not worst.rhat <= RHAT_LIMIT:
        found.append(
            f"chains disagree (R-hat {worst.rhat:.2f} > {RHAT_LIMIT} for {worst.name}): run longer "
            "(warmup, draws)"
        )
    least = min(rows, key=lambda r: r.ess_bulk if np.isfinite(r.ess_bulk) else -np.inf)
    if not least.ess_bulk >= ESS_LIMIT:
        found.append(
            f"few effective draws ({least.ess_bulk:.0f} < {ESS_LIMIT:.0f} for {least.name}): raise draws"
        )
    return found


def warn_if_untrusted(posterior: Any) -> None:
    """One warning, in words, if the run should not be trusted as it is."""
    report = convergence_report(posterior)
    serious = [p for p in report.problems if "chain(s)" not in p]
    if serious:
        warnings.warn(
            f"This posterior may not be trusted: {'; '.join(serious)}. See post.diagnostics().",
            ConvergenceWarning,
            stacklevel=4,
        )
