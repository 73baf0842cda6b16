"""The prior that is used where the user states none, and the cache of matches.

A match depends on the network, the weight law, the target, the dimension and the box only,
never on the data; so it is kept on disk (as safetensors) and a loop of Bayesian
optimization, or a worker process, matches once per problem size.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from pathlib import Path
from typing import Any

import numpy as np

from bayesnet import __version__
from bayesnet._errors import BayesNetError, InputError
from bayesnet.data import Data
from bayesnet.networks import MLP, ForeignNetwork, as_network
from bayesnet.posterior.saving import load, save
from bayesnet.priors import (
    Box,
    FunctionPrior,
    GaussianProcess,
    LogNormal,
    NetworkPrior,
    match_prior,
)
from bayesnet.priors.matching.match import named_distance
from bayesnet.priors.weights import Gaussian

# The box on which priors are matched, in scaled coordinates (mean 0, sd 1 a column): it holds
# 95 % of a Gaussian column and the whole of a uniform one (which ends at sqrt(3)).
BOX = (-2.0, 2.0)


def default_network() -> MLP:
    """Two hidden layers of 50 tanh units."""
    return MLP(hidden=(50, 50), activation="tanh")


def default_lengthscale(in_dim: int) -> LogNormal:
    """One random lengthscale l for every input, log-normal with sd 0.7.

    Their median is such that the squared distance of two random rows, in lengthscales, averages
    1 over rows in the median function, whatever d. The mean over d inputs of 1 / l^2 is itself
    close to log-normal (Fenton-Wilkinson), and its median grows from that of one input to
    exp(2 * 0.7^2) = 2.7 times it: a median of sqrt(2 d) for each would make functions of many
    inputs rough (benchmarks/default_prior.py).
    """
    spread = 0.7
    growth = np.exp(2 * spread**2) / np.sqrt(1 + np.expm1(4 * spread**2) / in_dim)
    return LogNormal(np.full(in_dim, 0.5 * np.log(2.0 * in_dim * growth)), spread)


def default_outputscale() -> LogNormal:
    """The random variance of the functions: log-normal with median 1 and sd 0.5."""
    return LogNormal(0.0, 0.5)


def default_target(in_dim: int, out_dim: int = 1) -> GaussianProcess:
    """A hierarchical Matern-5/2 process in scaled coordinates: see its two hyper-laws."""
    return GaussianProcess(
        "matern52", default_lengthscale(in_dim), default_outputscale(), out_dim=out_dim
    )


def resolve_prior(
    prior: Any, target: Any, data: Data, *, likelihood: Any = None, seed: int = 0
) -> Any:
    """The prior that `fit` conditions, from what the user gave.

    `prior` None or a bare network is matched to `target`, or to `default_target`, by Gaussian
    weights (with means, too, if the target is not symmetric around 0); a
    `NetworkPrior` is taken as it is, and matched if a `target` is given with it. The number of
    outputs is what `likelihood` asks for; one for each column of y if it is None.

    Raises `InputError` if its dimensions are not those of the table.
    """
    out_dim = data.out_dim if likelihood is None else likelihood.num_outputs(data.out_dim)
    if prior is None:
        prior = default_network()
    if not isinstance(prior, FunctionPrior):
        units = getattr(target, "units", "scaled")
        weights = "gaussian" if _is_symmetric(target) else Gaussian(loc="free")
        prior = NetworkPrior(as_network(prior), weights, data.in_dim, out_dim, units)
        if target is None:
            target = default_target(data.in_dim, out_dim)
    # The likelihood decides on the outputs: K for K classes, two a target with a noise head.
    asks = "the table has" if out_dim == data.out_dim else f"{type(likelihood).__name__} needs"
    for name, got, expected, who in (
        ("inputs", getattr(prior, "in_dim", None), data.in_dim, "the table has"),
        ("outputs", getattr(prior, "out_dim", None), out_dim, asks),
    ):
        if got is not None and got != expected:
            raise InputError(
                f"The prior is for {got} {name}, {who} {expected}: build it with "
                f"bn.NetworkPrior(..., in_dim={data.in_dim}, out_dim={out_dim})."
            )
    if target is None:
        return prior
    if not isinstance(prior, NetworkPrior):
        raise InputError(
            f"A target is matched by a network prior, got {type(prior).__name__} as the prior too."
        )
    if hasattr(target, "with_scaling"):
        # Statements are in the units of the table, whatever its coordinates are here.
        target = target.with_scaling(data.scaling, prior.units)
    if prior.units == "data":
        inputs: Any = data.x
    else:
        inputs = Box([BOX[0]] * data.in_dim, [BOX[1]] * data.in_dim)
    return matched(prior, target, inputs, seed=seed)


def _is_symmetric(target: Any) -> bool:
    """Whether f and -f are equally likely under the target, as they are for weights of mean 0.

    Statements (a trend, a bound, a level) and mean functions break the symmetry, and then only
    weights whose means are matched too can follow (docs/methods/targets.md).
    """
    mean = getattr(target, "mean", 0.0)
    return not hasattr(target, "with_scaling") and isinstance(mean, float) and mean == 0.0


def matched(prior: NetworkPrior, target: Any, inputs: Any, *, seed: int = 0) -> NetworkPrior:
    """`prior` matched to `target`, from the cache where this match was made before."""
    path = _cache_file(prior, target, inputs, seed)
    if path is not None and path.is_file():
        try:
            return load(path)
        except BayesNetError:
            path.unlink(missing_ok=True)  # a damaged entry is made anew
    result = match_prior(prior, target, inputs, seed=seed).prior
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save(result, path)
        except OSError:
            pass  # a read-only home: the match is used, only not kept
    return result


def cache_dir() -> Path:
    """Where matches are kept: $BAYESNET_CACHE_DIR, else bayesnet in the user's cache folder."""
    chosen = os.environ.get("BAYESNET_CACHE_DIR")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "bayesnet"


def _cache_file(prior: NetworkPrior, target: Any, inputs: Any, seed: int) -> Path | None:
    """The entry of a match, or None if it cannot be told apart by what it prints."""
    import equinox as eqx
    import jax

    described = isinstance(target, GaussianProcess) and target.covariance.traceable
    if not described or isinstance(prior.network, ForeignNetwork) or not isinstance(inputs, Box):
        return None
    theta = [np.asarray(a).tolist() for a in jax.tree.leaves(eqx.filter(prior.law, eqx.is_array))]
    text = repr(
        (
            __version__,
            prior.network,
            str(jax.tree.structure(prior.law)),  # its class and knobs
            theta,
            prior.in_dim,
            prior.out_dim,
            prior.units,
            target,
            inputs,
            seed,
            _settings(prior.in_dim),
        )
    )
    if " at 0x" in text:
        return None
    return cache_dir() / f"match-{hashlib.sha256(text.encode()).hexdigest()[:24]}.safetensors"


def _settings(in_dim: int) -> dict[str, Any]:
    """How `match_prior` matches when nothing else is said: part of what made a kept match."""
    parameters = inspect.signature(match_prior).parameters.values()
    settings = {p.name: p.default for p in parameters if p.default is not p.empty}
    return settings | {"distance": named_distance(settings["distance"], in_dim)}


__all__ = [
    "cache_dir",
    "default_lengthscale",
    "default_network",
    "default_outputscale",
    "default_target",
    "matched",
    "resolve_prior",
]
