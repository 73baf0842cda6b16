"""What a process that was fitted to data remembers: that it is empirical Bayes, and how."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EmpiricalBayes:
    """The label of hyper-parameters that were chosen by the very data they may be used on.

    Attributes:
        method: "marginal_likelihood" or "median".
        noise_std: the noise level that was fitted or given, in the units of y; one number a fit.
            None if the method estimates none.
        noise_std_scaled: the same in the coordinates of the process.
        log_evidence: log density of the table in the coordinates of the process, not to be compared
            with that of a process in others (None without a
            noise level).
        num_rows: rows used.
        restarts: log evidence reached from every start, best first.
        at_bounds: names of hyper-parameters that ran into a bound of the search.
    """

    method: str
    noise_std: float | None
    noise_std_scaled: float | None
    log_evidence: float | None
    num_rows: int
    restarts: tuple[float, ...] = ()
    at_bounds: tuple[str, ...] = ()
