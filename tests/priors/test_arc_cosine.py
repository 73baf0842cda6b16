"""Arc-cosine kernels against wide networks of one layer, and what makes them covariances."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate

import bayesnet as bn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 3))
ACTIVATIONS = {
    0: lambda t: 1.0 * (t > 0),
    1: lambda t: np.maximum(t, 0),
    2: lambda t: np.maximum(t, 0) ** 2,
}


@pytest.mark.parametrize("order", [0, 1, 2])
def test_equals_a_wide_random_layer(order):
    lengthscale, bias = np.array([0.5, 1.0, 2.0]), 0.7
    process = bn.GaussianProcess(f"arccosine{order}", lengthscale, 1.5, bias=bias)
    w = RNG.normal(size=(200_000, 3)) / lengthscale
    b = np.sqrt(bias) * RNG.normal(size=200_000)
    hidden = ACTIVATIONS[order](X @ w.T + b)
    products = 3.0 * hidden[:, None, :] * hidden[None, :, :]  # 1.5 times the 2 of Cho & Saul
    error = products.std(-1) / np.sqrt(products.shape[-1])
    z = (np.asarray(process.kernel(X, X), float) - products.mean(-1)) / error
    assert np.abs(z).max() < 5


@pytest.mark.parametrize("order", [0, 1, 2])
def test_equals_the_integral_over_directions(order):
    # In the plane of two points the definition is an integral over the angle (Cho & Saul, app. A).
    u, v = np.array([1.0, 0.0]), 1.3 * np.array([np.cos(2.1), np.sin(2.1)])

    def integrand(angle):
        direction = np.array([np.cos(angle), np.sin(angle)])
        a, b = direction @ u, direction @ v
        return (a > 0) * (b > 0) * (a * b) ** order

    moments = {0: 1.0, 1: 2.0, 2: 8.0}  # E r^(2 order) of a planar normal
    value = integrate.quad(
        integrand, -np.pi, np.pi, points=[-np.pi / 2, 2.1 - np.pi / 2, np.pi / 2]
    )[0]
    expected = 2 * moments[order] * value / (2 * np.pi)
    process = bn.GaussianProcess(f"arccosine{order}", bias=1e-12)
    np.testing.assert_allclose(process.kernel(u[None], v[None])[0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize(("order", "factor"), [(0, 1.0), (1, 1.0), (2, 3.0)])
def test_diagonal_and_draws(order, factor):
    process = bn.GaussianProcess(f"arccosine{order}", 1.0, bias=2.0)
    norm = (X**2).sum(1) + 2.0
    np.testing.assert_allclose(np.diag(process.kernel(X, X)), factor * norm**order, rtol=1e-5)
    many = RNG.normal(size=(60, 2))
    assert np.isfinite(process.sample(0, many, 20)).all()  # positive definite
    opposite = np.array([[1e3], [-1e3]])
    assert np.isfinite(process.kernel(opposite, opposite)).all()


def test_columns():
    on_second = bn.GaussianProcess("rbf", 0.5, columns=[1])
    alone = bn.GaussianProcess("rbf", 0.5)
    np.testing.assert_allclose(
        on_second.kernel(X, X), alone.kernel(X[:, 1:2], X[:, 1:2]), rtol=1e-6
    )
    with pytest.raises(bn.InputError, match="columns"):
        on_second.kernel(X[:, :1], X[:, :1])
    for bad in ([], [-1], [0, 0], [0.5], "a"):
        with pytest.raises(bn.InputError, match="columns must be"):
            bn.GaussianProcess("rbf", columns=bad)
