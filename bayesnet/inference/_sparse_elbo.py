"""The evidence bound of a sparse variational process, as one JAX program in float64.

Latent functions f_k, k < K, are `mean + sqrt(s) g_k`, g_k ~ GP(0, C), with inducing values at rows Z. With
`C_ZZ = L L'` the whitened ones, `v_k = L^-1 (f_k(Z) - mean)`, are N(0, s I) under the prior. With
`q(log s) = N(loc, sd^2)`, `r = exp(tie (log s - loc) / 2)`, `q(v_k | s) = N(r m_k, r^2 T_k T_k')` and `A = C_xZ L^-T`,

    f_k(x) | s ~ N(mean + r A m_k, s (C_xx - A A') + r^2 A T_k T_k' A'),
    ELBO = sum_i E log p(y_i | f(x_i)) - E KL(q(v | s) || N(0, s I)) - KL(q(s) || p(s))

(Hensman, Matthews & Ghahramani 2015, eq. 18-19; a law of the scale beside the inducing values: Lee et al.
2022). `tie` is learned: 0 where data pin the functions, whatever s; 1 where they tell functions up to their
size, as few labels do. For a Gaussian process s = 1 = r. To be called inside `jax.enable_x64(True)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import roots_hermite

from bayesnet._types import Array, Float, Key, PyTree
from bayesnet.data import Rows
from bayesnet.posterior.sparse_process import JITTER
from bayesnet.priors.hyper import FreeHyper
from bayesnet.priors.variance_laws import PointMass, log_density_of

# The table of a law's log density in log s.
REACH, TABLE = 40.0, 4001
LOG_2PI_E = float(np.log(2 * np.pi * np.e))


def hermite(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the mean under N(0, 1)."""
    nodes, weights = roots_hermite(size)
    return np.sqrt(2.0) * nodes, weights / np.sqrt(np.pi)


@dataclass(frozen=True)
class Rules:
    """How expectations are taken: Gauss-Hermite nodes of a latent (0: draws), draws of latents
    otherwise, nodes of the scale."""

    latent: int = 20
    draws: int = 16
    scale: int = 8


@dataclass(frozen=True)
class HyperStructure:
    """Random hyper-parameters as a static argument: laws and numbers, and how they are nested."""

    leaves: tuple[Any, ...]
    structure: Any

    def __hash__(self) -> int:
        # Laws of other libraries may have no hash.
        return hash(self.structure)

    @property
    def free(self) -> FreeHyper:
        """The vector of the random ones."""
        return FreeHyper(jax.tree.unflatten(self.structure, self.leaves))


def features(
    matrix: Any, z: Float[Array, "M d"], x: Float[Array, "n d"]
) -> tuple[Float[Array, "n M"], Float[Array, " n"]]:
    """A and what the inducing values leave of the variance, for `matrix(x1, x2)`."""
    factor = inducing_factor(matrix(z, z))
    a = jax.scipy.linalg.solve_triangular(factor, matrix(z, x), lower=True).T
    diagonal = jax.vmap(lambda row: matrix(row[None], row[None])[0, 0])(x)
    return a, jnp.maximum(diagonal - jnp.sum(a**2, axis=1), 0.0)


def inducing_factor(square: Array) -> Array:
    """The Cholesky factor of the inducing matrix with its jitter."""
    level = JITTER * jnp.trace(square) / len(square)
    return jnp.linalg.cholesky(square + level * jnp.eye(len(square), dtype=square.dtype))


def roots(raw: Float[Array, "K M M"]) -> Float[Array, "K M M"]:
    """Lower triangles with positive diagonals, the logarithms of which are on that of `raw`."""
    diagonal = jnp.exp(jnp.diagonal(raw, axis1=1, axis2=2))
    return jnp.tril(raw, -1) + diagonal[:, :, None] * jnp.eye(raw.shape[1], dtype=raw.dtype)


def table_of_law(law: Any) -> np.ndarray | None:
    """The log density of log s on an even grid and its slope, (2, TABLE); None where s is known."""
    if law is None or isinstance(law, PointMass):
        return None
    u = np.linspace(-REACH, REACH, TABLE)
    values = np.maximum(log_density_of(law, u), -1e30)
    return np.stack([values, np.gradient(values, u)])


def start_of_scale(law: Any) -> tuple[float, float]:
    """Mean and standard deviation of log s under its law, the second at most 1."""
    u = np.linspace(-40.0, 40.0, 8001)
    log_p = log_density_of(law, u)
    p = np.exp(log_p - log_p.max())
    p = p / p.sum()
    loc = float(p @ u)
    return loc, float(min(np.sqrt(p @ (u - loc) ** 2), 1.0))


def interpolate(table: Float[Array, "2 t"], u: Array) -> Array:
    """Cubic Hermite interpolation of a log density at u; linear beyond the table."""
    step = 2 * REACH / (TABLE - 1)
    inside = jnp.clip(u, -REACH, REACH)
    i = jnp.clip(jnp.floor((inside + REACH) / step).astype(jnp.int32), 0, TABLE - 2)
    t = (inside + REACH) / step - i
    p0, p1, d0, d1 = table[0][i], table[0][i + 1], step * table[1][i], step * table[1][i + 1]
    cubic = p0 + t * (d0 + t * (3 * (p1 - p0) - 2 * d0 - d1 + t * (2 * (p0 - p1) + d0 + d1)))
    return cubic + (u - inside) * jnp.where(u > 0, d1, d0) / step


def scale_nodes_of(params: PyTree, known: Array, rules: Rules) -> tuple[Array, Array, Array]:
    """log s at the nodes of q, r there, and their weights."""
    if "scale" not in params:
        return jnp.reshape(known, (1,)), jnp.ones(1), jnp.ones(1)
    nodes, weights = hermite(rules.scale)
    loc, log_sd, tie = params["scale"]
    apart = jnp.exp(log_sd) * jnp.asarray(nodes)
    return loc + apart, jnp.exp(0.5 * tie * apart), jnp.asarray(weights)


def expected_log_likelihood(
    params: PyTree, bound: Any, known: Array, given: Any, rows: Rows, key: Key, rules: Rules
) -> Float[Array, " n"]:
    """E_q log p(y_i | f(x_i)) of each row."""
    a, left, mean = given
    triangle = roots(params["root"])
    moved = a @ params["mean"].T  # (n, K)
    inner = jnp.sum(jnp.einsum("nm,kml->knl", a, triangle) ** 2, axis=2).T  # (n, K)
    u, r, weights = scale_nodes_of(params, known, rules)
    s, r = jnp.exp(u)[:, None, None], r[:, None, None]
    centre = mean + r * moved  # (j, n, K)
    sd = jnp.sqrt(s * left[:, None] + r**2 * inner + 1e-30)
    if rules.latent:
        nodes, node_weights = (jnp.asarray(v) for v in hermite(rules.latent))
        z = nodes[:, None, None]
    else:
        z = jax.random.normal(key, (rules.draws // 2, *moved.shape))
        z = jnp.concatenate([z, -z])
        node_weights = jnp.full(len(z), 1.0 / len(z))

    def at(one_centre: Array, one_sd: Array) -> Array:
        f = one_centre + one_sd * z
        terms = jax.vmap(lambda g: bound.log_prob(params["noise"], g, rows))(f)
        return node_weights @ terms

    return weights @ jax.vmap(at)(centre, sd)


def divergence(params: PyTree, known: Array, table: Array | None, rules: Rules) -> Array:
    """`E KL(q(v | s) || N(0, s I)) + KL(q(s) || p(s))`."""
    raw, mean = params["root"], params["mean"]
    outputs, size = mean.shape
    squares = jnp.sum(mean**2) + jnp.sum(roots(raw) ** 2)
    log_det = 2.0 * jnp.sum(jnp.diagonal(raw, axis1=1, axis2=2))
    if "scale" not in params:
        inverse, log_s = jnp.exp(-known), known
        scale_part = jnp.zeros(())
    else:
        assert table is not None
        loc, log_sd, tie = params["scale"]
        # The means of r^2 / s and of log(s / r^2) under a log-normal law.
        inverse, log_s = jnp.exp(-loc + 0.5 * (1.0 - tie) ** 2 * jnp.exp(2 * log_sd)), loc
        nodes, weights = hermite(32)
        u = loc + jnp.exp(log_sd) * jnp.asarray(nodes)
        scale_part = -0.5 * LOG_2PI_E - log_sd - jnp.asarray(weights) @ interpolate(table, u)
    count = outputs * size
    return 0.5 * (inverse * squares - count + count * log_s - log_det) + scale_part


def elbo(
    params: PyTree,
    bound: Any,
    known: Array,
    table: Array | None,
    given: Any,
    rows: Rows,
    factor: Array,
    key: Key,
    rules: Rules,
) -> Array:
    """The bound, its sum over rows estimated by `factor` times that over the given ones.

    Args:
        params: "mean" (K, M), "root" (K, M, M), "noise" (k,) latents of the likelihood, "scale" (loc,
            log sd, tie) where it is random.
        known: log s where it is known. table: see `table_of_law`.
        given: A, left and mean of the rows (see `features`).
    """
    terms = expected_log_likelihood(params, bound, known, given, rows, key, rules)
    weight = jnp.where(rows.mask, 1.0 if rows.weight is None else rows.weight, 0.0)
    return factor * jnp.sum(weight * terms) - divergence(params, known, table, rules)
