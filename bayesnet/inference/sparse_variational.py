"""Many rows under a kernel prior: variational inference with inducing values and minibatches."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.cluster.vq import kmeans2

from bayesnet import devices
from bayesnet._columns import NamedRows, names_at_fit, names_of
from bayesnet._errors import InputError, UnsupportedError
from bayesnet._matrix import as_matrix
from bayesnet._types import Key, PyTree
from bayesnet.data import Data
from bayesnet.inference._exact_table import available_gib
from bayesnet.inference._kernel_priors import (
    check_kernel_prior,
    choose_kernel_prior,
    is_kernel_prior,
)
from bayesnet.inference._sparse_elbo import (
    HyperStructure,
    Rules,
    roots,
    start_of_scale,
    table_of_law,
)
from bayesnet.inference._sparse_training import PARTS, Plan, Problem, finish, train
from bayesnet.inference._stochastic import require_between
from bayesnet.likelihoods import BernoulliLikelihood, CategoricalLikelihood, GaussianLikelihood
from bayesnet.likelihoods.label_noise import LogitNormal
from bayesnet.posterior.laplace_process import latent_mean
from bayesnet.posterior.latent_process import check_outputs
from bayesnet.posterior.process_table import base_of
from bayesnet.posterior.sparse_process import SparsePosterior, known_log_scale, project
from bayesnet.priors.hyper import is_leaf
from bayesnet.priors.kernel_model import KernelModel, check_columns
from bayesnet.priors.scale_mixture import ScaleMixture

LIKELIHOODS = (BernoulliLikelihood, CategoricalLikelihood, GaussianLikelihood)
# Rows from which k-means finds the inducing ones.
SOURCE_ROWS = 10_000


@dataclass(frozen=True)
class SparseVariational:
    """Condition a kernel prior on many rows by variational inference with inducing values.

    Hensman, Matthews & Ghahramani 2015, whitened, by Adam on minibatches, in float64. For
    `bn.BernoulliLikelihood`, `bn.CategoricalLikelihood` (a known `label_noise` too) and
    `bn.GaussianLikelihood` (known noise, or learned as a point); the priors of `bn.Exact`: processes,
    and scale mixtures of them, for which a log-normal law of the scale is learned beside the inducing
    values (with `bn.InverseGamma` the sparse variational Student-t process of Lee et al. 2022; noise
    "outside" for Gaussian noise). Random hyper-parameters of a `bn.GaussianProcess` are learned with
    them, as a point that maximises bound times density.

    Expectations of one-output likelihoods are by 20 Gauss-Hermite nodes, those of K logits by
    `draws` antithetic draws a row and step. What is learned in a step grows as K M^2 (M inducing rows)
    for a batch, whatever the number of rows; the law is never wider than the data and M allow, and
    `posterior.elbo` is a lower bound of the log evidence.

    Args:
        inducing: how many rows (k-means of the inputs), or the rows themselves (M, d), in user units.
        steps: of Adam, its rate falling to 0 along half a cosine.
        batch_size: rows of a minibatch; None for the whole table in every step.
        learning_rate: of the first step.
        learn_inducing: move the inducing rows as well (kernels written in JAX only).
        draws: of logits a row and step; an even number.

    Raises:
        InputError: counts below 1, rates out of range, inducing rows that are not a matrix.
    """

    inducing: Any = 100
    steps: int = 2000
    batch_size: int | None = 256
    learning_rate: float = 0.03
    learn_inducing: bool = False
    draws: int = 16
    # Of the columns of `inducing`, if that was a data frame; read off it.
    names: Any = field(default=None, repr=False)

    # Tables are kept in float64.
    float64 = True

    def __post_init__(self) -> None:
        for name, low in (("steps", PARTS), ("draws", 2), ("batch_size", 1)):
            value = getattr(self, name)
            if name == "batch_size" and value is None:
                continue
            if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < low:
                raise InputError(f"{name} must be a whole number of at least {low}, got {value!r}.")
        if self.draws % 2:
            raise InputError(f"draws must be even (they come in pairs +-z), got {self.draws}.")
        require_between("learning_rate", self.learning_rate, 0, np.inf)
        if not isinstance(self.learn_inducing, bool):
            raise InputError(f"learn_inducing must be True or False, got {self.learn_inducing!r}.")
        if isinstance(self.inducing, (int, np.integer)) and not isinstance(self.inducing, bool):
            if self.inducing < 1:
                raise InputError(f"inducing must be at least 1, got {self.inducing}.")
            return
        # Plain numbers, so that settings can be compared, hashed and saved.
        rows = as_matrix(self.inducing, "inducing")
        if names_of(self.inducing) is not None:
            object.__setattr__(self, "names", names_at_fit(self.inducing, "inducing"))
        object.__setattr__(self, "inducing", tuple(tuple(row) for row in rows.tolist()))

    def supports(self, prior: Any, likelihood: Any) -> bool:
        """Whether this method can condition `prior` under `likelihood`."""
        learned = isinstance(getattr(likelihood, "label_noise", None), LogitNormal)
        return isinstance(likelihood, LIKELIHOODS) and not learned and is_kernel_prior(prior)

    def choose_prior(self, prior: Any, target: Any, data: Data) -> Any:
        """The prior or the target, whichever is given. Raises `InputError` for both."""
        return choose_kernel_prior("SparseVariational", prior, target)

    @devices.single_precision()
    def fit(
        self,
        prior: Any,
        likelihood: Any,
        data: Data,
        *,
        key: Key,
        init: Any = None,
        progress: Any = None,
    ) -> SparsePosterior:
        """The posterior as a `SparsePosterior`.

        Raises:
            UnsupportedError: a network prior, another likelihood, `y_var`, noise inside a mixture.
            InputError: dimensions that do not agree, a covariance that is not positive definite.
        """
        if init is not None:
            raise InputError("SparseVariational starts from the prior: leave init out.")
        self._check(prior, likelihood, data)
        outputs = check_outputs(prior, likelihood, data)
        start = time.perf_counter()
        base = base_of(prior)
        x = np.asarray(data.x, np.float64)
        check_columns(base, x)
        model = KernelModel(base)
        learns = bool(model.free.size) or self.learn_inducing
        if learns and not model.traceable:
            raise UnsupportedError(
                "Inducing rows can be moved for kernels written in JAX only: learn_inducing=False."
            )
        seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
        inducing = self._inducing_rows(x, data, seed)
        _check_memory(len(data.rows.mask), len(inducing), outputs)
        with jax.enable_x64(True):
            problem = self._problem(prior, likelihood, data, model, inducing, outputs)
            params, trace = train(problem, self, key, progress)
            u = np.asarray(params.get("hyper", np.zeros(0)))
            inducing = np.asarray(params.get("inducing", inducing), np.float64)
            params, value, gain = finish(problem, params, model, u, inducing)
            share = np.asarray(data.rows.share())
        fixed = model.fixed(u)
        record = {
            "elbo": value,
            "log_units": float(np.sum(share @ np.log(data.scaling.y_scale))),
            "gain_left": gain,
            "trace": trace,
            "hyperparameters": model.named(u),
        }
        posterior = SparsePosterior(
            _like(prior, fixed),
            likelihood,
            data.scaling,
            inducing,
            np.asarray(params["mean"]),
            _roots(params),
            _log_scale(params),
            np.asarray(params["noise"]),
            data.num_rows,
            self,
            record,
        )
        posterior.seconds["fit"] = time.perf_counter() - start
        return posterior

    def _check(self, prior: Any, likelihood: Any, data: Data) -> None:
        check_kernel_prior("SparseVariational", prior, learn_variances=False)
        if not isinstance(likelihood, LIKELIHOODS):
            raise UnsupportedError(
                "SparseVariational takes BernoulliLikelihood, CategoricalLikelihood and GaussianLikelihood, "
                f"got {type(likelihood).__name__}: match a network to the process (bn.match_prior)."
            )
        if isinstance(getattr(likelihood, "label_noise", None), LogitNormal):
            raise UnsupportedError("SparseVariational takes a known label_noise, a number.")
        if data.rows.y_var is not None:
            raise UnsupportedError("SparseVariational has no use for y_var: use bn.Exact().")
        if getattr(getattr(prior, "mean", None), "random", False):
            raise UnsupportedError("SparseVariational takes fixed mean functions: state numbers.")
        if not isinstance(prior, ScaleMixture):
            return
        if prior.per_output and prior.out_dim > 1:
            raise UnsupportedError("SparseVariational takes one scale for all: per_output=False.")
        if isinstance(likelihood, GaussianLikelihood) and prior.noise == "inside":
            raise UnsupportedError(
                "SparseVariational takes mixtures with the noise outside: bn.ScaleMixture(..., "
                "noise='outside')."
            )

    def _inducing_rows(self, x: np.ndarray, data: Data, seed: int) -> np.ndarray:
        """Inducing rows (M, d), scaled, all different."""
        if not isinstance(self.inducing, (int, np.integer)):
            rows: Any = np.asarray(self.inducing)
            rows = rows if self.names is None else NamedRows(rows, self.names)
            return np.unique(data.scaling.x_in(data.scaling.matrix(rows, "inducing")), axis=0)
        rng = np.random.default_rng(seed)
        if len(x) > SOURCE_ROWS:
            x = x[rng.choice(len(x), SOURCE_ROWS, replace=False)]
        different = np.unique(x, axis=0)
        if len(different) <= self.inducing:
            return different
        centres, _ = kmeans2(different, int(self.inducing), iter=10, minit="++", seed=rng)
        return np.unique(centres, axis=0)

    def _problem(
        self,
        prior: Any,
        likelihood: Any,
        data: Data,
        model: KernelModel,
        inducing: np.ndarray,
        outputs: int,
    ) -> Problem:
        """What the programs take, as JAX arrays in float64 beside the static plan."""
        bound = likelihood.bind(data.scaling, data.rows)
        law = prior.scale if isinstance(prior, ScaleMixture) else None
        table = table_of_law(law)
        size, at = len(inducing), known_log_scale(prior)
        params: dict[str, Any] = {"mean": jnp.zeros((outputs, size))}
        if table is not None:
            loc, sd = start_of_scale(law)
            params["scale"] = (jnp.asarray(loc), jnp.asarray(np.log(sd)), jnp.asarray(0.5))
            at = loc
        eye = jnp.eye(size) * (0.5 * at)
        params["root"] = jnp.broadcast_to(eye, (outputs, size, size))
        params["noise"] = jnp.zeros(bound.latent_size)
        padded = np.asarray(data.rows.x, np.float64)
        u = np.zeros(0)
        structure, covariance, fixed = None, None, None
        if model.free.size or self.learn_inducing:
            covariance = model.covariance
            base = base_of(prior)
            tree = (getattr(base, "covariance", base).hyper, ())
            if model.free.size:
                u = np.median(model.free.draw(jax.random.key(0), 200), axis=0)
                params["hyper"] = jnp.asarray(u)
                leaves, shape = jax.tree.flatten(tree, is_leaf=is_leaf)
                structure = HyperStructure(tuple(leaves), shape)
            else:
                fixed = jax.tree.map(jnp.asarray, model._hyper(u)[0])
            if self.learn_inducing:
                params["inducing"] = jnp.asarray(inducing)
        mean = jnp.asarray(latent_mean(model, u, padded, outputs))
        if covariance is None:
            a, left = project(model, u, inducing, padded)
            given: Any = (jnp.asarray(a), jnp.asarray(left), mean)
        else:
            given = mean
        one_output = not isinstance(likelihood, CategoricalLikelihood)
        rules = Rules(latent=20 if one_output else 0, draws=self.draws)
        plan = Plan(rules, self.batch_size or len(padded), covariance, structure)
        return Problem(
            plan,
            params,
            bound,
            jnp.asarray(known_log_scale(prior)),
            None if table is None else jnp.asarray(table),
            data.rows,
            given,
            fixed,
            jnp.asarray(inducing),
        )


def _check_memory(n: int, size: int, outputs: int) -> None:
    """Raise `InputError` if the features of n rows, and the roots with what Adam keeps, do not fit."""
    needed = 8.0 * (2.0 * n * size + 8.0 * outputs * size**2) / 2**30
    available = available_gib()
    if needed > available:
        raise InputError(
            f"{size} inducing rows for {n} rows and {outputs} latent function(s) need about {needed:.1f} GiB, "
            f"and {available:.1f} GiB are free. Take fewer: bn.SparseVariational(inducing="
            f"{max(int(size * available / needed), 1)})."
        )


def _roots(params: PyTree) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(roots(params["root"]))


def _log_scale(params: PyTree) -> np.ndarray | None:
    if "scale" not in params:
        return None
    loc, log_sd, tie = params["scale"]
    return np.array([float(loc), float(np.exp(log_sd)), float(tie)])


def _like(prior: Any, base: Any) -> Any:
    """The prior with another base, where it is a mixture."""
    if not isinstance(prior, ScaleMixture):
        return base
    return ScaleMixture(base, prior.scale, noise=prior.noise, per_output=prior.per_output)
