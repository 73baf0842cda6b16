"""Writes one small file of every kind that can be saved, and what each predicts.

    python -m tests.saved.write tests/saved/0.2.0

Run it once for a version that is released, and never again for one that was: later versions must read what earlier
ones wrote (`test_saved_files.py`). Kinds that are new are added to `posteriors`; a pre-release has a folder of its own, as 0.2.0a1.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import bayesnet as bn
from bayesnet.pfn import PFN, AmortisedProcess, Bars, ClassPFN
from bayesnet.pfn.class_network import ClassTransformer
from bayesnet.pfn.family import ProcessFamily
from bayesnet.pfn.inputs import MixedInputs
from bayesnet.pfn.proposal import ProposalNetwork
from bayesnet.pfn.quadrature import QuadratureNetwork
from bayesnet.pfn.settings import Training
from bayesnet.pfn.setup import make_card
from bayesnet.pfn.tasks import Mixture, Tasks
from bayesnet.pfn.transformer import Transformer
from bayesnet.posterior.saving import save

rng = np.random.default_rng(0)
X = rng.normal([5.0, -1.0], [2.0, 0.1], (12, 2))
Y = 100 + 10 * np.sin(X[:, 0]) + 0.5 * rng.normal(size=12)
COUNTS = np.arange(12) % 4
LABELS = np.where(X[:, 0] > 5, "high", "low")
# Where predictions are asked for.
NEW = np.array([[5.0, -1.0], [3.0, -1.2], [8.0, -0.7]])

HMC = bn.HMC(chains=2, warmup=10, draws=8)
SMALL = {"width": 16, "depth": 1, "heads": 2, "hidden": 16}


def fitted(prior, y=Y, x=X, **rest):
    return bn.fit(prior, x, y, warn=False, progress=False, **rest)


def network(weights="gaussian", out_dim=1):
    return bn.NetworkPrior(bn.MLP((3,)), weights=weights, in_dim=2, out_dim=out_dim)


def random_pfn():
    bars = Bars(jnp.linspace(-4.0, 4.0, 39), jnp.asarray([0.5, 0.5]))
    transformer = Transformer.create(jax.random.key(0), max_dim=3, bars=40, **SMALL)
    card = {"name": "random", "dims": (1, 2, 3), "buckets": (8, 24), "steps": 0}
    return PFN(transformer, bars, card)


def random_class_pfn():
    transformer = ClassTransformer.create(jax.random.key(0), max_dim=3, max_classes=3, **SMALL)
    return ClassPFN(transformer, {"name": "random", "buckets": (20,), "dims": (1,), "steps": 0})


def family():
    def smooth(d):
        return bn.GaussianProcess("rbf", bn.LogNormal([0.1] * d, 0.5), bn.LogNormal(0.0, 0.7))

    def rough(d):
        return bn.GaussianProcess("matern52", bn.LogNormal([0.1] * d, 0.5), 1.5)

    noise = bn.GaussianLikelihood(bn.LogNormal(-1.5, 0.6))
    tasks = Tasks(
        Mixture((smooth, rough), (1.0, 3.0)), noise, MixedInputs(unused=0.2), (1, 2, 3), 8, 5
    )
    return tasks, ProcessFamily.of(tasks, 3)


def random_amortised():
    tasks, processes = family()
    proposal = ProposalNetwork.create(
        jax.random.key(1), slots=processes.size, parts=processes.num_parts, max_dim=3, **SMALL
    )
    training = Training(dims=(1, 2, 3), max_dim=3, batch=8, buckets=(4, 12), warmup=2, **SMALL)
    return AmortisedProcess(proposal, processes, make_card(tasks, training, "random"))


def random_quadrature():
    tasks, processes = family()
    quadrature = QuadratureNetwork.create(jax.random.key(1), processes, max_rows=40, **SMALL)
    bars = Bars(jnp.linspace(-4.0, 4.0, 39), jnp.asarray([0.5, 0.5]))
    training = Training(
        dims=(1, 2, 3), max_dim=3, batch=8, buckets=(4, 12), warmup=2, queries=5, bars=40, **SMALL
    )
    return PFN(quadrature, bars, make_card(tasks, training, "random"))


def posteriors():
    """Posteriors by name."""
    gp = bn.GaussianProcess("matern52", bn.LogNormal(np.zeros(2), 0.5), bn.LogNormal(0.0, 0.5))
    nngp = bn.kernels.NNGP(depth=2)
    yield "hmc", fitted(network(), inference=HMC)
    yield "nuts", fitted(network(), inference=bn.NUTS(chains=2, warmup=10, draws=8))
    yield "sghmc", fitted(network(), inference=bn.SGHMC(chains=2, warmup=20, draws=8))
    yield "ensemble", fitted(network(), inference=bn.DeepEnsemble(members=3, steps=20))
    for weights in ("hierarchical", "laplace", "student_t", "horseshoe", "flow"):
        yield f"weights_{weights}", fitted(network(weights), inference=HMC)
    last = network(bn.weights.ScaledLastLayer())
    yield "weights_scaled_last_layer", fitted(last, inference=HMC)
    residual = bn.NetworkPrior(bn.ResidualMLP(width=3, depth=1), in_dim=2)
    yield "residual_mlp", fitted(residual, inference=HMC)
    for name, y, heads in (
        ("heteroscedastic", Y, 2),
        ("student_t", Y, 1),
        ("laplace", Y, 1),
        ("bernoulli", LABELS, 1),
        ("categorical", np.arange(12) % 3, 3),
        ("poisson", COUNTS, 1),
    ):
        prior = network(out_dim=heads)
        yield f"likelihood_{name}", fitted(prior, y, likelihood=name, inference=HMC)
    yield "y_var", fitted(network(), y_var=np.full(12, 0.2), inference=HMC)
    yield "exact", fitted(gp, inference="exact")
    frame = pd.DataFrame(X, columns=["heat", "dose"])
    yield "exact_frame", fitted(gp, x=frame, inference="exact")
    yield "exact_hmc", fitted(gp, inference=bn.Exact(hyper="hmc", draws=8))
    mean = bn.GaussianProcess("rbf", 1.0, mean=bn.LinearMean(bn.Normal([0.0, 0.0], 1.0)))
    yield "exact_linear_mean", fitted(mean + bn.GaussianProcess("matern12", 0.5), inference="exact")
    two = bn.GaussianProcess("matern52", 1.0, out_dim=2)
    yield "exact_two_outputs", fitted(two, np.column_stack([Y, X[:, 0]]), inference="exact")
    yield "infinite_width", fitted(None, inference="infinite_width")
    yield "student_t_process", fitted(None, inference="student_t")
    for law in (
        bn.Gamma(2.0, 2.0),
        bn.BurrXII(2.0, 2.0, 1.0),
        bn.OnStd(bn.HalfCauchy(1.0)),
    ):
        prior = bn.ScaleMixture(bn.GaussianProcess("rbf", 0.7), law, noise="outside")
        yield f"mixture_{type(law).__name__.lower()}", fitted(prior, inference="exact")
    ntk = bn.ScaleMixture(bn.kernels.NTK(depth=2), bn.InverseGamma(2.0, 2.0))
    yield "ntk_ensemble", fitted(ntk, inference=bn.NTKEnsemble())
    yield (
        "process_laplace",
        fitted(nngp, LABELS, likelihood="bernoulli", inference="process_laplace"),
    )
    sparse = bn.SparseVariational(inducing=6, steps=20)
    yield "sparse", fitted(gp, LABELS, likelihood="bernoulli", inference=sparse)
    yield "pfn", random_pfn().fit(X, Y, warn=False)
    yield "pfn_ensemble", random_pfn().fit(X, Y, ensemble=2, warn=False)
    yield "pfn_quadrature", random_quadrature().fit(X, Y, warn=False)
    yield "pfn_classes", random_class_pfn().fit(X, LABELS, warn=False)
    yield "amortised", random_amortised().fit(X, Y, warn=False)


def priors():
    """Priors by name."""
    yield "network", network()
    image = bn.kernels.Serial(bn.kernels.Dense(), bn.kernels.Activation("relu"), bn.kernels.Dense())
    yield "nngp", bn.kernels.NNGP(image)
    yield "gaussian_process", bn.GaussianProcess("rbf", 0.7, 2.0)


def answer(posterior, inputs=NEW):
    """What a posterior predicts, as lists of numbers."""
    pred = posterior.predict(inputs)
    shown = {"mean": np.asarray(pred.mean, float).tolist()}  # of classes, probabilities
    if not isinstance(pred, bn.ClassPrediction):
        shown["std"] = np.asarray(pred.std, float).tolist()
    return shown


def numbers(weights):
    """What tells trained weights from others: sums over their arrays. (How a table is fitted may get better.)"""
    leaves = [
        np.asarray(a, float) for a in jax.tree.leaves(eqx.filter(weights.network, eqx.is_array))
    ]
    return {"sum": sum(a.sum() for a in leaves), "squares": sum((a**2).sum() for a in leaves)}


def draws(prior):
    """Functions of a prior at the new inputs, as lists of numbers."""
    return {"sample": np.asarray(prior.sample(0, NEW, 2), float).tolist()}


def main(folder):
    folder = Path(folder)
    folder.mkdir(parents=True)
    expected = {}
    for name, posterior in posteriors():
        print(name, flush=True)
        posterior.save(folder / f"{name}.bayesnet")
        expected[name] = answer(posterior)
    for name, prior in priors():
        save(prior, folder / f"prior_{name}.bayesnet")
        expected[f"prior_{name}"] = draws(prior)
    weights = {
        "pfn": random_pfn(),
        "quadrature": random_quadrature(),
        "classes": random_class_pfn(),
        "amortised": random_amortised(),
    }
    for name, pfn in weights.items():
        pfn.save(folder / f"weights_of_{name}.bayesnet")
        again = type(pfn).load(
            folder / f"weights_of_{name}.bayesnet"
        )  # they are kept in half precision
        expected[f"weights_of_{name}"] = numbers(again)
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1])
