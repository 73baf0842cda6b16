"""scikit-learn estimators: a Bayesian network as one step of a pipeline, search or ensemble.

scikit-learn is optional (`pip install bayesnet[sklearn]`) and loaded with this module only.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import numpy as np

from bayesnet._errors import MissingExtraError

try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise MissingExtraError(
        "bn.BNNRegressor needs scikit-learn: pip install bayesnet[sklearn]"
    ) from error

__all__ = ["BNNRegressor"]


class BNNRegressor(RegressorMixin, BaseEstimator):
    """A Bayesian neural network regressor with a functional prior.

    Inputs and targets are given in their own units: both are standardised inside, so no
    `StandardScaler` is needed.

    Args:
        prior: a `bn.NetworkPrior`; a bare network (`bn.MLP`, an equinox or flax module), which
            is then matched to `target`; a function `(d, m) -> prior` for pipelines in which the
            number of columns is not known beforehand; or None, the default network.
        inference: "hmc", "nuts", or a method such as `bn.HMC(chains=4, draws=500)`.
        likelihood: `bn.GaussianLikelihood()` (noise learned) if None.
        target: the process that the weights are matched to, such as `bn.GaussianProcess("rbf")`.
        random_state: an integer makes fits repeatable; None draws a new seed at every fit.
        device: "auto", "cpu", "gpu", "gpu:1".
        progress: show a progress bar.

    Attributes:
        posterior_: the fitted posterior, with `predict`, `diagnostics` and `save`.
        n_features_in_: d. feature_names_in_: column names, if X was a data frame.
        n_outputs_: m.

    `predict` gives (n,) if y was a vector and (n, m) if it was a matrix, as scikit-learn does.
    Estimators pickle (joblib); to share a model use `posterior_.save`, which is no pickle.
    """

    def __init__(
        self,
        prior: Any = None,
        inference: Any = "hmc",
        *,
        likelihood: Any = None,
        target: Any = None,
        random_state: Any = None,
        device: Any = "auto",
        progress: bool = False,
    ) -> None:
        self.prior = prior
        self.inference = inference
        self.likelihood = likelihood
        self.target = target
        self.random_state = random_state
        self.device = device
        self.progress = progress

    def fit(self, X: Any, y: Any, y_var: Any = None) -> BNNRegressor:
        """Condition the prior on a table.

        Args:
            X: inputs (n, d). y: targets (n,) or (n, m).
            y_var: known noise variance of each target, shaped as y (units of y, squared).

        Raises `ValueError` (`bn.InputError`) for data that cannot be used.
        """
        from bayesnet.fitting import fit

        X, y = validate_data(self, X, y, multi_output=True, y_numeric=True, dtype=np.float64)
        self._y_is_vector = y.ndim == 1
        self.n_outputs_ = 1 if y.ndim == 1 else y.shape[1]
        self.posterior_ = fit(
            self._resolve_prior(X.shape[1], self.n_outputs_),
            X,
            y,
            target=self.target,
            likelihood=self.likelihood,
            inference=self.inference,
            y_var=y_var,
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
            device=self.device,
            progress=self.progress,
        )
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """The predictive mean, and with `return_std` the sd of a new observation.

        X is (n, d); each result is (n,) or (n, m), in the units of y. The sd holds both what
        more data would reduce and the observation noise; `predict_distribution` tells them apart.
        """
        prediction = self.predict_distribution(X)
        mean = self._shaped(prediction.mean)
        return (mean, self._shaped(prediction.std)) if return_std else mean

    def predict_quantiles(self, X: Any, quantiles: Any = (0.05, 0.5, 0.95)) -> np.ndarray:
        """Predictive quantiles of a new observation: (n, k), or (n, m, k), for k levels.

        Raises `ValueError` for a level that is not strictly between 0 and 1.
        """
        prediction = self.predict_distribution(X)
        levels = np.atleast_1d(np.asarray(quantiles, np.float64))
        return np.stack([self._shaped(prediction.quantile(q)) for q in levels], axis=-1)

    def predict_distribution(self, X: Any) -> Any:
        """The whole predictive law at X (n, d): a `bn.Prediction` with arrays (n, m)."""
        from bayesnet.devices import using

        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        with using(self.device):
            return self.posterior_.predict(X)

    def _resolve_prior(self, in_dim: int, out_dim: int) -> Any:
        # Networks may be callable too, so only plain functions count as makers of a prior.
        if inspect.isroutine(self.prior) or isinstance(self.prior, functools.partial):
            return self.prior(in_dim, out_dim)
        return self.prior

    def _shaped(self, values: np.ndarray) -> np.ndarray:
        return values[:, 0] if self._y_is_vector else values

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.non_deterministic = self.random_state is None
        return tags
