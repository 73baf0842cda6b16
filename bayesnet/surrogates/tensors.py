"""Numbers and arrays as tensors, whatever the default device and dtype of torch are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_tensor(values: Any, like: Tensor | None = None) -> Tensor:
    """`values` on the device and in the dtype of `like`; if None on the CPU, numbers in float64.

    A tensor keeps its graph, and what it has where `like` is None; arrays are copied.
    """
    # from_numpy looks at no default; torch.as_tensor makes tensors on the default device.
    found = values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
    return found if like is None else found.to(like)


def normals(shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
    """Standard normals in float64 on the CPU, from torch's own generator if None."""
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float64, device="cpu")


def permutation(n: int, generator: torch.Generator) -> Tensor:
    """The numbers below `n` in a random order, (n,)."""
    return torch.randperm(n, generator=generator, device="cpu")
