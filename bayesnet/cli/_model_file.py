"""A fitted model on disk: the posterior together with the names of its columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bayesnet._errors import InputError


@dataclass(frozen=True)
class Model:
    """A posterior and the names of its input and target columns (None if it has none)."""

    posterior: Any
    inputs: tuple[str, ...] | None
    targets: tuple[str, ...] | None

    def save(self, path: Path) -> None:
        """Write to one file; `bn.load(path)["posterior"]` is the posterior."""
        from bayesnet.posterior.saving import save

        save({"posterior": self.posterior, "inputs": self.inputs, "targets": self.targets}, path)


def load_model(path: Path) -> Model:
    """The model in `path`, from `bayesnet fit` or from `post.save` (which keeps no names)."""
    from bayesnet.posterior.saving import load

    content = load(path)
    if isinstance(content, dict) and {"posterior", "inputs", "targets"} <= set(content):
        return Model(**{k: content[k] for k in ("posterior", "inputs", "targets")})
    if hasattr(content, "predict"):
        return Model(content, None, None)
    raise InputError(f"{path} holds no fitted model; make one with: bayesnet fit data.csv")
