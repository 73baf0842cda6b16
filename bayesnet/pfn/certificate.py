"""How good a PFN is, measured on tables that it has not seen: what its card holds.

The excess is the mean over tables and queries of `log p_exact(y) - log p_PFN(y)` in nats, y being
drawn from the exact law. Exact is the prior's predictive law given the hyper-parameters of that very
table: more than any method can know, so that the excess of a perfect PFN is not zero but the price
of not knowing the hyper-parameters (shrinking with n). A prior without such a law (a network) is
taken given the drawn function itself, with the noise alone around it: the price is then that of not
knowing the function, and only a sampler on the same prior tells how much of it is the PFN's. A
model that draws whole tables tells no law at all: rows then hold the negative log density of its
targets, `nll`, in the place of the excess.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesnet.pfn.batch import Batch
from bayesnet.pfn.joint_tasks import JointTasks
from bayesnet.pfn.tasks import Tasks, has_exact_law
from bayesnet.pfn.train import padded

# Seeds of certificates, far from those of training.
_SEED = 7_000_001
# Targets drawn at each query: the same for both sides.
_TARGETS = 16


@eqx.filter_jit
def _scores(pfn_parts: Any, batch: Batch, key: Any) -> tuple[Any, Any]:
    """The excess of every table (b,) and the probability transforms (b, q, t)."""
    network, bars = pfn_parts

    def one(x: Any, y: Any, mask: Any, queries: Any) -> Any:
        return network(x, y, mask, queries, batch.used, bars)[0]

    logits = jax.vmap(one)(batch.x, batch.y, batch.mask, batch.queries)
    z = jax.random.normal(key, (*batch.f_mean.shape, _TARGETS))
    std = batch.y_std[..., None]
    y = batch.y_mean[..., None] + std * z
    law = bars.law(logits[:, :, None])
    exact = -0.5 * z**2 - jnp.log(std) - 0.5 * np.log(2 * np.pi)
    if batch.y_drawn is not None:
        exact = jnp.zeros_like(y)  # no law is known: what is left is the negative log density
    return jnp.mean(exact - law.log_prob(y), axis=(1, 2)), law.cdf(y)


def score(
    pfn: Any, tasks: Tasks | JointTasks, d: int, n: int, tables: int = 128, seed: int = 0
) -> dict[str, Any]:
    """The excess of a PFN on tables of `d` columns and `n` rows, with its 95 % interval, and its PIT.

    `coverage`: how often the central 90 % interval holds the target; `pit`: the largest distance
    of the distribution of probability transforms from the uniform one. `given`: what the law knows
    that the excess is measured from, "hyper-parameters" or "function"; "nothing" for a
    `NumpyroModel`, of which `nll` is told, in nats in the units of the model.
    """
    excesses, transforms = [], []
    parts = tasks.parts(d)
    exact = all(has_exact_law(part) for part in parts)
    measure, given = "excess", "hyper-parameters" if exact else "function"
    each = -(-tables // len(parts))
    for i in range(len(parts)):
        key = jax.random.key(_SEED + seed)
        for value in (d, n, i):
            key = jax.random.fold_in(key, value)
        batch = tasks.draw(key, each, np.full(each, n), d, i)
        # Padded as tables of users are.
        rows = next((b for b in pfn.card["buckets"] if n <= b), tasks.max_rows)
        batch = padded(batch.rows(rows), pfn.max_dim)
        excess, u = _scores((pfn.network_for(d), pfn.bars), batch, jax.random.fold_in(key, 1))
        excesses.append(np.asarray(excess, np.float64))
        transforms.append(np.asarray(u, np.float64).reshape(each, -1))
    excess, u = np.concatenate(excesses), np.concatenate(transforms)
    if isinstance(tasks, JointTasks):
        measure, given = "nll", "nothing"
        excess = excess + np.log(tasks.scalings[d].y_scale[0])
    inside = ((u > 0.05) & (u < 0.95)).mean(axis=1)
    ordered = np.sort(u.ravel())
    return {
        "d": d,
        "n": n,
        "given": given,
        "tables": len(excess),
        measure: _rounded(excess.mean()),
        "interval": _rounded(1.96 * excess.std(ddof=1) / np.sqrt(len(excess))),
        "median": _rounded(np.median(excess)),
        "coverage": _rounded(inside.mean()),
        "coverage_interval": _rounded(1.96 * inside.std(ddof=1) / np.sqrt(len(inside))),
        "pit": _rounded(np.abs(ordered - np.linspace(0, 1, len(ordered))).max()),
    }


def surprises_of(pfn: Any, tasks: Tasks | JointTasks, d: int, each: int = 64) -> np.ndarray:
    """The `surprise` of tables of the prior of `d` columns, standardised as tables of users are."""
    rng = np.random.default_rng([_SEED, d])
    found = []
    for part in range(len(tasks.weights)):
        counts = rng.integers(6, tasks.max_rows + 1, size=each)
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(_SEED), 1000 + d), part)
        batch = tasks.draw(key, each, counts, d, part)
        for x, y, n in zip(np.asarray(batch.x), np.asarray(batch.y), counts, strict=True):
            table = tasks.in_user_units(d, x[:n], y[:n])
            found.append(pfn.fit(*table, warn=False).surprise)
    return np.array(found)


def certify(
    pfn: Any,
    tasks: Tasks | JointTasks,
    *,
    dims: tuple[int, ...],
    counts: tuple[int, ...] = (5, 10, 20, 50, 100),
    tables: int = 128,
    outside: dict[str, Tasks] | None = None,
    between: Callable[[], None] | None = None,
) -> Any:
    """The PFN with a certificate in its card: rows of `score`, by columns and rows.

    `outside`: names and tasks that leave the prior, scored at 20 and 50 rows of 1 column. `between`:
    called after each number of columns. Every size of tables is compiled, and Linux lets a process have
    65,530 pieces of memory, of which a program takes dozens: `jax.clear_caches` frees them.
    """
    rest = between or (lambda: None)
    rows, surprises = [], []
    for d in dims:
        rows += [score(pfn, tasks, d, n, tables) for n in counts]
        surprises.append(surprises_of(pfn, tasks, d, -(-tables // len(tasks.weights))))
        rest()
    beyond = {
        name: [score(pfn, other, 1, n, tables) for n in (20, 50)]
        for name, other in (outside or {}).items()
    }
    card = pfn.card | {
        "certificate": rows,
        "outside": beyond,
        # That 1 in 200 tables of the prior exceed.
        "surprise_limit": float(np.quantile(np.concatenate(surprises), 0.995)),
    }
    return type(pfn)(pfn.network, pfn.bars, card)


def _rounded(value: Any) -> float:
    return round(float(value), 4)
