"""Expected improvement in closed form under Gaussian, Student-t and mixture posteriors."""

from __future__ import annotations

import math
from typing import Any

import torch
from botorch.acquisition import AcquisitionFunction
from botorch.utils.transforms import t_batch_mode_transform
from scipy.special import gammaln, stdtr
from torch import Tensor

from bayesnet._errors import InputError, UnsupportedError
from bayesnet.surrogates.mixture_posterior import ScaleMixturePosterior
from bayesnet.surrogates.scope import lasting
from bayesnet.surrogates.tensors import as_tensor


class StudentTExpectedImprovement(AcquisitionFunction):
    """`E[max(f(x) - best_f, 0)]` of one point under a `ProcessSurrogate` with a random scale.

    Under a Student-t law of nu > 1 degrees of freedom, location mu and scale sigma, with
    z = (mu - best_f) / sigma: `(mu - best_f) F(z) + sigma (nu + z^2) / (nu - 1) p(z)`, F and p its
    distribution and density (Tracey & Wolpert 2018, eq. 11). A mixture over nodes is their mean.

    Args:
        model: a `ProcessSurrogate` of one outcome.
        best_f: the value to improve upon, in the units of the outcome.
        maximize: the direction.

    Raises:
        InputError: several outcomes.
        UnsupportedError: a model without a random scale (use BoTorch's
            own), nu <= 1 (the expectation is infinite), or an outcome transform that is curved.
    """

    @lasting
    def __init__(self, model: Any, best_f: float | Tensor, maximize: bool = True) -> None:
        super().__init__(model=model)
        if model.num_outputs != 1:
            raise InputError(f"The model has {model.num_outputs} outcomes; one is optimized.")
        self.register_buffer("best_f", as_tensor(best_f).double())
        self.maximize = maximize

    @t_batch_mode_transform(expected_q=1)  # type: ignore[arg-type]
    def forward(self, X: Tensor) -> Tensor:
        """(batch) values at X, batch x 1 x d."""
        posterior = self.model.posterior(X)
        if not isinstance(posterior, ScaleMixturePosterior):
            raise UnsupportedError(
                "This model's posterior is Gaussian: use botorch's ExpectedImprovement or LogExpectedImprovement."
            )
        if not posterior.outcome.affine:
            raise UnsupportedError("Closed-form EI needs an outcome transform that is affine.")
        nodes, df = posterior.nodes, posterior.df
        if df is not None and df <= 1:
            raise UnsupportedError(
                f"The expected improvement of a t law with {df} degrees is infinite."
            )
        spread = nodes.cov.diagonal(dim1=-1, dim2=-2).mT
        mean, variance = posterior.outcome.noise_moments(nodes.mean, spread)
        mean, variance = mean[..., 0, 0], variance[..., 0, 0]
        # Relative to the others, so that the units of y do not matter.
        least = (1e-18 * variance.detach().mean()).clamp_min(1e-290)
        scale = variance.clamp_min(float(least)).sqrt()
        gap = mean - as_tensor(self.best_f, mean)
        if not self.maximize:
            gap = -gap
        z = gap / scale
        if df is None:
            density = torch.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi)
            value = gap * torch.special.ndtr(z) + scale * density
        else:
            density = student_t_density(z, df)
            value = gap * _Distribution.apply(z, df) + scale * (df + z**2) / (df - 1.0) * density
        return (nodes.log_weight[..., 0].exp() * value).sum(0)


def student_t_density(z: Tensor, df: float) -> Tensor:
    """The standard t density."""
    constant = float(gammaln((df + 1) / 2) - gammaln(df / 2)) - 0.5 * math.log(math.pi * df)
    return torch.exp(constant - 0.5 * (df + 1) * torch.log1p(z**2 / df))


class _Distribution(torch.autograd.Function):
    """The standard t distribution function, whose derivative is the density."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, df: float) -> Tensor:
        ctx.save_for_backward(z)
        ctx.df = df
        return as_tensor(stdtr(df, z.detach().cpu().numpy()), z)

    @staticmethod
    def backward(ctx: Any, by: Tensor) -> tuple[Tensor, None]:
        (z,) = ctx.saved_tensors
        return by * student_t_density(z, ctx.df), None
