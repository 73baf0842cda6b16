"""The settings that all Markov chain methods share, and how they condition a prior."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError, UnsupportedError
from bayesnet._types import Key
from bayesnet.data import Data
from bayesnet.inference._run import ChainSampler, Progress, run_chains
from bayesnet.inference.base import require_latent_prior
from bayesnet.inference.model import LatentModel
from bayesnet.posterior import FunctionDraws
from bayesnet.priors import LatentPrior


@dataclass(frozen=True)
class MarkovChainMonteCarlo:
    """Settings common to `HMC` and `NUTS`; see there."""

    chains: int = 4
    warmup: int = 500
    draws: int = 500
    thin: int = 1
    target_acceptance: float = 0.8

    def __post_init__(self) -> None:
        # Fields of subclasses (max_steps, max_depth) are counts too.
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "warmup" else 1
            if isinstance(field.default, int) and (
                not isinstance(value, (int, np.integer)) or value < least
            ):
                raise InputError(
                    f"{field.name} must be a whole number, at least {least}, got {value!r}."
                )
        if not 0 < self.target_acceptance < 1:
            raise InputError(
                f"target_acceptance must lie between 0 and 1, got {self.target_acceptance}."
            )

    def chain(self) -> ChainSampler:
        """The one-chain sampler of these settings."""
        raise NotImplementedError

    def supports(self, prior: Any, likelihood: Any) -> bool:
        """Every prior that is a transport of latents, under every likelihood."""
        return isinstance(prior, LatentPrior)

    def fit(
        self,
        prior: Any,
        likelihood: Any,
        data: Data,
        *,
        key: Key,
        init: FunctionDraws | None = None,
        progress: Progress | None = None,
    ) -> FunctionDraws:
        """Draws of the posterior.

        `init`: an earlier posterior under a prior of the same shape. If it came from the same
        method its chains go on where they stopped (mass and path length kept, the step size
        tuned again during `warmup`); otherwise chains start at its draws.
        """
        require_latent_prior(type(self).__name__, prior)
        model = LatentModel(prior, likelihood.bind(data.scaling, data.rows), data.rows)
        start, states = self._where_to_start(model, init, key)
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
            latents=run.latents,
            stats=run.stats,
            method=self,
            states=tuple(run.states),
            seconds=run.seconds,
            interrupted=run.interrupted,
        )

    def _where_to_start(
        self, model: LatentModel, init: FunctionDraws | None, key: Key
    ) -> tuple[Any, list[Any] | None]:
        if init is None:
            return None, None
        if not isinstance(init, FunctionDraws) or init.latents.shape[-1] != model.size:
            raise UnsupportedError(
                "init must be a posterior of function draws under a prior with the same network and "
                f"likelihood ({model.size} latents)."
            )
        if init.states and type(init.method) is type(self):
            return jnp.zeros((self.chains, model.size)), list(init.states)
        flat = init.latents.reshape(-1, model.size)
        pick = jax.random.choice(jax.random.fold_in(key, 1), len(flat), (self.chains,))
        return jnp.asarray(flat[np.asarray(pick)]), None
