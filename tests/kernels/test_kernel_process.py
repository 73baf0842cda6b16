"""NNGP and NTK: closed forms, recursions, gradients, bad input, saving."""

from __future__ import annotations

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesnet as bn
from bayesnet.devices import float64_island
from bayesnet.kernels import NNGP, NTK, Activation, Dense, LayerNorm, Residual, Serial
from bayesnet.posterior.saving import save
from bayesnet.priors.arc_cosine import arc_cosine
from bayesnet.priors.base import KernelPrior

RNG = np.random.default_rng(0)
X1, X2 = RNG.normal(size=(6, 3)), RNG.normal(size=(4, 3))
DEEP = Serial(
    Dense(1.5, 0.2),
    Residual(LayerNorm(), Activation("relu"), Dense(0.9, 0.1), scale=0.7),
    Activation("erf"),
    Dense(1.1, 0.4),
)


def wide(kernel, x1, x2):
    """The kernel in float64 all the way."""
    with jax.enable_x64(True):
        return np.asarray(kernel.kernel(x1, x2))


def test_one_relu_layer_is_the_arc_cosine_kernel():
    with_bias = [np.concatenate([np.full((len(x), 1), 0.3), x / 3**0.5 * 1.2], 1) for x in (X1, X2)]
    kernel = NNGP(depth=1, weight_std=(1.2, 1.5), bias_std=(0.3, 0.0))
    with jax.enable_x64(True):
        expected = 1.5**2 / 2 * arc_cosine(1, *(jnp.asarray(x) for x in with_bias))
    np.testing.assert_allclose(wide(kernel, X1, X2), expected, rtol=1e-12)


def test_one_erf_layer_is_the_arcsine_kernel():
    # Williams 1997, eq. 11
    kernel = NNGP(depth=1, activation="erf", weight_std=1.3, bias_std=0.5)
    k, v1, v2 = (1.69 * m / 3 + 0.25 for m in (X1 @ X2.T, (X1**2).sum(1), (X2**2).sum(1)))
    hidden = 2 / np.pi * np.arcsin(2 * k / np.sqrt(np.outer(1 + 2 * v1, 1 + 2 * v2)))
    np.testing.assert_allclose(wide(kernel, X1, X2), 1.69 * hidden + 0.25, rtol=1e-12)


def test_a_linear_network_has_linear_kernels():
    nngp, ntk = NTK(depth=0, weight_std=2.0, bias_std=0.5).both(X1, X2)
    np.testing.assert_allclose(nngp, 4 * X1 @ X2.T / 3 + 0.25, rtol=1e-5)
    np.testing.assert_allclose(ntk, nngp)  # the gradient of a linear model is its features


def test_deep_relu_equals_a_plain_recursion():
    """Arccosine form in NumPy, with the derivative's dual for the tangent kernel."""
    x = np.concatenate([X1, X2])
    cov = 1.96 * x @ x.T / 3 + 0.09
    tangent = cov
    for _ in range(3):
        sd = np.sqrt(np.diag(cov))
        angle = np.arccos(np.clip(cov / np.outer(sd, sd), -1, 1))
        slope = (np.pi - angle) / (2 * np.pi)
        hidden = np.outer(sd, sd) * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
        cov = 1.96 * hidden + 0.09
        tangent = 1.96 * tangent * slope + cov
    kernel = NTK(depth=3, activation="relu", weight_std=1.4, bias_std=0.3)
    with jax.enable_x64(True):
        nngp, ntk = kernel.both(x, x)
    np.testing.assert_allclose(nngp, cov, rtol=1e-9)
    np.testing.assert_allclose(ntk, tangent, rtol=1e-6)  # arccos loses 1e-8 at angle 0
    np.testing.assert_allclose(kernel.kernel(x, x), tangent, rtol=1e-5)
    np.testing.assert_allclose(kernel.nngp.kernel(x, x), cov, rtol=1e-5)
    assert kernel.nngp.ntk == kernel


@pytest.mark.parametrize("kernel", [NTK(DEEP), NTK(depth=2)], ids=["residual", "dense"])
def test_diagonals_symmetry_and_definiteness(kernel):
    with jax.enable_x64(True):
        x = np.concatenate([X1, X1[:1], np.zeros((1, 3)), 100 * X2])
        matrix = np.asarray(kernel.kernel(x, x))
        diagonal = np.asarray(kernel.diagonal(x))
    np.testing.assert_allclose(np.diag(matrix), diagonal, rtol=1e-9)
    np.testing.assert_allclose(matrix, matrix.T, rtol=1e-12)
    np.testing.assert_allclose(matrix[0], matrix[len(X1)], rtol=1e-12)  # a row twice
    assert np.linalg.eigvalsh(matrix)[0] > -1e-10 * np.trace(matrix)


def test_residual_sums_and_norms():
    """Against the recursion written out."""
    with jax.enable_x64(True):
        k, v1, v2 = (2.25 * m / 3 + 0.04 for m in (X1 @ X2.T, (X1**2).sum(1), (X2**2).sum(1)))
        c = k / np.sqrt(np.outer(v1 + 1e-5, v2 + 1e-5))
        o1, o2 = v1 / (v1 + 1e-5), v2 / (v2 + 1e-5)
        relu = arc_cosine_of(c, o1, o2)
        k = k + 0.49 * (0.81 * relu + 0.01)
        v1, v2 = (v + 0.49 * (0.81 * o / 2 + 0.01) for v, o in ((v1, o1), (v2, o2)))
        erf = 2 / np.pi * np.arcsin(2 * k / np.sqrt(np.outer(1 + 2 * v1, 1 + 2 * v2)))
        np.testing.assert_allclose(NNGP(DEEP).kernel(X1, X2), 1.21 * erf + 0.16, rtol=1e-10)


def arc_cosine_of(c, v1, v2):
    norm = np.sqrt(np.outer(v1, v2))
    angle = np.arccos(c / norm)
    return norm * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)


def test_draws_have_the_covariance():
    kernel = NNGP(depth=2, out_dim=2)
    draws = np.asarray(kernel.sample(0, X1, 4000), float)
    assert draws.shape == (4000, 6, 2)
    products = draws[:, :, None, :] * draws[:, None, :, :]
    error = products.std(0) / 4000**0.5
    truth = np.asarray(kernel.kernel(X1, X1))[..., None]
    assert (np.abs(products.mean(0) - truth) < 5 * error).all()
    cross = (draws[:, :, 0] * draws[:, :, 1]).mean(0)
    assert (np.abs(cross) < 5 * np.diag(truth[..., 0]) / 4000**0.5).all()
    assert np.isfinite(kernel.sample(0, np.zeros((3, 3)), 2)).all()  # one row three times
    assert isinstance(kernel, KernelPrior)


@pytest.mark.parametrize(
    "kernel",
    [
        NTK(depth=1),
        pytest.param(NNGP(depth=2), marks=pytest.mark.slow),
        pytest.param(NTK(DEEP), marks=pytest.mark.slow),
    ],
    ids=["ntk", "nngp", "residual"],
)
def test_gradients_by_inputs_and_variances_equal_finite_differences(kernel):
    weights = RNG.normal(size=(6, 4))

    def total(hyper, x1, x2):
        return jnp.sum(weights * float64_island(kernel.bare().matrix)(hyper, x1, x2))

    with jax.enable_x64(True):
        args = (kernel.hyper, jnp.asarray(X1), jnp.asarray(X2))
        args = jax.tree.map(jnp.asarray, args)
        flat, back = jax.flatten_util.ravel_pytree(args)
        fn = jax.jit(lambda f: total(*back(f)))
        gradient = np.asarray(jax.grad(fn)(flat))
        steps = 1e-6 * np.eye(len(flat))
        numeric = np.array([(fn(flat + s) - fn(flat - s)) / 2e-6 for s in steps])
    np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-6)


def test_gradients_work_in_float32_and_at_difficult_points():
    x = np.concatenate([X1, X1[:2], np.zeros((1, 3))]).astype(np.float32)
    for kernel in (NTK(depth=1, bias_std=0.0),):
        value = kernel.kernel(x, x)
        gradient = jax.jit(jax.grad(lambda a, k=kernel: k.kernel(a, a).sum()))(x)
        assert value.dtype == gradient.dtype == jnp.float32
        assert np.isfinite(value).all()
        assert np.isfinite(gradient).all()
    # Where it is smooth, the gradient of float32 inputs is that of float64 ones.
    kernel = NNGP(depth=1)
    narrow = jax.grad(lambda a: kernel.kernel(a, X2.astype(np.float32)).sum())(x[:3])
    with jax.enable_x64(True):
        exact = jax.grad(lambda a: kernel.kernel(a, jnp.asarray(X2)).sum())(
            jnp.asarray(x[:3], float)
        )
    np.testing.assert_allclose(narrow, exact, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_variances_are_learned_by_marginal_likelihood():
    """A table of a linear network's draws: descent in the evidence finds the bias variance."""
    truth = NNGP(depth=1, weight_std=0.7, bias_std=2.0)
    x = np.random.default_rng(1).normal(size=(40, 2))
    y = np.asarray(truth.sample(3, x, 30))[..., 0].T.astype(float)
    start = NNGP(depth=1, weight_std=1.4, bias_std=0.3)

    with jax.enable_x64(True):

        @jax.jit
        @jax.value_and_grad
        def loss(log_variances):
            hyper = {"weight": jnp.exp(log_variances[0]), "bias": jnp.exp(log_variances[1])}
            matrix = start.bare().matrix(hyper, jnp.asarray(x), jnp.asarray(x))
            factor = jnp.linalg.cholesky(matrix + 1e-6 * jnp.eye(40))
            white = jax.scipy.linalg.solve_triangular(factor, y, lower=True)
            return 0.5 * jnp.sum(white**2) + 30 * jnp.sum(jnp.log(jnp.diag(factor)))

        from scipy.optimize import minimize

        found = minimize(loss, np.log([1.96, 0.09]), jac=True, method="L-BFGS-B").x
    learned = start.with_variances(*np.exp(found))
    assert abs(learned.weight_std - 0.7) < 0.1
    assert abs(learned.bias_std - 2.0) < 0.4
    assert learned.layers.stds()[1] == (learned.weight_std, learned.bias_std)


def test_saving_and_copies(tmp_path):
    for kernel in (NTK(depth=2, weight_std=(1.0, 2.0, 3.0), out_dim=2), NNGP(DEEP, units="data")):
        assert pickle.loads(pickle.dumps(kernel)) == kernel
        assert copy.deepcopy(kernel) == kernel
        save(kernel, tmp_path / "kernel")
        loaded = bn.load(tmp_path / "kernel")
        assert loaded == kernel
        assert hash(loaded) == hash(kernel)
    with pytest.raises(bn.UnsupportedError, match="without a pickle"):
        save(NNGP(depth=1, activation=jnp.tanh), tmp_path / "own")


def test_a_users_function_is_an_activation():
    own = NNGP(depth=1, activation=lambda u: jnp.sin(u))
    np.testing.assert_allclose(
        wide(own, X1, X2), wide(NNGP(depth=1, activation="sin"), X1, X2), rtol=1e-9
    )


def test_other_variances_of_the_same_layers_compile_nothing():
    from bayesnet.kernels.programs import matrix_program

    kernel = NNGP(depth=2)
    kernel.kernel(X1, X2)
    before = matrix_program._cache_size()
    kernel.with_variances(weight=3.0, bias=0.5).kernel(X1, X2)
    NNGP(depth=2, out_dim=3, weight_std=0.4).kernel(X1, X2)
    assert matrix_program._cache_size() == before


def test_bad_input_is_refused():
    with pytest.raises(bn.InputError, match="must be above 0, got 0"):
        NNGP(weight_std=0.0)
    with pytest.raises(bn.InputError, match=r"bias_std.*at least 0, got -1"):
        NNGP(bias_std=-1.0)
    with pytest.raises(bn.InputError, match=r"2 numbers, but the network has 4 layers"):
        NNGP(depth=3, weight_std=(1.0, 2.0))
    with pytest.raises(bn.InputError, match=r"weight_std\[1\].*-2"):
        NNGP(depth=1, weight_std=(1.0, -2.0))
    with pytest.raises(bn.InputError, match="finite number"):
        NNGP(weight_std=float("nan"))
    with pytest.raises(bn.InputError, match="depth"):
        NNGP(depth=-1)
    with pytest.raises(bn.InputError, match="units"):
        NNGP(units="metres")
    with pytest.raises(bn.InputError, match="out_dim"):
        NNGP(out_dim=0)
    with pytest.raises(bn.InputError, match="Unknown activation"):
        NNGP(activation="tahn")
    with pytest.raises(bn.InputError, match="layers do that"):
        NNGP(DEEP, depth=2)
    with pytest.raises(bn.InputError, match="ends with a Dense"):
        NNGP(Serial(Dense(), Activation("relu")))
    with pytest.raises(bn.InputError, match="Gaussian units"):
        NNGP(Serial(Activation("relu"), Dense()))
    with pytest.raises(bn.InputError, match="LayerNorm needs Gaussian"):
        NNGP(Serial(Dense(), Activation("relu"), LayerNorm(), Dense()))
    with pytest.raises(bn.InputError, match="inputs themselves"):
        NNGP(Serial(Residual(Dense()), Dense()))
    with pytest.raises(bn.InputError, match="end with a Dense or Conv"):
        Residual(Dense(), Activation("relu"))
    with pytest.raises(bn.InputError, match="not its class"):
        Serial(Dense, Activation("relu"))
    with pytest.raises(bn.InputError, match="variances must be finite"):
        NNGP().with_variances(weight=-1.0)
    kernel = NNGP()
    with pytest.raises(bn.InputError, match="3 columns, x2 has 2"):
        kernel.kernel(X1, X2[:, :2])
    with pytest.raises(bn.InputError, match="NaN"):
        kernel.kernel([[np.nan, 1.0]], X1)
    with pytest.raises(bn.InputError, match="matrix"):
        kernel.kernel(np.zeros((2, 2, 2)), X1)


def test_what_expansions_leave_out_is_said():
    x = RNG.normal(size=(5, 3))
    assert (NTK().expansion_error(x) == 0).all()
    mild = NNGP(depth=1, activation="tanh").expansion_error(x)
    assert mild.shape == (5,)
    assert mild.max() < 1e-8
    sharp = NTK(depth=1, activation="tanh", weight_std=(20.0, 1.0))
    assert sharp.expansion_error(x).max() > 1e-2
    with pytest.warns(bn.ConvergenceWarning, match="bends much more sharply"):
        sharp.kernel(x, x)


@pytest.mark.parametrize(
    "kernel",
    [pytest.param(NNGP(depth=2), marks=pytest.mark.slow), NTK(depth=1)],
    ids=["nngp", "ntk"],
)
def test_gradients_of_square_matrices_equal_finite_differences(kernel):
    """Rows that move together with themselves: the corner of the angle at 0 does not show."""
    weights = RNG.normal(size=(4, 4)) + 3 * np.eye(4)
    with jax.enable_x64(True):

        @jax.jit
        def total(flat):
            x = flat.reshape(4, 3)
            return jnp.sum(weights * kernel.kernel(x, x))

        at = jnp.asarray(X2.ravel())
        gradient = jax.grad(total)(at)
        steps = 1e-5 * np.eye(12)
        numeric = np.array([(total(at + s) - total(at - s)) / 2e-5 for s in steps])
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-5)
