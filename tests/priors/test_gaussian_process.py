"""Gaussian processes: kernels against NumPy and torch, moments of draws."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import bayesnet as bn

RNG = np.random.default_rng(0)
X1, X2 = RNG.normal(size=(6, 3)), RNG.normal(size=(4, 3))
ARD = np.array([0.5, 1.0, 2.5])


def agree_iid(draws, truth):
    """The mean of independent draws (s, ...) is within 5 standard errors of `truth`."""
    draws = np.asarray(draws, float)
    error = draws.std(0) / np.sqrt(len(draws))
    assert np.abs((draws.mean(0) - truth) / error).max() < 5


def products(f):
    """f (s, n) to outer products (s, n, n)."""
    f = np.asarray(f, float)
    return f[:, :, None] * f[:, None, :]


@pytest.mark.parametrize("lengthscale", [0.7, ARD], ids=["isotropic", "ARD"])
@pytest.mark.parametrize("name", sorted(oracles.KERNELS))
def test_kernels_equal_numpy(name, lengthscale):
    extra = {"period": 1.7} if name == "periodic" else {}
    process = bn.GaussianProcess(name, lengthscale, 2.5, **extra)
    expected = oracles.KERNELS[name](X1, X2, lengthscale, 2.5, **extra)
    np.testing.assert_allclose(process.kernel(X1, X2), expected, rtol=2e-5, atol=1e-6)
    # The gradient is right where a point meets itself, too.
    assert np.isfinite(process.kernel(X1, X1)).all()


def test_sums_and_products():
    a, b = bn.GaussianProcess("rbf", 0.7, 2.0), bn.GaussianProcess("linear", 1.3)
    ka, kb = oracles.rbf(X1, X2, 0.7, 2.0), oracles.linear(X1, X2, 1.3)
    np.testing.assert_allclose((a + b).kernel(X1, X2), ka + kb, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose((a * b).kernel(X1, X2), ka * kb, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose((a + b * a).kernel(X1, X2), ka + kb * ka, rtol=2e-5, atol=1e-6)


def test_means_add_and_do_not_multiply():
    a = bn.GaussianProcess("rbf", mean=2.0)
    assert (a + a).mean == 4.0
    with pytest.raises(bn.InputError, match="mean 0"):
        a * a
    with pytest.raises(bn.InputError, match="same units"):
        a + bn.GaussianProcess("rbf", out_dim=2)


def test_tinygp_kernels_are_taken_as_they_are():
    tk = pytest.importorskip("tinygp").kernels
    process = bn.GaussianProcess(2.0 * tk.RationalQuadratic(alpha=1.5, scale=0.8))
    # tinygp's default distance is L1.
    r = np.abs(X1[:, None] - X2[None]).sum(-1) / 0.8
    expected = 2.0 * (1 + 0.5 * r**2 / 1.5) ** -1.5
    np.testing.assert_allclose(process.kernel(X1, X2), expected, rtol=1e-5)
    assert process.sample(0, X1, 2).shape == (2, 6, 1)


def gpytorch_kernels():
    k = pytest.importorskip("gpytorch").kernels
    torch = pytest.importorskip("torch")
    scaled = k.ScaleKernel(k.RBFKernel())
    scaled.outputscale, scaled.base_kernel.lengthscale = 2.5, 0.7
    matern = k.MaternKernel(nu=1.5, ard_num_dims=3)
    matern.lengthscale = torch.tensor(ARD, dtype=torch.float32)
    return {
        "scaled rbf": (scaled, oracles.rbf(X1, X2, 0.7, 2.5)),
        "ARD matern": (matern, oracles.matern32(X1, X2, ARD)),
        "product": (scaled * matern, oracles.rbf(X1, X2, 0.7, 2.5) * oracles.matern32(X1, X2, ARD)),
    }


@pytest.mark.parametrize("case", ["scaled rbf", "ARD matern", "product"])
def test_gpytorch_kernels_are_taken_as_they_are(case):
    kernel, expected = gpytorch_kernels()[case]
    torch = pytest.importorskip("torch")
    before = {name: value.clone() for name, value in kernel.state_dict().items()}
    process = bn.GaussianProcess(kernel)
    np.testing.assert_allclose(process.kernel(X1, X2), expected, rtol=1e-5, atol=1e-6)
    draws = process.sample(0, X1, 3000)
    agree_iid(products(draws[:, :, 0]), process.kernel(X1, X1))
    for name, value in kernel.state_dict().items():  # the user's kernel is not touched
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("name", ["rbf", "matern12", "periodic", "linear"])
def test_draws_have_the_covariance_of_the_kernel(name):
    process = bn.GaussianProcess(name, 0.8, 1.5, mean=3.0, out_dim=2)
    f = np.asarray(process.sample(jax.random.key(0), X1, 4000), float) - 3.0
    assert f.shape == (4000, 6, 2)
    expected = oracles.KERNELS[name](X1, X1, 0.8, 1.5)
    for j in range(2):
        agree_iid(f[:, :, j], 0.0)
        agree_iid(products(f[:, :, j]), expected)
    agree_iid(f[:, :, 0] * f[:, :, 1], 0.0)  # outputs are independent


def test_random_hyper_parameters_give_every_draw_its_own_kernel():
    process = bn.GaussianProcess("rbf", bn.LogNormal(0.0, 0.6), bn.LogNormal(0.3, 0.4))
    x = np.array([[0.0], [0.7]])
    f = np.asarray(process.sample(jax.random.key(1), x, 8000)[:, :, 0], float)
    z, w = np.polynomial.hermite_e.hermegauss(60)
    w = w / w.sum()
    scale = w @ np.exp(0.3 + 0.4 * z)
    correlation = w @ np.exp(-0.5 * 0.49 / np.exp(2 * 0.6 * z))
    agree_iid(f**2, scale)
    agree_iid(f[:, 0] * f[:, 1], scale * correlation)
    agree_iid(f**4, 3 * (w @ np.exp(0.3 + 0.4 * z) ** 2))  # heavier than any one GP
    with pytest.raises(bn.InputError, match="random hyper-parameters"):
        process.kernel(x, x)


def test_a_numpyro_distribution_as_a_law():
    dist = pytest.importorskip("numpyro.distributions")
    process = bn.GaussianProcess("rbf", 1.0, dist.Gamma(3.0, 1.5))
    f = np.asarray(process.sample(2, X1[:2], 6000)[:, :, 0], float)
    agree_iid(f**2, 2.0)
    agree_iid(f**4, 3 * (2.0**2 + 3 / 1.5**2))


def test_laws_of_a_vector_are_one_lengthscale_a_column():
    law = bn.LogNormal([np.log(0.2), np.log(50.0)], 0.1)
    x = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    f = np.asarray(bn.GaussianProcess("rbf", law).sample(0, x, 3000)[:, :, 0], float)
    correlation = np.corrcoef(f.T)
    assert abs(correlation[0, 1]) < 0.1
    assert correlation[0, 2] > 0.99


def test_equal_rows_and_one_row_are_drawn():
    f = np.asarray(bn.GaussianProcess("rbf").sample(0, np.array([[1.0], [1.0]]), 50))
    np.testing.assert_allclose(f[:, 0], f[:, 1], atol=0.02)
    assert bn.GaussianProcess("rbf").sample(0, np.array([[1.0]]), 5).shape == (5, 1, 1)


def test_the_seed_decides():
    process = bn.GaussianProcess("matern52")
    np.testing.assert_array_equal(process.sample(3, X1, 2), process.sample(3, X1, 2))
    assert not np.allclose(process.sample(3, X1, 2), process.sample(4, X1, 2))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: bn.GaussianProcess("RBFF"), "Did you mean 'rbf'"),
        (lambda: bn.GaussianProcess("rbf", -1.0), "lengthscale"),
        (lambda: bn.GaussianProcess("rbf", 1.0, 0.0), "outputscale"),
        (lambda: bn.GaussianProcess("rbf", units="feet"), "units"),
        (lambda: bn.GaussianProcess("rbf", out_dim=0), "out_dim"),
        (lambda: bn.GaussianProcess(lambda a, b: a), "Cannot use function"),
        (lambda: bn.GaussianProcess("rbf", ARD).kernel(X1[:, :2], X1[:, :2]), "3 lengthscales"),
        (lambda: bn.GaussianProcess("rbf", ARD).sample(0, X1[:, :2], 1), "3 lengthscales"),
        (lambda: bn.GaussianProcess("rbf").sample(0, [[np.nan]], 1), "NaN"),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(bn.InputError, match=words):
        make()


def test_hyper_parameters_beside_a_kernel_object_are_refused():
    tk = pytest.importorskip("tinygp").kernels
    with pytest.raises(bn.InputError, match="carries its own"):
        bn.GaussianProcess(tk.Matern32(), lengthscale=2.0)


def test_a_kernel_that_is_no_covariance_is_refused():
    tk = pytest.importorskip("tinygp").kernels
    wrong = tk.Custom(lambda a, b: -tk.Exp()(a[None], b[None])[0, 0])
    with pytest.raises(bn.InputError, match="not positive definite"):
        bn.GaussianProcess(wrong).sample(0, X1, 2)


@pytest.mark.parametrize("name", ["rbf", "matern12", "matern32", "matern52"])
def test_a_point_is_at_distance_zero_from_itself_in_every_program(name):
    # Jitted and batched over lengthscales, XLA has put points at distance 1 from themselves.
    x = jnp.linspace(-2, 2, 40)[:, None]
    covariance = bn.GaussianProcess(name, bn.LogNormal(0.0, 0.5)).covariance
    hyper = covariance.draw(jax.random.key(0), 4)
    matrices = jax.jit(jax.vmap(lambda h: covariance.matrix(h, x, x)))(hyper)
    diagonal = np.diagonal(np.asarray(matrices), axis1=1, axis2=2)
    np.testing.assert_allclose(diagonal, 1.0, rtol=1e-6)
    # Long lengthscales on a fine grid: hard to factorise if a single entry is off.
    draws = bn.GaussianProcess(name, bn.LogNormal(0.0, 0.5)).sample(0, np.asarray(x), 200)
    assert np.isfinite(np.asarray(draws)).all()
