"""Quantile maps of a normal latent against scipy in float64, far into the tails, in float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from bayesnet.priors.weights import quantiles

# Finely, and on both sides of z = 0, where formulas change.
Z = np.sort(np.concatenate([np.linspace(-8, 8, 801), [-1.0, -1e-3, 1e-6, 1.0]])).astype(np.float32)
LOWER, UPPER = (special.ndtr(s * Z.astype(float)) for s in (1, -1))


def by_tails(law):
    """The quantile of a scipy law at Phi(Z), from the nearer tail."""
    return np.where(Z < 0, law.ppf(np.minimum(LOWER, 0.5)), law.isf(np.minimum(UPPER, 0.5)))


def student_t(df):
    return -np.sign(Z) * special.stdtrit(df, np.minimum(LOWER, UPPER))


LAWS = {
    "laplace": (quantiles.laplace_quantile, stats.laplace),
    "half-Cauchy": (lambda z: jnp.exp(quantiles.log_half_cauchy_quantile(z)), stats.halfcauchy),
}
FAMILIES = {
    "t": (quantiles.student_t_quantile, student_t, stats.t),
    "gamma": (
        lambda z, a: jnp.exp(quantiles.log_gamma_quantile(z, a)),
        lambda a: by_tails(stats.gamma(a)),
        stats.gamma,
    ),
}
SHAPES = {"t": (1.0, 1.3, 2.0, 4.0, 30.0, 1e5), "gamma": (0.5, 0.7, 1.0, 3.0, 50.0, 1e4)}


def check(values, slopes, exact, law):
    """Values are the law's quantiles, slopes phi(z) / density, in |z| <= 8, also at 0."""
    np.testing.assert_allclose(np.asarray(values, float), exact, rtol=3e-5, atol=1e-7)
    expected = np.exp(stats.norm.logpdf(Z.astype(float)) - law.logpdf(exact))
    np.testing.assert_allclose(np.asarray(slopes, float), expected, rtol=1e-3)


def with_slopes(curve):
    return jax.jit(jax.vmap(jax.value_and_grad(curve), in_axes=(0, None)))


@pytest.mark.parametrize("name", LAWS)
def test_quantiles_agree_with_scipy_over_eight_deviations(name):
    ours, law = LAWS[name]
    check(*with_slopes(lambda z, _: ours(z))(Z, 0.0), by_tails(law()), law())


@pytest.mark.parametrize("name", FAMILIES)
def test_quantiles_with_any_shape_agree_with_scipy(name):
    ours, exact, law = FAMILIES[name]
    program = with_slopes(ours)  # the shape is an argument
    for shape in SHAPES[name]:
        check(*program(Z, jnp.float32(shape)), exact(shape), law(shape))


@pytest.mark.parametrize(
    ("name", "shape"), [("t", 1.0), ("t", 4.0), ("gamma", 0.5), ("gamma", 3.0)]
)
def test_quantiles_with_a_known_shape_agree_with_scipy(name, shape):
    ours, exact, law = FAMILIES[name]
    check(*with_slopes(lambda z, _: ours(z, shape))(Z, 0.0), exact(shape), law(shape))


@pytest.mark.parametrize(
    "curve",
    [
        quantiles.laplace_quantile,
        quantiles.log_half_cauchy_quantile,
        lambda z: quantiles.student_t_curve(z, 1.0),
        lambda z: quantiles.log_gamma_quantile(z, 0.5),
    ],
)
def test_curves_go_on_rising_beyond_what_they_cover(curve):
    z = jnp.asarray([-40.0, -13.0, -11.0, -9.0, -8.4, 8.4, 9.0, 11.0, 13.0, 40.0])
    values, slopes = jax.vmap(jax.value_and_grad(curve))(z)
    assert (np.diff(values) > 0).all()
    assert (np.asarray(slopes) > 0).all()
    assert np.isfinite(slopes).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("curve", "shape"),
    [
        (lambda z, s: jnp.arcsinh(quantiles.student_t_quantile(z, s)), 2.5),
        (lambda z, s: quantiles.log_gamma_quantile(z, s), 1.7),
    ],
)
def test_slopes_in_the_shape_agree_with_differences(curve, shape):
    with jax.enable_x64(True):
        z = jnp.asarray(np.linspace(-6, 6, 25))
        slope = jax.jacfwd(lambda s: curve(z, s))(jnp.asarray(shape))
        step = 1e-5
        numeric = (curve(z, shape + step) - curve(z, shape - step)) / (2 * step)
        np.testing.assert_allclose(slope, numeric, rtol=1e-5, atol=1e-7)


def test_a_series_is_exact_to_its_own_error_in_float64():
    with jax.enable_x64(True):
        z = jnp.asarray(Z, jnp.float64)
        for a in (0.5, 0.9, 4.0):
            got = quantiles.log_gamma_quantile(z, jnp.asarray(a))
            np.testing.assert_allclose(got, np.log(by_tails(stats.gamma(a))), atol=2e-5)
        for df in (1.0, 1.5, 6.0):
            got = jnp.arcsinh(quantiles.student_t_quantile(z, jnp.asarray(df)))
            np.testing.assert_allclose(got, np.arcsinh(student_t(df)), atol=2e-5)


def test_inverting_a_curve_finds_its_latents():
    for curve in (
        quantiles.laplace_quantile,
        lambda z: quantiles.student_t_curve(z, 3.0),
        lambda z: quantiles.log_gamma_quantile(z, 2.0),
    ):
        z = jnp.asarray(Z)
        again = jax.jit(lambda y, curve=curve: quantiles.invert(curve, y))(curve(z))
        np.testing.assert_allclose(again, z, rtol=2e-5, atol=2e-6)
