"""Two classes: the network's one output is the log odds of the second."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import log_expit

from bayesnet._errors import InputError
from bayesnet._types import Array, ArrayLike, Float
from bayesnet.data import Rows, Scaling
from bayesnet.likelihoods.base import LikelihoodDefaults, refuse_y_var
from bayesnet.likelihoods.labels import LabelLaw, check_classes, encode_labels


@dataclass(frozen=True)
class BernoulliLikelihood(LikelihoodDefaults):
    """`p(second class | f) = 1 / (1 + exp(-f))`: f is the log odds; y is not scaled.

    Args:
        classes: the two labels in order, (first, second); those of y, sorted, if None (so that
            `True` is the second of `False, True` and 1 of 0, 1).

    y holds one label a row (text, bools or whole numbers); `post.predict` gives a
    `bn.ClassPrediction`. Raises `InputError` for another number of classes than two.
    """

    classes: Any = None
    scales_targets: ClassVar[bool] = False

    def __post_init__(self) -> None:
        classes = check_classes(self.classes)
        if classes is not None and len(classes) != 2:
            raise InputError(
                f"A BernoulliLikelihood is for two classes, got {len(classes)}: use "
                "bn.CategoricalLikelihood."
            )
        object.__setattr__(self, "classes", classes)

    def encode(
        self, y: ArrayLike, *, missing: bool = False
    ) -> tuple[BernoulliLikelihood, np.ndarray]:
        """The likelihood with its classes, and labels as 0 or 1 (n, 1)."""
        classes, codes = encode_labels(y, self.classes)
        return replace(self, classes=classes), codes

    def bind(self, scaling: Scaling, rows: Rows) -> BoundBernoulli:
        """The law of the codes 0 and 1; nothing is scaled."""
        refuse_y_var("BernoulliLikelihood", rows.y_var)
        return BoundBernoulli()


class BoundBernoulli(eqx.Module):
    """`y` (n, 1) is 0 or 1, `f` (n, 1) its log odds; no latents."""

    @property
    def latent_size(self) -> int:
        return 0

    def log_prob(
        self, z: Float[Array, " k"], f: Float[Array, "n o"], rows: Rows
    ) -> Float[Array, " n"]:
        return jax.nn.log_sigmoid(jnp.where(rows.y > 0.5, f, -f))[:, 0]

    def conditional(self, z: np.ndarray, f: np.ndarray, y_var: np.ndarray | None) -> LabelLaw:
        refuse_y_var("BernoulliLikelihood", y_var)
        f = np.asarray(f, np.float64)
        log_p = log_expit(np.concatenate([-f, f], axis=-1))
        return LabelLaw(log_p, np.exp(log_p))

    def summary(self, z: np.ndarray) -> dict[str, np.ndarray]:
        return {}
