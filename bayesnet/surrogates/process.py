"""`ProcessSurrogate`: an exact posterior as a BoTorch model, with joint laws and exact fantasies."""

from __future__ import annotations

import zlib
from typing import Any, Self

import numpy as np
import torch
from botorch.models.model import FantasizeMixin, Model
from botorch.posteriors.gpytorch import GPyTorchPosterior
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from linear_operator import to_linear_operator
from torch import Tensor

from bayesnet._errors import UnsupportedError
from bayesnet.data import Scaling
from bayesnet.posterior.process import ProcessPosterior
from bayesnet.surrogates.base import TableModel
from bayesnet.surrogates.checks import check_points, check_training, refuse_draws
from bayesnet.surrogates.conditional import Conditional, Nodes
from bayesnet.surrogates.effective import Told, effective
from bayesnet.surrogates.mixture_posterior import ScaleMixturePosterior
from bayesnet.surrogates.outcomes import OutcomeMap
from bayesnet.surrogates.scope import lasting
from bayesnet.surrogates.tensors import as_tensor

# Sds of y between which GPyTorch's least variance (1e-10) and its jitter (1e-8), both in the units of y
# squared, and BoTorch's sampler serve.
UNITS = (1e-2, 1e6)


class ProcessSurrogate(TableModel, FantasizeMixin):  # type: ignore[misc]
    """A Gaussian process, infinite network or scale mixture, fitted by `bn.Exact` when it is made.

    What `Surrogate(..., inference="exact" | "infinite_width" | "student_t" | "amortised" |
    bn.Exact(...))` makes: the same arguments but for `init` and `max_draws`, which are about draws (`dtype` has no
    meaning: all is in float64, and results in the dtype of X). Posteriors are joint over
    the q points: a `GPyTorchPosterior` for a Gaussian process, else a `ScaleMixturePosterior`
    (Student-t, or a mixture over scales and sampled hyper-parameters; also of one Gaussian at no points, or
    where the sd of y is below 0.01 or above 1e6, at which GPyTorch's rounding shows), both differentiable in X.
    `condition_on_observations` and `fantasize` are exact, hyper-parameters kept; where these were
    sampled ("amortised", `bn.Exact(hyper="hmc")`) they are reweighted. Samples of a mixture choose a
    member each: that choice has no gradient, moments have all of it.

    Raises:
        InputError: bad tensors, or what `bn.fit` refuses.
        UnsupportedError: a kernel that is not JAX code; `init` or `max_draws`.
    """

    @lasting
    def __init__(
        self,
        train_X: Tensor,
        train_Y: Tensor,
        train_Yvar: Tensor | None = None,
        prior: Any = None,
        inference: Any = "exact",
        input_transform: Any = None,
        outcome_transform: Any = None,
        likelihood: Any = None,
        target: Any = None,
        scaling: Scaling | None = None,
        seed: Any = 0,
        init: Any = None,
        dtype: torch.dtype | None = None,
        device: Any = "auto",
        warn: bool = True,
        max_draws: int | None = None,
    ) -> None:
        super().__init__()
        check_training(train_X, train_Y, train_Yvar)
        refuse_draws(inference, init, max_draws)
        fitted = self._fit_table(
            train_X,
            train_Y,
            train_Yvar,
            prior=prior,
            target=target,
            likelihood=likelihood,
            scaling=scaling,
            input_transform=input_transform,
            outcome_transform=outcome_transform,
            inference=inference,
            seed=seed,
            device=device,
            warn=warn,
        )
        self._attach(fitted)
        self.eval()

    @classmethod
    @lasting
    def from_posterior(cls, posterior: ProcessPosterior) -> Self:
        """A surrogate around a posterior that `bn.fit` has made.

        Raises `UnsupportedError` for missing targets and weights of rows.
        """
        self = cls.__new__(cls)
        Model.__init__(self)
        self._attach(posterior)
        scaling = posterior.scaling
        x = as_tensor(posterior.x * scaling.x_scale + scaling.x_loc)
        self._set_tables(x, as_tensor(scaling.y_out(posterior.y)))
        return self.eval()

    def _attach(self, fitted: ProcessPosterior) -> None:
        if type(fitted) is not ProcessPosterior:
            raise UnsupportedError(
                f"A Surrogate conditions on further points, which {type(fitted).__name__} cannot: it is no "
                "posterior. Use inference='infinite_width'."
            )
        if fitted.iterative:
            raise UnsupportedError("A Surrogate extends Cholesky factors: use solver='cholesky'.")
        if fitted.weight is not None or bool(np.isnan(fitted.y).any()):
            raise UnsupportedError(
                "A Surrogate does not keep weights of rows or missing targets: fit complete rows."
            )
        self.fitted = fitted
        self.likelihood = fitted.likelihood
        self._members = Conditional.members(fitted)
        self._batch = torch.Size()
        self._told = Told()
        # Log weights of members (members, batch): those of the fit, until rows are conditioned on.
        self._log_weight = as_tensor(fitted.log_shares)
        self._salt = zlib.crc32(np.ascontiguousarray(fitted.y).tobytes()) % 2**20
        std = as_tensor(fitted.noise_std)
        mean_var = 0.0 if fitted.y_var is None else as_tensor(fitted._mean_row_variance())
        self._noise = std.square() + mean_var  # (members, m), scaled

    @property
    def _num_fitted(self) -> int:
        return self.fitted.y.shape[1]

    @property
    def batch_shape(self) -> torch.Size:
        """Empty, but for fantasies."""
        return self._batch

    @property
    def _mixed(self) -> bool:
        return len(self._members) > 1 or self._members[0].law is not None

    @property
    def _is_extreme(self) -> bool:
        """Whether y is in units in which a `GPyTorchPosterior` would be wrong."""
        scale = self.fitted.scaling.y_scale
        return bool(((scale < UNITS[0]) | (scale > UNITS[1])).any())

    @property
    def _shared(self) -> bool:
        return not self._mixed or not getattr(self.fitted.prior, "per_output", False)

    def posterior(  # type: ignore[override]
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: Any = None,
    ) -> Any:
        """The joint posterior of the functions at X, batch x q x d: shapes batch x q x m.

        Args:
            output_indices: outcomes to keep; all if None.
            observation_noise: True adds the fitted noise; a tensor holds variances that broadcast to
                batch x q x m, in the space of transformed outcomes.
            posterior_transform: applied to the posterior (to samples, of a mixture).

        Raises:
            InputError: X of the wrong shape or dtype, NaN, or unknown output indices.
            UnsupportedError: a noise tensor where the noise scales with the function.
        """
        self.eval()
        check_points(X, self.train_inputs[0].shape[-1])
        outputs = self._select(output_indices)
        inputs = self.transform_inputs(X)
        nodes = self._nodes(inputs, observation_noise)
        nodes = nodes.to(X)
        untransform = getattr(self, "outcome_transform", None)
        if self._mixed or not X.numel() or self._is_extreme:
            outcome = OutcomeMap(untransform, inputs, outputs, posterior_transform)
            return ScaleMixturePosterior(nodes, self._shared, outcome, self._salt)
        posterior = GPyTorchPosterior(self._normal(nodes, None if untransform else outputs))
        if untransform is not None:
            posterior = untransform.untransform_posterior(posterior, X=inputs)
            if outputs is not None:
                raise UnsupportedError(
                    "Select outcomes before an outcome_transform: fit them as models of their own."
                )
        return posterior if posterior_transform is None else posterior_transform(posterior, X=X)

    def _nodes(self, inputs: Tensor, observation_noise: bool | Tensor) -> Nodes:
        """All nodes of all members, in the model's outcome space."""
        scaling = self.fitted.scaling
        x = self._scaled(inputs)
        y_scale = as_tensor(scaling.y_scale)
        parts = []
        for member, noise, weight in zip(self._members, self._noise, self._log_weight, strict=True):
            nodes = member.at(x)
            if isinstance(observation_noise, Tensor):
                if member.law is not None and not member.outside:
                    raise UnsupportedError(
                        "Noise variances in the units of y, but under noise='inside' the noise scales with "
                        "the function: use bn.ScaleMixture(..., noise='outside')."
                    )
                extra = (observation_noise.to(y_scale) / y_scale**2).mT
                extra = extra.expand(*nodes.cov.shape[:-1])
            elif observation_noise:
                extra = noise.unsqueeze(-1).expand(*nodes.cov.shape[:-1])
                if not member.outside:
                    extra = extra * nodes.scale.unsqueeze(-1)
            else:
                extra = y_scale.new_zeros(())
            cov = nodes.cov + torch.diag_embed(extra.expand(*nodes.cov.shape[:-1]))
            parts.append(
                (
                    nodes.mean * y_scale + as_tensor(scaling.y_loc),
                    cov * (y_scale**2).reshape(-1, 1, 1),
                    nodes.log_weight + weight.unsqueeze(-1),
                    nodes.scale,
                )
            )
        sizes = tuple(len(p[0]) for p in parts)
        mean, cov, log_weight, scale = (torch.cat(p) for p in zip(*parts, strict=True))
        return Nodes(mean, cov, log_weight, scale, nodes.df, sizes)

    def _scaled(self, inputs: Tensor) -> Tensor:
        scaling = self.fitted.scaling
        x = inputs.to(device="cpu", dtype=torch.float64)
        return (x - as_tensor(scaling.x_loc)) / as_tensor(scaling.x_scale)

    def _normal(self, nodes: Nodes, outputs: tuple[int, ...] | None) -> MultivariateNormal:
        mean, cov = nodes.mean[0], nodes.cov[0]
        chosen = range(mean.shape[-1]) if outputs is None else outputs
        # Lazy, so that nothing is factorised where points coincide.
        each = [
            MultivariateNormal(mean[..., j], to_linear_operator(cov[..., j, :, :])) for j in chosen
        ]
        return (
            each[0] if len(each) == 1 else MultitaskMultivariateNormal.from_independent_mvns(each)
        )

    @lasting
    def condition_on_observations(
        self, X: Tensor, Y: Tensor, noise: Tensor | None = None, **kwargs: Any
    ) -> ProcessSurrogate:
        """A new model on the old and the new data, hyper-parameters and scaling kept: exact.

        X is batch x n' x d, Y is batch' x n' x m in the units of train_Y (more batch axes for
        fantasies); differentiable in both. `noise`: variances of the new rows in the space of
        transformed outcomes; the fitted level if None. The nodes of a scale that was integrated by
        quadrature are reweighted. Sampled hyper-parameters too: each member is conditioned exactly
        and its weight multiplied by the density that it gave to the new rows (importance sampling
        among the members there are). Rows that surprise leave few of them: `effective_members`
        tells, and a warning where real rows (no batch) or, once a model, fantasies leave fewer than 3;
        of the nodes of a scale fewer than 2 (`effective_nodes`).

        Raises:
            InputError: tensors that do not fit.
            UnsupportedError: after `subset_output`; `noise` where it scales with the function; a
                scale mixture with sampled hyper-parameters.
        """
        inputs, targets = self._new_rows(X, Y)
        scaling = self.fitted.scaling
        y_scale = as_tensor(scaling.y_scale)
        y = (targets.to(y_scale) - as_tensor(scaling.y_loc)) / y_scale
        if noise is not None and self._members[0].law is not None and not self._members[0].outside:
            raise UnsupportedError(
                "Under noise='inside' the noise of new rows is not free: leave it out."
            )
        new = self._shallow_copy()
        x = self._scaled(inputs)
        shared = [
            level if noise is None else noise.to(y_scale) / y_scale**2 for level in self._noise
        ]
        if len(self._members) > 1 and self._members[0].law is not None:
            raise UnsupportedError(
                "A scale mixture with sampled hyper-parameters cannot be conditioned on more rows: use "
                "hyper='map'."
            )
        found = [
            member.condition(x, y, level)
            for member, level in zip(self._members, shared, strict=True)
        ]
        new._members = [member for member, _ in found]
        new._batch = torch.broadcast_shapes(self._batch, X.shape[:-2], Y.shape[:-2])
        new._append(X, targets, new._batch)
        gained = [density.sum(-1) for _, density in found if density is not None]
        if len(gained) > 1:
            new._log_weight = reweighted(self._log_weight, torch.stack(gained))
            before = float(effective(as_tensor(self.fitted.log_shares)))
            self._told.members(before, new.effective_members, len(gained), stacklevel=3)
        elif new.effective_nodes is not None:
            left, nodes = new.effective_nodes, self.fitted.solutions[0].log_weight
            before = float(effective(as_tensor(nodes)).min())
            self._told.nodes(before, left, len(nodes), stacklevel=3)
        return new

    @property
    def effective_members(self) -> Tensor:
        """The effective number of hyper-parameters behind the posterior (batch), `1 / sum w^2`."""
        return effective(self._log_weight)

    @property
    def effective_nodes(self) -> Tensor | None:
        """The effective number of nodes of a scale that is integrated by quadrature (batch, outputs or 1);
        None where there are no nodes."""
        first = self._members[0]
        return effective(first.log_weight) if first.law is not None and first.df is None else None


def reweighted(log_weight: Tensor, gained: Tensor) -> Tensor:
    """Log weights (members, batch) times densities (members, batch'), normalised over members."""
    more = gained.dim() - log_weight.dim()
    old = log_weight.reshape(len(log_weight), *(1,) * max(more, 0), *log_weight.shape[1:])
    gained = gained.reshape(len(gained), *(1,) * max(-more, 0), *gained.shape[1:])
    return torch.log_softmax(old + gained, dim=0)
