"""What the transformer must be blind to, whatever its weights are."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesnet as bn
from bayesnet.pfn.bars import Bars
from bayesnet.pfn.transformer import COMPONENTS, Transformer, mixture_logits, pad_columns

N, Q, D = 7, 5, 2
BARS = Bars(jnp.linspace(-2.0, 2.0, 11), jnp.asarray([0.6, 0.8]))


@pytest.fixture(scope="module")
def network():
    made = Transformer.create(
        jax.random.key(0), max_dim=4, bars=12, width=16, depth=2, heads=2, hidden=24
    )
    # What starts at zero must count too.
    heads = jax.random.normal(jax.random.key(1), (2, 16, 12))
    return eqx.tree_at(lambda n: (n.head_y, n.head_f), made, (heads[0], heads[1]))


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    x, used = pad_columns(rng.normal(size=(N, D)).astype(np.float32), 4)
    queries, _ = pad_columns(rng.normal(size=(Q, D)).astype(np.float32), 4)
    y = rng.normal(size=N).astype(np.float32)
    return (*map(jnp.asarray, (x, y, np.ones(N, bool), queries, used)), BARS)


def assert_same(a, b):
    for left, right in zip(a, b, strict=True):
        np.testing.assert_allclose(left, right, atol=2e-5)


def test_the_order_of_the_context_does_not_matter(network, table):
    x, y, mask, queries, used, bars = table
    order = np.random.default_rng(1).permutation(N)
    assert_same(network(*table), network(x[order], y[order], mask, queries, used, bars))


def test_what_the_context_holds_does_matter(network, table):
    x, y, mask, queries, used, bars = table
    base, _ = network(*table)
    for changed in (
        (x, y.at[3].add(1.0), mask, queries, used, bars),
        (x.at[3, 1].add(1.0), y, mask, queries, used, bars),
        (x, y, mask.at[3].set(False), queries, used, bars),
        (x, y, mask, queries, used.at[1].set(0.0), bars),
    ):
        assert np.abs(network(*changed)[0] - base).max() > 1e-3


def test_queries_do_not_influence_each_other(network, table):
    x, y, mask, queries, used, bars = table
    together = network(*table)
    alone = [network(x, y, mask, queries[i : i + 1], used, bars) for i in range(Q)]
    for k in range(2):
        np.testing.assert_allclose(together[k], np.concatenate([a[k] for a in alone]), atol=2e-5)


def test_a_cached_context_gives_the_same_as_one_pass(network, table):
    """Against all tokens in one sequence, with the mask of the paper in each layer."""
    x, y, _, queries, used, bars = table
    context = network._inputs(x, used) + y[:, None] * network.embed_y + network.context_token
    null = network.null_token + used @ network.embed_used
    asked = network._inputs(queries, used) + network.query_token
    tokens = jnp.concatenate([null[None], context, asked])
    places = jnp.concatenate([jnp.zeros((1, 4)), x, queries])
    visible = jnp.arange(len(tokens)) < N + 1
    for layer in network.layers:
        # Keys and values of queries are there, and masked.
        pair = layer.keys_values(tokens)
        tokens = layer.apply(tokens, places, pair, places[1:], visible, used)
    h = network.norm * tokens / jnp.sqrt(jnp.mean(tokens**2, axis=-1, keepdims=True) + 1e-6)
    numbers = (h @ network.mixture + network.mixture_bias).reshape(len(h), 2, 3, COMPONENTS)
    guess = mixture_logits(numbers, bars)[:, 0]
    expected = (guess + h @ network.head_y + network.bias_y)[N + 1 :]
    np.testing.assert_allclose(network(*table)[0], expected, atol=5e-5)


def test_heads_see_by_distance(network):
    """With equal keys the attention is a Gaussian kernel of the inputs, and the null token's weight is 1."""
    layer = network.layers[0]
    layer = eqx.tree_at(lambda m: (m.query, m.reach), layer, (0 * layer.query, 0 * layer.reach))
    layer = eqx.tree_at(lambda m: m.mlp_out, layer, 0 * layer.mlp_out)
    rng = np.random.default_rng(0)
    x, at = rng.normal(size=(5, 4)), rng.normal(size=(1, 4))
    used = np.array([1.0, 1.0, 0.0, 0.0])
    values = rng.normal(size=(6, 2, 8))
    out = layer.apply(jnp.zeros((1, 16)), at, (0 * values, values), x, np.ones(6, bool), used)
    expected = []
    for head, reach in enumerate((0.1, 0.5)):
        distance = (((at - x) ** 2) * used).sum(axis=1)
        weights = np.concatenate([[1.0], np.exp(-reach * distance)])
        expected.append(weights / weights.sum() @ values[:, head])
    np.testing.assert_allclose(out, np.concatenate(expected)[None] @ layer.out, atol=1e-5)


def test_a_mixture_gives_bars_their_masses():
    """A narrow and a wide Gaussian, against their exact masses; the normalisation is left open."""
    fine = Bars(jnp.linspace(-4.0, 4.0, 400), jnp.asarray([0.5, 0.5]))
    numbers = np.zeros((1, 1, 3, COMPONENTS), np.float32)
    numbers[0, 0, 0] = [0.0, 1.0, -50.0, -50.0]
    numbers[0, 0, 1] = [-0.5, 1.2, 0.0, 0.0]
    numbers[0, 0, 2] = np.log([0.05, 0.8, 1.0, 1.0])
    masses = jax.nn.softmax(mixture_logits(jnp.asarray(numbers), fine)[0, 0])
    weight = 1 / (1 + np.exp(1.0))
    exact = weight * fine.probabilities(jnp.asarray(-0.5), jnp.asarray(0.05))
    exact = exact + (1 - weight) * fine.probabilities(jnp.asarray(1.2), jnp.asarray(0.8))
    np.testing.assert_allclose(masses, exact, atol=5e-4)
    assert float(jnp.sum(exact * jnp.log(exact / masses))) < 1e-3


def test_padded_rows_and_columns_do_not_matter(network, table):
    x, y, mask, queries, used, bars = table
    more_x = jnp.concatenate([x, 100 * jnp.ones((3, 4))])
    more_y = jnp.concatenate([y, 50 * jnp.ones(3)])
    more = jnp.concatenate([mask, jnp.zeros(3, bool)])
    assert_same(network(*table), network(more_x, more_y, more, queries, used, bars))
    other = x.at[:, D:].set(3.0)
    assert_same(network(*table), network(other, y, mask, queries, used, bars))


def test_an_empty_context_gives_the_prior(network, table):
    x, y, mask, queries, used, bars = table
    empty = network(x[:0], y[:0], mask[:0], queries, used, bars)
    assert np.isfinite(empty[0]).all()
    assert_same(empty, network(x, y, ~mask, queries, used, bars))


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(bn.InputError, match="multiple of heads"):
        Transformer.create(jax.random.key(0), max_dim=2, bars=10, width=10, heads=4)
    with pytest.raises(bn.InputError, match="at least 1"):
        Transformer.create(jax.random.key(0), max_dim=0, bars=10)
