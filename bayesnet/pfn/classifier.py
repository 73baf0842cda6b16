"""`ClassPFN`: weights that tell the class of new rows from a table in one forward pass."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from bayesnet import devices
from bayesnet._columns import names_at_fit
from bayesnet._errors import FileFormatError, InputError, unknown_name
from bayesnet._matrix import as_matrix
from bayesnet._notices import said_if_slow
from bayesnet._types import ArrayLike
from bayesnet.likelihoods.labels import as_labels, check_classes, encode_labels
from bayesnet.pfn.class_labels import Labels
from bayesnet.pfn.class_network import ClassTransformer
from bayesnet.pfn.class_posterior import ClassPosterior, PFNClassPrediction, answers, average
from bayesnet.pfn.class_tasks import ClassTasks
from bayesnet.pfn.class_temperature import temperature_of
from bayesnet.pfn.class_training import ClassObjective
from bayesnet.pfn.class_views import WIDER
from bayesnet.pfn.context import FIRST_PASS
from bayesnet.pfn.correlated_inputs import CorrelatedInputs
from bayesnet.pfn.ensemble import check_ensemble
from bayesnet.pfn.inputs import as_input_law
from bayesnet.pfn.loop import run_loop
from bayesnet.pfn.many import tables_of
from bayesnet.pfn.precision import cast
from bayesnet.pfn.settings import Training
from bayesnet.pfn.setup import load_pretrained, make_card, training_of
from bayesnet.pfn.table import LONGER
from bayesnet.posterior.saving import load, save


@dataclass(frozen=True, eq=False)
class ClassPFN:
    """A prior-data fitted network for class labels (Mueller et al. 2022, section 5).

    A transformer that was trained on tables of labels drawn from a prior to give the probability of
    each class at new rows; conditioning on a table is one forward pass.

    `network`: its weights. `card`: what it was trained on, and how good it is (`certificate`).
    """

    network: ClassTransformer
    card: dict[str, Any]

    @property
    def max_rows(self) -> int:
        """The longest table that it was trained for."""
        return int(self.card["buckets"][-1])

    @property
    def max_dim(self) -> int:
        """The most columns that it accepts; it was trained for those of `card["dims"]`."""
        return self.network.max_dim

    @property
    def max_classes(self) -> int:
        """The most classes that it accepts."""
        return self.network.max_classes

    def __repr__(self) -> str:
        return (
            f"ClassPFN({self.card['name']!r}, up to {self.max_dim} columns, {self.max_rows} rows and "
            f"{self.max_classes} classes, {self.card['steps']} steps)"
        )

    @staticmethod
    def from_pretrained(name: str = "classifier") -> ClassPFN:
        """The weights `name` that ship with the library.

        "classifier": random networks and Gaussian processes, binned or as log odds. Raises `InputError`
        for an unknown name, `FileFormatError` for weights that were altered.
        """
        found = load_pretrained(name)
        if not isinstance(found, ClassPFN):
            raise InputError(f"The weights {name!r} are not for classes: they are a {found!r}.")
        return found.cast(jnp.float32)

    @staticmethod
    def load(path: str | Path) -> ClassPFN:
        """The classifier saved at `path`; the file cannot run code.

        Raises `FileFormatError` for a file that is altered, of another version, or no classifier.
        """
        loaded = load(path)
        if not isinstance(loaded, ClassPFN):
            raise FileFormatError(f"{path} holds a {type(loaded).__name__}, not a ClassPFN.")
        return loaded.cast(jnp.float32)

    def save(self, path: str | Path, *, half: bool = True) -> None:
        """Write the weights (float16 if `half`, else float32) and the card, with a checksum."""
        save(self.cast(jnp.float16) if half else self, path)

    def cast(self, dtype: Any) -> ClassPFN:
        """The same weights in another precision."""
        return ClassPFN(cast(self.network, dtype), self.card)

    @staticmethod
    def train(
        prior: Any,
        likelihood: Any = None,
        *,
        labels: Labels | None = None,
        inputs: Any = None,
        dims: tuple[int, ...] | None = None,
        name: str = "own",
        folder: str | Path | None = None,
        progress: Any = None,
        **knobs: Any,
    ) -> ClassPFN:
        """Train on tables of labels drawn from a prior; arguments as of `bn.PFN.train`.

        `prior`: a `bn.GaussianProcess`, a network prior, a `bn.pfn.RandomNetworks`, a function
        `d -> prior`, or a `bn.pfn.Mixture` of these. `labels`: how functions become labels
        (`bn.pfn.Labels()`). `inputs`: a mixture of laws, some correlated, if None.

        Raises `InputError` or `UnsupportedError` for what cannot be trained on.
        """
        training = training_of(prior, dims, knobs)
        law = CorrelatedInputs() if inputs is None else inputs
        if not isinstance(law, CorrelatedInputs):
            law = as_input_law(law)
        sizes = (training.dims, training.buckets[-1], training.queries)
        tasks = ClassTasks(prior, likelihood, law, *sizes, Labels() if labels is None else labels)
        return train_classifier(tasks, training, name, folder=folder, progress=progress)

    @devices.single_precision()
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        classes: Any = None,
        ensemble: int = 1,
        temperature: float | str = 1.0,
        longer: str = "error",
        wider: str = "error",
        seed: int = 0,
        warn: bool = True,
    ) -> ClassPosterior:
        """Condition on a table.

        Args:
            X: inputs, n x d, in the user's units.
            y: labels (n,), text, bools or whole numbers.
            classes: the labels that can occur, at least two; those of `y` if None.
            ensemble: how many views of the table are averaged: orders of its classes, then
                orders and scales of its columns.
            temperature: what log probabilities are divided by: below 1 for a table that is easier
                than those of the training prior. "cross-validated" finds it from rows held out, at
                the price of ten forward passes more a view (`bayesnet.pfn.class_temperature`).
            longer: for tables of more rows than it was trained for: "error", or "subsample" (a
                random choice of rows, by `seed`, with every class).
            wider: for more columns than accepted: "error", "project" (on the first principal
                components), or "subsample" (each column view has a random choice of columns).
            warn: warn, in words, where the table is unlike the training prior.

        Raises `InputError` for data that cannot be used, one class, or more classes, columns or rows
        than accepted.
        """
        x, codes, names = self._table(X, y, classes, longer, wider, seed)
        views = check_ensemble(ensemble)
        posterior = ClassPosterior(
            self, x, codes, names, views, wider, seed, names=names_at_fit(X, "X")
        )
        limit = self.card.get("surprise_limit")
        with said_if_slow(FIRST_PASS):
            posterior = replace(posterior, temperature=temperature_of(temperature, posterior))
            surprises = warn and limit is not None and posterior.surprise > limit
        if surprises:
            warnings.warn(
                "The table is unlike what this PFN was trained on: half of its rows, predicted by the "
                f"other half, score {posterior.surprise:.1f} sd worse than predicted, which 1 in 200 "
                f"tables of the prior exceed ({limit:.1f}). Compare with another method.",
                stacklevel=3,
            )
        return posterior

    @devices.single_precision()
    def predict_many(
        self,
        X: ArrayLike,
        y: ArrayLike,
        X_new: ArrayLike,
        *,
        ensemble: int = 1,
        temperature: float | str = 1.0,
    ) -> list[PFNClassPrediction]:
        """Predictions of many tables of the same shape, conditioned in one program.

        X (t, n, d), y (t, n): t tables. X_new (t, q, d): the new rows of each. The same as
        `fit(X[i], y[i]).predict(X_new[i])` for every i, classes being those of y[i]. Raises
        `InputError` as these.
        """
        x, targets, new = tables_of(X, y, X_new)
        posteriors = [
            self.fit(a, b, ensemble=ensemble, temperature=temperature, warn=False)
            for a, b in zip(x, targets, strict=True)
        ]
        asked = [
            (*given, rows)
            for posterior, rows in zip(posteriors, new, strict=True)
            for given in posterior.contexts()
        ]
        found = answers(self.network, asked)
        return [
            average(found[i * ensemble : (i + 1) * ensemble], p.labels, p.temperature)
            for i, p in enumerate(posteriors)
        ]

    def _table(
        self, X: ArrayLike, y: ArrayLike, classes: Any, longer: str, wider: str, seed: int
    ) -> tuple[np.ndarray, np.ndarray, tuple[Any, ...]]:
        """Checked inputs, codes and classes."""
        for name, value, known in (("longer", longer, LONGER), ("wider", wider, WIDER)):
            if value not in known:
                raise unknown_name(f"value of {name}", value, known)
        x, labels = as_matrix(X, "X"), as_labels(y)
        if len(x) != len(labels):
            raise InputError(
                f"X has {len(x)} rows but y has {len(labels)}: one label per row is needed."
            )
        names, columns = encode_labels(labels, check_classes(classes))
        codes = columns[:, 0].astype(np.int64)
        if len(names) > self.max_classes:
            raise InputError(
                f"y has {len(names)} classes, this PFN accepts at most {self.max_classes}: use another "
                "method, such as bn.BNNClassifier."
            )
        if x.shape[1] > self.max_dim and wider == "error":
            raise InputError(
                f"X has {x.shape[1]} columns, this PFN accepts at most {self.max_dim}: choose columns, "
                'pass wider="project" (on the command line --project) or wider="subsample", or use another '
                "method."
            )
        if len(x) > self.max_rows:
            if longer == "error":
                raise InputError(
                    f"The table has {len(x)} rows, this PFN was trained for at most {self.max_rows}: pass "
                    'longer="subsample" (--subsample) for a random choice of them, or use another method.'
                )
            chosen = _choice(codes, self.max_rows, seed)
            x, codes = x[chosen], codes[chosen]
        return x, codes, names


def _choice(codes: np.ndarray, size: int, seed: int) -> np.ndarray:
    """A random choice of rows that has every class."""
    order = np.random.default_rng(seed).permutation(len(codes))
    _, first = np.unique(codes[order], return_index=True)
    rest = np.delete(order, first)
    return np.sort(np.concatenate([order[first], rest[: size - len(first)]]))


@devices.single_precision()
def train_classifier(
    tasks: ClassTasks,
    training: Training,
    name: str,
    *,
    folder: str | Path | None = None,
    progress: Any = None,
) -> ClassPFN:
    """Train on `tasks`; see `ClassPFN.train`."""
    state = run_loop(ClassObjective(tasks, training), folder=folder, progress=progress)
    return ClassPFN(state.network, class_card(tasks, training, name))


def class_card(tasks: ClassTasks, training: Training, name: str) -> dict[str, Any]:
    """What is known of a classifier before it is tested."""
    return make_card(tasks, training, name) | {"labels": repr(tasks.labels)}
