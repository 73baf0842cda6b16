"""What a surrogate does to its training table before it is fitted."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesnet._errors import InputError
from bayesnet.data import Scaling, identity
from bayesnet.fitting import units_of


def transformed(
    train_X: Tensor, train_Y: Tensor, train_Yvar: Tensor | None, inputs: Any, outcomes: Any
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The table in the model's space; transforms that learn from data (bounds) do so here."""
    with torch.no_grad():
        X = train_X
        if inputs is not None:
            inputs.train()
            X = inputs.to(train_X)(train_X)
        if outcomes is None:
            return X, train_Y, train_Yvar
        outcomes.train()
        try:
            Y, Yvar = outcomes(train_Y, train_Yvar, X=X)
        except NotImplementedError as error:
            raise InputError(
                f"{type(outcomes).__name__} cannot transform train_Yvar: {error}"
            ) from error
    return X, Y, Yvar


def choose_scaling(
    X: Tensor,
    Y: Tensor,
    scaling: Scaling | None,
    likelihood: Any,
    prior: Any,
    target: Any,
    inputs: Any,
    outcomes: Any,
) -> Scaling | None:
    """The coordinate map with the identity on the side of each given transform."""
    if inputs is None and outcomes is None:
        return scaling
    d, m = X.shape[1], Y.shape[1]
    if scaling is None and units_of(prior, target) == "data":
        return None
    if scaling is None:
        scale_y = getattr(likelihood, "scales_targets", False)
        scaling = Scaling.from_data(
            X.double().cpu().numpy(), Y.double().cpu().numpy(), scale_y=scale_y
        )
    x_side = (scaling.x_loc, scaling.x_scale) if inputs is None else identity(d)
    y_side = (scaling.y_loc, scaling.y_scale) if outcomes is None else identity(m)
    return Scaling(*x_side, *y_side, scaling.y_spread if outcomes is None else None)


def evenly(total: int, most: int | None) -> np.ndarray:
    """Indices of at most `most` of `total` draws, evenly spaced over the chains."""
    if most is None or total <= most:
        return np.arange(total)
    return np.linspace(0, total - 1, most).round().astype(int)
