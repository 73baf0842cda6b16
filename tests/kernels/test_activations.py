"""Dual activations against two-dimensional quadrature, their slopes and gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesnet as bn
from bayesnet.kernels.activations import ACTIVATIONS, resolve_dual
from bayesnet.kernels.activations.closed_forms import rectifier
from bayesnet.kernels.activations.corners import (
    corner_order,
    dual_of_corner,
    squared_coefficients,
    tail_at_one,
)
from bayesnet.kernels.activations.corners import derivative_of as derivative_at
from bayesnet.kernels.activations.series import series

PAIRS = [(0.3, 1.0, 0.5), (-0.9, 1.5, 0.7), (0.0, 0.4, 2.0), (1.9, 2.0, 2.0), (-1.9999, 2.0, 2.0)]
# Expansions of smooth functions, of which tanh is tested in their place.
SAME_FORM = {"gelu_tanh", "sigmoid", "silu", "swish", "softplus"}
SLOW = pytest.mark.slow


def panels(edges, nodes):
    x, w = np.polynomial.legendre.leggauss(nodes)
    edges = np.asarray(edges)
    half = 0.5 * np.diff(edges)[:, None]
    return (0.5 * (edges[1:] + edges[:-1])[:, None] + half * x).ravel(), (half * w).ravel()


def pair_mean(phi, k, v1, v2):
    """E[phi(u) phi(v)] in polar coordinates: every sector in which no argument changes its sign is
    integrated apart, so that corners and steps at 0 cost nothing."""
    angle = np.arccos(np.clip(k / np.sqrt(v1 * v2), -1, 1))
    cuts = np.array([0.5 * np.pi, 1.5 * np.pi, angle + 0.5 * np.pi, angle - 0.5 * np.pi])
    cuts = np.sort(np.concatenate([[0.0], np.mod(cuts, 2 * np.pi), [2 * np.pi]]))
    t, wt = panels(cuts, 60)
    r, wr = panels(np.linspace(0.0, 12.0, 31), 12)
    wr = wr * r * np.exp(-0.5 * r**2) / (2 * np.pi)
    u = np.sqrt(v1) * np.outer(r, np.cos(t))
    v = np.sqrt(v2) * np.outer(r, np.cos(t - angle))
    return wr @ (phi(u) * phi(v)) @ wt


def derivative_of(phi):
    slope = jax.jit(lambda u: jax.jvp(phi, (u,), (jnp.ones_like(u),))[1])
    return lambda u: np.asarray(slope(jnp.asarray(u)))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[SLOW] if name in SAME_FORM else []) for name in sorted(ACTIVATIONS)],
)
def test_duals_equal_two_dimensional_quadrature(name):
    with jax.enable_x64(True):
        dual = resolve_dual(name)
        k, v1, v2 = (jnp.asarray(a) for a in np.array(PAIRS).T)
        values, slopes = np.asarray(jax.jit(lambda *a: (dual.value(*a), dual.slope(*a)))(k, v1, v2))
        derivative = derivative_of(dual.function)
        for i, pair in enumerate(PAIRS):
            scale = pair_mean(dual.function, pair[1], pair[1], pair[1])
            expected = pair_mean(dual.function, *pair)
            assert abs(values[i] - expected) < 1e-6 * max(1.0, scale), (name, pair)
            expected = pair_mean(derivative, *pair)
            scale = pair_mean(derivative, pair[1], pair[1], pair[1])
            assert abs(slopes[i] - expected) < 1e-6 * max(1.0, scale), (name, pair)


@pytest.mark.parametrize(
    ("name", "parameter"), [("leaky_relu", 0.3), ("monomial", 3), ("rbf", 0.4)]
)
def test_parameters(name, parameter):
    with jax.enable_x64(True):
        dual = resolve_dual(name, parameter)
        for k, v1, v2 in PAIRS:
            value = dual.value(*(jnp.asarray(a) for a in (k, v1, v2)))
            expected = pair_mean(dual.function, k, v1, v2)
            np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-12)
    if name == "rbf":
        np.testing.assert_allclose(value, np.exp(-parameter * (v1 + v2 - 2 * k)), rtol=1e-6)


@SLOW
def test_an_expansion_of_a_users_function_equals_the_closed_form():
    with jax.enable_x64(True):
        k, v1, v2 = (jnp.asarray(a) for a in np.array(PAIRS).T)
        ours, closed = resolve_dual(lambda u: jnp.sin(u)), resolve_dual("sin")
        values = jax.jit(lambda *a: (ours.value(*a), ours.slope(*a)))(k, v1, v2)
        np.testing.assert_allclose(values[0], closed.value(k, v1, v2), atol=1e-12)
        np.testing.assert_allclose(values[1], closed.slope(k, v1, v2), atol=1e-12)


@SLOW
def test_what_an_expansion_leaves_out_bounds_its_error():
    with jax.enable_x64(True):
        dual = resolve_dual("tanh")
        sds, shares = np.array([1.0, 3.0, 6.0]), np.array([0.9, 0.99, 0.999])
        v = jnp.asarray(sds**2)[:, None] + jnp.zeros(3)
        k = v * shares
        values = jax.jit(lambda *a: (dual.value(*a), dual.slope(*a)))(k, v, v)
        bounds = jax.jit(dual.missing)(v)
        for ours, bound, phi in zip(
            values, bounds, (dual.function, derivative_of(dual.function)), strict=True
        ):
            for i, sd in enumerate(sds):
                whole = pair_mean(phi, sd**2, sd**2, sd**2)
                for j, share in enumerate(shares):
                    error = abs(ours[i, j] - pair_mean(phi, share * sd**2, sd**2, sd**2)) / whole
                    assert error <= bound[i, j] + 1e-9, (sd, share)
        assert bounds[0][0, 0] < 1e-9
        assert bounds[1][2, 0] > 1e-7


@pytest.mark.parametrize(
    "name",
    [
        *("relu", "tanh", "elu"),
        *(pytest.param(n, marks=SLOW) for n in ("leaky_relu", "erf", "gelu", "cos", "softplus")),
    ],
)
def test_gradients_equal_finite_differences(name):
    with jax.enable_x64(True):
        dual = resolve_dual(name)
        args = tuple(jnp.asarray(a) for a in np.array(PAIRS[:3]).T)

        def both(*args):
            return jnp.stack([dual.value(*args), dual.slope(*args)])

        jitted = jax.jit(both)
        _, pullback = jax.vjp(jitted, *args)
        for i in range(2):
            ours = pullback(jnp.zeros((2, 3)).at[i].set(1.0))
            for j, step in enumerate(1e-5 * np.eye(3)):
                up, down = (
                    jitted(*[a + sign * s for a, s in zip(args, step, strict=True)])[i]
                    for sign in (1, -1)
                )
                np.testing.assert_allclose(ours[j], (up - down) / 2e-5, rtol=1e-5, atol=1e-7)
            if i == 0:  # the derivative by the covariance is the slope itself
                np.testing.assert_allclose(ours[0], jitted(*args)[1], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("relu", "gelu") else [SLOW])
        for name in sorted(set(ACTIVATIONS) - SAME_FORM)
    ],
)
def test_gradients_are_finite_at_equal_points_and_at_zero(name):
    with jax.enable_x64(True):
        dual = resolve_dual(name)
        edge = [(1.3, 1.3, 1.3), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0), (-1.3, 1.3, 1.3)]
        args = tuple(jnp.asarray(a) for a in np.array(edge).T)
        total = jax.jit(
            jax.value_and_grad(
                lambda *a: jnp.sum(dual.value(*a)) + jnp.sum(dual.slope(*a)), argnums=(0, 1, 2)
            )
        )
        value, gradient = total(*args)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all(), name


EXPANDED_PAIRS = [(s, s, r) for s in (0.3, 1.0, 4.0) for r in (-1, -0.999, -1e-3, 0.5, 0.999, 1)]
EXPANDED_PAIRS += [(0.3, 4.0, -0.999), (0.3, 4.0, 0.99), (1.0, 4.0, 0.999)]


@pytest.mark.parametrize(
    "name",
    ["elu", *(pytest.param(n, marks=SLOW) for n in ("tanh", *sorted(SAME_FORM - {"swish"})))],
)
def test_expansions_are_accurate_to_1e_6_at_all_variances_and_correlations(name):
    """Of value and slope, relative to the root of the product of both norms; and the bound is one."""
    s1, s2, rho = np.array(EXPANDED_PAIRS, float).T
    with jax.enable_x64(True):
        dual = resolve_dual(name)
        args = (jnp.asarray(a) for a in (rho * s1 * s2, s1**2, s2**2))
        ours = jax.jit(lambda *a: (dual.value(*a), dual.slope(*a)))(*args)
        sds = np.array([0.3, 1.0, 4.0])
        bounds = jax.jit(dual.missing)(jnp.asarray(sds**2))
        assert max(float(b.max()) for b in bounds) < 1e-6
        for values, bound, phi in zip(
            ours, bounds, (dual.function, derivative_of(dual.function)), strict=True
        ):
            whole = dict(zip(sds, (pair_mean(phi, s * s, s * s, s * s) for s in sds), strict=True))
            most = dict(zip(sds, np.asarray(bound), strict=True))
            for value, one, two, r in zip(np.asarray(values), s1, s2, rho, strict=True):
                exact = pair_mean(phi, r * one * two, one**2, two**2)
                error = abs(value - exact) / np.sqrt(whole[one] * whole[two])
                assert error < 1e-6, (one, two, r)
                assert error < 2.0 * np.sqrt(most[one] * most[two]) + 1e-10, (one, two, r)


@SLOW
@pytest.mark.parametrize(("name", "sd", "terms"), [("tanh", 4.0, 256), ("elu", 4.0, 128)])
def test_more_terms_are_more_accurate(name, sd, terms):
    with jax.enable_x64(True):
        v = jnp.full(3, sd**2)
        k = v * np.array([0.9, 0.99, 0.999])
        dual, few = resolve_dual(name), resolve_dual(name, terms=terms)
        for i, phi in enumerate((dual.function, derivative_of(dual.function))):
            whole = pair_mean(phi, sd**2, sd**2, sd**2)
            ours = np.asarray(jax.jit((dual.value, dual.slope)[i])(k, v, v))
            exact = [pair_mean(phi, float(c), sd**2, sd**2) for c in k]
            assert np.abs(ours - exact).max() < 1e-6 * whole
            assert dual.missing(v)[i][0] < 0.2 * few.missing(v)[i][0]


@SLOW
def test_matrices_of_expansions_have_exact_diagonals_and_are_positive():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(12, 2)) * 4.0
        x[1] = x[0]
        k = jnp.asarray(x @ x.T)
        v = jnp.diagonal(k)
        dual = resolve_dual("tanh")
        matrix = np.asarray(jax.jit(dual.value)(k, v[:, None], v[None]))
        own = np.asarray(dual.with_itself(v)[0])
        np.testing.assert_allclose(np.diag(matrix), own, rtol=1e-12)
        np.testing.assert_allclose(matrix[0], matrix[1], rtol=1e-12)
        assert np.linalg.eigvalsh(matrix)[0] > -1e-12
        for i in range(4):
            assert abs(own[i] - pair_mean(np.tanh, *[float(v[i])] * 3)) < 1e-8


@SLOW
def test_matrices_of_functions_with_corners_are_positive():
    """Tails of corners are positive definite too, whatever the variances."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(1)
        x = rng.normal(size=(40, 2)) * np.exp(rng.normal(size=(40, 1)))
        x[1], x[2] = x[0], -x[0]
        k = jnp.asarray(x @ x.T)
        v = jnp.diagonal(k)
        for name in ("elu", jax.nn.selu):
            dual = resolve_dual(name, terms=64)
            own = dual.with_itself(v)
            for i, of_pair in enumerate((dual.value, dual.slope)):
                matrix = np.asarray(jax.jit(of_pair)(k, v[:, None], v[None]))
                np.testing.assert_allclose(np.diag(matrix), np.asarray(own[i]), rtol=1e-9)
                assert np.linalg.eigvalsh(matrix)[0] > -1e-11 * np.abs(matrix).max()


def test_corners_at_zero_are_found_and_no_others():
    cases = [
        (jnp.sign, 0),
        (jax.nn.selu, 1),
        (jax.nn.elu, 2),
        (derivative_at(jax.nn.elu), 1),
        (lambda u: u / (1 + jnp.abs(u)), 2),
        (lambda u: jnp.clip(u, -1.0, 1.0), None),
        (lambda u: jnp.tanh(1000.0 * u), None),
        (jax.nn.silu, None),
        (jnp.sin, None),
    ]
    for fn, order in cases:
        assert corner_order(fn) == order, fn


@pytest.mark.parametrize("order", [0, 1, 2])
def test_duals_of_corners_are_their_series(order):
    """`D_k(rho)` in closed form, its slope, and the numbers of its series."""
    squares = squared_coefficients(order, 4096)
    rho = np.array([-0.99, -0.5, 0.0, 0.3, 0.9])
    with jax.enable_x64(True):
        ours, slope = jax.jvp(
            lambda r: dual_of_corner(order, r), (jnp.asarray(rho),), (jnp.ones(5),)
        )
    powers = rho[:, None] ** np.arange(4096)
    np.testing.assert_allclose(ours, powers @ squares, atol=1e-12)
    np.testing.assert_allclose(
        slope, powers[:, :-1] @ (squares[1:] * np.arange(1, 4096)), atol=1e-9
    )
    np.testing.assert_allclose(
        dual_of_corner(order, jnp.asarray([1.0])), [(1.0, 1.0, 3.0)[order]], rtol=1e-6
    )
    assert 0.0 < tail_at_one(order, 1024) < tail_at_one(order, 256)


def test_a_series_and_its_gradient_are_those_of_a_polynomial():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        a, b = jnp.asarray(rng.normal(size=(64, 2, 3, 1))), jnp.asarray(rng.normal(size=(64, 2, 4)))
        b = b[:, :, None, :]
        rho = jnp.asarray(rng.uniform(-1, 1, (3, 4))).at[0, 0].set(0.0)

        def plain(a, b, rho):
            powers = rho[None] ** jnp.arange(48.0)[:, None, None]
            return jnp.sum(jnp.sum(a * b, axis=1)[:48] * powers, axis=0), rho**48

        def ours(a, b, rho):
            return series(a, b, rho, jnp.asarray(3))

        weight = jnp.asarray(rng.normal(size=(2, 3, 4)))
        for x, y in zip(ours(a, b, rho), plain(a, b, rho), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12)
        gradients = [
            jax.grad(
                lambda *args, f=f: sum(
                    jnp.sum(w * o) for w, o in zip(weight, f(*args), strict=True)
                ),
                (0, 1, 2),
            )(a, b, rho.at[0, 0].set(0.2))
            for f in (ours, plain)
        ]
        for x, y in zip(*gradients, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-10)


def test_rectifiers_are_one_family():
    with jax.enable_x64(True):
        k, v1, v2 = (jnp.asarray(a) for a in np.array(PAIRS).T)
        relu, absolute = rectifier(0.0), rectifier(-1.0)
        # relu(u) = (u + |u|) / 2
        np.testing.assert_allclose(relu.value(k, v1, v2), 0.25 * (k + absolute.value(k, v1, v2)))
        u = jnp.linspace(-2, 2, 5)
        np.testing.assert_array_equal(relu.function(u), jax.nn.relu(u))
        np.testing.assert_array_equal(absolute.function(u), jnp.abs(u))


def test_bad_activations_are_refused():
    with pytest.raises(bn.InputError, match="Did you mean 'relu'"):
        bn.kernels.Activation("rellu")
    with pytest.raises(bn.InputError, match="no parameter"):
        bn.kernels.Activation("relu", 2.0)
    with pytest.raises(bn.InputError, match="above 0"):
        bn.kernels.Activation("rbf", -1.0)
    with pytest.raises(bn.InputError, match="whole number"):
        bn.kernels.Activation("monomial", 1.5)
    with pytest.raises(bn.InputError, match=r"jax\.numpy"):
        bn.kernels.Activation(lambda u: np.tanh(u))
    with pytest.raises(bn.InputError, match="same shape"):
        bn.kernels.Activation(lambda u: u.sum())
    with pytest.raises(bn.InputError, match="of your own has no parameter"):
        bn.kernels.Activation(jnp.tanh, 1.0)
    with pytest.raises(bn.InputError, match="even number from 16"):
        bn.kernels.Activation("tanh", terms=17)
    with pytest.raises(bn.InputError, match="closed form"):
        bn.kernels.Activation("relu", terms=64)
    with pytest.raises(bn.InputError, match="name or a function"):
        bn.kernels.Activation(3)
