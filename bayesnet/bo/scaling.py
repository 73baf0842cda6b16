"""The scale of the objective in a loop: robust, and kept until it has really moved.

Coordinates that drift with every new value would move the target under the chains. So the
location and scale of y come from winsorised values, and a loop keeps its old ones until the
new ones differ by a stated amount; only then are the chains warmed up again at length.
"""

from __future__ import annotations

import numpy as np

from bayesnet._scales import standardization

# Values worse than the median by more than this many robust sds are clipped to that line: how
# bad a bad point is says nothing about where the optimum lies, and it ruins a Gaussian fit.
WORST = 5.0
# The scale moves when the new one differs by this factor, or the location by this many scales.
FACTOR = 1.5
SHIFT = 0.5
# Values beyond this stand for infinity, as penalties do: their variance would not be a number.
BIGGEST = 1e100


def winsorise(y: np.ndarray, *, maximize: bool = True) -> np.ndarray:
    """`y` (n,) with its bad tail (and infinities, or what is beyond 1e100) clipped to finite values.

    The bad side ends `WORST` robust sds (the interquartile range over 1.35) beyond the median.
    The good side is left alone: +inf (when maximising) becomes the best finite value.
    """
    sign = 1.0 if maximize else -1.0
    up = sign * np.asarray(y, np.float64)
    up = np.where(np.abs(up) > BIGGEST, np.copysign(np.inf, up), up)
    finite = up[np.isfinite(up)]
    if not len(finite):
        return np.zeros_like(up)
    quarter, median, three = np.quantile(finite, [0.25, 0.5, 0.75])
    sd = (three - quarter) / 1.35
    floor = median - WORST * sd if sd > 0 else finite.min()
    return sign * np.clip(up, max(floor, finite.min()), finite.max())


def robust_scale(
    y: np.ndarray, previous: tuple[float, float] | None = None
) -> tuple[tuple[float, float], bool]:
    """The location and scale of winsorised values `y` (n,), and whether they moved.

    `previous` is kept while the new scale lies within a factor `FACTOR` of it and the new
    location within `SHIFT` scales. A constant `y` has scale 1.
    """
    loc, scale = (float(a[0]) for a in standardization(np.asarray(y, np.float64)[:, None]))
    if previous is None:
        return (loc, scale), True
    kept_loc, kept_scale = previous
    near = kept_scale / FACTOR <= scale <= kept_scale * FACTOR
    if near and abs(loc - kept_loc) <= SHIFT * kept_scale:
        return previous, False
    return (loc, scale), True
