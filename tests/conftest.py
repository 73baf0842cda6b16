"""Shared fixtures; shapes and types of the library are checked while the tests run."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Matches made by the tests are kept apart from the user's own; set before bayesnet is imported.
os.environ["BAYESNET_CACHE_DIR"] = tempfile.mkdtemp(prefix="bayesnet-tests-")

# jaxtyping + beartype check every annotation of these rooms, in the tests only. Left out are the
# entry points that check their arguments themselves: the tests want their own errors.
CHECKED = (
    "data",
    "defaults",
    "devices",
    "diagnostics.arviz_export",
    "diagnostics.convergence",
    "inference._adaptation",
    "inference._hamiltonian",
    "inference._path_length",
    "inference._run",
    "inference.base",
    "inference.model",
    "likelihoods",
    "networks.adapters",
    "networks.base",
    "posterior",
    "priors.base",
    "priors.covariance",
    "priors.gaussian_process",
    "priors.laws",
    "priors.network",
    "priors.weights",
)
install_import_hook([f"bayesnet.{room}" for room in CHECKED], "beartype.beartype")

# Every compiled program holds memory maps, of which Linux allows a process 65,530 by default;
# XLA aborts beyond that. A long test run comes there, so programs are dropped before it does.
MOST_MAPS = 20_000


@pytest.fixture(autouse=True, scope="module")
def _few_memory_maps():
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_text().count("\n") > MOST_MAPS:
        import gc

        import jax

        jax.clear_caches()
        gc.collect()


SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """The tables of these machines; they are not part of the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"the shared tables are absent (looked at {SHARED})")
    return SHARED


@pytest.fixture(scope="session")
def small_posterior():
    """A fitted network with two inputs, two outputs and learned noise. Do not change it."""
    import numpy as np

    import bayesnet as bn

    rng = np.random.default_rng(0)
    x = rng.normal([5.0, -1.0], [2.0, 0.1], (20, 2))
    y = np.column_stack([100 + 10 * np.sin(x[:, 0]), x[:, 1]]) + 0.1 * rng.normal(size=(20, 2))
    prior = bn.NetworkPrior(bn.MLP((6,)), in_dim=2, out_dim=2)
    method = bn.HMC(chains=2, warmup=60, draws=50)
    return bn.fit(prior, x, y, inference=method, warn=False, seed=3)
