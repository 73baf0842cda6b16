"""What an exact posterior says about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesnet._errors import UnsupportedError
from bayesnet.kernels.process import INACCURATE

# Rows (the outermost ones) whose errors of expansion are looked at.
EXPANSION_ROWS = 500
# Jitter beyond this share of the mean variance is worth a word.
NOTABLE_JITTER = 1e-8


@dataclass(frozen=True)
class ProcessReport:
    """Facts and problems of an exact posterior; prints.

    Attributes:
        log_evidence: of the targets, in the units of y (see `posterior.log_evidence`); NaN where there
            is none, and after conjugate gradients until it has been asked for.
        noise_std: the noise level of each output in the units of y (at s = 1 where noise is inside).
        hyperparameters: values that were learned, by name.
        rule: how the scale was integrated; quadrature_error: its estimated error (nats).
        jitter: the largest that was needed, relative to the mean variance.
        problems: one sentence for each reason not to trust the posterior.
        learned_on: (rows, all rows) where hyper-parameters and noise are those of some rows.
        log_evidence_error: the standard error of an estimated evidence (nats), else 0.
        chains: of sampled hyper-parameters what `chain_line` says, else empty.
    """

    log_evidence: float
    noise_std: tuple[float, ...]
    hyperparameters: dict[str, Any]
    rule: str
    quadrature_error: float
    jitter: float
    seconds: float
    problems: tuple[str, ...]
    learned_on: tuple[int, int] | None = None
    log_evidence_error: float = 0.0
    chains: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.problems

    @property
    def headline(self) -> str:
        """The number to look at first."""
        if np.isnan(self.log_evidence):
            return (
                "exact, sampled hyper-parameters"
                if self.chains
                else "exact, by conjugate gradients"
            )
        return f"exact, log evidence {self.log_evidence:.3f}"

    def __str__(self) -> str:
        noise = ", ".join(f"{value:.4g}" for value in self.noise_std)
        evidence = f"log evidence {self.log_evidence:.3f}"
        if np.isnan(self.log_evidence):
            evidence = "no log evidence"
            if not self.chains:
                evidence = "log evidence not estimated (post.log_evidence does)"
        elif self.log_evidence_error > 0:
            evidence += f" +- {self.log_evidence_error:.2f}"
        lines = [
            f"exact posterior ({self.rule}), {self.seconds:.1f} s",
            f"{evidence}, noise sd {noise}",
        ]
        if self.chains:
            lines.append(self.chains)
        if self.quadrature_error > 0:
            lines.append(f"error of the integral over the scale {self.quadrature_error:.1e} nats")
        if self.learned_on is not None:
            some, all_rows = self.learned_on
            lines.append(f"learned on {some} random rows, conditioned on all {all_rows}")
        lines += [f"{name} = {value}" for name, value in self.hyperparameters.items()]
        return "\n".join(lines + [f"! {problem}" for problem in self.problems])


def process_report(posterior: Any) -> ProcessReport:
    """The report of a `ProcessPosterior`."""
    solutions = posterior.solutions
    error = max(s.error for s in solutions)
    jitter = max(s.jitter for s in solutions)
    method = posterior.method
    tolerance = getattr(method, "tolerance", 1e-6)
    problems = list(posterior.search.get("problems", ()))
    if error > tolerance and solutions[0].rule != "importance":
        problems.append(
            f"the integral over the scale is known to {error:.1e} nats only (tolerance {tolerance:.0e})"
        )
    if solutions[0].rule == "importance" and error > 0.1:
        problems.append(
            f"importance sampling leaves a standard error of {error:.2f} nats in the log evidence: raise "
            "importance_samples, or use quadrature (importance_samples=None)"
        )
    if jitter > NOTABLE_JITTER:
        problems.append(
            f"a jitter of {jitter:.0e} of the mean variance was needed: rows are (nearly) equal, and the "
            "noise is small"
        )
    problems += expansion_problems(posterior.priors[0], posterior.x)
    shares = np.exp(posterior.log_shares)
    scale, learned = posterior.scaling.y_scale, posterior.search.get("learned_on")
    # An estimate costs as much as predicting some rows: it is made when the user asks for it.
    known = not posterior.iterative or posterior.evidence_estimated
    if len(posterior.priors) > 1:
        known = "log_evidence" in posterior.search
    return ProcessReport(
        posterior.log_evidence if known else float("nan"),
        tuple(
            float(v)
            for v in np.exp(shares @ np.log(np.maximum(posterior.noise_std, 1e-300))) * scale
        ),
        {
            name: np.asarray(value).tolist()
            for name, value in posterior.search.get("hyperparameters", {}).items()
        },
        solutions[0].rule,
        error,
        jitter,
        float(sum(posterior.seconds.values())),
        tuple(problems),
        None if learned is None else (int(learned), len(posterior.x)),
        posterior.log_evidence_error if known else 0.0,
        chain_line(posterior.search, len(posterior.priors)),
    )


def chain_line(search: dict[str, Any], draws: int) -> str:
    """How well sampled hyper-parameters are known; empty where they were not sampled."""
    if draws < 2:
        return ""
    known = {
        "R-hat": f"{search['rhat']:.2f}" if "rhat" in search else None,
        "effective size": f"{search['effective_size']:.0f}" if "effective_size" in search else None,
        "acceptance": f"{search['acceptance']:.2f}" if "acceptance" in search else None,
    }
    facts = [f"{name} {value}" for name, value in known.items() if value is not None]
    return ", ".join([f"{draws} draws of hyper-parameters", *facts])


def integrated_evidence(search: dict[str, Any]) -> float:
    """The log evidence that a run of sampled hyper-parameters recorded, in scaled coordinates.

    Raises `UnsupportedError` where there is none: the mean likelihood of the draws is no evidence.
    """
    if "log_evidence" not in search:
        raise UnsupportedError(
            "This posterior holds several hyper-parameters and no log evidence: draws of a posterior do not "
            "tell it. It is given for hyper-parameters with laws, sampled by bn.Exact(hyper='hmc') or "
            "bn.ProcessLaplace(hyper='hmc'); of a process alone, gp.log_evidence(X, y, noise_std)."
        )
    return float(search["log_evidence"])


def expansion_problems(prior: Any, x: np.ndarray) -> list[str]:
    """What `NNGP.kernel` warns of, for scaled rows `x` that came into its matrices another way."""
    base = getattr(prior, "base", prior)
    ask = getattr(base, "expansion_error", None)
    if ask is None or not base.expands:
        return []
    rows = x if len(x) <= EXPANSION_ROWS else x[np.argsort(np.sum(x**2, axis=1))[-EXPANSION_ROWS:]]
    worst = float(np.max(ask(rows)))
    if worst <= INACCURATE:
        return []
    return [
        f"activations are expanded to a relative error of {worst:.0e} at the outermost rows: take more terms, "
        "bn.kernels.Activation(name, terms=4096), or a lower weight_std"
    ]
