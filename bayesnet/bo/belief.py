"""A user's belief about where the optimum lies, and how an acquisition function heeds it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from botorch.acquisition import AcquisitionFunction
from botorch.utils.transforms import t_batch_mode_transform
from torch import Tensor

from bayesnet._errors import InputError
from bayesnet.surrogates.tensors import as_tensor

# Added to a density relative to its largest value: nothing is ruled out.
FLOOR = 1e-12


@dataclass(frozen=True)
class NormalBelief:
    """ "The optimum is near `centre`, give or take `std`", in user units.

    Args:
        centre: d numbers.
        std: d positive numbers, or one for all; infinite where nothing is believed.

    Raises `InputError` for numbers that are not such.
    """

    centre: tuple[float, ...]
    std: tuple[float, ...] | float

    def __post_init__(self) -> None:
        centre = tuple(float(c) for c in np.ravel(self.centre))
        std = tuple(float(s) for s in np.ravel(self.std))
        std = std * len(centre) if len(std) == 1 else std
        if len(std) != len(centre) or not all(s > 0 for s in std):
            raise InputError(
                f"std must be one positive number, or one for each of {len(centre)} columns, got {self.std}."
            )
        if not all(math.isfinite(c) for c in centre):
            raise InputError(f"centre must be finite numbers, got {self.centre}.")
        object.__setattr__(self, "centre", centre)
        object.__setattr__(self, "std", std)

    def __call__(self, X: Tensor) -> Tensor:
        """Log density up to a constant (...) at X (..., d)."""
        if X.shape[-1] != len(self.centre):
            raise InputError(
                f"The belief is about {len(self.centre)} columns, X has {X.shape[-1]}."
            )
        z = (X - as_tensor(self.centre, X)) / as_tensor(self.std, X)
        return -0.5 * z.square().sum(-1)


class BelievedAcquisition(AcquisitionFunction):
    """An improvement times the belief that the optimum is there, a belief that fades.

    `alpha(x) pi(x)^(beta / n)` (Hvarfner et al. 2022, "piBO", eq. 6), in logarithms: n is the number
    of observations, so that data overrule a wrong belief and its loss is bounded by a factor that
    goes to 1 (their theorem 1). The model is not changed: the belief guides the search only.

    Args:
        base: an acquisition function whose values are logarithms (qLogEI, qLogNEI,
            `BarExpectedImprovement(log=True)`), one point at a time.
        belief: log density of the place of the optimum, up to a constant: (..., d) in user units
            -> (...), a differentiable torch function such as `NormalBelief`; at most 0.
        strength: beta; with n = beta observations the belief counts once.
        num_observed: n.

    Raises `InputError` for a strength or a number that is not positive, or a belief that is no function.
    """

    def __init__(
        self,
        base: AcquisitionFunction,
        belief: Callable[[Tensor], Tensor],
        strength: float = 10.0,
        num_observed: int = 1,
    ) -> None:
        super().__init__(model=base.model)
        check_belief(belief, strength)
        if num_observed < 1:
            raise InputError(f"num_observed must be at least 1, got {num_observed}.")
        self.base, self.belief = base, belief
        self.power = strength / num_observed

    @t_batch_mode_transform(expected_q=1)  # type: ignore[arg-type]
    def forward(self, X: Tensor) -> Tensor:
        """(batch) values at X, batch x 1 x d."""
        value = self.base(X)
        log_density = self.belief(X.squeeze(-2)).to(value)
        floor = torch.full_like(log_density, math.log(FLOOR))
        return value + self.power * torch.logaddexp(log_density, floor)


def check_belief(belief: Any, strength: float) -> None:
    """Raise `InputError` unless `belief` is a function and `strength` a positive number."""
    if not callable(belief):
        raise InputError(
            "belief must be a function X -> log density, such as bn.bo.NormalBelief(centre, std), got "
            f"{type(belief).__name__}."
        )
    if not (isinstance(strength, (int, float)) and math.isfinite(strength) and strength > 0):
        raise InputError(f"The strength of a belief must be a positive number, got {strength!r}.")
