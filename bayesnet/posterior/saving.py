"""Saving and loading: safetensors with a JSON description and a checksum, never a pickle.

An object is described as JSON built only from plain values, arrays (stored as tensors) and
instances of the classes in `CLASSES`; loading rebuilds just those, so that a file cannot run
code. A network of another library is stored as its fingerprint and passed back to `load`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import os
import re
import uuid
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from bayesnet._errors import FileFormatError, InputError, UnsupportedError
from bayesnet.networks import ForeignNetwork, as_network
from bayesnet.priors.weights import Layout

FORMAT = "bayesnet"
VERSION = 1

# The classes that a file may hold, by the name under which they are stored.
CLASSES = {
    "FunctionDraws": "bayesnet.posterior.draws",
    "NetworkPrior": "bayesnet.priors.network",
    "RescaledPrior": "bayesnet.priors.rescaled",
    "AmortisedPrior": "bayesnet.priors.amortised",
    "ParameterMap": "bayesnet.priors.amortised",
    "GaussianLaw": "bayesnet.priors.weights.gaussian",
    "ScaledLastLayerLaw": "bayesnet.priors.weights.scaled_last_layer",
    "RandomVariance": "bayesnet.priors.weights.scaled_last_layer",
    "HierarchicalLaw": "bayesnet.priors.weights.hierarchical",
    "LogNormalScale": "bayesnet.priors.weights.scale_laws",
    "InverseGammaScale": "bayesnet.priors.weights.scale_laws",
    "LaplaceLaw": "bayesnet.priors.weights.laplace",
    "StudentTLaw": "bayesnet.priors.weights.student_t",
    "HorseshoeLaw": "bayesnet.priors.weights.horseshoe",
    "FlowLaw": "bayesnet.priors.weights.flow",
    "Coupling": "bayesnet.priors.weights.flow",
    "MLP": "bayesnet.networks.mlp",
    "ResidualMLP": "bayesnet.networks.residual",
    "LeNet5": "bayesnet.networks.lenet",
    "PreResNet20": "bayesnet.networks.preresnet",
    "WideNetwork": "bayesnet.kernels.finite",
    "NNGP": "bayesnet.kernels.process",
    "NTK": "bayesnet.kernels.process",
    "Serial": "bayesnet.kernels.serial",
    "Residual": "bayesnet.kernels.serial",
    "Dense": "bayesnet.kernels.layers",
    "Activation": "bayesnet.kernels.layers",
    "LayerNorm": "bayesnet.kernels.layers",
    "Image": "bayesnet.kernels.images",
    "Conv": "bayesnet.kernels.images",
    "Flatten": "bayesnet.kernels.images",
    "AveragePool": "bayesnet.kernels.images",
    "GlobalAveragePool": "bayesnet.kernels.images",
    "GaussianLikelihood": "bayesnet.likelihoods.gaussian",
    "HeteroscedasticLikelihood": "bayesnet.likelihoods.heteroscedastic",
    "StudentTLikelihood": "bayesnet.likelihoods.student_t",
    "LaplaceLikelihood": "bayesnet.likelihoods.laplace",
    "BernoulliLikelihood": "bayesnet.likelihoods.bernoulli",
    "CategoricalLikelihood": "bayesnet.likelihoods.categorical",
    "LogitNormal": "bayesnet.likelihoods.label_noise",
    "PoissonLikelihood": "bayesnet.likelihoods.poisson",
    "LogNormal": "bayesnet.priors.laws",
    "Normal": "bayesnet.priors.laws",
    "ProcessPosterior": "bayesnet.posterior.process",
    "Exact": "bayesnet.inference.exact",
    "SparseVariational": "bayesnet.inference.sparse_variational",
    "SparsePosterior": "bayesnet.posterior.sparse_process",
    "ProcessLaplace": "bayesnet.inference.process_laplace",
    "LaplacePosterior": "bayesnet.posterior.laplace_process",
    "TrainedEnsemble": "bayesnet.posterior.trained",
    "NTKEnsemble": "bayesnet.inference.ntk_ensemble",
    "GaussianProcess": "bayesnet.priors.gaussian_process",
    "EmpiricalBayes": "bayesnet.priors.empirical",
    "Named": "bayesnet.priors.covariance",
    "Combined": "bayesnet.priors.covariance",
    "LinearMean": "bayesnet.priors.means",
    "ConstantMean": "bayesnet.priors.means",
    "SumMean": "bayesnet.priors.means",
    "ScaleMixture": "bayesnet.priors.scale_mixture",
    "InverseGamma": "bayesnet.priors.variance_laws",
    "AmortisedProcess": "bayesnet.pfn.amortised",
    "ProcessFamily": "bayesnet.pfn.family",
    "ProposalNetwork": "bayesnet.pfn.proposal",
    "QuadratureNetwork": "bayesnet.pfn.quadrature",
    "Level": "bayesnet.pfn.level",
    "Places": "bayesnet.pfn.places",
    "Stepper": "bayesnet.pfn.stepper",
    "HyperMap": "bayesnet.pfn.hyper_map",
    "PFN": "bayesnet.pfn.pfn",
    "PFNPosterior": "bayesnet.pfn.posterior",
    "PFNEnsemble": "bayesnet.pfn.ensemble",
    "ClassPFN": "bayesnet.pfn.classifier",
    "ClassPosterior": "bayesnet.pfn.class_posterior",
    "ClassTransformer": "bayesnet.pfn.class_network",
    "Transformer": "bayesnet.pfn.transformer",
    "AttentionLayer": "bayesnet.pfn.attention",
    "Bars": "bayesnet.pfn.bars",
    "Gamma": "bayesnet.priors.variance_laws",
    "BurrXII": "bayesnet.priors.variance_laws",
    "HalfCauchy": "bayesnet.priors.variance_laws",
    "OnStd": "bayesnet.priors.variance_laws",
    "NumpyroLaw": "bayesnet.priors.variance_laws",
    "PointMass": "bayesnet.priors.variance_laws",
    "Data": "bayesnet.data",
    "Rows": "bayesnet.data",
    "Scaling": "bayesnet.data",
    "HMC": "bayesnet.inference.hmc",
    "NUTS": "bayesnet.inference.nuts",
    "SGHMC": "bayesnet.inference.sghmc",
    "DeepEnsemble": "bayesnet.inference.ensemble",
}
# Sampler states belong to one process; a loaded posterior starts warm from its draws instead.
SKIPPED = {"FunctionDraws": ("states",)}


def save(obj: Any, path: str | Path) -> None:
    """Write `obj` to `path`, atomically (a crash leaves the old file, not half a new one).

    Raises `UnsupportedError` if it holds something that cannot be described without a pickle, and
    `InputError` for a folder, or a file in one that is not there.
    """
    path = Path(path)
    check_place(path)
    tensors: dict[str, np.ndarray] = {}
    description = json.dumps(_describe(obj, "root", tensors), sort_keys=True)
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "description": description,
        "sha256": _checksum(description, tensors),
    }
    # Opened as any file is: `tempfile` makes files that nobody else may read.
    temporary = path.resolve().with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(to_bytes(tensors, metadata=metadata))
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_place(path: Path) -> None:
    """Raises `InputError` for a folder, or a file in one that is not there: before long work, too."""
    if not path.resolve().parent.is_dir():
        raise InputError(f"Cannot save to {path}: there is no folder {path.resolve().parent}.")
    if path.is_dir():
        raise InputError(f"Cannot save to {path}: it is a folder, and a file is written.")


def load(path: str | Path, network: Any = None) -> Any:
    """The object saved at `path`.

    Args:
        network: the equinox or flax module or (init, apply) pair, if the posterior was fitted
            with one; it must have the parameters that were saved.

    Raises `FileFormatError` for a file that is truncated, edited, of another version, or not
    ours, and `InputError` for a missing or different network.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"No file at {path}.")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise FileFormatError(f"{path} is not a whole bayesnet file: {error}.") from error
    if metadata.get("format") != FORMAT:
        raise FileFormatError(f"{path} is a safetensors file, but not one that bayesnet wrote.")
    if metadata.get("version") != str(VERSION):
        raise FileFormatError(
            f"{path} has format version {metadata.get('version')}; this bayesnet reads {VERSION}."
        )
    description = metadata.get("description", "")
    if _checksum(description, tensors) != metadata.get("sha256"):
        raise FileFormatError(f"{path} does not match its checksum: it was altered after saving.")
    try:
        root = json.loads(description)
        # A posterior, or a dictionary or tuple of such (the command line keeps column names beside it).
        if not {"dict", "tuple"} & set(root) and root["class"] not in CLASSES:
            raise ValueError(f"unknown class {root['class']!r}")
        return _rebuild(root, tensors, network)
    except (InputError, UnsupportedError):
        raise  # the network that was passed
    except Exception as error:
        raise FileFormatError(
            f"{path} does not describe an object of bayesnet: {type(error).__name__}: {error}."
        ) from error


def _checksum(description: str, tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(description.encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name}|{array.dtype}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _describe(value: Any, name: str, tensors: dict[str, np.ndarray]) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (np.integer, np.floating)):
        return value.item()
    if isinstance(value, np.ndarray):
        tensors[name] = np.ascontiguousarray(value)
        return {"numpy": name}
    if isinstance(value, jax.Array):
        tensors[name] = np.asarray(value)
        return {"jax": name}
    if isinstance(value, (tuple, list)):
        return {"tuple": [_describe(v, f"{name}.{i}", tensors) for i, v in enumerate(value)]}
    if isinstance(value, dict):
        return {"dict": {k: _describe(v, f"{name}.{k}", tensors) for k, v in value.items()}}
    if isinstance(value, ForeignNetwork):
        return {"network": value.kind}
    if isinstance(value, Layout):
        # Rebuilt from the network; kept as the fingerprint that a foreign one must match.
        return {"layout": _fingerprint(value)}
    kind = type(value).__name__
    if kind not in CLASSES or type(value).__module__ != CLASSES[kind]:
        raise UnsupportedError(
            f"Cannot save {type(value).__module__}.{kind} without a pickle. Saved are posteriors of "
            "bayesnet's own priors, likelihoods and methods, and networks of any library."
        )
    fields = [f.name for f in dataclasses.fields(value) if f.name not in SKIPPED.get(kind, ())]
    content = {f: _describe(getattr(value, f), f"{name}.{f}", tensors) for f in fields}
    return {"class": kind, "fields": content}


def _fingerprint(layout: Layout) -> dict[str, Any]:
    """The names and shapes of a network's parameters, the same in every process."""
    # Static fields of a module may be functions, which print their address.
    tree = re.sub(r" at 0x[0-9a-f]+", "", str(layout.treedef))
    return {"tree": tree, "shapes": [list(s) for s in layout.shapes]}


def _rebuild(node: Any, tensors: dict[str, np.ndarray], network: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if "numpy" in node:
        return tensors[node["numpy"]]
    if "jax" in node:
        return jnp.asarray(tensors[node["jax"]])
    if "tuple" in node:
        return tuple(_rebuild(v, tensors, network) for v in node["tuple"])
    if "dict" in node:
        return {k: _rebuild(v, tensors, network) for k, v in node["dict"].items()}
    if "network" in node:
        if network is None:
            raise InputError(
                f"This posterior was fitted with a network of {node['network']}: pass it again, as in "
                "bn.load(path, network=module)."
            )
        return as_network(network)
    if node["class"] == "NetworkPrior":
        return _rebuild_network_prior(node["fields"], tensors, network)
    cls = getattr(importlib.import_module(CLASSES[node["class"]]), node["class"])
    fields = {k: _rebuild(v, tensors, network) for k, v in node["fields"].items()}
    return getattr(cls, "from_fields", cls)(**fields)


def _rebuild_network_prior(fields: dict[str, Any], tensors: dict[str, Any], network: Any) -> Any:
    """The network first: the layout of the latents follows from it, and must be the saved one."""
    from bayesnet.priors.network import NetworkPrior

    net = _rebuild(fields["network"], tensors, network)
    in_dim, out_dim = fields["in_dim"], fields["out_dim"]
    layout = Layout.of(net, in_dim, out_dim)
    law = fields["law"]
    saved = law["fields"]["layout"]["layout"]
    if saved != _fingerprint(layout):
        raise InputError(
            f"The network has other parameters than the saved one: expected shapes {saved['shapes']}, "
            f"got {[list(s) for s in layout.shapes]}."
        )
    cls = getattr(importlib.import_module(CLASSES[law["class"]]), law["class"])
    rest = {k: _rebuild(v, tensors, network) for k, v in law["fields"].items() if k != "layout"}
    return NetworkPrior(net, cls(**rest, layout=layout), in_dim, out_dim, fields["units"])
