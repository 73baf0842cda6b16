"""The posterior that a surrogate hands to BoTorch: fixed function draws at given points."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from botorch.posteriors import Posterior
from torch import Tensor

from bayesnet._errors import InputError, UnsupportedError
from bayesnet.surrogates.outcomes import OutcomeMap
from bayesnet.surrogates.tensors import as_tensor, normals, permutation


def choose_draws(sample_shape: torch.Size, num_draws: int, generator: torch.Generator) -> Tensor:
    """Indices of draws, shape `sample_shape`: random permutations of all draws, one after another.

    So up to `num_draws` samples are all different, and a multiple of it uses each draw equally.
    """
    n = sample_shape.numel()
    rounds = -(-n // num_draws)
    order = [permutation(num_draws, generator) for _ in range(max(rounds, 1))]
    return torch.cat(order)[:n].reshape(sample_shape)


class DrawsPosterior(Posterior):
    """An equal mixture over s functions, jointly over q points; shapes batch x q x m outside.

    A sample is one function at all points, plus observation noise if there is any.

    Args:
        draws: s x batch x q x m, function values in the model's outcome space.
        noise_var: observation noise variance in that space, broadcastable to `draws`; None for
            the posterior of the function.
        outcome: the map from there to the caller's outcomes (untransform, posterior transform).
        salt: an integer that differs between models, so that two models' samplers with the
            same seed do not pair their draws one to one.
    """

    def __init__(
        self,
        draws: Tensor,
        noise_var: Tensor | None = None,
        outcome: OutcomeMap | None = None,
        salt: int = 0,
    ) -> None:
        self._draws = draws
        self._noise_var = noise_var
        self._outcome = OutcomeMap() if outcome is None else outcome
        self.salt = salt

    @cached_property
    def _values(self) -> Tensor:
        """Noise-free outcomes, s x batch x q x m."""
        return self._outcome(self._draws)

    @property
    def values(self) -> Tensor:
        """Noise-free function draws, batch x s x q x m."""
        return self._values.movedim(0, -3)

    @property
    def num_draws(self) -> int:
        """s, the number of functions."""
        return self._draws.shape[0]

    @property
    def noisy(self) -> bool:
        """Whether samples contain observation noise."""
        return self._noise_var is not None

    @property
    def noise_shape(self) -> torch.Size:
        """q x m of the noise's base samples: points and outputs before posterior transforms."""
        return self._draws.shape[-2:]

    @property
    def batch_shape(self) -> torch.Size:
        """The t-batch shape."""
        return self._values.shape[1:-2]

    @property
    def base_sample_shape(self) -> torch.Size:
        """Samples are chosen by index, one for all batches and points: no shape of their own."""
        return torch.Size()

    @property
    def batch_range(self) -> tuple[int, int]:
        """Of `base_sample_shape`: empty."""
        return (0, 0)

    @property
    def device(self) -> torch.device:
        """The torch device of the draws."""
        return self._draws.device

    @property
    def dtype(self) -> torch.dtype:
        """The torch dtype of the draws."""
        return self._draws.dtype

    def _extended_shape(self, sample_shape: torch.Size = torch.Size()) -> torch.Size:  # noqa: B008
        return torch.Size(sample_shape) + self._values.shape[1:]

    def rsample(self, sample_shape: torch.Size | None = None) -> Tensor:
        """Samples `sample_shape x batch x q x m`; the choice comes from torch's generator.

        `sample_shape` None means (1,), as in BoTorch's own posteriors.
        """
        shape = torch.Size([1]) if sample_shape is None else torch.Size(sample_shape)
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, (1,), device="cpu")))
        index = choose_draws(shape, self.num_draws, generator)
        noise = None
        if self.noisy:
            noise = normals((*shape, *self._draws.shape[1:]), generator)
        return self.rsample_from_base_samples(shape, index, noise_samples=noise)

    def rsample_from_base_samples(
        self,
        sample_shape: torch.Size,
        base_samples: Tensor,
        noise_samples: Tensor | None = None,
    ) -> Tensor:
        """Samples `sample_shape x batch x q x m` for given draws.

        Args:
            base_samples: integer indices of draws, of shape `sample_shape`.
            noise_samples: standard normals for the observation noise, `sample_shape x q x m`
                (the same for all batches) or `sample_shape x batch x q x m`.

        Raises `InputError` if they do not fit, or a noisy posterior gets no `noise_samples`.
        """
        sample_shape = torch.Size(sample_shape)
        if base_samples.shape != sample_shape or base_samples.dtype != torch.long:
            raise InputError(
                "base_samples must be indices of draws (torch.long) of shape "
                f"{tuple(sample_shape)}, got {base_samples.dtype} {tuple(base_samples.shape)}. "
                "bayesnet.surrogates.DrawsSampler (or get_sampler) makes them."
            )
        index = base_samples.reshape(-1).to(self.device)
        shape = sample_shape + self._draws.shape[1:]
        if not self.noisy:
            picked = self._values.index_select(0, index)
            return picked.reshape(sample_shape + self._values.shape[1:])
        if noise_samples is None:
            raise InputError("A posterior with observation noise needs noise_samples as well.")
        k, batch = len(sample_shape), self._draws.dim() - 3
        if noise_samples.dim() == k + 2:
            noise_samples = noise_samples.reshape(
                *sample_shape, *(1,) * batch, *noise_samples.shape[-2:]
            )
        std = self._noise_std.index_select(0, index).reshape(shape)
        function = self._draws.index_select(0, index).reshape(shape)
        return self._outcome(function + std * noise_samples.to(function))

    @cached_property
    def _noise_std(self) -> Tensor:
        """The noise's standard deviation for every entry of the draws; only if `noisy`."""
        assert self._noise_var is not None
        return self._noise_var.sqrt().expand_as(self._draws)

    @cached_property
    def _components(self) -> tuple[Tensor, Tensor]:
        """Mean and noise variance of each draw's outcomes, s x batch x q x m."""
        assert self._noise_var is not None
        return self._outcome.noise_moments(self._draws, self._noise_var)

    @cached_property
    def mean(self) -> Tensor:
        """The mean, batch x q x m."""
        return (self._components[0] if self.noisy else self._values).mean(dim=0)

    @cached_property
    def variance(self) -> Tensor:
        """The variance of the mixture that `rsample` draws from (divisor s), batch x q x m."""
        if not self.noisy:
            return self._values.var(dim=0, correction=0)
        mean, noise = self._components
        return mean.var(dim=0, correction=0) + noise.mean(dim=0)

    def quantile(self, value: Tensor) -> Tensor:
        """Marginal quantiles at levels `value`: `value.shape x batch x q x m`.

        Of the draws themselves, interpolated, without noise (differentiable); of the mixture
        of noise laws with it (by bisection, no gradient). Outcome transforms are taken as
        increasing.

        Raises `InputError` for levels outside (0, 1).
        """
        levels = as_tensor(value, self._draws)
        if not bool(((levels > 0) & (levels < 1)).all()):
            raise InputError(f"Quantile levels must lie strictly between 0 and 1, got {value}.")
        if not self.noisy:
            flat = torch.quantile(self._values, levels.reshape(-1), dim=0)
        else:
            flat = torch.stack([self._noisy_quantile(float(q)) for q in levels.reshape(-1)])
        return flat.reshape(*levels.shape, *self._values.shape[1:])

    def density(self, value: Tensor) -> Tensor:
        """Marginal density at `value`, every entry at every point: `value.shape x batch x q x m`.

        With noise the exact mixture density; without, where the law is a set of draws, a
        Gaussian kernel estimate (Silverman's bandwidth).
        """
        points = as_tensor(value, self._draws)
        flat = torch.stack([self._density(v) for v in points.reshape(-1)])
        return flat.reshape(*points.shape, *self._values.shape[1:])

    def _density(self, value: Tensor) -> Tensor:
        if not self.noisy:
            values = self._values
            width = 1.06 * values.std(dim=0) * values.shape[0] ** -0.2
            return _normal_density(value, values, width).mean(dim=0)
        loc, scale, linked = self._noise_laws()
        if not linked:
            return _normal_density(value, loc, scale).mean(dim=0)
        # Change of variables: the law is normal in the model's outcome space.
        with torch.enable_grad():
            y = value.detach().expand(self._draws.shape[1:]).clone().requires_grad_()
            t, _ = self._outcome.untransform(y, X=self._outcome.inputs)
            (slope,) = torch.autograd.grad(t.sum(), y)
        select = self._outcome.select
        inside = _normal_density(select(t.detach()), loc, scale).mean(dim=0)
        return torch.nan_to_num(inside * select(slope).abs(), nan=0.0)

    @torch.no_grad()
    def _noisy_quantile(self, level: float) -> Tensor:
        loc, scale, linked = self._noise_laws()
        each = loc + scale * math.sqrt(2.0) * torch.erfinv(as_tensor(2 * level - 1, loc))
        low, high = each.amin(dim=0), each.amax(dim=0)
        for _ in range(60):
            middle = 0.5 * (low + high)
            below = torch.special.ndtr((middle - loc) / scale).mean(dim=0) < level
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        middle = 0.5 * (low + high)
        if not linked:
            return middle
        outputs = self._outcome.outputs
        full = middle
        if outputs is not None:
            full = middle.new_zeros(self._draws.shape[1:])
            full[..., list(outputs)] = middle
        return self._outcome.outcomes(full)

    def _noise_laws(self) -> tuple[Tensor, Tensor, bool]:
        """A normal law for each draw, and whether it is one in the model's outcome space."""
        if self._outcome.affine:
            mean, variance = self._components
            return mean, variance.sqrt(), False
        if self._outcome.transform is not None:
            raise UnsupportedError(
                "Quantiles and densities with observation noise under both a curved outcome "
                "transform and a posterior transform have no closed form: use samples."
            )
        select = self._outcome.select
        return select(self._draws), select(self._noise_std), True


def _normal_density(value: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    return torch.exp(-0.5 * ((value - loc) / scale) ** 2) / (scale * math.sqrt(2 * math.pi))
