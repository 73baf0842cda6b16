"""Processes whose hyper-parameters are chosen by the data: empirical Bayes.

"marginal_likelihood" maximises the evidence (Rasmussen & Williams 2006, section 5.4.1) in
float64 by L-BFGS from several starts; "median" takes the median distance between rows
(Garreau, Jitkrittum & Kanagawa 2017), which needs no targets for the lengthscales. Both use the
data twice if the process is then conditioned on the same table; the process says so.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesnet._errors import InputError, unknown_name
from bayesnet._scales import affine_in, standardization
from bayesnet._types import ArrayLike
from bayesnet.data import check_table
from bayesnet.priors.covariance import ARC_COSINE, NAMES, STATIONARY, Named
from bayesnet.priors.empirical import EmpiricalBayes
from bayesnet.priors.gaussian_process import GaussianProcess
from bayesnet.priors.hyper_search import log_evidence_of, maximise, parts
from bayesnet.priors.network import UNITS

METHODS = ("marginal_likelihood", "median")


def fit_process(
    X: ArrayLike,
    y: ArrayLike,
    kernel: str | GaussianProcess = "matern52",
    *,
    method: str = "marginal_likelihood",
    ard: bool = True,
    noise_std: float | None = None,
    restarts: int = 3,
    units: str = "scaled",
    max_rows: int = 1000,
    seed: int = 0,
) -> GaussianProcess:
    """A Gaussian process with fixed hyper-parameters that were chosen by the table.

    Args:
        X, y: inputs (n, d) and targets (n,) or (n, m), in the user's units. Several outputs
            share the hyper-parameters.
        kernel: the name of a kernel; or a process made of kernels by name (sums and products),
            whose hyper-parameters are where the search starts ("marginal_likelihood" only).
        method: "marginal_likelihood", or "median" (stationary kernels): lengthscales from median
            distances, the variance from that of y (less the noise, if it is given).
        ard: one lengthscale a column, or one for all.
        noise_std: the noise level in the units of y if it is known; else it is fitted.
        restarts: random starts besides the first.
        units: the coordinates of the process: "scaled" (columns of this table at mean 0, sd 1,
            as `bn.fit` has them) or "data" (one output; the mean is then that of y).
        max_rows: longer tables are represented by this many random rows.
        seed: of the restarts and of those rows.

    Returns:
        The process; its `empirical` holds the noise level, the evidence and what hit a bound.

    Raises:
        InputError: unusable data, a single distinct row, constant y, constant columns under
            `ard`, unknown names, kernels with laws or foreign kernels.
    """
    x, t, _ = check_table(X, y)
    _check(x, t, kernel, method, ard, noise_std, restarts, units, max_rows)
    num_rows = min(len(x), int(max_rows))
    y_loc, y_scale = standardization(t)
    if units == "scaled":
        x_loc, x_scale = standardization(x)
        x, t = affine_in(x, x_loc, x_scale), (t - y_loc) / y_scale
        mean, unit = 0.0, y_scale
    else:
        mean, unit = float(y_loc[0]), np.ones(1)
    rows = np.random.default_rng(seed).permutation(len(x))[:num_rows]
    x, t = x[rows], t[rows]
    if noise_std is not None and units == "scaled" and np.ptp(unit) > 1e-9 * unit.max():
        raise InputError(
            "noise_std is one number in the units of y, but the outputs have different scales: fit "
            "one output at a time."
        )
    noise = None if noise_std is None else float(noise_std) / float(unit[0])
    start = kernel.covariance if isinstance(kernel, GaussianProcess) else None
    if start is None:
        start = _first_guess(str(kernel), x, t, ard, noise if method == "median" else None)
    if method == "median":
        record = EmpiricalBayes(
            method,
            noise_std,
            noise,
            None if noise is None else log_evidence_of(start, x, t - mean, noise),
            num_rows,
        )
        return _process(start, mean, t.shape[1], units, record)
    spread = float(t.std(axis=0).mean())
    found = maximise(start, x, t - mean, noise, spread, int(restarts), seed)
    record = EmpiricalBayes(
        method,
        found.noise * float(unit[0]) if len(set(unit.tolist())) == 1 else None,
        found.noise,
        found.log_evidence,
        num_rows,
        found.reached,
        found.at_bounds,
    )
    return _process(found.covariance, mean, t.shape[1], units, record)


def _check(
    x: np.ndarray,
    t: np.ndarray,
    kernel: Any,
    method: str,
    ard: bool,
    noise_std: Any,
    restarts: int,
    units: str,
    max_rows: int,
) -> None:
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    if units not in UNITS:
        raise InputError(f"units must be one of {UNITS}, got {units!r}.")
    if isinstance(kernel, GaussianProcess):
        if method == "median":
            raise InputError("method='median' takes the name of a stationary kernel.")
        for part in parts(kernel.covariance):
            if not isinstance(part, Named) or part.random:
                raise InputError(
                    "A process to start from must be made of kernels by name with fixed "
                    f"hyper-parameters, got {part!r}."
                )
    elif kernel not in NAMES:
        raise unknown_name("kernel", kernel, NAMES)
    elif method == "median" and kernel not in STATIONARY:
        raise InputError(
            f"Median distances set the lengthscale of {', '.join(STATIONARY)}, not of {kernel!r}: use "
            "method='marginal_likelihood'."
        )
    for name, value, low in (("restarts", restarts, 0), ("max_rows", max_rows, 2)):
        if int(value) != value or value < low:
            raise InputError(f"{name} must be a whole number of at least {low}, got {value!r}.")
    if noise_std is not None and not (np.ndim(noise_std) == 0 and noise_std > 0):
        raise InputError(f"noise_std must be a positive number, got {noise_std!r}.")
    if units == "data" and t.shape[1] > 1:
        raise InputError(
            "In units='data' fit one output at a time: outputs in units of their own share no variance."
        )
    constant = np.ptp(x, axis=0) == 0
    if constant.all():
        raise InputError(
            f"X has a single distinct row (of {len(x)}): a lengthscale cannot be learned from one point."
        )
    if ard and constant.any():
        raise InputError(
            f"Columns {np.flatnonzero(constant).tolist()} of X are constant: their lengthscales cannot "
            "be learned. Drop them, or use ard=False."
        )
    if (np.ptp(t, axis=0) == 0).any():
        raise InputError("y is constant: there is nothing to choose hyper-parameters by.")


def _process(
    covariance: Any, mean: float, out_dim: int, units: str, record: EmpiricalBayes
) -> GaussianProcess:
    process = GaussianProcess(covariance, mean=mean, out_dim=out_dim, units=units)
    object.__setattr__(process, "empirical", record)
    return process


def _first_guess(
    kernel: str, x: np.ndarray, t: np.ndarray, ard: bool, noise: float | None
) -> Named:
    """Lengthscales from median distances, variance from that of y."""
    d = x.shape[1]
    some = x[: min(len(x), 500)]
    upper = np.triu_indices(len(some), 1)
    gaps = np.abs(some[:, None, :] - some[None, :, :])[upper]
    if ard:
        # Each column contributes 1/d to a typical squared distance of 1.
        columns = [np.median(g[g > 0]) if (g > 0).any() else 1.0 for g in gaps.T]
        scale: Any = np.sqrt(d) * np.asarray(columns)
    else:
        distance = np.sqrt((gaps**2).sum(axis=1))
        scale = float(np.median(distance[distance > 0]))
    variance = float(t.var(axis=0).mean())
    period = float(np.ptp(x, axis=0).max()) / 2
    if kernel == "periodic":
        scale = np.ones(d) if ard else 1.0  # its lengthscale has no unit
    if noise is not None:
        if noise**2 >= variance:
            raise InputError(
                f"noise_std leaves nothing of y: its variance is {noise**2 / variance:.2f} of that of y."
            )
        variance -= noise**2
    if kernel == "linear" or kernel in ARC_COSINE:
        scale = np.sqrt((np.atleast_2d(x) ** 2).sum(axis=1).mean()) * np.ones(d if ard else ())
    return Named(kernel, scale, variance, period=period if kernel == "periodic" else 1.0)
