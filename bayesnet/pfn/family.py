"""The processes that tasks are drawn from, with their hyper-parameters as one vector of latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from bayesnet._errors import UnsupportedError
from bayesnet._types import Float, PyTree
from bayesnet.likelihoods.levels import DEFAULT_NOISE
from bayesnet.pfn.tasks import Tasks, has_exact_law
from bayesnet.priors import GaussianProcess, LogNormal, Normal
from bayesnet.priors.hyper import is_leaf
from bayesnet.priors.laws import is_law


@dataclass(frozen=True)
class ProcessFamily:
    """Gaussian processes with random hyper-parameters, for tables of 1 to `max_dim` columns.

    Every hyper-parameter has a slot in a vector of standard normal latents, the same for all
    numbers of columns: the noise, then those with one value, then `max_dim` for each with one value
    a column. Slots that a table does not need are masked.

    Attributes:
        parts: for d = 1, 2, ... the processes.
        weights: how often each is drawn.
        noise: the law of the noise's sd, or a number.
        unused: the probability that a column has no effect.
    """

    parts: tuple[tuple[GaussianProcess, ...], ...]
    weights: tuple[float, ...]
    noise: Any
    unused: float = 0.0

    @staticmethod
    def of(tasks: Tasks, max_dim: int) -> ProcessFamily:
        """The family of `tasks`. Raises `UnsupportedError` for other priors, means, laws and inputs."""
        if getattr(tasks.inputs, "warped", 0.0):
            raise UnsupportedError(
                "Hyper-parameters are weighed by the evidence of stationary processes, without warps: pass "
                "inputs with warped=0, or train bars instead (decoder='bars')."
            )
        parts = tuple(tasks.parts(d) for d in range(1, max_dim + 1))
        for part in (p for group in parts for p in group):
            if not has_exact_law(part) or part.mean != 0.0:
                raise UnsupportedError(
                    "Hyper-parameters are amortised for bn.GaussianProcess with mean 0, got "
                    f"{part!r}: train bars instead (decoder='bars')."
                )
            for law in (v for v in _leaves(part) if is_law(v)):
                if not isinstance(law, (LogNormal, Normal)) or len(law.shape) > 1:
                    raise UnsupportedError(
                        f"Hyper-parameters are amortised under bn.LogNormal laws, got {law!r}."
                    )
        noise = tasks.likelihood.noise_std
        return ProcessFamily(
            parts,
            tuple(float(w) for w in tasks.weights),
            DEFAULT_NOISE if noise is None else noise,
            float(getattr(tasks.inputs, "unused", 0.0)),
        )

    @property
    def max_dim(self) -> int:
        """The largest number of columns."""
        return len(self.parts)

    @property
    def num_parts(self) -> int:
        """How many kinds of processes there are."""
        return len(self.weights)

    def _counts(self) -> tuple[int, int]:
        """Slots with one value, and with one a column, that the neediest part has."""
        single, columns = 0, 0
        for part in self.parts[-1]:
            laws = [v for v in _leaves(part) if is_law(v)]
            columns = max(columns, sum(len(v.shape) for v in laws))
            single = max(single, sum(not v.shape for v in laws))
        return single, columns

    @property
    def size(self) -> int:
        """The number of slots."""
        single, columns = self._counts()
        return 1 + single + columns * self.max_dim

    def column_of_slot(self) -> np.ndarray:
        """The column that each slot belongs to (size,), -1 for those of none."""
        single, columns = self._counts()
        return np.concatenate([np.full(1 + single, -1), np.tile(np.arange(self.max_dim), columns)])

    def slots(self, part: int, d: int) -> np.ndarray:
        """The slots that tables of `d` columns use (size,)."""
        used = np.zeros(self.size, bool)
        used[0] = is_law(self.noise)
        for where in self.laws_in_slots(part, d)[0]:
            used[where] = True
        return used

    def latents(
        self, part: int, d: int, hyper: PyTree, noise: np.ndarray
    ) -> Float[np.ndarray, "b k"]:
        """The latents of drawn hyper-parameters, 0 in slots that are not in use."""
        z = np.zeros((len(noise), self.size))
        if is_law(self.noise):
            z[:, 0] = (np.log(np.asarray(noise, np.float64)) - self.noise.loc) / self.noise.scale
        for slots, law, values in zip(
            *self.laws_in_slots(part, d), _values(self.parts[d - 1][part], hyper), strict=True
        ):
            value = np.asarray(values, np.float64).reshape(len(noise), -1)
            free = np.log(value) if isinstance(law, LogNormal) else value
            z[:, slots] = (free - np.asarray(law.loc)) / np.asarray(law.scale)
        return z

    def hyper(
        self, part: int, d: int, z: Float[np.ndarray, "s k"], relevant: np.ndarray
    ) -> tuple[PyTree, np.ndarray]:
        """Hyper-parameters (leading axis s) and noise (s,) of latents, as the covariance takes them.

        A column without effect (`relevant` (s, d) false) has an infinite lengthscale.
        """
        prior = self.parts[d - 1][part]
        leaves = [
            np.broadcast_to(np.asarray(v, np.float64), (len(z), *np.shape(v)))
            if not is_law(v)
            else v
            for v in _leaves(prior)
        ]
        slots, laws = self.laws_in_slots(part, d)
        found = iter(zip(slots, laws, strict=True))
        out = []
        for leaf in leaves:
            if not is_law(leaf):
                out.append(leaf)
                continue
            where, law = next(found)
            free = np.asarray(law.loc) + np.asarray(law.scale) * z[:, where]
            value = np.exp(free) if isinstance(law, LogNormal) else free
            if law.shape:
                value = np.where(relevant, value, FLAT)
            out.append(value if law.shape else value[:, 0])
        noise = self.noise
        level = (
            np.exp(noise.loc + noise.scale * z[:, 0]) if is_law(noise) else np.full(len(z), noise)
        )
        return jax.tree.unflatten(_structure(prior), out), level

    def laws_in_slots(self, part: int, d: int) -> tuple[list[np.ndarray], list[Any]]:
        """The slots of every random hyper-parameter, in the order of the covariance's tree."""
        single, _ = self._counts()
        laws = [v for v in _leaves(self.parts[d - 1][part]) if is_law(v)]
        slots, one, many = [], 1, 1 + single
        for law in laws:
            if law.shape:
                slots.append(many + np.arange(d))
                many += self.max_dim
            else:
                slots.append(np.array([one]))
                one += 1
        return slots, laws


# The lengthscale of a column without effect.
FLAT = 1e6


def _leaves(prior: GaussianProcess) -> list[Any]:
    return jax.tree.flatten(prior.covariance.hyper, is_leaf=is_leaf)[0]


def _structure(prior: GaussianProcess) -> Any:
    return jax.tree.flatten(prior.covariance.hyper, is_leaf=is_leaf)[1]


def _values(prior: GaussianProcess, hyper: PyTree) -> list[Any]:
    """The drawn values of the random hyper-parameters."""
    drawn = _structure(prior).flatten_up_to(hyper)
    return [v for v, leaf in zip(drawn, _leaves(prior), strict=True) if is_law(leaf)]
