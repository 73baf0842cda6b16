"""`IndependentSurrogate`: one model an outcome, for methods that condition one output."""

from __future__ import annotations

import copy
from typing import Any

from botorch.models import ModelList
from botorch.posteriors import PosteriorList
from torch import Tensor

from bayesnet._errors import InputError, UnsupportedError
from bayesnet.surrogates.process import ProcessSurrogate
from bayesnet.surrogates.scope import lasting


class IndependentSurrogate(ModelList):
    """Outcomes taken as independent: a `ProcessSurrogate` each, with hyper-parameters of its own.

    What `Surrogate(train_X, train_Y, inference="amortised")` makes of train_Y with several columns. A
    BoTorch `ModelList`: posteriors are lists, acquisition functions of several objectives work on
    their samples.

    Args:
        models: one of each outcome.
    """

    @staticmethod
    @lasting
    def of(train_X: Tensor, train_Y: Tensor, **settings: Any) -> IndependentSurrogate:
        """One model for each column of train_Y; `settings` as of `ProcessSurrogate`.

        Raises:
            InputError: what `ProcessSurrogate` refuses.
            UnsupportedError: an `outcome_transform`, which is of all outcomes together.
        """
        if settings.get("outcome_transform") is not None:
            raise UnsupportedError(
                "Outcomes are fitted one by one: leave outcome_transform out, or make a botorch ModelList of "
                "surrogates with a transform each."
            )
        inputs = settings.pop("input_transform", None)
        return IndependentSurrogate(
            *(
                ProcessSurrogate(
                    train_X, train_Y[:, [i]], input_transform=copy.deepcopy(inputs), **settings
                )
                for i in range(train_Y.shape[-1])
            )
        )

    @property
    def train_inputs(self) -> tuple[Tensor, ...]:
        """The inputs that all models share, as (train_X,)."""
        return self._parts[0].train_inputs

    @property
    def _parts(self) -> list[ProcessSurrogate]:
        return list(self.models)  # type: ignore[arg-type]

    def posterior(
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: Any = None,
    ) -> Any:
        """The joint posterior at X (batch x q x d); see BoTorch's `ModelList`.

        `observation_noise` may be a tensor (batch x q x m) of variances.
        """
        if not isinstance(observation_noise, Tensor):
            return super().posterior(X, output_indices, observation_noise, posterior_transform)
        chosen = range(self.num_outputs) if output_indices is None else output_indices
        found = PosteriorList(
            *(
                self._parts[i].posterior(X, observation_noise=observation_noise[..., [i]])
                for i in chosen
            )
        )
        return found if posterior_transform is None else posterior_transform(posterior=found, X=X)

    @lasting
    def condition_on_observations(
        self, X: Tensor, Y: Tensor, noise: Tensor | None = None, **kwargs: Any
    ) -> IndependentSurrogate:
        """Every model given rows X (batch x n' x d) and its column of Y (batch' x n' x m).

        See `ProcessSurrogate.condition_on_observations`. Raises `InputError` for Y of another width.
        """
        if Y.shape[-1] != self.num_outputs:
            raise InputError(f"Y {tuple(Y.shape)} must have {self.num_outputs} columns.")
        return IndependentSurrogate(
            *(
                model.condition_on_observations(
                    X, Y[..., [i]], None if noise is None else noise[..., [i]]
                )
                for i, model in enumerate(self._parts)
            )
        )
