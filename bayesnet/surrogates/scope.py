"""Where torch is as this library needs it, whatever its user has set; nothing of it is left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor


@contextmanager
def torch_scope(seed: int, device: Any = "cpu") -> Iterator[None]:
    """One search: torch's generators start from `seed`, derivatives are on, tensors are made on `device`.

    BoTorch draws from torch's global generator in places (which tried points can be the best, which
    points to refine), takes derivatives where it can, and makes tensors on the default device. All
    of it is as it was after the block, the generators too. A default dtype of half precision gives
    way to float64 for the time: torch's own Sobol engine makes NaN of it.
    """
    cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
    devices = list(range(torch.cuda.device_count())) if cuda else []
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.device(device),
        torch.random.fork_rng(devices),
        _full_precision(),
    ):
        # Not torch.manual_seed, which seeds every device, forked or not.
        torch.default_generator.manual_seed(seed % 2**63)
        for i in devices:
            torch.cuda.default_generators[i].manual_seed(seed % 2**63)
        yield


@contextmanager
def _full_precision() -> Iterator[None]:
    before = torch.get_default_dtype()
    if before in (torch.float32, torch.float64):
        yield  # all is well, and other threads see no change
        return
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def lasting(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator of what makes a model: its tensors can be differentiated later, outside.

    Tensors made inside `torch.inference_mode()` never can. So the function runs outside of it (with the
    derivatives that the caller has: none), on copies of the caller's tensors that can.
    """

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        derivatives = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.set_grad_enabled(derivatives):
            given = (_ordinary(a) for a in args)
            return function(*given, **{name: _ordinary(a) for name, a in kwargs.items()})

    return call


def _ordinary(value: Any) -> Any:
    """A copy of a tensor of inference mode, as one that can be differentiated; a transform with such buffers."""
    if isinstance(value, Tensor):
        return value.clone() if value.is_inference() else value
    for part in _modules(value):
        for name, tensor in part._buffers.items():
            part._buffers[name] = _ordinary(tensor)
    return value


def _modules(value: Any) -> list[torch.nn.Module]:
    """A module that has been made and its parts; nothing for any other value."""
    made = isinstance(value, torch.nn.Module) and "_buffers" in vars(value)
    return list(value.modules()) if made else []
