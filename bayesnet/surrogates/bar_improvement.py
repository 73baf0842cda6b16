"""Expected and probability of improvement in closed form under the bars of a PFN."""

from __future__ import annotations

from typing import Any

from botorch.acquisition import AcquisitionFunction
from botorch.utils.transforms import t_batch_mode_transform
from torch import Tensor

from bayesnet._errors import InputError, UnsupportedError
from bayesnet.surrogates.bar_law import BarLaw
from bayesnet.surrogates.bar_posterior import BarPosterior
from bayesnet.surrogates.scope import lasting
from bayesnet.surrogates.tensors import as_tensor

# Below this, logarithms of improvements are flat.
TINY = 1e-300


class _Improvement(AcquisitionFunction):
    """What the two have in common."""

    best_f: Tensor

    @lasting
    def __init__(
        self,
        model: Any,
        best_f: float | Tensor,
        maximize: bool = True,
        log: bool = False,
        noisy: bool = False,
    ) -> None:
        super().__init__(model=model)
        if model.num_outputs != 1:
            raise InputError(f"The model has {model.num_outputs} outcomes; one is optimized.")
        self.register_buffer("best_f", as_tensor(best_f).double())
        self.maximize, self.log, self.noisy = maximize, log, noisy

    @t_batch_mode_transform(expected_q=1)  # type: ignore[arg-type]
    def forward(self, X: Tensor) -> Tensor:
        """(batch) values at X, batch x 1 x d."""
        posterior = self.model.posterior(X, observation_noise=self.noisy)
        if not isinstance(posterior, BarPosterior):
            raise UnsupportedError(
                f"{type(self).__name__} is of the bars of a PFN: use botorch's own for other models."
            )
        sign = 1.0 if self.maximize else -1.0
        best = sign * self.best_f.to(posterior.law.logits)
        value = self._value(_outcome_law(posterior, sign), best)[..., 0, 0].to(X)
        return value.clamp_min(TINY).log() if self.log else value

    def _value(self, law: BarLaw, best: Tensor) -> Tensor:
        raise NotImplementedError


class BarExpectedImprovement(_Improvement):
    """`E[max(f(x) - best_f, 0)]`: the sum over bars of the improvement within each.

    No normal approximation (Mueller et al. 2023, "PFNs4BO", section 3.2): skewed and many-peaked
    laws count as they are.

    Args:
        model: a `PFNSurrogate` of one outcome.
        best_f: the value to improve upon, in the units of the outcome.
        maximize: the direction.
        log: the logarithm, for optimizers where improvement is small.
        noisy: of a new observation (the law of y) instead of the function's value.

    Raises:
        InputError: several outcomes.
        UnsupportedError: another posterior than of bars, or an
            outcome transform that is curved.
    """

    def _value(self, law: BarLaw, best: Tensor) -> Tensor:
        return law.expected_improvement(best.expand(law.logits.shape[:-1]))


class BarProbabilityOfImprovement(_Improvement):
    """`P(f(x) > best_f)`, the mass of the bars above it; arguments of `BarExpectedImprovement`."""

    def _value(self, law: BarLaw, best: Tensor) -> Tensor:
        return law.probability_above(best.expand(law.logits.shape[:-1]))


def _outcome_law(posterior: BarPosterior, sign: float) -> BarLaw:
    """The law of `sign` times the caller's outcome."""
    outcome, law = posterior.outcome, posterior.law
    if not outcome.affine or outcome.transform is not None or posterior.noise_var is not None:
        raise UnsupportedError(
            "Closed-form improvement needs an outcome transform that is affine, and no posterior transform."
        )
    m = law.edges.shape[0]
    zero = law.logits.new_zeros(*law.logits.shape[:-2], m)
    # An affine map is known by what it makes of 0 and 1; Standardize is the same at all points.
    if outcome.untransform is None:
        loc, end = zero, zero + 1
    else:
        loc, end = (
            outcome.untransform.untransform(a, X=outcome.inputs)[0] for a in (zero, zero + 1)
        )
    loc, end = (a.reshape(-1, m)[0].to(law.logits) for a in (loc, end))
    law = law.affine(sign * loc, sign * (end - loc))
    return law if outcome.outputs is None else law.select(list(outcome.outputs))
