"""What the transformer must be blind to, whatever its weights are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesnet as bn
from bayesnet.pfn.transformer import Transformer, pad_columns

N, Q, D = 7, 5, 2


@pytest.fixture(scope="module")
def network():
    return Transformer.create(
        jax.random.key(0), max_dim=4, bars=12, width=16, depth=3, heads=2, hidden=24
    )


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    x, used = pad_columns(rng.normal(size=(N, D)).astype(np.float32), 4)
    queries, _ = pad_columns(rng.normal(size=(Q, D)).astype(np.float32), 4)
    y = rng.normal(size=N).astype(np.float32)
    return tuple(map(jnp.asarray, (x, y, np.ones(N, bool), queries, used)))


def assert_same(a, b):
    for left, right in zip(a, b, strict=True):
        np.testing.assert_allclose(left, right, atol=2e-5)


def test_the_order_of_the_context_does_not_matter(network, table):
    x, y, mask, queries, used = table
    order = np.random.default_rng(1).permutation(N)
    assert_same(network(*table), network(x[order], y[order], mask, queries, used))


def test_what_the_context_holds_does_matter(network, table):
    x, y, mask, queries, used = table
    base, _ = network(*table)
    for changed in (
        (x, y.at[3].add(1.0), mask, queries, used),
        (x.at[3, 1].add(1.0), y, mask, queries, used),
        (x, y, mask.at[3].set(False), queries, used),
        (x, y, mask, queries, used.at[1].set(0.0)),
    ):
        assert np.abs(network(*changed)[0] - base).max() > 1e-3


def test_queries_do_not_influence_each_other(network, table):
    x, y, mask, queries, used = table
    together = network(*table)
    alone = [network(x, y, mask, queries[i : i + 1], used) for i in range(Q)]
    for k in range(2):
        np.testing.assert_allclose(together[k], np.concatenate([a[k] for a in alone]), atol=2e-5)


def test_a_cached_context_gives_the_same_as_one_pass(network, table):
    """Against all tokens in one sequence, with the mask of the paper in each layer."""
    x, y, _, queries, used = table
    context = network._inputs(x, used) + y[:, None] * network.embed_y + network.context_token
    null = network.null_token + used @ network.embed_used
    tokens = jnp.concatenate(
        [null[None], context, network._inputs(queries, used) + network.query_token]
    )
    visible = jnp.arange(len(tokens)) < N + 1
    for layer in network.layers:
        keys, values = layer.keys_values(tokens)
        tokens = layer.apply(tokens, (keys, values), visible)
    h = network.norm * tokens / jnp.sqrt(jnp.mean(tokens**2, axis=-1, keepdims=True) + 1e-6)
    expected = (h @ network.head_y + network.bias_y)[N + 1 :]
    np.testing.assert_allclose(network(*table)[0], expected, atol=2e-5)


def test_padded_rows_and_columns_do_not_matter(network, table):
    x, y, mask, queries, used = table
    more_x = jnp.concatenate([x, 100 * jnp.ones((3, 4))])
    more_y = jnp.concatenate([y, 50 * jnp.ones(3)])
    more = jnp.concatenate([mask, jnp.zeros(3, bool)])
    assert_same(network(*table), network(more_x, more_y, more, queries, used))
    other = x.at[:, D:].set(3.0)
    assert_same(network(*table), network(other, y, mask, queries, used))


def test_an_empty_context_gives_the_prior(network, table):
    x, y, mask, queries, used = table
    empty = network(x[:0], y[:0], mask[:0], queries, used)
    assert np.isfinite(empty[0]).all()
    assert_same(empty, network(x, y, ~mask, queries, used))


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(bn.InputError, match="multiple of heads"):
        Transformer.create(jax.random.key(0), max_dim=2, bars=10, width=10, heads=4)
    with pytest.raises(bn.InputError, match="at least 1"):
        Transformer.create(jax.random.key(0), max_dim=0, bars=10)
