"""The settings that all Markov chain methods share, and how they condition a prior."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet import devices
from bayesnet._errors import InputError
from bayesnet._types import Array, Key
from bayesnet.data import Data
from bayesnet.inference._run import ChainSampler, Progress, run_chains
from bayesnet.inference._starts import has_latents, regressed
from bayesnet.inference.base import require_latent_prior
from bayesnet.inference.model import LatentModel
from bayesnet.posterior import FunctionDraws
from bayesnet.priors import LatentPrior


def check_counts(method: Any, may_be_zero: tuple[str, ...] = ()) -> None:
    """Raise `InputError` unless the fields of `method` that are counts by default are counts."""
    for field in fields(method):
        if isinstance(field.default, bool) or not isinstance(field.default, int):
            continue
        value = getattr(method, field.name)
        least = 0 if field.name in may_be_zero else 1
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole or value < least:
            raise InputError(
                f"{field.name} must be a whole number, at least {least}, got {value!r}."
            )


@dataclass(frozen=True)
class MarkovChainMonteCarlo:
    """Settings common to all of them; see `HMC` and `SGHMC`."""

    chains: int = 4
    warmup: int = 500
    draws: int = 500
    thin: int = 1

    def __post_init__(self) -> None:
        check_counts(self, may_be_zero=("warmup",))

    def chain(self) -> ChainSampler:
        """The one-chain sampler of these settings."""
        raise NotImplementedError

    def supports(self, prior: Any, likelihood: Any) -> bool:
        """Every prior that is a transport of latents, under every likelihood."""
        return isinstance(prior, LatentPrior)

    @devices.single_precision()
    def fit(
        self,
        prior: Any,
        likelihood: Any,
        data: Data,
        *,
        key: Key,
        init: Any = None,
        progress: Progress | None = None,
    ) -> FunctionDraws:
        """Draws of the posterior.

        `init`: an earlier posterior. If it came from the same method under a prior of the same
        shape its chains go on where they stopped (mass and path length kept, the step size
        tuned again during `warmup`); if from another one, chains start at its draws. Of a
        posterior of another kind (a PFN, a process, another network) only the functions are
        used: chains start where the network is near to draws of them (`_starts.py`).
        """
        require_latent_prior(type(self).__name__, prior)
        # A prior may know latents that are easier to move through; draws are kept in its own.
        form = prior.sampling_form() if hasattr(prior, "sampling_form") else None
        bound = likelihood.bind(data.scaling, data.rows)
        model = LatentModel(prior if form is None else form, bound, data.rows)
        start, states = None, None
        seconds: dict[str, float] = {}
        if init is not None:
            began = time.perf_counter()
            start, states = self._where_to_start(model, prior, likelihood, data, init, key)
            seconds["init"] = time.perf_counter() - began
        run = run_chains(
            self.chain(),
            model,
            key=key,
            chains=self.chains,
            warmup=self.warmup,
            draws=self.draws,
            thin=self.thin,
            start=start,
            warm_states=states,
            progress=progress,
        )
        return FunctionDraws(
            prior=prior,
            likelihood=likelihood,
            data=data,
            latents=run.latents
            if form is None
            else _mapped(form.law.to_latents, form, run.latents),
            stats=run.stats,
            method=self,
            states=tuple(run.states),
            seconds=seconds | run.seconds,
            interrupted=run.interrupted,
        )

    def _where_to_start(
        self, model: LatentModel, prior: Any, likelihood: Any, data: Data, init: Any, key: Key
    ) -> tuple[Any, list[Any] | None]:
        """Starts (c, p), or the states from which to go on."""
        key = jax.random.fold_in(key, 1)
        if has_latents(init, model.size):
            if init.states and type(init.method) is type(self):
                return jnp.zeros((self.chains, model.size)), list(init.states)
            flat = init.latents.reshape(-1, model.size)
            pick = jax.random.choice(key, len(flat), (self.chains,))
            start = flat[np.asarray(pick)]
        else:
            start = np.asarray(regressed(init, prior, likelihood, data, count=self.chains, key=key))
        if hasattr(model.prior, "law") and hasattr(model.prior.law, "from_latents"):
            start = _mapped(model.prior.law.from_latents, model.prior, start)
        return jnp.asarray(start), None


def _mapped(change: Callable[[Array], Array], prior: Any, latents: np.ndarray) -> np.ndarray:
    """`latents` (..., p + k) with `change` applied to the p latents of `prior` in each row."""
    p = prior.latent_size
    rows = jnp.asarray(latents.reshape(-1, latents.shape[-1]))
    changed = jnp.concatenate([jax.jit(jax.vmap(change))(rows[:, :p]), rows[:, p:]], axis=1)
    return np.asarray(changed).reshape(latents.shape)


@dataclass(frozen=True)
class MetropolisAdjusted(MarkovChainMonteCarlo):
    """Settings common to `HMC` and `NUTS`; see there."""

    target_acceptance: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.target_acceptance < 1:
            raise InputError(
                f"target_acceptance must lie between 0 and 1, got {self.target_acceptance}."
            )
