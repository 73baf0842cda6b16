"""A user's table, checked against what weights were trained for."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np

from bayesnet._columns import names_at_fit
from bayesnet._errors import InputError, unknown_name
from bayesnet._types import ArrayLike
from bayesnet.data import NO_SCALE, Data, Scaling, check_table, make_data, tells_no_scale

# What to do with tables of more rows than the weights were trained for.
LONGER = ("error", "subsample")


@dataclass(frozen=True)
class Limits:
    """Columns and rows that are accepted, and the numbers of columns seen in training.

    `scalings`: the coordinates of weights of a model in units of its own, by number of columns as
    `JointTasks.facts` writes them; None for weights that take standardised tables.
    """

    max_dim: int
    max_rows: int
    dims: tuple[int, ...]
    scalings: dict[str, dict[str, list[float]]] | None = None

    def scaling(self, d: int) -> Scaling | None:
        """The fixed coordinates of tables with `d` columns, if there are such.

        Raises `InputError` for numbers of columns that the model was not trained for.
        """
        if self.scalings is None:
            return None
        if str(d) not in self.scalings:
            raise InputError(
                f"This PFN is of a model of tables with {list(self.dims)} columns, the table has {d}."
            )
        own = {name: np.asarray(a) for name, a in self.scalings[str(d)].items()}
        return Scaling(own["x_loc"], own["x_scale"], own["y_loc"], own["y_scale"])

    def check_columns(self, d: int) -> None:
        """Raises `InputError` for more columns than are accepted."""
        if d > self.max_dim:
            raise InputError(
                f"X has {d} columns, this PFN accepts at most {self.max_dim}: choose columns, or use "
                'another method such as inference="hmc".'
            )

    def check_rows(self, n: int) -> None:
        """Raises `InputError` for more rows than are accepted."""
        if n > self.max_rows:
            raise InputError(
                f"The table has {n} rows, this PFN was trained for at most {self.max_rows}: pass "
                'longer="subsample" to `fit` (on the command line --subsample) for a random choice of them, or use '
                "another method."
            )


def prepare(
    X: ArrayLike,
    y: ArrayLike,
    limits: Limits,
    *,
    scaling: Scaling | None,
    longer: str,
    seed: int,
    warn: bool,
) -> Data:
    """The table in scaled coordinates, without padding; arguments as of `PFN.fit`.

    Raises `InputError` for data that cannot be used, or more columns or rows than accepted.
    """
    if longer not in LONGER:
        raise unknown_name("value of longer", longer, LONGER)
    known = None if scaling is None else scaling.names
    names = names_at_fit(X, "X") if known is None else known
    x_matrix, y_matrix, _ = check_table(X, y, known=known)
    n, d = x_matrix.shape
    limits.check_columns(d)
    if longer == "error":
        limits.check_rows(n)
    elif n > limits.max_rows:
        chosen = np.sort(np.random.default_rng(seed).permutation(n)[: limits.max_rows])
        x_matrix, y_matrix = x_matrix[chosen], y_matrix[chosen]
    scaling = limits.scaling(d) or scaling
    if scaling is None:
        scaling = Scaling.from_data(x_matrix, y_matrix)
        # Of one row too: it is a table as any other, and its law is in units of the prior.
        if warn and tells_no_scale(y_matrix):
            warnings.warn(NO_SCALE, stacklevel=4)
    if warn and d not in limits.dims:
        warnings.warn(
            f"This PFN was trained for {list(limits.dims)} columns, the table has {d}: nothing is "
            "claimed about its accuracy there.",
            stacklevel=4,
        )
    scaling = replace(scaling, names=names)
    return make_data(x_matrix, y_matrix, None, scaling, pad=False, host=True)
