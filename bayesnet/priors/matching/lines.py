"""Straight lines through the inputs, along which functions are drawn, shown and judged."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._types import Array, Float, Key
from bayesnet.priors.matching.points import PointLaw
from bayesnet.priors.matching.target import draw_target

# Ends of a line in several dimensions are the farthest pair of so many drawn points.
CANDIDATES = 8
LINES = 20


def draw_lines(
    law: PointLaw, key: Key, num_lines: int, num_grid: int
) -> tuple[Float[Array, "l g d"], np.ndarray]:
    """Grids (l, g, d) on lines and the spacing (l,) of each.

    In one dimension there is one line: the whole range of the inputs.
    """
    low, high = law.bounds()
    if len(low) == 1:
        grid = np.linspace(low, high, num_grid)[None]
    else:
        drawn = np.asarray(
            jax.vmap(lambda k: law.draw(k, CANDIDATES))(jax.random.split(key, num_lines))
        )
        gaps = np.linalg.norm(drawn[:, :, None] - drawn[:, None], axis=-1).reshape(num_lines, -1)
        first, second = np.unravel_index(gaps.argmax(1), (CANDIDATES, CANDIDATES))
        a, b = drawn[np.arange(num_lines), first], drawn[np.arange(num_lines), second]
        grid = a[:, None] + np.linspace(0.0, 1.0, num_grid)[:, None] * (b - a)[:, None]
    spacing = np.linalg.norm(grid[:, 1] - grid[:, 0], axis=-1)
    return jnp.asarray(grid, jnp.float32), spacing


def draw_along(process: Any, key: Key, lines: Float[Array, "l g d"], num_draws: int) -> np.ndarray:
    """`num_draws` independent draws (s, g), spread evenly over the lines, first output only.

    `num_draws` is rounded down to a multiple of the number of lines.
    """
    each = num_draws // len(lines)
    return np.asarray(draw_target(process, key, lines, each))[..., 0].reshape(each * len(lines), -1)
