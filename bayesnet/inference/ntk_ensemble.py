"""Infinitely wide networks trained by gradient descent: the ensemble in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bayesnet._errors import UnsupportedError
from bayesnet._types import Key
from bayesnet.data import Data
from bayesnet.inference._exact_search import SAMPLED
from bayesnet.inference.exact import Exact
from bayesnet.likelihoods import GaussianLikelihood
from bayesnet.posterior.process_table import base_of
from bayesnet.posterior.trained import TrainedEnsemble


@dataclass(frozen=True)
class NTKEnsemble(Exact):
    """The law of `bn.kernels.NTK` networks trained from random starts (Lee et al. 2019, section 2.2.2).

    For a deep ensemble of infinite width and size: mean and full covariance, in `bn.fit` with a
    `bn.kernels.NTK` as the prior. The noise variance is the ridge that holds weights near their
    start; a learned level maximises the evidence of the process with the tangent kernel (times its
    law), as `Exact` does. Arguments: those of `Exact` that concern noise and memory.

    A `bn.ScaleMixture` of a `bn.kernels.NTK` is the ensemble whose members each draw the variance of
    their last layer and keep it through training (Lee, Yun, Yang & Lee 2022): a mixture of the above
    over the **prior** law of the scale, which training does not reweight. Its finite counterpart is
    `bn.DeepEnsemble(hold_scales=True)` with `bn.weights.ScaledLastLayer(law)` (noise "outside").
    """

    def supports(self, prior: Any, likelihood: Any) -> bool:
        """Whether `prior` is a `bn.kernels.NTK`, or a mixture of one, and the noise Gaussian."""
        return hasattr(base_of(prior), "nngp") and isinstance(likelihood, GaussianLikelihood)

    def iterative(self, prior: Any, n: int) -> bool:
        """Never: the law needs the factor of the table."""
        return False

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
        if not hasattr(base_of(prior), "nngp"):
            raise UnsupportedError(
                f"NTKEnsemble is for bn.kernels.NTK(...), got {type(base_of(prior)).__name__}: an NNGP is conditioned "
                "by bn.Exact(); networks of finite width are trained by bn.DeepEnsemble()."
            )
        if self.importance_samples is not None:
            raise UnsupportedError(
                "NTKEnsemble integrates by quadrature: leave importance_samples out."
            )
        if self.hyper in SAMPLED or self.learn_variances or self.solver == "cg":
            raise UnsupportedError(
                "NTKEnsemble has one set of variances and a factor of the table: leave hyper, learn_variances "
                "and solver as they are."
            )
        found = super().fit(prior, likelihood, data, key=key, init=init, progress=progress)
        fields = {name: getattr(found, name) for name in found.__dataclass_fields__}
        return TrainedEnsemble(**fields)
