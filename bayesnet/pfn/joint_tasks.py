"""Tasks of a model that draws whole tables: no law of the targets is known but what was drawn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError
from bayesnet._types import ArrayLike, Key
from bayesnet.data import Scaling
from bayesnet.pfn.batch import Batch
from bayesnet.pfn.numpyro_model import NumpyroModel

# Tables by which coordinates are chosen, and how much of their values on each side is left out of it.
_TABLES, _OUTER = 256, 0.005


@dataclass(frozen=True, eq=False)
class JointTasks:
    """Where batches come from for a `NumpyroModel`; has what `Tasks` has.

    Args:
        prior: the model.
        dims: the numbers of columns d.
        max_rows: the size to which contexts are padded.
        queries: the number of query rows of a task.

    The network sees tables in scaled coordinates, by one fixed map for each d (`scaling`), which
    a PFN keeps in its card: conditioning is that of the model, whose units are those of the table.

    Raises, before any training, `InputError` or `UnsupportedError` for models that cannot draw
    finite tables of these sizes, or whose y is constant.
    """

    prior: NumpyroModel
    dims: tuple[int, ...]
    max_rows: int
    queries: int = 32

    def __post_init__(self) -> None:
        for d in self.dims:
            self.prior.check(self.max_rows + self.queries, d)
        _ = self.scalings

    @property
    def likelihood(self) -> str:
        """For the card."""
        return "drawn by the model"

    @cached_property
    def inputs(self) -> str:
        """For the card, and for checkpoints: which program draws tables."""
        rows = self.max_rows + self.queries
        return f"drawn by the model, program {self.prior.fingerprint(rows, self.dims[0])}"

    @property
    def weights(self) -> np.ndarray:
        """One part."""
        return np.ones(1)

    def parts(self, d: int) -> tuple[Any, ...]:
        """The model."""
        return (self.prior,)

    @cached_property
    def scalings(self) -> dict[int, Scaling]:
        """The maps from the units of the model to scaled coordinates, by number of columns."""
        found = {}
        for d in self.dims:
            rows = self.max_rows + self.queries
            x, y, _ = self.prior.draw(jax.random.key(0), _TABLES, rows, d)
            x_loc, x_scale = _centre(np.asarray(x, np.float64).reshape(-1, d))
            y_loc, y_scale = _centre(np.asarray(y, np.float64).reshape(-1, 1))
            if not y_scale[0] > 1e-6 * abs(y_loc[0]):
                raise InputError(
                    f"{self.prior.name} draws the same y, {y_loc[0]:.6g}, in (nearly) all rows."
                )
            found[d] = Scaling(x_loc, np.where(x_scale > 0, x_scale, 1.0), y_loc, y_scale)
        return found

    def in_user_units(self, d: int, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows (n, d) and targets (n,) of a batch in the units of the model."""
        s = self.scalings[d]
        return x * s.x_scale + s.x_loc, y * s.y_scale[0] + s.y_loc[0]

    def facts(self) -> dict[str, Any]:
        """What a card says of such a PFN beside what all say."""
        return {
            "latent": self.prior.f,
            "scaling": {
                str(d): {
                    name: getattr(s, name).tolist()
                    for name in ("x_loc", "x_scale", "y_loc", "y_scale")
                }
                for d, s in self.scalings.items()
            },
        }

    def draw(self, key: Key, size: int, counts: ArrayLike, d: int, part: int = 0) -> Batch:
        """`size` tasks of width `d` with `counts` (b,) context rows each; see `Tasks.draw`."""
        n = self.max_rows
        x, y, f = self.prior.draw(key, size, n + self.queries, d)
        s = self.scalings[d]
        x = (x - jnp.asarray(s.x_loc, x.dtype)) / jnp.asarray(s.x_scale, x.dtype)
        y, f = ((a - float(s.y_loc[0])) / float(s.y_scale[0]) for a in (y, y if f is None else f))
        mask = jnp.arange(n) < jnp.asarray(counts)[:, None]
        batch = Batch(
            x=x[:, :n],
            y=jnp.where(mask, y[:, :n], 0.0),
            mask=mask,
            queries=x[:, n:],
            used=jnp.ones(d),
            f_mean=f[:, n:],
            f_std=jnp.zeros_like(f[:, n:]),
            noise=jnp.zeros(size),
            relevant=jnp.ones((size, d), bool),
            y_drawn=y[:, n:],
        )
        return jax.block_until_ready(batch)


def _centre(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of columns whose outer values are drawn in: few heavy draws do not decide."""
    low, high = np.quantile(a, [_OUTER, 1 - _OUTER], axis=0)
    a = np.clip(a, low, high)
    return a.mean(axis=0), a.std(axis=0)
