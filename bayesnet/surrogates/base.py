"""What all surrogates share: one table, fitted when the model is made, and BoTorch's bookkeeping."""

from __future__ import annotations

import copy
from typing import Any, Self

import torch
from botorch.models.model import Model
from torch import Tensor

from bayesnet._errors import InputError, UnsupportedError
from bayesnet.data import Scaling
from bayesnet.likelihoods import resolve_likelihood
from bayesnet.surrogates.checks import check_likelihood, check_method
from bayesnet.surrogates.scope import lasting
from bayesnet.surrogates.tables import choose_scaling, transformed


class TableModel(Model):
    """A BoTorch model of m outcomes around a posterior that `bn.fit` made of one table.

    A subclass calls `_fit_table` in its constructor, and says in `_num_fitted` how many outcomes
    its posterior has.
    """

    _outputs: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({getattr(self, 'fitted', 'not fitted')!r})"

    def _fit_table(
        self,
        train_X: Tensor,
        train_Y: Tensor,
        train_Yvar: Tensor | None,
        *,
        prior: Any,
        target: Any,
        likelihood: Any,
        scaling: Scaling | None,
        input_transform: Any,
        outcome_transform: Any,
        **settings: Any,
    ) -> Any:
        """The posterior of the (checked) table in the model's space; tables and transforms are kept.

        `settings` are those of `bn.fit`: `inference`, `seed`, `init`, `device`, `warn`.
        """
        from bayesnet.fitting import fit

        check_method(settings["inference"])
        likelihood = check_likelihood(resolve_likelihood(likelihood))
        X, Y, Yvar = transformed(train_X, train_Y, train_Yvar, input_transform, outcome_transform)
        scaling = choose_scaling(
            X, Y, scaling, likelihood, prior, target, input_transform, outcome_transform
        )
        posterior = fit(
            prior,
            X,
            Y,
            target=target,
            likelihood=likelihood,
            y_var=Yvar,
            scaling=scaling,
            progress=False,
            **settings,
        )
        self._set_tables(train_X, Y)
        if input_transform is not None:
            self.input_transform = input_transform
        if outcome_transform is not None:
            self.outcome_transform = outcome_transform
        return posterior

    def _set_tables(self, train_X: Tensor, Y: Tensor) -> None:
        self.train_inputs = (train_X,)
        self._set_targets(Y.detach())

    def _set_targets(self, Y: Tensor) -> None:
        """Targets batch x n x m as BoTorch keeps them: batch x n, or batch x m x n."""
        self.train_targets = Y.squeeze(-1) if Y.shape[-1] == 1 else Y.mT

    @lasting
    def eval(self) -> Self:
        """See BoTorch: the training inputs that are kept are transformed ones."""
        return super().eval()

    @lasting
    def train(self, mode: bool = True) -> Self:
        """See BoTorch: the training inputs that are kept are those given."""
        return super().train(mode)

    @lasting
    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        new.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return new

    def set_train_data(self, inputs: Any = None, targets: Any = None, strict: bool = False) -> None:
        """Swap the stored training tensors (BoTorch does so in `eval` and `train`); no refit."""
        if inputs is not None:
            self.train_inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
        if targets is not None:
            self.train_targets = targets

    @property
    def _num_fitted(self) -> int:
        """The number of outcomes of the posterior."""
        raise NotImplementedError

    @property
    def num_outputs(self) -> int:
        """m, the number of outcomes."""
        return self._num_fitted if self._outputs is None else len(self._outputs)

    def _select(self, output_indices: list[int] | None) -> tuple[int, ...] | None:
        """Indices into all outcomes of the fit."""
        if output_indices is None:
            return self._outputs
        m = self.num_outputs
        if not all(-m <= i < m for i in output_indices):
            raise InputError(f"output_indices {output_indices}: there are {m} outcomes.")
        own = self._outputs or tuple(range(m))
        return tuple(own[i] for i in output_indices)

    def subset_output(self, idcs: list[int]) -> Self:
        """The same model with only the outcomes `idcs`; nothing is fitted again."""
        new = self._shallow_copy()
        new._outputs = self._select(list(idcs))
        return new

    def _shallow_copy(self) -> Self:
        new = copy.copy(self)
        for store in ("_modules", "_buffers", "_parameters"):
            new.__dict__[store] = dict(self.__dict__[store])
        return new

    @property
    def _given_inputs(self) -> Tensor:
        """The inputs as they were given: in `eval` BoTorch keeps transformed ones in their place."""
        seen = self._original_train_inputs if self._has_transformed_inputs else None
        found: Tensor = self.train_inputs[0] if seen is None else seen
        return found

    def _new_rows(self, X: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
        """Rows X (batch x n' x d), Y (batch' x n' x m) to condition on, in the model's space.

        Raises `UnsupportedError` after `subset_output`, and `InputError` if they do not fit.
        """
        if self._outputs is not None:
            raise UnsupportedError("Condition the whole model, before subset_output.")
        if X.shape[-2] != Y.shape[-2] or Y.shape[-1] != self.num_outputs:
            raise InputError(
                f"X {tuple(X.shape)} and Y {tuple(Y.shape)} do not fit: one row of {self.num_outputs} "
                "outcomes for each row of inputs."
            )
        d = self._given_inputs.shape[-1]
        if X.shape[-1] != d:
            raise InputError(f"X {tuple(X.shape)} must have {d} columns, as train_X has.")
        if not (torch.isfinite(X).all() and torch.isfinite(Y).all()):
            raise InputError("X and Y to condition on must be finite: leave such rows out.")
        inputs, targets = self.transform_inputs(X), Y
        if hasattr(self, "outcome_transform"):
            targets, _ = self.outcome_transform(Y, None, X=inputs)
        return inputs, targets

    def _append(self, X: Tensor, targets: Tensor, batch: torch.Size) -> None:
        """Put rows X (as given) and targets (in the model's space) after those stored."""
        old = self._given_inputs
        rows = X.detach().to(old).expand(*batch, *X.shape[-2:])
        self.train_inputs = (torch.cat([old.expand(*batch, *old.shape[-2:]), rows], dim=-2),)
        if self._has_transformed_inputs:
            self._has_transformed_inputs = False
            self._set_transformed_inputs()
        kept = self.train_targets
        flat = kept.unsqueeze(-1) if self._num_fitted == 1 else kept.mT
        added = targets.detach().to(flat).expand(*batch, *targets.shape[-2:])
        self._set_targets(torch.cat([flat.expand(*batch, *flat.shape[-2:]), added], dim=-2))
