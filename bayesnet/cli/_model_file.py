"""A fitted model on disk: the posterior together with the names of its columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bayesnet._columns import names_in
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
    """The model in `path`, from `bayesnet fit` or from `post.save` (with the names of a data frame, if it was one)."""
    from bayesnet.posterior.saving import load

    content = load(path)
    if isinstance(content, dict) and {"posterior", "inputs", "targets"} <= set(content):
        return Model(**{k: content[k] for k in ("posterior", "inputs", "targets")})
    if hasattr(content, "predict"):
        names = names_in(content)
        named = names is not None and all(isinstance(name, str) for name in names)
        return Model(content, tuple(map(str, names)) if named and names else None, None)
    raise InputError(f"{path} holds no fitted model; make one with: bayesnet fit data.csv")
