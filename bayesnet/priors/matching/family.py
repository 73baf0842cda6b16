"""One training for all hyper-parameters of a process: an amortised match."""

from __future__ import annotations

import re
import time
import warnings
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import ConvergenceWarning, InputError
from bayesnet._repr import brief
from bayesnet._types import Array, Float, Key, as_key
from bayesnet.priors.amortised import AmortisedPrior, ParameterMap, count_parameters, moved
from bayesnet.priors.gaussian_process import GaussianProcess
from bayesnet.priors.hyper import is_leaf
from bayesnet.priors.laws import LogNormal, Normal, is_law
from bayesnet.priors.matching.family_target import FamilyPoints, FamilyTarget
from bayesnet.priors.matching.gap import function_distance
from bayesnet.priors.matching.match import match_prior, named_distance
from bayesnet.priors.matching.points import PointLaw, as_point_law
from bayesnet.priors.matching.target import draw_target
from bayesnet.priors.matching.training import (
    HELD_OUT_FUNCTIONS,
    Run,
    Settings,
    draw_points,
    held_out,
    optimise,
)
from bayesnet.priors.network import NetworkPrior

# Sets of points of the held-out comparison; each has hyper-parameters of its own.
HELD_OUT_SETS = 16


@dataclass(frozen=True)
class FamilyGap:
    """How far an amortised prior is from the process with all hyper-parameters at one quantile.

    `distance` is as in `MatchResult`, `standard_error` over sets of points; `constant` is the
    distance of one weight law for all, that of the median, to the process at this quantile.
    """

    quantile: float
    hyperparameters: dict[str, np.ndarray]
    distance: float
    standard_error: float
    constant: float


@dataclass(frozen=True, eq=False)
class FamilyMatch:
    """What `match_family` returns; prints the gaps as a table.

    Attributes:
        prior: the `AmortisedPrior`, hyper-parameters being latents of it.
        gaps: how far it is from the process at some quantiles of the hyper-parameters' laws.
        history: arrays "loss", and "step" with "held_out", as in `MatchResult`, over
            hyper-parameters drawn from their laws.
        seconds: wall time without compilation.
        compile_seconds: that of tracing and compiling.
    """

    prior: AmortisedPrior
    gaps: tuple[FamilyGap, ...]
    history: dict[str, np.ndarray] = field(repr=False)
    seconds: float
    compile_seconds: float

    def __repr__(self) -> str:
        worst = max((gap.distance for gap in self.gaps), default=float("nan"))
        return (
            f"FamilyMatch: {brief(self.prior)} matched in {len(self.history['loss'])} steps, distance at most "
            f"{worst:.3g} at {len(self.gaps)} quantiles; print shows them"
        )

    def __str__(self) -> str:
        lines = [f"{'quantile':>9}{'distance':>10}{'+-':>8}{'constant':>10}  hyper-parameters"]
        for g in self.gaps:
            values = ", ".join(f"{k} {v[0]:.3g}" for k, v in g.hyperparameters.items())
            lines.append(
                f"{g.quantile:>9.2f}{g.distance:>10.3f}{g.standard_error:>8.3f}"
                f"{g.constant:>10.3f}  {values}"
            )
        return "\n".join(lines)


def match_family(
    prior: NetworkPrior,
    target: GaussianProcess,
    inputs: Any,
    *,
    distance: Any = "energy",
    steps: int = 2000,
    num_functions: int = 128,
    num_points: int = 64,
    learning_rate: float = 0.02,
    hidden: int = 16,
    quantiles: tuple[float, ...] = (0.05, 0.5, 0.95),
    seed: int | Key = 0,
    progress: bool = False,
) -> FamilyMatch:
    """A prior that follows the random hyper-parameters of `target`, from one training.

    First the weight law is matched to the process at the median hyper-parameters (`match_prior`);
    then a small network that maps hyper-parameters to parameters of the law is trained: every step
    draws hyper-parameters from their laws and compares functions of the process with just these
    to functions of the network prior with the mapped law. The result has the hyper-parameters
    as latents, like `bn.match_rescaled`, for any kernel.

    Args:
        prior: a `bn.NetworkPrior`; its weight law has parameters.
        target: a `bn.GaussianProcess` (sums and products too) whose random hyper-parameters are
            `bn.LogNormal` or `bn.Normal` laws, with a constant mean.
        inputs: where functions are compared, as of `bn.match_prior`.
        distance, num_functions, num_points, seed, progress: as of `bn.match_prior`.
        steps: of the training of the map.
        learning_rate: of its Adam, at the start; a cosine takes it to 0.
        hidden: units of the map.
        quantiles: of the laws (of all hyper-parameters together) at which the gap is measured.

    Raises:
        InputError: a target without random hyper-parameters or with other laws, quantiles outside
            (0, 1), and what `bn.match_prior` refuses.

    Warns:
        ConvergenceWarning: the training diverged; the best map seen is returned.
    """
    names, laws = _random_laws(target)
    if any(not 0.0 < q < 1.0 for q in quantiles):
        raise InputError(f"quantiles must lie between 0 and 1, got {quantiles}.")
    if hidden < 1 or int(hidden) != hidden:
        raise InputError(f"hidden must be a whole number of at least 1, got {hidden!r}.")
    family = FamilyTarget(target)
    size = family.size
    base = match_prior(
        prior,
        family.at_median(),
        inputs,
        distance=distance,
        num_functions=num_functions,
        num_points=num_points,
        seed=seed,
    )
    keys = jax.random.split(as_key(seed), 8)
    began = time.perf_counter()
    start = _Member(
        (base.prior.law, ParameterMap.create(keys[7], size, count_parameters(prior.law), hidden)),
        base.prior,
        size,
    )
    points = as_point_law(inputs, prior.in_dim)
    law = FamilyPoints(points, jnp.zeros(size), jnp.ones(size))
    triples = max(2, round(num_points / 3))
    xs = draw_points(law, keys[0], HELD_OUT_SETS, triples)
    functions = jax.block_until_ready(draw_target(family, keys[2], xs, HELD_OUT_FUNCTIONS))

    def far(member: Any) -> np.ndarray:
        return np.asarray(held_out(member, keys[3], xs, functions), np.float64)

    rule = named_distance(distance, prior.in_dim) if isinstance(distance, str) else distance
    settings = Settings(steps, num_functions, triples, float(learning_rate), None, progress)
    run = optimise(start, family, law, rule, far, (keys[4], keys[5], keys[6]), settings)  # type: ignore[arg-type]
    member: Any = _ended(run)
    moved_base = eqx.tree_at(lambda p: p.law, base.prior, member.law[0])
    found = AmortisedPrior(moved_base, member.law[1], names, laws)
    gaps = tuple(_gap(found, member, start, family, points, q) for q in quantiles)
    seconds = time.perf_counter() - began - run.compile_seconds + base.seconds
    compiled = run.compile_seconds + base.compile_seconds
    return FamilyMatch(found, gaps, run.history, seconds, compiled)


def _ended(run: Run) -> NetworkPrior:
    if not run.failed:
        return run.now
    warnings.warn(
        "match_family became non-finite; the best map seen is returned. Try a smaller learning_rate.",
        ConvergenceWarning,
        stacklevel=3,
    )
    return run.best


def _gap(
    found: AmortisedPrior, member: Any, start: Any, family: Any, points: PointLaw, q: float
) -> FamilyGap:
    z = jnp.full(family.size, NormalDist().inv_cdf(q), jnp.float32)
    fixed = FamilyPoints(points, z, jnp.zeros(family.size))
    distance, error = function_distance(member, family, fixed)
    constant, _ = function_distance(start, family, fixed)
    latents = np.concatenate([np.zeros(found.base.latent_size), np.asarray(z)])
    return FamilyGap(q, found.hyperparameters(latents), distance, error, constant)


class _Member(eqx.Module):
    """The prior at hyper-parameters that come as columns of its inputs (`FamilyPoints`).

    `law` holds what is trained: the weight law and the map.
    """

    law: tuple[Any, ParameterMap]
    base: NetworkPrior
    size: int = eqx.field(static=True)

    @property
    def network(self) -> Any:
        return self.base.network

    @property
    def in_dim(self) -> int:
        return self.base.in_dim + self.size

    @property
    def out_dim(self) -> int:
        return self.base.out_dim

    @property
    def units(self) -> str:
        return self.base.units

    @property
    def latent_size(self) -> int:
        return self.base.latent_size

    def apply(self, z: Float[Array, " p"], x: Float[Array, "n d+k"]) -> Float[Array, "n m"]:
        weights, map_ = self.law
        d = self.base.in_dim
        return self.base.network.apply(moved(weights, map_(x[0, d:])).decode(z), x[:, :d])


def _random_laws(target: Any) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """Names and laws of the random hyper-parameters."""
    if not isinstance(target, GaussianProcess) or not target.covariance.traceable:
        raise InputError(
            "match_family is for a bn.GaussianProcess with kernels by name or of tinygp, got "
            f"{type(target).__name__}: use bn.match_prior."
        )
    if not isinstance(target.mean, float):
        raise InputError("match_family is for processes with a constant mean.")
    flat, _ = jax.tree_util.tree_flatten_with_path(target.covariance.hyper, is_leaf=is_leaf)
    found = [(".".join(re.findall(r"\w+", jax.tree_util.keystr(p))), v) for p, v in flat]
    found = [(name, value) for name, value in found if is_law(value)]
    if not found:
        raise InputError(
            "The target has no random hyper-parameters: give laws, such as "
            "lengthscale=bn.LogNormal(0.0, 0.5), or use bn.match_prior."
        )
    for name, value in found:
        if not isinstance(value, (LogNormal, Normal)):
            raise InputError(
                f"The law of {name} must be a transport of normal latents, bn.LogNormal(loc, scale), "
                f"got {type(value).__name__}."
            )
    return tuple(name for name, _ in found), tuple(value for _, value in found)
