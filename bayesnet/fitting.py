"""`fit`: a prior, a table and a method in; a posterior in user units out."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet import devices
from bayesnet._columns import Names, names_at_fit, names_in
from bayesnet._errors import InputError, UnsupportedError, unknown_name
from bayesnet._notices import said_if_slow
from bayesnet._scales import check_y_scale
from bayesnet._types import ArrayLike, Key, as_key, as_seed
from bayesnet.data import (
    NO_SCALE,
    Data,
    Scaling,
    check_table,
    check_weight,
    make_data,
    tells_no_scale,
)
from bayesnet.defaults import default_target, resolve_prior
from bayesnet.diagnostics.convergence import warn_if_untrusted
from bayesnet.inference import Inference, resolve_inference
from bayesnet.likelihoods import resolve_likelihood
from bayesnet.likelihoods.base import refuse_y_var
from bayesnet.pfn.preset import fit_pfn, is_trained

# What to do about targets that are NaN.
MISSING = ("error", "mask")
FIRST_CALL = (
    "Conditioning on the table: the first call in a process also compiles its programs, once for each method and "
    "bucket of rows."
)


@devices.single_precision()
def fit(
    prior: Any,
    X: ArrayLike,
    y: ArrayLike,
    *,
    target: Any = None,
    likelihood: Any = None,
    inference: str | Inference = "hmc",
    y_var: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    missing: str = "error",
    seed: int | Key = 0,
    init: Any = None,
    scaling: Scaling | None = None,
    device: str | jax.Device = "auto",
    progress: bool | None = None,
    warn: bool = True,
) -> Any:
    """Condition a prior over functions on a table.

    Args:
        prior: a prior; a bare network (then matched to `target` or to the default process);
            or None (the default network).
        X: inputs, n x d, in the user's units; arrays or data frames. The posterior remembers the names of
            a frame's columns: later frames are put in their order, and others are refused; arrays are
            taken as they are.
        y: targets, n or n x m; for classes one label a row (text, bools, whole numbers).
        target: a process to which the prior's weights are matched first.
        likelihood: a likelihood such as `bn.CategoricalLikelihood()`, or its name ("gaussian",
            "heteroscedastic", "student_t", "laplace", "bernoulli", "categorical", "poisson");
            `bn.GaussianLikelihood()` (noise learned) if None.
        inference: "hmc", "nuts", "sghmc", "ensemble", "exact" (closed form, for kernel priors),
            "infinite_width", "student_t" (exact, with priors of their own), "process_laplace",
            "sparse_variational" (kernel priors, for classes), "pfn" and "amortised" (trained
            weights with priors of their own), or a method such as `bn.HMC(chains=4)`.
        y_var: known noise variance of each target (units of y, squared), n or n x m.
        sample_weight: a number a row, 0 or more, that multiplies its log likelihood: a row of
            weight 2 counts as two such rows, one of weight 0 not at all.
        missing: "error", or "mask": targets that are NaN were not observed, and the other
            outputs of their row count all the same.
        seed: an integer or a JAX key; the same seed gives the same posterior.
        init: an earlier posterior from whose chains to go on; or any posterior of the same inputs
            and outputs (of a PFN, a process, another network), onto whose functions the network is
            regressed to find where chains start.
        scaling: the coordinate map; from the data (mean 0, sd 1) if None.
        device: "auto", "cpu", "gpu", "gpu:1".
        progress: show a progress bar; if None, where the output is a terminal.
        warn: warn, in words, if the run should not be trusted.

    Returns:
        The posterior: `predict`, `diagnostics`, `save`; of samplers `to_arviz` too.

    Raises:
        InputError: unusable data, unknown names, dimensions that do not agree.
        UnsupportedError: a method that cannot condition this prior, `y_var` for a likelihood
            that has no use for it.
    """
    if is_trained(inference):
        if missing not in MISSING:
            raise unknown_name("value of missing", missing, MISSING)
        own: dict[str, Any] = {
            "missing": missing,
            "seed": as_seed(seed),
            "scaling": scaling,
            "warn": warn,
        }
        rest = {"y_var": y_var, "sample_weight": sample_weight, "init": init}
        with devices.using(device), _progress_bar(progress) as report:
            done = report or (lambda phase, done, total: None)
            done("conditioning", 0, 1)
            found = fit_pfn(inference, prior, target, likelihood, X, y, **own, **rest)
            done("conditioning", 1, 1)
        return found
    method = resolve_inference(inference)
    likelihood = resolve_likelihood(likelihood)
    if init is not None and not callable(getattr(init, "predict", None)):
        raise InputError(f"init must be a posterior, got {type(init).__name__}.")
    key = as_key(seed)
    with devices.using(device):
        exact = hasattr(method, "choose_prior")  # kernel priors, in float64
        with jax.enable_x64(True) if exact else nullcontext():
            likelihood, data = scaled_table(
                prior,
                target,
                likelihood,
                X,
                y,
                y_var,
                sample_weight,
                missing,
                scaling,
                dtype=jnp.float64 if exact else jnp.float32,
                known=names_in(init),
            )
        if warn:
            _warn_if_constant(likelihood, data)
        if exact:
            prior = method.choose_prior(prior, target, data)
            if prior is None:
                prior = default_target(data.in_dim, data.out_dim)
        else:
            prior = resolve_prior(prior, target, data, likelihood=likelihood)
        if not method.supports(prior, likelihood):
            # The method's own check names what fits instead.
            method.fit(prior, likelihood, data, key=key)
            raise UnsupportedError(f"{method} cannot condition {type(prior).__name__}.")
        slow = said_if_slow(FIRST_CALL) if exact else nullcontext()
        with slow, _progress_bar(progress) as report:
            posterior = method.fit(prior, likelihood, data, key=key, init=init, progress=report)
        if warn:
            warn_if_untrusted(posterior)
    return posterior


def units_of(prior: Any, target: Any = None) -> str:
    """The coordinates in which a prior, or a target that a network is matched to, is stated: "scaled" or
    "data"."""
    return str(getattr(prior, "units", None) or getattr(target, "units", "scaled"))


def scaled_table(
    prior: Any,
    target: Any,
    likelihood: Any,
    X: ArrayLike,
    y: ArrayLike,
    y_var: ArrayLike | None,
    sample_weight: ArrayLike | None,
    missing: str,
    scaling: Scaling | None,
    dtype: Any = jnp.float32,
    known: Names | None = None,
) -> tuple[Any, Data]:
    """The likelihood that knows the targets, and the checked table in the prior's coordinates.

    Columns of a frame X come in the order of `scaling.names`, else of the `known` names, else as they are.
    """
    if missing not in MISSING:
        raise unknown_name("value of missing", missing, MISSING)
    if not likelihood.row_variances:
        refuse_y_var(type(likelihood).__name__, y_var)
    likelihood, targets = likelihood.encode(y, missing=missing == "mask")
    known = (None if scaling is None else scaling.names) or known
    names = names_at_fit(X, "X") if known is None else known
    x_matrix, y_matrix, variance = check_table(
        X, targets, y_var, missing=missing == "mask", known=known
    )
    weight = check_weight(sample_weight, len(x_matrix))
    if scaling is None and units_of(prior, target) == "data":
        scaling = Scaling.identity(x_matrix.shape[1], y_matrix.shape[1])
        scaling = scaling.with_spread(y_matrix, weight)
    if scaling is None:
        scaling = Scaling.from_data(
            x_matrix, y_matrix, scale_y=likelihood.scales_targets, weight=weight
        )
    elif not likelihood.scales_targets and not (
        (scaling.y_loc == 0).all() and (scaling.y_scale == 1).all()
    ):
        raise InputError(
            f"{type(likelihood).__name__} does not scale y: pass a scaling whose y_loc is 0 and "
            "y_scale is 1."
        )
    elif likelihood.scales_targets:
        check_y_scale(scaling.y_scale)
        scaling = scaling.with_spread(y_matrix, weight)
    scaling = replace(scaling, names=names)
    return likelihood, make_data(x_matrix, y_matrix, variance, scaling, weight=weight, dtype=dtype)


def _warn_if_constant(likelihood: Any, data: Data) -> None:
    """A table without any variation tells no scale of y: it is only centred."""
    if not likelihood.scales_targets or data.num_rows < 2:
        return
    given = data.rows.weight
    weight = None if given is None else np.asarray(given, np.float64)[: data.num_rows]
    if tells_no_scale(data.scaling.y_out(data.y.astype(np.float64)), weight):
        warnings.warn(NO_SCALE, UserWarning, stacklevel=4)


@contextmanager
def _progress_bar(show: bool | None) -> Iterator[Any]:
    if show is None:
        show = sys.stderr.isatty()
    if not show:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def report(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bar.add_task(phase, total=total)
            bar.update(tasks[phase], completed=done)

        yield report
