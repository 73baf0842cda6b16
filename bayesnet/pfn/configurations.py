"""Training runs stated in TOML: what `bayesnet pfn train` reads.

`like = "gp"` takes prior, likelihood, inputs and what [training] and [wide] do not state from another.
`decoder = "bars"` (the default) trains a `PFN`, "quadrature" one over hyper-parameters of Gaussian
processes, with [quadrature] `nodes`, `start` and `learn` (see `quadrature_run`); "level" adds to such a
one, `start`, a level for long tables, with [level] `start`, `teacher` and the fields of `LongTables`.
Both may have [wide], other tables for a `share` of the steps, with `noise_std` and [[wide.prior]].
"process" trains an `AmortisedProcess`, "classes" a `ClassPFN`, whose [labels] holds the fields of `Labels` and whose
[inputs] may have those of `CorrelatedInputs`.
[training] holds the fields of `Training`; [likelihood] `noise_std`; every [[prior]] is one part of
the mixture: `kind = "gp"` with `kernel`, `lengthscale`, `outputscale`, or `kind = "network"` with
`hidden`, `activation`, or `kind = "architectures"` with the fields of `RandomNetworks`; `weight`
says how often it is chosen. A law is a number, `{ loc = 0.0, scale = 0.5 }` (log-normal), or
`{ a = 2.0, b = 2.0 }` (inverse gamma); `lengthscale = "default"` is the law of the library's
default process, which depends on the number of columns.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from bayesnet._errors import InputError, unknown_name
from bayesnet.defaults import default_lengthscale
from bayesnet.likelihoods import GaussianLikelihood
from bayesnet.networks import MLP
from bayesnet.pfn.class_labels import Labels
from bayesnet.pfn.class_tasks import ClassTasks
from bayesnet.pfn.correlated_inputs import CorrelatedInputs
from bayesnet.pfn.inputs import MixedInputs
from bayesnet.pfn.level_training import LongTables
from bayesnet.pfn.random_networks import RandomNetworks
from bayesnet.pfn.settings import Training
from bayesnet.pfn.tasks import Mixture, Tasks
from bayesnet.priors import GaussianProcess, InverseGamma, LogNormal, NetworkPrior

FOLDER = Path(__file__).parent / "configs"
# What a run may take from another.
_TAKEN = ("training", "likelihood", "inputs", "prior", "wide")
# Fields of `CorrelatedInputs` beside those of its base.
_MIXING = ("correlated", "rounded")
DECODERS = ("bars", "quadrature", "level", "process", "classes")
SECTIONS = ("training", "likelihood", "inputs", "labels", "prior", "quadrature", "level", "wide")


@dataclass(frozen=True)
class Quadrature:
    """Arguments of `quadrature_run.run_quadrature`."""

    nodes: int = 2
    start: str | None = None
    learn: str = "all"


@dataclass(frozen=True)
class AddedLevel(LongTables):
    """Arguments of `quadrature_run.run_long`."""

    start: str = "gp"
    teacher: str = "gp_process"


@dataclass(frozen=True)
class ProcessOf:
    """`d -> GaussianProcess`: the laws may depend on the number of columns.

    `longer` multiplies the median lengthscale, `spread` the sd of its log.
    """

    kernel: str = "matern52"
    lengthscale: Any = "default"
    outputscale: Any = 1.0
    longer: float = 1.0
    spread: float = 1.0

    def __call__(self, d: int) -> GaussianProcess:
        scale = default_lengthscale(d) if self.lengthscale == "default" else self.lengthscale
        if isinstance(scale, LogNormal) and (self.longer, self.spread) != (1.0, 1.0):
            loc = np.asarray(scale.loc) + np.log(self.longer)
            scale = LogNormal(loc, np.asarray(scale.scale) * self.spread)
        if isinstance(scale, LogNormal) and scale.shape == ():
            scale = LogNormal([scale.loc] * d, scale.scale)
        return GaussianProcess(self.kernel, scale, self.outputscale)


@dataclass(frozen=True)
class NetworkOf:
    """`d -> NetworkPrior` of a perceptron, unmatched or matched to the default process."""

    hidden: tuple[int, ...] = (50, 50)
    activation: str = "tanh"
    matched: bool = True

    def __call__(self, d: int) -> NetworkPrior:
        from bayesnet.defaults import BOX, default_target, matched
        from bayesnet.priors import Box

        prior = NetworkPrior(MLP(tuple(self.hidden), self.activation), in_dim=d)
        if not self.matched:
            return prior
        return matched(prior, default_target(d), Box([BOX[0]] * d, [BOX[1]] * d))


@dataclass(frozen=True)
class ArchitecturesOf:
    """`d -> RandomNetworks`: perceptrons whose architecture is drawn with every function."""

    depth: int = 3
    width: int = 32
    sparsity: float = 0.6
    scale: float = 0.6
    gain: float = 1.5

    def __call__(self, d: int) -> RandomNetworks:
        return RandomNetworks(d, self.depth, self.width, self.sparsity, self.scale, self.gain)


_LAWS = {frozenset(("loc", "scale")): LogNormal, frozenset("ab"): InverseGamma}
KINDS = {"gp": ProcessOf, "network": NetworkOf, "architectures": ArchitecturesOf}


@dataclass(frozen=True)
class Configuration:
    """A named run: its tasks, the knobs of its training, and what its decoder is told beside them."""

    name: str
    tasks: Tasks | ClassTasks
    training: Training
    decoder: str = "bars"
    extra: dict[str, Any] = field(default_factory=dict)


def read_configuration(source: str | Path) -> Configuration:
    """The run that a TOML file states; a bare name such as "gp" is one that ships with the library.

    Raises `InputError` for a missing file, bad TOML, and unknown or unusable entries.
    """
    path = _path(source)
    content = _content(path)
    if "like" in content:
        content = _joined(_content(_path(content.pop("like"))), content)
    for name in content:
        if name not in ("decoder", *SECTIONS):
            raise unknown_name(f"section of {path.name}", name, SECTIONS)
    decoder = content.get("decoder", "bars")
    if decoder not in DECODERS:
        raise unknown_name("decoder", decoder, DECODERS)
    extra: dict[str, Any] = {}
    for name, kind in (("quadrature", Quadrature), ("level", AddedLevel)):
        if decoder == name:
            extra = asdict(_make(kind, content.get(name, {}), f"[{name}]"))
        elif name in content:
            raise InputError(f'[{name}] is for decoder = "{name}".')
    training = _make(Training, content.get("training", {}), "[training]")
    likelihood = _make(GaussianLikelihood, content.get("likelihood", {}), "[likelihood]")
    entries_of_inputs = dict(content.get("inputs", {}))
    if decoder == "classes":
        mixing = {k: entries_of_inputs.pop(k) for k in _MIXING if k in entries_of_inputs}
        base = _make(MixedInputs, entries_of_inputs, "[inputs]")
        inputs = _make(CorrelatedInputs, mixing, "[inputs]", base=base)
    else:
        training.refuse_wider()
        inputs = _make(MixedInputs, entries_of_inputs, "[inputs]")
        if "labels" in content:
            raise InputError('[labels] is for decoder = "classes".')
    prior = _mixture(content.get("prior"), path, "prior")
    sizes = (training.dims, training.buckets[-1], training.queries)
    tasks: Tasks | ClassTasks
    if decoder == "classes":
        labels = _make(Labels, content.get("labels", {}), "[labels]")
        tasks = ClassTasks(prior, likelihood, inputs, *sizes, labels)
    else:
        tasks = Tasks(prior, likelihood, inputs, *sizes)
    if "wide" in content:
        if decoder not in ("quadrature", "level"):
            raise InputError('[wide] is for decoder = "quadrature" and "level".')
        extra |= _wide(content["wide"], path, tasks)
    return Configuration(path.stem, tasks, training, decoder, extra)


def _path(source: str | Path) -> Path:
    path = Path(source)
    if path.suffix != ".toml":
        known = sorted(p.stem for p in FOLDER.glob("*.toml"))
        if str(source) not in known:
            raise unknown_name("configuration (or pass a .toml file)", source, known)
        path = FOLDER / f"{source}.toml"
    if not path.is_file():
        raise InputError(f"No configuration at {path}.")
    return path


def _content(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from error


def _joined(whole: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """What a run states itself, over what it takes from the one that it is like."""
    taken = {name: whole[name] for name in _TAKEN if name in whole}
    mended = {
        name: taken[name] | own[name]
        for name in ("training", "wide")
        if name in taken and name in own
    }
    return taken | own | mended


def _mixture(entries: Any, path: Path, where: str) -> Mixture:
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path} states no [[{where}]].")
    parts, weights = [], []
    for entry in entries:
        entry = dict(entry)
        weights.append(entry.pop("weight", 1.0))
        kind = entry.pop("kind", "gp")
        if kind not in KINDS:
            raise unknown_name(f"kind of [[{where}]]", kind, KINDS)
        parts.append(_make(KINDS[kind], entry, f"[[{where}]]"))
    return Mixture(tuple(parts), tuple(weights))


def _wide(entries: Any, path: Path, tasks: Any) -> dict[str, Any]:
    entries = dict(entries)
    prior = _mixture(entries.pop("prior", None), path, "wide.prior")
    share = entries.pop("share", None)
    if not isinstance(share, float) or not 0 < share < 1:
        raise InputError(f"share of [wide] must be a number between 0 and 1, got {share!r}.")
    likelihood = _make(GaussianLikelihood, entries, "[wide]")
    return {"wide": replace(tasks, prior=prior, likelihood=likelihood), "share": share}


def _make(cls: Any, entries: Any, where: str, **given: Any) -> Any:
    if not isinstance(entries, dict):
        raise InputError(f"{where} must be a table of entries.")
    known = [f.name for f in fields(cls)]
    values = {}
    for name, value in entries.items():
        if name not in known:
            raise unknown_name(f"entry of {where}", name, known)
        values[name] = _value(value, f"{name} of {where}")
    try:
        return cls(**values, **given)
    except TypeError as error:
        raise InputError(f"{where} cannot be used: {error}") from error


def _value(value: Any, what: str) -> Any:
    if isinstance(value, dict):
        law = _LAWS.get(frozenset(value))
        if law is None:
            raise InputError(
                f"{what}: a law is {{ loc = ..., scale = ... }} (log-normal) or "
                f"{{ a = ..., b = ... }} (inverse gamma), got {value}."
            )
        return law(**value)
    return tuple(value) if isinstance(value, list) else value
