"""Kernels of one finite network with drawn weights, which tend to the infinite ones."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from bayesnet._errors import UnsupportedError
from bayesnet._types import Array, ArrayLike, Float
from bayesnet.kernels.finite import WideNetwork


def empirical_nngp(
    prior: Any, z: Float[Array, " p"], x1: ArrayLike, x2: ArrayLike
) -> Float[Array, "n k"]:
    """The covariance of the outputs of a finite network given all weights but the last layer's:
    `weight_std^2 h(x1).h(x2) / width + bias_std^2`, h being the last hidden layer at latents z.

    `prior` is what `kernel.finite(width, in_dim)` gives; x1 (n, d), x2 (k, d). Its mean over z differs
    from the NNGP by O(1/width), and so does its variance from 0.

    Raises `UnsupportedError` for another prior.
    """
    if not isinstance(getattr(prior, "network", None), WideNetwork):
        raise UnsupportedError("empirical_nngp is for priors made by kernel.finite(width, in_dim).")
    return _features(prior, z, *(jnp.asarray(x, z.dtype) for x in (x1, x2)))


@eqx.filter_jit
def _features(prior: Any, z: Array, x1: Array, x2: Array) -> Array:
    params = prior.law.decode(z)
    scales = jax.tree.unflatten(prior.law.layout.treedef, prior.law.scales(z.dtype))[-1]
    a, b = (prior.network.features(params, x) for x in (x1, x2))
    bias = scales["b"] ** 2 if "b" in scales else 0.0
    return scales["w"] ** 2 * (a @ b.T) / a.shape[1] + bias


def empirical_ntk(
    prior: Any, z: Float[Array, " p"], x1: ArrayLike, x2: ArrayLike
) -> Float[Array, "n k"]:
    """The tangent kernel of a finite network at latents z: inner products of the gradients of its
    outputs by the latents, averaged over outputs (Jacot et al. 2018, section 4).

    `prior` is any network prior; the gradients of all rows are kept, (n + k) m p numbers.
    """
    return _tangent(prior, z, *(jnp.asarray(x, z.dtype) for x in (x1, x2)))


@eqx.filter_jit
def _tangent(prior: Any, z: Array, x1: Array, x2: Array) -> Array:
    def gradients(x: Array) -> Array:
        return jax.lax.map(lambda row: jax.jacrev(lambda q: prior.apply(q, row[None])[0])(z), x)

    a, b = gradients(x1), gradients(x2)
    return jnp.einsum("nmp,kmp->nk", a, b) / a.shape[1]
