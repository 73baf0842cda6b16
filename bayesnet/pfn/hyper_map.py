"""From latents in slots to the hyper-parameters of processes, as JAX code for padded tables."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._types import Array, Float, PyTree
from bayesnet.pfn.family import ProcessFamily
from bayesnet.priors.hyper import is_leaf
from bayesnet.priors.kernel_model import bare_covariance
from bayesnet.priors.laws import LogNormal, is_law


class HyperMap(eqx.Module):
    """The slots of a `ProcessFamily` in arrays: what `family.hyper` does, under `jit` and `grad`.

    Tables have `max_dim` columns of which the first d are real. Fields:
        loc, scale: of every slot's normal, by number of columns and kind of process.
        counted: 1 for the slots that tables of that many columns use.
        kernels: covariance functions without numbers, one a kind.
        leaves: for every kind and hyper-parameter of it a number (or numbers), or (slots, whether
            it is log-normal, whether it has one value a column).
        columns: the column that each slot belongs to, -1 for none.
    """

    loc: Float[Array, "d p k"]
    scale: Float[Array, "d p k"]
    counted: Float[Array, "d p k"]
    kernels: tuple[Any, ...] = eqx.field(static=True)
    leaves: tuple[Any, ...] = eqx.field(static=True)
    columns: tuple[int, ...] = eqx.field(static=True)

    @staticmethod
    def of(family: ProcessFamily) -> HyperMap:
        """The map of a family."""
        shape = (family.max_dim, family.num_parts, family.size)
        loc, scale, counted = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        for d in range(1, family.max_dim + 1):
            for part in range(family.num_parts):
                at = d - 1, part
                counted[at] = family.slots(part, d)
                for slots, law in zip(*family.laws_in_slots(part, d), strict=True):
                    loc[(*at, slots)] = law.loc
                    scale[(*at, slots)] = law.scale
                random = is_law(family.noise)
                loc[at][0] = family.noise.loc if random else np.log(family.noise)
                scale[at][0] = family.noise.scale if random else 0.0
        widest = family.parts[-1]
        return HyperMap(
            jnp.asarray(loc, jnp.float32),
            jnp.asarray(scale, jnp.float32),
            jnp.asarray(counted, jnp.float32),
            tuple(bare_covariance(p.covariance) for p in widest),
            tuple(_leaves_of(family, part) for part in range(family.num_parts)),
            tuple(int(c) for c in family.column_of_slot()),
        )

    def hyper(
        self,
        part: int,
        d: Array,
        z: Float[Array, " k"],
        gates: Float[Array, " d"],
        columns: int | None = None,
    ) -> tuple[PyTree, Float[Array, ""]]:
        """The hyper-parameters of one kind, as its covariance takes them, and the noise's sd.

        `gates` in (0, 1]: how much of an effect a column has; squared distances along it are
        multiplied by that. `columns`: of the inputs, those of padded tables if None.
        """
        value = self.loc[d - 1, part] + self.scale[d - 1, part] * z
        out = []
        for leaf in self.leaves[part]:
            if not (isinstance(leaf, tuple) and isinstance(leaf[0], tuple)):
                out.append(jnp.asarray(leaf, z.dtype))
                continue
            slots, logged, by_column = leaf
            found = value[np.array(slots)]
            found = jnp.exp(found) if logged else found
            out.append((found * jax.lax.rsqrt(gates))[:columns] if by_column else found[0])
        structure = jax.tree.structure(self.kernels[part].hyper, is_leaf=is_leaf)
        return jax.tree.unflatten(structure, out), jnp.exp(value[0])

    def counts(self, part: int, d: Array, gates: Float[Array, "n d"]) -> Float[Array, "n k"]:
        """How far each slot matters: not at all if not in use, by its column's gate otherwise."""
        column = np.array(self.columns)
        of_column = jnp.where(column >= 0, gates[:, np.maximum(column, 0)], 1.0)
        return self.counted[d - 1, part] * of_column


def _leaves_of(family: ProcessFamily, part: int) -> tuple[Any, ...]:
    """See `HyperMap.leaves`."""
    prior = family.parts[-1][part]
    found = iter(zip(*family.laws_in_slots(part, family.max_dim), strict=True))
    out: list[Any] = []
    for leaf in jax.tree.leaves(prior.covariance.hyper, is_leaf=is_leaf):
        if is_law(leaf):
            slots, law = next(found)
            out.append((tuple(int(s) for s in slots), isinstance(law, LogNormal), bool(law.shape)))
        else:
            out.append(leaf)
    return tuple(out)
