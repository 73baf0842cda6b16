"""Infinitely wide networks trained by gradient descent: the ensemble in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bayesnet._errors import UnsupportedError
from bayesnet._types import Key
from bayesnet.data import Data
from bayesnet.inference.exact import Exact
from bayesnet.likelihoods import GaussianLikelihood
from bayesnet.posterior.trained import TrainedEnsemble


@dataclass(frozen=True)
class NTKEnsemble(Exact):
    """The law of `bn.kernels.NTK` networks trained from random starts (Lee et al. 2019, section 2.2.2).

    For a deep ensemble of infinite width and size: mean and full covariance, in `bn.fit` with a
    `bn.kernels.NTK` as the prior. The noise variance is the ridge that holds weights near their
    start; a learned level maximises the evidence of the process with the tangent kernel (times its
    law), as `Exact` does. Arguments: those of `Exact` that concern noise and memory.
    """

    def supports(self, prior: Any, likelihood: Any) -> bool:
        """Whether `prior` is a `bn.kernels.NTK` and the noise Gaussian."""
        return hasattr(prior, "nngp") and isinstance(likelihood, GaussianLikelihood)

    def fit(
        self,
        prior: Any,
        likelihood: Any,
        data: Data,
        *,
        key: Key,
        init: Any = None,
        progress: Any = None,
    ) -> TrainedEnsemble:
        """The law as a `TrainedEnsemble`.

        Raises `UnsupportedError` for another prior, and what `Exact` raises.
        """
        if not hasattr(prior, "nngp"):
            raise UnsupportedError(
                f"NTKEnsemble is for bn.kernels.NTK(...), got {type(prior).__name__}: an NNGP is conditioned "
                "by bn.Exact(); networks of finite width are trained by bn.DeepEnsemble()."
            )
        if self.hyper == "hmc" or self.learn_variances or self.solver != "cholesky":
            raise UnsupportedError(
                "NTKEnsemble has one set of variances and a factor of the table: leave hyper, learn_variances "
                "and solver as they are."
            )
        found = super().fit(prior, likelihood, data, key=key, init=init, progress=progress)
        fields = {name: getattr(found, name) for name in found.__dataclass_fields__}
        return TrainedEnsemble(**fields)
