"""Device names, the float64 island, and work beside each other."""

from __future__ import annotations

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesnet as bn
from bayesnet import devices


def log_det(x, scale):
    """Ill-conditioned, so that float32 loses several digits."""
    gram = jnp.exp(-0.5 * (x[:, None] - x[None]) ** 2 / scale**2)
    factor = jnp.linalg.cholesky(gram + 1e-7 * jnp.eye(len(x), dtype=gram.dtype))
    return 2 * jnp.sum(jnp.log(jnp.diag(factor)))


X = np.linspace(0, 3, 10).astype(np.float32)
SCALE = np.float32(1.25)
ISLAND = devices.float64_island(log_det)


def exact(scale, x=X):
    x = x.astype(np.float64)
    gram = np.exp(-0.5 * (x[:, None] - x[None]) ** 2 / np.float64(scale) ** 2)
    return np.linalg.slogdet(gram + 1e-7 * np.eye(len(x)))[1]


def slope(scale):
    h = 1e-5
    return (exact(np.float64(scale) + h) - exact(np.float64(scale) - h)) / (2 * h)


def test_island_value_where_float32_is_wrong():
    plain = float(log_det(jnp.asarray(X), jnp.asarray(SCALE)))
    assert not abs(plain / exact(SCALE) - 1) < 1e-6  # wrong or NaN: the island is needed
    out = ISLAND(X, SCALE)
    assert out.dtype == jnp.float32
    assert float(out) == pytest.approx(exact(SCALE), rel=1e-6)


def test_island_inside_float64_keeps_all_digits():
    with jax.enable_x64(True):
        out = ISLAND(jnp.asarray(X, jnp.float64), jnp.asarray(SCALE, jnp.float64))
        assert out.dtype == jnp.float64
        assert float(out) == pytest.approx(exact(SCALE), rel=1e-10)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_island_gradient(wrap):
    gradient = wrap(jax.grad(ISLAND, argnums=1))(jnp.asarray(X), jnp.asarray(SCALE))
    assert gradient.dtype == jnp.float32
    assert float(gradient) == pytest.approx(slope(SCALE), rel=1e-5)


SCALES = np.array([0.8, 1.0, 1.3], np.float32)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_island_vmap_of_value_and_gradient(wrap):
    both = wrap(jax.vmap(jax.value_and_grad(ISLAND, argnums=1), in_axes=(None, 0)))
    value, gradient = both(jnp.asarray(X), jnp.asarray(SCALES))
    np.testing.assert_allclose(value, [exact(s) for s in SCALES], rtol=1e-6)
    np.testing.assert_allclose(gradient, [slope(s) for s in SCALES], rtol=1e-5)


def test_island_scan_of_value_and_gradient():
    def body(total, scale):
        value, gradient = jax.value_and_grad(ISLAND, argnums=1)(jnp.asarray(X), scale)
        return total + value, gradient

    total, gradient = jax.jit(lambda s: jax.lax.scan(body, jnp.float32(0), s))(SCALES)
    assert float(total) == pytest.approx(sum(exact(s) for s in SCALES), rel=1e-6)
    np.testing.assert_allclose(gradient, [slope(s) for s in SCALES], rtol=1e-5)


def test_gradient_through_a_program_around_the_island():
    """Float32 work before and after the island, as in a matching step."""

    def loss(t):
        return jnp.sin(ISLAND(jnp.asarray(X), jnp.exp(t)) / 50)

    t = np.log(1.1)
    value = exact(np.float32(1.1))
    expected = np.cos(value / 50) / 50 * slope(np.float32(1.1)) * 1.1
    assert float(jax.jit(jax.grad(loss))(jnp.float32(t))) == pytest.approx(expected, rel=1e-4)


def test_island_takes_integers_keys_and_trees():
    @devices.float64_island
    def fn(tree, index, key):
        noise = jax.random.normal(key, (3,), tree["a"].dtype)
        return {"value": tree["a"][index] ** 2 + noise[0], "index": index + 1}

    key = jax.random.key(0)
    tree, index = {"a": jnp.array([1.0, 2.0, 3.0])}, jnp.array(2)
    out = fn(tree, index, key)
    with jax.enable_x64(True):
        noise = float(jax.random.normal(key, (3,), jnp.float64)[0])
    assert float(out["value"]) == pytest.approx(9.0 + noise, rel=1e-6)
    assert int(out["index"]) == 3
    gradient = jax.jit(jax.grad(lambda t: fn(t, index, key)["value"]))(tree)
    np.testing.assert_allclose(gradient["a"], [0, 0, 6.0])


def test_island_leaves_the_configuration_alone():
    before = jax.config.jax_enable_x64
    seen = []
    ISLAND(X, SCALE)
    jax.grad(ISLAND, argnums=1)(jnp.asarray(X), jnp.asarray(SCALE))
    thread = threading.Thread(target=lambda: seen.append(jnp.asarray(1.0).dtype))
    with jax.enable_x64(True):
        thread.start()
        thread.join()
    assert seen == [jnp.float32]
    assert jax.config.jax_enable_x64 == before
    assert jnp.asarray(1.0).dtype == jnp.float32


def test_device_names():
    cpu = jax.devices("cpu")[0]
    assert devices.resolve("cpu") == cpu
    assert devices.resolve("cpu:0") == cpu
    assert devices.resolve(cpu) == cpu
    assert devices.resolve("auto") == jax.devices()[0]
    assert any(row["used"] for row in devices.describe())


@pytest.mark.parametrize("name", ["cpu:99", "cpu:x", "cpu:-1", "abacus", "abacus:0", ""])
def test_unknown_devices_are_refused(name):
    with pytest.raises(bn.InputError, match=r"[Dd]evice"):
        devices.resolve(name)


def test_using_sets_the_device_of_this_thread_only_while_open():
    cpu = jax.devices("cpu")[0]
    with devices.using("cpu"):
        assert devices.current_platform() == "cpu"
        assert jnp.zeros(2).devices() == {cpu}
    assert jax.config.jax_default_device is None


def test_side_by_side_keeps_the_order_and_uses_threads(monkeypatch):
    monkeypatch.setattr(devices, "cpu_count", lambda: 3)
    names = set()

    def work(i):
        names.add(threading.current_thread().name)
        time.sleep(0.02 * (4 - i))  # the first item finishes last
        return i * i

    assert devices.run_side_by_side(work, range(4)) == [0, 1, 4, 9]
    assert len(names) > 1


def test_side_by_side_raises_what_the_work_raised(monkeypatch):
    monkeypatch.setattr(devices, "cpu_count", lambda: 2)

    def work(i):
        if i == 1:
            raise ZeroDivisionError("item 1")
        return i

    with pytest.raises(ZeroDivisionError, match="item 1"):
        devices.run_side_by_side(work, [0, 1, 2])


def test_side_by_side_carries_the_settings_of_the_caller(monkeypatch):
    monkeypatch.setattr(devices, "cpu_count", lambda: 2)
    cpu = jax.devices("cpu")[0]

    def work(_):
        return jnp.asarray(1.0).dtype, jax.config.jax_default_device

    with jax.enable_x64(True), devices.using("cpu"):
        assert devices.run_side_by_side(work, [0, 1]) == [(jnp.float64, cpu)] * 2
    assert devices.run_side_by_side(work, [0, 1]) == [(jnp.float32, None)] * 2
