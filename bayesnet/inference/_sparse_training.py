"""Training of a sparse variational process: one program for all kernels, laws and likelihoods."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bayesnet._errors import InputError
from bayesnet._types import Array, Key, PyTree
from bayesnet.data import Rows
from bayesnet.inference._sparse_elbo import (
    HyperStructure,
    Rules,
    divergence,
    elbo,
    expected_log_likelihood,
    features,
    roots,
)
from bayesnet.inference._stochastic import minibatch
from bayesnet.posterior.laplace_process import latent_mean
from bayesnet.posterior.sparse_process import project
from bayesnet.priors.kernel_model import KernelModel

# Rows of one block of the final bound; draws of latents in it.
BLOCK, FINAL_DRAWS = 1024, 64
# Newton steps at the end of training, at most.
NEWTON = 20
# Parts of training that report progress, over each of which the bound is averaged.
PARTS = 10


@dataclass(frozen=True)
class Plan:
    """The static part of the training program: `covariance` None where the kernel is fixed."""

    rules: Rules
    batch: int
    covariance: Any
    structure: HyperStructure | None


@dataclass(frozen=True, eq=False)
class Problem:
    """A plan and the arrays that go with it; `given` are the features of all rows where the kernel is
    fixed, else their prior means."""

    plan: Plan
    params: PyTree
    bound: Any
    known: Array
    table: Array | None
    rows: Rows
    given: Any
    hyper: PyTree
    inducing: Array

    @property
    def arrays(self) -> tuple[Any, ...]:
        """The arguments of `objective` beside the parameters."""
        return self.bound, self.known, self.table, self.rows, self.given, self.hyper, self.inducing


def objective(plan: Plan, params: PyTree, arrays: tuple[Any, ...], key: Key) -> tuple[Array, Array]:
    """The bound estimated on a minibatch, plus log densities of what is learned as a point; and the
    bound alone."""
    bound, known, table, rows, given, hyper, inducing = arrays
    key_rows, key_draws = jax.random.split(key)
    rows, given, factor = minibatch(rows, key_rows, plan.batch, also=given)
    extra = -0.5 * jnp.sum(params["noise"] ** 2)
    if plan.covariance is not None:
        if plan.structure is not None:
            free = plan.structure.free
            hyper = free.tree(params["hyper"])[0]
            extra = extra + free.log_density(params["hyper"])
        matrix = partial(plan.covariance.matrix, hyper)
        given = (*features(matrix, params.get("inducing", inducing), rows.x), given)
    value = elbo(params, bound, known, table, given, rows, factor, key_draws, plan.rules)
    return value + extra, value


@partial(jax.jit, static_argnums=0)
def _steps(
    plan: Plan, params: PyTree, adam: Any, arrays: tuple[Any, ...], key: Key, rates: Array
) -> tuple[PyTree, Any, Array]:
    """Steps of Adam with the given rates, and the mean of the estimated bounds."""

    def step(carry: Any, row: Any) -> Any:
        params, adam = carry
        rate, own = row

        def loss(p: PyTree) -> tuple[Array, Array]:
            total, value = objective(plan, p, arrays, own)
            return -total, value

        slope, value = jax.grad(loss, has_aux=True)(params)
        update, adam = optax.scale_by_adam().update(slope, adam)
        return (jax.tree.map(lambda p, d: p - rate * d, params, update), adam), value

    keys = jax.random.split(key, len(rates))
    (params, adam), values = jax.lax.scan(step, (params, adam), (rates, keys))
    return params, adam, jnp.mean(values)


def train(
    problem: Problem, method: Any, key: Key, progress: Any
) -> tuple[PyTree, tuple[float, ...]]:
    """The trained parameters, and the bound averaged over each part of training."""
    each = -(-method.steps // PARTS)
    t = np.arange(each * PARTS) / (each * PARTS)
    rates = 0.5 * method.learning_rate * (1 + np.cos(np.pi * t))
    params, trace = problem.params, []
    adam = optax.scale_by_adam().init(params)
    for part in range(PARTS):
        own = jnp.asarray(rates[part * each : (part + 1) * each])
        params, adam, value = _steps(
            problem.plan, params, adam, problem.arrays, jax.random.fold_in(key, part), own
        )
        trace.append(float(value))
        if progress is not None:
            progress("training", (part + 1) * each, each * PARTS)
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(params)):
        raise InputError(
            "Training left the finite numbers: lower learning_rate, or look at the prior's kernel."
        )
    return params, tuple(trace)


@partial(jax.jit, static_argnums=0)
def _row_terms(
    rules: Rules, mean: Array, rest: PyTree, bound: Any, known: Array, given: Any, rows: Rows
) -> tuple[Array, Array]:
    """The expected log likelihood of a block of rows and its gradient in the inducing means."""

    def total(mean: Array) -> Array:
        params = {**rest, "mean": mean}
        terms = expected_log_likelihood(params, bound, known, given, rows, jax.random.key(0), rules)
        weight = 1.0 if rows.weight is None else rows.weight
        return jnp.sum(jnp.where(rows.mask, weight * terms, 0.0))

    return jax.value_and_grad(total)(mean)


class WholeTable:
    """The bound over all rows, block by block, and its gradient in the inducing means."""

    def __init__(
        self, problem: Problem, params: PyTree, model: KernelModel, u: np.ndarray, z: np.ndarray
    ) -> None:
        self.problem = problem
        self.rest = {k: v for k, v in params.items() if k in ("root", "noise", "scale")}
        self.rules = Rules(latent=problem.plan.rules.latent, draws=FINAL_DRAWS)
        outputs, self.blocks = params["mean"].shape[0], []
        for begin in range(0, len(problem.rows.mask), BLOCK):
            part = jax.tree.map(lambda a, b=begin: a[b : b + BLOCK], problem.rows)
            x = np.asarray(part.x, np.float64)
            a, left = project(model, u, z, x)
            mean = jnp.asarray(latent_mean(model, u, x, outputs))
            self.blocks.append(((jnp.asarray(a), jnp.asarray(left), mean), part))

    def at(self, mean: Array) -> tuple[float, Array]:
        """The bound and its gradient at inducing means (K, M)."""
        problem = self.problem

        def cost(m: Array) -> Array:
            params = {**self.rest, "mean": m}
            return divergence(params, problem.known, problem.table, self.rules)

        value, slope = jax.value_and_grad(cost)(mean)
        value, slope = -value, -slope
        for given, part in self.blocks:
            more, by = _row_terms(
                self.rules, mean, self.rest, problem.bound, problem.known, given, part
            )
            value, slope = value + more, slope + by
        return float(value), slope


def finish(
    problem: Problem, params: PyTree, model: KernelModel, u: np.ndarray, z: np.ndarray
) -> tuple[PyTree, float, float]:
    """The parameters after some Newton steps of the inducing means over the whole table, the bound,
    and what one more step would gain.

    At the optimum the covariance of the inducing values is the inverse Hessian of their means; where
    Adam is slow (small noise) such steps are not. Expectations by draws are too noisy for them.
    """
    whole, triangle = WholeTable(problem, params, model, u, z), roots(params["root"])
    mean = params["mean"]
    value, slope = whole.at(mean)

    def newton(slope: Array) -> tuple[Array, float]:
        half = jnp.einsum("kml,km->kl", triangle, slope)
        return jnp.einsum("kml,kl->km", triangle, half), float(0.5 * jnp.sum(half**2))

    step, gain = newton(slope)
    for _ in range(NEWTON if problem.plan.rules.latent else 0):
        if gain < 1e-8 * len(problem.rows.mask):
            break
        for size in (1.0, 0.25, 0.05):
            trial, by = whole.at(mean + size * step)
            if trial > value:
                mean, value = mean + size * step, trial
                step, gain = newton(by)
                break
        else:
            break
    return {**params, "mean": mean}, value, gain
