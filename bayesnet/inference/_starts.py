"""Where chains start, given a posterior of any kind: a PFN, a process, another network.

Nothing but its functions is known of such a posterior, so the network is regressed onto them. Chain
k takes a function t_k drawn from it and a draw z_k of the prior, and minimises over its latents z

    |z - z_k|^2 / 2 + sum_j |(f(z, x_j) - t_k(x_j)) / s_j|^2 / 2 - sum_j log p(t_k(x_j) + a_j e_j | t_k, z)

at rows x_j of the table and (not in the last sum) points around it, with s_j half of the sd of the function there, and
a_j the posterior's sd of the noise times normal scores e_j, which sets the latents of the noise.
Pulled to a draw of the prior instead of to 0, directions that the functions leave open keep the
spread that the prior gives them (for a linear model these would be posterior draws:
randomise-then-optimise, Bardsley et al. 2014), and chains start over-dispersed.
"""

from __future__ import annotations

import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.special import ndtri

from bayesnet import devices
from bayesnet._errors import InputError, UnsupportedError
from bayesnet._types import Array, Float, Key
from bayesnet.data import Data, Rows, bucket_size, pad_rows
from bayesnet.inference._path_length import PUSH
from bayesnet.inference.model import LatentModel
from bayesnet.posterior import ClassPrediction, FunctionDraws

# Steps of Adam, each of one gradient a chain, and the rate of the first.
STEPS = 400
RATE = 0.05
# Rows of the table at which functions are compared, at most, and as many points around it: joint
# draws of a PFN cost two encoded tables a point.
MOST_ROWS = 16
# How near to its target a function should come, in sds of the function; and the least such
# distance, in sds of y, for tables that pin it to less.
CLOSE = 0.5
LEAST = 0.02


def has_latents(init: Any, size: int) -> bool:
    """Whether `init` holds draws of `size` latents, of which chains can start as they are."""
    return isinstance(init, FunctionDraws) and init.latents.shape[-1] == size


@devices.single_precision()
def regressed(
    init: Any, prior: Any, likelihood: Any, data: Data, *, count: int, key: Key
) -> Float[Array, "c p"]:
    """Latents (count, p + k) of `prior` and `likelihood` whose functions are like draws of `init`.

    Args:
        init: a posterior in the units of the user, whatever its own scaling: `predict(x)` with
            `mean`, `epistemic_std` (or `std`) and, where it has them, `aleatoric_std` and `sample`.
        likelihood: as the user states it, not bound yet.

    Raises:
        InputError: another number of inputs or outputs, means that are not finite.
        UnsupportedError: classes and counts, whose functions are not in the units of y.
    """
    _check(init, likelihood, data)
    key_rows, key_draw, key_start = jax.random.split(key, 3)
    rows, x = _points(data, key_rows)
    mean, function_sd, noise_sd, targets = _said(init, data, x, count, key_draw)

    bound = likelihood.bind(data.scaling, data.rows)
    dtype = data.rows.y.dtype
    start = jax.random.normal(key_start, (count, prior.latent_size + bound.latent_size), dtype)
    size = bucket_size(len(x))

    def padded(a: np.ndarray) -> Array:
        return jnp.asarray(pad_rows(a, size), dtype)

    mask = jnp.arange(size) < len(x)
    half = len(x) // 2
    scores = ndtri((np.arange(half) + 0.5) / half) if half > 1 else np.ones(1)
    scores = np.tile(scores / np.sqrt(np.mean(scores**2)), 2)[:, None]
    noisy = Rows(
        x=padded(x),
        y=padded(np.zeros_like(mean)),
        # Around the table a posterior knows little of the noise.
        mask=jnp.arange(size) < (0 if noise_sd is None else half),
        y_var=None if data.rows.y_var is None else data.rows.y_var[pad_rows(rows, size)],
    )
    push = padded(scores * (np.ones_like(mean) if noise_sd is None else noise_sd))
    near = padded(np.maximum(CLOSE * function_sd, LEAST * data.scaling.relative_spread))
    aims = jnp.stack([padded(t) for t in targets])
    model = LatentModel(prior, bound, noisy)
    return _regress(model, start, aims, near, push, mask)


def _check(init: Any, likelihood: Any, data: Data) -> None:
    if not callable(getattr(init, "predict", None)):
        raise InputError(f"init must be a posterior (with predict), got {type(init).__name__}.")
    if not likelihood.scales_targets:
        raise UnsupportedError(
            f"{type(likelihood).__name__} reads logits or rates off its functions, which another "
            "posterior does not tell: init must be a posterior of function draws under a prior with "
            "the same network and likelihood."
        )
    theirs = getattr(init, "data", None)
    for name, got, expected in (
        ("inputs", getattr(theirs, "in_dim", None), data.in_dim),
        ("outputs", getattr(theirs, "out_dim", None), data.out_dim),
    ):
        if got is not None and got != expected:
            raise InputError(f"init is a posterior of {got} {name}, the table has {expected}.")


def _points(data: Data, key: Key) -> tuple[np.ndarray, np.ndarray]:
    """Rows (k,) of the table, each twice, and scaled points (k, d): there, and pushed outwards."""
    n = data.num_rows
    chosen = np.asarray(jax.random.permutation(key, n))[:MOST_ROWS]
    x = np.asarray(data.x, np.float64)
    centre = x.mean(axis=0)
    around = centre + PUSH * (x[chosen] - centre)
    return np.concatenate([chosen, chosen]), np.concatenate([x[chosen], around])


def _said(
    init: Any, data: Data, x: np.ndarray, count: int, key: Key
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]:
    """What `init` says at scaled points `x` (k, d), in scaled coordinates of the table.

    Its mean and sd of the function (k, m), the sd of the noise (k, m) or None, and one function
    (c, k, m) a chain.
    """
    scaling = data.scaling
    seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
    with warnings.catch_warnings():
        # Points around the table are our choice: whether they are far is no news to the user.
        warnings.simplefilter("ignore", UserWarning)
        said = init.predict(x * scaling.x_scale + scaling.x_loc)
        if isinstance(said, ClassPrediction):
            raise InputError("init is a posterior of classes, the likelihood is of numbers.")
        user_mean = np.asarray(said.mean, np.float64)
        spread = getattr(said, "epistemic_std", getattr(said, "std", None))
        noise = getattr(said, "aleatoric_std", None)
        draws = getattr(said, "sample", None)
        drawn = None if draws is None else draws(seed, count, joint=True, noise=False)
    if spread is None:
        raise InputError(f"init must predict a std beside a mean, {type(said).__name__} does not.")
    spread = np.asarray(spread, np.float64) / scaling.y_scale
    shape = (len(x), data.out_dim)
    if user_mean.shape != shape:
        raise InputError(f"init predicts means of shape {user_mean.shape}, expected {shape}.")
    mean = scaling.y_in(user_mean)
    if not np.isfinite(mean).all():
        raise InputError(
            "init predicts means that are not finite at rows of the table or around it: "
            "start from the prior instead (leave init out)."
        )
    # Laws with heavy tails may have no variance: the sd of y is then wide enough to start in.
    unit = scaling.relative_spread
    spread = unit * np.clip(np.nan_to_num(spread / unit, nan=1.0, posinf=1.0), 0.0, 1.0)
    if drawn is None:
        shifts = np.random.default_rng(seed).standard_normal((count, 1, data.out_dim))
        targets = mean + spread * shifts
    else:
        # And single draws of it may lie anywhere.
        targets = mean + np.clip(scaling.y_in(np.asarray(drawn)) - mean, -3 * spread, 3 * spread)
    if noise is None:
        return mean, spread, None, targets
    noise = np.asarray(noise, np.float64) / scaling.y_scale
    noise = unit * np.clip(np.nan_to_num(noise / unit, nan=1.0), 1e-3, 3.0)
    return mean, spread, noise, targets


@eqx.filter_jit
def _regress(
    model: LatentModel,
    start: Float[Array, "c p"],
    targets: Float[Array, "c k m"],
    near: Float[Array, "k m"],
    push: Float[Array, "k m"],
    mask: Array,
) -> Float[Array, "c p"]:
    """The latents (c, p) after `STEPS` steps of Adam from `start`, one chain after the other."""
    m = targets.shape[-1]
    adam = optax.adam(optax.cosine_decay_schedule(RATE, STEPS))

    def one(item: tuple[Array, Array]) -> Array:
        anchor, target = item
        noisy = eqx.tree_at(lambda r: r.y, model.rows, target + push)

        def loss(z: Array) -> Array:
            z_prior, z_noise = model.split(z)
            f = model.prior.apply(z_prior, noisy.x)
            misses = jnp.where(mask[:, None], (f[:, :m] - target) / near, 0.0)
            # The noise is judged around the target, so that it does not grow to excuse a miss.
            around = jnp.concatenate([target, f[:, m:]], axis=1)
            terms = model.likelihood.log_prob(z_noise, around, noisy)
            fit = jnp.sum(jnp.where(noisy.mask, terms, 0.0))
            return 0.5 * jnp.sum((z - anchor) ** 2) + 0.5 * jnp.sum(misses**2) - fit

        def step(state: Any, _: None) -> tuple[Any, None]:
            z, moments = state
            change, moments = adam.update(jax.grad(loss)(z), moments, z)
            return (optax.apply_updates(z, change), moments), None

        return jax.lax.scan(step, (anchor, adam.init(anchor)), None, length=STEPS)[0][0]

    return jax.lax.map(one, (start, targets))
