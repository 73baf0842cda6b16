"""The CRPS of weighted mixtures of normal or Student-t laws, without draws.

Normal laws: every pair in closed form (Grimit et al. 2006, eq. 5). One Student-t law: in closed form
(Jordan, Krueger & Lerch 2019, appendix A). A mixture of these: the integral of `(F(x) - 1{x >= y})^2`, by
Gauss-Legendre rules between the places where the laws have their mass, and the tails as powers.
"""

from __future__ import annotations

import numpy as np
from scipy.special import beta, ndtr, stdtr

from bayesnet._types import Float
from bayesnet.likelihoods.student_t import StudentTLaw

# Nodes of less weight than this count for nothing.
NEGLIGIBLE = 1e-14
# Ends of intervals in scales of each law (fewer where there are many laws, which lie close together), steps
# from there to the range of all laws, how often intervals beyond grow threefold, points in each interval.
NEAR, SPARSE, STEPS, FAR, POINTS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0), (0.0, 1.0, 3.0), 8, 20, 6
FEW = 8
# Numbers in one array of the integral.
ROOM = 1 << 22


def mean_abs(loc: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """E|Z| of Z ~ N(loc, scale^2)."""
    z = loc / scale
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    found: np.ndarray = scale * (z * (2 * ndtr(z) - 1) + 2 * density)
    return found


def mixture_crps(
    loc: Float[np.ndarray, "j n m"],
    scale: Float[np.ndarray, "j n m"],
    weight: Float[np.ndarray, "j m"],
    df: Float[np.ndarray, " m"] | None,
    y: Float[np.ndarray, "n m"],
) -> Float[np.ndarray, "n m"]:
    """The CRPS of `sum_j weight_j law_j` at y, laws normal (df None) or Student-t; infinite for df <= 1/2."""
    heard = (weight > NEGLIGIBLE).any(axis=1)
    loc, scale, weight = loc[heard], scale[heard], weight[heard]
    if df is None:
        return _normal(loc, scale, weight[:, None], y)
    out = np.full(y.shape, np.inf)
    for i in np.flatnonzero(df > 0.5):
        args = loc[:, :, i], scale[:, :, i], weight[:, i], float(df[i]), y[:, i]
        out[:, i] = _student_t(*args)
    return out


def student_t_crps(z: np.ndarray, df: np.ndarray | float) -> np.ndarray:
    """The CRPS of the standard Student-t law at z, df > 1."""
    df = np.asarray(df, np.float64)
    density = np.exp(StudentTLaw(0.0 * z, np.ones_like(z), df).log_prob(z))
    spread = 2 * np.sqrt(df) / (df - 1) * beta(0.5, df - 0.5) / beta(0.5, df / 2) ** 2
    found: np.ndarray = z * (2 * stdtr(df, z) - 1)
    return found + 2 * density * (df + z**2) / (df - 1) - spread


def _normal(loc: np.ndarray, scale: np.ndarray, weight: np.ndarray, y: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.sum(weight * mean_abs(y - loc, scale), axis=0)
    for i in range(len(loc)):
        # Every pair once with twice its weight, each law with itself once.
        share = weight[i] * weight[i:]
        share[1:] *= 2
        apart = mean_abs(loc[i:] - loc[i], np.hypot(scale[i:], scale[i]))
        found = found - 0.5 * np.sum(share * apart, axis=0)
    return found


def _student_t(
    loc: np.ndarray, scale: np.ndarray, weight: np.ndarray, df: float, y: np.ndarray
) -> np.ndarray:
    """At n points of one output: loc, scale (j, n), weight (j,), y (n,)."""
    if len(loc) == 1 and df > 1:
        return scale[0] * student_t_crps((y - loc[0]) / scale[0], df)
    ends = _ends(loc, scale, y)
    node, share = np.polynomial.legendre.leggauss(POINTS)
    out = np.empty(len(y))
    step = max(1, ROOM // (len(ends) * POINTS * len(loc)))
    for at in (slice(k, k + step) for k in range(0, len(y), step)):
        low, high = ends[:-1, at], ends[1:, at]
        half, middle = 0.5 * (high - low), 0.5 * (high + low)
        x = middle + half * node[:, None, None]  # (p, b, n)
        z = (x - loc[:, None, None, at]) / scale[:, None, None, at]
        # The smaller of the two tails, so that neither loses its digits.
        above = middle >= y[at]
        tail = np.tensordot(weight, stdtr(df, np.where(above, -z, z)), 1)
        inner = np.sum(share[:, None, None] * tail**2 * half, axis=(0, 1))
        # Beyond the last ends both tails are powers of the distance.
        for edge, sign in ((ends[0, at], 1.0), (ends[-1, at], -1.0)):
            z = sign * (edge - loc[:, at]) / scale[:, at]
            distance = np.abs(edge - weight @ loc[:, at])
            inner = inner + (weight @ stdtr(df, z)) ** 2 * distance / (2 * df - 1)
        out[at] = inner
    return out


def _ends(loc: np.ndarray, scale: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Ends of intervals (b, n), in order, y among them."""
    near = np.array(NEAR if len(loc) <= FEW else SPARSE)
    reach = near[-1] * scale
    low = np.minimum(y, np.min(loc - reach, axis=0))
    high = np.maximum(y, np.max(loc + reach, axis=0))
    # A narrow law in a wide range: its tail is a power over many orders of magnitude.
    steps = STEPS if len(loc) <= FEW else STEPS // 2
    power = np.arange(1, steps + 1)[:, None, None] / steps
    tail = reach * (np.maximum(high - low, reach) / reach) ** power
    out = np.concatenate([near[:, None, None] * scale, tail])
    inside = np.concatenate([loc - out, loc + out]).reshape(-1, loc.shape[1])
    grown = (3.0 ** np.arange(1, FAR + 1) - 1.0)[:, None] * (high - low)
    ends = np.concatenate([inside.clip(low, high), y[None], low - grown, high + grown])
    return np.sort(ends, axis=0)
