"""The scikit-learn classifier on pre-trained weights.

scikit-learn is optional (`pip install bayesnet[sklearn]`) and loaded with this module only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from bayesnet._sklearn_input import validated
from bayesnet.estimators import BNNClassifier

__all__ = ["PFNClassifier"]


class PFNClassifier(BNNClassifier):
    """A classifier without training: a pre-trained PFN tells the class in one forward pass a view.

    Inputs are standardised inside; labels may be text, bools or whole numbers.

    Args:
        weights: the name of shipped weights ("classifier"), a file of them, or a
            `bn.pfn.ClassPFN`.
        ensemble: how many views of the table are averaged (orders of classes and columns, and
            scales of columns).
        temperature: what log probabilities are divided by: a number (1: as the network says), or
            "cross-validated", found from rows held out (1 below 6 rows): the training prior knows
            harder tables than most real ones.
        longer: for tables of more rows than the weights were trained for: "subsample" (a random
            choice of rows, by `random_state`) or "error".
        wider: for more columns than the weights accept: "project" (the first principal
            components), "subsample" (a random choice for each column view) or "error".
        random_state: of these choices; an integer makes them repeatable.
        device: "auto", "cpu", "gpu", "gpu:1".

    Attributes and methods are those of `BNNClassifier`; `posterior_` is a `bn.pfn.ClassPosterior`.
    More classes than the weights accept (`max_classes`) raise `ValueError`.
    """

    def __init__(
        self,
        weights: Any = "classifier",
        *,
        ensemble: int = 8,
        temperature: float | str = "cross-validated",
        longer: str = "subsample",
        wider: str = "project",
        random_state: Any = None,
        device: Any = "auto",
    ) -> None:
        self.weights = weights
        self.ensemble = ensemble
        self.temperature = temperature
        self.longer = longer
        self.wider = wider
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any) -> PFNClassifier:  # type: ignore[override]
        """Condition on a table: X (n, d), y (n,) labels.

        Raises `ValueError` (`bn.InputError`) for data that cannot be used.
        """
        from bayesnet.devices import using
        from bayesnet.pfn import ClassPFN

        X, y = validated(self, X, y)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        with using(self.device):
            pfn = self.weights
            if not isinstance(pfn, ClassPFN):
                is_file = str(pfn).endswith(".safetensors")
                pfn = ClassPFN.load(pfn) if is_file else ClassPFN.from_pretrained(pfn)
            self.posterior_ = pfn.fit(
                self._named(X),
                y,
                ensemble=self.ensemble,
                temperature=self.temperature,
                longer=self.longer,
                wider=self.wider,
                seed=seed,
            )
        # As the user gave them: the posterior keeps plain numbers and text.
        self.classes_ = np.asarray(self.posterior_.labels, dtype=y.dtype)
        return self
