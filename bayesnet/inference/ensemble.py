"""The deep ensemble: networks trained from different starts, each to its own optimum.

Lakshminarayanan, Pritzel & Blundell 2017 without adversarial training; anchored: Pearce, Leibfried
& Brintrup 2020; noise added to targets: randomise-then-optimise, Bardsley, Solonen, Haario & Laine 2014.
Equations and coordinates: `DeepEnsemble`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bayesnet import devices
from bayesnet._errors import InputError, UnsupportedError
from bayesnet._types import Array, Float, Key
from bayesnet.data import Data, Rows
from bayesnet.inference._run import Progress, run_chains
from bayesnet.inference._sampling import check_counts
from bayesnet.inference._starts import has_latents, regressed
from bayesnet.inference._stochastic import minibatch, require_between
from bayesnet.inference.base import require_latent_prior
from bayesnet.inference.model import LatentModel
from bayesnet.posterior import FunctionDraws
from bayesnet.priors import LatentPrior

STARTS = ("prior", "network")
# Steps of training in one compiled piece: the resolution of progress and interruption.
CHUNK = 100
PROBE_LENGTH = 0.03


@dataclass(frozen=True)
class DeepEnsemble:
    r"""Members trained by Adam from different starts, each to a maximum of the posterior density.

    Args:
        members: networks (default 10).
        steps: steps of Adam for each, the learning rate falling to 0 along half a cosine.
        learning_rate: of the first step, in latent coordinates (prior sd 1).
        batch_size: rows of a minibatch; None for the whole table in every step.
        start: "prior", a draw of the prior; or "network", the network's own initialisation, encoded.
        prior_weight: factor of the prior's term; 1 for MAP, 0 for maximum likelihood.
        anchored: pull each member to a prior draw of its own (default) instead of to 0.
        noisy_targets: show each anchored member the targets with Gaussian noise of its own added, where
            the likelihood's noise is Gaussian (default; not with `bootstrap`, whose samples of rows
            play the same part, nor at prior_weight 0, where there are no anchors).
        bootstrap: train each member on its own sample, with replacement, of the rows.
        hold_scales: each member draws the random scale of its last layer
            (`bn.weights.ScaledLastLayer`) from its law and keeps it, as the members of Lee et al. 2022
            do: as layers widen the ensemble, with `noisy_targets=False`, tends to `bn.NTKEnsemble` of the
            mixture. Otherwise the scale is trained with the weights.

    Member k minimises, over the latents z (those of a learned noise level among them),

        -sum_rows c_ki log p(y_i + s_i e_ki | f(T(z), x_i)) + prior_weight / 2 |z - a_k|^2,

    with c_ki = 1 (`bootstrap`: how often row i was drawn), a_k = 0 (`anchored`: a_k ~ N(0, I)) and e_ki = 0
    (`noisy_targets`: e_ki ~ N(0, 1), s_i the sd of the noise of row i as the member has it).

    **What the spread of members is.** Anchored and with noisy targets (the default), a model that is linear
    in its latents has members that are independent draws of its posterior, given the level of the noise;
    a network's are an approximation of that. A learned level is trained on the targets without added
    noise, which makes it about its most probable value under the member's function, not a draw of it.
    Under other likelihoods (labels, counts, Student-t) only anchors differ between members, and their
    spread is right where there are no data but smaller than the posterior's where data inform: for
    a linear model with covariance S of the latents it is S^2 instead of S. Not anchored, it says how far
    training ends from one start to another, and nothing about the posterior.

    Optima
    depend on coordinates: this is the maximum of the density **of the latents**, which for Gaussian
    weights is that of the weights, weight decay included; for laws with random scales it is not.
    With a_k = 0 it is plain MAP, whose functions are flatter than any draw of the prior, since z = 0 is
    nothing like one; with a learned noise level it may call everything noise (40 rows of a sine,
    MLP 1-30-1: held-out RMSE 0.91 against 0.33 anchored, the noise being 0.3). Hence the default.
    Not anchored, a linear model's members all end at the ridge solution (unless bootstrapped).

    The posterior holds the members as its draws: one "chain" of `members` draws. They are
    separate optima, not draws of a law, so that R-hat and effective sample sizes do not apply, which
    `diagnostics()` says; it reports whether training has ended and how far members differ. Ctrl-C
    keeps the members as far as they were trained (`interrupted`).

    `init` goes on from the members of an earlier ensemble, from draws of another posterior, or from
    members that were regressed onto the functions of a posterior of another kind (a PFN, a process).
    Conditions every `LatentPrior` under every likelihood.

    Raises:
        InputError: counts below 1, an unknown start, rates or weights out of range.
    """

    members: int = 10
    steps: int = 3000
    learning_rate: float = 0.02
    batch_size: int | None = None
    start: str = "prior"
    prior_weight: float = 1.0
    anchored: bool = True
    bootstrap: bool = False
    hold_scales: bool = False
    noisy_targets: bool = True

    def __post_init__(self) -> None:
        check_counts(self)
        require_between("learning_rate", self.learning_rate, 0, np.inf)
        batch = self.batch_size
        if batch is not None and (not isinstance(batch, (int, np.integer)) or batch < 1):
            raise InputError(
                f"batch_size must be a whole number, at least 1, or None, got {batch!r}."
            )
        if self.start not in STARTS:
            raise InputError(f"start must be one of {STARTS}, got {self.start!r}.")
        if self.prior_weight != 0:
            require_between("prior_weight", self.prior_weight, 0, np.inf)
        for name in ("anchored", "bootstrap", "hold_scales", "noisy_targets"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} must be True or False, got {getattr(self, name)!r}.")

    def trainer(self, held: tuple[int, ...] = ()) -> Trainer:
        """The training of one member under these settings; latents `held` stay where they start."""
        return Trainer(
            self.batch_size,
            float(self.prior_weight),
            self.anchored,
            self.bootstrap,
            float(self.learning_rate),
            held,
            self.noisy_targets and self.anchored and not self.bootstrap and self.prior_weight > 0,
        )

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
        """The members, as draws (1, members, p). `init`: see the class."""
        require_latent_prior("DeepEnsemble", prior)
        held = _scales_of(prior) if self.hold_scales else ()
        model = LatentModel(prior, likelihood.bind(data.scaling, data.rows), data.rows)
        key_start, key_run = jax.random.split(key)
        start, states = self._starts(model, likelihood, data, init, key_start)
        run = run_chains(
            self.trainer(held),
            model,
            key=key_run,
            chains=self.members,
            warmup=self.steps,
            draws=1,
            start=start,
            warm_states=states,
            progress=progress,
            phases=("training", "evaluation"),
            keep_unfinished=True,
        )
        return FunctionDraws(
            prior=prior,
            likelihood=likelihood,
            data=data,
            latents=run.latents.swapaxes(0, 1),
            stats={name: values.swapaxes(0, 1) for name, values in run.stats.items()},
            method=self,
            states=tuple(run.states),
            seconds={"compile": run.seconds["compile"], "training": run.seconds["warmup"]},
            interrupted=run.interrupted,
        )

    def _starts(
        self, model: LatentModel, likelihood: Any, data: Data, init: Any, key: Key
    ) -> tuple[Array, list[Any] | None]:
        p, k = model.prior.latent_size, model.likelihood.latent_size
        dtype = model.rows.y.dtype
        if init is not None:
            if not has_latents(init, p + k):
                prior, count = model.prior, self.members
                return regressed(init, prior, likelihood, data, count=count, key=key), None
            if init.states and isinstance(init.method, DeepEnsemble):
                return jnp.zeros((self.members, p + k), dtype), list(init.states)
            flat = init.latents.reshape(-1, p + k)
            # Members evenly over the draws, so that they differ as much as those do.
            pick = np.linspace(0, len(flat) - 1, self.members).round().astype(int)
            return jnp.asarray(flat[pick], dtype), None
        if self.start == "prior":
            z = jax.random.normal(key, (self.members, p), dtype)
        else:
            z = _encoded_initialisations(model.prior, key, self.members).astype(dtype)
        # Noise levels start at the median of their law.
        return jnp.concatenate([z, jnp.zeros((self.members, k), dtype)], axis=1), None


def _scales_of(prior: Any) -> tuple[int, ...]:
    """Which latents are random scales that members can keep."""
    found = getattr(getattr(prior, "law", None), "scale_latents", ())
    if not found:
        raise UnsupportedError(
            "hold_scales=True is for networks whose last layer has a random scale, "
            "weights=bn.weights.ScaledLastLayer(law)."
        )
    return found


def _encoded_initialisations(prior: Any, key: Key, members: int) -> Array:
    network = getattr(prior, "network", None)
    if network is None:
        raise UnsupportedError(
            f'start="network" needs a prior with a network, got {type(prior).__name__}: use start="prior".'
        )
    keys = jax.random.split(key, members)
    return jnp.stack([prior.encode(network.init(k, prior.in_dim, prior.out_dim)) for k in keys])


class MemberState(NamedTuple):
    """One member in training: latents, Adam's moments, the anchor (p,), the counts of rows (n,).

    `own` is the number from which the noise of its targets comes, `scores` (n, m) that noise in sds, and
    `fresh` tells that these and the anchor are still to be drawn.
    """

    position: Array
    adam: Any
    anchor: Array
    counts: Array
    own: Array
    scores: Array
    fresh: Array


@dataclass(frozen=True)
class Trainer:
    """The training of one member as a `ChainSampler`: warm-up steps are Adam's, a step none."""

    batch_size: int | None
    prior_weight: float
    anchored: bool
    bootstrap: bool
    # Reaches compiled programs through the plan only, as an argument.
    learning_rate: float = field(compare=False)
    held: tuple[int, ...] = ()
    noisy_targets: bool = False
    chunk: int = field(default=CHUNK, init=False)

    def tuning(self, model: LatentModel, earlier: MemberState | None) -> tuple[Array, ...]:
        """The anchor, the number behind the noise, and whether both are still to be drawn."""
        if earlier is not None:
            return earlier.anchor, earlier.own, earlier.fresh
        none = jnp.zeros(model.size, model.rows.y.dtype)
        return none, jnp.zeros((), jnp.uint32), jnp.asarray(True)

    def init(self, model: LatentModel, z: Array, tuning: tuple[Array, ...]) -> MemberState:
        """A member that starts at latents `z` (p,)."""
        anchor, own, fresh = tuning
        counts = jnp.ones(len(model.rows.mask), z.dtype)
        scores = jnp.zeros(model.rows.y.shape, z.dtype)
        return MemberState(z, optax.scale_by_adam().init(z), anchor, counts, own, scores, fresh)

    def plan(self, total: int) -> dict[str, np.ndarray]:
        """The learning rate of each step, and which step is the first."""
        t = np.arange(total)
        rate = 0.5 * self.learning_rate * (1 + np.cos(np.pi * t / total))
        return {"rate": rate.astype(np.float32), "first": t == 0}

    def warm(
        self, model: LatentModel, state: MemberState, key: Key, t: Array, row: dict[str, Array]
    ) -> MemberState:
        """One step of Adam; the first draws the member's own anchor, rows and noise."""
        key_batch, key_own = jax.random.split(key)
        state = jax.lax.cond(
            row["first"], lambda: self._individual(model.rows, state, key_own), lambda: state
        )
        size = len(model.rows.mask) if self.batch_size is None else self.batch_size
        whole = state.counts, state.scores
        rows, beside, factor = minibatch(model.rows, key_batch, size, also=whole)
        z = state.position
        gradient = jax.grad(self._loss, argnums=1)(model, z, state, rows, *beside, factor)
        gradient = self._moving(gradient)
        update, adam = optax.scale_by_adam().update(gradient, state.adam)
        return state._replace(position=z - row["rate"] * update, adam=adam)

    def pool(self, model: LatentModel, states: list[MemberState]) -> list[MemberState]:
        """Nothing is shared."""
        return states

    def step(
        self, model: LatentModel, state: MemberState, key: Key
    ) -> tuple[MemberState, dict[str, Array]]:
        """No move: the member's densities, and how far training is from its end."""
        one = jnp.ones((), state.position.dtype)

        def loss(z: Array) -> Array:
            return self._loss(model, z, state, model.rows, state.counts, state.scores, one)

        z = state.position
        gradient = self._moving(jax.grad(loss)(z))
        norm = jnp.linalg.norm(gradient)
        unit = gradient / jnp.maximum(norm, jnp.finfo(z.dtype).tiny)
        change = jax.grad(loss)(z + PROBE_LENGTH * unit) - gradient
        curvature = jnp.abs(jnp.dot(unit, change)) / PROBE_LENGTH
        stats = {
            "log_density": model.log_density(z),
            "gradient_norm": norm,
            # What a line search along the gradient would still gain, in nats.
            "gain_left": norm**2 / (2 * jnp.maximum(curvature, 1e-6)),
            "divergent": jnp.asarray(~jnp.all(jnp.isfinite(z)), jnp.int32),
            "noisy_targets": jnp.asarray(self._randomises(model), jnp.int32),
        }
        return state, stats

    def position(self, state: MemberState) -> Array:
        """The latents of a member."""
        return state.position

    def _moving(self, gradient: Array) -> Array:
        """The gradient without the latents that are held; Adam does not move where it is 0."""
        return gradient.at[jnp.asarray(self.held)].set(0.0) if self.held else gradient

    def _individual(self, rows: Rows, state: MemberState, key: Key) -> MemberState:
        key_anchor, key_rows = jax.random.split(key)
        counts = state.counts
        drawn = jax.random.normal(key_anchor, state.anchor.shape, state.anchor.dtype)
        anchor = jnp.where(state.fresh, drawn, state.anchor)
        number = jax.random.bits(jax.random.fold_in(key, 2), (), jnp.uint32)
        own = jnp.where(state.fresh, number, state.own)
        if self.bootstrap:
            size, n = len(rows.mask), jnp.sum(rows.mask)
            chosen = jax.random.randint(key_rows, (size,), 0, n)
            # As many rows as the table has; the rest of `chosen` stands for padding.
            counts = jnp.zeros(size, counts.dtype).at[chosen].add(jnp.arange(size) < n)
        scores = _noise_of_rows(own, state.scores)
        fresh = jnp.zeros_like(state.fresh)
        return state._replace(anchor=anchor, counts=counts, own=own, scores=scores, fresh=fresh)

    def _randomises(self, model: LatentModel) -> bool:
        return self.noisy_targets and hasattr(model.likelihood, "randomised_log_prob")

    def _loss(
        self,
        model: LatentModel,
        z: Float[Array, " p"],
        state: MemberState,
        rows: Rows,
        counts: Float[Array, " n"],
        scores: Float[Array, "n m"],
        factor: Float[Array, ""],
    ) -> Float[Array, ""]:
        """The objective of `DeepEnsemble`, the sum over rows estimated from a batch."""
        batch = LatentModel(model.prior, model.likelihood, rows)
        terms = batch.log_likelihood_rows(z, scores if self._randomises(model) else None)
        anchor = state.anchor if self.anchored else 0.0
        return 0.5 * self.prior_weight * jnp.sum((z - anchor) ** 2) - factor * jnp.sum(
            counts * terms
        )


def _noise_of_rows(own: Array, like: Float[Array, "n m"]) -> Float[Array, "n m"]:
    """Standard normal numbers of a member's rows: each a function of the member and the row's place, so that
    rows keep theirs when a table grows, whatever it is padded to."""
    key = jax.random.fold_in(jax.random.key(0), own)

    def one(i: Array) -> Array:
        return jax.random.normal(jax.random.fold_in(key, i), like.shape[1:], like.dtype)

    return jax.vmap(one)(jnp.arange(len(like)))
