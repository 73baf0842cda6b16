"""Maximising an acquisition function over a box, some columns of which may be discrete.

Scattered points (quasi-random, and perturbations of promising ones) are scored in one batch; the
best are refined by L-BFGS in the continuous columns, the discrete ones held where they are, and
then by single steps of the discrete parameters.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from botorch.exceptions.warnings import OptimizationWarning
from botorch.generation.gen import gen_candidates_scipy
from botorch.optim.initializers import initialize_q_batch
from scipy.stats import qmc
from torch import Tensor

from bayesnet._notices import said_if_slow
from bayesnet.surrogates.scope import torch_scope
from bayesnet.surrogates.tensors import as_tensor

# Points scored at once.
BLOCK = 256
SEARCHING = (
    "Maximising the acquisition function: the first step of a process also compiles the programs that evaluate the "
    "model, later ones are quicker."
)
# Rounds of steps in the discrete columns, each followed by L-BFGS in the others.
ROUNDS = 3


class DiscreteSpace(Protocol):
    """What the maximiser asks of a space with discrete columns (see `bo.space.Space`)."""

    @property
    def discrete(self) -> np.ndarray: ...

    def project(self, points: np.ndarray) -> np.ndarray: ...

    def neighbours(self, point: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Search:
    """How hard to search.

    `num_restarts`: points refined by L-BFGS; `raw_samples`: points scored before;
    `maxiter`: of L-BFGS.
    """

    num_restarts: int = 4
    raw_samples: int = 256
    maxiter: int = 50


def maximise(
    acquisition: Any,
    bounds: Tensor,
    *,
    search: Search,
    around: Tensor,
    seed: int,
    space: DiscreteSpace | None = None,
    taken: Tensor | None = None,
) -> Tensor:
    """The best point found, (d,).

    Args:
        acquisition: batch x 1 x d -> batch.
        bounds: (2, d).
        around: (k, d) promising points, some of whose perturbations are scored too.
        space: the discrete columns, if there are any; then `bounds` is the unit box.
        taken: (t, d) points that a space without continuous columns must not propose again
            (unless nothing else is left).
    """
    with said_if_slow(SEARCHING), torch_scope(seed, bounds.device):
        return _maximise(acquisition, bounds, search, around, seed, space, taken)


def _maximise(
    acquisition: Any,
    bounds: Tensor,
    search: Search,
    around: Tensor,
    seed: int,
    space: DiscreteSpace | None,
    taken: Tensor | None,
) -> Tensor:
    raw = scatter(bounds, around, search.raw_samples, seed)
    free = bounds.new_ones(bounds.shape[1], dtype=torch.bool)
    if space is not None and space.discrete.any():
        raw = as_tensor(space.project(raw.cpu().numpy()), bounds)
        free = as_tensor(~space.discrete).to(bounds.device)
        if not free.any():
            return _maximise_discrete(acquisition, raw, space, taken)
    else:
        space = None
    values = score(acquisition, raw)
    starts, _ = initialize_q_batch(raw.unsqueeze(1), values, search.num_restarts)
    points, values = _refine(acquisition, starts.squeeze(1), bounds, free, search)
    best, value = points[values.argmax()], values.max()
    for _ in range(ROUNDS):
        if space is None:
            break
        others = as_tensor(space.neighbours(best.cpu().numpy()), bounds)
        other_values = score(acquisition, others)
        if other_values.max() <= value:
            break
        start = others[other_values.argmax()].unsqueeze(0)
        points, values = _refine(acquisition, start, bounds, free, search)
        best, value = points[values.argmax()], values.max()
    return best


def scatter(bounds: Tensor, around: Tensor, num: int, seed: int) -> Tensor:
    """`num` points (num, d): three quarters Sobol, the others near the rows of `around`."""
    low, high = bounds.double().cpu().numpy()
    d = len(low)
    near = num // 4 if len(around) else 0
    sobol = qmc.Sobol(d, scramble=True, seed=seed)
    points = low + (high - low) * sobol.random_base2(int(np.ceil(np.log2(num))))[: num - near]
    if near:
        rng = np.random.default_rng(seed)
        centre = around.double().cpu().numpy()[rng.integers(len(around), size=near)]
        # From a tenth of the box down to a hundredth, in a few coordinates or in all.
        size = 10.0 ** rng.uniform(-2, -0.7, size=(near, 1)) * (high - low)
        chosen = rng.uniform(size=(near, d)) < np.maximum(rng.uniform(size=(near, 1)), 1.5 / d)
        moved = centre + np.where(chosen, size * rng.standard_normal((near, d)), 0.0)
        points = np.concatenate([points, np.clip(moved, low, high)])
    return as_tensor(points, bounds)


def score(acquisition: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """The acquisition value of each of `points` (n, d), taken one at a time: (n,)."""
    with torch.no_grad():
        return torch.cat([acquisition(block.unsqueeze(1)) for block in points.split(BLOCK)])


def _refine(
    acquisition: Any,
    starts: Tensor,
    bounds: Tensor,
    free: Tensor,
    search: Search,
) -> tuple[Tensor, Tensor]:
    """L-BFGS from `starts` (k, d) in the columns `free`: points (k, d), their values (k,).

    It runs in the unit box: its first step and its tolerances are in the units of the columns.
    """
    low, width = bounds[0], bounds[1] - bounds[0]
    inside = (starts - low) / width
    held = {int(i): inside[:, i] for i in torch.nonzero(~free).flatten()}

    def in_unit_box(u: Tensor) -> Any:
        return acquisition(low + width * u)

    unit: Any = in_unit_box  # a function serves BoTorch as well as an AcquisitionFunction
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found, _ = gen_candidates_scipy(
            inside.unsqueeze(1),
            unit,
            lower_bounds=torch.zeros_like(low),
            upper_bounds=torch.ones_like(low),
            fixed_features=held or None,
            options={"maxiter": search.maxiter},
        )
    for warning in caught:
        # Draws are evaluated in float32: close to a maximum a line search finds no more progress, and the
        # values are compared below. (BoTorch asks for these warnings whatever filters say.)
        if not issubclass(warning.category, OptimizationWarning):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    moved = torch.clamp(low + width * found.squeeze(1).detach(), bounds[0], bounds[1])
    points = torch.where(free, moved, starts)
    values, before = score(acquisition, points), score(acquisition, starts)
    better = values > before
    return torch.where(better.unsqueeze(1), points, starts), torch.maximum(values, before)


def _maximise_discrete(
    acquisition: Any,
    raw: Tensor,
    space: DiscreteSpace,
    taken: Tensor | None,
) -> Tensor:
    """Climb by single steps among the points that are not taken."""
    points = torch.unique(raw, dim=0)
    fresh = _without(points, taken)
    fresh = fresh if len(fresh) else points  # every point was tried: one is tried again
    values = score(acquisition, fresh)
    best, value = fresh[values.argmax()], values.max()
    for _ in range(10 * ROUNDS):
        others = _without(as_tensor(space.neighbours(best.cpu().numpy()), raw), taken)
        if not len(others):
            break
        values = score(acquisition, others)
        if values.max() <= value:
            break
        best, value = others[values.argmax()], values.max()
    return best


def _without(points: Tensor, taken: Tensor | None) -> Tensor:
    """The rows that are not among `taken`."""
    if taken is None or not len(taken):
        return points
    return points[(torch.cdist(points, taken.to(points)) > 1e-9).all(dim=1)]
