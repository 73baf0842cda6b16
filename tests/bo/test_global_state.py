"""What torch, NumPy and Python were set to does not matter to a study, and is left as it was."""

import random
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from botorch.models import SingleTaskGP

import bayesnet as bn
from bayesnet.bo import suggest, suggest_from_pool
from bayesnet.surrogates import Surrogate
from bayesnet.surrogates.scope import torch_scope

from .conftest import TINY, tiny_prior

BOX = np.array([[0.0, 0.0], [1.0, 5.0]])
X = np.random.default_rng(0).uniform(size=(8, 2)) * BOX[1]
Y = np.sin(3 * X[:, 0]) - (X[:, 1] - 2.0) ** 2


@pytest.fixture(scope="module")
def gp():
    """A model of BoTorch, on which its own code draws from torch's generator."""
    model = SingleTaskGP(torch.from_numpy(X), torch.from_numpy(Y).unsqueeze(1))
    return model.eval()


def study(surrogate="exact", n_trials=7, **options):
    found = bn.bo.minimize(
        lambda p: np.sin(5 * p["x"]) + (p["z"] - 0.3) ** 2,
        {"x": (-2.0, 1.0), "z": (0.0, 1.0)},
        surrogate,
        n_trials=n_trials,
        seed=0,
        **options,
    )
    return np.array([list(t.params.values()) for t in found.trials])


CALLS = {
    "minimize": lambda gp: study(n_trials=6),
    "random": lambda gp: study("random"),
    "tiny": lambda gp: study(TINY, 6, prior=tiny_prior(2)),
    "gp": lambda gp: suggest(gp, BOX, num_restarts=1, raw_samples=16),
    "gp log_nei": lambda gp: suggest(gp, BOX, q=2),
    "gp thompson": lambda gp: suggest(gp, BOX, acquisition="thompson"),
    "table": lambda gp: suggest((X, Y), BOX, surrogate="student_t", acquisition="log_ei"),
    "pool": lambda gp: suggest_from_pool(gp, 0.9 * X + 0.1, q=3),
    "surrogate": lambda gp: (
        Surrogate(
            torch.from_numpy(X), torch.from_numpy(Y)[:, None], inference=TINY, prior=tiny_prior(2)
        ).fitted.latents
    ),
}


@contextmanager
def half(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        assert torch.get_default_dtype() == dtype
        torch.set_default_dtype(before)


# Each of them is several searches.
SLOW = ("gp log_nei", "table")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in CALLS]
)
def test_one_seed_gives_one_result_whatever_was_set(gp, name):
    results = []
    for number, setting in enumerate(
        (
            torch.enable_grad(),
            torch.no_grad(),
            torch.inference_mode(),
            torch.device("meta"),
            half(torch.float16),
            half(torch.bfloat16),
        )
    ):
        torch.manual_seed(number)
        np.random.seed(number)
        random.seed(number)
        before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()
        with setting:
            derivatives = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
            results.append(np.asarray(CALLS[name](gp)))
            assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == derivatives
        assert torch.equal(torch.random.get_rng_state(), before[0])
        assert np.random.get_state()[1].tolist() == before[1]
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], rtol=1e-6, atol=1e-9)
    for other in results[1:4]:
        np.testing.assert_array_equal(other, results[0])


def test_a_scope_is_undone_by_an_error_too():
    def fails():
        with torch_scope(3):
            assert torch.is_grad_enabled()
            raise ValueError(torch.rand(1))

    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with torch.no_grad(), pytest.raises(ValueError, match="tensor"):
        fails()
    assert torch.is_grad_enabled()
    assert torch.equal(torch.rand(3), expected)


def test_points_are_of_the_kind_of_the_model():
    single = SingleTaskGP(torch.from_numpy(X).float(), torch.from_numpy(Y).float().unsqueeze(1))
    point = suggest(single, BOX)
    assert point.dtype == torch.float32
    table = torch.from_numpy(X).float(), torch.from_numpy(Y).float().unsqueeze(1)
    assert suggest(table, BOX, surrogate="exact").dtype == torch.float32
    assert suggest_from_pool(single, X[:4], X_pending=X[:1]).shape == (1,)


PROGRAM = """
import random, warnings
import numpy as np, optuna, torch
import bayesnet as bn
warnings.simplefilter("ignore")
optuna.logging.set_verbosity(optuna.logging.ERROR)
before = random.getstate(), str(np.random.get_state()), torch.random.get_rng_state()
url = "sqlite:///" + "{path}"
for surrogate in ("exact", "random"):
    bn.bo.minimize(
        lambda p: p["x"], {{"x": (0.0, 1.0)}}, surrogate, n_trials=6, storage=url,
        study_name=surrogate,
    )
assert random.getstate() == before[0]
assert str(np.random.get_state()) == before[1]
assert torch.equal(torch.random.get_rng_state(), before[2])
"""


@pytest.mark.slow
def test_a_study_in_a_database_draws_from_no_global_generator(tmp_path):
    """In a process of its own: the type checks of these tests draw from Python's generator."""
    program = PROGRAM.format(path=tmp_path / "study.db")
    subprocess.run([sys.executable, "-c", program], check=True)
