"""scikit-learn estimators: a Bayesian network as one step of a pipeline, search or ensemble.

scikit-learn is optional (`pip install bayesnet[sklearn]`) and loaded with this module only.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from typing import Any

import numpy as np

from bayesnet._columns import NamedRows
from bayesnet._errors import InputError, MissingExtraError

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils import check_random_state, column_or_1d
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted

    from bayesnet._sklearn_input import validated
    from bayesnet._sklearn_params import NestedSettings
except ImportError as error:
    raise MissingExtraError(
        "bn.BNNRegressor and bn.BNNClassifier need scikit-learn: pip install bayesnet[sklearn]"
    ) from error

__all__ = ["BNNClassifier", "BNNRegressor", "PFNRegressor"]


class _Estimator(NestedSettings, BaseEstimator):
    """What the regressor and the classifier share: the settings, and how they condition."""

    def __init__(
        self,
        prior: Any = None,
        inference: Any = "hmc",
        *,
        hidden: Any = None,
        likelihood: Any = None,
        target: Any = None,
        random_state: Any = None,
        device: Any = "auto",
        progress: bool = False,
    ) -> None:
        self.prior = prior
        self.inference = inference
        self.hidden = hidden
        self.likelihood = likelihood
        self.target = target
        self.random_state = random_state
        self.device = device
        self.progress = progress

    def _condition(self, X: Any, y: Any, likelihood: Any, outputs: int, **rows: Any) -> Any:
        """The posterior under `likelihood`, whose network has `outputs` outputs."""
        from bayesnet.fitting import fit

        return fit(
            self._resolve_prior(X.shape[1], outputs),
            self._named(X),
            y,
            target=self.target,
            likelihood=likelihood,
            inference=self.inference,
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
            device=self.device,
            progress=self.progress,
            **rows,
        )

    def _named(self, X: np.ndarray) -> Any:
        """X with the names of its columns, if it came as a frame: `posterior_` keeps them."""
        names = getattr(self, "feature_names_in_", None)
        return X if names is None else NamedRows(X, names)

    def predict_distribution(self, X: Any) -> Any:
        """The whole predictive law at X (n, d): a `bn.Prediction` or a `bn.ClassPrediction`."""
        from bayesnet.devices import using

        check_is_fitted(self)
        X = validated(self, X, reset=False)
        with using(self.device):
            return self.posterior_.predict(X)

    def _resolve_prior(self, in_dim: int, out_dim: int) -> Any:
        if self.hidden is not None:
            return self._default_network()
        # Networks may be callable too, so only plain functions count as makers of a prior.
        if inspect.isroutine(self.prior) or isinstance(self.prior, functools.partial):
            return self.prior(in_dim, out_dim)
        return self.prior

    def _default_network(self) -> Any:
        """The default network with the widths `hidden`."""
        from bayesnet.defaults import default_network

        if self.prior is not None:
            raise InputError(
                "hidden holds the widths of the default network: leave it out where a prior is given, or "
                f"prior; got hidden={self.hidden!r} and a {type(self.prior).__name__}."
            )
        widths = np.atleast_1d(np.asarray(self.hidden)).tolist()
        return dataclasses.replace(default_network(), hidden=tuple(widths))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = self.random_state is None
        return tags


class BNNRegressor(RegressorMixin, _Estimator):
    """A Bayesian neural network regressor with a functional prior.

    Inputs and targets are given in their own units: both are standardised inside, so no
    `StandardScaler` is needed.

    Args:
        prior: a `bn.NetworkPrior`; a bare network (`bn.MLP`, an equinox or flax module), which
            is then matched to `target`; a function `(d, m) -> prior` of the numbers of inputs and
            network outputs, for pipelines in which they are not known beforehand; or None, the
            default network.
        inference: "hmc", "nuts", "sghmc", "ensemble", or a method such as `bn.HMC(draws=500)`. Its
            settings are parameters of scikit-learn, `inference__draws` in `set_params` and searches.
        hidden: the widths of the hidden layers of the default network, such as `(50, 50)`; None
            where a prior is given.
        likelihood: `bn.GaussianLikelihood()` (noise learned) if None; any but those of classes.
        target: the process that the weights are matched to, such as `bn.GaussianProcess("rbf")`.
        random_state: an integer makes fits repeatable; None draws a new seed at every fit.
        device: "auto", "cpu", "gpu", "gpu:1".
        progress: show a progress bar.

    Attributes:
        posterior_: the fitted posterior, with `predict`, `diagnostics` and `save`.
        n_features_in_: the number d of columns.
        feature_names_in_: the names of the columns, if X was a data frame.
        n_outputs_: the number m of targets.

    `predict` gives (n,) if y was a vector and (n, m) if it was a matrix, as scikit-learn does.
    Estimators pickle (joblib); to share a model use `posterior_.save`, which is no pickle.
    """

    def fit(self, X: Any, y: Any, y_var: Any = None, sample_weight: Any = None) -> BNNRegressor:
        """Condition the prior on a table.

        Args:
            X: inputs (n, d).
            y: targets (n,) or (n, m).
            y_var: known noise variance of each target, shaped as y (units of y, squared).
            sample_weight: (n,), 0 or more; multiplies each row's log likelihood.

        Raises `ValueError` (`bn.InputError`) for data that cannot be used.
        """
        X, y = validated(self, X, y, multi_output=True, y_numeric=True)
        likelihood = self._resolve_likelihood()
        self._y_is_vector = y.ndim == 1
        self.n_outputs_ = 1 if y.ndim == 1 else y.shape[1]
        self.posterior_ = self._condition(
            X,
            y,
            likelihood,
            likelihood.num_outputs(self.n_outputs_),
            y_var=y_var,
            sample_weight=sample_weight,
        )
        return self

    def _resolve_likelihood(self) -> Any:
        from bayesnet.likelihoods import resolve_likelihood

        likelihood = resolve_likelihood(self.likelihood)
        if hasattr(likelihood, "classes"):
            raise InputError(
                f"{type(likelihood).__name__} is for class labels: use bn.BNNClassifier."
            )
        return likelihood

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

    def _shaped(self, values: np.ndarray) -> np.ndarray:
        return values[:, 0] if self._y_is_vector else values

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class PFNRegressor(BNNRegressor):
    """A regressor without training: a pre-trained PFN conditions its prior in one forward pass.

    Args:
        weights: the name of shipped weights ("gp"), a file of them, or a `bn.PFN`.
        ensemble: how many views of the table are averaged (orders of columns, monotone maps of
            columns and targets). 8 help where columns or targets are skewed, at 8 times the price;
            the joint law of new rows is exact with 1 only.
        longer: for tables of more rows than the weights were trained for: "subsample" (a random
            choice of rows, by `random_state`) or "error".
        random_state: of the choice of rows and of orders; an integer makes them repeatable.
        device: "auto", "cpu", "gpu", "gpu:1".

    Attributes and methods are those of `BNNRegressor`; `posterior_` is a `bn.pfn.PFNPosterior` or, of
    more than one view, a `bn.pfn.PFNEnsemble`.
    """

    def __init__(
        self,
        weights: Any = "gp",
        *,
        ensemble: int = 1,
        longer: str = "subsample",
        random_state: Any = None,
        device: Any = "auto",
    ) -> None:
        self.weights = weights
        self.ensemble = ensemble
        self.longer = longer
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any) -> PFNRegressor:  # type: ignore[override]
        """Condition on a table: X (n, d), y (n,) or (n, m).

        Raises `ValueError` (`bn.InputError`) for data that cannot be used.
        """
        from bayesnet.devices import using
        from bayesnet.pfn import PFN

        X, y = validated(self, X, y, multi_output=True, y_numeric=True)
        self._y_is_vector = y.ndim == 1
        self.n_outputs_ = 1 if y.ndim == 1 else y.shape[1]
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        with using(self.device):
            pfn = self.weights
            if not isinstance(pfn, PFN):
                is_file = str(pfn).endswith(".safetensors")
                pfn = PFN.load(pfn) if is_file else PFN.from_pretrained(pfn)
            if not isinstance(pfn, PFN):
                raise InputError(
                    f"The weights {self.weights!r} are for classes: use bn.PFNClassifier."
                )
            self.posterior_ = pfn.fit(
                self._named(X), y, ensemble=self.ensemble, longer=self.longer, seed=seed
            )
        return self


class BNNClassifier(ClassifierMixin, _Estimator):
    """A Bayesian neural network classifier with a functional prior on its logits.

    Inputs are standardised inside; labels may be text, bools or whole numbers.

    Args:
        prior: as for `BNNRegressor`; the network has one output for two classes (the log odds
            of the second) and K for K classes. A function `(d, outputs) -> prior` is told.
        inference, hidden: as for `BNNRegressor`.
        likelihood: `bn.BernoulliLikelihood()` for two classes and `bn.CategoricalLikelihood()`
            for more if None; or one of these, for example with `label_noise=`.
        target: the process that the weights are matched to, one for each logit.
        random_state: an integer makes fits repeatable; None draws a new seed at every fit.
        device: "auto", "cpu", "gpu", "gpu:1".
        progress: show a progress bar.

    Attributes:
        classes_: the K labels, in the order of the columns of `predict_proba`.
        posterior_: the fitted posterior; its `predict` gives a `bn.ClassPrediction`.
        n_features_in_: the number d of columns.
        feature_names_in_: the names of the columns, if X was a data frame.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> BNNClassifier:
        """Condition the prior on a table.

        Args:
            X: inputs (n, d).
            y: class labels (n,).
            sample_weight: (n,), 0 or more; multiplies each row's log likelihood.

        Raises `ValueError` (`bn.InputError`) for data that cannot be used.
        """
        X, y = validated(self, X, y)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        likelihood, names = self._resolve_likelihood(y)
        self.posterior_ = self._condition(
            X, y, likelihood, likelihood.num_outputs(1), sample_weight=sample_weight
        )
        # As the user gave them: the posterior keeps plain numbers and text.
        self.classes_ = names
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label of each row of X (n, d): (n,)."""
        chosen = np.argmax(self.predict_proba(X), axis=1)
        return self.classes_[chosen]

    def predict_proba(self, X: Any) -> np.ndarray:
        """The predictive probability of each class, (n, K), in the order of `classes_`."""
        return self.predict_distribution(X).mean

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """The logarithm of `predict_proba`, (n, K)."""
        with np.errstate(divide="ignore"):  # a probability may be 0
            return np.log(self.predict_proba(X))

    def _resolve_likelihood(self, y: np.ndarray) -> tuple[Any, np.ndarray]:
        """The likelihood with its classes, and these (K,), in the dtype of y where that holds them."""
        from bayesnet.likelihoods import (
            BernoulliLikelihood,
            CategoricalLikelihood,
            resolve_likelihood,
        )

        likelihood = self.likelihood
        if likelihood is None:
            two = len(np.unique(y)) == 2
            likelihood = BernoulliLikelihood() if two else CategoricalLikelihood()
        likelihood = resolve_likelihood(likelihood)
        if not hasattr(likelihood, "classes"):
            raise InputError(
                f"{type(likelihood).__name__} is not for class labels: use bn.BernoulliLikelihood "
                "or bn.CategoricalLikelihood, or bn.BNNRegressor."
            )
        likelihood, _ = likelihood.encode(y)
        names = np.asarray(likelihood.classes)
        # Not if the dtype of y cannot hold them: stated classes may be longer than those that were seen.
        as_given = names.astype(y.dtype)
        return likelihood, as_given if np.array_equal(as_given, names) else names
