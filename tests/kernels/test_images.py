"""Kernels of convolutional networks: plain loops over pixels, and finite networks."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import bayesnet as bn
from bayesnet.kernels import (
    NNGP,
    NTK,
    Activation,
    AveragePool,
    Conv,
    Dense,
    Flatten,
    GlobalAveragePool,
    Image,
    LayerNorm,
    Residual,
    Serial,
)

H, W, C = 5, 4, 2
X = np.random.default_rng(0).normal(size=(3, H * W * C))
RELU = Activation("relu")
TAILS = {
    "flatten": (Flatten(),),
    "global": (GlobalAveragePool(),),
    "pooled": (AveragePool(2), Flatten()),
}


def network(tail, padding="same", stride=1, activation=RELU):
    return Serial(
        Image(H, W, C),
        Conv(3, padding, stride, 1.3, 0.2),
        activation,
        *TAILS[tail],
        Dense(1.1, 0.5),
    )


def pixels_after_conv(image1, image2, zeros, stride, weight, bias):
    """Moments of all pairs of output pixels, {(p, q): value}, by loops over the filter."""
    padded = [np.pad(a, ((zeros, zeros), (zeros, zeros), (0, 0))) for a in (image1, image2)]
    rows = (H + 2 * zeros - 3) // stride + 1
    columns = (W + 2 * zeros - 3) // stride + 1
    places = [(i, j) for i in range(rows) for j in range(columns)]

    def window(a, place):
        i, j = (stride * s for s in place)
        return a[i : i + 3, j : j + 3].ravel()

    moments = {
        (p, q): weight * window(padded[0], p) @ window(padded[1], q) / (9 * C) + bias
        for p in places
        for q in places
    }
    return moments, (rows, columns)


def relu_dual(k, v1, v2):
    angle = np.arccos(np.clip(k / np.sqrt(v1 * v2), -1, 1))
    value = np.sqrt(v1 * v2) * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
    return value, (np.pi - angle) / (2 * np.pi)


def by_loops(tail, x1, x2, zeros, stride):
    """NNGP and NTK of `network` for one pair of images."""
    a, b = (x.reshape(H, W, C) for x in (x1, x2))
    cross, (rows, columns) = pixels_after_conv(a, b, zeros, stride, 1.69, 0.04)
    left, _ = pixels_after_conv(a, a, zeros, stride, 1.69, 0.04)
    right, _ = pixels_after_conv(b, b, zeros, stride, 1.69, 0.04)
    after, tangent = {}, {}
    for (p, q), k in cross.items():
        value, slope = relu_dual(k, left[p, p], right[q, q])
        after[p, q], tangent[p, q] = value, slope * k  # the tangent of one layer is its moments
    places = [(i, j) for i in range(rows) for j in range(columns)]

    def pool(m):
        if tail == "flatten":
            return np.mean([m[p, p] for p in places])
        if tail == "global":
            return np.mean([m[p, q] for p in places for q in places])
        cells = []
        for i in range(rows // 2):
            for j in range(columns // 2):
                cell = [(2 * i + s, 2 * j + t) for s in (0, 1) for t in (0, 1)]
                cells.append(np.mean([m[p, q] for p in cell for q in cell]))
        return np.mean(cells)

    nngp = 1.21 * pool(after) + 0.25
    return nngp, 1.21 * pool(tangent) + nngp


FAST = [("flatten", "valid", 1), ("global", "same", 1), ("pooled", 2, 2)]
CASES = [(tail, *how) for tail in sorted(TAILS) for how in [("same", 1), ("valid", 1), (2, 2)]]


@pytest.mark.parametrize(
    ("tail", "padding", "stride"),
    [pytest.param(*c, marks=[] if c in FAST else pytest.mark.slow) for c in CASES],
)
def test_convolutions_equal_loops_over_pixels(tail, padding, stride):
    zeros = {"same": 1, "valid": 0}.get(padding, padding)
    kernel = NTK(network(tail, padding, stride))
    with jax.enable_x64(True):
        nngp, ntk = (np.asarray(a) for a in kernel.both(X, X[:2]))
        diagonal = np.asarray(kernel.diagonal(X))
    for i in range(3):
        for j in range(2):
            expected = by_loops(tail, X[i], X[j], zeros, stride)
            np.testing.assert_allclose((nngp[i, j], ntk[i, j]), expected, rtol=1e-6)
    np.testing.assert_allclose(diagonal[:2], np.diag(ntk), rtol=1e-12)


def test_without_pooling_pixels_are_followed_alone():
    """Flattening needs the same pixels only; following all pairs of pixels gives the same."""
    flat = network("flatten")
    with jax.enable_x64(True):
        alone = NNGP(flat).kernel(X, X)
        pooled = Serial(*flat.layers[:3], AveragePool(1), Flatten(), flat.layers[-1])
        np.testing.assert_allclose(NNGP(pooled).kernel(X, X), alone, rtol=1e-12)


@pytest.mark.slow
def test_deeper_networks_have_consistent_diagonals():
    block = Residual(LayerNorm(), Activation("erf"), Conv(3), scale=0.5)
    down = Residual(
        LayerNorm(), RELU, Conv(3, stride=2), shortcut=Serial(Conv(1, "valid", 2, 1.0, 0.0))
    )
    for tail in TAILS.values():
        layers = Serial(Image(H, W, C), Conv(), block, down, RELU, *tail, Dense(), RELU, Dense())
        kernel = NTK(layers)
        with jax.enable_x64(True):
            nngp, ntk = kernel.both(X, X)
            np.testing.assert_allclose(np.diag(ntk), kernel.diagonal(X), rtol=1e-12)
            assert np.linalg.eigvalsh(np.asarray(nngp))[0] > 0


@pytest.mark.slow
@pytest.mark.parametrize("tail", sorted(TAILS))
def test_wide_convolutional_networks_tend_to_the_kernels(tail):
    block = Residual(LayerNorm(), Activation("tanh"), Conv(3, 1, 1, 1.2, 0.1), scale=0.7)
    layers = Serial(
        Image(H, W, C), Conv(3, "same", 1, 1.3, 0.2), block, RELU, *TAILS[tail], Dense(1.1, 0.5)
    )
    kernel = NTK(layers)
    nngp, ntk = (np.asarray(a, float) for a in kernel.both(X, X))
    prior = kernel.finite(96, H * W * C)
    zs = jax.random.normal(jax.random.key(0), (150, prior.latent_size))
    for fn, truth in ((bn.kernels.empirical_nngp, nngp), (bn.kernels.empirical_ntk, ntk)):
        draws = np.stack([np.asarray(fn(prior, z, X, X), float) for z in zs])
        error = draws.std(0) / len(draws) ** 0.5
        assert (np.abs(draws.mean(0) - truth) < 5 * error + 0.03 * truth.max()).all()


@pytest.mark.slow
def test_lenet_has_a_limit():
    """LeNet-5's 6 and 16 maps are few: its description is compared at 64."""
    x = np.random.default_rng(1).normal(size=(3, 64))
    limit = bn.NetworkPrior(bn.LeNet5((8, 8), "relu"), in_dim=64).infinite_width()
    prior = limit.finite(64, 64)
    f = np.concatenate([np.asarray(prior.sample(i, x, 200)) for i in range(10)])[..., 0]
    products = f[:, :, None] * f[:, None, :]
    truth = np.asarray(limit.kernel(x, x))
    error = products.std(0) / len(f) ** 0.5
    assert (np.abs(products.mean(0) - truth) < 5 * error + 0.03 * truth.max()).all()


@pytest.mark.slow
def test_expansions_are_watched_pixel_by_pixel():
    sharp = network("global", activation=Activation("tanh"))
    kernel = NTK(sharp).with_variances(weight=(400.0, 1.0))
    assert kernel.expansion_error(X).max() > 1e-2
    assert kernel.expansion_error(1e-3 * X).max() < 1e-6


def test_a_serial_inside_is_its_layers():
    flat = network("flatten")
    assert Serial(Serial(*flat.layers[:2]), *flat.layers[2:]) == flat


def test_bad_images_are_refused():
    with pytest.raises(bn.InputError, match=r"5 \* 4 \* 2 = 40 columns, but x1 has 39"):
        NNGP(network("flatten")).kernel(X[:, 1:], X)
    with pytest.raises(bn.InputError, match=r"40 columns, but the input has 7"):
        NNGP(network("flatten")).finite(3, 7)
    with pytest.raises(bn.InputError, match="put Flatten"):
        NNGP(Serial(Image(4, 4), Conv(), Dense()))
    with pytest.raises(bn.InputError, match="start the network with Image"):
        NNGP(Serial(Conv(), Flatten(), Dense()))
    with pytest.raises(bn.InputError, match="do not fit maps of 2 x 2"):
        NNGP(Serial(Image(2, 2), Conv(3, "valid"), Flatten(), Dense()))
    with pytest.raises(bn.InputError, match="sides of a Residual differ"):
        NNGP(Serial(Image(4, 4), Conv(), Residual(RELU, Conv(stride=2)), Flatten(), Dense()))
    with pytest.raises(bn.InputError, match="smaller than the pool"):
        NNGP(Serial(Image(4, 4), Conv(), RELU, AveragePool(5), Flatten(), Dense()))
    with pytest.raises(bn.InputError, match="before a Residual"):
        Residual(Image(4, 4), Conv())
    with pytest.raises(bn.InputError, match="before a Residual"):
        Residual(Conv(), shortcut=Serial(Image(4, 4), Conv()))
    with pytest.raises(bn.InputError, match="first layer"):
        NNGP(Serial(Dense(), Image(4, 4), Dense()))
    with pytest.raises(bn.InputError, match="vectors already"):
        NNGP(Serial(Dense(), Flatten(), Dense()))
    with pytest.raises(bn.InputError, match="odd filter size"):
        Conv(2)
    with pytest.raises(bn.InputError, match="padding must be"):
        Conv(3, "full")
    with pytest.raises(bn.InputError, match="whole number"):
        Image(0, 4)
    with pytest.raises(bn.InputError, match="above 0"):
        Conv(weight_std=0.0)
