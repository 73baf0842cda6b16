"""How many nodes of a mixture are left when rows are conditioned on, and a word where they run out."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bayesnet._errors import ConvergenceWarning

# Fewer effective draws of hyper-parameters than this are warned about. Nodes of a scale are a rule of
# integration, good to half a percent down to two of them.
FEWEST, FEWEST_NODES = 3.0, 2.0


def effective(log_weight: Tensor) -> Tensor:
    """The effective number of weights along the first axis, `1 / sum w^2` (their sum is 1)."""
    return torch.exp(-torch.logsumexp(2.0 * log_weight, dim=0))


@dataclass(eq=False)
class Told:
    """What a model and those that were conditioned from it have said already: it is said once."""

    kinds: set[str] = field(default_factory=set)

    def members(self, before: float, left: Tensor, count: int, stacklevel: int) -> None:
        """Warn where rows leave few of `count` hyper-parameters, of which `before` were effective.

        `left`: (batch) how many are effective now; without a batch these are real rows.
        """
        if not _few(left, min(FEWEST, 0.75 * before)):
            return
        if not left.dim():
            text = (
                f"The new rows leave {float(left):.1f} of {count} draws of the hyper-parameters effective: "
                "fit the whole table anew."
            )
            warnings.warn(text, ConvergenceWarning, stacklevel=stacklevel + 1)
        elif "members" not in self.kinds:
            self.kinds.add("members")
            text = (
                f"Some fantasies leave fewer than {FEWEST:.0f} of {count} draws of the hyper-parameters "
                "effective: what is imagined there rests on hardly more than one of them, and is too sure. "
                "Fit the table with the rows so far anew, or imagine fewer rows. (Said once a model.)"
            )
            warnings.warn(text, ConvergenceWarning, stacklevel=stacklevel + 1)

    def nodes(self, before: float, left: Tensor, count: int, stacklevel: int) -> None:
        """The same of `count` nodes of a scale; `left` (batch, outputs)."""
        if "nodes" in self.kinds or not _few(left, min(FEWEST_NODES, 0.75 * before)):
            return
        self.kinds.add("nodes")
        text = (
            f"The new rows leave fewer than {FEWEST_NODES:.0f} of {count} nodes of the scale effective: they "
            "say more of it than the nodes can tell apart, or lie beyond them. Fit the whole table anew. "
            "(Said once a model.)"
        )
        warnings.warn(text, ConvergenceWarning, stacklevel=stacklevel + 1)


def _few(left: Tensor, least: float) -> bool:
    # Weights that are all 0 are not numbers when they are normalised: none is left.
    return not bool((left.detach() >= least).all())
