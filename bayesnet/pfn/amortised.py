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
from scipy.special import logsumexp

from bayesnet import devices
from bayesnet._errors import FileFormatError, InputError, UnsupportedError
from bayesnet._notices import said_if_slow
from bayesnet._types import Array, ArrayLike, Float, PyTree
from bayesnet.data import Scaling
from bayesnet.likelihoods import GaussianLikelihood
from bayesnet.pfn.context import FIRST_PASS, pad_context
from bayesnet.pfn.family import ProcessFamily
from bayesnet.pfn.importance import (
    WIDER,
    HyperProposal,
    Weighted,
    standard_error,
    thinned,
    weigh,
)
from bayesnet.pfn.joint_tasks import JointTasks
from bayesnet.pfn.loop import run_loop
from bayesnet.pfn.precision import cast
from bayesnet.pfn.proposal import ProposalNetwork, ProposedLaw
from bayesnet.pfn.proposal_training import ProposalObjective, ProposalState
from bayesnet.pfn.settings import Training
from bayesnet.pfn.setup import load_pretrained, make_card, tasks_of
from bayesnet.pfn.table import Limits, prepare
from bayesnet.pfn.tasks import Tasks
from bayesnet.posterior.process import ProcessPosterior
from bayesnet.posterior.saving import load, save
from bayesnet.priors import GaussianProcess
from bayesnet.priors.hyper import HALF_LOG_2PI
from bayesnet.priors.kernel_model import bare_covariance, fixed_covariance

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
        if isinstance(tasks, JointTasks):
            raise UnsupportedError("A NumpyroModel is a prior of bn.PFN.train alone.")
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
        return AmortisedProcess(cast(self.network, dtype), self.family, self.card)

    @devices.single_precision()
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        scaling: Scaling | None = None,
        draws: int = 64,
        members: int = 32,
        longer: str = "error",
        seed: int = 0,
        warn: bool = True,
    ) -> ProcessPosterior:
        """Condition on a table.

        Args:
            X: inputs, n x d, in the user's units.
            y: targets (n,).
            scaling: the coordinate map; from the data (mean 0, sd 1) if None.
            draws: hyper-parameters that are weighed for each kind of process; up to eight times as
                many where fewer than 32 of them are effective.
            members: of the mixture that is returned, at most: these draws with their weights. Of more
                draws that matter the heaviest are kept, and some of the others stand for the rest.
            longer, warn: as of `bn.PFN.fit`.
            seed: of the choice of rows if "subsample".

        Returns a `ProcessPosterior`, as `bn.Exact(hyper="hmc")` does; `search["effective_size"]`
        is the effective number of draws behind it, and `log_evidence` the evidence of all kinds of
        processes, hyper-parameters and columns together (importance sampling), with the standard error
        `log_evidence_error`.

        Raises `InputError` for data that cannot be used, or more columns or rows than accepted;
        `UnsupportedError` for several outputs.
        """
        if draws < 4 or members < 1:
            raise InputError(f"draws must be at least 4 and members 1, got {draws} and {members}.")
        start = time.perf_counter()
        data = prepare(X, y, self._limits, scaling=scaling, longer=longer, seed=seed, warn=warn)
        if data.out_dim != 1:
            raise UnsupportedError(
                f"Hyper-parameters are proposed for one output, the table has {data.out_dim}: fit each "
                "output by itself."
            )
        x, targets, mask, used = pad_context(self, data.x, data.y)
        with said_if_slow(FIRST_PASS):
            law = jax.tree.map(
                lambda a: np.asarray(a, np.float64),
                _propose(self.network, x, targets[0], mask, used),
            )
            d = data.in_dim
            found = [
                weigh(
                    self.family,
                    part,
                    d,
                    self._proposal(part, d, law),
                    partial(self._evidence, part, data.x, data.y[:, 0]),
                    draws,
                )
                for part in range(self.family.num_parts)
            ]
        each = [w.log_weight + np.log(s) for w, s in zip(found, self.family.weights, strict=True)]
        total = float(logsumexp(np.concatenate(each)))
        weights = np.exp(np.concatenate(each) - total)
        size = float(1.0 / np.sum(weights**2))
        error = standard_error([np.exp(w - total) for w in each])
        chosen, shares = thinned(weights, members)
        places = [(part, at) for part, w in enumerate(found) for at in range(len(w.z))]
        made = [self._member(part, at, d, found[part]) for part, at in (places[i] for i in chosen)]
        problems = []
        if size < 3.0:
            problems.append(
                f"the network's proposals fit badly: {size:.1f} effective draws of hyper-parameters; use "
                'bn.Exact(hyper="hmc")'
            )
        posterior = ProcessPosterior(
            tuple(process for process, _ in made),
            np.array([[noise] for _, noise in made]),
            GaussianLikelihood(),
            data.scaling,
            np.asarray(data.x, np.float64),
            np.asarray(data.y, np.float64),
            search={
                "hyper": "amortised",
                "effective_size": size,
                "problems": tuple(problems),
                "log_evidence": total - len(data.y) * HALF_LOG_2PI,
                "log_evidence_error": error,
            },
            log_weight=np.log(shares),
        )
        posterior.seconds["fit"] = time.perf_counter() - start
        return posterior

    @property
    def _limits(self) -> Limits:
        return Limits(self.max_dim, self.max_rows, tuple(self.card["dims"]))

    def _member(self, part: int, at: int, d: int, drawn: Weighted) -> tuple[GaussianProcess, float]:
        """The process with the hyper-parameters of one draw, and its noise."""
        prior = self.family.parts[d - 1][part]
        hyper, noise = self.family.hyper(part, d, drawn.z[at : at + 1], drawn.relevant[at : at + 1])
        covariance = fixed_covariance(prior.covariance, jax.tree.map(lambda a: a[0], hyper))
        process = GaussianProcess.from_fields(covariance, prior.mean, 1, prior.units, None)
        return process, float(noise[0])

    def _proposal(self, part: int, d: int, law: ProposedLaw) -> HyperProposal:
        """What the network proposes for one kind of process, a little wider."""
        share = np.asarray(law.log_weight + law.log_part[:, part])
        random = self.family.unused > 0 and d > 1
        return HyperProposal(
            share - logsumexp(share),
            np.asarray(law.mean),
            WIDER * np.exp(np.asarray(law.log_std)),
            np.asarray(law.relevance[:d]) if random else None,
        )

    def _evidence(
        self, part: int, x: np.ndarray, y: np.ndarray, z: np.ndarray, relevant: np.ndarray
    ) -> np.ndarray:
        """The log evidence of a table for each draw, up to a constant; -inf where there is none."""
        d = x.shape[1]
        hyper, noise = self.family.hyper(part, d, z, relevant)
        covariance = bare_covariance(self.family.parts[d - 1][part].covariance)
        size = next((b for b in self.card["buckets"] if len(x) <= b), len(x))
        rows, values = np.zeros((size, d)), np.zeros(size)
        rows[: len(x)], values[: len(x)] = x, y
        mask = np.arange(size) < len(x)
        with jax.enable_x64(True):
            found = np.asarray(_evidence(covariance, hyper, noise, rows, values, mask))
        return np.where(np.isfinite(found), found, -np.inf)


@devices.single_precision()
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
