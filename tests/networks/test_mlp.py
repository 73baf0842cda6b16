"""The multilayer perceptron against NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf, expit

import bayesnet as bn
from bayesnet.networks import ACTIVATIONS

NUMPY = {
    "tanh": np.tanh,
    "relu": lambda a: np.maximum(a, 0),
    "leaky_relu": lambda a: np.where(a > 0, a, 0.01 * a),
    "elu": lambda a: np.where(a > 0, a, np.expm1(np.minimum(a, 0))),
    "gelu": lambda a: 0.5 * a * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3))),
    "silu": lambda a: a * expit(a),
    "swish": lambda a: a * expit(a),
    "softplus": lambda a: np.logaddexp(a, 0),
    "sigmoid": expit,
    "erf": erf,
    "sin": np.sin,
    "cos": np.cos,
    "abs": np.abs,
    "identity": lambda a: a,
}


def test_every_activation_has_an_oracle():
    assert set(NUMPY) == set(ACTIVATIONS)


@pytest.mark.parametrize("activation", sorted(NUMPY))
@pytest.mark.parametrize("parameterization", ["ntk", "standard"])
def test_apply_equals_numpy(activation, parameterization):
    net = bn.MLP((5, 4), activation, parameterization)
    params = net.init(jax.random.key(0), 3, 2)
    x = np.asarray(jax.random.normal(jax.random.key(1), (7, 3)), float)
    h = x
    for i, layer in enumerate(params):
        w, b = np.asarray(layer["w"], float), np.asarray(layer["b"], float)
        h = h @ w / (np.sqrt(len(w)) if parameterization == "ntk" else 1) + b
        if i < 2:
            h = NUMPY[activation](h)
    out = net.apply(params, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(out, h, rtol=1e-4, atol=1e-5)


def test_no_hidden_layer_is_a_linear_model():
    net = bn.MLP(())
    params = net.init(jax.random.key(0), 3, 2)
    assert [p["w"].shape for p in params] == [(3, 2)]


def test_a_single_width_and_lists_are_accepted_and_hash_equal():
    assert bn.MLP(50) == bn.MLP((50,)) == bn.MLP([50])
    assert hash(bn.MLP([50])) == hash(bn.MLP((50,)))


@pytest.mark.parametrize("hidden", [(0,), (-3,), (2.5,)])
def test_widths_must_be_positive_integers(hidden):
    with pytest.raises(bn.InputError, match="positive integers"):
        bn.MLP(hidden)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(bn.InputError, match="Did you mean 'tanh'"):
        bn.MLP((5,), "Tanhh")
    with pytest.raises(bn.InputError, match="Did you mean 'standard'"):
        bn.MLP((5,), parameterization="standrd")
    with pytest.raises(bn.InputError, match="from_functions"):
        bn.MLP((5,), jnp.tanh)
