"""`AmortisedProcess`: Gaussian processes whose hyper-parameters a network reads off the table."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import log_expit, logsumexp, ndtri
from scipy.stats import qmc

from bayesnet._errors import FileFormatError, InputError, UnsupportedError
from bayesnet._types import Array, ArrayLike, Float, PyTree
from bayesnet.data import Scaling
from bayesnet.likelihoods import GaussianLikelihood
from bayesnet.pfn.family import ProcessFamily
from bayesnet.pfn.loop import run_loop
from bayesnet.pfn.posterior import pad_context
from bayesnet.pfn.proposal import ProposalNetwork, ProposedLaw
from bayesnet.pfn.proposal_training import ProposalObjective, ProposalState
from bayesnet.pfn.settings import Training
from bayesnet.pfn.setup import load_pretrained, make_card, tasks_of
from bayesnet.pfn.table import Limits, prepare
from bayesnet.pfn.tasks import Tasks
from bayesnet.posterior.process import ProcessPosterior
from bayesnet.posterior.saving import load, save
from bayesnet.priors import GaussianProcess
from bayesnet.priors.kernel_model import bare_covariance, fixed_covariance

# Draws come from the proposal with its sds times this: weights stay bounded where it is too narrow.
WIDER = 1.2
# Added to the variance of the noise, relative to that of the function, as in the training tasks.
_JITTER = 1e-7


@dataclass(frozen=True, eq=False)
class AmortisedProcess:
    """Gaussian processes with random hyper-parameters, amortised.

    A transformer that was trained on tables of the process proposes hyper-parameters for a new
    table (neural posterior estimation, Papamakarios & Murray 2016); draws are weighted by their
    exact evidence (importance sampling), so that what the network missed costs effective draws and
    not correctness; given hyper-parameters everything is in closed form. The answer is that of
    Markov chains over the hyper-parameters, without the chains.

    `network`: the weights. `family`: the processes. `card`: what it was trained on.
    """

    network: ProposalNetwork
    family: ProcessFamily
    card: dict[str, Any]

    @property
    def max_rows(self) -> int:
        """The longest table that it was trained for."""
        return int(self.card["buckets"][-1])

    @property
    def max_dim(self) -> int:
        """The most columns that it accepts; it was trained for those of `card["dims"]`."""
        return self.family.max_dim

    def __repr__(self) -> str:
        return (
            f"AmortisedProcess({self.card['name']!r}, up to {self.max_dim} columns and "
            f"{self.max_rows} rows, trained for {list(self.card['dims'])} columns)"
        )

    @staticmethod
    def from_pretrained(name: str = "gp_process") -> AmortisedProcess:
        """The weights `name` that ship with the library.

        "gp_process": Matern-5/2 and RBF kernels, with random lengthscales, amplitude and noise.
        Raises `InputError` for an unknown name and `FileFormatError` for weights that were altered
        or are of another version.
        """
        found = load_pretrained(name)
        if not isinstance(found, AmortisedProcess):
            raise InputError(
                f"The weights {name!r} are a PFN: use bn.PFN.from_pretrained({name!r})."
            )
        return found.cast(jnp.float32)

    @staticmethod
    def train(
        prior: Any,
        likelihood: Any = None,
        *,
        inputs: Any = None,
        dims: tuple[int, ...] | None = None,
        name: str = "own",
        folder: str | Path | None = None,
        progress: Any = None,
        **knobs: Any,
    ) -> AmortisedProcess:
        """Train proposals for processes with random hyper-parameters.

        Arguments as of `bn.PFN.train`; the prior is a `bn.GaussianProcess` with `bn.LogNormal` laws,
        a function `d -> GaussianProcess`, or a `bn.pfn.Mixture` of these.

        Raises `InputError` or `UnsupportedError` for what cannot be trained on.
        """
        tasks, training = tasks_of(prior, likelihood, inputs, dims, knobs)
        return train_process(tasks, training, name, folder=folder, progress=progress)

    @staticmethod
    def load(path: str | Path) -> AmortisedProcess:
        """The one saved at `path`; the file cannot run code.

        Raises `FileFormatError` for a file that is altered, of another version, or something else.
        """
        loaded = load(path)
        if not isinstance(loaded, AmortisedProcess):
            raise FileFormatError(
                f"{path} holds a {type(loaded).__name__}, not an AmortisedProcess."
            )
        return loaded.cast(jnp.float32)

    def save(self, path: str | Path, *, half: bool = True) -> None:
        """Write the weights (float16 if `half`, else float32) and the card, with a checksum."""
        save(self.cast(jnp.float16) if half else self, path)

    def cast(self, dtype: Any) -> AmortisedProcess:
        """The same with weights of another precision."""
        network = jax.tree.map(
            lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a, self.network
        )
        return AmortisedProcess(network, self.family, self.card)

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        scaling: Scaling | None = None,
        draws: int = 32,
        members: int = 16,
        longer: str = "error",
        seed: int = 0,
        warn: bool = True,
    ) -> ProcessPosterior:
        """Condition on a table.

        Args:
            X: inputs, n x d, in the user's units. y: targets (n,).
            scaling: the coordinate map; from the data (mean 0, sd 1) if None.
            draws: hyper-parameters that are proposed for each kind of process.
            members: of the mixture that is returned: a choice of these by their weights.
            longer, warn: as of `bn.PFN.fit`.
            seed: of the choice of rows if "subsample".

        Returns a `ProcessPosterior`, as `bn.Exact(hyper="hmc")` does; `search["effective_size"]`
        is the effective number of draws behind it.

        Raises `InputError` for data that cannot be used, or more columns or rows than accepted;
        `UnsupportedError` for several outputs.
        """
        if draws < 2 or members < 1:
            raise InputError(f"draws must be at least 2 and members 1, got {draws} and {members}.")
        start = time.perf_counter()
        data = prepare(X, y, self._limits, scaling=scaling, longer=longer, seed=seed, warn=warn)
        if data.out_dim != 1:
            raise UnsupportedError(
                f"Hyper-parameters are proposed for one output, the table has {data.out_dim}: fit each "
                "output by itself."
            )
        x, targets, mask, used = pad_context(self, data.x, data.y)
        law = jax.tree.map(
            lambda a: np.asarray(a, np.float64), _propose(self.network, x, targets[0], mask, used)
        )
        found = [
            self._weighted(part, law, data.x, data.y[:, 0], draws)
            for part in range(self.family.num_parts)
        ]
        weights = np.concatenate([w for w, _, _ in found])
        weights = np.exp(weights - logsumexp(weights))
        size = float(1.0 / np.sum(weights**2))
        chosen = _systematic(weights, members)
        made: dict[int, tuple[GaussianProcess, float]] = {}
        for i in sorted(set(chosen.tolist())):
            part, at = divmod(i, draws)
            made[i] = self._member(part, data.in_dim, found[part], at)
        problems = []
        if size < 3.0:
            problems.append(
                f"the network's proposals fit badly: {size:.1f} effective draws of hyper-parameters; use "
                'bn.Exact(hyper="hmc")'
            )
        posterior = ProcessPosterior(
            tuple(made[i][0] for i in chosen.tolist()),
            np.array([[made[i][1]] for i in chosen.tolist()]),
            GaussianLikelihood(),
            data.scaling,
            np.asarray(data.x, np.float64),
            np.asarray(data.y, np.float64),
            search={"hyper": "amortised", "effective_size": size, "problems": tuple(problems)},
        )
        posterior.seconds["fit"] = time.perf_counter() - start
        return posterior

    @property
    def _limits(self) -> Limits:
        return Limits(self.max_dim, self.max_rows, tuple(self.card["dims"]))

    def _member(
        self, part: int, d: int, drawn: tuple[np.ndarray, PyTree, np.ndarray], at: int
    ) -> tuple[GaussianProcess, float]:
        """The process with the hyper-parameters of one draw, and its noise."""
        _, hyper, noise = drawn
        prior = self.family.parts[d - 1][part]
        own = jax.tree.map(lambda a: a[at], hyper)
        covariance = fixed_covariance(prior.covariance, own)
        process = GaussianProcess.from_fields(covariance, prior.mean, 1, prior.units, None)
        return process, float(noise[at])

    def _weighted(
        self, part: int, law: ProposedLaw, x: np.ndarray, y: np.ndarray, draws: int
    ) -> tuple[np.ndarray, PyTree, np.ndarray]:
        """Log weights (s,) of draws for one kind of process, their hyper-parameters and noise."""
        d = x.shape[1]
        z, relevant, log_ratio = self._draw(part, d, law, draws)
        hyper, noise = self.family.hyper(part, d, z, relevant)
        covariance = bare_covariance(self.family.parts[d - 1][part].covariance)
        with jax.enable_x64(True):
            size = next((b for b in self.card["buckets"] if len(x) <= b), len(x))
            rows, values = np.zeros((size, d)), np.zeros(size)
            rows[: len(x)], values[: len(x)] = x, y
            mask = np.arange(size) < len(x)
            evidence = np.asarray(_evidence(covariance, hyper, noise, rows, values, mask))
        log_share = np.log(self.family.weights[part] / draws)
        weights = np.where(np.isfinite(evidence), evidence, -np.inf) + log_ratio + log_share
        return weights, hyper, noise

    def _draw(
        self, part: int, d: int, law: ProposedLaw, draws: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Latents (s, k), columns with an effect (s, max_dim), log prior minus log proposal (s,)."""
        family = self.family
        k, width = family.size, family.max_dim
        points = _net(draws, k + width + 1)
        share = law.log_weight + law.log_part[:, part]
        share = share - logsumexp(share)
        component = _systematic(np.exp(share), draws, points[:, -1])
        std = WIDER * np.exp(law.log_std)
        z = law.mean[component] + std[component] * ndtri(points[:, :k])
        relevant = np.zeros((draws, width), bool)
        relevant[:, :d] = True
        ratio = np.zeros(draws)
        if family.unused > 0 and d > 1:
            log_odds = law.relevance[:d]
            relevant[:, :d] = points[:, k : k + d] < 1 / (1 + np.exp(-log_odds))
            relevant[:, int(np.argmax(log_odds))] |= ~relevant[:, :d].any(axis=1)
            signed = np.where(relevant[:, :d], log_odds, -log_odds)
            known = np.where(relevant[:, :d], 1 - family.unused, family.unused)
            ratio += np.sum(np.log(known) - log_expit(signed), axis=1)
        column = family.column_of_slot()
        counted = family.slots(part, d) & ((column < 0) | relevant[:, column])
        e = (z[:, None] - law.mean) / std
        each = np.where(counted[:, None], -0.5 * e**2 - np.log(std), 0.0).sum(axis=-1)
        ratio += np.where(counted, -0.5 * z**2, 0.0).sum(axis=-1) - logsumexp(each + share, axis=1)
        return z, relevant, ratio


def train_process(
    tasks: Tasks,
    training: Training,
    name: str,
    *,
    folder: str | Path | None = None,
    progress: Any = None,
) -> AmortisedProcess:
    """Train on `tasks`; see `AmortisedProcess.train`."""
    # Only contexts are looked at.
    tasks = replace(tasks, queries=1)
    family = ProcessFamily.of(tasks, training.max_dim)
    objective = ProposalObjective(tasks, family, training)
    state: ProposalState = run_loop(objective, folder=folder, progress=progress)
    return AmortisedProcess(state.network, family, make_card(tasks, training, name))


def _net(draws: int, size: int) -> Float[np.ndarray, "s k"]:
    """Points of the unit cube that fill it evenly, always the same, away from its faces."""
    points = qmc.Sobol(size, seed=0).random(1 << (draws - 1).bit_length())[:draws]
    return np.clip(points, 1e-4, 1 - 1e-4)


def _systematic(weights: np.ndarray, num: int, order: np.ndarray | None = None) -> np.ndarray:
    """`num` indices, each as often as its weight (to within one), sorted or in an order."""
    places = (np.arange(num) + 0.5) / num
    index = np.minimum(np.searchsorted(np.cumsum(weights), places), len(weights) - 1)
    return index if order is None else index[np.argsort(np.argsort(order))]


@eqx.filter_jit
def _propose(network: ProposalNetwork, x: Array, y: Array, mask: Array, used: Array) -> ProposedLaw:
    return network(x, y, mask, used)


@partial(jax.jit, static_argnums=0)
def _evidence(
    covariance: Any,
    hyper: PyTree,
    noise: Float[Array, " s"],
    x: Float[Array, "n d"],
    y: Float[Array, " n"],
    mask: Array,
) -> Float[Array, " s"]:
    """Log evidence of the rows that `mask` marks, up to a constant, for each draw (float64)."""

    def one(hyper: PyTree, noise: Array) -> Array:
        gram = covariance.matrix(hyper, x, x) * (mask[:, None] & mask)
        ridge = noise**2 + _JITTER * jnp.diagonal(gram).max()
        factor = jnp.linalg.cholesky(gram + jnp.diag(jnp.where(mask, ridge, 1.0)))
        e = jax.scipy.linalg.solve_triangular(factor, jnp.where(mask, y, 0.0), lower=True)
        return -0.5 * e @ e - jnp.sum(jnp.log(jnp.diagonal(factor)))

    return jax.vmap(one)(hyper, noise)
