"""K classes: softmax of K network outputs, with a share of wrong labels if asked for.

Hernandez-Lobato, Hernandez-Lobato & Dupont 2011 ("Robust multi-class Gaussian process
classification", eq. 3) for the label noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import log_expit, log_softmax

from bayesnet._errors import InputError
from bayesnet._types import Array, ArrayLike, Float
from bayesnet.data import Rows, Scaling
from bayesnet.likelihoods.base import LikelihoodDefaults, refuse_y_var
from bayesnet.likelihoods.label_noise import LogitNormal, check_label_noise
from bayesnet.likelihoods.labels import LabelLaw, check_classes, encode_labels


@dataclass(frozen=True)
class CategoricalLikelihood(LikelihoodDefaults):
    """`p(class k | f) = exp(f_k) / sum_j exp(f_j)`: K logits, one network output each.

    With label noise e the observed label is that with probability 1 - e, and with probability
    e any of the K classes, all alike. y is not scaled.

    Args:
        classes: the K labels in the order of the outputs; those of y, sorted, if None.
        label_noise: e, a number in [0, 1) (known) or a `bn.LogitNormal` (learned).

    y holds one label a row (text, bools or whole numbers); `post.predict` gives a
    `bn.ClassPrediction`. Raises `InputError` for fewer than two classes.
    """

    classes: Any = None
    label_noise: Any = 0.0
    scales_targets: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", check_classes(self.classes))
        object.__setattr__(self, "label_noise", check_label_noise(self.label_noise))

    def encode(
        self, y: ArrayLike, *, missing: bool = False
    ) -> tuple[CategoricalLikelihood, np.ndarray]:
        """The likelihood with its classes, and labels as their indices (n, 1)."""
        classes, codes = encode_labels(y, self.classes)
        return replace(self, classes=classes), codes

    def num_outputs(self, columns: int) -> int:
        """K. Raises `InputError` while the classes are not known."""
        if self.classes is None:
            raise InputError(
                "The classes are not known yet: name them with CategoricalLikelihood(classes=...), "
                "or let bn.fit read them off y."
            )
        return len(self.classes)

    def bind(self, scaling: Scaling, rows: Rows) -> BoundCategorical:
        """The law of class indices; nothing is scaled."""
        refuse_y_var("CategoricalLikelihood", rows.y_var)
        noise, dtype = self.label_noise, rows.y.dtype
        if isinstance(noise, LogitNormal):
            return BoundCategorical(jnp.asarray(noise.loc, dtype), jnp.asarray(noise.scale, dtype))
        if noise == 0:
            return BoundCategorical(None, None)
        return BoundCategorical(jnp.asarray(np.log(noise) - np.log1p(-noise), dtype), None)


class BoundCategorical(eqx.Module):
    """`y` (n, 1) holds class indices, `f` (n, K) logits.

    The logit of the label noise is `loc + scale * z`, or `loc` if known; none if `loc` is None.
    """

    loc: Float[Array, ""] | None
    scale: Float[Array, ""] | None

    @property
    def latent_size(self) -> int:
        return 0 if self.scale is None else 1

    def log_prob(
        self, z: Float[Array, " k"], f: Float[Array, "n o"], rows: Rows
    ) -> Float[Array, " n"]:
        codes = rows.y.astype(jnp.int32)
        log_p = jnp.take_along_axis(jax.nn.log_softmax(f, axis=-1), codes, axis=-1)[:, 0]
        if self.loc is None:
            return log_p
        logit = self.loc if self.scale is None else self.loc + self.scale * z[0]
        wrong = jax.nn.log_sigmoid(logit) - float(np.log(f.shape[-1]))
        return jnp.logaddexp(jax.nn.log_sigmoid(-logit) + log_p, wrong)

    def conditional(self, z: np.ndarray, f: np.ndarray, y_var: np.ndarray | None) -> LabelLaw:
        refuse_y_var("CategoricalLikelihood", y_var)
        log_p = log_softmax(np.asarray(f, np.float64), axis=-1)
        if self.loc is None:
            return LabelLaw(log_p, np.exp(log_p))
        logit = self._logit(z)[..., None]
        wrong = log_expit(logit) - np.log(f.shape[-1])
        return LabelLaw(np.logaddexp(log_expit(-logit) + log_p, wrong), np.exp(log_p))

    def _logit(self, z: np.ndarray) -> np.ndarray:
        """(..., 1) for latents (..., k)."""
        loc = np.asarray(self.loc, np.float64)
        if self.scale is None:
            return np.broadcast_to(loc, (*np.shape(z)[:-1], 1))
        return loc + np.asarray(self.scale, np.float64) * np.asarray(z, np.float64)

    def summary(self, z: np.ndarray) -> dict[str, np.ndarray]:
        if self.scale is None:
            return {}
        return {"label_noise": np.exp(log_expit(self._logit(z)))}
