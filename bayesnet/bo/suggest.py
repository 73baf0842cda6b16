"""`suggest`: from a model or a table to the next points, as a pure step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from botorch.models.model import Model
from torch import Tensor

from bayesnet._columns import Names, names_at_fit
from bayesnet._errors import InputError
from bayesnet._matrix import as_matrix
from bayesnet.bo.acquisition import Problem, acquisition_function, check_acquisition
from bayesnet.bo.belief import check_belief
from bayesnet.bo.optimise import DiscreteSpace, Search, maximise, score
from bayesnet.bo.state import LoopSettings, LoopState, check_bounds
from bayesnet.surrogates.scope import torch_scope
from bayesnet.surrogates.tensors import as_tensor

# Tried points of highest posterior mean, near which the search begins as well.
PROMISING = 5


def suggest(
    model_or_data: Any,
    bounds: Any = None,
    q: int = 1,
    maximize: bool = True,
    acquisition: str = "log_nei",
    X_pending: Any = None,
    *,
    surrogate: Any = "hmc",
    prior: Any = None,
    likelihood: Any = None,
    beta: float = 4.0,
    num_restarts: int = 4,
    raw_samples: int = 256,
    seed: int = 0,
    X_baseline: Any = None,
    belief: Any = None,
    belief_strength: float = 10.0,
) -> Any:
    """The next `q` points to evaluate, one after the other, each knowing of those before it.

    Args:
        model_or_data: a table `(X, y)` or `(X, y, y_var)` in user units (where X is a data frame, other
            frames are put in the order of its columns, and so are the points); a `LoopState` (goes on
            from the last step); or any BoTorch model of one outcome.
        bounds: 2 x d, the box to search, in user units; a `LoopState` brings its own.
        q: how many points.
        maximize: the direction (a `LoopState` brings its own).
        acquisition: "log_nei", "log_ei", "ucb" or "thompson" (see `bo.acquisition`).
        X_pending: p x d points under evaluation, not to be proposed again.
        surrogate, prior: the inference and the prior, where a table is given.
        likelihood: the law of the noise, where a table is given; if None it is small (median 0.018 of the
            spread of y, see `LoopSettings`), or `y_var`. For noisy values pass a wider one, such as
            `bn.GaussianLikelihood()`.
        beta: of "ucb".
        num_restarts, raw_samples: how hard the acquisition function is searched.
        seed: the same seed gives the same points, whatever was drawn from torch's or NumPy's own
            generators before; they are left as they were.
        X_baseline: n x d points tried so far, for a model that does not hold them.
        belief: log density of the place of the optimum in user units, such as
            `bn.bo.NormalBelief(centre, std)`: improvement is multiplied by it to the power
            `belief_strength` / n (Hvarfner et al. 2022), n points having been tried.

    Returns:
        q x d points in user units: a tensor if the model or the table is of torch, else an array.

    Raises:
        InputError: unusable data or bounds, an unknown acquisition function or method.
        UnsupportedError: Thompson sampling from a model without function draws; a belief with
            "ucb" or "thompson".
    """
    check_acquisition(acquisition)
    if not isinstance(q, (int, np.integer)) or q < 1:
        raise InputError(f"q must be a positive integer, got {q!r}.")
    if num_restarts < 1 or raw_samples < num_restarts:
        raise InputError(
            f"num_restarts must be at least 1 and raw_samples at least that, got {num_restarts} "
            f"and {raw_samples}."
        )
    known = _known_names(model_or_data, bounds, X_baseline, X_pending)
    settings = LoopSettings(surrogate, prior, likelihood=likelihood, maximize=maximize)
    with torch_scope(seed, _device(model_or_data)):
        problem, box = _problem(
            model_or_data, bounds, settings, X_baseline, known, beta=beta, seed=seed
        )
        problem = _believing(problem, belief, belief_strength)
        if X_pending is not None and len(X_pending):
            problem = problem.after(_points(X_pending, "X_pending", box, known))
        points = propose(problem, acquisition, box, q, Search(num_restarts, raw_samples))
    return _as_given(points, model_or_data)


def suggest_from_pool(
    model_or_data: Any,
    candidates: Any,
    q: int = 1,
    maximize: bool = True,
    acquisition: str = "log_nei",
    X_pending: Any = None,
    *,
    bounds: Any = None,
    surrogate: Any = "hmc",
    prior: Any = None,
    likelihood: Any = None,
    beta: float = 4.0,
    seed: int = 0,
    X_baseline: Any = None,
    belief: Any = None,
    belief_strength: float = 10.0,
) -> np.ndarray:
    """The indices (q,) of the best of a table of designs that could be made.

    Args:
        candidates: k x d designs in user units, those already tried left out.
        bounds: 2 x d, the box that scales X where a table is given; the range of the
            candidates and of the table if None. Pass the range of the whole pool in a loop.

    Other arguments and errors are those of `suggest`.
    """
    check_acquisition(acquisition)
    known = _known_names(model_or_data, bounds, X_baseline, candidates)
    designs = as_matrix(candidates, "candidates", known=known)
    if not 1 <= q <= len(designs):
        raise InputError(f"q must lie between 1 and the {len(designs)} candidates, got {q}.")
    if bounds is None and isinstance(model_or_data, (tuple, list)):
        everything = np.concatenate([designs, as_matrix(model_or_data[0], "X", known=known)])
        low, high = everything.min(axis=0), everything.max(axis=0)
        bounds = np.stack([low, np.where(high > low, high, low + 1.0)])
    elif bounds is None and isinstance(model_or_data, Model):
        bounds = np.stack([np.zeros(designs.shape[1]), np.ones(designs.shape[1])])  # unused
    settings = LoopSettings(surrogate, prior, likelihood=likelihood, maximize=maximize)
    with torch_scope(seed, _device(model_or_data)):
        problem, _ = _problem(
            model_or_data, bounds, settings, X_baseline, known, beta=beta, seed=seed
        )
        pool = _points(candidates, "candidates", problem.tried, known)
        problem = _believing(problem, belief, belief_strength)
        if X_pending is not None and len(X_pending):
            problem = problem.after(_points(X_pending, "X_pending", pool, known))
        chosen: list[int] = []
        for _ in range(q):
            values = score(acquisition_function(acquisition, problem), pool)
            values[chosen] = -torch.inf
            chosen.append(int(values.argmax()))
            problem = problem.after(pool[chosen[-1:]])
    return np.array(chosen)


def propose(
    problem: Problem,
    acquisition: str,
    bounds: Tensor,
    q: int,
    search: Search,
    *,
    space: DiscreteSpace | None = None,
    avoid: Tensor | None = None,
) -> Tensor:
    """The next `q` points (q, d), greedily; `avoid` (k, d) are never proposed again."""
    found: list[Tensor] = []
    around = promising(problem)
    for _ in range(q):
        taken = [problem.tried] + [t for t in (problem.pending, avoid) if t is not None]
        point = maximise(
            acquisition_function(acquisition, problem),
            bounds,
            search=search,
            around=around,
            seed=problem.seed,
            space=space,
            taken=torch.cat(taken),
        )
        found.append(point)
        problem = problem.after(point.unsqueeze(0))
    return torch.stack(found)


def promising(problem: Problem) -> Tensor:
    """The tried points of best posterior mean, (k, d)."""
    with torch.no_grad():
        mean = problem.model.posterior(problem.tried).mean.squeeze(-1)
    order = torch.argsort(mean, descending=problem.maximize)
    return problem.tried[order[:PROMISING]]


def _believing(problem: Problem, belief: Any, strength: float) -> Problem:
    if belief is None:
        return problem
    check_belief(belief, strength)
    return replace(problem, belief=belief, belief_strength=strength)


def _problem(
    model_or_data: Any,
    bounds: Any,
    settings: LoopSettings,
    X_baseline: Any,
    known: Names | None,
    *,
    beta: float,
    seed: int,
) -> tuple[Problem, Tensor]:
    model: Any
    maximize = settings.maximize
    if isinstance(model_or_data, LoopState):
        state = model_or_data
        if state.model is None:
            raise InputError("This LoopState has seen no data: state = state.update(X, y).")
        box = state.bounds if bounds is None else check_bounds(bounds, known)
        maximize, model = state.settings.maximize, state.model
    elif bounds is None:
        raise InputError("bounds are needed: a 2 x d table of lower and upper bounds.")
    elif isinstance(model_or_data, Model):
        box, model = check_bounds(bounds, known), model_or_data
    elif isinstance(model_or_data, (tuple, list)) and len(model_or_data) in (2, 3):
        state = LoopState(check_bounds(bounds, known), settings, names=known).update(
            *model_or_data, seed=seed
        )
        box, model = state.bounds, state.model
    else:
        raise InputError(
            "suggest takes data (X, y) or (X, y, y_var), a LoopState, or a BoTorch model, got "
            f"{type(model_or_data).__name__}."
        )
    # Points are of the kind that the model was made of.
    kind = _example(model)
    limits = as_tensor(box, kind)
    if X_baseline is not None:
        tried = _points(X_baseline, "X_baseline", limits, known)
    elif (held := _training_inputs(model)) is not None:
        tried = held.detach()
    else:
        raise InputError(
            f"{type(model).__name__} does not hold its training inputs: pass X_baseline, the "
            "points tried so far."
        )
    return Problem(model, tried, None, maximize, beta, seed), limits


def _known_names(model_or_data: Any, *tables: Any) -> Names | None:
    """The names of columns, of the first that has any: all other frames are put in their order."""
    if isinstance(model_or_data, LoopState):
        if model_or_data.names is not None:
            return model_or_data.names
    elif isinstance(model_or_data, (tuple, list)) and model_or_data:
        tables = (model_or_data[0], *tables)
    return next((n for n in (names_at_fit(t, "X") for t in tables) if n is not None), None)


def _training_inputs(model: Any) -> Tensor | None:
    """The untransformed training inputs that BoTorch models hold, n x d; None of one that holds none."""
    inputs = getattr(model, "_original_train_inputs", None)
    if inputs is None and getattr(model, "train_inputs", None):
        inputs = model.train_inputs[0]
    return inputs


def _example(model: Model) -> Tensor | None:
    """A tensor on the device and in the dtype of a model's own, or None if it has none."""
    inputs = _training_inputs(model)
    return inputs if inputs is not None else next(model.parameters(), None)


def _device(model_or_data: Any) -> Any:
    """The device of a model; the CPU for what is fitted here."""
    found = _example(model_or_data) if isinstance(model_or_data, Model) else None
    return "cpu" if found is None else found.device


def _points(X: Any, name: str, like: Tensor, known: Names | None) -> Tensor:
    """A matrix of the user as points that go with those of `like` (..., d)."""
    matrix, columns = as_matrix(X, name, known=known), like.shape[-1]
    if matrix.shape[1] != columns:
        raise InputError(
            f"{name}: got {matrix.shape[1]} columns, the bounds or points tried have {columns}."
        )
    return as_tensor(matrix, like)


def _as_given(points: Tensor, model_or_data: Any) -> Any:
    """Tensors where the model or the table is of torch (as those of the table are), else an array."""
    table = model_or_data[0] if isinstance(model_or_data, (tuple, list)) else None
    if isinstance(table, Tensor):
        return points.to(table.device, table.dtype if table.is_floating_point() else None)
    return points if isinstance(model_or_data, Model) else points.cpu().numpy()
