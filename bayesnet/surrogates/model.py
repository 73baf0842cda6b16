"""`Surrogate`: a bayesnet posterior as a BoTorch model."""

from __future__ import annotations

import copy
import inspect
import zlib
from functools import cache
from typing import Any, Self

import numpy as np
import torch
from botorch.models.model import Model
from torch import Tensor

from bayesnet._errors import InputError, UnsupportedError
from bayesnet.data import Scaling
from bayesnet.inference import Exact, resolve_inference
from bayesnet.pfn.ensemble import PFNEnsemble
from bayesnet.pfn.posterior import PFNPosterior
from bayesnet.pfn.preset import is_amortised, is_pfn
from bayesnet.posterior import FunctionDraws, ProcessPosterior
from bayesnet.surrogates.base import TableModel
from bayesnet.surrogates.bridge import Bridge
from bayesnet.surrogates.checks import (
    check_likelihood,
    check_method,
    check_points,
    check_settings,
    check_training,
)
from bayesnet.surrogates.independent import IndependentSurrogate
from bayesnet.surrogates.noise import fitted_noise, given_noise
from bayesnet.surrogates.outcomes import OutcomeMap
from bayesnet.surrogates.pfn_model import PFNSurrogate
from bayesnet.surrogates.posterior import DrawsPosterior
from bayesnet.surrogates.process import ProcessSurrogate
from bayesnet.surrogates.scope import lasting
from bayesnet.surrogates.tables import evenly
from bayesnet.surrogates.tensors import as_tensor


@cache
def _names() -> tuple[str, ...]:
    """The arguments of a surrogate in their order."""
    return tuple(inspect.signature(Surrogate.__init__).parameters)[1:]


class Surrogate(TableModel):
    """A Bayesian neural network, fitted once when it is made, that BoTorch can optimize over.

    Its posterior is a fixed set of function draws: the same at every call, one function over
    all q points and t-batches, so that every acquisition function of it is a deterministic and
    differentiable function of X.

    Args:
        train_X: n x d inputs.
        train_Y: n x m outcomes.
        train_Yvar: n x m known noise variances (units of train_Y, squared); learned if None.
        prior: a prior, a bare network, or None (the default network), as for `bn.fit`.
        inference: "hmc", "nuts", "sghmc", "ensemble", or a method such as `bn.HMC(chains=4)`; with
            "exact", "infinite_width", "student_t" or `bn.Exact(...)` the surrogate is a
            `ProcessSurrogate`: joint posteriors in closed form, and fantasies; with "pfn" or a
            `bn.PFN` a `PFNSurrogate`: conditioned in one pass, with fantasies; with "amortised" a
            `ProcessSurrogate`, of several outcomes an `IndependentSurrogate`.
        input_transform: a BoTorch input transform; replaces the inner standardisation of X.
            Its parameters are those it has or computes from train_X (bounds); none are learned.
        outcome_transform: a BoTorch outcome transform; replaces the inner standardisation of Y.
        likelihood: of real-valued outcomes (not classes or counts); `bn.GaussianLikelihood()` if
            None. Its noise level is in the units of the transformed outcomes where there is an
            `outcome_transform`.
        target: a process to which the prior is matched first, as for `bn.fit`.
        scaling: the coordinate map, from the data if None; a transform replaces its side.
        seed: an integer or a JAX key.
        init: an earlier `Surrogate` or posterior, from whose chains to go on.
        dtype: torch.float32 or torch.float64, in which draws are evaluated (fitting is in
            float32); that of train_X if None. Results always have the dtype of the X asked
            about. float32 is up to twice as fast, but its rounding makes L-BFGS give up (with
            BoTorch's warning, and a second try) in about one of four optimizations.
        device: where JAX fits and evaluates: "auto", "cpu", "gpu", "gpu:1".
        warn: warn, in words, if the sampling should not be trusted.
        max_draws: draws kept for predictions, evenly spaced over the chains; None for all.

    Raises:
        InputError: bad tensors (shapes, NaN, integers, batches), or what `bn.fit` refuses.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Without draws another model is made: `ProcessSurrogate` (exact), `PFNSurrogate`, ...."""
        given = dict(zip(_names(), args, strict=False)) | kwargs
        inference = given.get("inference", "hmc")
        made = cls is Surrogate and given  # copies and pickles come without arguments
        if made:
            check_method(inference)
        if made and is_pfn(inference):
            return PFNSurrogate(**given)
        several = is_amortised(inference) and getattr(given.get("train_Y"), "ndim", 0) == 2
        if made and several and given["train_Y"].shape[1] > 1:
            return IndependentSurrogate.of(**given)
        if made and (is_amortised(inference) or isinstance(resolve_inference(inference), Exact)):
            return ProcessSurrogate(**given)
        return super().__new__(cls)

    @lasting
    def __init__(
        self,
        train_X: Tensor,
        train_Y: Tensor,
        train_Yvar: Tensor | None = None,
        prior: Any = None,
        inference: Any = "hmc",
        input_transform: Any = None,
        outcome_transform: Any = None,
        likelihood: Any = None,
        target: Any = None,
        scaling: Scaling | None = None,
        seed: Any = 0,
        init: Any = None,
        dtype: torch.dtype | None = None,
        device: Any = "auto",
        warn: bool = True,
        max_draws: int | None = 256,
    ) -> None:
        super().__init__()
        check_training(train_X, train_Y, train_Yvar)
        dtype = train_X.dtype if dtype is None else dtype
        check_settings(dtype, max_draws)
        fitted = self._fit_table(
            train_X,
            train_Y,
            train_Yvar,
            prior=prior,
            target=target,
            likelihood=likelihood,
            scaling=scaling,
            input_transform=input_transform,
            outcome_transform=outcome_transform,
            inference=inference,
            seed=seed,
            init=init.fitted if isinstance(init, Surrogate) else init,
            device=device,
            warn=warn,
        )
        self._attach(
            fitted,
            inference=inference,
            dtype=dtype,
            device=device,
            warn=warn,
            max_draws=max_draws,
            seed=seed,
        )
        self._original = (train_X, train_Y, train_Yvar)
        self.eval()

    @classmethod
    @lasting
    def from_posterior(
        cls,
        posterior: FunctionDraws,
        *,
        dtype: torch.dtype = torch.float64,
        device: Any = "auto",
        max_draws: int | None = 256,
    ) -> Self:
        """A surrogate around a posterior of function draws that `bn.fit` has made.

        Of an exact posterior a `ProcessSurrogate`, of a PFN's a `PFNSurrogate`. Raises `UnsupportedError` for a posterior of
        another kind.
        """
        if isinstance(posterior, ProcessPosterior):
            return ProcessSurrogate.from_posterior(posterior)  # type: ignore[return-value]
        if isinstance(posterior, (PFNPosterior, PFNEnsemble)):
            return PFNSurrogate.from_posterior(posterior, dtype=dtype, device=device)  # type: ignore[return-value]
        if not isinstance(posterior, FunctionDraws):
            raise UnsupportedError(
                "A Surrogate needs a posterior of function draws (bn.fit with hmc, nuts, sghmc or ensemble), got "
                f"{type(posterior).__name__}."
            )
        self = cls.__new__(cls)
        Model.__init__(self)
        scaling = posterior.data.scaling
        x = posterior.data.x * scaling.x_scale + scaling.x_loc
        tables = (as_tensor(x), as_tensor(scaling.y_out(posterior.data.y)))
        variance = None
        if posterior.data.rows.y_var is not None:
            rows = np.asarray(posterior.data.rows.y_var)[: posterior.data.num_rows]
            variance = as_tensor(rows * scaling.y_scale**2)
        check_settings(dtype, max_draws)
        self._attach(
            posterior,
            inference=posterior.method,
            dtype=dtype,
            device=device,
            warn=True,
            max_draws=max_draws,
            seed=0,
        )
        self._original = (*tables, variance)
        self._set_tables(*tables)
        return self.eval()

    def _attach(self, fitted: FunctionDraws, **config: Any) -> None:
        """Take a posterior and the settings of `__init__` with which to fit it again."""
        self._config = {**config, "likelihood": check_likelihood(fitted.likelihood)}
        self.fitted = fitted
        self.likelihood = fitted.likelihood
        latents, noise = fitted.split()
        keep = evenly(len(latents), config["max_draws"])
        self._keep_draws(latents[keep], noise[keep])

    def _keep_draws(self, latents: np.ndarray, noise_latents: np.ndarray) -> None:
        """The draws (s, p) behind posteriors, and the likelihood's latents (s, k) of each."""
        self._latents, self._noise_latents = latents, noise_latents
        self._bridge = Bridge(
            self.fitted.prior, latents, dtype=self._config["dtype"], device=self._config["device"]
        )
        # Tells this model's draws from another's (see DrawsPosterior).
        self._salt = zlib.crc32(np.ascontiguousarray(latents).tobytes())

    @property
    def _num_fitted(self) -> int:
        return self.fitted.data.out_dim

    @property
    def batch_shape(self) -> torch.Size:
        """Empty: one model, not a batch of them."""
        return torch.Size()

    @property
    def num_draws(self) -> int:
        """s, the function draws behind every posterior."""
        return len(self._latents)

    def forward(self, X: Tensor) -> Tensor:
        """Function draws s x batch x q x m at transformed X, in transformed outcomes."""
        scaling = self.fitted.data.scaling
        batch, d = X.shape[:-1], X.shape[-1]
        loc, scale = as_tensor(scaling.x_loc, X), as_tensor(scaling.x_scale, X)
        # A second head of the network (noise levels) comes after the outcomes.
        f = self._bridge((X.reshape(-1, d) - loc) / scale)[..., : self.fitted.data.out_dim]
        f = f * as_tensor(scaling.y_scale, f) + as_tensor(scaling.y_loc, f)
        return f.reshape(f.shape[0], *batch, f.shape[-1])

    def posterior(
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: Any = None,
    ) -> DrawsPosterior:
        """The posterior of the functions at X, batch x q x d: shapes batch x q x m.

        Args:
            output_indices: outcomes to keep; all if None.
            observation_noise: True adds the noise of each draw (with train_Yvar and no learned
                noise, the mean training variance); a tensor holds variances, 1 x m or q x m (or
                with t-batches before), in the space of transformed outcomes.
            posterior_transform: applied to each draw.

        Raises:
            InputError: X of the wrong shape or dtype, NaN, or unknown output indices.
            UnsupportedError: noise of a likelihood whose noise is not Gaussian.
        """
        self.eval()
        check_points(X, self.train_inputs[0].shape[-1])
        outputs = self._select(output_indices)
        inputs = self.transform_inputs(X)
        draws = self.forward(inputs)
        outcome = OutcomeMap(
            getattr(self, "outcome_transform", None), inputs, outputs, posterior_transform
        )
        return DrawsPosterior(draws, self._noise_var(observation_noise, draws), outcome, self._salt)

    def _noise_var(self, observation_noise: bool | Tensor, draws: Tensor) -> Tensor | None:
        """Variances in the space of `draws` (s x batch x q x m), broadcastable to it."""
        if isinstance(observation_noise, Tensor):
            return given_noise(observation_noise, draws, self._outputs)
        if not observation_noise:
            return None
        return fitted_noise(self.fitted, self._noise_latents, draws)

    def with_draws(self, posterior: FunctionDraws) -> Surrogate:
        """The same model around as many other draws of the posterior of its table, evenly chosen."""
        new = self._shallow_copy()
        new.fitted = posterior
        latents, noise = posterior.split()
        keep = evenly(len(latents), self.num_draws)  # another number would be another program
        new._keep_draws(latents[keep], noise[keep])
        return new

    def take_draws(self, index: list[int]) -> Surrogate:
        """The same model with only the draws `index` of its `num_draws`, not fitted again.

        One draw is a deterministic function: Thompson sampling optimizes its mean.
        """
        new = self._shallow_copy()
        new._keep_draws(self._latents[list(index)], self._noise_latents[list(index)])
        return new

    @lasting
    def condition_on_observations(
        self, X: Tensor, Y: Tensor, noise: Tensor | None = None, **kwargs: Any
    ) -> Surrogate:
        """A new surrogate on the old and the new data: chains go on from here and are run again.

        Reweighting the draws would be cheaper and wrong: one exact new point leaves a handful
        of 512 draws with any weight. Takes real observations only, X n' x d and Y n' x m
        (units of train_Y), `noise` their variances for a model with train_Yvar.

        Raises:
            UnsupportedError: batches of observations (fantasies, as for knowledge gradient).
            InputError: tensors that do not fit.
        """
        if X.dim() != 2 or Y.dim() != 2:
            raise UnsupportedError(
                "Surrogate conditions on real observations (X n x d, Y n x m) by running its "
                f"chains again; batches of fantasies (X {tuple(X.shape)}, Y {tuple(Y.shape)}) are "
                "not supported. Use acquisition functions that do not fantasise: qLogEI, qLogNEI, "
                "qUCB, Thompson sampling."
            )
        if self._outputs is not None:
            raise UnsupportedError("Condition the whole model, before subset_output.")
        rows = self.fitted.data.rows
        if rows.weight is not None or rows.observed is not None:
            raise UnsupportedError(
                "This posterior was fitted with sample_weight or missing targets, which a Surrogate "
                "does not keep: fit the whole table again with bn.fit."
            )
        old_X, old_Y, old_var = self._original
        if (noise is None) != (old_var is None):
            raise InputError("noise must be given for a model with train_Yvar, and only then.")
        variance = None
        if noise is not None and old_var is not None:
            variance = torch.cat([old_var, noise.to(old_var)])
        return type(self)(
            torch.cat([old_X, X.detach().to(old_X)]),
            torch.cat([old_Y, Y.detach().to(old_Y)]),
            variance,
            prior=self.fitted.prior,
            input_transform=copy.deepcopy(getattr(self, "input_transform", None)),
            outcome_transform=copy.deepcopy(getattr(self, "outcome_transform", None)),
            scaling=self.fitted.data.scaling,
            init=self.fitted,
            **self._config,
        )

    def fantasize(self, *args: Any, **kwargs: Any) -> Any:
        """Not supported: raises `UnsupportedError` (see `condition_on_observations`)."""
        raise UnsupportedError(
            "Surrogate does not fantasise: conditioning weight draws on imagined points is not "
            "exact. Use qLogEI, qLogNEI, qUCB or Thompson sampling."
        )
