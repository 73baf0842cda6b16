"""`PFNSurrogate`: a prior-data fitted network as a BoTorch model, conditioned in one pass."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from botorch.models.model import FantasizeMixin, Model
from torch import Tensor

from bayesnet._errors import InputError, UnsupportedError
from bayesnet.data import Scaling, make_data
from bayesnet.pfn.ensemble import PFNEnsemble
from bayesnet.pfn.posterior import PFNPosterior
from bayesnet.pfn.quadrature import QuadratureNetwork
from bayesnet.surrogates.bar_law import BarLaw
from bayesnet.surrogates.bar_posterior import BarPosterior
from bayesnet.surrogates.base import TableModel
from bayesnet.surrogates.checks import (
    check_points,
    check_settings,
    check_training,
    refuse_draws,
)
from bayesnet.surrogates.look_ahead import correlations
from bayesnet.surrogates.noise import given_noise
from bayesnet.surrogates.outcomes import OutcomeMap
from bayesnet.surrogates.pfn_bridge import PFNBridge
from bayesnet.surrogates.pfn_joint import process_correlations
from bayesnet.surrogates.scope import lasting
from bayesnet.surrogates.tensors import as_tensor


class PFNSurrogate(TableModel, FantasizeMixin):  # type: ignore[misc]
    """A PFN (Mueller et al. 2022; for optimization: Mueller et al. 2023) that BoTorch can optimize over.

    What `Surrogate(..., inference="pfn")` or `Surrogate(..., inference=bn.PFN...)` makes: the same
    arguments but for `init` and `max_draws`, which are about draws. Nothing is fitted:
    the table is encoded once, candidates are decoded against it. Posteriors are `BarPosterior`s:
    the network's own law at every point, joined over the q points by a Gaussian copula whose
    correlations come from looking one observation ahead (see `look_ahead.correlations`), or are
    those of the processes that a quadrature conditions (the weights "gp").
    Conditioning and fantasies are a new context, up to the rows that the PFN was trained for.

    Raises:
        InputError: bad tensors; more columns or rows than the PFN accepts.
        UnsupportedError: `train_Yvar`, `init`, `max_draws`, or a prior or likelihood of one's own.
    """

    @lasting
    def __init__(
        self,
        train_X: Tensor,
        train_Y: Tensor,
        train_Yvar: Tensor | None = None,
        prior: Any = None,
        inference: Any = "pfn",
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
        dtype = train_X.dtype if dtype is None else dtype
        check_settings(dtype, None)
        refuse_draws(inference, init, max_draws)
        if train_Yvar is not None:
            raise UnsupportedError(
                "A PFN learns the noise of a table and cannot be told that of each row: leave train_Yvar "
                'out, or use inference="exact".'
            )
        fitted = self._fit_table(
            train_X,
            train_Y,
            None,
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
        self._attach(fitted, dtype, device)
        self.eval()

    @classmethod
    @lasting
    def from_posterior(
        cls, posterior: PFNPosterior, *, dtype: torch.dtype = torch.float64, device: Any = "auto"
    ) -> Self:
        """A surrogate around a posterior that `pfn.fit` has made.

        Raises `UnsupportedError` for an ensemble of views.
        """
        if isinstance(posterior, PFNEnsemble):
            raise UnsupportedError(
                "A surrogate is made of one view of the table, not of an ensemble: fit without ensemble=."
            )
        self = cls.__new__(cls)
        Model.__init__(self)
        check_settings(dtype, None)
        self._attach(posterior, dtype, device)
        scaling, data = posterior.data.scaling, posterior.data
        x = as_tensor(data.x * scaling.x_scale + scaling.x_loc)
        self._set_tables(x, as_tensor(scaling.y_out(data.y)))
        return self.eval()

    def _attach(self, fitted: PFNPosterior, dtype: torch.dtype, device: Any) -> None:
        if fitted.pfn.card.get("latent", "f") is None:
            raise UnsupportedError(
                "A surrogate needs the law of the function without noise, which this PFN was not trained on: "
                "train it on bn.pfn.NumpyroModel(model, f=...)."
            )
        self.fitted = fitted
        self.likelihood = None  # of the PFN itself; BoTorch reads the attribute
        self._bridge = PFNBridge(fitted, dtype=dtype, device=device)
        # Rows that are conditioned on beside the table, scaled: (batch, r, d) and (batch, r, m).
        self._more: tuple[Tensor, Tensor] | None = None
        self._batch = torch.Size()

    @property
    def _salt(self) -> int:
        return zlib.crc32(np.ascontiguousarray(self.fitted.data.y).tobytes()) % 2**20

    @property
    def _num_fitted(self) -> int:
        return self.fitted.data.out_dim

    @property
    def batch_shape(self) -> torch.Size:
        """Empty, but for fantasies."""
        return self._batch

    @property
    def num_rows(self) -> int:
        """The rows of the context."""
        return self._bridge.num_rows + (0 if self._more is None else self._more[0].shape[-2])

    def posterior(  # type: ignore[override]
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: Any = None,
    ) -> BarPosterior:
        """The joint posterior of the functions at X, batch x q x d: shapes batch x q x m.

        Args:
            output_indices: outcomes to keep; all if None.
            observation_noise: True for new observations (the network's law of y instead of that of
                f); a tensor holds variances of Gaussian noise to add to f, 1 x m or q x m (or with
                t-batches before), in the space of transformed outcomes.
            posterior_transform: applied to samples; moments know only scalarizations.

        Raises `InputError` for X of the wrong shape or dtype, NaN, or unknown output indices.
        """
        self.eval()
        check_points(X, self.train_inputs[0].shape[-1])
        outputs = self._select(output_indices)
        inputs = self.transform_inputs(X)
        x = self._scaled(inputs)
        batch = torch.broadcast_shapes(x.shape[:-2], self._batch)
        x = x.expand(*batch, *x.shape[-2:])
        q, d = x.shape[-2:]
        flat = x.reshape(batch.numel(), q, d)
        more = self._flat_more(batch)
        if more is None:
            logits = [
                a.reshape(len(flat), q, *a.shape[1:]) for a in self._bridge.at(flat.reshape(-1, d))
            ]
        else:
            logits = list(self._bridge.given(*more, flat))
        law_y, law_f = (self._law(a.double()) for a in logits)
        noisy = observation_noise is True

        def joint() -> Tensor:
            if isinstance(self.fitted.pfn.network, QuadratureNetwork):
                found = process_correlations(self._bridge, flat, more, noisy=noisy)
            else:
                found = correlations(self._bridge, flat, law_y, law_f, more, noisy=noisy)
            return found.reshape(*batch, *found.shape[1:])

        law = law_y if noisy else law_f
        scaling = self.fitted.data.scaling
        loc, scale = (as_tensor(a, law.logits) for a in (scaling.y_loc, scaling.y_scale))
        law = replace(law, logits=law.logits.reshape(*batch, *law.logits.shape[1:]))
        law = law.affine(loc, scale)
        variance = None
        if isinstance(observation_noise, Tensor):
            variance = given_noise(observation_noise, law.mean.unsqueeze(0), self._outputs)[0]
        outcome = OutcomeMap(
            getattr(self, "outcome_transform", None), inputs, outputs, posterior_transform
        )
        return BarPosterior(law, joint, outcome, variance, X.dtype, self._salt)

    def _law(self, logits: Tensor) -> BarLaw:
        """Laws in scaled coordinates, the same bars for all outputs."""
        m = logits.shape[-2]
        edges, tails = (
            as_tensor(a, logits).expand(m, -1)
            for a in (self.fitted.pfn.bars.edges, self.fitted.pfn.bars.tails)
        )
        return BarLaw(logits, edges, tails)

    def _flat_more(self, batch: torch.Size) -> tuple[Tensor, Tensor] | None:
        """The added rows of every t-batch place, (b, r, d) and (b, r, m)."""
        if self._more is None:
            return None
        x, y = (
            a.expand(*batch, *a.shape[-2:]).reshape(batch.numel(), *a.shape[-2:])
            for a in self._more
        )
        return x, y

    def _scaled(self, inputs: Tensor) -> Tensor:
        scaling = self.fitted.data.scaling
        x = inputs.to(torch.float64)
        return (x - as_tensor(scaling.x_loc, x)) / as_tensor(scaling.x_scale, x)

    @lasting
    def condition_on_observations(
        self, X: Tensor, Y: Tensor, noise: Tensor | None = None, **kwargs: Any
    ) -> PFNSurrogate:
        """A new model on the old and the new data: a longer context, the scaling kept.

        X is batch x n' x d, Y is batch' x n' x m in the units of train_Y (more batch axes for
        fantasies); differentiable in both.

        Raises:
            InputError: tensors that do not fit, or more rows than the PFN was trained for.
            UnsupportedError: `noise`, which a PFN cannot be told; after `subset_output`.
        """
        if noise is not None:
            raise UnsupportedError("A PFN cannot be told the noise of a row: leave `noise` out.")
        inputs, targets = self._new_rows(X, Y)
        most, rows = self.fitted.pfn.max_rows, self.num_rows + X.shape[-2]
        if rows > most:
            raise InputError(
                f"The context would have {rows} rows, this PFN was trained for at most {most}: use a part "
                'of the table, or another method such as inference="exact".'
            )
        scaling = self.fitted.data.scaling
        x, y = self._scaled(inputs), targets.double()
        loc, size = (as_tensor(a, y) for a in (scaling.y_loc, scaling.y_scale))
        y = (y - loc) / size
        new = self._shallow_copy()
        new._batch = torch.broadcast_shapes(self._batch, X.shape[:-2], Y.shape[:-2])
        new._append(X, targets, new._batch)
        parts = [(x, y)] if self._more is None else [self._more, (x, y)]
        joined = [
            torch.cat([p[i].expand(*new._batch, *p[i].shape[-2:]) for p in parts], dim=-2)
            for i in range(2)
        ]
        if new._batch or any(a.requires_grad for a in joined):
            new._more = joined[0], joined[1]
        else:
            new._extend(*joined)
        return new

    def _extend(self, x: Tensor, y: Tensor) -> None:
        """Make scaled rows x (r, d), y (r, m) a part of the encoded table."""
        data = self.fitted.data
        scaling = data.scaling
        rows = np.concatenate([data.x, x.detach().cpu().numpy()])
        values = np.concatenate([data.y, y.detach().cpu().numpy()])
        table = make_data(
            rows * scaling.x_scale + scaling.x_loc,
            scaling.y_out(values),
            None,
            scaling,
            pad=False,
            host=True,
        )
        bridge = self._bridge
        self.fitted, self._more = PFNPosterior(self.fitted.pfn, table), None
        self._bridge = PFNBridge(self.fitted, dtype=bridge.dtype, device=bridge.device)
