"""Matrices in blocks, products without the matrix, what does not fit into memory."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import bayesnet as bn
from bayesnet.kernels import NNGP, NTK, Activation, Conv, Dense, Flatten, Image, Serial, matrices

RNG = np.random.default_rng(0)
X1, X2 = RNG.normal(size=(37, 3)), RNG.normal(size=(20, 3))


@pytest.mark.parametrize(
    "kernel",
    [pytest.param(NNGP(depth=2), marks=pytest.mark.slow), NTK(depth=1)],
    ids=["nngp", "ntk"],
)
def test_blocks_equal_the_whole(kernel):
    with jax.enable_x64(True):
        square, cross = (np.asarray(kernel.kernel(X1, x)) for x in (X1, X2))
    np.testing.assert_allclose(kernel.in_blocks(X1), square, rtol=1e-12)
    seen = []
    blocks = kernel.in_blocks(X1, block=8, progress=lambda *at: seen.append(at))
    assert blocks.dtype == np.float64
    np.testing.assert_allclose(blocks, square, rtol=1e-12)
    assert seen == [(i + 1, 15) for i in range(15)]  # the blocks on and above the diagonal of 5 x 5
    np.testing.assert_array_equal(blocks, blocks.T)
    np.testing.assert_allclose(kernel.in_blocks(X1, X2, block=8), cross, rtol=1e-12)
    for v in (RNG.normal(size=37), RNG.normal(size=(37, 2))):
        np.testing.assert_allclose(kernel.matvec(X1, v, block=8), square @ v, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(kernel.matvec(X2, v, X1, block=16), cross.T @ v, rtol=1e-9)


def test_one_program_serves_all_blocks(capsys):
    kernel = NNGP(depth=1, activation="erf")
    before = matrices._block._cache_size()
    kernel.in_blocks(X1, block=10, progress=True)
    assert matrices._block._cache_size() == before + 1
    assert "block 10 of 10" in capsys.readouterr().out


def test_what_does_not_fit_is_refused_with_the_estimate(monkeypatch):
    monkeypatch.setattr(matrices, "available_memory", lambda: 2.0**30)
    many = np.zeros((20_000, 1))
    with pytest.raises(
        bn.InputError, match=r"20000 x 20000 rows needs about 3\.2 GiB .* 1\.0 GiB are"
    ):
        NNGP().in_blocks(many)
    with pytest.raises(bn.InputError, match=r"needs about 23\.8 GiB .*in_blocks"):
        NNGP().kernel(many, many)
    images = NNGP(Serial(Image(32, 32), Conv(), Activation("relu"), Flatten(), Dense()))
    with pytest.raises(bn.InputError, match=r"1024 numbers a pair"):
        images.kernel(np.zeros((300, 1024)), np.zeros((300, 1024)))
    # A block of images is small enough for its moments.
    assert matrices.block_size(images, None, 300, 300) ** 2 * 1024 * 8 * matrices.LIVE <= 2**28


def test_bad_blocks_and_vectors():
    with pytest.raises(bn.InputError, match="block must be"):
        NNGP().in_blocks(X1, block=0)
    with pytest.raises(bn.InputError, match=r"v must have shape \(37,\)"):
        NNGP().matvec(X1, np.zeros(3))
    with pytest.raises(bn.InputError, match="columns"):
        NNGP().in_blocks(X1, X2[:, :2])


@pytest.mark.slow
def test_twenty_thousand_rows_fit_into_8_gib(tmp_path):
    """In a process of its own, whose largest memory is read afterwards (`ru_maxrss` would count that of the
    process which started it)."""
    import subprocess
    import sys

    program = """
import numpy as np, bayesnet as bn
x = np.random.default_rng(0).normal(size=(20_000, 10))
kernel = bn.kernels.NNGP(depth=3)
matrix = kernel.in_blocks(x)
assert matrix.shape == (20_000, 20_000)
few = [0, 1, 9_999, 19_999]
np.testing.assert_allclose(matrix[np.ix_(few, few)], kernel.in_blocks(x[few]), rtol=1e-9)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) / 2**20)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 3.0 < float(done.stdout) < 8.0  # the matrix itself has 3.0 GiB
