"""LeNet-5 and PreResNet-20 against torch, and as priors of images."""

from __future__ import annotations

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

import bayesnet as bn
from bayesnet.networks import NORMALIZATIONS
from bayesnet.networks.conv import average_pool, convolve

torch = pytest.importorskip("torch")
F = torch.nn.functional

DIGITS = load_digits().data
DIGITS = ((DIGITS - DIGITS.mean()) / DIGITS.std()).astype(np.float32)


def count(net, in_dim, out_dim):
    return sum(int(np.prod(s.shape)) for s in jax.tree.leaves(net.param_shapes(in_dim, out_dim)))


def tensor(a):
    return torch.tensor(np.asarray(a, np.float64))


def images(x, shape):
    """Rows as torch's images (n, c, h, w)."""
    return tensor(x).reshape(-1, *shape).permute(0, 3, 1, 2)


def kernel(layer, factor=1.0):
    """Weights (side, side, c, o) as torch's (o, c, side, side)."""
    return tensor(layer["w"]).permute(3, 2, 0, 1) * factor


def draw(net, in_dim, out_dim, key=0):
    """Parameters of the base law: biases and gains are not 0 and 1."""
    prior = bn.NetworkPrior(net, in_dim=in_dim, out_dim=out_dim)
    return prior.law.decode(jax.random.normal(jax.random.key(key), (prior.latent_size,)))


@pytest.mark.parametrize(
    ("side", "padding", "stride"), [(5, 2, 1), (5, 0, 1), (3, 1, 2), (1, 0, 2)]
)
def test_convolution_is_that_of_torch(side, padding, stride):
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (3, 9, 8, 2))
    w = jax.random.normal(keys[1], (side, side, 2, 4))
    got = convolve(x, w, padding, stride)
    expected = F.conv2d(tensor(x).permute(0, 3, 1, 2), kernel({"w": w}), None, stride, padding)
    np.testing.assert_allclose(got, expected.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5)
    pooled = F.avg_pool2d(tensor(x).permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    np.testing.assert_allclose(average_pool(x), pooled, rtol=1e-5, atol=1e-6)


# Padding of the second convolution as torch would write the network for these images.
LENETS = {(8, 8, 1): (2, 2), (28, 28, 1): (2, 0), (32, 33, 3): (0, 0), (12, 9, 2): (2, 2)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "parameterization"),
    [(shape, "ntk") for shape in LENETS] + [((8, 8, 1), "standard")],
)
def test_lenet_is_that_of_torch(shape, parameterization):
    net = bn.LeNet5(shape, parameterization=parameterization)
    d = int(np.prod(shape))
    params = draw(net, d, 3)
    x = jax.random.normal(jax.random.key(1), (4, d))

    def factor(layer):
        return np.prod(layer["w"].shape[:-1]) ** -0.5 if parameterization == "ntk" else 1.0

    h = images(x, shape)
    for layer, padding in zip(params[:2], LENETS[shape], strict=True):
        h = F.conv2d(h, kernel(layer, factor(layer)), tensor(layer["b"]), padding=padding)
        h = F.avg_pool2d(torch.tanh(h), 2)
    h = h.permute(0, 2, 3, 1).reshape(4, -1)
    for i, layer in enumerate(params[2:]):
        h = h @ tensor(layer["w"]) * factor(layer) + tensor(layer["b"])
        h = torch.tanh(h) if i < 2 else h
    np.testing.assert_allclose(jax.jit(net.apply)(params, x), h, rtol=1e-3, atol=1e-4)


def torch_preresnet(params, x, shape, normalization, ntk):
    def norm(h, p):
        if normalization == "layer":
            h = F.group_norm(h, 1)
        else:
            h = h / torch.sqrt((h**2).mean((2, 3), keepdim=True) + 1e-5)
        return torch.relu(h * tensor(p["gain"])[:, None, None] + tensor(p["bias"])[:, None, None])

    def conv(h, layer, stride=1, branch=1.0):
        fan_in = np.prod(layer["w"].shape[:-1])
        w = kernel(layer, fan_in**-0.5 * branch if ntk else 1.0)
        return F.conv2d(h, w, stride=stride, padding=w.shape[-1] // 2)

    h = conv(images(x, shape), params["stem"])
    for i, stage in enumerate(params["stages"]):
        for j, block in enumerate(stage):
            stride = 2 if i > 0 and j == 0 else 1
            a = norm(h, block["norm1"])
            skip = conv(a, block["shortcut"], stride) if stride == 2 else h
            a = norm(conv(a, block["conv1"], stride), block["norm2"])
            h = skip + conv(a, block["conv2"], branch=1 / 3)
    h = norm(h, params["head"]["norm"]).mean((2, 3))
    linear = params["head"]["linear"]
    factor = len(linear["w"]) ** -0.5 if ntk else 1.0
    return h @ tensor(linear["w"]) * factor + tensor(linear["b"])


@pytest.mark.parametrize(
    ("normalization", "parameterization"),
    [("layer", "ntk"), pytest.param("filter_response", "standard", marks=pytest.mark.slow)],
)
def test_preresnet_is_that_of_torch(normalization, parameterization):
    shape = (7, 8, 2)
    net = bn.PreResNet20(shape, 4, parameterization=parameterization, normalization=normalization)
    params = draw(net, 112, 3)
    x = jax.random.normal(jax.random.key(1), (4, 112))
    expected = torch_preresnet(params, x, shape, normalization, parameterization == "ntk")
    got = jax.jit(net.apply)(params, x)
    np.testing.assert_allclose(got, expected, rtol=2e-3, atol=5e-4)


def test_parameters_are_as_many_as_in_the_papers():
    assert count(bn.LeNet5((28, 28)), 784, 10) == 61_706
    assert count(bn.LeNet5((32, 32, 1)), 1024, 10) == 61_706
    # 20 layers with 1 x 1 shortcuts; the paper says 0.27 million.
    assert count(bn.PreResNet20((32, 32, 3)), 3072, 10) == 272_282


# Programs of PreResNet20 take seconds to compile; what is shared code is quick with LeNet-5.
BOTH = ["lenet", pytest.param("preresnet", marks=pytest.mark.slow)]
NETWORKS = {
    "lenet": lambda p: bn.LeNet5((8, 8), parameterization=p),
    "preresnet": lambda p: bn.PreResNet20((8, 8), 2, "swish", p),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_both_parameterizations_are_one_law_and_one_start(name):
    x = jnp.asarray(DIGITS[:5])
    values, starts = [], []
    for p in ("ntk", "standard"):
        net = NETWORKS[name](p)
        prior = bn.NetworkPrior(net, in_dim=64, out_dim=3)
        z = jax.random.normal(jax.random.key(0), (prior.latent_size,))
        apply = jax.jit(net.apply)
        values.append(apply(prior.law.decode(z), x))
        starts.append(apply(net.init(jax.random.key(1), 64, 3), x))
    np.testing.assert_allclose(values[0], values[1], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(starts[0], starts[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", BOTH)
def test_gradients_are_finite_differences_in_float64(name):
    net = NETWORKS[name]("ntk")
    with jax.enable_x64(True):
        prior = bn.NetworkPrior(net, in_dim=64, out_dim=2)
        rng = np.random.default_rng(0)
        z, way = jnp.asarray(rng.standard_normal((2, prior.latent_size)))
        x = jnp.asarray(rng.standard_normal((2, prior.in_dim)))
        readout = jnp.asarray(rng.standard_normal((2, 2)))
        value = jax.jit(lambda z: jnp.sum(readout * jnp.tanh(prior.apply(z, x))))
        slope = float(jax.jit(jax.grad(value))(z) @ way)
        h = 1e-6
        numeric = float(value(z + h * way) - value(z - h * way)) / (2 * h)
    assert abs(slope) > 1e-4
    assert slope == pytest.approx(numeric, rel=1e-5, abs=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("normalization", sorted(NORMALIZATIONS))
def test_outputs_at_an_image_do_not_depend_on_the_others(normalization):
    net = bn.PreResNet20((8, 8), 4, normalization=normalization)
    params = draw(net, 64, 2)
    together = net.apply(params, jnp.asarray(DIGITS[:6]))
    alone = net.apply(params, jnp.asarray(DIGITS[2:3]))
    np.testing.assert_allclose(together[2:3], alone, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_preresnet_at_8x8_has_finite_functions_and_gradients():
    """At its full width, and for images without any contrast."""
    prior = bn.NetworkPrior(bn.PreResNet20((8, 8)), in_dim=64, out_dim=10)
    x = jnp.asarray(np.vstack([DIGITS[:2], np.zeros((1, 64)), np.full((1, 64), 3.0)]), jnp.float32)
    z = 2.0 * jax.random.normal(jax.random.key(0), (prior.latent_size,))
    value, slope = jax.jit(jax.value_and_grad(lambda z: jnp.sum(prior.apply(z, x) ** 2)))(z)
    assert np.isfinite(float(value))
    assert np.isfinite(np.asarray(slope)).all()
    assert float(jnp.mean(slope != 0)) > 0.5  # units that are off for all images have none


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_prior_functions_are_of_order_one(name):
    prior = bn.NetworkPrior(NETWORKS[name]("ntk"), in_dim=64, out_dim=10)
    values = np.asarray(prior.sample(0, DIGITS[:8], 100))
    assert 0.5 < values.std() < 3.0


@pytest.mark.slow
def test_matching_lenet_to_a_process_a_logit():
    """An independent GP a class, with images as points: the held-out distance falls."""
    prior = bn.NetworkPrior(bn.LeNet5((8, 8)), in_dim=64, out_dim=3)
    target = bn.GaussianProcess("rbf", lengthscale=8.0, out_dim=3)
    match = bn.match_prior(prior, target, inputs=DIGITS, steps=40, num_functions=16, num_points=12)
    assert match.distance_after < 0.3 * match.distance_before


@pytest.mark.slow
def test_matching_preresnet_by_blocks():
    net = bn.PreResNet20((8, 8), 4)
    prior = bn.NetworkPrior(net, bn.weights.Gaussian(per="block"), in_dim=64, out_dim=3)
    target = bn.GaussianProcess("rbf", lengthscale=8.0, out_dim=3)
    match = bn.match_prior(prior, target, inputs=DIGITS, steps=60, num_functions=16, num_points=12)
    assert match.distance_after < 0.8 * match.distance_before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lenet", "preresnet"])
def test_28x28(name):
    """Finite functions and gradients, and a match that lowers the distance."""
    net = bn.LeNet5((28, 28)) if name == "lenet" else bn.PreResNet20((28, 28), 4)
    small = np.kron(DIGITS.reshape(-1, 8, 8)[:200], np.ones((4, 4)))[:, 2:30, 2:30]
    rows = small.reshape(200, -1).astype(np.float32)
    prior = bn.NetworkPrior(net, in_dim=784, out_dim=10)
    z = jax.random.normal(jax.random.key(0), (prior.latent_size,))
    slope = jax.jit(jax.grad(lambda z: jnp.sum(prior.apply(z, jnp.asarray(rows[:4])) ** 2)))(z)
    assert np.isfinite(np.asarray(slope)).all()
    target = bn.GaussianProcess("rbf", lengthscale=28.0, out_dim=10)
    match = bn.match_prior(
        prior, target, inputs=rows, steps=60, num_functions=8, num_points=9, learning_rate=0.1
    )
    assert match.distance_after < 0.85 * match.distance_before


@pytest.mark.parametrize("name", BOTH)
def test_networks_are_values(name, tmp_path):
    net = NETWORKS[name]("ntk")
    assert eval(repr(net), {type(net).__name__: type(net)}) == net
    assert net == NETWORKS[name]("ntk") != NETWORKS[name]("standard")
    assert hash(net) == hash(NETWORKS[name]("ntk"))
    prior = bn.NetworkPrior(net, in_dim=64, out_dim=2)
    x = jnp.asarray(DIGITS[:2])
    expected = prior.sample(0, x, 2)
    from bayesnet.posterior.saving import load, save

    save(prior, tmp_path / "prior")
    for again in (
        pickle.loads(pickle.dumps(prior)),
        copy.deepcopy(prior),
        load(tmp_path / "prior"),
    ):
        assert again.network == net
        np.testing.assert_array_equal(again.sample(0, x, 2), expected)


@pytest.mark.slow
def test_a_posterior_of_a_convolutional_network_is_fitted_saved_and_predicts(tmp_path):
    labels = load_digits().target[:30] % 2
    prior = bn.NetworkPrior(bn.LeNet5((4, 4)), in_dim=16, out_dim=2, units="data")
    rows = DIGITS[:30].reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(30, 16)
    post = bn.fit(
        prior,
        rows,
        labels,
        likelihood=bn.CategoricalLikelihood(),
        inference=bn.DeepEnsemble(members=2, steps=30),
        seed=0,
    )
    post.save(tmp_path / "post")
    again = bn.load(tmp_path / "post").predict(rows)
    np.testing.assert_allclose(again.mean, post.predict(rows).mean, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(again.mean).sum(-1), 1.0, rtol=1e-5)


WRONG = {
    "another number of columns": (
        lambda: bn.NetworkPrior(bn.LeNet5((8, 8)), in_dim=63),
        "8 . 8 . 1 = 64 columns, but the inputs have 63",
    ),
    "columns of a PreResNet": (
        lambda: bn.NetworkPrior(bn.PreResNet20((8, 8, 3)), in_dim=64),
        "192 columns, but the inputs have 64",
    ),
    "a small image": (lambda: bn.LeNet5((3, 9)), "too small.*at least 4"),
    "a small image for filter response": (
        lambda: bn.PreResNet20((4, 4), normalization="filter_response"),
        "too small.*at least 5",
    ),
    "a number": (lambda: bn.LeNet5(64), "image_shape must be"),
    "four numbers": (lambda: bn.LeNet5((1, 8, 8, 1)), "image_shape must be"),
    "half a pixel": (lambda: bn.LeNet5((8.5, 8)), "whole number"),
    "no channel": (lambda: bn.LeNet5((8, 8, 0)), "at least 1, got 0"),
    "no width": (lambda: bn.PreResNet20((8, 8), 0), "width must be"),
    "batch norm": (lambda: bn.PreResNet20((8, 8), normalization="batch"), "Unknown normalization"),
    "an activation": (lambda: bn.LeNet5((8, 8), "tahn"), "Did you mean 'tanh'"),
    "a parameterization": (
        lambda: bn.PreResNet20((8, 8), parameterization="nkt"),
        "Did you mean 'ntk'",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_refused_in_words(case):
    make, words = WRONG[case]
    with pytest.raises(bn.InputError, match=words):
        make()
