"""Acquisition functions by name: BoTorch's, on the draws of a surrogate or on any BoTorch model.

The objective handed to them is `sign * y / scale`: they maximise, and their smoothing constants
are meant for outcomes of unit spread.

- `log_nei` (default): log expected improvement over the best of each draw's own values at the
  points already tried (Letham et al. 2019; Ament et al. 2023). The noise level is learned, so
  that the best value seen is not known to be the best point.
- `log_ei`: the same against the best posterior mean at those points.
- `ucb`: mean plus `sqrt(beta)` standard deviations (q points: its Monte Carlo form).
- `thompson`: the maximum of one drawn function.

The draws of a network are what they are: a sample is a draw, and all are used once. Any other model is
sampled at a candidate and the pending points together, by 256 quasi-random samples up to four points and by
64 a point beyond, up to 1,024: the more coordinates, the more samples an expectation needs.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from botorch.acquisition import (
    AcquisitionFunction,
    PosteriorMean,
    qLogExpectedImprovement,
    qLogNoisyExpectedImprovement,
    qUpperConfidenceBound,
)
from botorch.acquisition.objective import LinearMCObjective, ScalarizedPosteriorTransform
from botorch.acquisition.thompson_sampling import PathwiseThompsonSampling
from botorch.models.gpytorch import GPyTorchModel
from botorch.sampling.get_sampler import get_sampler
from torch import Tensor

from bayesnet._errors import InputError, UnsupportedError, unknown_name
from bayesnet._scales import standardization
from bayesnet.bo.belief import BelievedAcquisition
from bayesnet.surrogates import Surrogate
from bayesnet.surrogates.scope import lasting, torch_scope
from bayesnet.surrogates.tensors import as_tensor, permutation

ACQUISITIONS = ("log_nei", "log_ei", "ucb", "thompson")
# Samples of a model that is not a set of draws: at least, for each point, and at most.
LEAST_SAMPLES, SAMPLES_A_POINT, MOST_SAMPLES = 256, 64, 1024


def check_acquisition(name: Any) -> str:
    """`name` if it is an acquisition function, else `InputError`."""
    if name not in ACQUISITIONS:
        raise unknown_name("acquisition function", name, ACQUISITIONS)
    return name


@dataclass(frozen=True)
class Problem:
    """What an acquisition function is made from.

    `model`: a BoTorch model of one outcome; `tried` (n, d): the points already evaluated;
    `pending` (p, d) or None: points that are being evaluated; `maximize`; `beta` of `ucb`; `seed`
    of Monte Carlo samples and of the Thompson draw; `belief` about the place of the optimum and its
    `belief_strength` (see `bo.belief`); `number`: how often points were added by `after`.
    """

    model: Any
    tried: Tensor
    pending: Tensor | None = None
    maximize: bool = True
    beta: float = 4.0
    seed: int = 0
    belief: Any = None
    belief_strength: float = 10.0
    number: int = 0

    @property
    def weights(self) -> Tensor:
        """(1,): the sign of the direction over the spread of the outcome."""
        spread = outcome_spread(self.model, self.tried)
        return as_tensor([(1.0 if self.maximize else -1.0) / spread], self.tried)

    @property
    def objective(self) -> LinearMCObjective:
        return LinearMCObjective(self.weights)

    def after(self, more: Tensor) -> Problem:
        """The problem with further pending points (k, d), and another seed."""
        pending = more if self.pending is None else torch.cat([self.pending, more])
        return replace(self, pending=pending, seed=self.seed + 1, number=self.number + 1)


def acquisition_function(name: str, problem: Problem) -> AcquisitionFunction:
    """The acquisition function `name`: batch x q x d -> batch, to be maximised.

    Raises `InputError` for an unknown name or a model of several outcomes, and
    `UnsupportedError` for a belief with one that is no improvement.
    """
    check_acquisition(name)
    if problem.belief is not None:
        if name not in ("log_nei", "log_ei"):
            raise UnsupportedError(
                f"A belief multiplies an improvement: use 'log_nei' or 'log_ei', not {name!r}."
            )
        base = acquisition_function(name, replace(problem, belief=None))
        return BelievedAcquisition(
            base, problem.belief, problem.belief_strength, len(problem.tried)
        )
    if problem.model.num_outputs != 1:
        raise InputError(
            f"The model has {problem.model.num_outputs} outcomes; one is optimized: "
            "model.subset_output([0])."
        )
    # BoTorch prunes the points tried by draws from torch's global generator.
    with torch_scope(problem.seed, problem.tried.device):
        return _thompson(problem) if name == "thompson" else _improvement(name, problem)


def _improvement(name: str, problem: Problem) -> AcquisitionFunction:
    sampler = _sampler(problem)
    if name == "ucb":
        return qUpperConfidenceBound(
            problem.model, problem.beta, sampler, problem.objective, X_pending=problem.pending
        )
    if name == "log_ei":
        with torch.no_grad():
            mean = problem.model.posterior(problem.tried).mean
        return qLogExpectedImprovement(
            problem.model,
            (mean * problem.weights).max(),
            sampler,
            problem.objective,
            X_pending=problem.pending,
        )
    if isinstance(problem.model, Surrogate):
        return DrawsLogNEI(problem, sampler)
    return qLogNoisyExpectedImprovement(
        problem.model,
        problem.tried,
        sampler,
        problem.objective,
        X_pending=problem.pending,
        prune_baseline=True,
        cache_root=isinstance(problem.model, GPyTorchModel),
    )


class DrawsLogNEI(qLogExpectedImprovement):
    """qLogNEI of a fixed set of function draws, at the price of qLogEI.

    qLogNoisyExpectedImprovement evaluates all baseline points with every candidate, because
    the samples of a Gaussian process must be drawn jointly. Here a sample is a function: its
    best value over the tried and pending points is computed once, and the improvement of a
    candidate is that of each draw over its own best. The values are those of qLogNEI.
    """

    _tried: Tensor | None = None

    def __init__(self, problem: Problem, sampler: Any) -> None:
        super().__init__(problem.model, 0.0, sampler, problem.objective)
        self._tried = problem.tried
        self.set_X_pending(problem.pending)

    @lasting
    def set_X_pending(self, X_pending: Tensor | None = None) -> None:
        """Count `X_pending` (p, d) among the points that must be improved upon."""
        # Nothing is concatenated to candidates: the draws' best values hold it all.
        super().set_X_pending(None)
        points = self._tried
        if points is None:  # called by the constructor of the base class
            return
        if X_pending is not None and len(X_pending):
            points = torch.cat([points, X_pending.detach().to(points)])
        with torch.no_grad():
            samples = self.get_posterior_samples(self.model.posterior(points))
            self.best_f = self.objective(samples).amax(dim=-1, keepdim=True)


def outcome_spread(model: Any, tried: Tensor) -> float:
    """A scale of the outcome: that of the surrogate, or the sd of the mean at tried points."""
    if isinstance(model, Surrogate) and getattr(model, "outcome_transform", None) is None:
        return float(model.fitted.data.scaling.y_scale[0])
    with torch.no_grad():
        mean = model.posterior(tried).mean
    _, spread = standardization(mean.double().cpu().numpy())  # 1 where they are all the same
    return float(spread[0])


def _sampler(problem: Problem) -> Any:
    """All draws of a surrogate, each once; quasi-random samples of another model."""
    draws = isinstance(problem.model, Surrogate)
    pending = 0 if problem.pending is None else len(problem.pending)
    count = problem.model.num_draws if draws else num_samples(1 + pending)
    with torch.no_grad():
        posterior = problem.model.posterior(problem.tried[:1])
    return get_sampler(posterior, torch.Size([count]), seed=problem.seed)


def num_samples(points: int) -> int:
    """How many quasi-random samples of a model are drawn at `points` points together: a power of 2."""
    wanted = 1 << (SAMPLES_A_POINT * points - 1).bit_length()
    return min(max(wanted, LEAST_SAMPLES), MOST_SAMPLES)


def _thompson(problem: Problem) -> AcquisitionFunction:
    model = problem.model
    if isinstance(model, Surrogate):
        transform = ScalarizedPosteriorTransform(problem.weights)
        drawn = one_draw(model, problem.seed - problem.number, problem.number)
        return PosteriorMean(drawn, posterior_transform=transform)
    if isinstance(model, GPyTorchModel):
        acquisition = PathwiseThompsonSampling(model, objective=problem.objective)
        # The path is drawn at the first evaluation: here, under our seed.
        with torch.no_grad():
            acquisition(problem.tried[:1].unsqueeze(0))
        return acquisition
    raise UnsupportedError(
        f"Thompson sampling needs functions drawn from the model, which {type(model).__name__} "
        "does not give: use a bayesnet Surrogate, a gpytorch model, or another acquisition."
    )


def one_draw(model: Surrogate, seed: int, number: int = 0) -> Surrogate:
    """A surrogate with a single function draw of `model`: that at place `number` of an order by `seed`, so
    that points of one batch have draws of their own."""
    fitted = model.fitted
    chains, draws = fitted.latents.shape[:2]
    order = permutation(chains * draws, torch.Generator().manual_seed(seed))
    c, s = divmod(int(order[number % len(order)]), draws)
    alone = replace(fitted, latents=fitted.latents[c : c + 1, s : s + 1], states=(), stats={})
    config = model._config
    drawn = Surrogate.from_posterior(alone, dtype=config["dtype"], device=config["device"])
    for name in ("input_transform", "outcome_transform"):
        if getattr(model, name, None) is not None:
            setattr(drawn, name, copy.deepcopy(getattr(model, name)))
    return drawn.eval()


__all__ = [
    "ACQUISITIONS",
    "DrawsLogNEI",
    "Problem",
    "acquisition_function",
    "check_acquisition",
]
