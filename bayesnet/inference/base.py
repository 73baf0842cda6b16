"""The inference protocol, and the one table of which prior it can condition."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from bayesnet._errors import UnsupportedError
from bayesnet._types import Key
from bayesnet.data import Data
from bayesnet.priors import LatentPrior


@runtime_checkable
class Inference(Protocol):
    """A frozen dataclass of knobs with a way to condition a prior on data."""

    def supports(self, prior: Any, likelihood: Any) -> bool:
        """Whether this method can condition `prior` under `likelihood`."""
        ...

    def fit(self, prior: Any, likelihood: Any, data: Data, *, key: Key, init: Any = None) -> Any:
        """The posterior of `prior` given `data`."""
        ...


def require_latent_prior(method: str, prior: Any) -> None:
    """Raise `UnsupportedError` unless `prior` is a transport of latents (a network prior)."""
    if isinstance(prior, LatentPrior):
        return
    raise UnsupportedError(
        f"{method} conditions network priors (standard normal latents), got "
        f"{type(prior).__name__}. Match a network to it first: "
        "bn.match_prior(bn.NetworkPrior(...), target, inputs=...).prior, or bn.fit(..., target=target)."
    )
