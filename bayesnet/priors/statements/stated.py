"""The prior that obeys statements: a latent process, a clip at bounds, and a filter."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet import devices
from bayesnet._columns import order_between
from bayesnet._errors import InputError
from bayesnet._types import Array, ArrayLike, Float, Key, as_key
from bayesnet.data import Scaling
from bayesnet.priors.statements.base import SLACK, Seen, Statement
from bayesnet.priors.statements.latents import Latent, MonotoneLatent, ProcessLatent
from bayesnet.priors.statements.links import Clip
from bayesnet.priors.sums import Sum

# Draws in one go: the sizes are few, so that the programs behind them are.
BATCHES = (128, 512, 2048)
PILOT = 512


@dataclass(frozen=True, eq=False)
class StatedPrior:
    """A prior over functions of one output that obeys statements; made by `bn.elicit`.

    A matching target, and anything else that takes an object with `sample`. `a + b` with a
    process in the same coordinates adds independent draws.

    Attributes:
        statements: as they were given.
        how: in words, how each is imposed.
        scaling: the map between the user's units and the coordinates in which the prior draws.
        units: "scaled" or "data" (then the scaling is the identity).
        acceptance: the fraction of draws that the filter keeps (1 without one).
    """

    statements: tuple[Statement, ...]
    how: tuple[str, ...]
    latent: Latent = field(repr=False)
    clip: Clip = field(repr=False)
    filters: tuple[int, ...] = field(repr=False)
    rows: np.ndarray = field(repr=False)
    inner: Scaling = field(repr=False)
    scaling: Scaling = field(repr=False)
    units: str
    max_tries: int = field(repr=False)
    acceptance: float = 1.0
    order: tuple[int, ...] | None = field(default=None, repr=False)
    out_dim = 1

    @property
    def in_dim(self) -> int:
        """d, the number of inputs."""
        return self.rows.shape[1]

    def with_scaling(self, scaling: Scaling, units: str = "scaled") -> StatedPrior:
        """The same functions, drawn in the coordinates of another scaling.

        Where both know the names of columns, those of the scaling may stand in another order. Raises
        `InputError` for another number of columns or outputs, or other names.
        """
        if len(scaling.x_loc) != self.in_dim or len(scaling.y_loc) != 1:
            raise InputError(
                f"The statements are about {self.in_dim} input(s) and one output, the scaling about "
                f"{len(scaling.x_loc)} and {len(scaling.y_loc)}."
            )
        own = self.inner.names
        order = order_between(scaling.names, own, "The table")
        return replace(
            self, scaling=scaling, units=units, order=None if order is None else tuple(order)
        )

    def __add__(self, other: Any) -> Any:
        return Sum(self, other) if hasattr(other, "sample") else NotImplemented

    def __radd__(self, other: Any) -> Any:
        return Sum(other, self) if hasattr(other, "sample") else NotImplemented

    @devices.single_precision()
    def sample(self, key: int | Key, x: ArrayLike, num_samples: int) -> Float[Array, "s n 1"]:
        """`num_samples` functions at the rows of `x` (n, d), in the coordinates of `scaling`.

        Raises `InputError` for another number of columns, and if the filter finds fewer draws
        that obey than were asked for.
        """
        rows = self.scaling.matrix(x, "x")
        user = self._own(rows * self.scaling.x_scale + self.scaling.x_loc)
        values = self.draw(as_key(key), user, int(num_samples))
        return jnp.asarray(self.scaling.y_in(values[..., None]), jnp.float32)

    @devices.single_precision()
    def sample_many(
        self, key: Key, xs: Float[Array, "k n d"], num_samples: int
    ) -> Float[Array, "k s n 1"]:
        """Independent draws for each of `k` sets of rows (see `sample`)."""
        if self._is_plain():
            return self._sample_plain(key, xs, num_samples)
        keys = jax.random.split(key, len(xs))
        draws = [self.sample(k, x, num_samples) for k, x in zip(keys, xs, strict=True)]
        return jnp.stack(draws)

    def _is_plain(self) -> bool:
        latent = self.latent
        one_program = isinstance(latent, ProcessLatent) and hasattr(latent.process, "sample_many")
        return not self.filters and one_program and latent.scaling is None  # type: ignore[attr-defined]

    def _sample_plain(self, key: Key, xs: Array, num_samples: int) -> Array:
        """Without a filter, draws at all sets of rows in one program."""
        user = self._own(np.asarray(xs, np.float64) * self.scaling.x_scale + self.scaling.x_loc)
        inner = jnp.asarray(self.inner.x_in(user), jnp.float32)
        drawn = self.latent.process.sample_many(key, inner, num_samples)  # type: ignore[attr-defined]
        values = self.clip(np.asarray(drawn, np.float64))
        return jnp.asarray(self.scaling.y_in(self.inner.y_out(values)), jnp.float32)

    def _own(self, user: np.ndarray) -> np.ndarray:
        """Rows (..., d) in the order of columns that the statements are about."""
        return user if self.order is None else user[..., list(self.order)]

    def draw(self, key: Key, x: np.ndarray, num: int) -> np.ndarray:
        """`num` functions (num, n) at rows `x` (n, d), both in the user's units."""
        kept, _ = self._collect(key, x, num, self._probes(0))
        return kept[:, : len(x)]

    def piloted(self, seed: int) -> StatedPrior:
        """This prior with its acceptance rate measured.

        Raises `InputError` if no draw obeys within `max_tries`.
        """
        some = self.rows[np.random.default_rng(seed).permutation(len(self.rows))[:32]]
        least = PILOT if self.filters or isinstance(self.latent, MonotoneLatent) else 1
        kept, tried = self._collect(jax.random.key(seed), some, 1, self._probes(0), at_least=least)
        return replace(self, acceptance=len(kept) / tried)

    def _probes(self, seed: int) -> list[np.ndarray]:
        """The points at which the filter looks at every draw, besides those asked for."""
        rng = np.random.default_rng(seed)
        return [self.statements[number].probes(self.rows, rng) for number in self.filters]

    def _collect(
        self,
        key: Key,
        x: np.ndarray,
        num: int,
        probes: list[np.ndarray],
        at_least: int = 0,
    ) -> tuple[np.ndarray, int]:
        """At least `num` kept draws (s, n + probes) and how many were tried to find them.

        All that were kept if `at_least` is given, of at least so many tries; else `num`.
        """
        points = np.concatenate([x, *probes])
        inner = self.inner.x_in(points)
        kept: list[np.ndarray] = []
        found, tried, turn = 0, 0, 0
        while found < num or tried < at_least:
            key_draw, key_keep = jax.random.split(jax.random.fold_in(key, turn))
            turn += 1
            wanted = max(num - found, at_least - tried if at_least else 0) / self.acceptance
            batch = next((b for b in BATCHES if b >= wanted), BATCHES[-1])
            latent, log_accept = self.latent.draw(key_draw, inner, batch)
            values = self.inner.y_out(self.clip(latent)[..., None])[..., 0]
            log_keep = self._log_keep(x, values, probes)
            log_keep = log_keep if log_accept is None else log_keep + log_accept
            uniform = np.random.default_rng(np.asarray(jax.random.bits(key_keep, (4,)))).uniform(
                size=batch
            )
            good = values[np.log(uniform) < log_keep]
            kept.append(good)
            found, tried = found + len(good), tried + batch
            if tried >= self.max_tries * max(1.0, num / BATCHES[0]) and found < num:
                raise InputError(self._why(x, values, probes, found, num, tried))
        everything = np.concatenate(kept)
        return (everything if at_least else everything[:num]), tried

    def _log_keep(self, x: np.ndarray, values: np.ndarray, probes: list[np.ndarray]) -> np.ndarray:
        total = np.zeros(len(values))
        for _, statement, seen in self._seen(x, values, self.filters, probes):
            total = total + statement.log_accept(seen, self._slack())
        return total

    def _slack(self) -> float:
        return SLACK * float(self.inner.y_scale[0])

    def _seen(
        self, x: np.ndarray, values: np.ndarray, numbers: Any, probes: list[np.ndarray]
    ) -> list[tuple[int, Statement, Seen]]:
        """Each statement with the draws as it looks at them."""
        out, at = [], len(x)
        for number, points in zip(numbers, probes, strict=True):
            seen = Seen(x, values[:, : len(x)], points, values[:, at : at + len(points)])
            out.append((number, self.statements[number], seen))
            at += len(points)
        return out

    def _why(
        self,
        x: np.ndarray,
        values: np.ndarray,
        probes: list[np.ndarray],
        found: int,
        num: int,
        tried: int,
    ) -> str:
        alone = []
        for _, statement, seen in self._seen(x, values, self.filters, probes):
            chance = np.exp(statement.log_accept(seen, self._slack())).mean()
            alone.append(f"'{statement.words}' alone keeps {chance:.2%}")
        stated = "; ".join(s.words for s in self.statements)
        detail = f" Of the last {len(values)} draws {', '.join(alone)}." if alone else ""
        return (
            f"Only {found} of {tried} draws obey the statements ({stated}); {num} are needed.{detail} "
            "Loosen or drop statements, give known values a larger tolerance, use transforms instead of "
            "filters (impose=), or raise max_tries."
        )

    def report(self, *, num_draws: int = 400, seed: int = 1) -> Any:
        """Whether fresh draws at fresh points obey, statement by statement; `print` it.

        See `bayesnet.priors.statements.report.StatementReport`.
        """
        from bayesnet.priors.statements.report import statement_report

        return statement_report(self, num_draws, seed)
