"""`PFN`: weights that condition a prior on a table in one forward pass."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from bayesnet import devices
from bayesnet._errors import FileFormatError, InputError, UnsupportedError, unknown_name
from bayesnet._notices import said_if_slow
from bayesnet._types import ArrayLike
from bayesnet.data import Scaling
from bayesnet.pfn.bars import BarDistribution, Bars
from bayesnet.pfn.classifier import ClassPFN
from bayesnet.pfn.context import FIRST_PASS
from bayesnet.pfn.ensemble import PFNEnsemble, check_ensemble
from bayesnet.pfn.joint_tasks import JointTasks
from bayesnet.pfn.posterior import PFNPosterior
from bayesnet.pfn.precision import cast
from bayesnet.pfn.quadrature import QuadratureNetwork
from bayesnet.pfn.settings import Training
from bayesnet.pfn.setup import load_pretrained, make_card, tasks_of
from bayesnet.pfn.table import Limits, prepare
from bayesnet.pfn.tasks import Tasks
from bayesnet.pfn.train import run
from bayesnet.pfn.transformer import Transformer
from bayesnet.posterior.prediction import Prediction
from bayesnet.posterior.saving import load, save

# What `PFN.train` can make of a prior.
DECODERS = ("bars", "quadrature")


@dataclass(frozen=True, eq=False)
class PFN:
    """A prior-data fitted network (Mueller et al. 2022): a prior, amortised.

    A transformer that was trained on tables drawn from a prior to give the predictive law of new
    rows; conditioning on a table is one forward pass, hyper-parameters averaged over.

    `network` and `bars` are its weights; `card` says what it was trained on: name, prior, noise,
    `dims` (numbers of columns), `max_rows`, steps, seed, and how good it is (`certificate`).
    """

    network: Transformer | QuadratureNetwork
    bars: Bars
    card: dict[str, Any]

    @property
    def max_rows(self) -> int:
        """The longest context that it was trained for."""
        return int(self.card["buckets"][-1])

    @property
    def max_dim(self) -> int:
        """The most columns that it accepts; it was trained for those of `card["dims"]`."""
        return self.network.max_dim

    @property
    def limits(self) -> Limits:
        """What tables are accepted."""
        return Limits(
            self.max_dim, self.max_rows, tuple(self.card["dims"]), self.card.get("scaling")
        )

    def network_for(self, d: int) -> Transformer | QuadratureNetwork:
        """The network as it takes tables of `d` columns."""
        own = self.network
        return own.for_columns(d) if isinstance(own, QuadratureNetwork) else own

    def law(self, logits: np.ndarray) -> BarDistribution:
        """The laws in scaled coordinates that logits (..., k) stand for, in NumPy's float64."""
        edges, tails = (np.asarray(a, np.float64) for a in (self.bars.edges, self.bars.tails))
        return BarDistribution(np.asarray(logits, np.float64), edges, tails)

    def __repr__(self) -> str:
        return (
            f"PFN({self.card['name']!r}, up to {self.max_dim} columns and {self.max_rows} rows, "
            f"trained for {list(self.card['dims'])} columns, {self.card['steps']} steps)"
        )

    @staticmethod
    def from_pretrained(name: str = "gp") -> Any:
        """The weights `name` that ship with the library.

        "gp": Gaussian processes, Matern-5/2 and RBF, with random lengthscales, amplitude and
        noise (a quadrature over these). "bnn": tanh and relu networks matched to the library's default process, and "heavy":
        Student-t processes with 4 degrees of freedom, each for 1 and 2 columns.
        "classifier": class labels, a `bn.pfn.ClassPFN`. Raises `InputError` for an unknown
        name and `FileFormatError` for weights that were altered or are of another version.
        """
        found = load_pretrained(name)
        if isinstance(found, ClassPFN):
            return found.cast(jnp.float32)
        if not isinstance(found, PFN):
            raise InputError(
                f"The weights {name!r} are an AmortisedProcess: use "
                f"bn.AmortisedProcess.from_pretrained({name!r})."
            )
        return _cast(found, jnp.float32)

    @staticmethod
    def load(path: str | Path) -> PFN:
        """The PFN saved at `path`; the file cannot run code.

        Raises `FileFormatError` for a file that is altered, of another version, or no PFN.
        """
        loaded = load(path)
        if not isinstance(loaded, PFN):
            raise FileFormatError(f"{path} holds a {type(loaded).__name__}, not a PFN.")
        return _cast(loaded, jnp.float32)

    def save(self, path: str | Path, *, half: bool = True) -> None:
        """Write the weights (float16 if `half`, else float32) and the card, with a checksum."""
        save(_cast(self, jnp.float16) if half else self, path)

    @staticmethod
    def train(
        prior: Any,
        likelihood: Any = None,
        *,
        inputs: Any = None,
        dims: tuple[int, ...] | None = None,
        decoder: str = "bars",
        name: str = "own",
        folder: str | Path | None = None,
        progress: Any = None,
        **knobs: Any,
    ) -> PFN:
        """Train on tables drawn from a prior.

        Args:
            prior: an object with `sample(key, x (n, d), s) -> (s, n, 1)` in scaled coordinates; a
                function `d -> prior`; a `bn.pfn.Mixture` of these; or a `bn.pfn.NumpyroModel` of
                whole tables, which brings inputs, noise and units of its own.
            likelihood: `bn.GaussianLikelihood()`, with `noise_std` in scaled coordinates (a
                log-normal law with median 0.14 if None).
            inputs: the law of inputs in scaled coordinates: a table of rows, `bn.Box`, a
                `bn.pfn.MixedInputs`; a mixture of laws if None.
            dims: the numbers of columns of the tables; that of the prior, or 1, if None.
            decoder: "bars", a transformer for any prior; or, for Gaussian processes with log-normal
                hyper-parameters, "quadrature": one that reads hyper-parameters off a table
                and leaves the rest to linear algebra (`bayesnet.pfn.quadrature`).
            name: for the card.
            folder: where checkpoints and the log are kept; a run that was stopped goes on there.
            progress: called with ("training", steps done, steps).
            knobs: of `bn.pfn.Training`: `steps`, `seed`, `width`, `buckets`, ...

        Raises `InputError` or `UnsupportedError` for what cannot be trained on.
        """
        if decoder not in DECODERS:
            raise unknown_name("decoder", decoder, DECODERS)
        tasks, training = tasks_of(prior, likelihood, inputs, dims, knobs)
        if decoder == "quadrature":
            if isinstance(tasks, JointTasks):
                raise UnsupportedError("A NumpyroModel has no kernel to condition: decoder='bars'.")
            return train_quadrature(tasks, training, name, folder=folder, progress=progress)
        return train_tasks(tasks, training, name, folder=folder, progress=progress)

    @devices.single_precision()
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        scaling: Scaling | None = None,
        ensemble: int = 1,
        longer: str = "error",
        seed: int = 0,
        warn: bool = True,
    ) -> PFNPosterior | PFNEnsemble:
        """Condition on a table.

        Args:
            X: inputs, n x d, in the user's units.
            y: targets, n or n x m (outputs independent).
            scaling: the coordinate map; from the data (mean 0, sd 1) if None. A PFN of a
                `NumpyroModel` is in the units of the model, whatever is given.
            ensemble: how many views of the table are averaged: orders of its columns, and monotone
                maps of columns and targets (a `PFNEnsemble` if more than 1).
            longer: for tables of more rows than it was trained for: "error", or "subsample" (a
                random choice of rows, by `seed`).
            seed: of that choice, and of the orders of more than 3 columns.
            warn: warn, in words, where the table is unlike the training prior.

        Raises `InputError` for data that cannot be used, more columns or rows than accepted, or
        fewer than 1 view.
        """
        views = self._views(ensemble)
        data = prepare(X, y, self.limits, scaling=scaling, longer=longer, seed=seed, warn=warn)
        posterior = PFNPosterior(self, data)
        if warn:
            with said_if_slow(FIRST_PASS):
                self._warn(posterior)
        return posterior if views == 1 else PFNEnsemble(self, data, views, seed)

    @devices.single_precision()
    def predict_many(
        self, X: ArrayLike, y: ArrayLike, X_new: ArrayLike, *, ensemble: int = 1
    ) -> list[Prediction]:
        """Predictions of many tables of the same shape, conditioned in one program.

        Args:
            X: inputs of t tables, (t, n, d), in the user's units.
            y: their targets, (t, n).
            X_new: the new rows of each, (t, q, d).
            ensemble: as of `fit`.

        The same as `fit(X[i], y[i]).predict(X_new[i])` for every i. Raises `InputError` as these.
        """
        from bayesnet.pfn.many import predict_many

        return predict_many(self, X, y, X_new, self._views(ensemble))

    def _views(self, ensemble: int) -> int:
        views = check_ensemble(ensemble)
        if views > 1 and "scaling" in self.card:
            raise UnsupportedError(
                "Columns and units mean something to a NumpyroModel: its tables have one view, ensemble=1."
            )
        return views

    def _warn(self, posterior: PFNPosterior) -> None:
        limit = self.card.get("surprise_limit")
        if limit is not None and posterior.surprise > limit:
            warnings.warn(
                f"The table is unlike what this PFN was trained on: half of its rows, predicted by the "
                f"other half, have a mean square score of {posterior.surprise:.1f}, which "
                f"1 in 200 tables of the prior exceed {limit:.1f}. Compare with another method.",
                stacklevel=4,
            )


@devices.single_precision()
def train_tasks(
    tasks: Tasks | JointTasks,
    training: Training,
    name: str,
    *,
    folder: str | Path | None = None,
    progress: Any = None,
) -> PFN:
    """Train on `tasks`; see `PFN.train`."""
    state = run(tasks, training, folder=folder, progress=progress)
    return PFN(state.network, state.bars, make_card(tasks, training, name))


@devices.single_precision()
def train_quadrature(tasks: Tasks, training: Training, name: str, **knobs: Any) -> PFN:
    """Train a quadrature on `tasks`; arguments as of `quadrature_run.run_quadrature`."""
    from bayesnet.pfn.quadrature_run import run_quadrature

    state, card = run_quadrature(tasks, training, name, **knobs)
    return PFN(state.network, state.bars, card)


@devices.single_precision()
def train_long(tasks: Tasks, training: Training, name: str, **knobs: Any) -> PFN:
    """A quadrature with a level more for long tables; arguments as of `quadrature_run.run_long`."""
    from bayesnet.pfn.quadrature_run import run_long

    state, card = run_long(tasks, training, name, **knobs)
    return PFN(state.network, state.bars, card)


def _cast(pfn: PFN, dtype: Any) -> PFN:
    """The network in another precision; bars stay float32, for edges must stay apart."""
    return PFN(cast(pfn.network, dtype), pfn.bars, pfn.card)
