"""The Student-t weight law."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from bayesnet._types import Array, Float
from bayesnet.networks.base import Network
from bayesnet.priors.weights.located import ElementwiseLaw, Recipe, check_positive
from bayesnet.priors.weights.quantiles import (
    SMALLEST_DF,
    invert,
    student_t_curve,
    student_t_quantile,
)

# A trained df stays above the smallest that the quantile covers.
MARGIN = 1e-3


class StudentTLaw(ElementwiseLaw):
    """Independent weights `w = loc + exp(log_scale) * t`, t of Student's law.

    One latent a weight, through the quantile function (see `quantiles`); `encode` is exact up
    to rounding.

    Fields: those of `ElementwiseLaw`; `df`, the fixed degrees of freedom, or None with
    `log_excess_df` (g,) trainable, one an array of parameters: df = 1.001 + exp(log_excess_df).
    """

    log_excess_df: Float[Array, " leaves"] | None
    df: float | None = eqx.field(static=True)

    def degrees(self, leaf: int, dtype: Any) -> Any:
        """The degrees of freedom of one leaf, a number or a traced scalar."""
        if self.log_excess_df is None:
            return self.df
        return SMALLEST_DF + MARGIN + jnp.exp(self.log_excess_df[leaf]).astype(dtype)

    def quantile(self, z: Array, leaf: int) -> Array:
        return student_t_quantile(z, self.degrees(leaf, z.dtype))

    def latent(self, value: Array, leaf: int) -> Array:
        df = self.degrees(leaf, value.dtype)
        root = df**0.5
        return invert(lambda z: student_t_curve(z, df), root * jnp.arcsinh(value / root))


@dataclass(frozen=True)
class StudentT(Recipe):
    """Independent Student-t weights: polynomial tails.

    Args:
        loc, per: as for `Gaussian`.
        df: degrees of freedom, at least 1 (Cauchy).
        train_df: let matching tune df, one an array of parameters, starting at `df` (> 1.01).
        scale: before matching, as multiples of the network's own: of the standard deviation
            where it exists (df > 2), else of the law's scale.
    """

    per: str = "layer"
    df: float = 4.0
    train_df: bool = False
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("scale", self.scale)
        if self.train_df:
            check_positive("df (trained)", self.df, 1.01)
        else:
            check_positive("df", self.df, SMALLEST_DF, inclusive=True)

    def build(self, network: Network, in_dim: int, out_dim: int) -> StudentTLaw:
        fields, base = self.start(network, in_dim, out_dim)
        df = float(self.df)
        sd = np.sqrt(df / (df - 2.0)) if df > 2.0 else 1.0
        log_scale = fields["layout"].repeat(np.log(base * self.scale / sd), self.per)
        start = np.full(len(base), np.log(df - SMALLEST_DF - MARGIN)) if self.train_df else None
        return StudentTLaw(
            **fields,
            log_scale=jnp.asarray(log_scale),
            per=self.per,
            log_excess_df=None if start is None else jnp.asarray(start, jnp.float32),
            df=None if self.train_df else df,
        )
