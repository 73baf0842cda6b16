"""The share of labels that are wrong: known, or learned under a logit-normal law."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesnet._errors import InputError


@dataclass(frozen=True)
class LogitNormal:
    """`1 / (1 + exp(-(loc + scale * z)))` with z standard normal: a law on (0, 1).

    The median is `1 / (1 + exp(-loc))`: 0.05 at the default. Raises `InputError` unless both
    are finite numbers and `scale` is positive.
    """

    loc: Any = -3.0
    scale: Any = 1.0

    def __post_init__(self) -> None:
        try:
            loc, scale = float(self.loc), float(self.scale)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"LogitNormal: loc and scale must be numbers, got {self.loc!r} and {self.scale!r}."
            ) from error
        if not np.isfinite(loc) or not np.isfinite(scale) or scale <= 0:
            raise InputError(
                f"LogitNormal: loc must be finite and scale positive, got {loc} and {scale}."
            )
        object.__setattr__(self, "loc", loc)
        object.__setattr__(self, "scale", scale)


def check_label_noise(value: Any) -> Any:
    """A share in [0, 1), or a `LogitNormal`. Raises `InputError` for anything else."""
    if isinstance(value, LogitNormal):
        return value
    try:
        share = float(value)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"label_noise must be a number in [0, 1) or a bn.LogitNormal, got {value!r}."
        ) from error
    if not 0 <= share < 1:
        raise InputError(f"label_noise is a share of the labels, in [0, 1), got {value!r}.")
    return share
